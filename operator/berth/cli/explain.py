"""`berth explain POD`: which pools were looked at for it, why each was taken or passed over, what it got or waits for.

It reads the same objects as the operator and asks the same functions of the core. Of an interface that has claimed
nothing yet it tells what a claim would get now: those that the Pod's annotations speak of, and eth0 if it has no other.
"""

import argparse
from collections.abc import Mapping
from typing import Any

from berth.api.endpoint import Endpoint
from berth.cli.view import Pools, console, kept_for, look, print_json, read_pools, ready_of, table
from berth.controller.owners import parent_of
from berth.controller.surroundings import Described, describe, stateful_set_fact, surroundings
from berth.core.annotations import FIRST, named_interfaces
from berth.core.claim import Claim, Owner
from berth.core.explaining import Explanation, explain
from berth.core.pool import BadField
from berth.core.slicing import is_passing
from berth.kube.client import Api, Object
from berth.kube.errors import NotFound
from berth.kube.resources import ENDPOINTS, NAMESPACES, NODES, PODS, STATEFUL_SETS

Told = dict[str, Any]


def run(arguments: argparse.Namespace) -> int:
    async def act(api: Api) -> int:
        told = await tell(api, arguments.namespace, arguments.pod, arguments.interface, arguments.network)
        if arguments.output == "json":
            print_json(told)
        else:
            show(told)
        return 0 if all(each["addresses"] for each in told["attachments"]) else 3

    return look(arguments, act)


async def tell(api: Api, namespace: str, name: str, interface: str = "", network: str = "") -> Told:
    pod = await _get(api, PODS.path(name, namespace=namespace))
    listed = (await api.list(ENDPOINTS.path(namespace=namespace))).items
    endpoints = [item for item in listed if item["spec"]["pod"]["name"] == name]
    if pod is None and not endpoints:
        raise ValueError(f"no Pod {namespace}/{name}, and no Endpoint of one: name another with -n NAMESPACE")
    pools = await read_pools(api)
    of_namespace = await _get(api, NAMESPACES.path(namespace))
    attachments: list[Told] = []
    for item in endpoints:
        claim = Endpoint.model_validate(item).to_core()
        if isinstance(claim, BadField):
            raise ValueError(f"Endpoint {item['metadata']['name']}: {claim}")
        attachments.append(await _attachment(api, claim, item, pod, of_namespace, pools))
    if pod is not None:
        present = {each["interface"] for each in attachments}
        for each in _interfaces(pod, interface, present):
            claim = _would_be(pod, each, network)
            attachments.append(await _attachment(api, claim, None, pod, of_namespace, pools))
    return {"pod": name, "namespace": namespace, "attachments": attachments, "unread": pools.unread}


async def _attachment(
    api: Api, claim: Claim, item: Object | None, pod: Object | None, namespace: Object | None, pools: Pools
) -> Told:
    node = await _get(api, NODES.path(claim.node)) if claim.node else None
    of_pod, of_namespace, of_node = (Described() if each is None else describe(each) for each in (pod, namespace, node))
    parents = {}
    if of_pod.owner is not None and is_passing(of_pod.owner):
        parents[of_pod.owner.uid] = await parent_of(api, claim.namespace, of_pod.owner)
    first = await _first_ordinal(api, claim, of_pod.owner)
    around = surroundings(claim.namespace, of_pod, of_namespace, of_node, parents, first)
    told = explain(claim, around, pools.offers, pools.ledgers)
    return {
        "interface": claim.interface,
        "network": claim.network,
        "node": claim.node,
        "endpoint": claim.name if item is not None else None,
        "holds": claim.confirmed,
        "keptFor": kept_for(item) if item is not None else None,
        "condition": dict(zip(("status", "reason", "message"), ready_of(item), strict=True)) if item else None,
        **_explained(told),
    }


def _explained(told: Explanation) -> Told:
    return {
        "asked": list(told.asked),
        "pools": [
            {"pool": each.pool, "family": each.family, "verdict": each.verdict, "why": each.why} for each in told.looked
        ],
        "addresses": [{"pool": pool, "address": address} for pool, address in told.addresses],
        "refused": None if told.refused is None else {"reason": told.refused.reason, "message": told.refused.message},
        "waits": told.waits,
    }


def _interfaces(pod: Object, asked: str, present: set[str]) -> list[str]:
    """Those without an Endpoint that are to be explained."""
    named = [asked] if asked else list(named_interfaces(describe(pod).annotations))
    if not asked and FIRST not in named and not present:
        named.insert(0, FIRST)
    return [each for each in named if each not in present]


def _would_be(pod: Mapping[str, Any], interface: str, network: str) -> Claim:
    meta = pod["metadata"]
    return Claim(
        uid=f"explain {interface}",  # of two interfaces on one pool each gets an address
        namespace=meta["namespace"],
        name="",
        pod=meta["name"],
        pod_uid=meta["uid"],
        node=pod["spec"].get("nodeName", ""),
        network=network,
        interface=interface,
        container="",
    )


async def _first_ordinal(api: Api, claim: Claim, owner: Owner | None) -> int:
    if owner is None or not owner.is_stateful_set:
        return 0
    item = await _get(api, STATEFUL_SETS.path(owner.name, namespace=claim.namespace))
    return 0 if item is None else stateful_set_fact(item).first


async def _get(api: Api, path: str) -> Object | None:
    try:
        return await api.get(path)
    except NotFound:
        return None


# --- for people -------------------------------------------------------------------------------------------------------


def show(told: Told) -> None:
    out = console()
    for each in told["attachments"]:
        where = f" on {each['node']}" if each["node"] else ""
        network = f" of network {each['network']}" if each["network"] else ""
        out.print(f"[bold]{told['namespace']}/{told['pod']}[/] {each['interface']}{network}{where}")
        for line in each["asked"]:
            out.print(f"  asks for {line}", markup=False)
        looked = table("POOL", "FAMILY", "VERDICT", "WHY")
        for pool in each["pools"]:
            looked.add_row(pool["pool"], pool["family"] or "-", pool["verdict"], pool["why"])
        if each["pools"]:
            out.print(looked)
        out.print(f"  {_outcome(each)}", markup=False)
    for name, why in told["unread"].items():
        out.print(f"IPPool {name} is not understood: {why}", markup=False)


def _outcome(each: Told) -> str:
    addresses = ", ".join(f"{got['address']} of {got['pool']}" for got in each["addresses"])
    if each["keptFor"]:
        return f"has no container: {addresses} kept for {each['keptFor']}, which makes the Pod again"
    if each["holds"]:
        return f"holds {addresses}"
    if addresses:
        return f"would get {addresses}" if each["endpoint"] is None else f"about to get {addresses}"
    does = "waits" if each["waits"] else "is refused"
    return f"{does}: {each['refused']['message']} ({each['refused']['reason']})"
