"""The Endpoint: the claim in its spec, the confirmation in its status."""

from collections.abc import Iterable
from typing import Any

from pydantic import Field

from berth.api.conditions import Condition, Wire
from berth.api.ippool import RouteEntry
from berth.api.names import REASSERTED
from berth.core.claim import Claim, Holding, Owner
from berth.core.pool import BadField, Pool
from berth.core.ranges import Family, Malformed, format_address, parse_address
from berth.core.routing import NO_SAY, Routing, routes_of


class PodReference(Wire):
    name: str
    uid: str


class EndpointSpec(Wire):
    pod: PodReference
    node: str
    network: str
    interface: str
    container_id: str = Field(alias="containerID")
    ipv4_pools: tuple[str, ...] = Field((), alias="ipv4Pools")
    ipv6_pools: tuple[str, ...] = Field((), alias="ipv6Pools")
    families: tuple[Family, ...] = ()
    addresses: tuple[str, ...] = ()
    default_route: bool | None = Field(None, alias="defaultRoute")


class AddressEntry(Wire):
    family: Family
    address: str  # with prefix length
    gateway: str | None = None
    pool: str


class HeldFor(Wire):
    kind: str
    name: str
    uid: str


class EndpointStatus(Wire):
    addresses: tuple[AddressEntry, ...] = ()
    held_for: HeldFor | None = Field(None, alias="heldFor")
    routes: tuple[RouteEntry, ...] = ()
    conditions: tuple[Condition, ...] = ()

    def ready(self) -> Condition | None:
        return next((each for each in self.conditions if each.type == "Ready"), None)


class ObjectMeta(Wire):
    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = Field("", alias="resourceVersion")
    generation: int = 0
    creation_timestamp: str = Field("", alias="creationTimestamp")
    deletion_timestamp: str | None = Field(None, alias="deletionTimestamp")
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()


class Endpoint(Wire):
    metadata: ObjectMeta
    spec: EndpointSpec
    status: EndpointStatus = EndpointStatus()

    def to_core(self) -> Claim | BadField:
        """The claim this is, with what it holds."""
        wanted: dict[Family, int] = {}
        for index, text in enumerate(self.spec.addresses):
            address = parse_address(text)
            if isinstance(address, Malformed):
                return BadField(f"spec.addresses[{index}]", str(address))
            if address[0] in wanted:
                return BadField(f"spec.addresses[{index}]", f'"{text}" is a second {address[0]} address: ask for one')
            wanted[address[0]] = address[1]
        holdings: list[Holding] = []
        for index, entry in enumerate(self.status.addresses):
            held = parse_address(entry.address.partition("/")[0])
            if isinstance(held, Malformed):
                return BadField(f"status.addresses[{index}].address", str(held))
            holdings.append(Holding(entry.pool, held[0], held[1]))
        keeper = self.status.held_for
        return Claim(
            uid=self.metadata.uid,
            namespace=self.metadata.namespace,
            name=self.metadata.name,
            pod=self.spec.pod.name,
            pod_uid=self.spec.pod.uid,
            node=self.spec.node,
            network=self.spec.network,
            interface=self.spec.interface,
            container=self.spec.container_id,
            pools={Family.IPV4: self.spec.ipv4_pools, Family.IPV6: self.spec.ipv6_pools},
            families=frozenset(self.spec.families),
            wanted=wanted,
            routing=NO_SAY if self.spec.default_route is None else Routing(default=self.spec.default_route),
            holdings=tuple(holdings),
            reasserted=REASSERTED in self.metadata.annotations,
            held_for=None if keeper is None else Owner(keeper.kind, keeper.name, keeper.uid),
        )


def write_addresses(granted: Iterable[tuple[Pool, int]], routing: Routing = NO_SAY) -> dict[str, list[dict[str, Any]]]:
    """`status.addresses` and `status.routes` for what was granted, with the routes that were asked for."""
    addresses: list[dict[str, Any]] = []
    routes: list[dict[str, Any]] = []
    for pool, address in granted:
        text = f"{format_address(pool.family, address)}/{pool.subnet.prefix}"
        entry = {"family": pool.family.value, "address": text, "pool": pool.name}
        gateway, with_it = routes_of(pool, routing)
        if gateway is not None:
            entry["gateway"] = gateway
        addresses.append(entry)
        routes += [{"dst": route.destination, **({"gw": route.gateway} if route.gateway else {})} for route in with_it]
    return {"addresses": addresses, "routes": routes}


def write_held_for(owner: Owner | None) -> dict[str, Any]:
    """`status.heldFor`: of a StatefulSet's Pod alone."""
    if owner is None or not owner.is_stateful_set:
        return {}
    return {"heldFor": {"kind": owner.kind, "name": owner.name, "uid": owner.uid}}
