"""What all tests share: how long hypothesis searches. `HYPOTHESIS_PROFILE=long` searches for minutes."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, max_examples=60, stateful_step_count=40)
settings.register_profile(
    "long",
    deadline=None,
    max_examples=3000,
    stateful_step_count=120,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
