"""Sets of addresses: against sets of ints, on a universe small enough to count."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from berth.core.ranges import (
    Family,
    Malformed,
    Ranges,
    Run,
    Span,
    Subnet,
    format_address,
    format_run,
    parse_address,
    parse_ranges,
    parse_span,
    parse_subnet,
)

V4, V6 = Family.IPV4, Family.IPV6
FAMILIES = st.sampled_from(Family)


def of_family(family: Family) -> st.SearchStrategy[int]:
    return st.integers(0, (1 << family.bits) - 1)


# The ends of both families and of an IPv4-sized range, where an off-by-one would hide.
BASES = st.sampled_from([0, 10 << 24, (1 << 32) - 48, 0xFD << 120, (1 << 128) - 48])
SMALL_RUNS = st.lists(st.tuples(st.integers(0, 47), st.integers(0, 47)).map(lambda ends: (min(ends), max(ends))))


def members(ranges: Ranges) -> set[int]:
    return {address for first, last in ranges.runs for address in range(first, last + 1)}


def shifted(base: int, runs: list[Run]) -> Ranges:
    return Ranges.of((base + first, base + last) for first, last in runs)


def assert_well_formed(ranges: Ranges) -> None:
    assert all(first <= last for first, last in ranges.runs)
    assert all(a[1] + 1 < b[0] for a, b in zip(ranges.runs, ranges.runs[1:], strict=False)), "unsorted or touching"


@given(BASES, SMALL_RUNS)
def test_a_set_is_its_members_however_it_was_written(base: int, runs: list[Run]) -> None:
    ranges = shifted(base, runs)
    brute = {base + address for first, last in runs for address in range(first, last + 1)}
    assert_well_formed(ranges)
    assert members(ranges) == brute
    assert ranges.size == len(brute)
    assert bool(ranges) == bool(brute)
    assert [address in ranges for address in range(base - 1, base + 50)] == [
        address in brute for address in range(base - 1, base + 50)
    ]
    assert ranges == shifted(base, list(reversed(runs))), "equal sets are equal values"


@given(BASES, SMALL_RUNS, SMALL_RUNS)
def test_union_minus_and_intersect_are_those_of_sets(base: int, left: list[Run], right: list[Run]) -> None:
    one, other = shifted(base, left), shifted(base, right)
    for result, brute in (
        (one.union(other), members(one) | members(other)),
        (one.minus(other), members(one) - members(other)),
        (one.intersect(other), members(one) & members(other)),
    ):
        assert_well_formed(result)
        assert members(result) == brute
    assert one.minus(other).union(one.intersect(other)) == one


@given(BASES, SMALL_RUNS, st.integers(0, 47), st.integers(0, 47))
def test_touching_gives_the_runs_that_share_an_address_in_order(base: int, runs: list[Run], one: int, two: int) -> None:
    ranges = shifted(base, runs)
    first, last = base + min(one, two), base + max(one, two)
    assert list(ranges.touching(first, last)) == [run for run in ranges.runs if run[0] <= last and first <= run[1]]


@given(FAMILIES.flatmap(lambda family: st.tuples(st.just(family), of_family(family))))
def test_an_address_comes_back_as_it_was_written(one: tuple[Family, int]) -> None:
    family, address = one
    assert parse_address(format_address(family, address)) == (family, address)
    assert parse_span(format_address(family, address)) == Span(family, address, address)


@given(FAMILIES.flatmap(lambda family: st.tuples(st.just(family), of_family(family), of_family(family))))
def test_a_run_comes_back_as_it_was_written(one: tuple[Family, int, int]) -> None:
    family, first, last = one[0], min(one[1:]), max(one[1:])
    assert parse_span(format_run(family, (first, last))) == Span(family, first, last)


@given(FAMILIES.flatmap(lambda f: st.tuples(st.just(f), of_family(f), st.integers(0, f.bits))))
def test_a_subnet_comes_back_as_it_was_written_and_holds_its_hosts(one: tuple[Family, int, int]) -> None:
    family, address, prefix = one
    size = 1 << (family.bits - prefix)
    subnet = Subnet(family, address // size * size, prefix)
    assert parse_subnet(str(subnet)) == subnet
    assert subnet.last - subnet.network + 1 == size
    assert address in subnet
    assert subnet.network - 1 not in subnet
    assert subnet.last + 1 not in subnet
    whole = Ranges(((subnet.network, subnet.last),))
    assert subnet.hosts().minus(whole) == Ranges()
    left_out = 0 if size <= 2 else 2 if family is V4 else 1
    assert subnet.hosts().size == size - left_out


@pytest.mark.parametrize(
    ("subnet", "hosts"),
    [
        ("10.0.0.0/24", "10.0.0.1-10.0.0.254"),
        ("10.0.0.4/30", "10.0.0.5-10.0.0.6"),
        ("10.0.0.4/31", "10.0.0.4-10.0.0.5"),
        ("10.0.0.4/32", "10.0.0.4"),
        ("0.0.0.0/0", "0.0.0.1-255.255.255.254"),
        ("fd00::/64", "fd00::1-fd00::ffff:ffff:ffff:ffff"),
        ("fd00::4/126", "fd00::5-fd00::7"),
        ("fd00::4/127", "fd00::4-fd00::5"),
        ("fd00::4/128", "fd00::4"),
        ("::/0", "::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ],
)
def test_the_hosts_of_a_subnet_leave_out_what_no_host_may_have(subnet: str, hosts: str) -> None:
    parsed = parse_subnet(subnet)
    assert isinstance(parsed, Subnet)
    assert parsed.hosts().format(parsed.family) == hosts


ODD_TEXT = st.one_of(st.text(), st.text("0123456789abcdef.:/-% ,", max_size=40))


@given(ODD_TEXT)
@example("\ud800")
@example("/")
@example("-")
@example("10.0.0.0/\u0662\u0664")
def test_whatever_is_written_the_answer_is_a_value(text: str) -> None:
    assert isinstance(parse_address(text), tuple | Malformed)
    assert isinstance(parse_subnet(text), Subnet | Malformed)
    span = parse_span(text)
    assert isinstance(span, Span | Malformed)
    if isinstance(span, Span):
        assert 0 <= span.first <= span.last < 1 << span.family.bits
    for family in Family:
        assert isinstance(parse_ranges([text], family), Ranges | Malformed)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no address"),
        ("10.0.0", "is no address"),
        ("10.0.0.256", "is no address"),
        ("010.0.0.1", "is no address"),
        (" 10.0.0.1", "is no address"),
        ("10.0.0.1-5", "is no address"),
        ("10.0.0.1-", "is no address"),
        ("fe80::1%eth0", "is no address"),
        ("10.0.0.9-10.0.0.1", "runs backwards: write 10.0.0.1-10.0.0.9"),
        ("10.0.0.1-fd00::1", "begins in one family"),
        ("10.0.0.1/24", "has host bits set: write 10.0.0.0/24"),
        ("10.0.0.0/255.255.255.0", "has a mask for a prefix length: write 10.0.0.0/24"),
        ("10.0.0.0/0.0.0.255", "write 10.0.0.0/24"),
        ("10.0.0.0/024", "write 10.0.0.0/24"),
        ("10.0.0.0/33", "is not a subnet"),
        ("10.0.0.0/24/24", "is not a subnet"),
        ("fd00::/129", "is not a subnet"),
        ("fe80::%eth0/64", "is not a subnet"),
        ("fe80::%1/128", "is not a subnet"),
    ],
)
def test_what_is_not_understood_says_why_and_what_to_write(text: str, why: str) -> None:
    answer = parse_span(text)
    assert isinstance(answer, Malformed)
    assert why in answer.why
    assert str(answer) == f'"{text}" {answer.why}'


@pytest.mark.parametrize("text", ["fe80::1%eth0", "fe80::1%1"])
def test_an_address_has_no_zone(text: str) -> None:
    assert parse_address(text) == Malformed(text, "names a zone: an address of a pool has none")


def test_a_subnet_needs_a_prefix_length() -> None:
    assert isinstance(parse_subnet("10.0.0.0"), Malformed)


@pytest.mark.parametrize(
    ("entries", "family", "shown"),
    [
        ([], V4, ""),
        (["10.0.0.5"], V4, "10.0.0.5"),
        (["10.0.0.8/30", "10.0.0.12", "10.0.0.5"], V4, "10.0.0.5, 10.0.0.8-10.0.0.12"),
        (["10.0.0.1 - 10.0.0.3", "10.0.0.2-10.0.0.7"], V4, "10.0.0.1-10.0.0.7"),
        (["FD00::A", "fd00:0::b"], V6, "fd00::a-fd00::b"),
    ],
)
def test_entries_of_every_form_make_one_set(entries: list[str], family: Family, shown: str) -> None:
    ranges = parse_ranges(entries, family)
    assert isinstance(ranges, Ranges)
    assert ranges.format(family) == shown


def test_an_entry_of_the_other_family_is_refused() -> None:
    assert parse_ranges(["10.0.0.1", "fd00::1"], V4) == Malformed("fd00::1", "is IPv6, and IPv4 is wanted here")


def test_a_long_set_is_shown_short() -> None:
    scattered = Ranges.of((address, address) for address in range(0, 40, 2))
    assert scattered.format(V4, most=2) == "0.0.0.0, 0.0.0.2 and 18 more"


def test_a_slash_48_costs_as_much_as_one_address() -> None:
    whole = parse_ranges(["fd00:1:2::/48"], V6)
    assert isinstance(whole, Ranges)
    assert whole.size == 1 << 80
    holed = whole.minus(Ranges(((whole.runs[0][0] + (1 << 79), whole.runs[0][0] + (1 << 79)),)))
    assert len(holed.runs) == 2
    assert holed.size == (1 << 80) - 1
    assert holed.intersect(whole) == holed
    assert holed.union(whole) == whole
