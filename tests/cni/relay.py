"""The compiled plugin, executed as a runtime does, and a small agent for it to talk to.

The agent here is a plain socket server which answers with given bytes, right or wrong, so that every way an answer
can go missing is one line. Each call runs with an environment of CNI_* alone: no PATH, no HOME.
"""

import json
import queue
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from berth_cni.frames import (
    HEADER_SIZE,
    SENT,
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


def as_the_caller_gave_it(request: Request) -> Request:
    """Without what the shim adds."""
    environment = {**request.environment}
    assert environment.pop(SENT).isdecimal()
    return Request(environment, request.stdin)


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
