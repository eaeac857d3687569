"""What may become of pools and reservations: facts in, a verdict out.

A refusal names the object, the field, the addresses and what to do instead. What is allowed but surprising is a
warning. The webhook asks this module; it can't exclude that two creates pass at once, which the operator closes.

An object that is already broken can always be repaired, one step at a time. So a change is judged by what it adds: a
fault that the old spec had in the same field for the same text is no reason to refuse the new one, nor is an address
in common with another pool that was in common before, nor offering no address at all when none was offered before.
They are told as warnings. An address in use is taken away only if the old spec offered it: of an old spec that can't
be understood nothing is known to be taken away.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from berth.core.advice import Neighbour, Reservation, advise
from berth.core.draft import Draft, bad_entries, fresh_faults
from berth.core.ledger import Image
from berth.core.pool import Pool
from berth.core.ranges import Family, Malformed, Ranges, format_address, parse_span
from berth.core.settled import runs_of

# A refusal is read on a terminal: past this many of a kind it says only how many more there are.
MOST = 8


@dataclass(frozen=True, slots=True)
class Held:
    """The addresses of a pool that are in use. `doubt`: why its own ledger can't tell; what the Endpoints say stands
    in for it then."""

    addresses: Ranges = field(default_factory=Ranges)
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Before:
    """A pool as it is now."""

    draft: Draft
    held: Held = Held()


@dataclass(frozen=True, slots=True)
class Around:
    """What else there is: the other pools, those of them that nobody can read (name and why), the reservations."""

    neighbours: tuple[Neighbour, ...] = ()
    unread: tuple[tuple[str, str], ...] = ()
    reservations: tuple[Reservation, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """`field` is a path as in `spec.ips[2]`, empty for the object as a whole."""

    field: str
    why: str

    def __str__(self) -> str:
        return f"{self.field}: {self.why}" if self.field else self.why


@dataclass(frozen=True, slots=True)
class Verdict:
    """Refused if there is a refusal. `subject` is the object, as in `IPPool blue`."""

    subject: str
    refusals: tuple[Refusal, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        return not self.refusals

    @property
    def message(self) -> str:
        return f"{self.subject}: " + "; ".join(str(each) for each in self.refusals) if self.refusals else ""


def held_in(image: Image, within: Ranges | None = None) -> Ranges:
    """Every address a ledger says is in use; with `within`, those inside."""
    pending = Ranges.of((address, address) for address in image.pending)
    held = runs_of(image.settled, within).union(pending)
    return held if within is None else held.intersect(within)


# --- pools ------------------------------------------------------------------------------------------------------------


def judge_pool(new: Draft, before: Before | None, around: Around) -> Verdict:
    """A pool that is created (`before` is None), or whose spec changes."""
    old = before.draft if before is not None else None
    subject = f"IPPool {new.name}"
    old_pool = old.pool if old is not None else None
    faults = fresh_faults(new.faults, old.faults if old is not None else ())
    warnings = [f"still wrong: {fault}" for fault in new.faults if fault not in faults]
    if faults or new.pool is None:
        return Verdict(subject, _few([Refusal(each.field, each.why) for each in faults], "faults"), tuple(warnings))
    if old_pool is not None and old_pool.subnet != new.pool.subnet:
        why = f"is immutable: it is {old_pool.subnet}; make a new IPPool for {new.pool.subnet}"
        return Verdict(subject, (Refusal("spec.subnet", why),))
    refusals = [*_offers_nothing(new, old_pool, warnings), *_overlaps(new, old_pool, around, warnings)]
    if before is not None:
        refusals += _takes_away(new, before, warnings)
        warnings += _disables_in_use(new.pool, before)
        warnings += _reaches_new_pods_only(new.pool, before)
        warnings += _leaves_no_default(new.pool, before, around)
    if around.unread:
        listed = ", ".join(f"{name} ({why})" for name, why in around.unread[:2])
        more = f" and {len(around.unread) - 2} more" if len(around.unread) > 2 else ""
        warnings.append(f"not looked at for overlap, since it can't be understood: IPPool {listed}{more}")
    if refusals:
        return Verdict(subject, tuple(refusals))  # advice would only hide what has to be changed
    advice = advise(new.pool, around.neighbours, around.reservations)
    known = set(advise(old_pool, around.neighbours, around.reservations)) if old_pool is not None else set()
    warnings += [each for each in advice if each not in known]
    return Verdict(subject, (), tuple(warnings))


def judge_deletion(name: str, held: Held) -> Verdict:
    """A pool is deleted only when none of its addresses is in use: who came after could hand out the same ones."""
    count = held.addresses.size
    warnings = (f"its ledger can't be read ({held.doubt}): judged by what the Endpoints say",) if held.doubt else ()
    if not count:
        return Verdict(f"IPPool {name}", (), warnings)
    # An unreadable ledger counts nothing down.
    wait = "the Pods that hold them are gone" if held.doubt else f"status.allocated is 0 (kubectl get ipp {name} -w)"
    why = (
        f"{_addresses(count)} {'is' if count == 1 else 'are'} in use: set spec.disabled, wait until {wait},"
        " then delete it; kubectl get ipe -A shows which Pods hold them"
    )
    return Verdict(f"IPPool {name}", (Refusal("", why),), warnings)


def _offers_nothing(new: Draft, old: Pool | None, warnings: list[str]) -> Iterator[Refusal]:
    pool = new.pool
    assert pool is not None
    if pool.offered:
        return
    if old is not None and not old.offered:
        warnings.append("still offers no address at all")
    elif new.excluded:
        yield Refusal("spec.excludeIPs", "leaves no address to hand out: exclude fewer, or add others to spec.ips")
    else:
        yield Refusal("spec.gateway", "is the pool's only address, and a gateway is never handed out: widen spec.ips")


def _overlaps(new: Draft, old: Pool | None, around: Around, warnings: list[str]) -> tuple[Refusal, ...]:
    pool = new.pool
    assert pool is not None
    family, field = pool.family, "spec.subnet" if new.whole else "spec.ips"
    shrink = "set spec.ips to other addresses" if new.whole else "shrink spec.ips"
    found: list[Refusal] = []
    for other in around.neighbours:
        if other.subnet.family is not family:
            continue
        added = pool.offered.minus(old.offered) if old is not None else pool.offered
        if clash := added.intersect(other.taken):
            it = "it" if clash.size == 1 else "them"
            both = ": both hand out" if clash.intersect(other.offered) else ", whose Pods hold"
            why = (
                f"overlaps IPPool {other.name}{both} {clash.format(family, MOST)} ({_addresses(clash.size)}):"
                f" exclude {it} with spec.excludeIPs or {shrink}"
            )
            found.append(Refusal(field, why))
        elif still := pool.offered.intersect(other.taken):
            warnings.append(
                f"still overlaps IPPool {other.name} in {still.format(family, 4)}: only one of two such pools serves"
            )
    return _few(found, "pools that overlap")


def _takes_away(new: Draft, before: Before, warnings: list[str]) -> Iterator[Refusal]:
    pool, old = new.pool, before.draft.pool
    assert pool is not None
    family, in_use = pool.family, before.held.addresses
    if before.held.doubt:
        warnings.append(f"its ledger can't be read ({before.held.doubt}): judged by what the Endpoints say is in use")
    lost = in_use.minus(pool.offered)
    if old is None:
        if lost:
            warnings.append(f"in use, and not offered by this spec: {lost.format(family, 4)}: kept until their Pods go")
        return
    lost = lost.intersect(old.offered)
    if pool.gateway is not None and pool.gateway in lost:
        address = format_address(family, pool.gateway)
        yield Refusal("spec.gateway", f"{address} is in use by a Pod: name another, or delete that Pod first ({_WHO})")
        lost = lost.minus(Ranges(((pool.gateway, pool.gateway),)))
    excluded = lost.intersect(new.excluded)
    for path, gone in (("spec.excludeIPs", excluded), ("spec.ips", lost.minus(excluded))):
        if gone:
            why = (
                f"takes away {_addresses(gone.size)} in use: {_each(gone, family)}: delete the Pods that hold"
                f" {'it' if gone.size == 1 else 'them'} first ({_WHO}), or leave the pool as it is and name"
                f" {'it' if gone.size == 1 else 'them'} in a ReservedIP, which waits for the Pods to go"
            )
            yield Refusal(path, why)


def _disables_in_use(pool: Pool, before: Before) -> Iterator[str]:
    old, count = before.draft.pool, before.held.addresses.size
    if pool.disabled and count and old is not None and not old.disabled:
        kept = "1 address in use stays with its Pod" if count == 1 else f"{count} addresses in use stay with their Pods"
        yield f"spec.disabled: {kept}; no new address is handed out"


def _reaches_new_pods_only(pool: Pool, before: Before) -> Iterator[str]:
    """A Pod keeps what it was given: nobody goes into its network and changes it."""
    old, count = before.draft.pool, before.held.addresses.size
    if old is None or not count:
        return
    if changed := [name for name in ("gateway", "routes") if getattr(pool, name) != getattr(old, name)]:
        paths = " and ".join(f"spec.{name}" for name in changed)
        yield f"{paths}: for new Pods only: those that have the {_addresses(count)} in use keep what they were given"
    if pool.audience != old.audience:
        yield f"who may use the pool: for new Pods only: the {_addresses(count)} in use stay with theirs, fit or not"


def _leaves_no_default(pool: Pool, before: Before, around: Around) -> Iterator[str]:
    """Before and after, `default` counts for a pool that is not disabled."""
    others = (other.pool for other in around.neighbours if other.pool is not None)
    if (
        before.draft.pool is not None
        and _is_default(before.draft.pool)
        and not _is_default(pool)
        and not any(_is_default(other) for other in others if other.family is pool.family)
    ):
        yield f"no default {pool.family} pool is left: Pods that name none get no {pool.family} address"


def _is_default(pool: Pool) -> bool:
    return pool.default and not pool.disabled


# --- reservations -----------------------------------------------------------------------------------------------------


def judge_reservation(
    name: str, ips: tuple[str, ...], old: tuple[str, ...] | None, held: Mapping[str, tuple[Family, Ranges]]
) -> Verdict:
    """A ReservedIP that is created (`old` is None) or changed. `held`: by pool, the addresses in use."""
    faults = bad_entries(ips)
    fresh = fresh_faults(faults, bad_entries(old or ()))
    if fresh:
        return Verdict(f"ReservedIP {name}", _few([Refusal(each.field, each.why) for each in fresh], "faults"))
    warnings = [f"still wrong: {fault}" for fault in faults]
    before = by_family(old or ())
    for family, reserved in by_family(ips).items():
        added = reserved.minus(before[family])
        for pool, (of, addresses) in sorted(held.items()):
            if of is family and (used := addresses.intersect(added)):
                warnings.append(
                    f"in use from IPPool {pool}: {used.format(family, 4)}:"
                    f" {'it stays' if used.size == 1 else 'they stay'} with the Pod until it goes, then reserved"
                )
    return Verdict(f"ReservedIP {name}", (), tuple(warnings))


def by_family(texts: tuple[str, ...]) -> dict[Family, Ranges]:
    """What can be understood of a list of entries."""
    runs: dict[Family, list[tuple[int, int]]] = {family: [] for family in Family}
    for span in map(parse_span, texts):
        if not isinstance(span, Malformed):
            runs[span.family].append((span.first, span.last))
    return {family: Ranges.of(each) for family, each in runs.items()}


# --- words ------------------------------------------------------------------------------------------------------------

_WHO = "kubectl get ipe -A shows which"


def _addresses(count: int) -> str:
    return "1 address" if count == 1 else f"{count} addresses"


def _each(addresses: Ranges, family: Family) -> str:
    """The first few, one by one: who has to find their holders searches for each."""
    listed: list[str] = []
    for first, last in addresses.runs:
        for address in range(first, min(last, first + MOST - len(listed) - 1) + 1):
            listed.append(format_address(family, address))
        if len(listed) == MOST:
            break
    more = addresses.size - len(listed)
    return ", ".join(listed) + (f" and {more} more" if more else "")


def _few(refusals: Iterable[Refusal], kind: str) -> tuple[Refusal, ...]:
    every = tuple(refusals)
    more = len(every) - MOST
    return every if more <= 0 else (*every[:MOST], Refusal("", f"and {more} more {kind}"))
