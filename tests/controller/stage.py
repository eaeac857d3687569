"""One Pod on one node, pools by name, and an API that has what a story puts there: what leaders are told and asked."""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from berth.api.names import REASSERTED
from berth.controller.allocator import Allocator
from berth.controller.book import Book
from berth.controller.claims import Seen
from berth.controller.surroundings import read_pod
from berth.core.ledger import Image, Ledger
from berth.core.pool import Pool
from berth.kube.client import Listing, Object, Reading
from berth.kube.errors import NotFound
from berth.kube.resources import ENDPOINTS, PODS, POOLS

CLAIM = "claim-uid"
FIRST = 0x0A000001  # 10.0.0.1


def ignore(*_: Any) -> None:
    return None


def allocator(
    clock: Callable[[], float] = lambda: 0.0,
    *,
    write: Callable[[str], None] = ignore,
    suspect: Callable[[Seen], None] = ignore,
    holding_back: bool = False,
) -> Allocator:
    """Its views show the Pod, its namespace and its node; there is no pool yet."""
    made = Allocator(clock, write, suspect, ignore, ignore, holding_back=holding_back)
    pod = {"metadata": {"namespace": "default", "name": "web-0", "uid": "pod-uid"}}
    made.world.pods.replaced(listing(read_pod(pod)))
    made.world.namespaces.replaced(listing({"metadata": {"name": "default"}}))
    made.world.nodes.replaced(listing({"metadata": {"name": "node-1"}}))
    return made


def pool(
    name: str = "blue", version: str = "5", ledger: Object | None = None, ready: bool = False, **spec: Any
) -> Object:
    """10.0.0.0/24 unless the spec says otherwise. `ready`: it says that it serves."""
    moment = "2026-01-01T00:00:00Z"
    serving = {"type": "Ready", "status": "True", "reason": "Serving", "message": "", "observedGeneration": 1}
    meta = {"name": name, "uid": f"{name}-uid", "resourceVersion": version, "generation": 1}
    return {
        "metadata": {**meta, "creationTimestamp": moment},
        "spec": {"subnet": "10.0.0.0/24", "reuseDelay": "0s", **spec},
        "status": {
            "ledger": {"sequence": 1, **(ledger or {})},
            "conditions": [{**serving, "lastTransitionTime": moment}] if ready else [],
        },
    }


def settled(*hosts: int, block: str = "10.0.0.0") -> Object:
    """A ledger in which the addresses with these last numbers (below 8) are settled."""
    return {"blocks": {block: b64encode(bytes([sum(1 << host for host in hosts)])).decode()}}


def endpoint(
    uid: str = CLAIM,
    version: str = "7",
    *,
    pools: Sequence[str] = ("blue",),
    pools6: Sequence[str] = (),
    held: Mapping[str, str] | None = None,
    pod_uid: str = "pod-uid",
    reasserted: Sequence[str] = (),
) -> Object:
    """`held`: pool and address that its status confirms; `reasserted`: the addresses that its agent asserts."""
    meta: Object = {"namespace": "default", "name": uid, "uid": uid, "resourceVersion": version, "generation": 1}
    spec: Object = {
        "pod": {"name": "web-0", "uid": pod_uid},
        "node": "node-1",
        "network": "net",
        "interface": "eth0",
        "containerID": "c1",
        "ipv4Pools": list(pools),
        "ipv6Pools": list(pools6),
    }
    if reasserted:
        meta["annotations"] = {REASSERTED: "true"}
        spec["addresses"] = list(reasserted)
    entries = [{"family": "IPv4", "address": f"{text}/24", "pool": name} for name, text in (held or {}).items()]
    return {"metadata": meta, "spec": spec, "status": {"addresses": entries}}


def listing(*items: Any) -> Listing:
    return Listing(list(items), "9")


def opened(allocator: Allocator, item: Object, *, serving: bool = True) -> Book:
    """Its ledger is read, and held against what is known of claims; whether it serves is not told to the allocator."""
    book = Book(None, item, accepted=lambda *_: None, lost=_never)  # type: ignore[arg-type]  # it writes nothing here
    assert isinstance(book.pool, Pool)
    image = book.image(book.pool.family)
    assert isinstance(image, Image)
    allocator.books[book.name] = book
    allocator.attach(book, Ledger(image, book.pool.offered, book.pool.reuse_delay))
    book.serving = serving
    return book


async def _never(_: Book) -> None:
    raise AssertionError("no write is lost here")


class Cluster:
    """Pools, Endpoints and Pods as the API has them. `during`: what happens while something is read, told its path."""

    def __init__(self, *items: Object) -> None:
        self.pools = {item["metadata"]["name"]: item for item in items}
        self.endpoints: list[Object] = []
        self.pods: list[Object] = []
        self.during: Callable[[str], None] = ignore

    async def get(self, path: str, params: object = None) -> Object:
        """A pool, as it was when it was asked for; nothing else is there."""
        found = deepcopy(self.pools.get(path.removeprefix(f"{POOLS.path()}/")))
        self.during(path)
        if found is None:
            raise NotFound(404, "NotFound", path)
        return found

    async def list(
        self, path: str, params: object = None, *, metadata: bool = False, reading: Reading | None = None
    ) -> Listing:
        kinds = {POOLS.path(): list(self.pools.values()), ENDPOINTS.path(): self.endpoints, PODS.path(): self.pods}
        found = listing(*deepcopy(kinds.get(path, []))).read(reading)
        self.during(path)
        return found

    async def replace(self, path: str, body: Object) -> Object:
        """The status of a pool."""
        there = self.pools[body["metadata"]["name"]]
        there["status"] = body["status"]
        there["metadata"]["resourceVersion"] = str(int(there["metadata"]["resourceVersion"]) + 1)
        return deepcopy(there)
