"""The routes of one interface: those of its pool, those its Pod asks for, and whether the default route is among them.

A route that the Pod asks for stands in place of its pool's for the same destination. With several interfaces there can
be but one default route: an interface that is not to have it gets no gateway either, since some plugins make a
default route of that; its other routes then say the gateway themselves.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from berth.core.pool import Pool, Route
from berth.core.ranges import Family, Malformed, Subnet, format_address, parse_address, parse_subnet

EVERYWHERE = {Family.IPV4: "0.0.0.0/0", Family.IPV6: "::/0"}


@dataclass(frozen=True, slots=True)
class Routing:
    """What is asked for. `default`: whether this interface is to have the default route; None: as its pool says."""

    routes: tuple[Route, ...] = ()
    default: bool | None = None

    @property
    def families(self) -> frozenset[Family]:
        return frozenset(_destination(route).family for route in self.routes)


NO_SAY = Routing()


def unroutable(pool: Pool, routing: Routing) -> str | None:
    """Why an address of this pool cannot have these routes; None when it can."""
    for route in _of(pool.family, routing.routes):
        if route.gateway is not None and not _on_link(pool, route.gateway):
            return f"has not {route.gateway} in its subnet {pool.subnet}, by which a route is to go"
    # In IPv6 routers say themselves that they are there.
    if routing.default and pool.family is Family.IPV4 and not _knows_a_way_out(pool, _merged(pool, routing)):
        return "has no gateway, and this interface is to have the default route"
    return None


def routes_of(pool: Pool, routing: Routing) -> tuple[str | None, tuple[Route, ...]]:
    """The gateway and the routes that go with an address of this pool."""
    gateway = None if pool.gateway is None else format_address(pool.family, pool.gateway)
    routes = _merged(pool, routing)
    if routing.default and pool.gateway is not None and not any(map(is_default, routes)):
        routes += (Route(EVERYWHERE[pool.family]),)
    if routing.default is not False:
        return gateway, routes
    return None, tuple(Route(route.destination, route.gateway or gateway) for route in routes if not is_default(route))


def is_default(route: Route) -> bool:
    return _destination(route).prefix == 0


def _knows_a_way_out(pool: Pool, routes: Iterable[Route]) -> bool:
    return pool.gateway is not None or any(map(is_default, routes))


def _merged(pool: Pool, routing: Routing) -> tuple[Route, ...]:
    asked = _of(pool.family, routing.routes)
    if not asked:
        return pool.routes
    replaced = {_destination(route) for route in asked}
    return (*(route for route in pool.routes if _destination(route) not in replaced), *asked)


def _of(family: Family, routes: Iterable[Route]) -> tuple[Route, ...]:
    return tuple(route for route in routes if _destination(route).family is family)


def _destination(route: Route) -> Subnet:
    subnet = parse_subnet(route.destination)
    assert isinstance(subnet, Subnet), "a route is read before it is one"
    return subnet


def _on_link(pool: Pool, gateway: str) -> bool:
    address = parse_address(gateway)
    return not isinstance(address, Malformed) and address[0] is pool.family and address[1] in pool.subnet
