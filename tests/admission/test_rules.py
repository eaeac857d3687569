"""The rules as stories: what there is, what somebody does, and what he is told.

Each refusal's text is kept in golden/, for a reader to judge; BERTH_GOLDEN=write makes them anew.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from berth.core.admission import Verdict
from berth_webhook.review import Known, Review, decide

GOLDEN = Path(__file__).parent / "golden"
Object = dict[str, Any]

BLUE: Object = {"subnet": "10.0.0.0/24", "ips": ["10.0.0.10-10.0.0.19"], "gateway": "10.0.0.1"}


def pool(name: str, spec: Object, held: Iterable[str] = (), **metadata: object) -> Object:
    ledger = {"sequence": 1, "pending": {address: f"claim-{address}" for address in held}}
    return {"metadata": {"name": name, **metadata}, "spec": spec, "status": {"ledger": ledger}}


def reserved(name: str, *ips: str) -> Object:
    return {"metadata": {"name": name}, "spec": {"ips": list(ips)}}


def endpoint(pool: str, address: str) -> Object:
    return {"status": {"addresses": [{"family": "IPv4", "address": f"{address}/24", "pool": pool}]}}


@dataclass
class Story:
    """`told`: what every answer must contain; none, and it must pass without a word."""

    name: str
    new: Object | None = None
    old: Object | None = None
    told: tuple[str, ...] = ()
    refused: bool = False
    pools: list[Object] = field(default_factory=list)
    reserved: list[Object] = field(default_factory=list)
    endpoints: list[Object] = field(default_factory=list)
    resource: str = "ippools"

    def verdict(self) -> Verdict:
        operation = "DELETE" if self.new is None else "CREATE" if self.old is None else "UPDATE"
        thing = self.new or self.old
        assert thing is not None
        review = Review("u", operation, self.resource, "", thing["metadata"]["name"], self.new or {}, self.old or {})
        return decide(review, Known([*self.pools, *([self.old] if self.old else [])], self.reserved, self.endpoints))


def refused(name: str, *told: str, **rest: Any) -> Story:
    return Story(name, told=told, refused=True, **rest)


def with_spec(**changes: Any) -> Object:
    return pool("blue", {**BLUE, **changes})


IN_USE = ["10.0.0.10", "10.0.0.11", "10.0.0.12"]
BROKEN_LEDGER = {**pool("blue", BLUE), "status": {"ledger": {"sequence": 1, "blocks": {"10.0.0.1": "AQ=="}}}}
OVERLAPPING = {"subnet": "10.0.0.0/24", "ips": ["10.0.0.15-10.0.0.24"]}

REFUSALS = [
    # what one object says
    refused("an address outside of the subnet", "spec.ips[1]", "10.0.1.5", new=with_spec(ips=["10.0.0.9", "10.0.1.5"])),
    refused(
        "a range that sticks out of the subnet",
        "10.0.1.0-10.0.1.3",
        new=with_spec(ips=["10.0.0.250-10.0.1.3"]),
    ),
    refused("an excluded address outside of the subnet", "spec.excludeIPs[0]", new=with_spec(excludeIPs=["10.1.0.0"])),
    refused("an address of the other family", "IPv4 is wanted", new=with_spec(ips=["fd00::1"])),
    refused("a range that begins in one family and ends in the other", new=with_spec(ips=["10.0.0.1-fd00::1"])),
    refused("a range that runs backwards", "write 10.0.0.10-10.0.0.20", new=with_spec(ips=["10.0.0.20-10.0.0.10"])),
    refused("a CIDR with host bits", "write 10.0.0.16/28", new=with_spec(ips=["10.0.0.17/28"])),
    refused("a subnet with host bits", "write 10.0.0.0/24", new=with_spec(subnet="10.0.0.1/24")),
    refused("a gateway on another link", "spec.gateway", new=with_spec(gateway="10.0.1.1")),
    refused("a gateway of the other family", "spec.gateway", new=with_spec(gateway="fd00::1")),
    refused("a route of the other family", "spec.routes[0].dst", new=with_spec(routes=[{"dst": "::/0"}])),
    refused(
        "a route by way of another link",
        "spec.routes[0].gw",
        new=with_spec(routes=[{"dst": "0.0.0.0/0", "gw": "10.9.0.1"}]),
    ),
    refused(
        "two routes to one place",
        "spec.routes[1].dst",
        "spec.routes[0]",
        new=with_spec(routes=[{"dst": "0.0.0.0/0"}, {"dst": "0.0.0.0/0", "gw": "10.0.0.2"}]),
    ),
    refused(
        "everything wrong at once is told at once",
        "spec.ips[0]",
        "spec.excludeIPs[0]",
        "spec.gateway",
        "spec.routes[0].dst",
        new=with_spec(ips=["x"], excludeIPs=["y"], gateway="z", routes=[{"dst": "w"}]),
    ),
    refused("twenty faults are not told one by one", "and 12 more faults", new=with_spec(ips=["x"] * 20)),
    refused("a spec of the wrong types", "spec.ips", new=with_spec(ips="10.0.0.1")),
    refused("no spec at all", "spec", new={"metadata": {"name": "blue"}}),
    refused(
        "a pool that excludes all it has",
        "spec.excludeIPs",
        new=with_spec(excludeIPs=["10.0.0.10/31", "10.0.0.12-10.0.0.19"]),
    ),
    refused("a pool whose only address is its gateway", "spec.gateway", new=with_spec(ips=["10.0.0.1"])),
    # what takes two objects
    refused(
        "a pool that overlaps another",
        "IPPool blue",
        "10.0.0.15-10.0.0.19",
        "5 addresses",
        "spec.excludeIPs",
        new=pool("green", OVERLAPPING),
        pools=[pool("blue", BLUE)],
    ),
    refused(
        "a pool of a whole subnet that overlaps another",
        "set spec.ips",
        new=pool("green", {"subnet": "10.0.0.0/24"}),
        pools=[pool("blue", BLUE)],
    ),
    refused(
        "a pool that overlaps twenty others",
        "and 12 more pools that overlap",
        new=pool("green", {"subnet": "10.0.0.0/24"}),
        pools=[pool(f"p{n:02}", {"subnet": "10.0.0.0/24", "ips": [f"10.0.0.{n + 1}"]}) for n in range(20)],
    ),
    refused(
        "a pool over an address that another holds but no longer offers",
        "IPPool blue",
        "10.0.0.99",
        new=pool("green", {"subnet": "10.0.0.0/24", "ips": ["10.0.0.99"]}),
        pools=[pool("blue", BLUE, ["10.0.0.99"])],
    ),
    refused(
        "a pool that overlaps one that is disabled or being deleted, since Pods may still have its addresses",
        "IPPool blue",
        new=pool("green", OVERLAPPING),
        pools=[pool("blue", {**BLUE, "disabled": True}, deletionTimestamp="2026-01-01T00:00:00Z")],
    ),
    refused(
        "a pool that grows into another",
        "10.0.0.20-10.0.0.24",
        old=pool("blue", BLUE),
        new=with_spec(ips=["10.0.0.10-10.0.0.30"]),
        pools=[pool("green", {"subnet": "10.0.0.0/24", "ips": ["10.0.0.20-10.0.0.24"]})],
    ),
    refused(
        "an overlap that is there already is not made worse",
        "10.0.0.20-10.0.0.24 (5 addresses)",
        old=pool("blue", BLUE),
        new=with_spec(ips=["10.0.0.10-10.0.0.24"]),
        pools=[pool("green", OVERLAPPING)],
    ),
    # what changes under Pods
    refused("another subnet", "immutable", old=pool("blue", BLUE), new=pool("blue", {"subnet": "10.1.0.0/24"})),
    refused(
        "a range that leaves an address in use out",
        "spec.ips",
        "10.0.0.10, 10.0.0.11:",
        old=pool("blue", BLUE, IN_USE),
        new=with_spec(ips=["10.0.0.12-10.0.0.19"]),
    ),
    refused(
        "an exclusion of an address in use",
        "spec.excludeIPs",
        "10.0.0.11:",
        old=pool("blue", BLUE, IN_USE),
        new=with_spec(excludeIPs=["10.0.0.11"]),
    ),
    refused(
        "a gateway that a Pod has",
        "spec.gateway",
        "10.0.0.12",
        old=pool("blue", BLUE, IN_USE),
        new=with_spec(gateway="10.0.0.12"),
    ),
    refused(
        "many addresses in use are not told one by one",
        "10.0.0.10, 10.0.0.11, 10.0.0.12, 10.0.0.13, 10.0.0.14, 10.0.0.15, 10.0.0.16, 10.0.0.17 and 2 more",
        old=pool("blue", BLUE, [f"10.0.0.{n}" for n in range(10, 20)]),
        new=with_spec(ips=["10.0.0.100"]),
    ),
    refused("a pool in use is deleted", "3 addresses are in use", "spec.disabled", old=pool("blue", BLUE, IN_USE)),
    refused(
        "a pool whose ledger can't be read is deleted, and an Endpoint has an address of it",
        "1 address is in use",
        old=BROKEN_LEDGER,
        endpoints=[endpoint("blue", "10.0.0.10"), endpoint("green", "10.0.0.99")],
    ),
    refused(
        "a pool whose ledger can't be read loses an address that an Endpoint has",
        "10.0.0.10:",
        old=BROKEN_LEDGER,
        new=with_spec(excludeIPs=["10.0.0.10"]),
        endpoints=[endpoint("blue", "10.0.0.10")],
    ),
    # addresses that no host has
    refused("a multicast subnet", "224.0.0.0/4", new=pool("blue", {"subnet": "239.1.0.0/24"})),
    refused("a loopback subnet", "loopback", new=pool("blue", {"subnet": "127.0.1.0/24"})),
    refused("everything there is", "224.0.0.0/4", "127.0.0.0/8", new=pool("blue", {"subnet": "0.0.0.0/0"})),
    refused("a multicast subnet of IPv6", "ff00::/8", new=pool("blue", {"subnet": "ff02::/64"})),
    refused(
        "a gateway that is the broadcast address",
        "spec.gateway",
        "network or broadcast address",
        new=pool("blue", {**BLUE, "gateway": "10.0.0.255"}),
    ),
    # repair that is none
    refused(
        "a broken pool gets a second fault",
        "spec.gateway",
        old=with_spec(ips=["10.0.1.5"]),
        new=with_spec(ips=["10.0.1.5"], gateway="10.7.0.1"),
    ),
    refused(
        "a broken pool is broken in another way",
        "10.0.2.7",
        old=with_spec(ips=["10.0.1.5"]),
        new=with_spec(ips=["10.0.2.7"]),
    ),
    # reservations
    refused(
        "a reservation that is none",
        "spec.ips[0]",
        "spec.ips[2]",
        new=reserved("printers", "10.0.0.5-", "10.0.0.6", "10.0.0.9-10.0.0.8"),
        resource="reservedips",
    ),
    refused("a reservation without a list", "spec.ips", new={"metadata": {"name": "printers"}, "spec": {}},
            resource="reservedips"),
]  # fmt: skip

ALLOWED = [
    Story("a good pool", new=pool("blue", BLUE)),
    Story("a pool of the same subnet and other addresses", new=pool("green", {**BLUE, "ips": ["10.0.0.20"]}),
          pools=[pool("blue", BLUE)]),
    Story("a pool of the other family", new=pool("green", {"subnet": "fd00::/64"}), pools=[pool("blue", BLUE)]),
    Story("its own earlier self is no other pool", old=pool("blue", BLUE, IN_USE), new=with_spec(default=True)),
    Story("a free address is excluded", old=pool("blue", BLUE, IN_USE), new=with_spec(excludeIPs=["10.0.0.19"])),
    Story("a pool in use grows", old=pool("blue", BLUE, IN_USE), new=with_spec(ips=["10.0.0.10-10.0.0.40"])),
    Story("a pool without an address in use is deleted", old=pool("blue", BLUE)),
    Story("status and metadata are nobody's business", old=pool("blue", {"subnet": "x"}, IN_USE),
          new=pool("blue", {"subnet": "x"}, labels={"a": "b"})),
    Story("a pool on its way out loses its finalizer", old=pool("blue", BLUE, IN_USE, deletionTimestamp="now"),
          new=pool("blue", {"subnet": "x"}, deletionTimestamp="now")),
    Story("a pool on its way out is deleted again", old=pool("blue", BLUE, IN_USE, deletionTimestamp="now")),
    Story("a broken pool is repaired", old=with_spec(ips=["10.0.1.5"]), new=pool("blue", BLUE)),
    Story("half of an overlap is repaired", with_spec(ips=["10.0.0.10-10.0.0.16"]),
          old=pool("blue", BLUE), pools=[pool("green", OVERLAPPING)],
          told=("still overlaps IPPool green in 10.0.0.15-10.0.0.16",)),
    Story("one of two faults is repaired, and the other has moved", old=with_spec(ips=["10.0.1.5", "10.0.2.7"]),
          new=with_spec(ips=["10.0.2.7"]), told=('still wrong: spec.ips[0]: "10.0.2.7" is outside',)),
    Story("a pool that offered nothing still offers nothing", old=with_spec(excludeIPs=["10.0.0.10-10.0.0.19"]),
          new=with_spec(excludeIPs=["10.0.0.10-10.0.0.19"], disabled=True), told=("offers no address",)),
    Story("a broken pool in use is repaired to fewer addresses", old=pool("blue", {"subnet": "10.0.0.0/24",
          "ips": ["nonsense"]}, IN_USE), new=with_spec(ips=["10.0.0.12"]),
          told=("in use, and not offered by this spec: 10.0.0.10-10.0.0.11",)),
    Story("a pool whose ledger can't be read is deleted when no Endpoint has an address of it", old=BROKEN_LEDGER,
          endpoints=[endpoint("green", "10.0.0.99")], told=("its ledger can't be read", "Endpoints say")),
    Story("a pool whose ledger can't be read is changed", old=BROKEN_LEDGER, new=with_spec(disabled=True),
          told=("its ledger can't be read",)),
    # warnings
    Story("routes without a gateway", new=pool("blue", {"subnet": "10.0.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}),
          told=("spec.routes: 0.0.0.0/0 has no gw",)),
    Story("reserved addresses inside", new=pool("blue", BLUE), reserved=[reserved("printers", "10.0.0.11", "fd00::1")],
          told=("10.0.0.11 (ReservedIP printers)",)),
    Story("all of it reserved", new=pool("blue", BLUE), reserved=[reserved("all", "10.0.0.0/24")],
          told=("every address of the pool is reserved",)),
    Story("a pool in use is disabled", old=pool("blue", BLUE, IN_USE), new=with_spec(disabled=True),
          told=("3 addresses in use stay with their Pods",)),
    Story("another gateway while in use", old=pool("blue", BLUE, IN_USE), new=with_spec(gateway="10.0.0.2"),
          told=("spec.gateway: for new Pods only: those that have the 3 addresses in use keep what they were given",)),
    Story("other routes while in use", old=pool("blue", BLUE, IN_USE), new=with_spec(routes=[{"dst": "0.0.0.0/0"}]),
          told=("spec.routes: for new Pods only",)),
    Story("other routes of a pool not in use", old=pool("blue", BLUE), new=with_spec(routes=[{"dst": "0.0.0.0/0"}])),
    Story("a pool in use becomes that of others", old=pool("blue", BLUE, IN_USE), new=with_spec(namespaces=["a"]),
          told=("who may use the pool: for new Pods only: the 3 addresses in use stay with theirs",)),
    Story("the last default pool is one no more", old=with_spec(default=True), new=pool("blue", BLUE),
          told=("no default IPv4 pool is left",), pools=[pool("six", {"subnet": "fd00::/64", "default": True})]),
    Story("the last default pool is disabled", old=with_spec(default=True), new=with_spec(default=True, disabled=True),
          told=("no default IPv4 pool is left",)),
    Story("a default pool of two is one no more", old=with_spec(default=True), new=pool("blue", BLUE),
          pools=[pool("green", {"subnet": "10.1.0.0/24", "default": True})]),
    Story("a router's address is handed out", told=("spec.routes[0].gw: 10.0.0.15 is handed out to Pods",),
          new=with_spec(routes=[{"dst": "10.9.0.0/16", "gw": "10.0.0.15"}])),
    Story("an empty selector", new=with_spec(podSelector={}), told=("spec.podSelector: is empty",)),
    Story("a selector that is never true", new=with_spec(nodeSelector={"matchExpressions": [
          {"key": "zone", "operator": "In"}]}), told=("zone In nothing",)),
    Story("a selector with values for nothing", new=with_spec(nodeSelector={"matchExpressions": [
          {"key": "zone", "operator": "Exists", "values": ["a"]}]}), told=("zone Exists takes no values",)),
    Story("a second default pool", new=with_spec(default=True), told=("green is default for IPv4 too", "blue, green"),
          pools=[pool("green", {"subnet": "10.1.0.0/24", "default": True})]),
    Story("a second default pool for others", new=with_spec(default=True, namespaces=["a"]),
          pools=[pool("green", {"subnet": "10.1.0.0/24", "default": True, "namespaces": ["b"]})]),
    Story("a subnet inside another", new=pool("blue", BLUE), told=("green (10.0.0.0/16)", "another prefix"),
          pools=[pool("green", {"subnet": "10.0.0.0/16", "ips": ["10.0.9.0/24"]})]),
    Story("the gateway of another pool is handed out", new=with_spec(ips=["10.0.0.10", "10.0.0.9"]),
          told=("hands out 10.0.0.9, the gateway of IPPool green",),
          pools=[pool("green", {**BLUE, "ips": ["10.0.0.99"], "gateway": "10.0.0.9"})]),
    Story("slices larger than the pool", new=with_spec(slices={"size": 11}),
          told=("spec.slices.size: 11 is more than the 10 addresses of the pool",)),
    Story("a gateway that is the routers' own", new=pool("six", {"subnet": "fd00::/64", "gateway": "fd00::"})),
    Story("slices that fit", new=with_spec(slices={"size": 10})),
    Story("a warning given before is not given again", old=with_spec(podSelector={}),
          new=with_spec(podSelector={}, disabled=True)),
    Story("a neighbour that can't be understood", new=pool("blue", BLUE), pools=[pool("odd", {"subnet": "x"})],
          told=("not looked at for overlap", "odd (spec.subnet)")),
    # reservations
    Story("a good reservation", new=reserved("printers", "10.0.0.5", "fd00::/120"), resource="reservedips"),
    Story("a reservation of addresses in use", new=reserved("printers", "10.0.0.11"), resource="reservedips",
          pools=[pool("blue", BLUE, IN_USE)], told=("IPPool blue", "10.0.0.11")),
    Story("a reservation is deleted", old=reserved("printers", "10.0.0.11"), resource="reservedips"),
]  # fmt: skip


@pytest.mark.parametrize("story", REFUSALS, ids=lambda story: story.name)
def test_is_refused(story: Story) -> None:
    verdict = story.verdict()
    assert not verdict.allowed
    for part in story.told:
        assert part in verdict.message
    file = GOLDEN / (story.name.replace(" ", "-").replace("'", "").replace(",", "") + ".txt")
    text = "\n".join([f"{verdict.subject}:", *(f"* {each}" for each in verdict.refusals)]) + "\n"
    if os.environ.get("BERTH_GOLDEN") == "write":
        file.write_text(text)
    assert file.read_text() == text, "BERTH_GOLDEN=write writes it anew"


@pytest.mark.parametrize("story", ALLOWED, ids=lambda story: story.name)
def test_is_allowed(story: Story) -> None:
    verdict = story.verdict()
    assert verdict.allowed, verdict.message
    assert bool(verdict.warnings) is bool(story.told), verdict.warnings
    for part in story.told:
        assert any(part in warning for warning in verdict.warnings), verdict.warnings
    # With the object's name before it; past 256 the API server may cut.
    assert all(len(warning) < 240 for warning in verdict.warnings)


def test_every_golden_file_belongs_to_a_story() -> None:
    assert len(list(GOLDEN.glob("*.txt"))) == len(REFUSALS)
