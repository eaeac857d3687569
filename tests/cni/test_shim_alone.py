"""The shim without an agent: an error in the words of CNI, or a DEL that waits for it."""

import json
import os
import socket
import struct
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from berth_cni import spool
from berth_cni.frames import REPLY_LIMIT, Request
from tests.cni.relay import Agent, Outcome, answer, as_the_caller_gave_it, configuration, run, variables

# The agent is away.


@pytest.mark.parametrize(
    ("command", "code"), [("ADD", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50), ("FOO", 4), ("AD", 4)]
)
def test_without_an_agent_each_command_fails_in_the_words_of_cni(
    shim: Path, path: Path, command: str, code: int
) -> None:
    error = run(shim, variables(command), configuration(path)).error
    assert (error["code"], error["cniVersion"]) == (code, "1.0.0")
    if code == 4:
        assert "CNI_COMMAND" in error["msg"]
        assert error["details"] == command
    else:
        assert str(path) in error["msg"]
        assert "is the agent running on this node?" in error["msg"]
        assert error["details"] == "connect: No such file or directory"
    assert not spool.folder(path).exists()


def test_an_error_says_version_1_1_0_when_the_configuration_names_none(shim: Path) -> None:
    assert run(shim, variables("ADD"), b'{"ipam":{"socket":"/x/s"}}').error["cniVersion"] == "1.1.0"


def test_a_strange_command_is_still_one_valid_object(shim: Path) -> None:
    error = run(shim, variables('"\\\n\udcff' * 400), b'{"ipam":{"socket":"/x/s"}}').error
    assert error["code"] == 4
    assert error["details"].startswith('"\\??"\\')


BROKEN = {
    "closed at once": b"",
    "a partial header": answer()[:7],
    "a header alone": answer()[:12],
    "a partial answer": answer()[:-1],
    "another protocol": b"HTTP" + answer()[4:],
    "an exit code that would wrap to success": struct.pack(">4sII", b"BRT1", 256, 0),
    "a length out of bounds": struct.pack(">4sII", b"BRT1", 0, REPLY_LIMIT + 1) + b"x" * (REPLY_LIMIT + 1),
}


@pytest.mark.parametrize("reply", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_answer_counts_as_no_agent(shim: Path, path: Path, reply: bytes) -> None:
    with Agent(path, lambda request: reply):
        error = run(shim, variables("ADD"), configuration(path)).error
        assert (error["code"], error["details"]) == (11, "read the answer: Protocol error")
        assert run(shim, variables("STATUS"), configuration(path)).error["code"] == 50
        assert run(shim, variables("DEL"), configuration(path)) == Outcome(0, b"")
    assert len(spool.pending(path)) == 1


def test_a_socket_that_nobody_listens_on_or_that_is_none_counts_as_no_agent(shim: Path, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
    assert run(shim, variables("ADD"), configuration(path)).error["details"] == "connect: Connection refused"
    path.unlink()
    path.write_text("")
    assert run(shim, variables("ADD"), configuration(path)).error["code"] == 11


def test_status_gives_up_after_five_seconds_on_a_silent_agent_and_on_a_full_queue(shim: Path, tmp_path: Path) -> None:
    silent, full = tmp_path / "silent", tmp_path / "full"
    with ExitStack() as stack:
        for path, backlog in ((silent, 8), (full, 0)):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen(backlog)
        stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(full))
        started = time.monotonic()
        calls = []
        for path in (silent, full):
            call = subprocess.Popen([shim], env=variables("STATUS"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.enter_context(call)
            assert call.stdin is not None
            call.stdin.write(configuration(path))
            call.stdin.close()
            calls.append(call)
        for call in calls:
            assert call.stdout is not None
            assert json.loads(call.stdout.read())["code"] == 50
            assert call.wait(5) == 1
        assert 4.5 < time.monotonic() - started < 9


# A DEL that waits for the agent.


def test_a_del_is_kept_as_the_request_it_is_and_the_runtime_told_of_success(shim: Path, path: Path) -> None:
    environment = variables("DEL", CNI_NETNS="", CNI_ODD="\udcff")
    assert run(shim, environment, configuration(path)) == Outcome(0, b"")
    (kept,) = spool.pending(path)
    assert as_the_caller_gave_it(kept.request) == Request(environment, configuration(path))
    assert kept.path.name.startswith("abc123-eth0-")
    assert kept.path.stat().st_mode & 0o777 == 0o600
    assert spool.folder(path).stat().st_mode & 0o777 == 0o700
    assert os.listdir(spool.folder(path)) == [kept.path.name]


def test_the_same_del_again_is_one_file_and_another_attachment_another(shim: Path, path: Path) -> None:
    for more in ({}, {}, {"CNI_IFNAME": "net1"}, {"CNI_CONTAINERID": "abd"}, {"CNI_ARGS": "order=differs"}):
        assert run(shim, variables("DEL", **more), configuration(path)).code == 0
    assert run(shim, variables("DEL"), configuration(path, name="other")).code == 0
    assert len(spool.pending(path)) == 4


@pytest.mark.parametrize("identity", ["../../etc/x", ".hidden", "/", "", "a b\n*", "x" * 5000, "\udcff", "a.b_c-d"])
def test_no_container_id_leaves_the_folder_or_hides_in_it(shim: Path, path: Path, identity: str) -> None:
    assert run(shim, variables("DEL", CNI_CONTAINERID=identity), configuration(path)).code == 0
    (kept,) = spool.pending(path)
    assert kept.request.environment["CNI_CONTAINERID"] == identity
    assert [entry.name for entry in path.parent.iterdir()] == ["berth.sock.spool"]


def test_identities_that_look_alike_when_made_safe_stay_apart(shim: Path, path: Path) -> None:
    for identity in ("a/b", "a.b", "y" * 200 + "1", "y" * 200 + "2"):
        assert run(shim, variables("DEL", CNI_CONTAINERID=identity), configuration(path)).code == 0
    assert len(spool.pending(path)) == 4


def test_the_socket_folder_is_made_when_a_reboot_took_it(shim: Path, tmp_path: Path) -> None:
    path = tmp_path / "berth" / "berth.sock"
    assert run(shim, variables("DEL"), configuration(path)) == Outcome(0, b"")
    assert len(spool.pending(path)) == 1


def test_a_full_spool_makes_the_del_fail_so_that_the_runtime_retries(shim: Path, path: Path) -> None:
    folder = spool.folder(path)
    folder.mkdir()
    for number in range(4095):
        (folder / str(number)).touch()
    assert run(shim, variables("DEL"), configuration(path)) == Outcome(0, b"")
    error = run(shim, variables("DEL", CNI_CONTAINERID="one-more"), configuration(path)).error
    assert error["code"] == 11
    assert "the spool is full" in error["details"]
    assert len(os.listdir(folder)) == 4096


def test_a_spool_that_is_no_folder_makes_the_del_fail(shim: Path, path: Path) -> None:
    spool.folder(path).touch()
    error = run(shim, variables("DEL"), configuration(path)).error
    assert error["code"] == 11
    assert error["details"] == "connect: No such file or directory; keep it: open the spool folder: Not a directory"


def test_a_hundred_dels_at_once_are_all_kept(shim: Path, path: Path) -> None:
    with ExitStack() as stack:
        calls = []
        for number in range(100):
            call = stack.enter_context(
                subprocess.Popen([shim], env=variables("DEL", CNI_CONTAINERID=f"id{number}"), stdin=subprocess.PIPE)
            )
            assert call.stdin is not None
            call.stdin.write(configuration(path))
            call.stdin.close()
            calls.append(call)
        assert [call.wait(30) for call in calls] == [0] * 100
    assert {kept.request.environment["CNI_CONTAINERID"] for kept in spool.pending(path)} == {
        f"id{n}" for n in range(100)
    }
