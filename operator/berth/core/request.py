"""What a claim asks for, all things considered: its Pod's annotations, its namespace's, the CNI configuration.

    what         who says it: the first that says something counts               else
    -----------------------------------------------------------------------------------------------------------------
    pools        Pod (pools.IFACE, then pools), Namespace (same), CNI configuration   the default pools
    families     Pod (families), CNI configuration                               as the pools named, or the default ones
    addresses    the CNI call, Pod (addresses.IFACE, then addresses)             any
    slice        Pod (slice): its size                                           as the pool says, if that is cut at all
    routes       Pod (routes.IFACE, then routes), beside the pool's              the pool's
    default      Pod (default-route: IFACE), CNI configuration                   as the pool's routes have it

Pools are looked for by family: a Pod that names IPv4 pools leaves it to the next in order to name those for IPv6. A
pool knows its family, so one list names both. `berth.core.annotations` finds what is said for an interface.

Each interface comes with a CNI call of its own. So that a Pod has all of them or none, what its annotations say for the
others is looked at with the first one: it is refused for what another could not be given.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from berth.core.annotations import (
    ADDRESSES,
    FAMILIES,
    POOLS,
    ROUTES,
    SLICE,
    Said,
    has_default_route,
    misspelt,
    named_interfaces,
    said_for,
    whole,
)
from berth.core.claim import Claim, Surroundings, ordinal_of
from berth.core.pool import Route
from berth.core.ranges import Family, Malformed, Ranges, Run, Subnet, parse_address, parse_span, parse_subnet
from berth.core.reasons import Reason
from berth.core.routing import Routing
from berth.core.selection import Choice, Offer, Passed, Refused, choose, narrowest_first

CONFIGURATION = "CNI configuration"
ROUTES_MOST = 64  # as many as a pool may have

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_PATTERN = re.compile(r"([a-z0-9.*?-]|\[!?[a-z0-9.-]+\])+")
_ROUTE = re.compile(r"(\S+)(?:\s+via\s+(\S+))?")


@dataclass(frozen=True, slots=True)
class Request:
    """A claim with what it asks for, all things considered. `sources`: who named the pools of a family."""

    claim: Claim
    sources: Mapping[Family, str] = field(default_factory=dict)
    passed: tuple[Passed, ...] = ()


def decide(claim: Claim, around: Surroundings, offers: Mapping[str, Offer]) -> tuple[Claim, Choice | Refused]:
    """The claim with what it asks for, all things considered, and the pools to try for it."""
    request = request_of(claim, around, offers)
    if isinstance(request, Refused):
        return claim, request
    choice = choose(request.claim, around, offers)
    if isinstance(choice, Choice) and request.passed:
        choice = Choice(choice.candidates, (*request.passed, *choice.passed))
    return request.claim, choice


def request_of(claim: Claim, around: Surroundings, offers: Mapping[str, Offer]) -> Request | Refused:
    if around.application:
        claim = replace(claim, application=around.application)
    if not around.pod_annotations and not around.namespace_annotations:
        return Request(claim)
    if (misspelling := misspelt(around)) is not None:
        return misspelling
    request = _asked(claim, around, offers)
    if isinstance(request, Refused):
        return request
    for interface in named_interfaces(around.pod_annotations):
        if interface != claim.interface:
            other = replace(claim, interface=interface, pools={}, families=frozenset(), wanted={}, among={})
            if isinstance(wrong := _asked(other, around, offers), Refused):
                return Refused(wrong.reason, f"for {interface}, another interface of this Pod: {wrong.message}")
    return request


def _asked(claim: Claim, around: Surroundings, offers: Mapping[str, Offer]) -> Request | Refused:
    families = _families(claim, around)
    if isinstance(families, Refused):
        return families
    routing = _routing(claim, families, around)
    if isinstance(routing, Refused):
        return routing
    size = _slice_size(around)
    if isinstance(size, Refused):
        return size
    claim = replace(claim, families=families, routing=routing, slice_size=size)
    named = _pools(claim, around, offers)
    if isinstance(named, Refused):
        return named
    return _with_addresses(named, around)


# --- families ---------------------------------------------------------------------------------------------------------


def _families(claim: Claim, around: Surroundings) -> frozenset[Family] | Refused:
    said = whole("Pod", around.pod_annotations, FAMILIES)
    if said is None:
        return claim.families
    known = {family.value: family for family in Family}
    for entry in said.entries():
        if entry not in known:
            return said.bad(f'"{entry}" is no family: write IPv4, IPv6, or IPv4,IPv6')
    return frozenset(known[entry] for entry in said.entries())


# --- slices -----------------------------------------------------------------------------------------------------------


def _slice_size(around: Surroundings) -> int | Refused | None:
    said = whole("Pod", around.pod_annotations, SLICE)
    if said is None:
        return None
    size = slice_size_of(around.pod_annotations)
    return said.bad("is no number of addresses: write 1 or more") if size is None else size


def slice_size_of(annotations: Mapping[str, str]) -> int | None:
    """How many addresses a Pod's annotation asks for; None when it says nothing, or nothing that can be."""
    text = annotations.get(SLICE, "").strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 40 and int(text) else None


# --- pools ------------------------------------------------------------------------------------------------------------


def _pools(claim: Claim, around: Surroundings, offers: Mapping[str, Offer]) -> Request | Refused:
    named: dict[Family, tuple[str, ...]] = {}
    sources: dict[Family, str] = {}
    passed: list[Passed] = []
    for on, annotations in (("Pod", around.pod_annotations), ("Namespace", around.namespace_annotations)):
        said = said_for(on, annotations, POOLS, claim.interface)
        if isinstance(said, Refused):
            return said
        if said is None:
            continue
        found = _resolve(said, offers, passed)
        if isinstance(found, Refused):
            return found
        if not found and not named:
            return Refused(
                Reason.POOL_NOT_FOUND,
                f'{said} "{said.text}": no such IPPool exists: create it, or name one of {_some(offers)}',
            )
        for family in found.keys() - named.keys():
            named[family], sources[family] = found[family], str(said)
    for family, names in claim.pools.items():
        if names and family not in named:
            named[family], sources[family] = names, CONFIGURATION
    named = {family: named[family] for family in Family if family in named}
    return Request(replace(claim, pools=named), sources, tuple(passed))


def _resolve(said: Said, offers: Mapping[str, Offer], passed: list[Passed]) -> dict[Family, tuple[str, ...]] | Refused:
    """The pools an annotation names, by family, in order: a pattern stands for those it matches, narrowest first."""
    names: dict[str, None] = {}
    for entry in said.entries():
        if _NAME.fullmatch(entry):
            if entry in offers:
                names[entry] = None
            else:
                passed.append(Passed(entry, "does not exist"))
        elif not entry:
            return said.bad("has an empty entry: write names of IPPools with commas between, or take it away")
        elif not _PATTERN.fullmatch(entry):
            return said.bad(f'"{entry}" is no name of an IPPool: a-z, 0-9, - and ., and as wildcards *, ? and [abc]')
        else:
            matched = [offer.pool for name, offer in offers.items() if fnmatchcase(name, entry)]
            names |= dict.fromkeys(pool.name for pool in narrowest_first(matched))
            if not matched:
                passed.append(Passed(entry, "matches no IPPool"))
    found: dict[Family, tuple[str, ...]] = {}
    for name in names:
        family = offers[name].pool.family
        found[family] = (*found.get(family, ()), name)
    return found


def _some(offers: Mapping[str, Offer], most: int = 5) -> str:
    names = sorted(offers)
    return (
        ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "(there is none)"
    )


# --- routes -----------------------------------------------------------------------------------------------------------


def _routing(claim: Claim, families: frozenset[Family], around: Surroundings) -> Routing | Refused:
    default = has_default_route(around.pod_annotations, claim.interface)
    said = said_for("Pod", around.pod_annotations, ROUTES, claim.interface)
    if isinstance(default, Refused):
        return default
    if isinstance(said, Refused):
        return said
    routes = () if said is None else _routes(said, families)
    if isinstance(routes, Refused):
        return routes
    return Routing(routes, claim.routing.default if default is None else default)


def _routes(said: Said, families: frozenset[Family]) -> tuple[Route, ...] | Refused:
    found: dict[Subnet, Route] = {}
    for entry in said.entries():
        matched = _ROUTE.fullmatch(entry)
        if matched is None:
            return said.bad(f'"{entry}" is no route: write 10.9.0.0/16, or 10.9.0.0/16 via 10.0.0.1, commas between')
        subnet, gateway = parse_subnet(matched[1]), parse_address(matched[2]) if matched[2] else None
        if isinstance(subnet, Malformed):
            return said.bad(str(subnet))
        if isinstance(gateway, Malformed):
            return said.bad(f"{gateway}: after via comes the gateway")
        if gateway is not None and gateway[0] is not subnet.family:
            return said.bad(f"{subnet} is {subnet.family}, and {matched[2]} is {gateway[0]}: correct one")
        if subnet in found:
            return said.bad(f"{subnet} has two routes: keep one of them")
        if families and subnet.family not in families:
            asked = ", ".join(sorted(families))
            return said.bad(f"{subnet} is {subnet.family}, and this Pod is to have {asked} only: correct one of them")
        found[subnet] = Route(matched[1], matched[2])
    if len(found) > ROUTES_MOST:
        return said.bad(f"lists {len(found)} routes: at most {ROUTES_MOST}")
    return tuple(found.values())


# --- addresses --------------------------------------------------------------------------------------------------------


def _with_addresses(request: Request, around: Surroundings) -> Request | Refused:
    claim = request.claim
    said = said_for("Pod", around.pod_annotations, ADDRESSES, claim.interface)
    if isinstance(said, Refused):
        return said
    if said is None:
        return request
    runs: dict[Family, list[Run]] = {}
    for entry in said.entries():
        parsed = _runs(entry)
        if isinstance(parsed, Malformed):
            return said.bad(f"{parsed}: write addresses, first-last or CIDRs with commas between")
        runs.setdefault(parsed[0], []).extend(parsed[1])
    if claim.families and (stray := runs.keys() - claim.families):
        asked = ", ".join(sorted(claim.families))
        return said.bad(f"names {min(stray)} addresses, and this Pod is to have {asked} only: correct one of the two")
    number = _number_of(claim, around)
    wanted, among = dict(claim.wanted), dict(claim.among)
    for family, listed in runs.items():
        if family in claim.wanted:  # the CNI call speaks for this very interface
            continue
        if number is not None:
            address = _nth(listed, number)
            if address is None:
                count = sum(last - first + 1 for first, last in listed)
                return said.bad(
                    f"{claim.pod}, of a StatefulSet, takes the {family} address number {number}, counted from 0, and "
                    f"{count} {'is' if count == 1 else 'are'} listed: list more, or lower spec.replicas"
                )
            wanted[family] = address
        elif (ranges := Ranges.of(listed)).size == 1:
            wanted[family] = ranges.runs[0][0]
        else:
            among[family] = ranges
    return replace(request, claim=replace(claim, wanted=wanted, among=among))


def _number_of(claim: Claim, around: Surroundings) -> int | None:
    """Which of its StatefulSet's Pods it is, counted from 0; other owners' Pods have no order."""
    ordinal = ordinal_of(claim.pod) if around.owner is not None and around.owner.kind == "StatefulSet" else None
    # One from before spec.ordinals.start was raised is on its way out: it takes none that another Pod would.
    return None if ordinal is None else ordinal - around.first_ordinal


def _runs(entry: str) -> tuple[Family, list[Run]] | Malformed:
    """Of a CIDR those that a host may have."""
    if "/" in entry:
        subnet = parse_subnet(entry)
        return subnet if isinstance(subnet, Malformed) else (subnet.family, list(subnet.hosts().runs))
    span = parse_span(entry)
    return span if isinstance(span, Malformed) else (span.family, [(span.first, span.last)])


def _nth(runs: list[Run], number: int) -> int | None:
    """The address with this number in the order in which they are listed."""
    if number < 0:
        return None
    for first, last in runs:
        if number <= last - first:
            return first + number
        number -= last - first + 1
    return None
