"""The compiled plugin, executed as a runtime does, against a small agent in this file and against none.

The agent here is a plain socket server which answers with given bytes, right or wrong, so that every way an answer
can go missing is one line. Each call runs with an environment of CNI_* alone: no PATH, no HOME.
"""

import json
import os
import platform
import queue
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from berth_cni import spool
from berth_cni.frames import (
    ENVIRONMENT_LIMIT,
    HEADER_SIZE,
    REPLY_LIMIT,
    STDIN_LIMIT,
    Malformed,
    Reply,
    Request,
    decode_reply,
    decode_request,
    encode_reply,
    request_body_size,
)

PLUGIN = Path(__file__).parents[2] / "cni-plugin"
SUPPORTED = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
ATTACHMENT = {
    "CNI_CONTAINERID": "abc123",
    "CNI_IFNAME": "eth0",
    "CNI_NETNS": "/run/netns/x",
    "CNI_PATH": "/opt/cni/bin",
}
RESULT = b'{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.5/16"}]}'


@pytest.fixture(scope="session")
def shim() -> Path:
    subprocess.run(["make", "-s", "-C", PLUGIN / "shim", f"PYTHON={sys.executable}"], check=True)
    return PLUGIN / "bin" / "berth"


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int
    stdout: bytes
    stderr: bytes = b""

    @property
    def error(self) -> dict[str, Any]:
        """The error object: one JSON document, nothing beside it, and an exit code that fits."""
        assert self.code != 0
        document: dict[str, Any] = json.loads(self.stdout)
        assert set(document) == {"cniVersion", "code", "msg", "details"}
        assert isinstance(document["code"], int)
        assert document["msg"]
        return document


def variables(command: str, **more: str) -> dict[str, str]:
    return {"CNI_COMMAND": command, **ATTACHMENT, **more}


def configuration(socket_path: Path, **more: object) -> bytes:
    ipam = {"type": "berth", "socket": str(socket_path)}
    return json.dumps({"cniVersion": "1.0.0", "name": "net", "type": "macvlan", "ipam": ipam, **more}).encode()


def run(shim: Path, environment: dict[str, str], stdin: bytes) -> Outcome:
    done = subprocess.run([shim], env=environment, input=stdin, capture_output=True, timeout=90, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


def in_shell(shim: Path, script: str, environment: dict[str, str], stdin: bytes, *more: str) -> Outcome:
    """Runs `script`, in which "$0" is the shim."""
    command = ["/bin/sh", "-c", script, str(shim), *more]
    done = subprocess.run(command, env=environment, input=stdin, capture_output=True, timeout=90, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


def answer(exit_code: int = 0, stdout: bytes = RESULT) -> bytes:
    frame = encode_reply(Reply(exit_code, stdout))
    assert isinstance(frame, bytes)
    return frame


@dataclass
class Agent:
    """Answers every request with what `reply` makes of it; notes the requests, and what came after each answer."""

    path: Path
    reply: Callable[[Request], bytes] = lambda request: answer()
    deaf: bool = False  # has shut its reading side before it answers: it no longer waits for the ack
    hold: bool = False  # answers nothing until the shim goes away
    requests: "queue.Queue[Request]" = field(default_factory=queue.Queue)
    endings: "queue.Queue[bytes]" = field(default_factory=queue.Queue)

    def __enter__(self) -> Self:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(512)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            header = stream.read(HEADER_SIZE)
            size = request_body_size(header)
            if not isinstance(size, int):
                return
            request = decode_request(header + stream.read(size))
            assert isinstance(request, Request)
            self.requests.put(request)
            if self.deaf:
                connection.shutdown(socket.SHUT_RD)
            with suppress(OSError):
                if not self.hold:
                    reply = self.reply(request)
                    connection.sendall(reply)
                    if isinstance(decode_reply(reply), Malformed):
                        return  # cut short: the connection ends here
                self.endings.put(stream.read())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "berth.sock"


@pytest.fixture
def agent(path: Path) -> Iterator[Agent]:
    with Agent(path) as running:
        yield running


# VERSION and about: the shim alone.


@pytest.mark.parametrize(
    ("stdin", "version"),
    [
        (b'{"cniVersion":"1.1.0"}', "1.1.0"),
        (b'{"cniVersion":"0.4.0"}', "0.4.0"),
        (b' {\n "a": {"cniVersion": "9"}, "cniVersion" : "0.3.1", "b": [1] }\n', "0.3.1"),
        (b"", "1.1.0"),
        (b"null", "1.1.0"),
        (b"[]", "1.1.0"),
        (b'{"cniVersion":', "1.1.0"),
        (b'{"cniVersion":7}', "1.1.0"),
        (b'{"cniVersion":""}', "1.1.0"),
        (b'{"cniVersion":"' + b"1" * 200 + b'"}', "1.1.0"),
        (b'{"cniVersion":"\\"\\\\\\u0007x"}', '"\\?x'),
        (b"\xff\xfe\x00", "1.1.0"),
    ],
)
def test_version_echoes_the_version_of_stdin_and_lists_what_is_supported(
    shim: Path, stdin: bytes, version: str
) -> None:
    done = run(shim, {"CNI_COMMAND": "VERSION"}, stdin)
    assert done.code == 0
    assert json.loads(done.stdout) == {"cniVersion": version, "supportedVersions": SUPPORTED}


def test_version_accepts_the_dummies_that_the_library_sends(shim: Path) -> None:
    dummies = {"CNI_COMMAND": "VERSION", "CNI_NETNS": "dummy", "CNI_IFNAME": "dummy", "CNI_PATH": "dummy"}
    assert run(shim, dummies, b'{"cniVersion":"1.1.0"}').code == 0


@pytest.mark.parametrize("sent", [b"", b'{"cniVersion":"0.4.0"}'])
def test_version_does_not_wait_for_a_stdin_that_stays_open(shim: Path, sent: bytes) -> None:
    with subprocess.Popen(
        [shim], env={"CNI_COMMAND": "VERSION"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(sent)
        process.stdin.flush()
        started = time.monotonic()
        said = json.loads(process.stdout.read())
        assert process.wait(5) == 0
        assert time.monotonic() - started < 1
    assert said["cniVersion"] == ("0.4.0" if sent else "1.1.0")


def test_version_never_asks_the_agent(shim: Path, agent: Agent) -> None:
    assert run(shim, variables("VERSION"), configuration(agent.path)).code == 0
    assert agent.requests.empty()


@pytest.mark.parametrize("environment", [{}, {"CNI_COMMAND": ""}, {"CNI_CONTAINERID": "x"}])
def test_without_a_command_the_about_text_goes_to_stderr(shim: Path, environment: dict[str, str]) -> None:
    done = run(shim, environment, b"")
    assert (done.code, done.stdout) == (0, b"")
    assert done.stderr.startswith(b"Berth CNI IPAM plugin 0")
    assert ", ".join(SUPPORTED).encode() in done.stderr


# The relay.


def test_the_agent_gets_the_cni_variables_and_stdin_as_they_were(shim: Path, agent: Agent) -> None:
    environment = variables("CHECK", CNI_ARGS="A=B=C;K8S_POD_NAME=x", CNI_="", CNI_ODD="\udcff\udcfe ü")
    stdin = configuration(agent.path, odd="\u2028 \\ ")
    done = run(shim, {**environment, "PATH": "/bin", "XCNI_A": "no", "CN": "no"}, stdin)
    assert done == Outcome(0, RESULT)
    assert agent.requests.get(timeout=5) == Request(environment, stdin)


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC", "STATUS", "FOO"])
@pytest.mark.parametrize(("code", "stdout"), [(0, b""), (0, RESULT), (1, b'{"code":100}'), (255, b"\0\xff")])
def test_the_answer_is_printed_byte_for_byte_with_its_exit_code(
    shim: Path, path: Path, command: str, code: int, stdout: bytes
) -> None:
    with Agent(path, lambda request: answer(code, stdout)):
        assert run(shim, variables(command), configuration(path)) == Outcome(code, stdout)
    assert not spool.folder(path).exists()


def test_a_configuration_and_an_answer_of_a_whole_mebibyte_pass(shim: Path, path: Path) -> None:
    stdin = configuration(path)
    stdin += b" " * (STDIN_LIMIT - len(stdin))
    large = random.Random(1).randbytes(REPLY_LIMIT)
    filler = "x" * (ENVIRONMENT_LIMIT - sum(len(f"{k}={v}") + 1 for k, v in variables("ADD").items()) - len("CNI_X=\0"))
    with Agent(path, lambda request: answer(0, large)) as agent:
        assert run(shim, variables("ADD", CNI_X=filler), stdin) == Outcome(0, large)
        assert agent.requests.get(timeout=5).stdin == stdin
        assert agent.endings.get(timeout=5) == b"A"
        one_more = run(shim, variables("ADD", CNI_X=filler + "x"), stdin).error
        assert (one_more["code"], "64 KiB" in one_more["msg"]) == (4, True)


@pytest.mark.parametrize("command", ["ADD", "DEL", "STATUS"])
def test_a_larger_configuration_is_refused_without_asking(shim: Path, agent: Agent, command: str) -> None:
    stdin = configuration(agent.path)
    error = run(shim, variables(command), stdin + b" " * (STDIN_LIMIT + 1 - len(stdin))).error
    assert (error["code"], "1 MiB" in error["msg"]) == (7, True)
    assert agent.requests.empty()


def test_two_hundred_calls_at_once_each_get_their_own_answer(shim: Path, path: Path) -> None:
    with (
        Agent(path, lambda request: answer(0, request.environment["CNI_CONTAINERID"].encode())) as agent,
        ExitStack() as all_,
    ):
        calls = []
        for number in range(200):
            call = all_.enter_context(
                subprocess.Popen(
                    [shim],
                    env=variables("ADD", CNI_CONTAINERID=f"id{number}"),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            calls.append(call)
        for call in calls:
            assert call.stdin is not None
            call.stdin.write(configuration(path))
            call.stdin.close()
        for number, call in enumerate(calls):
            assert call.stdout is not None
            assert call.stdout.read() == f"id{number}".encode()
            assert call.wait(30) == 0
        assert [agent.endings.get(timeout=5) for _ in calls] == [b"A"] * 200


def test_slow_writers_and_interruptions_change_nothing(shim: Path, path: Path) -> None:
    go = threading.Event()

    def late(request: Request) -> bytes:
        go.wait(10)
        return answer()

    with (
        Agent(path, late) as agent,
        subprocess.Popen([shim], env=variables("ADD"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as call,
    ):
        assert call.stdin is not None
        assert call.stdout is not None
        os.set_blocking(call.stdin.fileno(), False)
        stdin = configuration(path)
        for piece in (stdin[:10], stdin[10:11], stdin[11:]):
            time.sleep(0.02)
            os.write(call.stdin.fileno(), piece)
            call.send_signal(signal.SIGSTOP)
            time.sleep(0.02)
            call.send_signal(signal.SIGCONT)
        call.stdin.close()
        agent.requests.get(timeout=5)
        call.send_signal(signal.SIGSTOP)
        time.sleep(0.02)
        call.send_signal(signal.SIGCONT)
        go.set()
        assert call.stdout.read() == RESULT
        assert call.wait(5) == 0


# Which socket. A path that nobody listens on shows in the message.

DEFAULT = "/run/berth/berth.sock"
REFUSED = "absolute path"


@pytest.mark.parametrize(
    ("document", "used"),
    [
        ('{"ipam":{"socket":"/x/s"}}', "/x/s"),
        ('\t{ "name" : "n" ,\r\n "ipam" : { "type":"berth", "socket" : "/x/s" } , "z":null }\n', "/x/s"),
        ('{"socket":"/wrong","ipam":{"type":"berth"}}', DEFAULT),
        ('{"ipam":{"a":{"socket":"/wrong"},"socket":"/x/s","b":[{"socket":"/wrong"}]}}', "/x/s"),
        ('{"args":{"ipam":{"socket":"/wrong"}},"ipam":{}}', DEFAULT),
        ('{"plugins":[{"ipam":{"socket":"/wrong"}}]}', DEFAULT),
        ('{"a":"\\"ipam\\":{\\"socket\\":\\"/wrong\\"}","ipam":{"socket":"/x/s"}}', "/x/s"),
        ('{"a":"\\\\","ipam":{"socket":"/x/s"},"b":"{[\\\\\\""}', "/x/s"),
        ('{"ipam":{"a":"},\\"socket\\":\\"/wrong\\"","n":-1.5e+9,"t":true,"socket":"/x/s"}}', "/x/s"),
        ('{"ipam":{"s\\u006fck\\u0065t":"\\/x\\u002Fs"}}', "/x/s"),
        ('{"ipam":{"socket":"/a \\" \\\\ b"}}', '/a " \\ b'),
        ('{"ipam":{"socket":"/one","socket":"/two"},"ipam":{"socket":"/x/s"}}', "/x/s"),
        ('{"ipam":{"socket":"/one"},"ipam":{}}', DEFAULT),
        ('{"ipam":{"sockets":"/wrong","socke":"/wrong","Socket":"/wrong","socket ":"/wrong"}}', DEFAULT),
        ('{"ipam":[{"socket":"/wrong"}]}', DEFAULT),
        ('{"ipam":"socket"}', DEFAULT),
        ('{"ipam":{"socket":7}}', DEFAULT),
        ('{"ipam":{"socket":null}}', DEFAULT),
        ('{"ipam":{"socket":{"socket":"/wrong"}}}', DEFAULT),
        ('[{"ipam":{"socket":"/wrong"}}]', DEFAULT),
        ('"ipam"', DEFAULT),
        ("", DEFAULT),
        ("{}", DEFAULT),
        ('{"ipam":{}}', DEFAULT),
        ('{"ipam":{"socket":"/wrong"}', DEFAULT),
        ('{"ipam":{"socket":"/wrong', DEFAULT),
        ('{"ipam":{"socket":"/wrong\\', DEFAULT),
        ('{"ipam":{"socket":"/wrong\\u00', DEFAULT),
        ('{"ipam":{"socket":"/wrong\\x"}}', DEFAULT),
        ('{"ipam":{"socket":"/wr\nong"}}', DEFAULT),
        ('{"ipam":{"socket" "/wrong"}}', DEFAULT),
        ('{"ipam":{"socket":}}', DEFAULT),
        ('{"a":' + "[" * 200_000 + "]" * 200_000 + ',"ipam":{"socket":"/x/s"}}', "/x/s"),
        ('{"a":' + "[" * 200_000, DEFAULT),
        ('{"ipam":{"socket":"/' + "y" * 106 + '"}}', "/" + "y" * 106),
        ('{"ipam":{"socket":"/' + "y" * 107 + '"}}', REFUSED),
        ('{"ipam":{"socket":"relative"}}', REFUSED),
        ('{"ipam":{"socket":""}}', REFUSED),
        ('{"ipam":{"socket":"/x\\u0000/y"}}', REFUSED),
        ('{"ipam":{"socket":"/x\\u00e9"}}', REFUSED),
    ],
)
def test_the_socket_is_the_one_that_ipam_names(shim: Path, document: str, used: str) -> None:
    error = run(shim, variables("CHECK"), document.encode()).error
    assert (error["code"], f"{used}{'' if used == REFUSED else ':'} " in error["msg"]) == (
        7 if used == REFUSED else 11,
        True,
    )


@pytest.mark.parametrize("filler", ["[[", '{"a":', "\\u0041", "1,", " ", '"'])
def test_a_large_document_takes_no_time(shim: Path, filler: str) -> None:
    """A step that looks at all of the rest would make it a minute."""
    document = json.dumps({"a": filler * 100_000, "ipam": {"socket": "/x/s"}}).encode()
    bare = document.replace(b"\\\\", b"\\")
    started = time.monotonic()
    for text in (document, bare, (filler * 100_000).encode(), b'{"a":' + filler.encode() * 100_000):
        assert run(shim, variables("CHECK"), text).error["code"] == 11
    assert time.monotonic() - started < 5


def test_a_socket_path_beyond_ascii_works_when_written_as_it_is(shim: Path, tmp_path: Path) -> None:
    path = tmp_path / "bérth-北.sock"
    stdin = json.dumps({"ipam": {"socket": str(path)}}, ensure_ascii=False).encode()
    assert run(shim, variables("STATUS"), stdin).error["msg"].isascii()
    with Agent(path):
        assert run(shim, variables("STATUS"), stdin) == Outcome(0, RESULT)


PATHS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40).map(lambda text: "/" + text)
NESTED = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=8) | PATHS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["ipam", "socket", 'a"}', "\\"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.dictionaries(st.text(max_size=6), NESTED, max_size=3),
    inside=st.dictionaries(st.text(max_size=6), NESTED, max_size=3),
    named=PATHS,
    ascii_only=st.booleans(),
    indent=st.none() | st.integers(0, 2),
)
def test_any_document_is_read_as_a_json_library_reads_it(
    shim: Path, before: dict[str, Any], inside: dict[str, Any], named: str, ascii_only: bool, indent: int | None
) -> None:
    document = {**before, "ipam": {**inside, "socket": named, "z": inside}, "z": before}
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "replace")
    assert f"agent at {named}: is" in run(shim, variables("CHECK"), text).error["msg"]


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | st.text('{}[]":,\\u0ipamsocket /', max_size=60).map(str.encode))
def test_no_stdin_makes_the_shim_crash_or_print_anything_but_one_object(shim: Path, stdin: bytes) -> None:
    assert run(shim, variables("CHECK"), stdin).error["code"] in (7, 11)


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
    assert kept.request == Request(environment, configuration(path))
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


# The ack: whether the caller got the answer.


def test_an_add_is_acknowledged_when_its_answer_is_printed_and_nothing_else_is(shim: Path, agent: Agent) -> None:
    for command, ending in (("ADD", b"A"), ("DEL", b""), ("CHECK", b""), ("GC", b""), ("STATUS", b"")):
        assert run(shim, variables(command), configuration(agent.path)).code == 0
        assert agent.endings.get(timeout=5) == ending


@pytest.mark.parametrize("script", ['exec "$0" >&-', 'exec "$0" >/dev/full', 'exec "$0" 1</dev/null'])
def test_an_answer_that_cannot_be_printed_is_no_success_and_not_acknowledged(
    shim: Path, agent: Agent, script: str
) -> None:
    done = in_shell(shim, script, variables("ADD"), configuration(agent.path))
    assert (done.code, done.stdout) == (1, b"")
    assert agent.endings.get(timeout=5) == b""


@pytest.mark.parametrize("size", [10, 500_000])
def test_a_reader_that_is_gone_gives_no_ack_and_no_death_by_signal(shim: Path, path: Path, size: int) -> None:
    with Agent(path, lambda request: answer(0, b"x" * size)) as agent:
        with subprocess.Popen([shim], env=variables("ADD"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as call:
            assert call.stdin is not None
            assert call.stdout is not None
            call.stdout.close()
            call.stdin.write(configuration(path))
            call.stdin.close()
            assert call.wait(10) == 1
        assert agent.endings.get(timeout=5) == b""


def test_an_agent_that_no_longer_waits_for_the_ack_makes_the_add_fail(shim: Path, path: Path) -> None:
    with Agent(path, deaf=True) as agent:
        assert run(shim, variables("ADD"), configuration(path)).code == 1
        assert agent.endings.get(timeout=5) == b""


def test_a_caller_that_is_killed_takes_the_shim_with_it_and_the_agent_sees_the_end(shim: Path, path: Path) -> None:
    starter = "import subprocess,sys; subprocess.run([sys.argv[1]])"
    with Agent(path, hold=True) as agent:
        caller = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", starter, shim], env=variables("ADD"), stdin=subprocess.PIPE
        )
        with caller:
            assert caller.stdin is not None
            caller.stdin.write(configuration(path))
            caller.stdin.close()
            agent.requests.get(timeout=20)
            caller.kill()
        assert agent.endings.get(timeout=5) == b""


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
