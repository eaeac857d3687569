"""A simulated node: what a kubelet does for a Pod's network, and nothing of its containers.

It registers its Node, keeps its Lease, watches the Pods bound to it, and for each makes a real network namespace and
executes the real plugin chain. A failed ADD is undone by a DEL and tried anew with another container ID after a
kubelet's back-off. When a Pod is to go: DEL, the namespace removed, the Pod deleted with its UID as a precondition.
It is a process of its own, as the kubelet of a node, with the API rights and the 50 requests a second of one.

Each ADD and DEL is a line of JSON in the node's journal; a unix socket tells what the kernel has for each Pod.
"""

import asyncio
import random
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import orjson
import uvloop

from bench import kernel
from bench.api import BenchClient
from bench.runtime import Outcome, Runtime, Sandbox
from berth.kube.client import Change, Listing, Object
from berth.kube.config import load
from berth.kube.errors import Answer, BadRequest, Conflict, Denied, NotFound, Unknown
from berth.kube.reflector import follow
from berth.kube.resources import LEASES, NODES, PODS

# kubelet: pkg/kubelet/kubelet.go (backOffPeriod), pod_workers.go (workerBackOffPeriodJitterFactor).
BACK_OFF_SECONDS, JITTER = 10.0, 0.5
LEASE_SECONDS = 40
MOST_PODS = 250
LEASE_NAMESPACE = "kube-node-lease"


@dataclass(slots=True)
class Place:
    """What a node is told in its file: who it is, and where its things are."""

    name: str
    address: str
    kubeconfig: str
    configuration: str
    plugins: str
    folder: str
    most_pods: int = MOST_PODS


@dataclass(slots=True)
class Tenant:
    """A Pod of this node, as far as it has come."""

    pod: Object
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    sandbox: Sandbox | None = None
    running: bool = False

    @property
    def uid(self) -> str:
        return str(self.pod["metadata"]["uid"])


class Node:
    """One kubelet, so to speak. Also a follower of its Pods."""

    back_off_seconds = BACK_OFF_SECONDS

    def __init__(self, place: Place, api: BenchClient, runtime: Runtime, journal: TextIO) -> None:
        self._place = place
        self._api = api
        self._runtime = runtime
        self._journal = journal
        self._tenants: dict[str, Tenant] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        await self._runtime.start()
        await self._api.create(NODES.path(), _node(self._place))
        server = await asyncio.start_unix_server(self._answer, str(Path(self._place.folder) / "node.sock"))
        own = {"fieldSelector": f"spec.nodeName={self._place.name}"}
        async with server:
            await asyncio.gather(self._keep_lease(), follow(self._api, PODS.path(), self, params=own))

    # --- Pods as they come and go ------------------------------------------------------------------------------------

    def replaced(self, listing: Listing) -> None:
        there = {item["metadata"]["uid"] for item in listing.items}
        for uid, tenant in self._tenants.items():
            if uid not in there:
                tenant.leaving.set()
        for item in listing.items:
            self._see(item)

    def changed(self, change: Change) -> None:
        if change.kind == "DELETED":
            gone = self._tenants.get(change.object["metadata"]["uid"])
            if gone is not None:
                gone.leaving.set()
        else:
            self._see(change.object)

    def _see(self, pod: Object) -> None:
        meta = pod["metadata"]
        tenant = self._tenants.get(meta["uid"])
        if tenant is None:
            tenant = self._tenants[meta["uid"]] = Tenant(pod)
            task = asyncio.ensure_future(self._live(tenant))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        if "deletionTimestamp" in meta:
            tenant.leaving.set()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._note(event="trouble", error=repr(error))

    async def _live(self, tenant: Tenant) -> None:
        addresses = await self._start(tenant)
        if addresses:
            tenant.running = True
            await self._report(tenant, addresses)
            await tenant.leaving.wait()
            tenant.running = False
            await self._stop(tenant)
        await self._delete(tenant)
        del self._tenants[tenant.uid]

    async def _start(self, tenant: Tenant) -> tuple[str, ...]:
        """The Pod's addresses; none when it had to go before it had any."""
        while not tenant.leaving.is_set():
            tenant.sandbox = await self._make(tenant)
            added = await self._call("ADD", tenant.sandbox)
            if not added.error:
                return added.addresses
            await self._stop(tenant)
            try:
                async with asyncio.timeout(self.back_off_seconds * (1 + JITTER * random.random())):
                    await tenant.leaving.wait()
            except TimeoutError:
                continue
        return ()

    async def _make(self, tenant: Tenant) -> Sandbox:
        container, meta = secrets.token_hex(32), tenant.pod["metadata"]
        return Sandbox(container, meta["namespace"], meta["name"], meta["uid"], await self._runtime.make(container))

    async def _stop(self, tenant: Tenant) -> None:
        """DEL until it succeeds, as kubelet does, then the namespace."""
        assert tenant.sandbox is not None
        while (await self._call("DEL", tenant.sandbox)).error:  # noqa: ASYNC110 - a retry
            await asyncio.sleep(1.0)
        sandbox, tenant.sandbox = tenant.sandbox, None
        await self._runtime.remove(sandbox)

    async def _call(self, command: str, sandbox: Sandbox) -> Outcome:
        begin = time.monotonic()
        outcome = await self._runtime.execute(command, sandbox)
        self._note(
            event=command,
            uid=sandbox.pod_uid,
            container=sandbox.container,
            begin=begin,
            end=time.monotonic(),
            cpu=outcome.cpu,
            addresses=outcome.addresses,
            error=outcome.error,
        )
        return outcome

    async def _report(self, tenant: Tenant, addresses: tuple[str, ...]) -> None:
        await self._insist(
            lambda: self._api.patch(_pod_path(tenant, "status"), _running(self._place, tenant, addresses))
        )

    async def _delete(self, tenant: Tenant) -> None:
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": tenant.uid}}
        await self._insist(lambda: self._api.remove(_pod_path(tenant), options))

    async def _insist(self, request: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await request()
            except (NotFound, Conflict, BadRequest, Denied):
                return  # the Pod is gone, or another has its name, perhaps on another node
            except (Answer, Unknown) as error:
                self._note(event="trouble", error=str(error))
                await asyncio.sleep(1.0)
            else:
                return

    # --- the node itself ---------------------------------------------------------------------------------------------

    async def _keep_lease(self) -> None:
        name, path = self._place.name, LEASES.path(namespace=LEASE_NAMESPACE)
        meta = {"name": name, "namespace": LEASE_NAMESPACE}
        spec = {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": _now("microseconds")}
        await self._api.create(
            path, {"apiVersion": LEASES.api_version, "kind": "Lease", "metadata": meta, "spec": spec}
        )
        while True:
            await asyncio.sleep(LEASE_SECONDS / 4)
            renewed = {"spec": {"renewTime": _now("microseconds")}}
            await self._insist(lambda renewed=renewed: self._api.patch(f"{path}/{name}", renewed))  # type: ignore[misc]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One question, one answer: the addresses that each Pod's link really has."""
        await reader.readline()
        sandboxes = [each.sandbox for each in self._tenants.values() if each.running and each.sandbox is not None]
        found = {each.pod_uid: await self._runtime.addresses(each) for each in sandboxes}
        writer.write(orjson.dumps({"interfaces": found, "tenants": len(self._tenants)}) + b"\n")
        await writer.drain()
        writer.close()

    def _note(self, **fields: Any) -> None:
        self._journal.write(orjson.dumps(fields).decode() + "\n")
        self._journal.flush()


def _pod_path(tenant: Tenant, sub: str | None = None) -> str:
    meta = tenant.pod["metadata"]
    return PODS.path(meta["name"], namespace=meta["namespace"], sub=sub)


def _now(precision: str = "seconds") -> str:
    return datetime.now(UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def _node(place: Place) -> Object:
    amounts = {"cpu": "256", "memory": "1Ti", "ephemeral-storage": "1Ti", "pods": str(place.most_pods)}
    now = _now()
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "simulated"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": place.name, "labels": {"kubernetes.io/hostname": place.name}},
        "status": {
            "capacity": amounts,
            "allocatable": amounts,
            "conditions": [{**ready, "lastHeartbeatTime": now, "lastTransitionTime": now}],
            "addresses": [{"type": "InternalIP", "address": place.address}],
        },
    }


def _running(place: Place, tenant: Tenant, addresses: tuple[str, ...]) -> Object:
    now = _now()
    conditions = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    container = tenant.pod["spec"]["containers"][0]
    status = {
        "name": container["name"],
        "image": container["image"],
        "imageID": container["image"],
        "containerID": f"containerd://{tenant.sandbox.container if tenant.sandbox else ''}",
        "ready": True,
        "started": True,
        "restartCount": 0,
        "state": {"running": {"startedAt": now}},
    }
    return {
        "metadata": {"uid": tenant.uid},
        "status": {
            "phase": "Running",
            "conditions": [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in conditions],
            "containerStatuses": [status],
            "hostIP": place.address,
            "podIP": addresses[0],
            "podIPs": [{"ip": each} for each in addresses],
            "startTime": now,
        },
    }


async def _serve(place: Place) -> None:
    folder = Path(place.folder)
    runtime = Runtime(Path(place.configuration), place.plugins, folder / "networks")
    with (folder / "journal.jsonl").open("a") as journal:
        async with BenchClient(load(place.kubeconfig), name=f"bench-node/{place.name}") as api:
            await Node(place, api, runtime, journal).run()


def main() -> None:
    place = Place(**orjson.loads(Path(sys.argv[1]).read_bytes()))
    kernel.own_mounts()
    uvloop.run(_serve(place))


if __name__ == "__main__":
    main()
