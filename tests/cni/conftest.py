"""The shim, built, and a path for its agent's socket."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cni.relay import PLUGIN, Agent


@pytest.fixture(scope="session")
def shim() -> Path:
    subprocess.run(["make", "-s", "-C", PLUGIN / "shim", f"PYTHON={sys.executable}"], check=True)
    return PLUGIN / "bin" / "berth"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "berth.sock"


@pytest.fixture
def agent(path: Path) -> Iterator[Agent]:
    with Agent(path) as running:
        yield running
