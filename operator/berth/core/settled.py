"""The settled addresses of a pool: a bitmap in blocks, only those that hold a bit.

A block is an int of `SPAN` bits, bit 0 its lowest address. A full /16 is 64 blocks, an IPv6 /64 costs by addresses
used. On the wire (`ledger.blocks`) a block is named after its lowest address and written as base64 of its bytes,
lowest address first, without trailing zero bytes: the text is as long as the highest bit needs.
"""

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterator, Mapping

from berth.core.ranges import Family, Malformed, Ranges, Run, format_address, parse_address

SPAN = 1024
_FULL = (1 << SPAN) - 1


class Settled:
    """A sparse set of ints, quick to change one bit of and quick to write."""

    def __init__(self, blocks: Mapping[int, int] | None = None) -> None:
        self._blocks: dict[int, int] = dict(blocks or {})
        self._count = sum(mask.bit_count() for mask in self._blocks.values())

    def __len__(self) -> int:
        return self._count

    def __contains__(self, address: object) -> bool:
        assert isinstance(address, int)
        number, bit = divmod(address, SPAN)
        return bool(self._blocks.get(number, 0) >> bit & 1)

    def __iter__(self) -> Iterator[int]:
        for number, mask in self._blocks.items():
            while mask:
                lowest = mask & -mask
                yield number * SPAN + lowest.bit_length() - 1
                mask ^= lowest

    def add(self, address: int) -> None:
        number, bit = divmod(address, SPAN)
        mask = self._blocks.get(number, 0)
        if not mask >> bit & 1:
            self._blocks[number] = mask | 1 << bit
            self._count += 1

    def remove(self, address: int) -> None:
        number, bit = divmod(address, SPAN)
        mask = self._blocks[number] & ~(1 << bit)
        if mask:
            self._blocks[number] = mask
        else:
            del self._blocks[number]
        self._count -= 1

    def first_clear(self, first: int, last: int) -> int | None:
        """The lowest address in `first..last` that is not here."""
        while first <= last:
            number, bit = divmod(first, SPAN)
            taken = self._blocks.get(number, 0) >> bit
            free = first + (~taken & (taken + 1)).bit_length() - 1
            if free < (number + 1) * SPAN:
                return free if free <= last else None
            first = (number + 1) * SPAN
        return None

    def count_inside(self, allowed: Ranges) -> int:
        """How many are inside `allowed`."""
        return sum(
            (mask & _mask_between(max(first, low) - low, min(last, low + SPAN - 1) - low)).bit_count()
            for number, mask in self._blocks.items()
            for low in (number * SPAN,)
            for first, last in allowed.touching(low, low + SPAN - 1)
        )

    def runs(self, within: Ranges) -> Ranges:
        """Those inside `within`."""
        return runs_of(self._blocks, within)

    def blocks(self) -> dict[int, int]:
        """A copy: block number to mask."""
        return dict(self._blocks)


def _mask_between(first_bit: int, last_bit: int) -> int:
    return (1 << (last_bit + 1)) - (1 << first_bit)


def runs_of(blocks: Mapping[int, int], within: Ranges | None = None) -> Ranges:
    """The addresses of blocks; with `within`, those inside. A block is read run by run: thousands of full ones cost
    what thousands of addresses do."""
    runs: list[Run] = []
    for number, mask in blocks.items():
        low = number * SPAN
        if within is None or any(within.touching(low, low + SPAN - 1)):
            runs += _runs(low, mask)
    found = Ranges.of(runs)
    return found if within is None else found.intersect(within)


def _runs(low: int, mask: int) -> Iterator[Run]:
    while mask:
        skip = (mask & -mask).bit_length() - 1
        mask >>= skip
        length = (~mask & (mask + 1)).bit_length() - 1
        yield low + skip, low + skip + length - 1
        mask >>= length
        low += skip + length


def write_block(family: Family, number: int, mask: int) -> tuple[str, str]:
    """A block as it stands in the API: its name and its bits."""
    content = mask.to_bytes((mask.bit_length() + 7) // 8, "little")
    return format_address(family, number * SPAN), b64encode(content).decode("ascii")


def read_block(family: Family, name: str, text: str) -> tuple[int, int] | Malformed:
    """The opposite of `write_block`. What it does not understand it does not guess at."""
    base = parse_address(name)
    if isinstance(base, Malformed):
        return base
    if base[0] is not family or base[1] % SPAN:
        return Malformed(name, f"is not the first address of a block of {SPAN} in {family}")
    try:
        content = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        return Malformed(text[:40], "is not base64")
    mask = int.from_bytes(content, "little")
    if not mask or mask > _FULL:
        return Malformed(text[:40], f"is not a bitmap of 1 to {SPAN} addresses")
    return base[1] // SPAN, mask
