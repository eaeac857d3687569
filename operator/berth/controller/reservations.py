"""ReservedIPs: what they withhold from all pools, and a status that names those of their addresses in use.

A reservation takes nothing from anyone: an address that is held stays held, and is withheld once it is free.
"""

import asyncio
import logging
from typing import Any

from pydantic import ValidationError

from berth.api.conditions import condition
from berth.api.reservedip import ReservedIPSpec, ReservedIPStatus
from berth.controller.allocator import Allocator
from berth.controller.clock import timestamp
from berth.controller.shelf import Shelf
from berth.core.pool import BadField, Pool
from berth.core.ranges import Family, Ranges, format_address
from berth.core.reasons import Reason
from berth.kube.client import Api, Object
from berth.kube.errors import KubeError
from berth.kube.resources import API_VERSION, RESERVED

log = logging.getLogger(__name__)

# A reservation may cover a whole pool in use; the status is for people.
NAMED_MOST = 100


class Reservations:
    """All ReservedIPs of a term."""

    def __init__(self, api: Api, allocator: Allocator, shelf: Shelf) -> None:
        self._api = api
        self._allocator = allocator
        self._shelf = shelf
        self._to_report: asyncio.Queue[Object] = asyncio.Queue()

    def seen(self, item: Object) -> None:
        name = item["metadata"]["name"]
        reserved = _read(item)
        if isinstance(reserved, dict) and reserved != self._shelf.reserved.get(name):
            self._shelf.reserve(name, reserved)
        if not _reported(item):
            self._to_report.put_nowait(item)

    def gone(self, item: Object) -> None:
        self._shelf.reserve(item["metadata"]["name"], None)

    async def run(self) -> None:
        while True:
            item = await self._to_report.get()
            try:
                await self._api.replace(RESERVED.path(item["metadata"]["name"], sub="status"), self._body(item))
            except KubeError as error:
                # Changed or gone meanwhile: then there is an event for it.
                log.info("status not written", extra={"reservedip": item["metadata"]["name"], "error": str(error)})

    def _body(self, item: Object) -> dict[str, Any]:
        meta, reserved = item["metadata"], _read(item)
        in_use = self._in_use(reserved) if isinstance(reserved, dict) else []
        ready = condition(
            "Ready",
            isinstance(reserved, dict),
            Reason.RESERVED if isinstance(reserved, dict) else Reason.INVALID_SPEC,
            str(reserved) if isinstance(reserved, BadField) else _summary(in_use),
            meta.get("generation"),
            timestamp(),
            ReservedIPStatus.model_validate(item.get("status") or {}).conditions,
        )
        return {
            "apiVersion": API_VERSION,
            "kind": RESERVED.kind,
            "metadata": {key: meta[key] for key in ("name", "uid", "resourceVersion")},
            "status": {
                "inUse": in_use[:NAMED_MOST],
                "conditions": [ready.model_dump(by_alias=True, exclude_none=True)],
            },
        }

    def _in_use(self, reserved: dict[Family, Ranges]) -> list[dict[str, str]]:
        found: list[tuple[str, int, Family]] = []
        for book in self._allocator.books.values():
            if book.ledger is not None and isinstance(book.pool, Pool):
                withheld = reserved[book.pool.family]
                found += [(book.name, held, book.pool.family) for held in book.ledger.held() if held in withheld]
        return [{"address": format_address(family, held), "pool": name} for name, held, family in sorted(found)]


def _summary(in_use: list[dict[str, str]]) -> str:
    if not in_use:
        return ""
    return f"{len(in_use)} of these addresses were in use when it was made; each is withheld once its Pod is gone"


def _reported(item: Object) -> bool:
    ready = (item.get("status") or {}).get("conditions") or []
    return any(each.get("observedGeneration") == item["metadata"].get("generation") for each in ready)


def _read(item: Object) -> dict[Family, Ranges] | BadField:
    try:
        return ReservedIPSpec.model_validate(item["spec"]).to_core()
    except ValidationError:
        return BadField("spec", "is not understood: compare it with kubectl explain reservedip.spec")
