"""The page of reasons and the enum hold each other."""

import re
from pathlib import Path

from berth.core.reasons import Reason

PAGE = Path(__file__).parents[2] / "docs" / "reasons.md"


def test_every_reason_is_explained_and_no_other() -> None:
    explained = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE))
    assert explained == {reason.value for reason in Reason}
