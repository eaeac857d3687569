"""`berth pools`: every pool, whether it serves, how full it is, and for whom it is."""

import argparse
from typing import Any

from berth.cli.view import Pools, console, look, print_json, read_pools, ready_of, table
from berth.core.pool import Audience
from berth.kube.client import Api

Told = dict[str, Any]


def run(arguments: argparse.Namespace) -> int:
    async def act(api: Api) -> int:
        told = tell(await read_pools(api))
        if arguments.output == "json":
            print_json(told)
        else:
            show(told)
        return 0

    return look(arguments, act)


def tell(pools: Pools) -> list[Told]:
    return [_pool(pools, name) for name in sorted(pools.items)]


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
    return told


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
    shown = table("POOL", "SUBNET", "READY", "TOTAL", "HELD", "FREE", "DEFAULT", "FOR", "MESSAGE")
    for each in told:
        counts = [str(each.get(key, "?")) for key in ("total", "allocated", "available")]
        ready = "yes" if each["ready"] else each["reason"] or "no"
        default = "yes" if each["default"] else ""
        audience = "; ".join(each["for"]) or "everybody"
        shown.add_row(each["name"], each["subnet"], ready, *counts, default, audience, each["message"])
    console().print(shown)
