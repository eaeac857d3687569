"""What a pool is, to the core: its addresses, its routes, and who may use it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from berth.core.ranges import Family, Malformed, Ranges, Subnet, parse_address, parse_ranges, parse_subnet


class Operator(StrEnum):
    """The operators of a Kubernetes label selector's expressions."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True)
class Expression:
    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return value in self.values
            case Operator.NOT_IN:
                return value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.DOES_NOT_EXIST:
                return value is None


@dataclass(frozen=True, slots=True)
class Selector:
    """A label selector: all of its labels and all of its expressions. An empty one matches everything."""

    labels: Mapping[str, str] = field(default_factory=dict)
    expressions: tuple[Expression, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(labels.get(key) == value for key, value in self.labels.items()) and all(
            expression.matches(labels) for expression in self.expressions
        )


@dataclass(frozen=True, slots=True)
class Audience:
    """Who may use a pool. What is not said does not restrict."""

    nodes: frozenset[str] = frozenset()
    node_selector: Selector | None = None
    namespaces: frozenset[str] = frozenset()
    namespace_selector: Selector | None = None
    pod_selector: Selector | None = None
    networks: frozenset[str] = frozenset()

    @property
    def narrowness(self) -> int:
        """How many restrictions it names: of two default pools the narrower one serves first."""
        said = (
            bool(self.nodes),
            self.node_selector is not None,
            bool(self.namespaces),
            self.namespace_selector is not None,
            self.pod_selector is not None,
            bool(self.networks),
        )
        return sum(said)


@dataclass(frozen=True, slots=True)
class Route:
    """`destination` is a CIDR as text; without a gateway the first gateway of the family is meant."""

    destination: str
    gateway: str | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool as its spec describes it. `offered` is what it may hand out before reservations are taken off.
    `slice_size`: it is cut into slices, each for one application, of so many addresses unless that asks for another
    number; None: it is not."""

    name: str
    subnet: Subnet
    offered: Ranges
    gateway: int | None = None
    routes: tuple[Route, ...] = ()
    default: bool = False
    disabled: bool = False
    reuse_delay: float = 30.0
    audience: Audience = Audience()
    slice_size: int | None = None
    retains: bool = False  # addresses of StatefulSets' Pods that were scaled away, until the set is gone

    @property
    def family(self) -> Family:
        return self.subnet.family


@dataclass(frozen=True, slots=True)
class BadField:
    """A field that cannot be, why, and what to write instead. `field` is a path as in `spec.ips[2]`."""

    field: str
    why: str

    def __str__(self) -> str:
        return f"{self.field}: {self.why}"


def offered_ranges(
    subnet: Subnet, ips: tuple[str, ...], excluded: tuple[str, ...], gateway: int | None
) -> Ranges | BadField:
    """`ips` (or the whole subnet without network and broadcast address) less `excludeIPs` and the gateway."""
    offered = _inside(subnet, "spec.ips", ips) if ips else subnet.hosts()
    if isinstance(offered, BadField):
        return offered
    withheld = _inside(subnet, "spec.excludeIPs", excluded)
    if isinstance(withheld, BadField):
        return withheld
    if gateway is not None:
        withheld = withheld.union(Ranges(((gateway, gateway),)))
    return offered.minus(withheld)


def _inside(subnet: Subnet, name: str, texts: tuple[str, ...]) -> Ranges | BadField:
    found = Ranges()
    for index, text in enumerate(texts):
        entry = entry_inside(subnet, f"{name}[{index}]", text)
        if isinstance(entry, BadField):
            return entry
        found = found.union(entry)
    return found


def entry_inside(subnet: Subnet, name: str, text: str) -> Ranges | BadField:
    """One entry of `ips` or `excludeIPs`, all of it inside the subnet."""
    entry = parse_ranges((text,), subnet.family)
    if isinstance(entry, Malformed):
        return BadField(name, str(entry))
    if stray := entry.minus(Ranges(((subnet.network, subnet.last),))):
        beyond = f": {stray.format(subnet.family)}" if stray != entry else ""
        return BadField(name, f'"{text}" is outside of spec.subnet {subnet}{beyond}')
    return entry


def gateway_of(subnet: Subnet, text: str | None) -> int | BadField | None:
    if not text:
        return None
    address = parse_address(text)
    if isinstance(address, Malformed):
        return BadField("spec.gateway", str(address))
    if address[0] is not subnet.family or address[1] not in subnet:
        return BadField("spec.gateway", f'"{text}" is outside of spec.subnet {subnet}: a gateway is on the link')
    return address[1]


def bad_route(subnet: Subnet, index: int, route: Route) -> BadField | None:
    destination = parse_subnet(route.destination)
    if isinstance(destination, Malformed):
        return BadField(f"spec.routes[{index}].dst", str(destination))
    if destination.family is not subnet.family:
        return BadField(
            f"spec.routes[{index}].dst",
            f'"{route.destination}" is {destination.family}, the pool {subnet.family}',
        )
    if route.gateway is None:
        return None
    gateway = gateway_of(subnet, route.gateway)
    return (
        BadField(f"spec.routes[{index}].gw", gateway.why.replace("spec.gateway", "gw"))
        if isinstance(gateway, BadField)
        else None
    )
