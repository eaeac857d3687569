"""What the annotations of a Pod say for one of several interfaces, and what is refused with the first of them."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from berth.core.annotations import named_interfaces
from berth.core.claim import Surroundings
from berth.core.pool import Route
from berth.core.ranges import Family
from berth.core.reasons import Reason
from berth.core.request import Request, decide, request_of
from berth.core.routing import Routing, routes_of
from berth.core.selection import Choice, Offer, Refused
from tests.core.stories import CLAIM, pool_of

OFFERS = {
    pool.name: Offer(pool, True)
    for pool in (
        replace(pool_of("office", "10.0.0.0/24", default=True), gateway=(10 << 24) + 254),
        pool_of("lab", "10.1.0.0/24"),
        pool_of("six", "fd01::/64"),
    )
}


def around(**annotations: str) -> Surroundings:
    """`_` for the dot before an interface: `pools_net1`; `default_route` is that one's name."""
    keys = {key: "default-route" if key == "default_route" else key.replace("_", ".") for key in annotations}
    return Surroundings(pod_annotations={f"ipam.berth.dev/{keys[key]}": text for key, text in annotations.items()})


def asked(interface: str, **annotations: str) -> Request | Refused:
    return request_of(replace(CLAIM, interface=interface), around(**annotations), OFFERS)


@pytest.mark.parametrize(
    ("annotations", "pools"),
    [
        ({"pools": "office"}, {"eth0": "office", "net1": "office", "macvlan0": "office"}),
        ({"pools": "office; lab"}, {"eth0": "office", "net1": "lab"}),
        ({"pools": "lab,office;lab;office"}, {"eth0": "lab,office", "net1": "lab", "net2": "office"}),
        ({"pools": "; lab"}, {"eth0": "", "net1": "lab"}),
        ({"pools": "office;", "pools_net1": "lab"}, {"eth0": "office", "net1": "lab"}),
        ({"pools": "office; lab", "pools_uplink": "lab"}, {"eth0": "office", "uplink": "lab"}),
        ({"pools": "office", "pools_net1": "lab"}, {"eth0": "office", "net1": "lab", "net2": "office"}),
    ],
    ids=lambda value: " ".join(f"{key}={text}" for key, text in value.items()),
)
def test_pools_by_order_and_by_name(annotations: Mapping[str, str], pools: Mapping[str, str]) -> None:
    for interface, names in pools.items():
        request = asked(interface, **annotations)
        assert isinstance(request, Request), request
        assert ",".join(request.claim.pools.get(Family.IPV4, ())) == names


@pytest.mark.parametrize(
    ("interface", "annotations", "parts"),
    [
        ("net2", {"pools": "office; lab"}, ["ends with net1", "there is net2 too", "ipam.berth.dev/pools.net2"]),
        ("uplink", {"pools": "office; lab"}, ["goes by order", "uplink", "write ipam.berth.dev/pools.uplink"]),
        ("net1", {"pools": "office; lab", "pools_net1": "lab"}, ["names net1 a second time", "keep one of the two"]),
        ("eth0", {"pools": "office; lab", "pools_net1": "lab"}, ["for net1, another interface", "a second time"]),
        ("eth0", {"pools": "office; lab;", "addresses_net5": "10.0.0.5"}, ["for net5", "there is net5 too"]),
        ("eth0", {"pools_interface.of.mine": "lab"}, ["is no name of an interface", "15 letters"]),
        ("eth0", {"default_route": "eth0, net1"}, ["is no name of one interface"]),
        ("eth0", {"default_route_net1": "x"}, ["no such annotation", "ipam.berth.dev/routes.INTERFACE"]),
    ],
)
def test_interfaces_that_are_named_twice_or_not_at_all_are_refused(
    interface: str, annotations: Mapping[str, str], parts: list[str]
) -> None:
    keys = {key.replace("default_route_", "default-route."): text for key, text in annotations.items()}
    refused = asked(interface, **keys)
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.BAD_ANNOTATION
    for part in parts:
        assert part in refused.message


@pytest.mark.parametrize(
    ("annotations", "reason", "part"),
    [
        ({"pools_net2": "nowhere"}, Reason.POOL_NOT_FOUND, "no such IPPool exists"),
        ({"pools_net2": "Office"}, Reason.BAD_ANNOTATION, "is no name of an IPPool"),
        ({"addresses_net2": "10.0.0.300"}, Reason.BAD_ANNOTATION, "10.0.0.300"),
        ({"routes_net2": "10.9.0.0/16 over 10.0.0.1"}, Reason.BAD_ANNOTATION, "is no route"),
        ({"pools": "office; lab; nowhere"}, Reason.POOL_NOT_FOUND, "no such IPPool exists"),
    ],
)
def test_the_first_interface_is_refused_for_what_a_later_one_could_not_be_given(
    annotations: Mapping[str, str], reason: Reason, part: str
) -> None:
    for interface in ("eth0", "net1"):
        refused = asked(interface, **annotations)
        assert isinstance(refused, Refused)
        assert refused.reason is reason
        assert refused.message.startswith("for net2, another interface of this Pod: Pod annotation ipam.berth.dev/")
        assert part in refused.message


@pytest.mark.parametrize(
    ("annotations", "named"),
    [
        ({}, ()),
        ({"pools": "office", "families": "IPv4"}, ()),
        ({"pools": "office;;lab"}, ("eth0", "net2")),
        ({"addresses_net1": "10.0.0.5", "pools_net1": "lab", "routes_eth0.7": "10.0.0.0/8"}, ("net1", "eth0.7")),
        ({"default_route": "net1"}, ("net1",)),
        ({"default_route": "eth0"}, ()),
    ],
)
def test_the_interfaces_that_annotations_speak_of(annotations: Mapping[str, str], named: tuple[str, ...]) -> None:
    assert named_interfaces(around(**annotations).pod_annotations) == named


# --- routes -----------------------------------------------------------------------------------------------------------


def routes(interface: str, **annotations: str) -> str:
    """Gateway, and routes, of the first pool chosen: `10.0.0.254 | 10.9.0.0/16 via 10.0.0.1`."""
    claim, choice = decide(replace(CLAIM, interface=interface), around(**annotations), OFFERS)
    assert isinstance(choice, Choice), choice
    gateway, found = routes_of(choice.candidates[Family.IPV4][0], claim.routing)
    return f"{gateway} | " + ", ".join(
        f"{each.destination} via {each.gateway}" if each.gateway else each.destination for each in found
    )


@pytest.mark.parametrize(
    ("interface", "annotations", "written"),
    [
        ("eth0", {}, "10.0.0.254 | "),
        ("eth0", {"routes": "10.9.0.0/16"}, "10.0.0.254 | 10.9.0.0/16"),
        ("eth0", {"routes": " 9.0.0.0/8  via 10.0.0.7 , 8.0.0.0/8"}, "10.0.0.254 | 9.0.0.0/8 via 10.0.0.7, 8.0.0.0/8"),
        ("eth0", {"routes_net1": "10.9.0.0/16"}, "10.0.0.254 | "),
        ("net1", {"routes": "10.8.0.0/16; 10.9.0.0/16"}, "10.0.0.254 | 10.9.0.0/16"),
        ("eth0", {"default_route": "eth0"}, "10.0.0.254 | 0.0.0.0/0"),
        ("eth0", {"default_route": "net1"}, "None | "),
        ("eth0", {"default_route": "net1", "routes": "10.9.0.0/16"}, "None | 10.9.0.0/16 via 10.0.0.254"),
        ("eth0", {"default_route": "eth0", "routes": "0.0.0.0/0 via 10.0.0.7"}, "10.0.0.254 | 0.0.0.0/0 via 10.0.0.7"),
        ("eth0", {"pools": "lab,office", "default_route": "eth0"}, "10.0.0.254 | 0.0.0.0/0"),
        ("eth0", {"pools": "lab,office", "routes": "9.0.0.0/8 via 10.0.0.7"}, "10.0.0.254 | 9.0.0.0/8 via 10.0.0.7"),
    ],
)  # fmt: skip
def test_routes_that_a_pod_asks_for(interface: str, annotations: Mapping[str, str], written: str) -> None:
    assert routes(interface, **annotations) == written


def test_an_ipv6_pool_without_a_gateway_leaves_the_default_route_to_the_routers_of_the_link() -> None:
    claim, choice = decide(CLAIM, around(pools="six", default_route="eth0"), OFFERS)
    assert isinstance(choice, Choice)
    assert routes_of(choice.candidates[Family.IPV6][0], claim.routing) == (None, ())


def test_a_route_of_the_pod_stands_in_place_of_its_pools() -> None:
    own = {"routes": "10.9.0.0/16 via 10.0.0.7"}
    pool = replace(
        OFFERS["office"].pool,
        routes=tuple(Route(each) for each in ("10.9.0.0/16", "10.8.0.0/16", "0.0.0.0/0")),
    )
    request = asked("eth0", **own)
    assert isinstance(request, Request)
    gateway, found = routes_of(pool, request.claim.routing)
    assert gateway == "10.0.0.254"
    assert found == (Route("10.8.0.0/16"), Route("0.0.0.0/0"), Route("10.9.0.0/16", "10.0.0.7"))


@pytest.mark.parametrize(
    ("annotations", "part"),
    [
        ({"routes": "10.9.0.0"}, "has no prefix length"),
        ({"routes": "10.9.0.1/16"}, "has host bits set: write 10.9.0.0/16"),
        ({"routes": "10.9.0.0/16 via x"}, "after via comes the gateway"),
        ({"routes": "10.9.0.0/16 via fd01::1"}, "is IPv4, and fd01::1 is IPv6"),
        ({"routes": "10.9.0.0/16,10.9.0.0/16 via 10.0.0.7"}, "has two routes"),
        ({"routes": "10.9.0.0/16,"}, "is no route: write"),
        ({"routes": "fd09::/64", "families": "IPv4"}, "fd09::/64 is IPv6, and this Pod is to have IPv4 only"),
        ({"routes": "fd09::/64"}, "an IPv6 route is asked for, and eth0 is to have IPv4 only"),
        ({"routes": ",".join(f"10.9.{n}.0/24" for n in range(65))}, "lists 65 routes: at most 64"),
        ({"routes": "10.9.0.0/16 via 10.7.0.1"}, "has not 10.7.0.1 in its subnet 10.0.0.0/24"),
        ({"pools": "lab", "default_route": "eth0"}, "lab has no gateway, and this interface is to have the default"),
    ],
)
def test_routes_that_cannot_be_are_refused(annotations: Mapping[str, str], part: str) -> None:
    _, refused = decide(CLAIM, around(**annotations), OFFERS)
    assert isinstance(refused, Refused)
    assert part in refused.message


def test_a_default_route_goes_before_what_the_cni_configuration_says() -> None:
    silent = replace(CLAIM, routing=Routing(default=False))
    for annotations, gateway in (({}, None), ({"default_route": "eth0"}, "10.0.0.254")):
        claim, choice = decide(silent, around(**annotations), OFFERS)
        assert isinstance(choice, Choice)
        assert routes_of(choice.candidates[Family.IPV4][0], claim.routing)[0] == gateway
