"""What objects of the API say, read by the judge for itself: nothing of the code it judges is imported."""

from base64 import b64decode
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network, summarize_address_range
from typing import Any

Span = tuple[int, int, int]  # family, first, last


def spans(texts: Iterable[str]) -> list[Span]:
    """`10.0.0.1`, `10.0.0.1-10.0.0.9`, `10.0.0.0/28`."""
    found: list[Span] = []
    for text in texts:
        if "/" in text:
            network = ip_network(text)
            found.append((network.version, int(network[0]), int(network[-1])))
        else:
            first, _, last = text.partition("-")
            low = ip_address(first)
            found.append((low.version, int(low), int(ip_address(last)) if last else int(low)))
    return found


def inside(address: str, among: Iterable[Span]) -> bool:
    parsed = ip_address(address)
    return any(version == parsed.version and low <= int(parsed) <= high for version, low, high in among)


def offered_by(spec: dict[str, Any]) -> set[str]:
    """Every address a (small) pool may hand out, before reservations."""
    withheld = spans(spec.get("excludeIPs") or ()) + spans([spec["gateway"]] if spec.get("gateway") else ())
    found = set()
    for version, low, high in spans(spec["ips"]):
        first, last = (IPv4Address(low), IPv4Address(high)) if version == 4 else (IPv6Address(low), IPv6Address(high))
        for network in summarize_address_range(first, last):
            found |= {str(each) for each in network if not inside(str(each), withheld)}
    return found


def held_by_ledger(status: dict[str, Any]) -> tuple[dict[str, str], set[str]]:
    """(pending: address to claim, settled) of a pool's status."""
    ledger = status.get("ledger") or {}
    settled = set()
    for base, text in (ledger.get("blocks") or {}).items():
        first = ip_address(base)
        for index, byte in enumerate(b64decode(text)):
            settled |= {str(first + 8 * index + bit) for bit in range(8) if byte >> bit & 1}
    return dict(ledger.get("pending") or {}), settled


def says(endpoint: dict[str, Any]) -> frozenset[tuple[str, str]]:
    """The addresses it holds, each with its pool."""
    told = (endpoint.get("status") or {}).get("addresses") or ()
    return frozenset((each["address"].partition("/")[0], each["pool"]) for each in told)


def is_ready(pool: dict[str, Any]) -> bool:
    generation = pool["metadata"]["generation"]
    return any(
        each["type"] == "Ready" and each["status"] == "True" and each["observedGeneration"] == generation
        for each in (pool.get("status") or {}).get("conditions") or ()
    )
