"""Scenario D, several interfaces of one Pod: each has pools of its own, and one that fails does not drain the rest."""

from collections.abc import Callable
from typing import Any

import pytest

from e2e.cluster.shell import wait_for
from tests.scenarios.stage import Object, Stage

pytestmark = pytest.mark.api
Open = Callable[..., Stage]
EXHAUSTED, NO_POOL, BAD_ANNOTATION = 100, 103, 105


def test_each_interface_draws_from_the_pool_named_for_it(stage: Open) -> None:
    story = stage("d-named")
    story.pools(general="10.103.0.0/24", one="10.103.1.0/24", two="10.103.2.0/24")
    said: dict[str, Any] = {
        "pools": story.pool("general"),
        "pools_net1": story.pool("one"),
        "pools_net2": story.pool("two"),
    }
    for interface, address in (("eth0", "10.103.0.1"), ("net1", "10.103.1.1"), ("net2", "10.103.2.1")):
        assert story.add("web", interface=interface, **said).addresses == (address,)
    assert story.add("web", interface="net3", **said).addresses == ("10.103.0.2",)


def test_a_network_has_pools_of_its_own(stage: Open) -> None:
    story = stage("d-networks", pools="d-networks-*")
    story.pools(
        lan={"subnet": "10.103.3.0/24", "networks": ["lan"]}, san={"subnet": "10.103.4.0/24", "networks": ["san"]}
    )
    assert story.add("web").addresses == ("10.103.3.1",)
    assert story.add("web", interface="net1", network="san").addresses == ("10.103.4.1",)


def test_one_pool_on_two_interfaces_gives_two_addresses(stage: Open) -> None:
    story = stage("d-same")
    story.pools(four="10.103.5.0/24")
    for interface, address in (("eth0", "10.103.5.1"), ("net1", "10.103.5.2")):
        assert story.add("web", interface=interface, pools=story.pool("four")).addresses == (address,)


def test_an_interface_whose_pool_is_empty_does_not_drain_the_pools_of_the_others(stage: Open) -> None:
    """The runtime tries again and again, as kubelet makes it: each time eth0 has the same address."""
    story = stage("d-drain")
    story.pools(many={"subnet": "10.103.6.0/24"}, few={"subnet": "10.103.7.0/24", "ips": ["10.103.7.1"]})
    few = story.pool("few")
    assert story.add("holder", pools=few).addresses == ("10.103.7.1",)
    for _ in range(3):
        said: dict[str, Any] = {"pools": story.pool("many"), "pools_net1": few}
        assert story.add("web", **said).addresses == ("10.103.6.1",)
        assert story.add("web", interface="net1", **said).code == EXHAUSTED
    assert len(story.place.get("endpoints.ipam.berth.dev", "d-drain")) == 2
    story.end("holder")
    assert story.add("web", interface="net1", pools=few).addresses == ("10.103.7.1",)


def test_an_address_for_one_interface_is_not_asked_for_by_another(stage: Open) -> None:
    story = stage("d-address")
    story.pools(four="10.103.8.0/24")
    said: dict[str, Any] = {"pools": story.pool("four"), "addresses_net1": "10.103.8.50"}
    assert story.add("web", **said).addresses == ("10.103.8.1",)
    assert story.add("web", interface="net1", **said).addresses == ("10.103.8.50",)


def test_pools_by_order_are_those_of_eth0_net1_and_so_on(stage: Open) -> None:
    story = stage("d-order")
    story.pools(one="10.103.9.0/24", two="10.103.10.0/24")
    pools = f"{story.pool('one')}; {story.pool('two')}"
    assert story.add("web", pools=pools).addresses == ("10.103.9.1",)
    assert story.add("web", interface="net1").addresses == ("10.103.10.1",)
    refused = story.add("web", interface="net2")
    assert refused.code == BAD_ANNOTATION
    assert f'"{pools}": ends with net1, and there is net2 too' in refused.message


def test_an_interface_that_is_named_twice_is_refused_with_key_text_and_remedy(stage: Open) -> None:
    story = stage("d-twice")
    story.pools(four="10.103.11.0/24")
    four = story.pool("four")
    refused = story.add("web", pools=f"{four}; {four}", pools_net1=four)
    assert refused.code == BAD_ANNOTATION
    assert f'Pod annotation ipam.berth.dev/pools.net1 "{four}": names net1 a second time' in refused.message
    assert "keep one of the two" in refused.message


def test_nothing_is_drawn_for_the_first_interface_when_a_later_one_could_get_nothing(stage: Open) -> None:
    story = stage("d-first")
    story.pools(four="10.103.12.0/24")
    refused = story.add("web", pools=story.pool("four"), pools_net1="d-first-nowhere")
    assert refused.code == NO_POOL
    assert 'for net1, another interface of this Pod: Pod annotation ipam.berth.dev/pools.net1 "d-first-nowhere"' in (
        refused.message
    )
    assert story.add("next", pools=story.pool("four")).addresses == ("10.103.12.1",)


def test_a_pod_is_told_of_an_interface_that_never_comes(stage: Open) -> None:
    """Once its network is up: no CNI call comes after that."""
    story = stage("d-absent")
    story.pools(four="10.103.13.0/24")
    assert story.add("web", pools=story.pool("four"), addresses_nett1="10.103.13.9").addresses == ("10.103.13.1",)
    wait_for("the Event", lambda: bool(_events(story)), 10)
    [event] = _events(story)
    assert (event["reason"], event["regarding"]["name"]) == ("InterfaceAbsent", "web")
    assert event["note"].startswith("nett1: ")


def _events(story: Stage) -> list[Object]:
    return story.place.get("events.v1.events.k8s.io", story.namespace)


def test_one_interface_alone_has_the_default_route(stage: Open) -> None:
    story = stage("d-default")
    everywhere, storage = {"dst": "0.0.0.0/0"}, {"dst": "10.200.0.0/16"}
    story.pools(
        one={"subnet": "10.103.14.0/24", "gateway": "10.103.14.254", "routes": [everywhere, storage]},
        two={"subnet": "10.103.15.0/24", "gateway": "10.103.15.254"},
    )
    said: dict[str, Any] = {"pools": f"{story.pool('one')}; {story.pool('two')}", "default_route": "net1"}
    first = story.add("web", **said).result
    assert first["ips"] == [{"address": "10.103.14.1/24"}], "no gateway, of which a plugin could make a route"
    assert first["routes"] == [{"dst": "10.200.0.0/16", "gw": "10.103.14.254"}]
    second = story.add("web", interface="net1", **said).result
    assert second["ips"] == [{"address": "10.103.15.1/24", "gateway": "10.103.15.254"}]
    assert second["routes"] == [everywhere]
    # The CNI configuration says it for every Pod of a network.
    third = story.add("other", pools=story.pool("one"), ipam={"defaultRoute": False}).result
    assert third["routes"] == [{"dst": "10.200.0.0/16", "gw": "10.103.14.254"}]


def test_routes_of_the_pod_are_in_the_result_and_on_the_endpoint(stage: Open) -> None:
    story = stage("d-routes")
    wide, narrow = {"dst": "10.200.0.0/16"}, {"dst": "10.201.0.0/16"}
    story.pools(four={"subnet": "10.103.16.0/24", "gateway": "10.103.16.254", "routes": [wide, narrow]})
    four = story.pool("four")
    answer = story.add("web", pools=four, routes="10.200.0.0/16 via 10.103.16.7, 10.202.0.0/16")
    asked = [{"dst": "10.200.0.0/16", "gw": "10.103.16.7"}, {"dst": "10.202.0.0/16"}]
    assert answer.result["routes"] == [narrow, *asked]
    [endpoint] = story.place.get("endpoints.ipam.berth.dev", "d-routes")
    assert endpoint["status"]["routes"] == [narrow, *asked]
    refused = story.add("off", pools=four, routes="10.200.0.0/16 via 10.99.0.1")
    assert refused.code == NO_POOL
    assert f"{four} has not 10.99.0.1 in its subnet 10.103.16.0/24" in refused.message
