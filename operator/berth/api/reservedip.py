"""The ReservedIP: addresses of either family that no pool hands out."""

from pydantic import Field

from berth.api.conditions import Condition, Wire
from berth.core.pool import BadField
from berth.core.ranges import Family, Malformed, Ranges, parse_span


class ReservedIPSpec(Wire):
    ips: tuple[str, ...]

    def to_core(self) -> dict[Family, Ranges] | BadField:
        found = {family: Ranges() for family in Family}
        for index, text in enumerate(self.ips):
            span = parse_span(text)
            if isinstance(span, Malformed):
                return BadField(f"spec.ips[{index}]", str(span))
            found[span.family] = found[span.family].union(Ranges(((span.first, span.last),)))
        return found


class AddressInUse(Wire):
    address: str
    pool: str


class ReservedIPStatus(Wire):
    in_use: tuple[AddressInUse, ...] = Field((), alias="inUse")
    conditions: tuple[Condition, ...] = ()
