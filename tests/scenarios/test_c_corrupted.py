"""Scenario C, a ledger that somebody broke: nothing is guessed, the pool says why, and the other pools go on."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from e2e.cluster.shell import wait_for
from tests.scenarios.stage import Object, Stage

pytestmark = pytest.mark.api
Open = Callable[..., Stage]

BROKEN = {
    "no base64": {"blocks": {"10.102.210.0": "not a block"}},
    "pending and settled": {"pending": {"10.102.210.1": "another claim"}},
}


def status(story: Stage, key: str) -> Any:
    return json.loads(story.place.plane.kubectl("get", "ippool", story.pool(key), "-o", "json"))["status"]


def write_ledger(story: Stage, key: str, ledger: Object) -> None:
    patch = ["--subresource=status", "--type=merge", "-p", json.dumps({"status": {"ledger": ledger}})]
    story.place.plane.kubectl("patch", "ippool", story.pool(key), *patch)


def ready(story: Stage, key: str) -> tuple[str, str, str]:
    found = next(each for each in status(story, key)["conditions"] if each["type"] == "Ready")
    return found["status"], found["reason"], found["message"]


@pytest.mark.parametrize("how", BROKEN)
def test_a_ledger_that_cannot_be_read_stops_its_pool_and_no_other_until_it_is_mended(stage: Open, how: str) -> None:
    """A writer of ledgers counts them: so is it known that this one was written, and is to be read."""
    story = stage(f"c-corrupted-{list(BROKEN).index(how)}")
    story.pools(four="10.102.210.0/28", other="10.102.211.0/28")
    assert story.add("one", pools=story.pool("four")).addresses == ("10.102.210.1",)
    story.check()
    wait_for("what is held to be settled", lambda: bool(status(story, "four")["ledger"].get("blocks")), 10)
    whole = status(story, "four")["ledger"]
    write_ledger(story, "four", {**BROKEN[how], "sequence": whole["sequence"] + 1})
    wait_for("the condition", lambda: ready(story, "four")[:2] == ("False", "LedgerCorrupt"), 30)
    assert "Restore status.ledger" in ready(story, "four")[2]

    refused = story.add("two", pools=story.pool("four"))
    assert refused.addresses == ()
    assert story.pool("four") in refused.message
    assert story.add("three", pools=story.pool("other")).addresses == ("10.102.211.1",)
    story.end("one")  # its address cannot come back yet, and is not forgotten

    # A merge leaves what was added: what the broken ledger has too much is taken out by its name.
    mended = {part: {**dict.fromkeys(added), **whole.get(part, {})} for part, added in BROKEN[how].items()}
    write_ledger(story, "four", {**mended, "sequence": whole["sequence"] + 2})
    wait_for("the pool to serve", lambda: ready(story, "four")[0] == "True", 30)
    assert story.add("four", pools=story.pool("four")).addresses
    # That of the first is in doubt, since no Endpoint says it: for as long as the grace.
    wait_for("the address to come back", lambda: status(story, "four")["allocated"] == 1, 30)


@pytest.mark.parametrize("how", BROKEN)
def test_what_a_person_scribbles_into_a_ledger_is_written_over_by_who_knows_better(stage: Open, how: str) -> None:
    """Its sequence has not moved, so nobody has granted anything: what the leader knows holds."""
    story = stage(f"c-scribbled-{list(BROKEN).index(how)}")
    story.pools(four="10.102.210.0/28")
    assert story.add("one", pools=story.pool("four")).addresses == ("10.102.210.1",)
    story.check()
    write_ledger(story, "four", BROKEN[how])
    assert story.add("two", pools=story.pool("four")).addresses == ("10.102.210.2",)
    story.check()
