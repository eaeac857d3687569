"""Sets of addresses, as runs of ints.

An address is an int; its family is said once, beside the set, never for each address. A set is a tuple of runs
`(first, last)`, both inside, sorted, disjoint and never touching, so that two equal sets are equal tuples and an
IPv6 /48 costs as much as one address. Text is read and written here and nowhere else; `ipaddress` does the
parsing (RFC 4291 and RFC 5952 forms out, no zones, no leading zeros).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Run = tuple[int, int]


class Family(StrEnum):
    """The two families, spelled as Kubernetes spells them."""

    IPV4 = "IPv4"
    IPV6 = "IPv6"

    @property
    def bits(self) -> int:
        return 32 if self is Family.IPV4 else 128


@dataclass(frozen=True, slots=True)
class Malformed:
    """Text that is no address, range or subnet: what was written, and why it was not understood."""

    text: str
    why: str

    def __str__(self) -> str:
        return f'"{self.text}" {self.why}'


@dataclass(frozen=True, slots=True)
class Span:
    """One entry as a user writes it: an address, `a-b`, or a CIDR."""

    family: Family
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Subnet:
    """A subnet in network form."""

    family: Family
    network: int
    prefix: int

    @property
    def last(self) -> int:
        return self.network | ((1 << (self.family.bits - self.prefix)) - 1)

    def __contains__(self, address: int) -> bool:
        return self.network <= address <= self.last

    def __str__(self) -> str:
        return f"{format_address(self.family, self.network)}/{self.prefix}"

    def meets(self, other: "Subnet") -> bool:
        """They share addresses."""
        return self.family is other.family and self.network <= other.last and other.network <= self.last

    def hosts(self) -> "Ranges":
        """All addresses a host may have: without network and broadcast address (RFC 950; in IPv6 the
        subnet-router anycast address, RFC 4291 section 2.6.1), but all of a /31, /32, /127 and /128 (RFC 3021,
        RFC 6164)."""
        if self.family.bits - self.prefix <= 1:
            return Ranges(((self.network, self.last),))
        last = self.last - 1 if self.family is Family.IPV4 else self.last
        return Ranges(((self.network + 1, last),))


@dataclass(frozen=True, slots=True)
class Ranges:
    """A set of addresses of one family. Build it with `Ranges.of`, which sorts and merges."""

    runs: tuple[Run, ...] = ()

    @staticmethod
    def of(runs: Iterable[Run]) -> "Ranges":
        merged: list[Run] = []
        for first, last in sorted(runs):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], last))
            else:
                merged.append((first, last))
        return Ranges(tuple(merged))

    @property
    def size(self) -> int:
        return sum(last - first + 1 for first, last in self.runs)

    def __bool__(self) -> bool:
        return bool(self.runs)

    def __contains__(self, address: int) -> bool:
        at = bisect_right(self.runs, address, key=_first) - 1
        return at >= 0 and address <= self.runs[at][1]

    def union(self, other: "Ranges") -> "Ranges":
        return Ranges.of((*self.runs, *other.runs))

    def minus(self, other: "Ranges") -> "Ranges":
        kept: list[Run] = []
        for first, last in self.runs:
            for cut_first, cut_last in other.touching(first, last):
                if cut_first > first:
                    kept.append((first, cut_first - 1))
                first = cut_last + 1
            if first <= last:
                kept.append((first, last))
        return Ranges(tuple(kept))

    def intersect(self, other: "Ranges") -> "Ranges":
        return Ranges(
            tuple(
                (max(first, low), min(last, high))
                for first, last in self.runs
                for low, high in other.touching(first, last)
            )
        )

    def touching(self, first: int, last: int) -> Iterator[Run]:
        """The runs that share an address with `first..last`, in order."""
        at = bisect_left(self.runs, first, key=_last)
        while at < len(self.runs) and self.runs[at][0] <= last:
            yield self.runs[at]
            at += 1

    def format(self, family: Family, most: int = 8) -> str:
        """For people: `10.0.0.5, 10.0.0.8-10.0.0.11`; beyond `most` runs it says how many addresses remain."""
        shown = [format_run(family, run) for run in self.runs[:most]]
        rest = Ranges(self.runs[most:]).size
        return ", ".join(shown) + (f" and {rest} more" if rest else "")


def _first(run: Run) -> int:
    return run[0]


def _last(run: Run) -> int:
    return run[1]


def format_address(family: Family, address: int) -> str:
    return str(IPv4Address(address) if family is Family.IPV4 else IPv6Address(address))


def format_run(family: Family, run: Run) -> str:
    first, last = (format_address(family, end) for end in run)
    return first if first == last else f"{first}-{last}"


def parse_address(text: str) -> tuple[Family, int] | Malformed:
    try:
        address = ip_address(text)
    except ValueError:
        return Malformed(text, "is not an IP address")
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return Malformed(text, "names a zone: an address of a pool has none")
    return (Family.IPV4 if address.version == 4 else Family.IPV6), int(address)


def parse_subnet(text: str) -> Subnet | Malformed:
    if "/" not in text:
        return Malformed(text, "has no prefix length: write it as 10.0.0.0/24 or fd00::/64")
    if "%" in text:  # ip_network would drop the zone without a word
        return Malformed(text, "is not a subnet: it names a zone")
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return Malformed(text, "is not a subnet: write it as 10.0.0.0/24 or fd00::/64")
    written = text.rpartition("/")[2]
    if not written.isdecimal():
        return Malformed(text, f"has a mask for a prefix length: write {network}")
    if written != str(network.prefixlen):
        return Malformed(text, f"has zeros before its prefix length: write {network}")
    if ip_address(text.partition("/")[0]) != network.network_address:
        return Malformed(text, f"has host bits set: write {network}")
    family = Family.IPV4 if network.version == 4 else Family.IPV6
    return Subnet(family, int(network.network_address), network.prefixlen)


def parse_span(text: str) -> Span | Malformed:
    """One entry of `ips` or `excludeIPs`: an address, `first-last`, or a CIDR in network form."""
    if "/" in text:
        subnet = parse_subnet(text)
        return subnet if isinstance(subnet, Malformed) else Span(subnet.family, subnet.network, subnet.last)
    first_text, dash, last_text = text.partition("-")
    first = parse_address(first_text.strip() if dash else text)
    last = parse_address(last_text.strip()) if dash else first
    if isinstance(first, Malformed) or isinstance(last, Malformed):
        return Malformed(text, "is no address, range (first-last) or CIDR")
    if first[0] is not last[0]:
        return Malformed(text, "begins in one family and ends in the other")
    if first[1] > last[1]:
        return Malformed(text, f"runs backwards: write {last_text.strip()}-{first_text.strip()}")
    return Span(first[0], first[1], last[1])


def parse_ranges(texts: Iterable[str], family: Family) -> Ranges | Malformed:
    """A list of entries, all of one family, as one set."""
    runs: list[Run] = []
    for text in texts:
        span = parse_span(text)
        if isinstance(span, Malformed):
            return span
        if span.family is not family:
            return Malformed(text, f"is {span.family}, and {family} is wanted here")
        runs.append((span.first, span.last))
    return Ranges.of(runs)
