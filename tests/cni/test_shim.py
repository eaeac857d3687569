"""The shim as a relay: VERSION by itself; what is asked, what is answered, and whether the caller has heard it."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from berth_cni import spool
from berth_cni.frames import ENVIRONMENT_LIMIT, REPLY_LIMIT, SENT, STDIN_LIMIT, Request
from tests.cni.relay import (
    RESULT,
    SUPPORTED,
    Agent,
    Outcome,
    answer,
    as_the_caller_gave_it,
    configuration,
    in_shell,
    run,
    variables,
)

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
    before = time.clock_gettime(time.CLOCK_BOOTTIME) - 60
    request = agent.requests.get(timeout=5)
    assert as_the_caller_gave_it(request) == Request(environment, stdin)
    assert before < int(request.environment[SENT]) / 1000 <= time.clock_gettime(time.CLOCK_BOOTTIME)


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
    said = {**variables("ADD"), SENT: str(int(time.clock_gettime(time.CLOCK_BOOTTIME) * 1000)), "CNI_X": ""}
    filler = "x" * (ENVIRONMENT_LIMIT - sum(len(f"{name}={value}") + 1 for name, value in said.items()))
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
