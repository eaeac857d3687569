"""A Pod that its StatefulSet makes again, as the leader sees it: facts in any order, and what it then wants written."""

from collections.abc import Callable
from typing import Any

import pytest

from berth.controller.allocator import Allocator, Deletion
from berth.controller.book import Book
from berth.controller.claims import read
from berth.controller.surroundings import read_pod, read_stateful_set
from berth.core.ledger import Ledger
from berth.core.pool import Pool
from berth.core.ranges import Family
from berth.kube.client import Change, Listing, Object

ADDRESS, FIRST = "10.0.0.1", 0x0A000001
SET = {"kind": "StatefulSet", "name": "db", "uid": "set"}


class Desk:
    """An allocator with one pool of two addresses, whose ledger writes are done as soon as they are asked for."""

    def __init__(self) -> None:
        self.written: list[str] = []

        def ignore(*_: Any) -> None:
            return None

        self.allocator = Allocator(lambda: 0.0, self.written.append, ignore, ignore, ignore)
        world = self.allocator.world
        world.namespaces.replaced(_listing({"metadata": {"name": "default"}}))
        world.nodes.replaced(_listing({"metadata": {"name": "node-1"}}))
        self.scale(2)
        self.book = self._pool()
        self._version = 100

    def _pool(self) -> Book:
        item: Object = {
            "metadata": {"name": "blue", "uid": "pool-uid", "resourceVersion": "5", "generation": 1},
            "spec": {"subnet": "10.0.0.0/24", "ips": ["10.0.0.1-10.0.0.2"], "default": True, "reuseDelay": "0s"},
        }
        book = Book(None, item, accepted=lambda *_: None, lost=_never)  # type: ignore[arg-type]  # it writes nothing here
        image = book.image(Family.IPV4)
        assert isinstance(book.pool, Pool)
        self.allocator.books["blue"] = book
        self.allocator.attach(book, Ledger(image, book.pool.offered, 0.0))  # type: ignore[arg-type]
        book.serving = True
        self.allocator.judged({"blue": True})
        return book

    def scale(self, replicas: int, uid: str = "set") -> None:
        item = {"metadata": {"namespace": "default", "name": "db", "uid": uid}, "spec": {"replicas": replicas}}
        self.allocator.world.stateful_sets.replaced(_listing(read_stateful_set(item)))

    def pods(self, *uids: str, owner: str = "set") -> None:
        reference = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": owner, "controller": True}
        self.allocator.world.pods.replaced(
            _listing(
                *(
                    read_pod(
                        {
                            "metadata": {
                                "namespace": "default",
                                "name": "db-0",
                                "uid": uid,
                                "ownerReferences": [reference],
                            }
                        }
                    )
                    for uid in uids
                )
            )
        )

    def show(self, uid: str, container: str, held: str = "", kind: str = "MODIFIED", *, of: str | None = "set") -> None:
        """An Endpoint of Pod `pod-UID`, as a watch tells of it; `of`: UID of the set that it is kept for."""
        self._version += 1
        meta = {"namespace": "default", "name": uid, "uid": uid, "generation": 1}
        spec = {
            "pod": {"name": "db-0", "uid": f"pod-{uid}"},
            "node": "node-1",
            "network": "net",
            "interface": "eth0",
            "containerID": container,
        }
        entry = {"family": "IPv4", "address": f"{held}/24", "pool": "blue"}
        status: Object = {"addresses": [entry]} if held else {}
        if held and of:
            status["heldFor"] = {**SET, "uid": of}
        item = {"metadata": {**meta, "resourceVersion": str(self._version)}, "spec": spec, "status": status}
        self.allocator.claims.changed(Change(kind, item))

    def granted(self, uid: str) -> int | None:
        assert self.book.ledger is not None
        return self.book.ledger.granted_to(uid)


async def _never(_: Book) -> None:
    raise AssertionError("no write is lost here")


def _listing(*items: Any) -> Listing:
    return Listing(list(items), "9")


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.pods("pod-old")
    made.show("old", "c1", ADDRESS)
    return made


def come(desk: Desk) -> None:
    desk.pods("pod-new")
    desk.show("new", "c2")


def park(desk: Desk) -> None:
    desk.show("old", "", ADDRESS)


@pytest.mark.parametrize("order", [(park, come), (come, park)], ids=["parked before", "parked after"])
async def test_the_old_claim_is_deleted_and_the_new_one_has_its_address(
    desk: Desk, order: tuple[Callable[[Desk], None], ...]
) -> None:
    for step in order:
        step(desk)
    assert desk.granted("new") is None
    assert "old" in desk.written
    assert isinstance(desk.allocator.statement("old"), Deletion)
    desk.show("old", "", ADDRESS, "DELETED")
    assert desk.granted("new") == FIRST


async def test_a_new_claim_waits_as_long_as_the_old_one_has_a_container(desk: Desk) -> None:
    come(desk)
    assert desk.granted("new") is None
    assert desk.allocator.statement("old") is None
    assert "old" not in desk.written


async def test_a_pod_of_another_set_does_not_wait_and_what_is_parked_makes_way_for_it(desk: Desk) -> None:
    desk.scale(2, uid="another")
    desk.pods("pod-new", owner="another")
    desk.show("new", "c2")
    assert desk.granted("new") == FIRST + 1
    desk.show("new", "c2", "10.0.0.2")
    park(desk)
    assert isinstance(desk.allocator.statement("old"), Deletion)


async def test_a_claim_of_a_pod_that_nobody_knows_takes_nothing(desk: Desk) -> None:
    """Its Pod was deleted by force, and its ADD comes late."""
    park(desk)
    desk.pods()
    desk.show("late", "c3")
    assert desk.allocator.statement("old") is None
    assert "old" not in desk.written


async def test_a_claim_that_is_given_up_leaves_the_parked_one_alone(desk: Desk) -> None:
    park(desk)
    come(desk)
    desk.show("new", "c2", kind="DELETED")
    assert desk.allocator.statement("old") is None


@pytest.mark.parametrize(
    ("story", "of"),
    [
        ("confirmed after its Pod had gone, so that nobody could say for whom to keep it", None),
        ("of a set of this name that is gone (simulation, seed 818)", "before"),
    ],
)
async def test_what_is_left_of_a_pod_before_it_does_not_take_the_place_of_a_parked_claim(
    desk: Desk, story: str, of: str | None
) -> None:
    desk.pods()
    desk.show("left", "c0", "10.0.0.2", of=of)
    park(desk)
    assert desk.allocator.statement("old") is None, story


async def test_a_sandbox_made_again_meanwhile_is_not_deleted(desk: Desk) -> None:
    park(desk)
    come(desk)
    desk.show("old", "c9", ADDRESS)
    assert desk.allocator.statement("old") is None


async def test_a_new_leader_finds_it_all_in_a_listing() -> None:
    desk = Desk()
    desk.pods("pod-new")
    items = []
    for uid, container, held in (("new", "c2", ""), ("old", "", ADDRESS)):
        spec = {"pod": {"name": "db-0", "uid": f"pod-{uid}"}, "node": "node-1", "network": "net", "interface": "eth0"}
        entry = {"family": "IPv4", "address": f"{held}/24", "pool": "blue"}
        items.append(
            read(
                {
                    "metadata": {"namespace": "default", "name": uid, "uid": uid, "resourceVersion": "7"},
                    "spec": {**spec, "containerID": container},
                    "status": {"addresses": [entry], "heldFor": SET} if held else {},
                }
            )
        )
    desk.book.ledger = None  # as at the start of a term: the claims are read before a ledger is known
    desk.allocator.claims.replaced(_listing(*items))
    assert isinstance(desk.allocator.statement("old"), Deletion)
