"""Documents that are right, with something in every field: what the alterations start from."""

from typing import Any

Object = dict[str, Any]

POOLS: list[Object] = [
    {
        "metadata": {"name": "office", "uid": "p1", "resourceVersion": "7", "generation": 2},
        "spec": {
            "subnet": "10.0.0.0/24",
            "ips": ["10.0.0.8-10.0.0.40", "10.0.0.64/28"],
            "excludeIPs": ["10.0.0.12"],
            "gateway": "10.0.0.1",
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.168.0.0/16", "gw": "10.0.0.2"}],
            "default": True,
            "disabled": False,
            "reuseDelay": "1m30s",
            "retention": {"whenScaled": "Retain"},
            "nodeNames": ["n1"],
            "namespaces": ["shop"],
            "podSelector": {
                "matchLabels": {"app": "web"},
                "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}],
            },
            "networks": ["office"],
            "slices": {"size": 4},
        },
        "status": {
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "Serving",
                    "message": "",
                    "observedGeneration": 2,
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
            ],
            "total": 49,
            "allocated": 4,
            "available": 45,
            "ledger": {
                "sequence": 12,
                "pending": {"10.0.0.9": "c1"},
                "blocks": {"10.0.0.0": "AAAQAAAAAAAH"},
                "slices": {"shop/Deployment.apps/web": ["10.0.0.20-10.0.0.23"], "shop/Job.batch/j": ["10.0.0.30"]},
            },
        },
    },
    {
        "metadata": {"name": "lab", "uid": "p2", "resourceVersion": "8", "generation": 1},
        "spec": {
            "subnet": "fd00::/64",
            "ips": ["fd00::10-fd00::ff"],
            "gateway": "fd00::1",
            "routes": [{"dst": "::/0"}],
            "default": True,
        },
        "status": {"ledger": {"sequence": 3, "pending": {"fd00::11": "c2"}, "blocks": {"fd00::": "AABx"}}},
    },
    {"metadata": {"name": "spare"}, "spec": {"subnet": "10.1.0.0/24", "default": True}, "status": {"ledger": {}}},
]

RESERVATIONS: list[Object] = [{"ips": ["10.0.0.5", "10.0.0.8-10.0.0.9", "10.0.0.16/30", "fd00::1", "fd00::/120"]}]

ENDPOINTS: list[Object] = [
    {
        "metadata": {"name": "web-0-eth0", "namespace": "shop", "uid": "c1", "resourceVersion": "9", "generation": 1},
        "spec": {
            "pod": {"name": "web-0", "uid": "pod"},
            "node": "n1",
            "network": "office",
            "interface": "eth0",
            "containerID": "aaaa",
            "ipv4Pools": ["office", "spare"],
            "ipv6Pools": ["lab"],
            "families": ["IPv4", "IPv6"],
            "addresses": ["10.0.0.9", "fd00::11"],
            "defaultRoute": True,
        },
        "status": {
            "addresses": [
                {"family": "IPv4", "address": "10.0.0.9/24", "gateway": "10.0.0.1", "pool": "office"},
                {"family": "IPv6", "address": "fd00::11/64", "pool": "lab"},
            ],
            "heldFor": {"kind": "StatefulSet", "name": "web", "uid": "s1"},
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "Granted", "message": ""}],
        },
    },
    {
        "metadata": {"name": "web-1-eth0", "namespace": "shop", "uid": "c2", "resourceVersion": "10"},
        "spec": {
            "pod": {"name": "web-1", "uid": "pod2"},
            "node": "n1",
            "network": "office",
            "interface": "net1",
            "containerID": "bbbb",
        },
        "status": {},
    },
]

PODS: list[Any] = [
    [
        {
            "ipam.berth.dev/pools": "spare; spare, lab",
            "ipam.berth.dev/addresses": "10.1.0.9; 10.1.0.10, fd00::12",
            "ipam.berth.dev/families": "IPv4, IPv6",
            "ipam.berth.dev/routes.net1": "192.168.0.0/16 via 10.1.0.2, fd01::/64",
            "ipam.berth.dev/default-route": "net1",
        },
        {"ipam.berth.dev/pools": "lab, spare"},
    ],
    [{"ipam.berth.dev/slice": "4", "ipam.berth.dev/pools.net1": "spare"}, {}],
]

CALLS: list[Object] = [
    {
        "environment": {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "aaaa",
            "CNI_NETNS": "/run/netns/a",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/opt/cni/bin",
            "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=pod;IP=10.0.0.9",
        },
        "stdin": {
            "cniVersion": "1.1.0",
            "name": "office",
            "type": "macvlan",
            "ipam": {
                "type": "berth",
                "ipv4Pools": ["office"],
                "ipv6Pools": ["lab"],
                "families": ["IPv4"],
                "defaultRoute": True,
                "socket": "/run/berth/berth.sock",
            },
            "dns": {"nameservers": ["10.0.0.2"]},
            "runtimeConfig": {"ips": ["10.0.0.9/24"]},
            "args": {"cni": {"ips": ["10.0.0.9"]}},
            "prevResult": {"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.9/24"}]},
            "cni.dev/valid-attachments": [{"containerID": "aaaa", "ifname": "eth0"}],
        },
    }
    for command in ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
]


def _review(operation: str, resource: str, new: Object | None, old: Object | None) -> Object:
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "42",
            "operation": operation,
            "resource": {"group": "ipam.berth.dev", "version": "v1alpha1", "resource": resource},
            "name": "office",
            **({} if new is None else {"object": new}),
            **({} if old is None else {"oldObject": old}),
        },
    }


_RESERVED = {"metadata": {"name": "printers"}, "spec": RESERVATIONS[0]}

REVIEWS: list[Object] = [
    _review("CREATE", "ippools", POOLS[0], None),
    _review("UPDATE", "ippools", {**POOLS[0], "spec": {**POOLS[0]["spec"], "ips": ["10.0.0.8-10.0.0.9"]}}, POOLS[0]),
    _review("DELETE", "ippools", None, POOLS[0]),
    _review("CREATE", "ippools", POOLS[1], None),
    _review("CREATE", "reservedips", _RESERVED, None),
    _review("UPDATE", "reservedips", {**_RESERVED, "spec": {"ips": ["10.0.0.9"]}}, _RESERVED),
]
