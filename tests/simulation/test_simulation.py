"""The simulation as a test: histories without a violation, the protocol explored, and every bug on purpose found.

Each runs in a process of its own with a fixed hash seed, so that what fails here replays exactly by its seed.
"""

import os
import subprocess
import sys

import pytest

from tests.simulation.bugs import BUGS
from tests.simulation.exhaustive import BOUNDS, Bounds, explore
from tests.simulation.exhaustive import BUGS as BROKEN_RULES
from tests.simulation.history import run

HISTORIES = int(os.environ.get("BERTH_SIM_SEEDS", "2000"))
ENOUGH_BUGS = 10


def _simulate(*arguments: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    # What Python warns of at its end (a coroutine that a crash left unstarted) is not the simulation's word.
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-20_000:]
    return ended.stdout


def test_no_history_breaks_the_promise() -> None:
    said = _simulate("--seeds", str(HISTORIES))
    assert "0 violations" in said.splitlines()[-1]


def test_every_bug_on_purpose_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    said = _simulate("--hunt", "--seeds", "400")
    with capsys.disabled():
        sys.stdout.write("\n" + said)
    assert f"{len(BUGS)} of {len(BUGS)} seeded bugs found" in said
    assert len(BUGS) >= ENOUGH_BUGS


def test_a_history_follows_from_its_seed() -> None:
    assert run(8, trace=True) == run(8, trace=True)


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
def test_the_protocol_holds_in_every_history(bounds: Bounds) -> None:
    assert not explore(bounds).violation


@pytest.mark.parametrize("rule", BROKEN_RULES)
def test_the_exploration_sees_a_broken_rule(rule: str) -> None:
    assert any(explore(bounds, rule).violation for bounds in BOUNDS)
