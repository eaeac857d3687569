"""What is allowed in a pool but may surprise: each piece of advice is one sentence that says what will happen.

Each stays under 256 characters, past which the API server may cut it off.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from berth.core.pool import Audience, Operator, Pool, Selector
from berth.core.ranges import Family, Ranges, Subnet, format_address, parse_address


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another pool. `pool` is None when its spec says something that cannot be; `held` are its addresses in use."""

    name: str
    subnet: Subnet
    pool: Pool | None
    held: Ranges = field(default_factory=Ranges)

    @property
    def offered(self) -> Ranges:
        return self.pool.offered if self.pool is not None else Ranges()

    @property
    def taken(self) -> Ranges:
        """What nobody else may hand out: what it offers, and what it holds though it no longer offers it."""
        return self.offered.union(self.held)


@dataclass(frozen=True, slots=True)
class Reservation:
    """A ReservedIP."""

    name: str
    addresses: Mapping[Family, Ranges]


def advise(pool: Pool, neighbours: Iterable[Neighbour], reservations: Iterable[Reservation]) -> list[str]:
    near = [other for other in neighbours if other.subnet.family is pool.family]
    return [
        *_no_gateway(pool),
        *_ends_of_subnet(pool),
        *_gateways(pool, near),
        *_routers(pool),
        *_reserved(pool, reservations),
        *_slices(pool),
        *_selectors(pool.audience),
        *_defaults(pool, near),
        *_nested(pool, near),
    ]


def _no_gateway(pool: Pool) -> Iterator[str]:
    if pool.gateway is None and any(not route.gateway for route in pool.routes):
        first = next(route.destination for route in pool.routes if not route.gateway)
        yield f"spec.routes: {first} has no gw and the pool no spec.gateway: Pods will look for it on the link itself"


def _ends_of_subnet(pool: Pool) -> Iterator[str]:
    ends = Ranges(((pool.subnet.network, pool.subnet.last),)).minus(pool.subnet.hosts())
    if odd := pool.offered.intersect(ends):
        text = odd.format(pool.family)
        yield f"spec.ips: hands out {text}, network or broadcast address of the subnet: hosts may refuse to talk to it"


def _gateways(pool: Pool, near: Iterable[Neighbour]) -> Iterator[str]:
    """A Pod with the gateway's address takes the whole link down."""
    for other in near:
        theirs = other.pool.gateway if other.pool is not None else None
        if theirs is not None and theirs in pool.offered:
            address = format_address(pool.family, theirs)
            yield f"spec.ips: hands out {address}, the gateway of IPPool {other.name}: exclude it with spec.excludeIPs"
        if pool.gateway is not None and pool.gateway in other.offered:
            address = format_address(pool.family, pool.gateway)
            yield f"spec.gateway: {address} is handed out by IPPool {other.name}: exclude it there with spec.excludeIPs"


def _routers(pool: Pool) -> Iterator[str]:
    """As a gateway: but that one is never handed out, and of another router only its address is known."""
    for index, route in enumerate(pool.routes):
        router = parse_address(route.gateway) if route.gateway else None
        if isinstance(router, tuple) and router[1] in pool.offered:
            yield f"spec.routes[{index}].gw: {route.gateway} is handed out to Pods: exclude it with spec.excludeIPs"


def _reserved(pool: Pool, reservations: Iterable[Reservation]) -> Iterator[str]:
    found, names = Ranges(), []
    for each in reservations:
        if inside := pool.offered.intersect(each.addresses.get(pool.family, Ranges())):
            found = found.union(inside)
            names.append(each.name)
    if names and found == pool.offered:
        yield f"every address of the pool is reserved: none is handed out while ReservedIP {_names(names)} says so"
    elif names:
        text = found.format(pool.family, 4)
        yield f"reserved and not handed out: {text} (ReservedIP {_names(names)})"


def _slices(pool: Pool) -> Iterator[str]:
    if pool.slice_size is not None and pool.slice_size > pool.offered.size:
        yield (
            f"spec.slices.size: {pool.slice_size} is more than the {pool.offered.size} addresses of the pool: an"
            " application gets a slice only if it asks for a smaller one"
        )


def _selectors(audience: Audience) -> Iterator[str]:
    for path, selector in (
        ("spec.nodeSelector", audience.node_selector),
        ("spec.namespaceSelector", audience.namespace_selector),
        ("spec.podSelector", audience.pod_selector),
    ):
        if selector is None:
            continue
        if not selector.labels and not selector.expressions:
            yield f"{path}: is empty and so selects everything: leave it out, or say what it selects"
        for each in selector.expressions:
            if each.operator is Operator.IN and not each.values:
                yield f"{path}: {each.key} In nothing is never true: no Pod may use this pool"
            if each.operator in (Operator.EXISTS, Operator.DOES_NOT_EXIST) and each.values:
                yield f"{path}: {each.key} {each.operator} takes no values, and those given do not count"


def _defaults(pool: Pool, near: Iterable[Neighbour]) -> Iterator[str]:
    """Two default pools for the same Pods are a fine way to grow, if one knows which serves first."""
    if not pool.default or pool.disabled:
        return
    rivals = [
        other.pool
        for other in near
        if other.pool is not None
        and other.pool.default
        and not other.pool.disabled
        and may_meet(pool.audience, other.pool.audience)
    ]
    if rivals:
        order = sorted((pool, *rivals), key=lambda each: (-each.audience.narrowness, each.name))
        yield (
            f"spec.default: {_names([each.name for each in rivals])} {'is' if len(rivals) == 1 else 'are'} default for"
            f" {pool.family} too; for a Pod that may use all of them the order is {_names([e.name for e in order])}"
        )


def _nested(pool: Pool, near: Iterable[Neighbour]) -> Iterator[str]:
    """On one link, Pods that differ about the prefix differ about who is a neighbour."""
    inside: list[str] = []
    for other in near:
        one, two = sorted((pool.subnet, other.subnet), key=lambda subnet: subnet.prefix)
        networks = other.pool.audience.networks if other.pool is not None else frozenset()
        if one.prefix != two.prefix and two.network in one and not _apart(pool.audience.networks, networks):
            inside.append(f"{other.name} ({other.subnet})")
    if inside:
        yield (
            f"spec.subnet: {pool.subnet} shares addresses with the subnet of {_names(inside)} under another prefix:"
            " on one link their Pods may not reach each other"
        )


def may_meet(one: Audience, other: Audience) -> bool:
    """Whether some Pod might be allowed both pools. When in doubt, yes."""
    if any(
        _apart(mine, theirs)
        for mine, theirs in (
            (one.nodes, other.nodes),
            (one.namespaces, other.namespaces),
            (one.networks, other.networks),
        )
    ):
        return False
    return not any(
        _exclusive(mine, theirs)
        for mine, theirs in (
            (one.node_selector, other.node_selector),
            (one.namespace_selector, other.namespace_selector),
            (one.pod_selector, other.pod_selector),
        )
    )


def _apart(one: frozenset[str], other: frozenset[str]) -> bool:
    return bool(one) and bool(other) and not one & other


def _exclusive(one: Selector | None, other: Selector | None) -> bool:
    if one is None or other is None:
        return False
    return any(other.labels.get(key, value) != value for key, value in one.labels.items())


def _names(names: list[str], most: int = 3) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
