"""The page of CNI cases: 78 rows, and every test that it names is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cni.md").read_text()
ROWS = re.findall(r"^\| (\d+) \| (.+) \| (.+) \|$", PAGE, re.MULTILINE)
NAMED = re.findall(r"`(\w+)::(\w+)`", PAGE)


def test_the_table_has_all_78_cases_in_order() -> None:
    assert [int(number) for number, _, _ in ROWS] == list(range(1, 79))


def test_each_case_has_a_test_or_a_reason() -> None:
    reason = re.compile(r"(not applicable|measured|open): ")
    assert [number for number, _, shown in ROWS if "::" not in shown and not reason.match(shown)] == []


def test_every_test_that_is_named_exists() -> None:
    assert NAMED
    texts = {path.stem: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    missing = [f"{file}::{name}" for file, name in NAMED if f"def {name}(" not in texts.get(file, "")]
    assert missing == []
