"""What a pool's spec offers, and what is said of a field that cannot be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.core.pool import Audience, BadField, Route, Selector, bad_route, gateway_of, offered_ranges
from berth.core.ranges import Ranges, Subnet, format_address, parse_subnet


def subnet_of(text: str) -> Subnet:
    subnet = parse_subnet(text)
    assert isinstance(subnet, Subnet)
    return subnet


@pytest.mark.parametrize(
    ("subnet", "ips", "excluded", "gateway", "offered"),
    [
        ("10.0.0.0/29", "", "", None, "10.0.0.1-10.0.0.6"),
        ("10.0.0.0/29", "", "", "10.0.0.1", "10.0.0.2-10.0.0.6"),
        ("10.0.0.0/29", "", "10.0.0.3 10.0.0.5-10.0.0.6", "10.0.0.1", "10.0.0.2, 10.0.0.4"),
        ("10.0.0.0/29", "10.0.0.4/31", "", None, "10.0.0.4-10.0.0.5"),
        ("10.0.0.0/29", "10.0.0.0/29", "", None, "10.0.0.0-10.0.0.7"),  # who lists them means them
        ("10.0.0.0/29", "10.0.0.2-10.0.0.4 10.0.0.3-10.0.0.6", "10.0.0.0/30", None, "10.0.0.4-10.0.0.6"),
        ("10.0.0.0/29", "10.0.0.2", "10.0.0.2", None, ""),
        ("10.0.0.0/31", "", "", None, "10.0.0.0-10.0.0.1"),
        ("10.0.0.0/31", "", "", "10.0.0.0", "10.0.0.1"),
        ("10.0.0.7/32", "", "", None, "10.0.0.7"),
        ("fd00::/126", "", "", "fd00::1", "fd00::2-fd00::3"),
        ("fd00::/127", "", "", None, "fd00::-fd00::1"),
        ("fd00::/48", "", "fd00::1/128", None, "fd00::2-fd00::ffff:ffff:ffff:ffff:ffff"),
    ],
)
def test_a_pool_offers_its_ips_less_what_is_excluded_and_the_gateway(
    subnet: str, ips: str, excluded: str, gateway: str | None, offered: str
) -> None:
    parsed = subnet_of(subnet)
    at = gateway_of(parsed, gateway)
    assert not isinstance(at, BadField)
    ranges = offered_ranges(parsed, tuple(ips.split()), tuple(excluded.split()), at)
    assert isinstance(ranges, Ranges)
    assert ranges.format(parsed.family) == offered


@pytest.mark.parametrize(
    ("ips", "excluded", "said"),
    [
        ("10.0.0.1 ten", "", 'spec.ips[1]: "ten" is no address'),
        ("10.0.0.1 fd00::1", "", 'spec.ips[1]: "fd00::1" is IPv6, and IPv4 is wanted here'),
        ("10.0.0.6-10.0.0.9", "", "is outside of spec.subnet 10.0.0.0/29: 10.0.0.8-10.0.0.9"),
        ("9.0.0.0/8", "", "spec.ips[0]: "),
        ("", "10.0.0.1 10.0.0.2 10.0.1.1", 'spec.excludeIPs[2]: "10.0.1.1" is outside of spec.subnet 10.0.0.0/29'),
        ("", "10.0.0.4-10.0.0.2", "spec.excludeIPs[0]: "),
    ],
)
def test_an_entry_that_cannot_be_is_named(ips: str, excluded: str, said: str) -> None:
    answer = offered_ranges(subnet_of("10.0.0.0/29"), tuple(ips.split()), tuple(excluded.split()), None)
    assert isinstance(answer, BadField)
    assert said in str(answer)


@pytest.mark.parametrize(
    ("gateway", "said"),
    [("10.0.0.9", "is outside of spec.subnet"), ("fd00::1", "is outside of spec.subnet"), ("x", "is not an IP")],
)
def test_a_gateway_is_on_the_link(gateway: str, said: str) -> None:
    answer = gateway_of(subnet_of("10.0.0.0/29"), gateway)
    assert isinstance(answer, BadField)
    assert str(answer).startswith("spec.gateway: ")
    assert said in answer.why


@pytest.mark.parametrize("text", [None, ""])
def test_a_pool_need_not_have_a_gateway(text: str | None) -> None:
    assert gateway_of(subnet_of("10.0.0.0/29"), text) is None


@pytest.mark.parametrize(
    ("route", "said"),
    [
        (Route("0.0.0.0/0"), None),
        (Route("192.0.2.0/24", "10.0.0.2"), None),
        (Route("192.0.2.1/24"), 'spec.routes[3].dst: "192.0.2.1/24" has host bits set: write 192.0.2.0/24'),
        (Route("192.0.2.1"), "spec.routes[3].dst: "),
        (Route("::/0"), 'spec.routes[3].dst: "::/0" is IPv6, the pool IPv4'),
        (Route("192.0.2.0/24", "10.0.1.2"), 'spec.routes[3].gw: "10.0.1.2" is outside of spec.subnet'),
    ],
)
def test_a_route_is_of_the_pools_family_and_its_gateway_on_the_link(route: Route, said: str | None) -> None:
    answer = bad_route(subnet_of("10.0.0.0/29"), 3, route)
    if said is None:
        assert answer is None
    else:
        assert said in str(answer)


def test_narrowness_counts_what_is_said() -> None:
    assert Audience().narrowness == 0
    assert Audience(nodes=frozenset({"a", "b", "c"})).narrowness == 1
    assert Audience(namespace_selector=Selector(), networks=frozenset({"lan"})).narrowness == 2


ENTRIES = st.lists(st.tuples(st.integers(0, 63), st.integers(0, 63)).map(sorted), max_size=4)


@given(ENTRIES, ENTRIES, st.none() | st.integers(0, 63))
def test_what_is_offered_is_what_was_listed_and_not_withheld(
    listed: list[list[int]], excluded: list[list[int]], gateway: int | None
) -> None:
    subnet = subnet_of("10.0.0.0/26")

    def texts(runs: list[list[int]]) -> tuple[str, ...]:
        ends = ([format_address(subnet.family, subnet.network + end) for end in run] for run in runs)
        return tuple(f"{first}-{last}" for first, last in ends)

    def members(runs: list[list[int]]) -> set[int]:
        return {subnet.network + each for first, last in runs for each in range(first, last + 1)}

    at = None if gateway is None else subnet.network + gateway
    offered = offered_ranges(subnet, texts(listed), texts(excluded), at)
    assert isinstance(offered, Ranges)
    brute = (members(listed) if listed else members([[1, 62]])) - members(excluded) - {at}
    assert {each for first, last in offered.runs for each in range(first, last + 1)} == brute
