"""What must hold of a cluster at rest: Pods, Endpoints, ledgers and the kernel tell one story.

Pure: objects in (as the API gives them), violations out, one line each. Written apart from the operator: it reads what
everybody can read, and uses of Berth only the way a ledger is written down.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from berth.api.ippool import IPPoolSpec, LedgerEntry
from berth.core.pool import BadField
from berth.core.ranges import Family, format_address
from berth.core.settled import Settled

Object = Mapping[str, Any]
_RUNNING = "Running"


@dataclass(slots=True)
class Told:
    """Who holds each address, as the ledgers and the Endpoints say."""

    settled: dict[str, set[str]] = field(default_factory=dict)  # pool -> addresses
    pending: dict[str, dict[str, str]] = field(default_factory=dict)  # pool -> address -> claim UID
    holders: dict[tuple[str, str], str] = field(default_factory=dict)  # (pool, address) -> claim UID
    of_pod: dict[str, list[set[str]]] = field(default_factory=dict)  # Pod UID -> addresses of each Endpoint


def violations(
    pods: Iterable[Object],
    endpoints: Iterable[Object],
    pools: Iterable[Object],
    interfaces: Mapping[str, Iterable[str]] | None = None,
    stateful_sets: Iterable[Object] = (),
) -> list[str]:
    """Everything that is wrong; empty when all is well. `interfaces`: the addresses that the kernel has, by Pod UID."""
    pods, endpoints, pools, stateful_sets = list(pods), list(endpoints), list(pools), list(stateful_sets)
    told = Told()
    found = [line for pool in pools for line in _read_pool(told, pool)]
    found += [line for endpoint in endpoints for line in _read_endpoint(told, endpoint)]
    found += _twice(told)
    found += _ledgers_against_endpoints(told, {endpoint["metadata"]["uid"] for endpoint in endpoints})
    for endpoint in endpoints:
        found += _parked(endpoint, pools, stateful_sets) if is_parked(endpoint) else _owner(endpoint, pods)
    found += [line for pod in pods for line in _pod(told, pod)]
    if interfaces is not None:
        found += kernel_against_pods(pods, interfaces)
    return found


def kernel_against_pods(pods: Iterable[Object], interfaces: Mapping[str, Iterable[str]]) -> list[str]:
    """What the links of running Pods have against what the Pods say: all that there is to check without Berth."""
    found: list[str] = []
    users: dict[str, str] = {}
    links = {uid: set(map(_plain, each)) for uid, each in interfaces.items()}
    for uid, addresses in links.items():
        for address in addresses:
            other = users.setdefault(address, uid)
            if other != uid:
                found.append(f"{address} is on the links of Pods {other} and {uid}")
    for pod in pods:
        has = links.get(pod["metadata"]["uid"], set())
        if _runs(pod) and has != _said(pod):
            found.append(f"Pod {_name(pod)} says {sorted(_said(pod))}, its link has {sorted(has)}")
    return found


def leaks(endpoints: Iterable[Object], pools: Iterable[Object]) -> list[str]:
    """What is still held though no Pod is left."""
    found = [f"Endpoint {_name(each)} is left" for each in endpoints]
    for pool in pools:
        allocated = int((pool.get("status") or {}).get("allocated") or 0)
        if allocated:
            found.append(f"IPPool {_name(pool)} still holds {allocated} addresses")
    return found


# --- reading ---------------------------------------------------------------------------------------------------------


def _read_pool(told: Told, pool: Object) -> list[str]:
    name, status = _name(pool), pool.get("status") or {}
    family = Family.IPV6 if ":" in pool["spec"]["subnet"] else Family.IPV4
    image = LedgerEntry.model_validate(status.get("ledger") or {}).to_core(family)
    if isinstance(image, BadField):
        return [f"IPPool {name}: its ledger cannot be read: {image}"]
    settled = Settled(image.settled)
    told.settled[name] = {format_address(family, address) for address in settled}
    told.pending[name] = {format_address(family, address): claim for address, claim in image.pending.items()}
    both = [format_address(family, each) for each in image.pending if each in settled]
    found = [f"IPPool {name}: {each} is pending and settled" for each in both]
    return found + _counts(pool, [*settled, *image.pending])


def _counts(pool: Object, held: list[int]) -> list[str]:
    name, status = _name(pool), pool.get("status") or {}
    total, allocated, available = (int(status.get(key) or 0) for key in ("total", "allocated", "available"))
    if allocated != len(held):
        return [f"IPPool {name}: allocated is {allocated}, its ledger holds {len(held)}"]
    spec = IPPoolSpec.model_validate(pool["spec"]).to_core(name)
    if isinstance(spec, BadField):
        return [f"IPPool {name}: {spec}"]
    # What the pool no longer offers, or a ReservedIP took out of it, may be held still; it is in no total.
    whole = total == spec.offered.size
    expected = total - sum(address in spec.offered for address in held)
    if available != expected if whole else not expected <= available <= total:
        return [f"IPPool {name}: available is {available}, expected {expected} with {len(held)} held of {total}"]
    return []


def _read_endpoint(told: Told, endpoint: Object) -> list[str]:
    uid, found = endpoint["metadata"]["uid"], []
    entries = (endpoint.get("status") or {}).get("addresses") or ()
    for entry in entries:
        key = (entry["pool"], _plain(entry["address"]))
        other = told.holders.setdefault(key, uid)
        if other != uid:
            found.append(f"{key[1]} of IPPool {key[0]} is confirmed to Endpoints {other} and {uid}")
    addresses = {_plain(entry["address"]) for entry in entries}
    if not addresses:
        found.append(f"Endpoint {_name(endpoint)} has no address")
    if not is_parked(endpoint):
        told.of_pod.setdefault(endpoint["spec"]["pod"]["uid"], []).append(addresses)
    return found


# --- comparing -------------------------------------------------------------------------------------------------------


def _twice(told: Told) -> list[str]:
    """One address from two pools: they overlap."""
    pools: dict[str, set[str]] = {}
    for pool, address in told.holders:
        pools.setdefault(address, set()).add(pool)
    return [f"{address} is held in {' and '.join(sorted(names))}" for address, names in pools.items() if len(names) > 1]


def _ledgers_against_endpoints(told: Told, claims: set[str]) -> list[str]:
    found: list[str] = []
    for (pool, address), uid in told.holders.items():
        if pool not in told.settled:
            found.append(f"Endpoint {uid} holds {address} of IPPool {pool}, which is not there")
        elif address not in told.settled[pool] and told.pending[pool].get(address) != uid:
            found.append(f"Endpoint {uid} holds {address}, and the ledger of IPPool {pool} does not say so")
    for pool, settled in told.settled.items():
        nobody = sorted(address for address in settled if (pool, address) not in told.holders)
        found += [f"IPPool {pool}: {address} is settled, and no Endpoint holds it" for address in nobody]
    for pool, pending in told.pending.items():
        lost = sorted(address for address, uid in pending.items() if uid not in claims)
        found += [f"IPPool {pool}: {address} is pending for a claim that is gone" for address in lost]
    return found


def _owner(endpoint: Object, pods: list[Object]) -> list[str]:
    pod = endpoint["spec"]["pod"]
    if any(each["metadata"]["uid"] == pod["uid"] for each in pods):
        return []
    return [f"Endpoint {_name(endpoint)} outlived its Pod {pod['name']} ({pod['uid']})"]


def is_parked(endpoint: Object) -> bool:
    """No container has it: it waits for a StatefulSet's Pod to come again."""
    return not endpoint["spec"]["containerID"]


def _parked(endpoint: Object, pools: list[Object], stateful_sets: list[Object]) -> list[str]:
    pod, status = endpoint["spec"]["pod"]["name"], endpoint["status"]
    keeper = status.get("heldFor") or {}
    for each in stateful_sets:
        if each["metadata"]["uid"] == keeper.get("uid"):
            first = (each["spec"].get("ordinals") or {}).get("start", 0)
            names = {f"{each['metadata']['name']}-{first + index}" for index in range(each["spec"]["replicas"])}
            used = {entry["pool"] for entry in status["addresses"]}
            kept = {
                _name(pool) for pool in pools if (pool["spec"].get("retention") or {}).get("whenScaled") == "Retain"
            }
            return [] if pod in names or used <= kept else [f"Endpoint {_name(endpoint)} is kept after a scale-down"]
    return [f"Endpoint {_name(endpoint)} is kept for a StatefulSet that is gone"]


def _pod(told: Told, pod: Object) -> list[str]:
    if not _runs(pod):
        return []
    said = _said(pod)
    endpoints = told.of_pod.get(pod["metadata"]["uid"], [])
    if not endpoints:
        return [f"Pod {_name(pod)} runs without an Endpoint"]
    if said not in endpoints:
        held = [sorted(each) for each in endpoints]
        return [f"Pod {_name(pod)} says {sorted(said)}, its Endpoints hold {held}"]
    return []


def _runs(pod: Object) -> bool:
    own = not (pod.get("spec") or {}).get("hostNetwork")
    return own and pod["status"].get("phase") == _RUNNING and "deletionTimestamp" not in pod["metadata"]


def _said(pod: Object) -> set[str]:
    return {_plain(each["ip"]) for each in pod["status"].get("podIPs") or ()}


def _plain(address: str) -> str:
    """An address as text that compares: without its prefix length, in the shortest form."""
    return str(ipaddress.ip_address(address.partition("/")[0]))


def _name(item: Object) -> str:
    meta = item["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])
