"""One place for all scenarios: starting it takes longer than most of them."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.cluster import ControlPlane
from tests.scenarios.stage import Place, Stage, close_place, open_place

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def place(api_server: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    subprocess.run(["make", "-s", "-C", ROOT / "cni-plugin" / "shim", f"PYTHON={sys.executable}"], check=True)
    shim = ROOT / "cni-plugin" / "bin" / "berth"
    place = open_place(api_server, shim, tmp_path_factory.mktemp("nodes"), ("node-a", "node-b"))
    yield place
    close_place(place)


@pytest.fixture
def stage(place: Place) -> Iterator[Callable[..., Stage]]:
    """Opens a stage; each that was opened is closed, with its checks, unless the story has failed already."""
    opened: list[Stage] = []

    def open_stage(name: str, **annotations: str) -> Stage:
        opened.append(Stage(place, name, **annotations))
        return opened[-1]

    yield open_stage
    for each in opened:
        each.close()
