"""The IPPool: its spec as written by people, its status as written by the operator, and what each is to the core."""

import re
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field

from berth.api.conditions import Condition, Wire
from berth.core.ledger import Counts, Image
from berth.core.pool import (
    Audience,
    BadField,
    Expression,
    Operator,
    Pool,
    Route,
    Selector,
    bad_route,
    gateway_of,
    offered_ranges,
)
from berth.core.ranges import (
    Family,
    Malformed,
    Ranges,
    format_address,
    format_run,
    parse_address,
    parse_ranges,
    parse_subnet,
)
from berth.core.settled import Settled, read_block, write_block
from berth.core.slicing import Application

DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
# Beyond this a JSON number is not exact everywhere (RFC 8259, section 6): it is written as text.
EXACT_MOST = 2**53 - 1


class SelectorExpression(Wire):
    key: str
    operator: Operator
    values: tuple[str, ...] = ()


class LabelSelector(Wire):
    match_labels: dict[str, str] = Field(default_factory=dict, alias="matchLabels")
    match_expressions: tuple[SelectorExpression, ...] = Field((), alias="matchExpressions")

    def to_core(self) -> Selector:
        return Selector(
            self.match_labels,
            tuple(Expression(each.key, each.operator, frozenset(each.values)) for each in self.match_expressions),
        )


class RouteEntry(Wire):
    dst: str
    gw: str | None = None


class SlicesEntry(Wire):
    size: int


class Retention(Wire):
    when_scaled: Literal["Delete", "Retain"] = Field("Delete", alias="whenScaled")


class IPPoolSpec(Wire):
    subnet: str
    ips: tuple[str, ...] = ()
    exclude_ips: tuple[str, ...] = Field((), alias="excludeIPs")
    gateway: str | None = None
    routes: tuple[RouteEntry, ...] = ()
    default: bool = False
    disabled: bool = False
    reuse_delay: str = Field("30s", alias="reuseDelay")
    retention: Retention = Retention()
    node_names: tuple[str, ...] = Field((), alias="nodeNames")
    node_selector: LabelSelector | None = Field(None, alias="nodeSelector")
    namespaces: tuple[str, ...] = ()
    namespace_selector: LabelSelector | None = Field(None, alias="namespaceSelector")
    pod_selector: LabelSelector | None = Field(None, alias="podSelector")
    networks: tuple[str, ...] = ()
    slices: SlicesEntry | None = None

    def to_core(self, name: str) -> Pool | BadField:
        """The pool this describes, or the first field that cannot be."""
        subnet = parse_subnet(self.subnet)
        if isinstance(subnet, Malformed):
            return BadField("spec.subnet", str(subnet))
        gateway = gateway_of(subnet, self.gateway)
        if isinstance(gateway, BadField):
            return gateway
        routes = tuple(Route(each.dst, each.gw) for each in self.routes)
        for index, route in enumerate(routes):
            if (bad := bad_route(subnet, index, route)) is not None:
                return bad
        offered = offered_ranges(subnet, self.ips, self.exclude_ips, gateway)
        if isinstance(offered, BadField):
            return offered
        delay = seconds(self.reuse_delay)
        if delay is None:
            return BadField("spec.reuseDelay", f'"{self.reuse_delay}" is no duration: write 30s or 5m')
        if self.slices is not None and self.slices.size < 1:
            return BadField("spec.slices.size", f"{self.slices.size} is no number of addresses: write 1 or more")
        return Pool(
            name,
            subnet,
            offered,
            gateway,
            routes,
            self.default,
            self.disabled,
            delay,
            audience=self._audience(),
            slice_size=None if self.slices is None else self.slices.size,
            retains=self.retention.when_scaled == "Retain",
        )

    def _audience(self) -> Audience:
        return Audience(
            frozenset(self.node_names),
            self.node_selector.to_core() if self.node_selector else None,
            frozenset(self.namespaces),
            self.namespace_selector.to_core() if self.namespace_selector else None,
            self.pod_selector.to_core() if self.pod_selector else None,
            frozenset(self.networks),
        )


class LedgerEntry(Wire):
    """`status.ledger`."""

    sequence: int = 0
    pending: dict[str, str] = Field(default_factory=dict)
    blocks: dict[str, str] = Field(default_factory=dict)
    slices: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    def to_core(self, family: Family) -> Image | BadField:
        """The image it stands for. What it does not understand it does not guess at."""
        pending: dict[int, str] = {}
        for text, claim in self.pending.items():
            address = parse_address(text)
            if isinstance(address, Malformed) or address[0] is not family or not claim:
                return BadField("status.ledger.pending", f'"{text}": "{claim}" is no {family} address with a claim')
            if address[1] in pending:
                return BadField("status.ledger.pending", f'"{text}" stands twice, each time written in another way')
            pending[address[1]] = claim
        settled: dict[int, int] = {}
        for name, text in self.blocks.items():
            block = read_block(family, name, text)
            if isinstance(block, Malformed):
                return BadField("status.ledger.blocks", str(block))
            if block[0] in settled:
                return BadField("status.ledger.blocks", f'"{name}" stands twice, each time written in another way')
            settled[block[0]] = block[1]
        if len(set(pending.values())) != len(pending):
            return BadField("status.ledger.pending", "gives one claim two addresses")
        bits = Settled(settled)
        both = next((address for address in pending if address in bits), None)
        if both is not None:
            return BadField("status.ledger", f'"{format_address(family, both)}" is pending and settled')
        slices = self._slices(family)
        return slices if isinstance(slices, BadField) else Image(self.sequence, pending, settled, slices)

    def _slices(self, family: Family) -> dict[str, Ranges] | BadField:
        slices: dict[str, Ranges] = {}
        for application, texts in self.slices.items():
            part = parse_ranges(texts, family)
            if isinstance(part, Malformed):
                return BadField(f"status.ledger.slices[{application}]", str(part))
            if not part or Application.read(application) is None:
                return BadField("status.ledger.slices", f'"{application}" is no application with addresses')
            slices[application] = part
        if Ranges.of(run for part in slices.values() for run in part.runs).size != sum(
            part.size for part in slices.values()
        ):
            return BadField("status.ledger.slices", "gives two applications the same address")
        return slices


class IPPoolStatus(Wire):
    conditions: tuple[Condition, ...] = ()
    total: int | str | None = None
    allocated: int | str | None = None
    available: int | str | None = None
    ledger: LedgerEntry = LedgerEntry()


# The same blocks and slices are written again and again: only those that changed are encoded.
_block = lru_cache(maxsize=4096)(write_block)


@lru_cache(maxsize=4096)
def _slice(family: Family, part: Ranges) -> list[str]:
    return [format_run(family, run) for run in part.runs]


def write_ledger(family: Family, image: Image) -> dict[str, Any]:
    """`status.ledger` for the API."""
    written: dict[str, Any] = {
        "sequence": image.sequence,
        "pending": {format_address(family, address): claim for address, claim in image.pending.items()},
        "blocks": dict(_block(family, number, mask) for number, mask in image.settled.items()),
    }
    if image.slices:
        written["slices"] = {application: _slice(family, part) for application, part in image.slices.items()}
    return written


def write_counts(counts: Counts) -> dict[str, int | str]:
    """`status.total`, `.allocated`, `.available`: numbers, and text where a JSON number is not exact."""
    values = {"total": counts.total, "allocated": counts.allocated, "available": counts.available}
    return {key: value if value <= EXACT_MOST else str(value) for key, value in values.items()}


def seconds(duration: str) -> float | None:
    """`90s`, `1m30s`, `500ms` in seconds; None when it is no duration."""
    parts = DURATION.findall(duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        return None
    return float(sum(float(number) * SECONDS[unit] for number, unit in parts))
