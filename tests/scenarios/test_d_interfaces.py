"""Scenario D, several interfaces of one Pod: each has pools of its own, and one that fails does not drain the rest."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.scenarios.stage import Stage

pytestmark = pytest.mark.api
Open = Callable[..., Stage]
EXHAUSTED = 100


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
