"""`berth pools`: every pool, whether it serves, how full it is, for whom it is, and the slices that are cut of it.

What is parked is held too: for Pods that their StatefulSets make again.
"""

import argparse
from collections import Counter
from collections.abc import Iterable
from typing import Any

from berth.cli.view import Pools, console, kept_for, look, print_json, read_pools, ready_of, table
from berth.core.ledger import Ledger
from berth.core.pool import Audience, Pool
from berth.core.ranges import format_run
from berth.kube.client import Api, Object
from berth.kube.resources import ENDPOINTS

Told = dict[str, Any]


def run(arguments: argparse.Namespace) -> int:
    async def act(api: Api) -> int:
        told = tell(await read_pools(api), (await api.list(ENDPOINTS.path())).items)
        if arguments.output == "json":
            print_json(told)
        else:
            show(told)
        return 0

    return look(arguments, act)


def tell(pools: Pools, endpoints: Iterable[Object]) -> list[Told]:
    parked = Counter(
        entry["pool"] for item in endpoints if kept_for(item) is not None for entry in item["status"]["addresses"]
    )
    return [{**_pool(pools, name), "parked": parked[name]} for name in sorted(pools.items)]


def _pool(pools: Pools, name: str) -> Told:
    item, offer, ledger = pools.items[name], pools.offers.get(name), pools.ledgers.get(name)
    status, reason, message = ready_of(item)
    told: Told = {
        "name": name,
        "subnet": item["spec"]["subnet"],
        "family": None if offer is None else offer.pool.family,
        "ready": status == "True",
        "reason": reason,
        "message": pools.unread.get(name) or message,
        "default": False if offer is None else offer.pool.default,
        "for": [] if offer is None else restrictions(offer.pool.audience),
    }
    if ledger is not None:
        counts = ledger.counts
        told |= {"total": counts.total, "allocated": counts.allocated, "available": counts.available}
        told["pending"] = len(ledger.pending)
        if offer is not None and offer.pool.slice_size is not None:
            told |= {"uncut": ledger.uncut().size, "slices": _slices(offer.pool, ledger)}
    return told


def _slices(pool: Pool, ledger: Ledger) -> list[Told]:
    """Of each application's slice its addresses, and how many are held."""
    return [
        {
            "application": application,
            "addresses": [format_run(pool.family, run) for run in part.runs],
            "total": part.intersect(ledger.allowed).size,
            "allocated": ledger.held_in(part).size,
            "available": ledger.free_for(application),
        }
        for application, part in sorted(ledger.slices.items())
    ]


def restrictions(audience: Audience) -> list[str]:
    """Who may use a pool, a word for each field that says so."""
    lists = {"nodes": audience.nodes, "namespaces": audience.namespaces, "networks": audience.networks}
    selectors = {
        "nodeSelector": audience.node_selector,
        "namespaceSelector": audience.namespace_selector,
        "podSelector": audience.pod_selector,
    }
    said = [f"{name} {', '.join(sorted(names))}" for name, names in lists.items() if names]
    for name, selector in selectors.items():
        if selector is not None:
            terms = [f"{key}={value}" for key, value in sorted(selector.labels.items())]
            terms += [f"{each.key} {each.operator}" for each in selector.expressions]
            said.append(f"{name} {', '.join(terms)}")
    return said


def show(told: list[Told]) -> None:
    shown = table("POOL", "SUBNET", "READY", "TOTAL", "HELD", "PARKED", "FREE", "DEFAULT", "FOR", "MESSAGE")
    for each in told:
        counts = [str(each.get(key, "?")) for key in ("total", "allocated", "parked", "available")]
        ready = "yes" if each["ready"] else each["reason"] or "no"
        default = "yes" if each["default"] else ""
        audience = "; ".join(each["for"]) or "everybody"
        uncut = f"{each['uncut']} addresses are in no slice" if "uncut" in each else ""
        shown.add_row(each["name"], each["subnet"], ready, *counts, default, audience, each["message"] or uncut)
        for part in each.get("slices", ()):
            counts = [str(part[key]) if key else "" for key in ("total", "allocated", "", "available")]
            shown.add_row("", ", ".join(part["addresses"]), "", *counts, "", part["application"], "")
    console().print(shown)
