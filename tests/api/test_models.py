"""What stands in the API, and what it is to the core: there and back, and what is not understood is not guessed at."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.api.conditions import Condition, condition
from berth.api.endpoint import Endpoint, write_addresses
from berth.api.ippool import EXACT_MOST, IPPoolSpec, IPPoolStatus, LedgerEntry, seconds, write_counts, write_ledger
from berth.api.reservedip import ReservedIPSpec, ReservedIPStatus
from berth.core.claim import Claim, Holding
from berth.core.ledger import Counts, Image, Ledger
from berth.core.pool import BadField, Pool
from berth.core.ranges import Family, Ranges
from berth.core.reasons import Reason
from berth.core.settled import SPAN, Settled
from tests.invariants import check_ledger

V4, V6 = Family.IPV4, Family.IPV6
BASE = {V4: 10 << 24, V6: 0xFD << 120}
HELD = st.dictionaries(st.integers(0, 3 * SPAN), st.booleans(), max_size=50)


# --- the ledger ------------------------------------------------------------------------------------------------------


@given(st.sampled_from(Family), HELD, st.integers(0, 1 << 40), st.lists(st.integers(1, 40), max_size=4))
def test_a_ledger_comes_back_as_it_was_written(
    family: Family, held: dict[int, bool], sequence: int, sizes: list[int]
) -> None:
    settled = Settled()
    for offset, is_settled in held.items():
        if is_settled:
            settled.add(BASE[family] + offset)
    pending = {BASE[family] + each: f"claim {each}" for each, is_settled in held.items() if not is_settled}
    firsts = [BASE[family] + 50 * number for number in range(len(sizes))]
    slices = {
        f"shop/StatefulSet.apps/db-{number}": Ranges.of([(first, first + size - 1), (first + 48, first + 48)])
        for number, (first, size) in enumerate(zip(firsts, sizes, strict=True))
    }
    image = Image(sequence, pending, settled.blocks(), slices)
    read = LedgerEntry.model_validate(write_ledger(family, image)).to_core(family)
    assert read == image
    assert isinstance(read, Image)
    check_ledger(Ledger(read, Ranges(((BASE[family], BASE[family] + 2 * SPAN),))))


def test_a_pool_without_a_status_has_an_empty_ledger() -> None:
    assert IPPoolStatus.model_validate({}).ledger.to_core(V4) == Image()


@pytest.mark.parametrize(
    ("ledger", "said"),
    [
        ({"pending": {"ten": "a"}}, '"ten": "a" is no IPv4 address with a claim'),
        ({"pending": {"fd00::1": "a"}}, "is no IPv4 address"),
        ({"pending": {"10.0.0.1": ""}}, "with a claim"),
        ({"pending": {"10.0.0.1": "a", "10.0.0.2": "a"}}, "gives one claim two addresses"),
        ({"blocks": {"10.0.0.1": "AQ=="}}, "is not the first address of a block"),
        ({"blocks": {"fd00::": "AQ=="}}, "is not the first address of a block"),
        ({"blocks": {"10.0.0.0": "A"}}, "is not base64"),
        ({"blocks": {"10.0.0.0": ""}}, "is not a bitmap"),
        ({"pending": {"10.0.0.1": "a"}, "blocks": {"10.0.0.0": "Ag=="}}, '"10.0.0.1" is pending and settled'),
        ({"slices": {"shop/Deployment.apps/web": ["10.0.0.1-"]}}, "slices[shop/Deployment.apps/web]"),
        ({"slices": {"shop/Deployment.apps/web": []}}, '"shop/Deployment.apps/web" is no application with addresses'),
        ({"slices": {"web": ["10.0.0.1"]}}, '"web" is no application with addresses'),
        ({"slices": {"a/b/c": ["10.0.0.1"], "a/b/d": ["10.0.0.0/30"]}}, "gives two applications the same address"),
    ],
)
def test_a_ledger_that_is_not_understood_is_not_guessed_at(ledger: dict[str, Any], said: str) -> None:
    answer = LedgerEntry.model_validate(ledger).to_core(V4)
    assert isinstance(answer, BadField)
    assert said in str(answer)


@pytest.mark.parametrize(
    ("ledger", "said"),
    [
        ({"pending": {"fd00::1": "a", "fd00:0::1": "b"}}, '"fd00:0::1" stands twice'),
        ({"blocks": {"fd00::": "AQ==", "fd00:0::": "Ag=="}}, '"fd00:0::" stands twice'),
    ],
)
def test_an_address_written_in_two_ways_is_not_half_lost(ledger: dict[str, Any], said: str) -> None:
    answer = LedgerEntry.model_validate(ledger).to_core(V6)
    assert isinstance(answer, BadField)
    assert said in str(answer)


@given(st.dictionaries(st.text(), st.text()), st.dictionaries(st.text(), st.text()))
def test_whatever_a_ledger_says_the_answer_is_a_value(pending: dict[str, str], blocks: dict[str, str]) -> None:
    assert isinstance(LedgerEntry(pending=pending, blocks=blocks).to_core(V4), Image | BadField)


def test_a_full_slash_16_stays_small() -> None:
    full = dict.fromkeys(range((10 << 24) // SPAN, (10 << 24) // SPAN + 64), (1 << SPAN) - 1)
    assert len(str(write_ledger(V4, Image(1, {}, full)))) < 16 * 1024


@pytest.mark.parametrize(
    ("count", "written"),
    [(0, 0), (EXACT_MOST, EXACT_MOST), (EXACT_MOST + 1, str(EXACT_MOST + 1)), (1 << 80, str(1 << 80))],
)
def test_a_count_no_json_number_holds_exactly_is_text(count: int, written: int | str) -> None:
    assert write_counts(Counts(count, 3, count)) == {"total": written, "allocated": 3, "available": written}


# --- the pool --------------------------------------------------------------------------------------------------------


def test_a_pool_with_everything_said() -> None:
    pool = IPPoolSpec.model_validate(
        {
            "subnet": "10.0.0.0/24",
            "ips": ["10.0.0.10-10.0.0.12"],
            "excludeIPs": ["10.0.0.11"],
            "gateway": "10.0.0.1",
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.0.0.2"}],
            "default": True,
            "disabled": True,
            "reuseDelay": "1m30s",
            "nodeNames": ["n"],
            "nodeSelector": {"matchLabels": {"zone": "a"}},
            "namespaces": ["shop"],
            "namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["blue"]}]},
            "podSelector": {},
            "networks": ["lan"],
            "fromTheFuture": 1,
        }
    ).to_core("p")
    assert isinstance(pool, Pool)
    assert pool.offered.format(V4) == "10.0.0.10, 10.0.0.12"
    assert (pool.gateway, pool.default, pool.disabled, pool.reuse_delay) == ((10 << 24) + 1, True, True, 90.0)
    assert [(route.destination, route.gateway) for route in pool.routes] == [
        ("0.0.0.0/0", None),
        ("192.0.2.0/24", "10.0.0.2"),
    ]
    audience = pool.audience
    assert audience.narrowness == 6
    assert audience.node_selector is not None
    assert audience.node_selector.matches({"zone": "a"})
    assert audience.namespace_selector is not None
    assert [audience.namespace_selector.matches({"team": team}) for team in ("blue", "red")] == [True, False]
    assert audience.pod_selector is not None
    assert audience.pod_selector.matches({})


def test_a_pool_with_nothing_said_but_its_subnet() -> None:
    pool = IPPoolSpec.model_validate({"subnet": "fd00::/64"}).to_core("p")
    assert isinstance(pool, Pool)
    assert pool.offered.size == (1 << 64) - 1
    assert (pool.gateway, pool.routes, pool.default, pool.disabled, pool.reuse_delay) == (None, (), False, False, 30.0)
    assert pool.audience.narrowness == 0


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"subnet": "10.0.0.1/24"}, 'spec.subnet: "10.0.0.1/24" has host bits set: write 10.0.0.0/24'),
        ({"gateway": "10.0.1.1"}, 'spec.gateway: "10.0.1.1" is outside'),
        ({"ips": ["10.0.1.1"]}, "spec.ips[0]: "),
        ({"excludeIPs": ["10.0.0.1", "x"]}, "spec.excludeIPs[1]: "),
        ({"routes": [{"dst": "::/0"}]}, "spec.routes[0].dst: "),
        ({"reuseDelay": "soon"}, 'spec.reuseDelay: "soon" is no duration: write 30s or 5m'),
    ],
)
def test_the_first_field_that_cannot_be_is_named(spec: dict[str, Any], said: str) -> None:
    answer = IPPoolSpec.model_validate({"subnet": "10.0.0.0/24", **spec}).to_core("p")
    assert isinstance(answer, BadField)
    assert str(answer).startswith(said)


@pytest.mark.parametrize(
    ("duration", "length"),
    [
        ("0s", 0.0),
        ("90s", 90.0),
        ("1m30s", 90.0),
        ("1.5h", 5400.0),
        ("500ms", 0.5),
        ("", None),
        ("30", None),
        ("s", None),
        ("-5s", None),
        ("30s ", None),
        ("1d", None),
    ],
)
def test_a_duration_is_written_as_in_go(duration: str, length: float | None) -> None:
    assert seconds(duration) == length


@given(st.text() | st.text("0123456789.smh", max_size=12))
def test_whatever_is_written_for_a_duration_the_answer_is_a_value(text: str) -> None:
    length = seconds(text)
    assert length is None or length >= 0


# --- the endpoint ----------------------------------------------------------------------------------------------------


def endpoint(spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None) -> Claim | BadField:
    return Endpoint.model_validate(
        {
            "metadata": {"name": "web-0-eth0", "namespace": "shop", "uid": "u", "resourceVersion": "7"},
            "spec": {
                "pod": {"name": "web-0", "uid": "pod"},
                "node": "node-1",
                "network": "lan",
                "interface": "eth0",
                "containerID": "c1",
                **(spec or {}),
            },
            **({"status": status} if status is not None else {}),
        }
    ).to_core()


def test_a_claim_that_says_nothing_more() -> None:
    claim = endpoint()
    assert isinstance(claim, Claim)
    assert (claim.uid, claim.pod_uid, claim.container) == ("u", "pod", "c1")
    assert not any(claim.pools.values())
    assert not claim.confirmed
    assert claim.attachment == ("pod", "lan", "eth0")


def test_a_claim_that_says_what_it_wants_and_holds() -> None:
    claim = endpoint(
        {"ipv4Pools": ["a", "b"], "families": ["IPv4", "IPv6"], "addresses": ["10.0.0.5", "fd00::5"]},
        {"addresses": [{"family": "IPv4", "address": "10.0.0.5/24", "pool": "a"}]},
    )
    assert isinstance(claim, Claim)
    assert claim.pools == {V4: ("a", "b"), V6: ()}
    assert claim.families == {V4, V6}
    assert claim.wanted == {V4: (10 << 24) + 5, V6: (0xFD << 120) + 5}
    assert claim.holdings == (Holding("a", V4, (10 << 24) + 5),)
    assert claim.confirmed


@pytest.mark.parametrize(
    ("spec", "status", "said"),
    [
        ({"addresses": ["x"]}, None, 'spec.addresses[0]: "x" is not an IP address'),
        ({"addresses": ["10.0.0.5", "10.0.0.6"]}, None, "spec.addresses[1]: "),
        ({}, {"addresses": [{"family": "IPv4", "address": "x/24", "pool": "a"}]}, "status.addresses[0].address: "),
    ],
)
def test_a_claim_that_is_not_understood_says_where(
    spec: dict[str, Any], status: dict[str, Any] | None, said: str
) -> None:
    answer = endpoint(spec, status)
    assert isinstance(answer, BadField)
    assert str(answer).startswith(said)


def test_a_confirmation_is_read_back_as_what_was_granted() -> None:
    four = IPPoolSpec(subnet="10.0.0.0/24", gateway="10.0.0.1", routes=({"dst": "0.0.0.0/0"},)).to_core("four")
    six = IPPoolSpec(subnet="fd00::/64", routes=({"dst": "::/0", "gw": "fd00::1"},)).to_core("six")
    assert isinstance(four, Pool)
    assert isinstance(six, Pool)
    granted = [(four, (10 << 24) + 5), (six, (0xFD << 120) + 5)]
    written = write_addresses(granted)
    assert written == {
        "addresses": [
            {"family": "IPv4", "address": "10.0.0.5/24", "pool": "four", "gateway": "10.0.0.1"},
            {"family": "IPv6", "address": "fd00::5/64", "pool": "six"},
        ],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "fd00::1"}],
    }
    claim = endpoint(status=dict(written))
    assert isinstance(claim, Claim)
    assert claim.holdings == tuple(Holding(pool.name, pool.family, address) for pool, address in granted)


# --- conditions and reservations -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "since"), [("True", "earlier"), ("False", "now"), (None, "now")])
def test_a_conditions_transition_time_moves_only_when_its_status_does(before: str | None, since: str) -> None:
    old = Condition(type="Ready", status=before or "", reason="Loading", lastTransitionTime="earlier")
    made = condition("Ready", True, Reason.SERVING, "", 3, "now", (old,) if before else ())
    assert (made.status, made.reason, made.observed_generation) == ("True", "Serving", 3)
    assert made.last_transition_time == since
    assert set(made.model_dump(by_alias=True)) == {
        "type", "status", "reason", "message", "observedGeneration", "lastTransitionTime",
    }  # fmt: skip


def test_a_reservation_may_name_both_families() -> None:
    found = ReservedIPSpec(ips=("10.0.0.5", "fd00::/127", "10.0.0.6-10.0.0.7")).to_core()
    assert isinstance(found, dict)
    assert found[V4].format(V4) == "10.0.0.5-10.0.0.7"
    assert found[V6].format(V6) == "fd00::-fd00::1"


def test_a_reservation_that_is_not_understood_says_where() -> None:
    assert str(ReservedIPSpec(ips=("10.0.0.5", "x")).to_core()).startswith('spec.ips[1]: "x"')


def test_a_reservations_status_is_read_as_it_is_written() -> None:
    status = ReservedIPStatus.model_validate({"inUse": [{"address": "10.0.0.5", "pool": "p"}]})
    assert [(each.address, each.pool) for each in status.in_use] == [("10.0.0.5", "p")]
    assert "inUse" in status.model_dump(by_alias=True)
