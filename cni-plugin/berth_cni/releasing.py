"""How an address comes back from this node: the Endpoint is deleted, now or as soon as the API answers.

A delete names the uid and the version that were looked at. On a conflict the Endpoint is read anew: when its container
is another by now, the address is a newer sandbox's, and nothing is deleted.

A StatefulSet's Endpoint is parked instead: its container is taken off it, in a write with the version that was read. It
keeps its addresses for the Pod that comes again, and the operator says when they are free.
"""

import asyncio
import logging
import os
from collections import OrderedDict
from pathlib import Path

from berth.kube.client import Api
from berth.kube.errors import Conflict, KubeError, NotFound
from berth_cni import spool
from berth_cni.calls import Attachment, Del
from berth_cni.claims import Claims
from berth_cni.configuration import parse
from berth_cni.endpoints import Held, may_release, read
from berth_cni.journal import Journal
from berth_cni.reach import Reach
from berth_cni.underway import Lanes, Tombstones, Underway

log = logging.getLogger(__name__)

_RELEASE_SECONDS = 10.0
_MOST_CONFLICTS = 8
_SHORTEST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_SPOOL_SECONDS = 10.0
# What this agent has freed: an old backup may bring it back.
_MOST_FREED = 4096


class Releaser:
    def __init__(self, api: Reach, claims: Claims, journal: Journal, lanes: Lanes, socket_path: Path) -> None:
        self.tombstones = Tombstones()
        self._api: Api = api
        self._reach = api
        self._claims = claims
        self._journal = journal
        self._lanes = lanes
        self._socket = socket_path
        self._spool_read: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._freed: OrderedDict[tuple[str, str], None] = OrderedDict()  # Endpoint, container
        claims.appeared = self._appeared

    def released(self, held: Held) -> bool:
        """Its DEL came, or this agent deletes it for another reason: its end is no surprise."""
        return (
            held.attachment in self.tombstones
            or held.attachment in self._journal
            or (held.uid, held.attachment.container) in self._freed
        )

    def free(self, held: Held) -> None:
        """It is about to be deleted by this agent."""
        self._freed[held.uid, held.attachment.container] = None
        if len(self._freed) > _MOST_FREED:
            self._freed.popitem(last=False)

    async def release(self, attachment: Attachment) -> str | None:
        """Deletes, or parks, what this attachment holds; what went wrong, or None. The caller has its lane."""
        if not self._claims.synced.is_set():
            return "the Endpoints of this node are not known yet"
        if not self._reach.answers.is_set():
            return f"the API server does not answer: {self._reach.trouble}"
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                for held in self._claims.of(attachment):
                    await self._free(held, attachment)
        except TimeoutError:
            return "the API server does not answer in time"
        except KubeError as error:
            return str(error)
        return None

    async def promise(self, attachment: Attachment) -> str | None:
        """Releases it now, or else writes down to do it later; what went wrong when neither could be done."""
        if (trouble := await self.release(attachment)) is None:
            self._journal.remove(attachment)
            return None
        log.info("a release is kept for later", extra={**fields(attachment), "error": trouble})
        if (worse := await self._journal.add(attachment)) is not None:
            return f"{trouble}; nor could it be kept for later: {worse}"
        return None

    async def settle(self, attachment: Attachment) -> str | None:
        """Before an ADD: an old DEL for the same attachment is done first, else it would undo the ADD later."""
        if attachment in self._journal:
            if (trouble := await self.release(attachment)) is not None:
                return trouble
            self._journal.remove(attachment)
        return None

    async def replay(self) -> None:
        """Runs for ever: does what the journal keeps, whenever the API answers."""
        pause = _SHORTEST_PAUSE
        while True:
            await self._journal.filled.wait()
            await self._claims.synced.wait()
            await self._reach.answers.wait()
            failed = 0
            for attachment in self._journal.entries():
                # An ADD that has the lane is left alone: one that is newer does this release itself, and one that is
                # older has lost its caller.
                async with self._lanes.alone(attachment, Underway()):
                    if attachment in self._journal and (trouble := await self.release(attachment)) is not None:
                        failed += 1
                        log.warning("a release failed again", extra={**fields(attachment), "error": trouble})
                        continue
                    self._journal.remove(attachment)
            pause = _SHORTEST_PAUSE if not failed else min(_LONGEST_PAUSE, pause * 2)
            if failed:
                await asyncio.sleep(pause)

    async def watch_spool(self) -> None:
        """Runs for ever: takes over the DELs that shims kept while no agent answered."""
        while True:
            await self.take_spool()
            await asyncio.sleep(_SPOOL_SECONDS)

    async def take_spool(self) -> None:
        """Into the journal, which the spool's promise then rests on. Costs nothing while nothing is there."""
        before = _modified(spool.folder(self._socket))
        if before == self._spool_read:
            return
        for spooled in spool.pending(self._socket):
            call = parse(spooled.request.environment, spooled.request.stdin)
            if not isinstance(call, Del):
                # Nothing can be done for it, and the runtime was told of success: kept for a human.
                log.warning("a spooled DEL makes no sense", extra={"file": spooled.path, "answer": call})
                spooled.path.rename(spooled.path.with_name(spooled.path.name + ".broken"))
                continue
            self.tombstones.raise_for(call.attachment, spooled.request.sent)
            if (trouble := await self._journal.add(call.attachment)) is not None:
                log.warning("a spooled DEL stays in the spool", extra={**fields(call.attachment), "error": trouble})
                return  # and is tried again
            spool.discard(spooled.path)
            before = None
        self._spool_read = before

    async def _free(self, held: Held, attachment: Attachment) -> None:
        for _ in range(_MOST_CONFLICTS):
            self.free(held)
            try:
                if held.stays:
                    await self._park(held, attachment)
                    return
                await self._api.delete(held.path, uid=held.uid, version=str(held.version))
            except NotFound:
                pass
            except Conflict:
                fresh = await self._fresh(held)
                if fresh is not None and fresh.uid == held.uid:
                    self._claims.note(fresh)
                if fresh is not None and may_release(fresh, held.uid, attachment):
                    held = fresh
                    continue
                if fresh is not None and fresh.uid == held.uid:
                    return  # a newer sandbox's
            self._claims.forget(held.uid)
            return
        raise KubeError(f"{held.path} changes faster than it can be deleted")

    async def _park(self, held: Held, attachment: Attachment) -> None:
        there = await self._api.get(held.path)
        fresh = read(there)
        if may_release(fresh, held.uid, attachment):
            there["spec"]["containerID"] = ""
            fresh = read(await self._api.replace(held.path, there))
        if fresh.uid == held.uid:
            self._claims.note(fresh)
        else:
            self._claims.forget(held.uid)

    async def _fresh(self, held: Held) -> Held | None:
        try:
            return read(await self._api.get(held.path))
        except NotFound:
            return None

    def _appeared(self, held: Held) -> None:
        """A creation given up long ago has landed after all, or a backup has brought back what was freed: the Endpoint
        is nobody's."""
        if self.released(held) and held.attachment not in self._lanes:
            task = asyncio.create_task(self._release_late(held.attachment))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _release_late(self, attachment: Attachment) -> None:
        async with self._lanes.alone(attachment, Underway()):
            # An ADD that is newer than the DEL may have had the lane meanwhile, and ended the tombstone.
            nobodys = any(self.released(held) for held in self._claims.of(attachment))
            if nobodys and (trouble := await self.promise(attachment)) is not None:
                log.error("an Endpoint that is nobody's stays", extra={**fields(attachment), "error": trouble})


def fields(attachment: Attachment) -> dict[str, str]:
    return {"network": attachment.network, "container": attachment.container, "interface": attachment.interface}


def _modified(path: Path) -> int | None:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return None
