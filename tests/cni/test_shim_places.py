"""The shim on any host: what is closed, missing or read-only changes no answer; how it is built and replaced."""

import json
import os
import platform
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from berth_cni import spool
from tests.cni.relay import PLUGIN, RESULT, SUPPORTED, Agent, Outcome, configuration, in_shell, run, variables

# Places where a plugin may find itself.


@pytest.mark.parametrize(
    "script",
    ['exec "$0" 2>&-', 'umask 077; exec "$0"', 'umask 0; exec "$0"', 'mkdir "$1"; cd "$1"; rmdir "$1"; exec "$0"'],
    ids=["stderr closed", "umask 077", "umask 0", "working directory deleted"],
)
def test_a_strange_place_changes_no_answer(shim: Path, path: Path, tmp_path: Path, script: str) -> None:
    environment = variables("ADD", PATH=os.defpath)
    with Agent(path) as agent:
        done = in_shell(shim, script, environment, configuration(path), str(tmp_path / "gone"))
        assert done == Outcome(0, RESULT)
        assert agent.endings.get(timeout=5) == b"A"
    path.unlink()
    deleted = in_shell(shim, script, {**environment, "CNI_COMMAND": "DEL"}, configuration(path), str(tmp_path / "gone"))
    assert deleted == Outcome(0, b"")
    (kept,) = spool.pending(path)
    assert kept.path.stat().st_mode & 0o777 == 0o600
    assert spool.folder(path).stat().st_mode & 0o777 == 0o700


def test_a_closed_stdin_is_an_input_error_and_no_matter_for_version(shim: Path) -> None:
    assert in_shell(shim, 'exec "$0" <&-', variables("ADD"), b"").error["code"] == 5
    assert json.loads(in_shell(shim, 'exec "$0" <&-', variables("VERSION"), b"").stdout)["cniVersion"] == "1.1.0"


def test_with_all_three_closed_the_answer_never_goes_into_the_socket(shim: Path, agent: Agent) -> None:
    script = f"exec 3<'{agent.path}.json'; exec \"$0\" <&3 >&- 2>&-"
    Path(f"{agent.path}.json").write_bytes(configuration(agent.path))
    assert in_shell(shim, script, variables("ADD"), b"").code == 1
    assert agent.endings.get(timeout=5) == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot and mount need root")
def test_an_empty_read_only_root_is_enough(shim: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy(shim, root / "berth")
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && exec chroot "$1" /berth'
    stdin = configuration(Path("/berth.sock"))

    def confined(command: str) -> Outcome:
        inside = 'exec unshare -m /bin/sh -c "$2" sh "$1"'
        return in_shell(
            shim, inside, variables(command, PATH="/usr/sbin:/usr/bin:/sbin:/bin"), stdin, str(root), script
        )

    version = confined("VERSION")
    if b"ermitted" in version.stderr or b"denied" in version.stderr:
        pytest.skip("mounts are not allowed here")
    assert json.loads(version.stdout)["supportedVersions"] == SUPPORTED
    assert confined("ADD").error["code"] == 11
    error = confined("DEL").error
    assert error["code"] == 11
    assert error["details"].endswith("open the spool folder: Read-only file system")


def test_a_new_version_is_put_in_place_while_the_old_one_runs(shim: Path, path: Path, tmp_path: Path) -> None:
    installed = tmp_path / "berth"
    shutil.copy(shim, installed)
    with (
        Agent(path),
        subprocess.Popen([installed], env=variables("ADD"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as call,
    ):
        with pytest.raises(OSError, match="Text file busy"):
            installed.open("r+b").close()
        shutil.copy(shim, tmp_path / "berth.new")
        (tmp_path / "berth.new").replace(installed)
        assert run(installed, variables("STATUS"), configuration(path)) == Outcome(0, RESULT)
        assert call.communicate(configuration(path), timeout=10)[0] == RESULT
        assert call.returncode == 0


@pytest.mark.parametrize(("architecture", "machine"), [("amd64", 62), ("arm64", 183)])
def test_both_architectures_are_built_static(shim: Path, architecture: str, machine: int) -> None:
    image = (PLUGIN / "bin" / architecture / "berth").read_bytes()
    assert image[:6] == b"\x7fELF\x02\x01"
    assert struct.unpack_from("<H", image, 18)[0] == machine
    table, entry_size, entries = (
        struct.unpack_from("<Q", image, 32)[0],
        *struct.unpack_from("<HH", image, 54),
    )
    kinds = {struct.unpack_from("<I", image, table + entry_size * index)[0] for index in range(entries)}
    assert 1 in kinds  # something to load
    assert not kinds & {2, 3}  # no dynamic section, no interpreter


def test_the_plugin_is_the_one_of_this_machine(shim: Path) -> None:
    here = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    assert shim.read_bytes() == (PLUGIN / "bin" / here / "berth").read_bytes()
