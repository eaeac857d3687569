"""What a leader says of claims while it learns what there is."""

from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest

from berth.api.names import REASSERTED
from berth.controller.allocator import PATIENCE_SECONDS, Allocator, Deletion
from berth.controller.book import Book
from berth.controller.claims import read
from berth.controller.surroundings import read_pod
from berth.core.ledger import Image, Ledger
from berth.core.pool import Pool
from berth.core.ranges import Family
from berth.core.reasons import Reason
from berth.kube.client import Listing, Object

CLAIM = "claim-uid"


async def test_a_claim_that_waits_is_not_told_of_the_moment_before_its_pool_was_known() -> None:
    """Its only address is another's: the new leader sees the claim before it has judged the pool."""
    allocator = _allocator()
    allocator.claims.replaced(_listing(read(_endpoint())))
    book = _full_pool(allocator)
    book.serving = True
    allocator.judged({book.name: True})
    assert len(allocator.waiting) == 1
    assert allocator.statement(CLAIM) is None


@pytest.mark.parametrize(("doubts", "told"), [(1, None), (0, Reason.POOL_EXHAUSTED)])
async def test_who_waits_for_an_address_in_doubt_is_not_sent_away(doubts: int, told: Reason | None) -> None:
    """After a take-over, DELs of the time when nobody led have left it settled without an Endpoint."""
    now = 0.0
    allocator = _allocator(lambda: now)
    allocator.claims.replaced(_listing(read(_endpoint())))
    book = _full_pool(allocator)
    book.serving = True
    allocator.prospects.doubted = lambda pool: doubts
    allocator.judged({book.name: True})
    now = 2 * PATIENCE_SECONDS
    allocator.lose_patience()
    statement = allocator.statement(CLAIM)
    assert not isinstance(statement, Deletion)
    assert (statement and statement[1] and statement[1].reason) == told


async def test_who_had_an_address_of_a_slice_gets_it_again_though_others_have_that_slice_now() -> None:
    """A restored backup is older than the slice; and a Pod may have lost its controller."""
    allocator = _allocator()
    allocator.claims.replaced(_listing(read(_endpoint(reasserted=True))))
    slices = {"shop/Deployment.apps/other": ["10.0.0.4-10.0.0.5"]}
    book = _book(allocator, {"subnet": "10.0.0.0/24", "slices": {"size": 2}}, {"sequence": 1, "slices": slices})
    book.serving = True
    allocator.judged({book.name: True})
    assert book.ledger is not None
    assert book.ledger.granted_to(CLAIM) == 0x0A000005


def _allocator(clock: Callable[[], float] = lambda: 0.0) -> Allocator:
    def ignore(*_: Any) -> None:
        return None

    made = Allocator(clock, ignore, ignore, ignore, ignore)
    pod = {"metadata": {"namespace": "default", "name": "web-0", "uid": "pod-uid"}}
    made.world.pods.replaced(_listing(read_pod(pod)))
    made.world.namespaces.replaced(_listing({"metadata": {"name": "default"}}))
    made.world.nodes.replaced(_listing({"metadata": {"name": "node-1"}}))
    return made


def _full_pool(allocator: Allocator) -> Book:
    """10.0.0.1 is all it has, and it is settled."""
    held = b64encode(bytes([0b10])).decode()
    spec = {"subnet": "10.0.0.0/24", "ips": ["10.0.0.1"]}
    return _book(allocator, spec, {"sequence": 1, "blocks": {"10.0.0.0": held}})


def _book(allocator: Allocator, spec: Object, ledger: Object) -> Book:
    item: Object = {
        "metadata": {"name": "blue", "uid": "pool-uid", "resourceVersion": "5", "generation": 1},
        "spec": spec,
        "status": {"ledger": ledger},
    }
    book = Book(None, item, accepted=lambda *_: None, lost=_never)  # type: ignore[arg-type]  # it writes nothing here
    image = book.image(Family.IPV4)
    assert isinstance(image, Image)
    assert isinstance(book.pool, Pool)
    allocator.books[book.name] = book
    allocator.attach(book, Ledger(image, book.pool.offered, 0.0))
    return book


async def _never(_: Book) -> None:
    raise AssertionError("no write is lost here")


def _endpoint(reasserted: bool = False) -> Object:
    meta: Object = {"namespace": "default", "name": "web-0-eth0", "uid": CLAIM, "resourceVersion": "7", "generation": 1}
    spec: Object = {
        "pod": {"name": "web-0", "uid": "pod-uid"},
        "node": "node-1",
        "network": "net",
        "interface": "eth0",
        "containerID": "c1",
        "ipv4Pools": ["blue"],
    }
    if reasserted:
        meta["annotations"] = {REASSERTED: "true"}
        spec["addresses"] = ["10.0.0.5"]
    return {"metadata": meta, "spec": spec}


def _listing(*items: Any) -> Listing:
    return Listing(list(items), "9")
