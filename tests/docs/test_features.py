"""The page of features names tests; each of them exists."""

import re
from pathlib import Path

from tests.admission.test_rules import ALLOWED, REFUSALS
from tests.api.test_crds import BAD, CHANGES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "features.md"


def test_every_test_that_the_page_names_exists() -> None:
    written = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    tests = set(re.findall(r"^(?:async )?def (test_\w+)", written, re.MULTILINE))
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text()))
    assert named - tests == set()
    assert len(named) > 30


def test_every_row_has_berth_its_test_and_five_peers() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    compared = [row for row in rows if row.count("|") > 5]
    assert {row.count("|") for row in compared} == {9}
    for row in compared:
        feature, berth, shown = (cell.strip() for cell in row.split("|")[1:4])
        if berth.startswith("yes") and feature != "feature":
            assert shown.startswith("`"), f"{feature}: nothing shows it"


def test_every_folder_and_file_that_the_page_names_exists() -> None:
    for path in re.findall(r"`((?:tests|e2e|docs)/[\w/.]+)`", PAGE.read_text()):
        assert (ROOT / path).exists(), path


def test_every_story_of_admission_that_the_page_names_exists() -> None:
    section = PAGE.read_text().split("## Admission")[1].split("## Operating it")[0]
    stories = {story.name for story in (*REFUSALS, *ALLOWED)} | {story for story, *_ in (*BAD, *CHANGES)}
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    named = {name for row in rows for name in re.findall(r"\*([^*]+)\*", row)}
    assert named - stories == set()
    assert len(named) > 30
