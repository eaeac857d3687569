"""What the commands that only look have in common: reading a cluster as the operator sees it, and printing.

They read the API and write nothing. A table is for people, `-o json` for programs: the same facts.
"""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import ValidationError
from rich import box
from rich.console import Console
from rich.table import Table

from berth.api.ippool import IPPoolSpec, IPPoolStatus
from berth.api.reservedip import ReservedIPSpec
from berth.core.ledger import Image, Ledger
from berth.core.pool import Pool
from berth.core.ranges import Family, Ranges
from berth.core.selection import Offer
from berth.kube.client import Api, Client, Object
from berth.kube.config import load
from berth.kube.errors import Answer, Denied, KubeError, NotFound, Unknown
from berth.kube.resources import POOLS, RESERVED

EXIT_FAILED = 1


@dataclass(slots=True)
class Pools:
    """All pools that can be understood, as offers and ledgers; `unread`: why not, of the others."""

    offers: dict[str, Offer] = field(default_factory=dict)
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    items: dict[str, Object] = field(default_factory=dict)
    reserved: dict[str, dict[Family, Ranges]] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)


async def read_pools(api: Api) -> Pools:
    found = Pools()
    for item in (await api.list(RESERVED.path())).items:
        reserved = ReservedIPSpec.model_validate(item["spec"]).to_core()
        if isinstance(reserved, dict):
            found.reserved[item["metadata"]["name"]] = reserved
    for item in (await api.list(POOLS.path())).items:
        _read_pool(found, item)
    return found


def _read_pool(found: Pools, item: Object) -> None:
    name = item["metadata"]["name"]
    found.items[name] = item
    try:
        pool = IPPoolSpec.model_validate(item["spec"]).to_core(name)
        status = IPPoolStatus.model_validate(item.get("status") or {})
    except ValidationError as error:
        found.unread[name] = str(error)
        return
    if not isinstance(pool, Pool):
        found.unread[name] = str(pool)
        return
    generation = item["metadata"].get("generation")
    serving = any(
        each.type == "Ready" and each.status == "True" and each.observed_generation == generation
        for each in status.conditions
    )
    found.offers[name] = Offer(pool, serving)
    image = status.ledger.to_core(pool.family)
    if not isinstance(image, Image):
        found.unread[name] = str(image)
        return
    withheld = Ranges.of(run for each in found.reserved.values() for run in each[pool.family].runs)
    found.ledgers[name] = Ledger(image, pool.offered.minus(withheld))


def look(arguments: argparse.Namespace, act: Callable[[Api], Awaitable[int]]) -> int:
    """Runs `act` with a client; what the API will not tell is one line and exit code 1."""
    access = load(arguments.kubeconfig)

    async def run() -> int:
        async with Client(access, name="berth-cli") as api:
            return await act(api)

    try:
        return asyncio.run(run())
    except (KubeError, ValueError) as error:
        return fail(error, access.server)


def fail(error: Exception, server: str = "") -> int:
    """One line that says what to do."""
    match error:
        case NotFound():
            said = f"{server} has not Berth's resources: install them (kubectl apply -f crds/), or name another cluster"
        case Denied(status=401):
            said = f"{server} does not know who you are: are the credentials in the kubeconfig still good?"
        case Denied(message=message):
            said = f"{message}: reading Pods, nodes and the ClusterRole berth-viewer (or view) allows it"
        case Answer(message=message):
            said = f"{server} says: {message}"
        case Unknown():
            said = f"{server} does not answer: is it the right cluster, and is it up? ({error})"
        case _:
            said = str(error)
    print(f"berth: {said}", file=sys.stderr)
    return EXIT_FAILED


def print_json(told: object) -> None:
    print(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode())


def table(*columns: str) -> Table:
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def console() -> Console:
    """Not cut off at 80 columns where there is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)


def kept_for(item: Mapping[str, Any]) -> str | None:
    """Of an Endpoint without a container: whose Pod is to have its addresses again."""
    keeper = (item.get("status") or {}).get("heldFor")
    return None if item["spec"]["containerID"] or keeper is None else f"{keeper['kind']} {keeper['name']}"


def ready_of(item: Mapping[str, Any]) -> tuple[str, str, str]:
    """Status, reason and message of the condition Ready."""
    for each in (item.get("status") or {}).get("conditions") or ():
        if each["type"] == "Ready":
            return each["status"], each.get("reason", ""), each.get("message", "")
    return "Unknown", "", "the operator has not said anything yet"
