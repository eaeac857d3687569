"""Who is measured, and how each gets its addresses. Everything else is the same for all."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.settings import ROOT, Settings
from e2e.cluster import binaries

POOL4, POOL6 = "bench-v4", "bench-v6"
SUBNET4, SUBNET6 = "10.64.0.0/16", "fd64::/64"
FIRST4 = 0x0A40_0001


@dataclass(frozen=True, slots=True)
class Contender:
    """`berth`: by Berth's agent and operator; else by host-local, which coordinates nothing: the control.

    `exact`: the pool holds just as many addresses as there are Pods.
    """

    name: str
    title: str
    berth: bool
    dual: bool = False
    exact: bool = True

    def network(self, node: int, folder: Path) -> dict[str, Any]:
        """The CNI configuration of a node."""
        ipam = self._berth(folder) if self.berth else self._host_local(node, folder)
        return {
            "cniVersion": "1.0.0",
            "name": "bench",
            "type": "macvlan",
            "master": "eth0",
            "mode": "bridge",
            "ipam": ipam,
        }

    def _berth(self, folder: Path) -> dict[str, Any]:
        pools6 = {"ipv6Pools": [POOL6]} if self.dual else {}
        return {"type": "berth", "socket": str(folder / "berth.sock"), "ipv4Pools": [POOL4], **pools6}

    def _host_local(self, node: int, folder: Path) -> dict[str, Any]:
        ranges = [[{"subnet": f"10.{64 + node // 256}.{node % 256}.0/24"}]]
        if self.dual:
            ranges.append([{"subnet": f"fd64:0:0:{node:x}::/64"}])
        return {"type": "host-local", "ranges": ranges, "dataDir": str(folder / "host-local")}

    def pools(self, settings: Settings) -> list[dict[str, Any]]:
        """The IPPools that Berth gives from."""
        pools = [_pool(POOL4, SUBNET4, f"{_dotted(FIRST4)}-{_dotted(FIRST4 + settings.pods - 1)}", self.exact)]
        if self.dual:
            pools.append(_pool(POOL6, SUBNET6, f"fd64::1-fd64::{settings.pods:x}", self.exact))
        return pools if self.berth else []


ALL = {
    each.name: each
    for each in (
        Contender("host-local", "host-local (control)", berth=False),
        Contender("berth", "Berth, pool exact", berth=True),
        Contender("berth-dual", "Berth, dual stack, exact", berth=True, dual=True),
        Contender("berth-ample", "Berth, pool ample", berth=True, exact=False),
        Contender("host-local-dual", "host-local, dual stack", berth=False, dual=True),
    )
}
CONTROL = "host-local"


def plugins() -> str:
    """CNI_PATH: upstream's plugins, built once, and Berth's."""
    return os.pathsep.join([str(binaries.ensure("macvlan", "host-local")), str(ROOT / "cni-plugin" / "bin")])


def _pool(name: str, subnet: str, span: str, exact: bool) -> dict[str, Any]:
    spec: dict[str, Any] = {"subnet": subnet, **({"ips": [span]} if exact else {})}
    return {"apiVersion": "ipam.berth.dev/v1alpha1", "kind": "IPPool", "metadata": {"name": name}, "spec": spec}


def _dotted(address: int) -> str:
    return ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0))
