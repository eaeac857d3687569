"""The benchmark in small: real control plane, operator, agents and plugins; correct, within budget, nothing left."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import orjson
import pytest

from e2e.cluster import process

pytestmark = pytest.mark.api
ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_forty_pods_from_forty_addresses(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="bt-"))  # short: sockets are below it
    small = {
        "BENCH_PODS": "40",
        "BENCH_NODES": "2",
        "BENCH_CONTENDERS": "berth",
        "BENCH_RESULTS": str(tmp_path),
        "TMPDIR": str(folder),
    }
    done = subprocess.run(
        [sys.executable, "-m", "bench"], cwd=ROOT, env=os.environ | small, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = tmp_path.glob("*.json")
    (trial,) = orjson.loads(result.read_bytes())["trials"]
    assert trial["faults"] == []
    assert [phase["adds"]["count"] for phase in trial["phases"].values()] == [40, 40, 0]
    assert [phase["dels"]["count"] for phase in trial["phases"].values()] == [0, 40, 40]
    assert trial["phases"]["create"]["api"]["POST endpoints"] == 40
    assert result.with_suffix(".svg").exists()
    assert [place for place in process.marked().values() if place.is_relative_to(folder)] == []
    folder.rmdir()  # it is empty
