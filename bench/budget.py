"""What one address may ask of the API: two writes for an ADD, one for a DEL, a share of a ledger write, no read."""

from bench.measure import Counters

LEDGER_SHARE = 0.3
# A phase's edges, which do not grow with it: the first grants find an idle ledger, which commits at once, and what is
# settled last rides with nothing. Of 40 Pods they are a tenth, of 1000 nothing.
EDGE_WRITES = 4
# An ADD that took longer reads its Endpoint once more before it answers (berth_cni.adding): on a machine this busy that
# is no fault.
FRESH_SECONDS = 5.0
_CLAIMS = ("POST endpoints", "PUT endpoints", "PATCH endpoints", "PUT endpoints/status", "PATCH endpoints/status")
_RELEASES = ("DELETE endpoints",)
_LEDGERS = ("PUT ippools/status", "PATCH ippools/status", "PUT ippools", "PATCH ippools")


def over_budget(phase: str, counted: Counters, adds: int, dels: int, slow: int = 0, pools: int = 1) -> list[str]:
    """What went beyond it, one line each. `slow`: ADDs of more than `FRESH_SECONDS`. Two families have two ledgers."""
    spent = {
        "writes of claims": (_sum(counted, _CLAIMS), 2.0 * adds),
        "deletions": (_sum(counted, _RELEASES), 1.0 * dels),
        "ledger writes": (_sum(counted, _LEDGERS), pools * (LEDGER_SHARE * (adds + dels) + EDGE_WRITES)),
        "reads": (sum(count for key, count in counted.requests.items() if key.startswith("GET ")), 1.0 * slow),
        "conflicts": (counted.conflicts, 0.0),
    }
    return [
        f"{phase}: {count} {what} for {adds} ADDs and {dels} DELs, allowed are {most:.0f}"
        for what, (count, most) in spent.items()
        if count > most
    ]


def _sum(counted: Counters, keys: tuple[str, ...]) -> int:
    return sum(counted.requests[key] for key in keys)
