"""An installation that does not get ready: what is told, and that nothing hides the first cause."""

import json
from pathlib import Path
from typing import Any

import pytest

from e2e import image
from e2e import install as installing
from e2e.cluster.errors import StartError


class Stuck:
    """A cluster on which one agent crashes."""

    def kubectl(self, *argv: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
        if argv[:2] == ("get", "pods"):
            return json.dumps({"items": [pod("berth-agent-a", "False"), pod("berth-operator-b", "True")]})
        if argv[0] == "logs":
            return "" if "--previous" in argv else "berth: --state-dir: read-only\n"
        if argv[:2] == ("get", "events"):
            return "BackOff: back-off restarting\n"
        if "daemonset/berth-agent" in argv:
            return part("DaemonSet", numberReady=1, updatedNumberScheduled=2, desiredNumberScheduled=2)
        return part("Deployment", readyReplicas=2, updatedReplicas=2)

    def import_image(self, archive: Path) -> None:
        pass


def pod(name: str, ready: str) -> dict[str, Any]:
    state = {"waiting": {"reason": "CrashLoopBackOff"}}
    status = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": ready}],
        "containerStatuses": [{"state": state}],
    }
    return {"metadata": {"name": name}, "spec": {"nodeName": "node-1"}, "status": status}


def part(kind: str, **status: int) -> str:
    return json.dumps(
        {
            "kind": kind,
            "metadata": {"generation": 1},
            "spec": {"replicas": 2},
            "status": {"observedGeneration": 1} | status,
        }
    )


def test_who_is_not_ready_is_named_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "image.tar"
    archive.touch()
    monkeypatch.setattr(image, "build", lambda: archive)
    with pytest.raises(StartError) as failure:
        installing.install(Stuck(), bound=0.1)
    said = str(failure.value)
    assert "berth-agent-a on node-1: Running" in said
    assert "CrashLoopBackOff" in said
    assert "    berth: --state-dir: read-only" in said
    assert "    event BackOff: back-off restarting" in said
    assert "berth-operator-b" not in said
    assert "operator 2/2, webhook 2/2, agent 1/2" in capsys.readouterr().err
