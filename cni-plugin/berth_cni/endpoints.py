"""An Endpoint as the agent needs it: its name, its body, what one read from the API says, and what may be deleted.

Pure. The name follows from the attachment as it outlives a sandbox (Pod UID, network, interface): an ADD that is sent
twice, or a sandbox made again, meets the Endpoint that is there.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from berth.kube.resources import API_VERSION, ENDPOINTS
from berth_cni.calls import Add, Attachment

_LONGEST_NAME = 253
_ASKED = ("ipv4Pools", "ipv6Pools", "families", "addresses", "defaultRoute")
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Address:
    """One granted address; `address` is with its prefix length."""

    family: str
    address: str
    gateway: str | None
    pool: str

    @property
    def bare(self) -> str:
        return self.address.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Held:
    """An Endpoint of this node. `ready`: None while the operator has not decided. `stays`: its addresses are kept when
    its container ends, for a StatefulSet's Pod that comes again."""

    namespace: str
    name: str
    uid: str
    version: int
    pod: str
    pod_uid: str
    node: str
    attachment: Attachment
    asked: Mapping[str, Any]
    deleting: bool
    addresses: tuple[Address, ...]
    routes: tuple[Mapping[str, Any], ...]
    ready: bool | None
    reason: str
    message: str
    stays: bool = False

    @property
    def path(self) -> str:
        return ENDPOINTS.path(self.name, namespace=self.namespace)

    @property
    def confirmed(self) -> bool:
        return self.ready is True and bool(self.addresses)

    @property
    def decided(self) -> bool:
        return self.confirmed or self.ready is False


def name_of(add: Add) -> str:
    """Readable in front, unique behind: 40 bits among the Endpoints of one Pod's name."""
    network, interface = add.attachment.network, add.attachment.interface
    digest = hashlib.sha256(f"{add.pod.uid}/{network}/{interface}".encode()).hexdigest()[:10]
    middle = _NOT_IN_A_NAME.sub("-", interface.lower()).strip("-")
    tail = f"-{middle}-{digest}" if middle else f"-{digest}"
    # What is cut off must not leave a dot or a dash at the end of a label.
    return add.pod.name[: _LONGEST_NAME - len(tail)].rstrip("-.") + tail


def body_of(add: Add, node: str) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": ENDPOINTS.kind,
        "metadata": {"name": name_of(add), "namespace": add.pod.namespace},
        "spec": {
            "pod": {"name": add.pod.name, "uid": add.pod.uid},
            "node": node,
            "network": add.attachment.network,
            "interface": add.attachment.interface,
            "containerID": add.attachment.container,
            **asked_of(add),
        },
    }


def asked_of(add: Add) -> dict[str, Any]:
    """What the claim asks for; as in the API, nothing that is empty."""
    lists = {
        "ipv4Pools": add.ipv4_pools,
        "ipv6Pools": add.ipv6_pools,
        "families": add.families,
        "addresses": add.addresses,
    }
    asked: dict[str, Any] = {key: list(value) for key, value in lists.items() if value}
    return asked if add.default_route is None else {**asked, "defaultRoute": add.default_route}


def read(found: Mapping[str, Any]) -> Held:
    metadata, spec = found["metadata"], found["spec"]
    status = found.get("status") or {}
    ready: bool | None = None
    reason = message = ""
    for condition in status.get("conditions") or ():
        if condition["type"] == "Ready":
            ready = {"True": True, "False": False}.get(condition["status"])
            reason, message = condition.get("reason", ""), condition.get("message", "")
    return Held(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        pod=spec["pod"]["name"],
        pod_uid=spec["pod"]["uid"],
        node=spec["node"],
        attachment=Attachment(spec["network"], spec["containerID"], spec["interface"]),
        asked={key: spec[key] for key in _ASKED if spec.get(key) not in (None, [])},
        deleting="deletionTimestamp" in metadata,
        addresses=tuple(
            Address(each["family"], each["address"], each.get("gateway"), each["pool"])
            for each in status.get("addresses") or ()
        ),
        routes=tuple(status.get("routes") or ()),
        ready=ready,
        reason=reason,
        message=message,
        stays="heldFor" in status,
    )


def serves(held: Held, add: Add) -> bool:
    """Whether what this Endpoint holds is what the ADD asks for: the address it names, if it names one."""
    return held.confirmed and set(add.addresses) <= {each.bare for each in held.addresses}


def is_same_claim(held: Held, add: Add) -> bool:
    """Whether it is this very ADD's, sent before, and not yet refused."""
    return held.ready is not False and held.attachment == add.attachment and dict(held.asked) == asked_of(add)


def may_release(held: Held, uid: str, attachment: Attachment) -> bool:
    """A DEL frees what its own container holds, and never what a newer container, or a newer Endpoint, does."""
    return held.uid == uid and held.attachment == attachment
