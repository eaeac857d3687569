"""bridge, macvlan and ptp over Berth, executed by cnitool as a runtime executes them; cases 64 to 72 of
docs/cni.md.

The "host" is a network namespace of its own, so that no bridge of a test is the machine's.
"""

import asyncio
import json
import os
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from berth_cni.adding import ADD_SECONDS
from e2e.cluster import ControlPlane, binaries
from e2e.cluster.shell import run
from tests.cni.fleet import SHIM, Fleet, Pod, Story, bare, fleet

pytestmark = [pytest.mark.api, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]
VERSIONS = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]
MAIN: dict[str, dict[str, Any]] = {
    "bridge": {"type": "bridge", "bridge": "br0", "isGateway": True},
    "macvlan": {"type": "macvlan", "master": "up0", "mode": "bridge"},
    "ptp": {"type": "ptp"},
}


@dataclass(slots=True)
class Host:
    """A network namespace with a link `up0`, and the namespaces of its containers."""

    story: Story
    folder: Path
    plugins: Path
    name: str = field(default_factory=lambda: f"berth-{uuid.uuid4().hex[:6]}")
    sandboxes: list[str] = field(default_factory=list)

    def open(self) -> None:
        run("ip", "netns", "add", self.name)
        pair = ["link", "add", "up0", "type", "veth", "peer", "name", "up1"]
        for words in (pair, *(["link", "set", each, "up"] for each in ("lo", "up0", "up1"))):
            run("ip", "-n", self.name, *words)

    def close(self) -> None:
        for name in [*self.sandboxes, self.name]:
            run("ip", "netns", "delete", name, check=False)

    def sandbox(self) -> str:
        name = f"{self.name}-{len(self.sandboxes)}"
        run("ip", "netns", "add", name)
        self.sandboxes.append(name)
        return name

    def configure(
        self, version: str, main: dict[str, Any], *pools: str, chained: Sequence[object] = (), **capabilities: bool
    ) -> None:
        ipam = self.story.nodes[0].ipam(*pools)
        plugin = {**main, "ipam": ipam, "capabilities": capabilities}
        # A network of its own: libcni remembers attachments by it, for the whole machine.
        conflist = {"cniVersion": version, "name": self.name, "plugins": [plugin, *chained]}
        (self.folder / "net.conflist").write_text(json.dumps(conflist))

    async def cnitool(self, verb: str, sandbox: str, pod: Pod, caps: str = "", more: str = "") -> tuple[int, str]:
        environment = {
            "PATH": os.environ["PATH"],
            "NETCONFPATH": str(self.folder),
            "CNI_PATH": f"{SHIM.parent}:{self.plugins}",
            "CNI_ARGS": pod.cni_args + more,
            "CAP_ARGS": caps,
        }
        words = ["ip", "netns", "exec", self.name, str(self.plugins / "cnitool"), verb, self.name]
        done = await asyncio.to_thread(
            subprocess.run,
            [*words, f"/run/netns/{sandbox}"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout + done.stderr

    async def add(self, sandbox: str, pod: Pod, **about: str) -> str:
        """The address, which the link in the sandbox has."""
        code, said = await self.cnitool("add", sandbox, pod, **about)
        assert code == 0, said
        (address,) = bare(json.loads(said))
        assert address in self.addresses(sandbox)
        return address

    async def succeed(self, verb: str, sandbox: str, pod: Pod) -> None:
        assert await self.cnitool(verb, sandbox, pod) == (0, "")

    def addresses(self, sandbox: str) -> list[str]:
        links = json.loads(run("ip", "-n", sandbox, "-json", "-4", "address", "show", "dev", "eth0"))
        return [each["local"] for link in links for each in link["addr_info"]]


@pytest.fixture(scope="module")
def one_node(api_server: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(api_server, tmp_path_factory.mktemp("fleet")) as made:
        yield made


@pytest.fixture
async def host(one_node: Fleet, tmp_path: Path) -> AsyncIterator[Host]:
    plugins = binaries.ensure("cnitool", "portmap", "tuning", *MAIN)
    async with one_node.story() as story:
        host = Host(story, tmp_path, plugins)
        try:
            host.open()
            yield host
        finally:
            host.close()


def _detected(namespace: str, link: str) -> str:
    """The IPv6 addresses of a link that nobody else was found to have."""
    return run("ip", "-n", namespace, "-6", "address", "show", "dev", link, "-tentative")


# 64, 65
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("main", MAIN)
async def test_add_check_del_by_a_main_plugin(host: Host, main: str, version: str) -> None:
    story = host.story
    pool = await story.pool(gateway="{}.1", routes=[{"dst": "0.0.0.0/0"}])
    host.configure(version, MAIN[main], pool)
    first, second, pods = host.sandbox(), host.sandbox(), await story.pods(2)
    mine, other = await host.add(first, pods[0]), await host.add(second, pods[1])
    assert mine != other
    assert "default via" in run("ip", "-n", first, "route")
    if main == "bridge":
        run("ip", "netns", "exec", first, "ping", "-c1", "-W2", other)
    if version not in ("0.3.1",):
        await host.succeed("check", first, pods[0])
    await story.check()
    await host.succeed("del", first, pods[0])
    await host.succeed("del", first, pods[0])
    # 65: the namespace is gone before its DEL
    run("ip", "netns", "delete", second)
    await host.cnitool("del", second, pods[1])
    assert await story.endpoints() == []
    await story.empty()


# 69
@pytest.mark.parametrize("main", MAIN)
async def test_check_fails_after_somebody_changed_the_address(host: Host, main: str) -> None:
    story, pod, sandbox = host.story, await host.story.pod(), host.sandbox()
    host.configure("1.0.0", MAIN[main], await story.pool(gateway="{}.1"))
    address = await host.add(sandbox, pod)
    await host.succeed("check", sandbox, pod)
    run("ip", "-n", sandbox, "address", "flush", "dev", "eth0")
    run("ip", "-n", sandbox, "address", "add", "198.51.100.7/24", "dev", "eth0")
    code, said = await host.cnitool("check", sandbox, pod)
    assert code != 0
    assert address in said
    await host.succeed("del", sandbox, pod)
    await story.empty()


# 70
async def test_plugins_chained_after_get_the_result_and_their_part_is_taken_back(host: Host) -> None:
    story, pod, sandbox = host.story, await host.story.pod(), host.sandbox()
    chained = [
        {"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_notify": "1"}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    host.configure("1.0.0", MAIN["bridge"], await story.pool(), chained=chained)
    address = await host.add(sandbox, pod)
    set_to = ["sysctl", "-n", "net.ipv4.conf.eth0.arp_notify"]
    assert run("ip", "netns", "exec", sandbox, *set_to).strip() == "1"
    await host.succeed("check", sandbox, pod)
    assert host.addresses(sandbox) == [address]
    await host.succeed("del", sandbox, pod)
    assert await story.endpoints() == []
    await story.empty()


# 71: the main plugin waits for duplicate address detection of the Pod's address; the bridge's own takes as long
async def test_an_ipv6_gateway_on_the_bridge_is_there_within_the_deadlines(host: Host) -> None:
    story, pod, sandbox = host.story, await host.story.pod(), host.sandbox()
    host.configure("1.0.0", MAIN["bridge"], await story.pool(six=True, gateway="{}:1"))
    async with asyncio.timeout(ADD_SECONDS):
        code, said = await host.cnitool("add", sandbox, pod)
        assert code == 0, said
        (address,) = bare(json.loads(said))
        assert f" {address}/64 " in _detected(sandbox, "eth0")
        gateway = address.rpartition(":")[0] + ":1"
        while f" {gateway}/64 " not in _detected(host.name, "br0"):  # noqa: ASYNC110 - the kernel decides
            await asyncio.sleep(0.1)
    run("ip", "netns", "exec", sandbox, "ping", "-6", "-c1", "-W2", gateway)
    await host.succeed("del", sandbox, pod)
    await story.empty()


# 72: bridge passes STATUS on; GC it does not, but libcni's own sends the DELs of what it remembers
async def test_status_and_gc_by_cnitool(host: Host) -> None:
    story, node = host.story, host.story.nodes[0]
    host.configure("1.1.0", MAIN["bridge"], await story.pool())
    sandboxes, pods = [host.sandbox(), host.sandbox()], await story.pods(2)
    for sandbox, pod in zip(sandboxes, pods, strict=True):
        await host.add(sandbox, pod)
    await host.succeed("status", sandboxes[0], pods[0])
    node.process.kill()
    node.process.stop()
    code, said = await host.cnitool("status", sandboxes[0], pods[0])
    assert code != 0
    assert "is the agent running on this node?" in said
    await asyncio.to_thread(node.start)
    await host.succeed("status", sandboxes[0], pods[0])
    assert len(await story.endpoints()) == 2
    await host.succeed("gc", sandboxes[0], pods[0])
    assert await story.endpoints() == []
    await story.empty()


# 65: the link is gone
async def test_del_after_the_link_is_gone(host: Host) -> None:
    story, pod, sandbox = host.story, await host.story.pod(), host.sandbox()
    host.configure("1.0.0", MAIN["macvlan"], await story.pool())
    await host.add(sandbox, pod)
    run("ip", "-n", sandbox, "link", "delete", "eth0")
    await host.succeed("del", sandbox, pod)
    await story.empty()


# 66: the gateway's address on the bridge is another one already
async def test_a_main_plugin_that_fails_after_its_ipam_gives_the_address_back(host: Host) -> None:
    story, pod, sandbox = host.story, await host.story.pod(), host.sandbox()
    host.configure("1.0.0", MAIN["bridge"], await story.pool(gateway="{}.1"))
    for words in (["link", "add", "br0", "type", "bridge"], ["address", "add", "192.0.2.1/24", "dev", "br0"]):
        run("ip", "-n", host.name, *words)
    code, said = await host.cnitool("add", sandbox, pod)
    assert code != 0, said
    assert await story.endpoints() == []
    await story.empty()


# 67: the master is not there
async def test_a_main_plugin_that_fails_before_its_ipam_holds_nothing(host: Host) -> None:
    story, pod, sandbox = host.story, await host.story.pod(), host.sandbox()
    host.configure("1.0.0", {**MAIN["macvlan"], "master": "nowhere"}, await story.pool())
    code, said = await host.cnitool("add", sandbox, pod)
    assert code != 0, said
    assert await story.endpoints() == []
    await story.empty()


# 68
@pytest.mark.parametrize("channel", ["capability", "CNI_ARGS"])
async def test_an_address_is_asked_for_through_cnitool(host: Host, channel: str) -> None:
    story, pod, sandbox = host.story, await host.story.pod(), host.sandbox()
    pool = await story.pool()
    host.configure("1.0.0", MAIN["macvlan"], pool, ips=True)
    start = (await story.api.get(f"/apis/ipam.berth.dev/v1alpha1/ippools/{pool}"))["spec"]["subnet"].rpartition(".")[0]
    asked = f"{start}.77"
    about = {"caps": json.dumps({"ips": [asked]})} if channel == "capability" else {"more": f";IP={asked}"}
    assert await host.add(sandbox, pod, **about) == asked
    await host.succeed("del", sandbox, pod)
    await story.empty()
