"""What the shim (cni-plugin/shim/berth.c) and the agent say to each other, as bytes.

One connection carries one request, one reply and, for ADD, one acknowledgement; every integer is a big-endian u32:

    request  "BRT1"  environment length  stdin length   KEY=VALUE\\0 ...  stdin
    reply    "BRT1"  exit code           stdout length  stdout
    ack      "A"     the shim wrote the whole answer to its caller

A connection that ends without the ack means that nobody learnt of the address: the agent takes it back. An agent that
will not wait any longer shuts its reading side first and then reads what is left: the shim's ack either is there, or
fails and makes the shim's exit code an error. Both sides thus agree on whether the caller has the address.

The digit of "BRT1" is the version of a request's body. The header, and the whole of a reply, stay as they are in every
version: so a shim of any version understands an agent of any other, which says in a reply that it does not know the
body. What is new within a version is a variable more, which an older agent ignores.

This module is pure. A stream is read with two exact reads: `HEADER_SIZE` bytes, then `request_body_size` of them.
A spooled request (see spool.py) is the same frame in a file.
"""

import struct
from dataclasses import dataclass

MAGIC = b"BRT1"
ANY_VERSION = MAGIC[:3]
# When the shim was started, in milliseconds since boot (CLOCK_BOOTTIME).
SENT = "CNI_BERTH_BOOTTIME"
ACKNOWLEDGEMENT = b"A"
ENVIRONMENT_LIMIT = 64 * 1024
STDIN_LIMIT = 1024 * 1024
REPLY_LIMIT = 1024 * 1024
EXIT_CODE_LIMIT = 255

_HEADER = struct.Struct(">4sII")
HEADER_SIZE = _HEADER.size
REQUEST_LIMIT = HEADER_SIZE + ENVIRONMENT_LIMIT + STDIN_LIMIT


@dataclass(frozen=True, slots=True)
class Request:
    """One CNI call: its CNI_* variables and the network configuration, as the runtime gave them."""

    environment: dict[str, str]
    stdin: bytes

    @property
    def sent(self) -> int | None:
        """When its shim was started, in milliseconds since boot; None from one that does not say."""
        text = self.environment.get(SENT, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


@dataclass(frozen=True, slots=True)
class Reply:
    """What the shim prints, and the code it exits with."""

    exit_code: int
    stdout: bytes


@dataclass(frozen=True, slots=True)
class Malformed:
    """Bytes, or a value, that the protocol does not allow; never guessed at."""

    reason: str


class OtherVersion(Malformed):
    """Whole, and of a version of this protocol that is not ours: for an agent that knows it."""


def encode_request(request: Request) -> bytes | Malformed:
    entries = []
    for name, value in request.environment.items():
        if not _is_variable_name(name) or "\0" in value:
            return Malformed(f"{name!r} is not a CNI_ variable that an environment can hold")
        try:
            entries.append(f"{name}={value}".encode("utf-8", "surrogateescape") + b"\0")
        except UnicodeEncodeError:
            return Malformed(f"{name!r} holds what no environment can")
    environment = b"".join(entries)
    if (reason := _over_limits(len(environment), len(request.stdin))) is not None:
        return Malformed(reason)
    return _HEADER.pack(MAGIC, len(environment), len(request.stdin)) + environment + request.stdin


def decode_request(frame: bytes) -> Request | Malformed:
    size = request_body_size(frame[:HEADER_SIZE])
    if isinstance(size, Malformed):
        return size
    if len(frame) != HEADER_SIZE + size:
        return Malformed(f"the header promises {size} bytes, {len(frame) - HEADER_SIZE} follow")
    magic, environment_size, _ = _HEADER.unpack_from(frame)
    if magic != MAGIC:
        return OtherVersion(f"is of version {magic.decode('ascii', 'replace')}, this agent speaks {MAGIC.decode()}")
    end = HEADER_SIZE + environment_size
    environment = _decode_environment(frame[HEADER_SIZE:end])
    return environment if isinstance(environment, Malformed) else Request(environment, frame[end:])


def request_body_size(header: bytes) -> int | Malformed:
    """How many bytes follow the header of a request, of whatever version."""
    if len(header) < HEADER_SIZE:
        return Malformed(f"cut short: {len(header)} of the header's {HEADER_SIZE} bytes")
    magic, environment_size, stdin_size = _HEADER.unpack_from(header)
    if not magic.startswith(ANY_VERSION):
        return Malformed(f"starts with {magic!r}, not with {MAGIC!r}")
    reason = _over_limits(environment_size, stdin_size)
    return environment_size + stdin_size if reason is None else Malformed(reason)


def encode_reply(reply: Reply) -> bytes | Malformed:
    if not 0 <= reply.exit_code <= EXIT_CODE_LIMIT:
        return Malformed(f"{reply.exit_code} is not an exit code")
    if len(reply.stdout) > REPLY_LIMIT:
        return Malformed(f"a reply of {len(reply.stdout)} bytes; {REPLY_LIMIT} are allowed")
    return _HEADER.pack(MAGIC, reply.exit_code, len(reply.stdout)) + reply.stdout


def decode_reply(frame: bytes) -> Reply | Malformed:
    if len(frame) < HEADER_SIZE:
        return Malformed(f"cut short: {len(frame)} of the header's {HEADER_SIZE} bytes")
    magic, exit_code, size = _HEADER.unpack_from(frame)
    if magic != MAGIC:
        return Malformed(f"starts with {magic!r}, not with {MAGIC!r}")
    if exit_code > EXIT_CODE_LIMIT or size > REPLY_LIMIT:
        return Malformed(f"exit code {exit_code} with {size} bytes is out of bounds")
    if len(frame) != HEADER_SIZE + size:
        return Malformed(f"the header promises {size} bytes, {len(frame) - HEADER_SIZE} follow")
    return Reply(exit_code, frame[HEADER_SIZE:])


def _over_limits(environment_size: int, stdin_size: int) -> str | None:
    if environment_size > ENVIRONMENT_LIMIT:
        return f"an environment of {environment_size} bytes; {ENVIRONMENT_LIMIT} are allowed"
    if stdin_size > STDIN_LIMIT:
        return f"a configuration of {stdin_size} bytes; {STDIN_LIMIT} are allowed"
    return None


def _decode_environment(block: bytes) -> dict[str, str] | Malformed:
    if block and not block.endswith(b"\0"):
        return Malformed("the environment's last variable is cut short")
    environment: dict[str, str] = {}
    for entry in block.split(b"\0")[:-1]:
        name, equals, value = entry.decode("utf-8", "surrogateescape").partition("=")
        if not equals or not _is_variable_name(name):
            return Malformed(f"{entry[:64]!r} is not a CNI_ variable")
        # Of two the first, as getenv has it: the shim acted on that one.
        environment.setdefault(name, value)
    return environment


def _is_variable_name(name: str) -> bool:
    return name.startswith("CNI_") and "=" not in name and "\0" not in name
