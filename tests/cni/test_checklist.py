"""The checklist of docs/cni.md on the executable, with a real operator, agents and API server: each call and version.

Numbers are those of the page. Pools that run dry are in test_checklist_pools.py, processes that die in
test_checklist_trouble.py, main plugins in test_main_plugins.py.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from berth.kube.resources import ENDPOINTS, POOLS
from e2e.cluster import ControlPlane
from tests.cni.fleet import VERSIONS, Answer, Fleet, Story, bare, fleet
from tests.cni.stage import request

pytestmark = pytest.mark.api
by_version = pytest.mark.parametrize("version", VERSIONS)
ROUTES = [{"dst": "0.0.0.0/0"}, {"dst": "10.99.0.0/16", "gw": "{}.2"}]


@pytest.fixture(scope="module")
def two_nodes(api_server: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(api_server, tmp_path_factory.mktemp("fleet"), nodes=2) as made:
        yield made


@pytest.fixture
async def story(two_nodes: Fleet) -> AsyncIterator[Story]:
    async with two_nodes.story() as story:
        yield story


# --- what cannot be served

CONTAINER, NETNS, INTERFACE = "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"
RANGES = {"runtimeConfig": {"ipRanges": [[{"subnet": "10.0.0.0/24"}]]}}
ERRORS: list[tuple[str, str, dict[str, str], dict[str, Any], int, tuple[str, ...]]] = [
    ("7", "FOO", {}, {}, 4, ("CNI_COMMAND", "FOO")),
    ("8", "ADD", {CONTAINER: ""}, {}, 4, (CONTAINER,)),
    ("8", "ADD", {NETNS: ""}, {}, 4, (NETNS,)),
    ("8", "ADD", {CONTAINER: "", NETNS: "", INTERFACE: ""}, {}, 4, (CONTAINER, NETNS, INTERFACE)),
    ("9", "DEL", {CONTAINER: "", NETNS: "", INTERFACE: ""}, {}, 4, (CONTAINER, INTERFACE)),
    ("10", "ADD", {CONTAINER: "../x"}, {}, 4, (CONTAINER, "../x")),
    ("10", "ADD", {CONTAINER: "a b"}, {}, 4, (CONTAINER,)),
    ("11", "ADD", {INTERFACE: "sixteen-letters-"}, {}, 4, (INTERFACE,)),
    ("11", "ADD", {INTERFACE: "a/b"}, {}, 4, (INTERFACE, "a/b")),
    ("13", "ADD", {}, {"name": None}, 7, ("name",)),
    ("13", "ADD", {}, {"name": "a/b"}, 7, ("name", "a/b")),
    ("14", "ADD", {}, {"ipam": None}, 7, ("ipam",)),
    ("14", "ADD", {}, {"ipam": []}, 7, ("ipam",)),
    ("15", "ADD", {}, {"cniVersion": "9.9.9"}, 1, ("9.9.9", "1.1.0")),
    ("15", "ADD", {}, {"cniVersion": "abc"}, 1, ("abc",)),
    ("15", "ADD", {}, {"cniVersion": None}, 1, ("cniVersion",)),
    ("15", "ADD", {}, {"cniVersion": 1}, 6, ("cniVersion",)),
    ("20", "ADD", {"CNI_ARGS": "A=B=C"}, {}, 4, ("A=B=C",)),
    ("20", "ADD", {"CNI_ARGS": "COLOUR=blue"}, {}, 4, ("COLOUR",)),
    ("35", "ADD", {}, RANGES, 2, ("ipRanges", "10.0.0.0/24")),
    ("57", "CHECK", {}, {}, 7, ("prevResult",)),
]


# 7-11, 13-15, 17, 20, 35, 57
@pytest.mark.parametrize(
    ("command", "environment", "changed", "code", "named"),
    [each[1:] for each in ERRORS],
    ids=[f"{each[0]}-{number}" for number, each in enumerate(ERRORS)],
)
async def test_what_cannot_be_is_refused_in_the_words_of_cni(
    story: Story, command: str, environment: dict[str, str], changed: dict[str, Any], code: int, named: tuple[str, ...]
) -> None:
    for version in VERSIONS if command != "CHECK" else VERSIONS[2:]:
        variables, stdin = request(command, "c1", version=version)
        document = {key: each for key, each in {**json.loads(stdin), **changed}.items() if each is not None}
        told = await story.nodes[0].raw({**variables, **environment}, json.dumps(document).encode())
        said = document.get("cniVersion")
        _is_error(told, code, said if isinstance(said, str) else "1.1.0", *named)
    assert await story.endpoints() == []


# 12
@pytest.mark.parametrize("stdin", [b"", b"null", b"[]", b'{"cniVersion":"1.0.0"', b'{"name":"\xff"}'])
async def test_what_is_no_configuration_is_code_6(story: Story, stdin: bytes) -> None:
    for command in ("ADD", "DEL", "CHECK", "GC"):
        variables, _ = request(command, "c1")
        _is_error(await story.nodes[0].raw(variables, stdin), 6, "1.1.0", "stdin")


# 16
@pytest.mark.parametrize(
    ("command", "version"),
    [("CHECK", "0.3.0"), ("CHECK", "0.3.1"), *((each, old) for each in ("GC", "STATUS") for old in VERSIONS[:4])],
)
async def test_a_call_that_its_version_does_not_have_is_code_1(story: Story, command: str, version: str) -> None:
    _is_error(await story.nodes[0].call(command, "c1", version=version), 1, version, command)


def _is_error(told: Answer, code: int, version: str, *named: str) -> None:
    """17"""
    status, error = told
    assert status == 1, told
    assert (error["code"], error["cniVersion"]) == (code, version), told
    assert all(each in error["msg"] for each in named), told


# --- the life of an address


# 18, 19, 23, 24, 26, 28, 44-48, 55-57
@by_version
async def test_add_check_del_in_each_version(story: Story, version: str) -> None:
    (node, _), pod = story.nodes, await story.pod()
    pool = await story.pool(["{}.7"], gateway="{}.1", routes=ROUTES)
    dns = {"nameservers": ["10.0.0.2"], "search": ["a.test"]}
    more: dict[str, Any] = {"version": version, "dns": dns, "unheard-of": 1, "runtimeConfig": {"odd": 1}, "args": 5}
    # What came before in a chain is not this plugin's to pass on: an IPAM plugin answers for its own addresses.
    more["prevResult"] = {"cniVersion": version, "ips": [{"address": "192.0.2.1/24", "version": "4"}]}
    code, result = await node.call("ADD", "c1", pod=pod, pools=(pool,), **more)
    assert code == 0, result
    start = result["ips"][0]["address"].rpartition(".")[0]
    family = {"version": "4"} if version in VERSIONS[:3] else {}
    assert result == {
        "cniVersion": version,
        "ips": [{"address": f"{start}.7/24", "gateway": f"{start}.1", **family}],
        # Without gw: the main plugin takes the gateway.
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.99.0.0/16", "gw": f"{start}.2"}],
        "dns": dns,
    }
    assert await node.call("ADD", "c1", pod=pod, pools=(pool,), **more) == (0, result)
    assert await story.containers() == ["c1"]
    await story.check()
    if version not in VERSIONS[:2]:
        # 56; 57: another address, another container
        assert await node.call("CHECK", "c1", version=version, prevResult=result) == (0, {})
        other = {**result, "ips": [{**result["ips"][0], "address": f"{start}.8/24"}]}
        _is_error(await node.call("CHECK", "c1", version=version, prevResult=other), 104, version, f"{start}.7")
        _is_error(await node.call("CHECK", "c2", version=version, prevResult=result), 104, version)
    # 45-48: twice, never added, without namespace, with a result of another version
    await node.delete("c1", version=version, prevResult={"cniVersion": "0.4.0", "ips": [{"address": "x"}]})
    await node.delete("c1", version=version)
    await node.delete("never", version=version)
    await story.empty()


# 27
async def test_each_network_and_each_interface_has_an_address_of_its_own(story: Story) -> None:
    (node, _), pod = story.nodes, await story.pod()
    pool = await story.pool()
    first = await node.add("c1", pod, pool)
    second = await node.add("c1", pod, pool, interface="net1")
    third = await node.add("c1", pod, pool, network="other")
    assert len({*first, *second, *third}) == 3
    await story.check()
    await node.delete("c1")
    assert len(await story.endpoints()) == 2
    await node.delete("c1", interface="net1")
    await node.delete("c1", network="other")
    await story.empty()


# 29, 30, 52
async def test_an_address_is_its_pods_and_not_its_names(story: Story) -> None:
    (node, _), pod = story.nodes, await story.pod("same")
    pool = await story.pool()
    first = await node.add("c1", pod, pool)
    # 29: the sandbox is made again; 52: the DEL of the old one is late
    assert await node.add("c2", pod, pool) == first
    await node.delete("c1")
    assert await story.containers() == ["c2"]
    # 30: a new Pod of the same name, while the old one's sandbox lives
    await story.remove(pod)
    successor = await story.pod("same")
    assert await node.add("c3", successor, pool) != first
    await node.delete("c2")
    assert await story.containers() == ["c3"]
    await node.delete("c3")
    await story.empty()


# 49-51
async def test_a_del_needs_neither_pool_nor_pod(story: Story) -> None:
    node, other = story.nodes
    pods = await story.pods(4)
    pool = await story.pool()
    for number, pod in enumerate(pods):
        await node.add(f"c{number}", pod, pool)
    await node.delete("c0", ipam=node.ipam("never-was"))
    await story.remove(pods[1])
    await node.delete("c1", cni_args="")
    found = await story.api.get(POOLS.path(pool))
    await story.api.replace(POOLS.path(pool), {**found, "spec": {**found["spec"], "disabled": True}})
    await node.delete("c2")
    # Not its node's: an agent frees what it gave.
    await other.delete("c3")
    assert await story.containers() == ["c3"]
    await story.api.delete(POOLS.path(pool))
    await node.delete("c3")
    await story.empty()


# 34: the channels, and which goes before which
@by_version
@pytest.mark.parametrize(
    ("about", "last"),
    [
        ({"runtimeConfig": {"ips": ["{}.5"]}}, 5),
        ({"args": {"cni": {"ips": ["{}.6/24"]}}}, 6),
        ({"more_args": ";IP={}.7"}, 7),
        ({"runtimeConfig": {"ips": ["{}.5/24"]}, "args": {"cni": {"ips": ["{}.6"]}}, "more_args": ";IP={}.7"}, 5),
        ({"args": {"cni": {"ips": ["{}.6"]}}, "more_args": ";IP={}.7"}, 6),
    ],
    ids=["capability", "args", "CNI_ARGS", "capability-first", "args-second"],
)
async def test_an_address_is_asked_for(story: Story, version: str, about: dict[str, Any], last: int) -> None:
    (node, _), pod = story.nodes, await story.pod()
    pool = await story.pool()
    start = await _start(story, pool)
    asked = json.loads(json.dumps(about).replace("{}", start))
    assert await node.add("c1", pod, pool, version=version, **asked) == [f"{start}.{last}"]
    await node.delete("c1")
    await story.empty()


# 34: what cannot be given
async def test_an_address_that_cannot_be_given_is_an_error_and_leaves_nothing(story: Story) -> None:
    node, _ = story.nodes
    holder, pod = await story.pods(2)
    pool, six = await story.pool(excludeIPs=["{}.9"], gateway="{}.1"), await story.pool(six=True)
    start = await _start(story, pool)
    await story.reserve(f"{start}.8")
    await story.until(lambda found: found["status"]["total"] == 251, pool)
    await node.add("c1", holder, pool, runtimeConfig={"ips": [f"{start}.5"]})
    for asked, code in (
        ([f"{start}.5"], 101),  # another's
        (["192.0.2.1"], 102),  # no pool's
        ([f"{start}.1"], 102),  # the gateway
        ([f"{start}.8"], 102),  # reserved
        ([f"{start}.9"], 102),  # excluded
        ([f"{start}.255"], 102),  # broadcast
        ([f"{start}.300"], 7),
        ([f"{start}.6", f"{start}.7"], 7),  # two of a family
        ([f"{start}.5", "fd66::77"], 101),  # partly
    ):
        told = await node.call("ADD", "c2", pod=pod, pools=(pool, six), runtimeConfig={"ips": asked})
        assert told[0] == 1, (asked, told)
        assert told[1]["code"] == code, (asked, told)
        assert await story.containers() == ["c1"]
    await story.check()
    await node.delete("c1")
    await story.empty()


async def _start(story: Story, pool: str) -> str:
    subnet: str = (await story.api.get(POOLS.path(pool)))["spec"]["subnet"]
    return subnet.rpartition(".")[0]


# --- GC, STATUS


# 58-61
@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
async def test_gc_frees_what_its_list_leaves_out_of_its_network_and_node(story: Story, key: str) -> None:
    node, other = story.nodes
    pods = await story.pods(4)
    pool = await story.pool()
    await node.add("c1", pods[0], pool)
    await node.add("c2", pods[1], pool)
    await node.add("c3", pods[2], pool, network="second")
    await other.add("c4", pods[3], pool)
    await story.check()
    # 59: no list
    assert await node.call("GC") == (0, {})
    assert await story.containers() == ["c1", "c2", "c3", "c4"]
    # 58, 61: one that lives, one that nobody knows
    some: dict[str, Any] = {key: [{"containerID": each, "ifname": "eth0"} for each in ("c1", "unknown")]}
    assert await node.call("GC", **some) == (0, {})
    assert await story.containers() == ["c1", "c3", "c4"]
    # 60: none lives
    none: dict[str, Any] = {key: []}
    assert await node.call("GC", **none) == (0, {})
    assert await story.containers() == ["c3", "c4"]
    assert await node.call("GC", network="second", **none) == (0, {})
    assert await other.call("GC", **none) == (0, {})
    await story.empty()


# 63
async def test_status_says_nothing_of_a_pool_that_is_exhausted(story: Story) -> None:
    (node, _), pods = story.nodes, await story.pods(2)
    pool = await story.pool(["{}.7"])
    await node.add("c1", pods[0], pool)
    began = time.monotonic()
    assert await node.call("STATUS") == (0, {})
    assert time.monotonic() - began < 1.0
    await node.delete("c1")
    await story.empty()


# 54
async def test_a_hundred_dels_at_once(story: Story) -> None:
    (node, _), pods = story.nodes, await story.pods(100)
    pool = await story.pool()
    await asyncio.gather(*(node.add(f"c{number}", pod, pool) for number, pod in enumerate(pods)))
    await asyncio.gather(*(node.delete(f"c{number}") for number in range(100)))
    await story.empty()


# 57: somebody deleted the Endpoint
async def test_check_sees_that_a_reservation_is_missing(story: Story) -> None:
    (node, _), pod = story.nodes, await story.pod()
    pool = await story.pool()
    _, result = await node.call("ADD", "c1", pod=pod, pools=(pool,))
    assert bare(result)
    (held,) = await story.endpoints()
    await story.api.delete(ENDPOINTS.path(held["metadata"]["name"], namespace=pod.namespace))
    async with asyncio.timeout(5):
        while (told := await node.call("CHECK", "c1", prevResult=result))[0] == 0:  # noqa: ASYNC110 (what is waited for tells nobody)
            await asyncio.sleep(0.05)
    _is_error(told, 104, "1.1.0")
    await story.remove(pod)
