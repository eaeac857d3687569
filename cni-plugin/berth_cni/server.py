"""The unix socket that shims call: frames in, frames out, and nothing from anybody but root.

A caller that is slow, dead or talks nonsense is cut off and costs nobody else anything.
"""

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

from berth.kube.errors import BadConfiguration
from berth_cni.calls import TRY_LATER, CniError
from berth_cni.frames import (
    ACKNOWLEDGEMENT,
    HEADER_SIZE,
    Malformed,
    OtherVersion,
    Reply,
    Request,
    decode_request,
    encode_reply,
    request_body_size,
)
from berth_cni.result import failure
from berth_cni.underway import Caller, Underway

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 512
REQUEST_SECONDS = 10.0
ACKNOWLEDGE_SECONDS = 5.0

_PATH_LIMIT = 107
_CREDENTIALS = struct.Struct("3i")

Answer = Callable[[Request, Caller, Underway], Awaitable[None]]


class Connection(asyncio.Protocol):
    """One call of one shim."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._buffer = bytearray()
        self._wanted = HEADER_SIZE
        self._underway: Underway | None = None
        self._acknowledged: asyncio.Future[bool] | None = None
        self._answered = self._ended = False
        self.pid = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do what asyncio.Transport does, and are not instances of it.
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("socket")
        self.pid, uid, _ = _CREDENTIALS.unpack(
            peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        self._timer = asyncio.get_running_loop().call_later(REQUEST_SECONDS, self.cut_off, "no whole request in time")
        if uid not in self._server.allowed:
            self.cut_off(f"user {uid} may not ask for addresses")
        elif not self._server.admit(self):
            self.cut_off("too many calls at a time")

    def data_received(self, data: bytes) -> None:
        if self._underway is not None:
            if self._acknowledged is not None and not self._acknowledged.done() and data == ACKNOWLEDGEMENT:
                self._acknowledged.set_result(True)
            return None
        self._buffer += data
        if self._wanted == HEADER_SIZE and len(self._buffer) >= HEADER_SIZE:
            size = request_body_size(bytes(self._buffer[:HEADER_SIZE]))
            if isinstance(size, Malformed):
                return self.cut_off(size.reason)
            self._wanted += size
        if HEADER_SIZE < self._wanted <= len(self._buffer):
            request = decode_request(bytes(self._buffer))
            self._buffer.clear()
            if isinstance(request, OtherVersion):
                return self._refuse(request.reason)
            if isinstance(request, Malformed):
                return self.cut_off(request.reason)
            self._timer.cancel()
            self._underway = Underway()
            self._server.serve(request, self, self._underway)
        return None

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, error: Exception | None) -> None:
        self._end()
        self._timer.cancel()
        self._server.dismiss(self)

    @property
    def asked(self) -> bool:
        """Its request is whole."""
        return self._underway is not None

    async def deliver(self, exit_code: int, stdout: bytes, *, acknowledged: bool) -> bool:
        reply = _frame(exit_code, stdout)
        if self._ended or self._answered:
            return False
        self._answered = True
        if acknowledged:
            self._acknowledged = asyncio.get_running_loop().create_future()
            self._timer = asyncio.get_running_loop().call_later(ACKNOWLEDGE_SECONDS, self._stop_reading)
        self._transport.write(reply)
        got = await self._acknowledged if self._acknowledged is not None else True
        self._timer.cancel()
        self._transport.close()
        return got

    def abandon(self, why: str) -> None:
        if self._underway is not None:
            self._underway.abandon(why)

    def _stop_reading(self) -> None:
        """From now on the shim's ack fails, and its caller is told of an error. One sent before is still read."""
        with (
            contextlib.suppress(OSError),
            socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno())) as twin,
        ):
            twin.shutdown(socket.SHUT_RD)

    def _end(self) -> None:
        self._ended = True
        self.abandon("its caller went away")
        if self._acknowledged is not None and not self._acknowledged.done():
            self._acknowledged.set_result(False)

    def _refuse(self, why: str) -> None:
        log.warning("a shim of another version was refused", extra={"pid": self.pid, "error": why})
        error = CniError(
            TRY_LATER,
            "shim and agent are of different versions: install the shim that came with the agent (--install-shim)",
            f"the request {why}",
        )
        self._transport.write(_frame(1, failure(error)))
        self._transport.close()

    def cut_off(self, why: str) -> None:
        log.warning("a caller was cut off", extra={"pid": self.pid, "error": why})
        self._timer.cancel()
        self._server.dismiss(self)
        self._transport.abort()


class Server:
    def __init__(self, path: Path, answer: Answer) -> None:
        self.allowed = {0, os.geteuid()}
        self._path = path
        self._answer = answer
        self._connections: dict[Connection, None] = {}  # in the order they came
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.AbstractServer | None = None
        self._inode = 0

    async def start(self) -> None:
        listener = _listen(self._path)
        self._inode = os.stat(self._path).st_ino
        self._server = await asyncio.get_running_loop().create_unix_server(lambda: Connection(self), sock=listener)

    async def stop(self, grace: float) -> None:
        """No new calls; those under way may end within `grace`, then ADDs are given up and undone."""
        with contextlib.suppress(OSError):
            # Another agent may have put its own socket there by now.
            if os.stat(self._path).st_ino == self._inode:
                self._path.unlink()
        if self._server is not None:
            self._server.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for connection in list(self._connections):
            connection.abandon("the berth agent is being stopped")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)

    def admit(self, connection: Connection) -> bool:
        """When there are too many, one that has not said what it wants makes way: the one that has had longest."""
        if len(self._connections) >= MOST_CONNECTIONS:
            silent = next((each for each in self._connections if not each.asked), None)
            if silent is None:
                return False
            silent.cut_off("makes way for another call, having asked for nothing")
        self._connections[connection] = None
        return True

    def dismiss(self, connection: Connection) -> None:
        self._connections.pop(connection, None)

    def serve(self, request: Request, connection: Connection, underway: Underway) -> None:
        task = asyncio.get_running_loop().create_task(self._call(request, connection, underway))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, request: Request, connection: Connection, underway: Underway) -> None:
        await self._answer(request, connection, underway)


def _frame(exit_code: int, stdout: bytes) -> bytes:
    reply = encode_reply(Reply(exit_code, stdout))
    assert isinstance(reply, bytes), reply
    return reply


def _listen(path: Path) -> socket.socket:
    """Bound under another name and renamed into place: there is no moment without a socket, none with a lax mode."""
    temporary = path.with_name(f".{os.getpid()}")
    for candidate in (path, temporary):
        if len(os.fsencode(candidate)) > _PATH_LIMIT:
            raise BadConfiguration(f"--socket {path}: longer than the {_PATH_LIMIT} bytes of a unix socket's path")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        temporary.unlink(missing_ok=True)
        listener.bind(str(temporary))
        temporary.chmod(0o600)
        listener.listen(MOST_CONNECTIONS)
        temporary.rename(path)
    except OSError as error:
        listener.close()
        raise BadConfiguration(f"--socket {path}: {error.strerror}: name a path that can be made") from None
    return listener
