"""Whether etcd was restored from a backup, and agents have not had their time since to assert what their nodes hold.

A mark on the Lease says so, for it must outlive who noticed: whoever leads next holds grants back as well, until one
term has done so to the end. The Lease also shows a restore before all else does: it is written every second, so that
whoever reads it finds it older than it was. Its resourceVersion tells, no clock: what a backup holds keeps its own,
though those of what is written from then on are far above (`etcdutl snapshot restore --bump-revision`).
"""

import asyncio

MARK = "ipam.berth.dev/restored"
# A Lease that was renewed longer ago than this is of a long outage, or of a backup: a take-over finds it seconds old.
LONG_AWAY_SECONDS = 60.0


class Restored:
    """As one replica knows it. `noticed`: grants are to be held back; `times`: how often it was noticed here."""

    def __init__(self) -> None:
        self.noticed = False
        self.times = 0
        self._version = 0
        self._once_more = asyncio.Event()

    def read(self, version: int, *, marked: bool, idle: float, mine: bool) -> None:
        """The Lease as it is now: its resourceVersion, whether it has the mark, for how many seconds nobody has renewed
        it, whether this replica holds it: then it wrote the mark itself, or is about to take it off."""
        before, self._version = self._version, version
        if version < before:
            self.notice()
        elif not mine or not before:
            if version != before:
                self.noticed = marked
            if idle > LONG_AWAY_SECONDS:
                self.noticed = True

    def notice(self) -> None:
        self.noticed = True
        self.times += 1
        self._once_more.set()

    def over(self) -> None:
        """Agents have had their time."""
        self.noticed = False

    async def once_more(self, times: int) -> None:
        """Returns when it was noticed more often than that."""
        while self.times <= times:
            self._once_more.clear()
            await self._once_more.wait()
