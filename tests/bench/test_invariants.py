"""The check at rest: silent about a cluster in order, and one line for each thing that is not."""

import copy
from typing import Any

import pytest

from berth.api.ippool import write_counts, write_ledger
from berth.core.ledger import Counts, Image
from berth.core.ranges import Family
from e2e.invariants import leaks, violations

FIRST = 0x0A00_0001  # 10.0.0.1
State = dict[str, Any]


def pod(number: int) -> State:
    return {
        "metadata": {"namespace": "default", "name": f"web-{number}", "uid": f"pod-{number}"},
        "spec": {},
        "status": {"phase": "Running", "podIPs": [{"ip": f"10.0.0.{number}"}]},
    }


def endpoint(number: int) -> State:
    return {
        "metadata": {"namespace": "default", "name": f"web-{number}-eth0", "uid": f"claim-{number}"},
        "spec": {"pod": {"name": f"web-{number}", "uid": f"pod-{number}"}, "containerID": f"c-{number}"},
        "status": {"addresses": [{"family": "IPv4", "address": f"10.0.0.{number}/24", "pool": "blue"}]},
    }


def pool(settled: set[int], pending: dict[int, str] | None = None) -> State:
    pending = {0x0A00_0000 + number: claim for number, claim in (pending or {}).items()}
    bits: dict[int, int] = {}
    for number in settled:
        block, bit = divmod(0x0A00_0000 + number, 1024)
        bits[block] = bits.get(block, 0) | 1 << bit
    held = len(settled) + len(pending)
    ledger = write_ledger(Family.IPV4, Image(1, pending, bits))
    spec = {"subnet": "10.0.0.0/24", "ips": ["10.0.0.1-10.0.0.10"]}
    return {
        "metadata": {"name": "blue"},
        "spec": spec,
        "status": {"ledger": ledger, **write_counts(Counts(10, held, 10 - held))},
    }


@pytest.fixture
def cluster() -> State:
    """Three Pods; the third one's grant is not settled yet."""
    return {
        "pods": [pod(1), pod(2), pod(3)],
        "endpoints": [endpoint(1), endpoint(2), endpoint(3)],
        "pools": [pool({1, 2}, {3: "claim-3"})],
        "interfaces": {f"pod-{number}": [f"10.0.0.{number}"] for number in (1, 2, 3)},
    }


def test_a_cluster_in_order_is_passed_over_in_silence(cluster: State) -> None:
    assert violations(**cluster) == []


def test_an_address_confirmed_twice_is_found(cluster: State) -> None:
    cluster["endpoints"][1]["status"] = copy.deepcopy(cluster["endpoints"][0]["status"])
    found = violations(**cluster)
    assert "10.0.0.1 of IPPool blue is confirmed to Endpoints claim-1 and claim-2" in found
    assert "IPPool blue: 10.0.0.2 is settled, and no Endpoint holds it" in found


def test_an_endpoint_the_ledger_knows_nothing_of_is_found(cluster: State) -> None:
    cluster["pools"] = [pool({2}, {3: "claim-3"})]
    assert violations(**cluster) == ["Endpoint claim-1 holds 10.0.0.1, and the ledger of IPPool blue does not say so"]


def test_an_address_pending_for_another_claim_is_found(cluster: State) -> None:
    cluster["pools"] = [pool({1, 2}, {3: "claim-9"})]
    assert len(violations(**cluster)) == 2


def test_an_endpoint_that_outlives_its_pod_is_found(cluster: State) -> None:
    del cluster["pods"][2], cluster["interfaces"]["pod-3"]
    assert violations(**cluster) == ["Endpoint default/web-3-eth0 outlived its Pod web-3 (pod-3)"]


def test_a_pod_without_an_endpoint_is_found(cluster: State) -> None:
    del cluster["endpoints"][2]
    assert "Pod default/web-3 runs without an Endpoint" in violations(**cluster)


def test_a_link_with_another_address_than_its_pod_says_is_found(cluster: State) -> None:
    cluster["interfaces"]["pod-3"] = ["10.0.0.1"]
    assert violations(**cluster) == [
        "10.0.0.1 is on the links of Pods pod-1 and pod-3",
        "Pod default/web-3 says ['10.0.0.3'], its link has ['10.0.0.1']",
    ]


def test_counts_that_are_not_the_ledgers_are_found(cluster: State) -> None:
    cluster["pools"][0]["status"]["available"] = 8
    assert violations(**cluster) == ["IPPool blue: available is 8, expected 7 with 3 held of 10"]
    cluster["pools"][0]["status"]["allocated"] = 2
    assert violations(**cluster) == ["IPPool blue: allocated is 2, its ledger holds 3"]


def test_what_is_held_when_nobody_is_left_is_a_leak(cluster: State) -> None:
    assert leaks([], [pool(set())]) == []
    assert leaks([endpoint(1)], [pool({1})]) == [
        "Endpoint default/web-1-eth0 is left",
        "IPPool blue still holds 1 addresses",
    ]


@pytest.mark.parametrize(
    ("replicas", "start", "retention", "found"),
    [
        (4, 0, {}, []),
        (1, 3, {}, []),
        (3, 0, {}, ["Endpoint default/web-3-eth0 is kept after a scale-down"]),
        (4, 4, {"whenScaled": "Delete"}, ["Endpoint default/web-3-eth0 is kept after a scale-down"]),
        (0, 0, {"whenScaled": "Retain"}, []),
        (None, 0, {"whenScaled": "Retain"}, ["Endpoint default/web-3-eth0 is kept for a StatefulSet that is gone"]),
    ],
)
def test_a_parked_endpoint_is_right_as_long_as_its_statefulset_has_that_pod(
    cluster: State, replicas: int | None, start: int, retention: State, found: list[str]
) -> None:
    del cluster["pods"][2], cluster["interfaces"]["pod-3"]
    cluster["endpoints"][2]["spec"]["containerID"] = ""
    cluster["endpoints"][2]["status"]["heldFor"] = {"kind": "StatefulSet", "name": "web", "uid": "set"}
    cluster["pools"][0]["spec"]["retention"] = retention
    owner = {"metadata": {"name": "web", "uid": "set"}, "spec": {"replicas": replicas, "ordinals": {"start": start}}}
    assert violations(**cluster, stateful_sets=[] if replicas is None else [owner]) == found


def test_a_running_pod_whose_endpoint_is_parked_is_told_of(cluster: State) -> None:
    cluster["endpoints"][2]["spec"]["containerID"] = ""
    assert "Pod default/web-3 runs without an Endpoint" in violations(**cluster)
