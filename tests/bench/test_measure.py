"""What is read from the API server's own counters, and what counts as too much."""

from bench.budget import over_budget
from bench.measure import Counters, count_requests

METRICS = """\
# HELP apiserver_request_total Counter of apiserver requests
# TYPE apiserver_request_total counter
apiserver_request_total{code="201",component="apiserver",dry_run="",group="ipam.berth.dev",resource="endpoints",\
scope="resource",subresource="",verb="POST",version="v1alpha1"} 40
apiserver_request_total{code="200",component="apiserver",dry_run="",group="ipam.berth.dev",resource="endpoints",\
scope="resource",subresource="status",verb="PUT",version="v1alpha1"} 38
apiserver_request_total{code="409",component="apiserver",dry_run="",group="ipam.berth.dev",resource="endpoints",\
scope="resource",subresource="status",verb="PUT",version="v1alpha1"} 2
apiserver_request_total{code="0",component="apiserver",dry_run="",group="ipam.berth.dev",resource="endpoints",\
scope="cluster",subresource="",verb="WATCH",version="v1alpha1"} 3
apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="pods",scope="resource",\
subresource="",verb="GET",version="v1"} 7
apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="endpoints",scope="resource",\
subresource="",verb="GET",version="v1"} 9
"""


def test_only_berths_own_resources_are_its_requests() -> None:
    counted = Counters()
    count_requests(counted, METRICS)
    assert counted.requests == {"POST endpoints": 40, "PUT endpoints/status": 40}
    assert (counted.conflicts, counted.pod_reads, counted.all_requests) == (2, 7, 99)


def test_a_phase_is_the_difference_of_two_readings() -> None:
    before, after = Counters(), Counters()
    count_requests(before, METRICS)
    count_requests(after, METRICS)
    after.requests["POST endpoints"] += 5
    assert after.since(before).requests == {"POST endpoints": 5}


def spent(**requests: int) -> Counters:
    counted = Counters()
    counted.requests.update({key.replace("_", " ").replace("SLASH", "/"): count for key, count in requests.items()})
    return counted


def test_the_budget_is_held_by_two_writes_and_a_share_of_a_third() -> None:
    counted = spent(POST_endpoints=100, PUT_endpointsSLASHstatus=100, PUT_ippoolsSLASHstatus=30)
    assert over_budget("create", counted, 100, 0) == []


def test_what_goes_beyond_the_budget_is_named() -> None:
    counted = spent(POST_endpoints=101, PUT_endpointsSLASHstatus=100, PUT_ippoolsSLASHstatus=35, GET_endpoints=1)
    counted.conflicts = 1
    assert over_budget("create", counted, 100, 0) == [
        "create: 201 writes of claims for 100 ADDs and 0 DELs, allowed are 200",
        "create: 35 ledger writes for 100 ADDs and 0 DELs, allowed are 34",
        "create: 1 reads for 100 ADDs and 0 DELs, allowed are 0",
        "create: 1 conflicts for 100 ADDs and 0 DELs, allowed are 0",
    ]


def test_an_add_that_took_long_may_read_once_more() -> None:
    counted = spent(POST_endpoints=10, PUT_endpointsSLASHstatus=10, GET_endpoints=2)
    assert over_budget("create", counted, 10, 0, slow=2) == []
    assert over_budget("create", counted, 10, 0, slow=1) == ["create: 2 reads for 10 ADDs and 0 DELs, allowed are 1"]
