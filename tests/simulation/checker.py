"""The judge of a history. Knows only: one address, one holder at a time, and every address comes back.

Written apart from the code it judges: it imports nothing of it, and reads what the API keeps by itself. It is told what
containers really have (the address an ADD returned to a sandbox, until that sandbox's end) and sees every write land.
Simulated histories and those of real processes (tests/chaos) have the same judge.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from tests.simulation.readings import Span, held_by_ledger, inside, is_ready, offered_by, says, spans

# An operator learns of a reservation or a change of spec by its watch, which may be slow: what was handed out within
# this time of the change is nobody's fault.
NOTICE_SECONDS = 45.0

# After a restore a leader may write by what it remembers, until it has noticed: what it says of two records that do not
# agree is put right by the next term.
REMEMBERED_SECONDS = 8.0

ASSERTED = "ipam.berth.dev/reasserted"


class Violation(Exception):
    """What must not be."""


@dataclass(frozen=True, slots=True)
class Landing:
    """A write that has taken place, of an object as the API keeps it. `before` and `after` are to be read only."""

    at: float
    plural: str
    key: tuple[str, str]  # namespace, name
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    by: str


@dataclass(slots=True)
class Sandbox:
    container: str
    pod_uid: str
    addresses: frozenset[str]
    since: float


class Checker:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._using: dict[str, Sandbox] = {}  # address -> who has it
        self._said: dict[str, tuple[str, str]] = {}  # address -> (uid, name) of the Endpoint that says so
        self._of_endpoint: dict[str, frozenset[tuple[str, str]]] = {}  # uid -> (address, pool)
        self._ledgers: dict[str, tuple[dict[str, str], set[str]]] = {}
        self._sequences: dict[str, int] = {}
        self._reserved: dict[str, tuple[list[Span], float]] = {}
        self._pools: dict[str, dict[str, Any]] = {}
        self._offered: dict[str, tuple[set[str], float]] = {}
        self._leaving: dict[str, float] = {}  # pools that are being deleted, and since when
        self._claimed: dict[str, float] = {}
        self._pods: dict[str, str] = {}  # claim -> UID of its Pod, but for those of which an assertion was seen
        self._asserted: set[str] = set()
        self._applications: dict[str, str] = {}  # UID of a Pod -> its application
        self._waived: set[str] = set()
        self._members: dict[tuple[str, str], frozenset[str]] = {}  # (UID of a StatefulSet, Pod) -> its addresses
        self.adds = 0
        self.longest_wait = 0.0
        self._remembered_until = 0.0

    # --- a restore ----------------------------------------------------------------------------------------------------

    def restored(self, kept: dict[str, list[dict[str, Any]]]) -> None:
        """The API keeps what it did long ago: nothing else is known of it. Who has an address that is now another's by
        that record, or no pool's, or is reserved, is not promised to keep it; nor is a Pod whose Endpoint had ended,
        and is there again."""
        self._remembered_until = self._clock() + REMEMBERED_SECONDS
        before = set(self._of_endpoint)
        for known in (self._said, self._of_endpoint, self._ledgers, self._sequences, self._reserved, self._pools,
                      self._offered, self._leaving):  # fmt: skip
            known.clear()
        self.excuse()
        now, holders = self._clock(), dict[str, str]()
        for pool in kept["ippools"]:
            name, status = pool["metadata"]["name"], pool.get("status") or {}
            self._pools[name], self._offered[name] = pool, (offered_by(pool["spec"]), now)
            if "deletionTimestamp" in pool["metadata"]:
                self._leaving[name] = now
            if "ledger" in status:
                self._ledgers[name], self._sequences[name] = held_by_ledger(status), status["ledger"]["sequence"]
        for reservation in kept["reservedips"]:
            self._reserved[reservation["metadata"]["name"]] = (spans(reservation["spec"]["ips"]), now)
        claims = {each["metadata"]["uid"]: each for each in kept["endpoints"]}
        for uid, claim in claims.items():
            if (said := says(claim)) and uid not in before:
                self.waive(claim["spec"]["pod"]["uid"])
            elif said:
                self._of_endpoint[uid] = said
                for address, _ in said:
                    self._said[address] = (uid, claim["metadata"]["name"])
                    holders[address] = claim["spec"]["pod"]["uid"]
        for pending, _ in self._ledgers.values():
            holders |= {address: claims[uid]["spec"]["pod"]["uid"] for address, uid in pending.items() if uid in claims}
        offered = {address for name, (addresses, _) in self._offered.items() for address in addresses}
        reserved = [span for reserved, _ in self._reserved.values() for span in reserved]
        for address, box in list(self._using.items()):
            if holders.get(address, box.pod_uid) != box.pod_uid or address not in offered or inside(address, reserved):
                self.waive(box.pod_uid)

    def waive_unrecorded(self, pod_uid: str) -> None:
        """What no Endpoint says that this Pod's sandboxes have."""
        if any(box.pod_uid == pod_uid and address not in self._said for address, box in self._using.items()):
            self.waive(pod_uid)

    # --- what containers have ---------------------------------------------------------------------------------------

    def added(self, container: str, pod_uid: str, addresses: Iterable[str], waited: float) -> None:
        """An ADD has returned these addresses to a sandbox: it uses them from now on."""
        self.adds += 1
        self.longest_wait = max(self.longest_wait, waited)
        if pod_uid in self._waived:
            return
        sandbox = Sandbox(container, pod_uid, frozenset(addresses), self._clock())
        for address in sorted(sandbox.addresses):
            other = self._using.get(address)
            if other is not None and other.container != container:
                raise Violation(
                    f"{address} was given to sandbox {container} of Pod {pod_uid}, and sandbox {other.container} of "
                    f"Pod {other.pod_uid} has it since {other.since:.3f}"
                )
            self._using[address] = sandbox

    def ended(self, container: str) -> None:
        for address in [address for address, sandbox in self._using.items() if sandbox.container == container]:
            del self._using[address]

    def waive(self, pod_uid: str) -> None:
        """What this Pod's sandboxes have is not promised to them any more."""
        self._waived.add(pod_uid)
        self._using = {address: box for address, box in self._using.items() if box.pod_uid != pod_uid}

    def came(self, stateful_set: str, pod: str, addresses: Iterable[str]) -> None:
        """An ADD has returned these to a StatefulSet's Pod: those it had, if nothing happened that excuses others. What
        has been reserved meanwhile it will not get again."""
        had, has = self._members.get((stateful_set, pod)), frozenset(addresses)
        if had is not None and had != has:
            raise Violation(f"{pod} of set {stateful_set} had {sorted(had)}, and comes again with {sorted(has)}")
        self._members.pop((stateful_set, pod), None)
        if not any(inside(address, reserved) for address in has for reserved, _ in self._reserved.values()):
            self._members[stateful_set, pod] = has

    def forget(self, stateful_set: str) -> None:
        """By name: it is scaled, or gone, so Pods of it have lost what they had."""
        self._members = {each: had for each, had in self._members.items() if each[1].rpartition("-")[0] != stateful_set}

    def excuse(self) -> None:
        """Who leads has changed, or what a pool hands out: what was kept till now may come to nothing."""
        self._members.clear()

    # --- what the API keeps -----------------------------------------------------------------------------------------

    def observe(self, landing: Landing) -> None:
        if landing.plural == "endpoints":
            self._endpoint(landing)
        elif landing.plural == "ippools":
            self._pool(landing)
        elif landing.plural == "reservedips":
            self._reserve(landing)
        elif landing.plural == "pods" and landing.after is not None:
            self._pod(landing.after["metadata"])

    def _endpoint(self, landing: Landing) -> None:
        name = "/".join(landing.key)
        after, before = landing.after, landing.before
        if after is None:
            assert before is not None
            uid = before["metadata"]["uid"]
            if says(before):  # after a restore the agent makes one that says nothing anew
                self._sure_to_end(name, before["spec"]["containerID"], landing.by)
            for address, _ in self._of_endpoint.pop(uid, frozenset()):
                if self._said.get(address, ("", ""))[0] == uid:
                    del self._said[address]
            return
        uid = after["metadata"]["uid"]
        if before is None:
            self._claimed[uid] = landing.at
            # Who had an address gets it again, whatever slices there are now.
            pod = after["spec"]["pod"]["uid"]
            if ASSERTED in (after["metadata"].get("annotations") or {}):
                self._asserted.add(pod)
            if pod not in self._asserted:
                self._pods[uid] = pod
        said = says(after)
        known = self._of_endpoint.get(uid)
        if known == said or (known is None and not said):
            return
        if known:
            raise Violation(f"Endpoint {name} ({uid}) said {sorted(known)} and now says {sorted(said)}")
        self._of_endpoint[uid] = said
        for address, pool in sorted(said):
            self._confirmed(uid, name, address, pool)

    def _pod(self, meta: dict[str, Any]) -> None:
        for owner in meta.get("ownerReferences") or ():
            self._applications[meta["uid"]] = f"{meta['namespace']}/{owner['kind']}.apps/{owner['name']}"

    def _sure_to_end(self, name: str, container: str, by: str) -> None:
        """An Endpoint is the only record of who holds an address: it goes after the sandbox, never before."""
        for address, sandbox in self._using.items():
            if sandbox.container == container:
                raise Violation(f"{by} deletes {name}, and sandbox {container} has {address}")

    def _confirmed(self, uid: str, name: str, address: str, pool: str) -> None:
        holder = self._said.get(address)
        if holder is not None:
            raise Violation(f"{address} is confirmed to {name} ({uid}) while {holder[1]} ({holder[0]}) holds it")
        self._said[address] = (uid, name)
        if self._clock() < self._remembered_until:
            return
        self._in_slice(uid, name, address, pool)
        pending, settled = self._ledgers.get(pool, ({}, set()))
        if pending.get(address) != uid and address not in settled:
            raise Violation(
                f"{address} is confirmed to {name} ({uid}), and the ledger of {pool} says "
                f"{'pending for ' + pending[address] if address in pending else 'free'}"
            )
        self._allowed(uid, name, address, pool)

    def _in_slice(self, uid: str, name: str, address: str, pool: str) -> None:
        """Of a pool that is cut into slices, it is of the slice of its Pod's application."""
        if "slices" not in self._pools[pool]["spec"] or uid not in self._pods:
            return
        application = self._applications[self._pods[uid]]
        part = self._pools[pool]["status"]["ledger"].get("slices", {}).get(application, ())
        if not inside(address, spans(part)):
            raise Violation(f"{address} is confirmed to {name} of {application}, which has {list(part)} of {pool}")

    def _apart(self, name: str, slices: dict[str, list[str]]) -> None:
        taken: dict[Span, str] = {}
        for application, texts in slices.items():
            for version, low, high in spans(texts):
                for number in range(low, high + 1):
                    other = taken.setdefault((version, number, number), application)
                    if other != application:
                        raise Violation(f"{name} gives {ip_address(number)} to the slices of {application} and {other}")

    def _allowed(self, uid: str, name: str, address: str, pool: str) -> None:
        """It may be handed out, and could be for long before it was asked for."""
        asked = self._claimed[uid]
        for reservation, (reserved, since) in self._reserved.items():
            if inside(address, reserved) and since + NOTICE_SECONDS < asked:
                raise Violation(f"{address} is confirmed to {name}, and {reservation} reserves it since {since:.3f}")
        if pool in self._leaving and self._leaving[pool] + NOTICE_SECONDS < asked:
            raise Violation(
                f"{address} is confirmed to {name}, and {pool} is being deleted since {self._leaving[pool]}"
            )
        offered, since = self._offered.get(pool, (set(), 0.0))
        if address not in offered and since + NOTICE_SECONDS < asked:
            raise Violation(f"{address} is confirmed to {name}, and {pool} does not hand it out since {since:.3f}")

    def _pool(self, landing: Landing) -> None:
        name, after = landing.key[1], landing.after
        if after is None:
            self._unused(name)
            for known in (self._ledgers, self._pools, self._offered, self._sequences, self._leaving):
                known.pop(name, None)
            return
        if "deletionTimestamp" in after["metadata"]:
            self._leaving.setdefault(name, landing.at)
        if landing.before is None or landing.before["spec"] != after["spec"]:
            self.excuse()
            offered = offered_by(after["spec"])
            if name not in self._offered or self._offered[name][0] != offered:
                self._offered[name] = (offered, landing.at)
        self._pools[name] = after
        before = (landing.before or {}).get("status") or {}
        status = after.get("status") or {}
        if status.get("ledger") == before.get("ledger"):
            return
        sequence = status["ledger"]["sequence"]
        if sequence <= self._sequences.get(name, 0):
            raise Violation(f"the ledger of {name} was written with sequence {sequence}, and had it before")
        self._sequences[name] = sequence
        pending, settled = self._ledgers[name] = held_by_ledger(status)
        if pending.keys() & settled:
            raise Violation(f"the ledger of {name} has {sorted(pending.keys() & settled)} pending and settled")
        for address, (uid, endpoint) in self._said.items():
            if (address, name) not in self._of_endpoint[uid] or self._clock() < self._remembered_until:
                continue
            if pending.get(address, uid) != uid or (address not in pending and address not in settled):
                raise Violation(
                    f"{endpoint} ({uid}) holds {address}, and the ledger of {name} is written with it "
                    f"{'pending for ' + pending[address] if address in pending else 'free'}"
                )
        self._counts(name, status, len(pending) + len(settled))
        self._apart(name, status["ledger"].get("slices") or {})

    def _unused(self, name: str) -> None:
        """A pool that is deleted stays for as long as an address of it is held."""
        for uid, said in self._of_endpoint.items():
            for address, pool in said:
                if pool == name:
                    raise Violation(f"{name} is gone, and {self._said[address][1]} ({uid}) holds {address} of it")
        pending, settled = self._ledgers.get(name, ({}, set()))
        if pending or settled:
            raise Violation(f"{name} is gone, and its ledger held {sorted({*pending, *settled})}")

    def _counts(self, name: str, status: dict[str, Any], held: int) -> None:
        if status["allocated"] != held:
            raise Violation(f"{name} counts {status['allocated']} allocated, and its ledger holds {held}")

    def _reserve(self, landing: Landing) -> None:
        self.excuse()
        if landing.after is None:
            self._reserved.pop(landing.key[1], None)
        else:
            self._reserved[landing.key[1]] = (spans(landing.after["spec"]["ips"]), landing.at)

    # --- after quiet ------------------------------------------------------------------------------------------------

    def capacity(self, pool: str) -> int:
        """How many addresses it could hand out, if nobody held any."""
        offered = self._offered[pool][0]
        return sum(not any(inside(address, spans) for spans, _ in self._reserved.values()) for address in offered)

    def losers(self) -> set[str]:
        """Pools that another one excludes, or should: Ready they may not be together."""
        ready = {name for name, pool in self._pools.items() if is_ready(pool)}
        both = {
            name
            for name in ready
            for other in ready
            if name < other and self._offered[name][0] & self._offered[other][0]
        }
        if both:
            raise Violation(f"pools that overlap are Ready together: {sorted(both)}")
        return {name for name in self._pools if name not in ready}

    def unclean(self) -> str:
        """What has not come back; empty when all has."""
        if self._using:
            return "containers have addresses: " + ", ".join(sorted(self._using))
        if self._of_endpoint:
            return f"Endpoints are left: {sorted(self._said.items())}"
        for name, (pending, settled) in self._ledgers.items():
            if pending or settled:
                return f"the ledger of {name} holds {sorted(pending.items())} pending, {sorted(settled)} settled"
        if self._leaving:
            return f"pools are still being deleted: {sorted(self._leaving)}"
        for name, pool in self._pools.items():
            status = pool.get("status") or {}
            if slices := (status.get("ledger") or {}).get("slices"):
                return f"{name} has slices of applications that are gone: {slices}"
            free = self.capacity(name)
            counted = (status.get("total"), status.get("allocated"), status.get("available"))
            if counted != (free, 0, free):
                return f"{name} counts (total, allocated, available) {counted}, and {free} are free"
        return ""
