"""`berth who ADDRESS`: who holds it, which pools hand it out, and what keeps it from being handed out.

Everything that knows of the address is asked: the Endpoints, which are the record; the ledgers; the reservations.
"""

import argparse
from typing import Any

from berth.cli.view import Pools, console, fail, kept_for, look, print_json, read_pools, table
from berth.core.ranges import Family, Malformed, format_address, parse_address
from berth.kube.client import Api, Object
from berth.kube.resources import ENDPOINTS

Told = dict[str, Any]


def run(arguments: argparse.Namespace) -> int:
    parsed = parse_address(arguments.address)
    if isinstance(parsed, Malformed):
        return fail(ValueError(f"{parsed}: write it as 10.0.0.5 or fd00::5, without a prefix length"))

    async def act(api: Api) -> int:
        told = tell(parsed, await read_pools(api), (await api.list(ENDPOINTS.path())).items)
        if arguments.output == "json":
            print_json(told)
        else:
            show(told)
        return 0

    return look(arguments, act)


def tell(asked: tuple[Family, int], pools: Pools, endpoints: list[Object]) -> Told:
    family, address = asked
    text = format_address(family, address)
    holders = [
        {
            "endpoint": f"{item['metadata']['namespace']}/{item['metadata']['name']}",
            "pod": item["spec"]["pod"]["name"],
            "namespace": item["metadata"]["namespace"],
            "podUID": item["spec"]["pod"]["uid"],
            "node": item["spec"]["node"],
            "interface": item["spec"]["interface"],
            "pool": entry["pool"],
            "keptFor": kept_for(item),
        }
        for item in endpoints
        for entry in (item.get("status") or {}).get("addresses") or ()
        if parse_address(entry["address"].partition("/")[0]) == asked
    ]
    return {
        "address": text,
        "holders": holders,
        "pools": [told for name in sorted(pools.offers) if (told := _in_pool(pools, name, asked)) is not None],
        "reserved": sorted(name for name, each in pools.reserved.items() if address in each[family]),
    }


def _in_pool(pools: Pools, name: str, asked: tuple[Family, int]) -> Told | None:
    """What this pool has to do with the address; None if nothing."""
    (family, address), pool, ledger = asked, pools.offers[name].pool, pools.ledgers.get(name)
    held = ledger is not None and ledger.holds(address)
    if pool.family is not family or (address not in pool.subnet and not held):
        return None
    if ledger is None:
        state = "its ledger cannot be read"
    elif address in ledger.pending:
        state = f"granted to claim {ledger.pending[address]}, not confirmed yet"
    elif held:
        state = "held"
    elif address == pool.gateway:
        state = "the gateway: never handed out"
    elif address not in pool.offered:
        state = "not handed out: outside of spec.ips, or in spec.excludeIPs"
    elif address not in ledger.allowed:
        state = "reserved"
    else:
        state = "free"
    if ledger is not None and (whose := [each for each, part in ledger.slices.items() if address in part]):
        state += f", in the slice of {whose[0]}"
    return {"pool": name, "state": state}


def show(told: Told) -> None:
    out = console()
    holders = table("NAMESPACE", "POD", "INTERFACE", "NODE", "POOL", "ENDPOINT", "NOW")
    for each in told["holders"]:
        now = f"kept for {each['keptFor']}: no container" if each["keptFor"] else "in use"
        holders.add_row(*(each[key] for key in ("namespace", "pod", "interface", "node", "pool", "endpoint")), now)
    out.print(f"[bold]{told['address']}[/] " + ("is held by" if told["holders"] else "is held by no Endpoint"))
    if told["holders"]:
        out.print(holders)
    for each in told["pools"]:
        out.print(f"  IPPool {each['pool']}: {each['state']}", markup=False)
    for name in told["reserved"]:
        out.print(f"  ReservedIP {name} withholds it from all pools", markup=False)
    if not told["pools"]:
        out.print("  no IPPool has it in its subnet")
