"""Calls for host-local, translated into calls for Berth: what lets suites written for the one run over the other.

A range of host-local's becomes an IPPool, made when it is first asked for; all cases share it, since pools do not
overlap. Each `dataDir`, which is host-local's memory, makes a container of its own and a Pod for it: the suites use one
container ID again and again. What its `resolvConf` says becomes the configuration's `dns`.
"""

import asyncio
import contextlib
import inspect
import ipaddress
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cni import host_local
from tests.cni.fleet import SHIM, Node, Pod, Story

Configuration = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Range:
    subnet: str
    gateway: str
    routes: tuple[str, ...]
    """Destinations of the range's own family."""


@dataclass(slots=True)
class Pools:
    """The pools of all ranges that were asked for so far, on whichever node."""

    story: Story
    _made: dict[str, tuple[Range, str]] = field(default_factory=dict)
    _alone: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def of(self, wanted: Range) -> str:
        async with self._alone:
            if wanted.subnet not in self._made:
                routes = [{"dst": each} for each in wanted.routes]
                six = ":" in wanted.subnet
                name = await self.story.pool(six=six, subnet=wanted.subnet, gateway=wanted.gateway, routes=routes)
                self._made[wanted.subnet] = (wanted, name)
        made, name = self._made[wanted.subnet]
        assert made == wanted, f"two cases want different pools of one subnet: {made}, {wanted}"
        return name


@dataclass(slots=True)
class Adapter:
    """One node's host-local. `folder`: what a suite's PATH begins with."""

    pools: Pools
    node: Node
    folder: Path
    pods: dict[str, Pod] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {"BERTH_ADAPTER": str(self.folder / "adapter.sock")}

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        executable = self.folder / "host-local"
        executable.write_text(f"#!{sys.executable} -IS\n{inspect.getsource(host_local)}")
        executable.chmod(0o755)
        async with await asyncio.start_unix_server(self._answer, self.environment["BERTH_ADAPTER"]):
            yield

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            environment, stdin = json.loads(await reader.read())
            configuration = json.loads(stdin)
            await self._translate(environment, configuration)
            writer.write(json.dumps([str(SHIM), environment, json.dumps(configuration)]).encode())

    async def _translate(self, environment: dict[str, str], configuration: Configuration) -> None:
        ipam = configuration["ipam"]
        container = f"{Path(ipam.get('dataDir', 'none')).name}-{environment.get('CNI_CONTAINERID', '')}"
        environment["CNI_CONTAINERID"] = container
        pools: list[str] = []
        if environment["CNI_COMMAND"] == "ADD":
            if container not in self.pods:
                self.pods[container] = await self.pools.story.pod()
            given = environment.get("CNI_ARGS")
            environment["CNI_ARGS"] = ";".join([self.pods[container].cni_args, *([given] if given else [])])
            pools = [await self.pools.of(each) for each in ranges(ipam)]
        if path := ipam.get("resolvConf"):
            configuration["dns"] = dns(Path(path).read_text())  # noqa: ASYNC240 (a line in a temporary file)
        configuration["ipam"] = self.node.ipam(*pools)


def ranges(ipam: Configuration) -> list[Range]:
    """As host-local reads them: one `subnet`, or sets of `ranges`; without a gateway it is the first address."""
    single = [[ipam]] if "subnet" in ipam else []
    found = []
    for each in (each for together in [*single, *(ipam.get("ranges") or [])] for each in together):
        subnet = ipaddress.ip_network(each["subnet"])
        gateway = each.get("gateway") or str(subnet[1])
        routes = [route["dst"] for route in ipam.get("routes") or []]
        own = tuple(route for route in routes if ipaddress.ip_network(route).version == subnet.version)
        found.append(Range(str(subnet), gateway, own))
    return found


def dns(resolv_conf: str) -> dict[str, Any]:
    """A resolv.conf in the words of CNI."""
    found: dict[str, Any] = {}
    for line in resolv_conf.splitlines():
        key, *values = line.split() or [""]
        if key == "nameserver":
            found.setdefault("nameservers", []).extend(values)
        elif key == "domain":
            found["domain"] = values[0]
        elif key in ("search", "options"):
            found.setdefault(key, []).extend(values)
    return found
