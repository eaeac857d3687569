"""DELs that came while the agent was away: the shim left each as a file, the agent replays them.

The folder is `<socket>.spool/`, a file is one request frame, named after its attachment. The shim renames a file into
place only when all of it is on disk, and tells the runtime of success only then: whatever is here was promised. So a
file that does not decode is kept for a human (as `.broken`), never guessed at and never silently dropped; one of
another version of the protocol stays where it is, for an agent that knows it.

No age is read from the wall clock, which may jump: a request says when it was sent, a temporary file's name when it was
begun, both in milliseconds since boot.
"""

import contextlib
import logging
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from berth_cni.frames import REQUEST_LIMIT, Malformed, OtherVersion, Request, decode_request

# A shim lives for 65 s at most: an older temporary file is one whose shim was killed, and was promised to nobody.
ABANDONED_AFTER = 600.0

_BROKEN = ".broken"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SpooledRequest:
    """A DEL to replay; `discard(path)` once it is done."""

    path: Path
    request: Request


def folder(socket_path: Path) -> Path:
    return socket_path.with_name(socket_path.name + ".spool")


def pending(socket_path: Path) -> list[SpooledRequest]:
    """The spooled DELs, oldest first; before them those that do not say."""
    found: list[SpooledRequest] = []
    for name in _names(folder(socket_path)):
        path = folder(socket_path) / name
        try:
            content = _content(path)
        except FileNotFoundError:
            continue  # renamed or discarded meanwhile
        except OSError as error:
            _log.warning("spooled DEL %s cannot be read now: %s", path, error)
            continue
        if isinstance(content, OtherVersion):
            _log.warning("spooled DEL %s stays where it is: %s", path, content.reason)
        elif isinstance(content, Malformed):
            _move_aside(path, content)
        else:
            found.append(SpooledRequest(path, content))
    return sorted(found, key=lambda spooled: (spooled.request.sent or 0, spooled.path.name))


def discard(path: Path) -> None:
    """The DEL was done, or journalled elsewhere."""
    path.unlink(missing_ok=True)


def _names(spool: Path) -> list[str]:
    try:
        names = os.listdir(spool)
    except FileNotFoundError:
        return []
    except OSError as error:
        _log.warning("spool %s cannot be read: %s", spool, error)
        return []
    for name in names:
        if name.startswith(".tmp-"):
            _remove_abandoned(spool / name)
    return [name for name in names if not name.startswith(".") and not name.endswith(_BROKEN)]


def _content(path: Path) -> Request | Malformed:
    if not stat.S_ISREG(path.lstat().st_mode):
        return Malformed("not a regular file")
    with path.open("rb") as file:
        decoded = decode_request(file.read(REQUEST_LIMIT + 1))
    if isinstance(decoded, Request) and decoded.environment.get("CNI_COMMAND") != "DEL":
        return Malformed(f"CNI_COMMAND is {decoded.environment.get('CNI_COMMAND')!r}, and only a DEL is ever spooled")
    return decoded


def _move_aside(path: Path, why: Malformed) -> None:
    aside = path.with_name(path.name + _BROKEN)
    try:
        path.rename(aside)
    except OSError as error:
        _log.warning("spooled DEL %s is broken (%s) and cannot be moved aside: %s", path, why.reason, error)
    else:
        _log.warning("spooled DEL %s is broken and kept as %s: %s", path, aside.name, why.reason)


def _remove_abandoned(path: Path) -> None:
    begun = path.name.rpartition("-")[2]
    if not begun.isdecimal():
        return
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(begun) / 1000
    if not 0 <= age <= ABANDONED_AFTER:  # negative: from before a reboot
        with contextlib.suppress(OSError):  # gone meanwhile, or tried again next time
            path.unlink()
