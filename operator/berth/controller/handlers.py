"""What kopf tells us: pools and reservations as they change.

Endpoints and Pods do not come this way. kopf copies and compares each object twice for each event and keeps a worker
for each object; `python -m bench.event_path` has the figures. For kinds that change rarely that is no cost, and kopf's
restarts, back-off and logging are worth having.
"""

from collections.abc import Callable
from typing import Any

import kopf

from berth.kube.resources import GROUP, POOLS, RESERVED, VERSION

Told = Callable[[str | None, dict[str, Any]], None]


def registry(pool: Told, reserved: Told, login: Callable[[], kopf.ConnectionInfo]) -> kopf.OperatorRegistry:
    """The handlers, in a registry of their own: nothing global."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.startup(registry=handlers)
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.watching.server_timeout = 300
        settings.watching.client_timeout = 330
        settings.networking.connect_timeout = 5
        settings.networking.request_timeout = 20
        settings.networking.error_backoffs = [0.2, 0.5, 1, *[2] * 30]

    @kopf.on.login(registry=handlers)
    async def log_in(**_: Any) -> kopf.ConnectionInfo:
        return login()

    @kopf.on.event(GROUP, VERSION, POOLS.plural, registry=handlers)
    async def pool_changed(event: Any, **_: Any) -> None:
        pool(event["type"], dict(event["object"]))

    @kopf.on.event(GROUP, VERSION, RESERVED.plural, registry=handlers)
    async def reserved_changed(event: Any, **_: Any) -> None:
        reserved(event["type"], dict(event["object"]))

    return handlers
