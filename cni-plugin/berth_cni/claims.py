"""This node's Endpoints, as the API has them: followed by one watch, and told of our own writes ahead of it.

An ADD waits here for the operator's decision on the Endpoint it made; a DEL finds here what its container holds. Our
own writes are noted at once, so that the view is never behind what this agent did: a DEL that comes right after an ADD
must find its Endpoint. Versions of one object are compared as the numbers they are (KEP-5504); only when etcd was
restored do they say nothing, and a listing is believed as it is.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable

from berth.kube.client import Change, Listing
from berth_cni.calls import Attachment
from berth_cni.endpoints import Held, read

_MOST_GONE = 1024

Waiter = asyncio.Future[Held | None]


class Claims:
    """The follower of the watch. `appeared` is told of each Endpoint that was not here before; `vanished` of each whose
    end came from elsewhere, and whether a listing no longer shows it or a watch told of its deletion."""

    def __init__(self) -> None:
        self.appeared: Callable[[Held], None] = lambda held: None
        self.vanished: Callable[[Held, bool], None] = lambda held, relisted: None
        self.synced = asyncio.Event()
        self._held: dict[str, Held] = {}
        self._waiting: dict[str, set[Waiter]] = {}
        # Deleted ones, for a while: the answer to their creation may be read after their end was watched.
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._rewound = False

    def __len__(self) -> int:
        return len(self._held)

    def of(self, attachment: Attachment) -> list[Held]:
        container = attachment.container
        return [
            held
            for held in self._held.values()
            # All are looked at: the comparison of two strings is done before that of two attachments.
            if held.attachment.container == container and held.attachment == attachment
        ]

    def in_network(self, network: str) -> list[Held]:
        """Those that a container has."""
        return [
            held for held in self._held.values() if held.attachment.container and held.attachment.network == network
        ]

    def decision(self, uid: str) -> Waiter:
        """Resolved with the Endpoint when it is confirmed or refused, with None when it is deleted before."""
        waiter: Waiter = asyncio.get_running_loop().create_future()
        held = self._held.get(uid)
        if held is None or held.decided:
            waiter.set_result(held)
            return waiter
        self._waiting.setdefault(uid, set()).add(waiter)
        waiter.add_done_callback(lambda done: self._waited(uid, done))
        return waiter

    def note(self, held: Held) -> None:
        """What an answer or an event says of an Endpoint; what is older than what is known is dropped."""
        known = self._held.get(held.uid)
        if held.uid in self._gone or (known is not None and known.version >= held.version):
            return
        self._held[held.uid] = held
        if known is None:
            self.appeared(held)
        if held.decided:
            self._resolve(held.uid, held)

    def forget(self, uid: str) -> None:
        """It is deleted."""
        self._held.pop(uid, None)
        self._gone[uid] = None
        while len(self._gone) > _MOST_GONE:
            self._gone.popitem(last=False)
        self._resolve(uid, None)

    def rewound(self) -> None:
        """resourceVersions went back: what is known is of another history than the listing that follows."""
        self._rewound = True

    def replaced(self, listing: Listing) -> None:
        """What we wrote after the moment of the list is not in it; up to then it is the truth."""
        found = {held.uid: held for held in map(read, listing.items)}
        moment = math.inf if self._rewound else int(listing.version)
        self._rewound = False
        for known in [held for held in self._held.values() if held.version <= moment]:
            listed = found.get(known.uid)
            if listed is None:
                self.forget(known.uid)
                self.vanished(known, True)
            elif listed.version != known.version:
                self._held[known.uid] = listed
                if listed.version < known.version and _says_less(listed, known):
                    self.vanished(known, True)
        for held in found.values():
            self._gone.pop(held.uid, None)  # the list shows it, and the watch that follows will tell of its end
            self.note(held)
            if held.decided:
                self._resolve(held.uid, held)
        self.synced.set()

    def changed(self, change: Change) -> None:
        if change.kind != "DELETED":
            self.note(read(change.object))
            return
        uid = change.object["metadata"]["uid"]
        held = self._held.get(uid)
        self.forget(uid)
        if held is not None:
            self.vanished(held, False)

    def _resolve(self, uid: str, outcome: Held | None) -> None:
        for waiter in self._waiting.pop(uid, ()):
            if not waiter.done():
                waiter.set_result(outcome)

    def _waited(self, uid: str, waiter: Waiter) -> None:
        if (waiters := self._waiting.get(uid)) is not None:
            waiters.discard(waiter)
            if not waiters:
                del self._waiting[uid]


def _says_less(listed: Held, known: Held) -> bool:
    """An old backup has the container before, or is of a moment before its addresses were confirmed."""
    return listed.attachment != known.attachment or (known.confirmed and not listed.confirmed)
