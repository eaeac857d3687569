"""DELs that were promised and could not be done, on disk until they are.

A runtime that is told of success never asks again: so the file is whole and on disk before it is told. One file for
one attachment, named by its hash, put in place by rename. Replaying an entry twice does no harm, so its removal need
not reach the disk at once.
"""

import asyncio
import hashlib
import logging
import os
import secrets
from pathlib import Path

import orjson

from berth_cni.calls import Attachment

log = logging.getLogger(__name__)

# Three times the Pods of the largest node; beyond it something is broken, and a DEL must say so.
MOST_ENTRIES = 4096


class Journal:
    def __init__(self, folder: Path, most: int = MOST_ENTRIES) -> None:
        self._folder = folder
        self._most = most
        self._entries: dict[Attachment, Path] = {}
        self.filled = asyncio.Event()

    def __contains__(self, attachment: Attachment) -> bool:
        return attachment in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> list[Attachment]:
        return list(self._entries)

    def load(self) -> None:
        """Reads what an agent before this one left. Raises OSError when there can be no journal."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in sorted(self._folder.iterdir()):
            if not path.is_file():
                continue  # nothing that we made
            if path.name.startswith("."):
                path.unlink(missing_ok=True)  # never put in place: nobody was told of it
            elif path.suffix == ".json" and (attachment := _read(path)) is not None:
                self._entries[attachment] = path
        if self._entries:
            self.filled.set()

    async def add(self, attachment: Attachment) -> str | None:
        """What went wrong, or None: then it is on disk."""
        if attachment in self._entries:
            return None
        if len(self._entries) >= self._most:
            return f"the journal in {self._folder} is full ({self._most} DELs)"
        path = self._folder / (hashlib.sha256("\0".join(_fields(attachment)).encode()).hexdigest()[:32] + ".json")
        try:
            # The disk may be slow: other calls go on meanwhile.
            await asyncio.to_thread(_write, path, orjson.dumps(_fields(attachment)))
        except OSError as error:
            return f"{error.filename or path}: {error.strerror}"
        self._entries[attachment] = path
        self.filled.set()
        return None

    def remove(self, attachment: Attachment) -> None:
        """It is done."""
        if (path := self._entries.pop(attachment, None)) is None:
            return
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("a DEL that is done stays in the journal", extra={"file": path, "error": error.strerror})
        if not self._entries:
            self.filled.clear()


def _fields(attachment: Attachment) -> list[str]:
    return [attachment.network, attachment.container, attachment.interface]


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: Path) -> Attachment | None:
    try:
        fields = orjson.loads(path.read_bytes())
        if (
            not isinstance(fields, list)
            or len(fields) != 3
            or not all(isinstance(each, str) and each for each in fields)
        ):
            raise ValueError("not a list of network, container and interface")
    except (OSError, ValueError) as error:
        # Kept for a human: what it promised cannot be told, and the operator frees it once its Pod is gone.
        log.warning(
            "an entry of the journal is left alone: look at it, then delete it; its address comes back with its Pod",
            extra={"file": path, "error": error},
        )
        return None
    return Attachment(*fields)
