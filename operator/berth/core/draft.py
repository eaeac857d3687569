"""A spec before anything in it is believed: everything that is wrong with it, at once.

The operator stops at the first field that cannot be; whoever writes a spec wants to read of all of them. Both ask the
same functions of `berth.core.pool`, and a property test holds the two together.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from berth.core.pool import BadField, Pool, Route, bad_route, entry_inside, gateway_of
from berth.core.ranges import Family, Malformed, Ranges, Subnet, parse_ranges, parse_span, parse_subnet


@dataclass(frozen=True, slots=True)
class Written:
    """The parts of an IPPool's spec that can be wrong, as they were written."""

    subnet: str
    ips: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    gateway: str | None = None
    routes: tuple[Route, ...] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """A spec that was looked at. `pool` is None when it describes none; `excluded` is what excludeIPs takes away;
    `whole` says that spec.ips is not given."""

    name: str
    pool: Pool | None
    faults: tuple[BadField, ...] = ()
    excluded: Ranges = field(default_factory=Ranges)
    whole: bool = False


def examine(name: str, written: Written, pool: Pool | BadField) -> Draft:
    """`pool` is what the operator would make of it: what it stops at is a fault, whatever we find ourselves."""
    faults = tuple(_faults(written))
    if isinstance(pool, BadField):
        return Draft(name, None, faults or (pool,))
    excluded = parse_ranges(written.excluded, pool.family)
    assert isinstance(excluded, Ranges), "the operator has read it"
    return Draft(name, pool, faults, excluded, whole=not written.ips)


# What no host on a link can have for its address (RFC 6890; RFC 4291, section 2.4).
_NO_HOSTS = tuple(
    (subnet, what)
    for text, what in (
        ("0.0.0.0/8", "this host's own"),
        ("127.0.0.0/8", "loopback"),
        ("224.0.0.0/4", "multicast"),
        ("::/127", "loopback"),
        ("ff00::/8", "multicast"),
    )
    if isinstance(subnet := parse_subnet(text), Subnet)
)


def _faults(written: Written) -> Iterator[BadField]:
    subnet = parse_subnet(written.subnet)
    if isinstance(subnet, Malformed):
        yield BadField("spec.subnet", str(subnet))
        return  # all else is held against it
    for special, what in _NO_HOSTS:
        if subnet.meets(special):
            yield BadField("spec.subnet", f"{subnet} has {what} addresses ({special}): no host can have one of those")
    for path, texts in (("spec.ips", written.ips), ("spec.excludeIPs", written.excluded)):
        for index, text in enumerate(texts):
            entry = entry_inside(subnet, f"{path}[{index}]", text)
            if isinstance(entry, BadField):
                yield entry
    gateway = gateway_of(subnet, written.gateway)
    if isinstance(gateway, BadField):
        yield gateway
    elif subnet.family is Family.IPV4 and gateway is not None and gateway not in subnet.hosts():
        why = f'"{written.gateway}" is the network or broadcast address of {subnet}, which no host has: name another'
        yield BadField("spec.gateway", why)
    yield from _bad_routes(subnet, written.routes)


def _bad_routes(subnet: Subnet, routes: tuple[Route, ...]) -> Iterator[BadField]:
    seen: dict[Subnet, int] = {}
    for index, route in enumerate(routes):
        bad = bad_route(subnet, index, route)
        destination = parse_subnet(route.destination)
        if bad is not None:
            yield bad
        elif isinstance(destination, Subnet) and seen.setdefault(destination, index) != index:
            yield BadField(
                f"spec.routes[{index}].dst",
                f'"{route.destination}" has a route already, spec.routes[{seen[destination]}]: keep one of them',
            )


def bad_entries(texts: tuple[str, ...]) -> tuple[BadField, ...]:
    """What is wrong with the `ips` of a ReservedIP, which may be of either family."""
    found = ((index, parse_span(text)) for index, text in enumerate(texts))
    return tuple(BadField(f"spec.ips[{index}]", str(bad)) for index, bad in found if isinstance(bad, Malformed))


def fresh_faults(new: tuple[BadField, ...], old: tuple[BadField, ...]) -> tuple[BadField, ...]:
    """Those faults of `new` that `old` did not have. The same fault is the same text, wrong for the same reason, in the
    same field; that it has moved within its list makes nothing worse."""
    known = {_identity(fault) for fault in old}
    return tuple(fault for fault in new if _identity(fault) not in known)


def _identity(fault: BadField) -> tuple[str, str]:
    return re.sub(r"\[\d+\]", "", fault.field), re.sub(r"\[\d+\]", "", fault.why)
