"""`berth explain`, `berth pools` and `berth who` on a cluster made of plain objects."""

import argparse
import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from berth.cli import explain, pools, view, who
from berth.cli.main import main
from berth.core.ranges import Family, Malformed, parse_address
from berth.kube.client import Api, Listing, Object, Reading
from berth.kube.config import Access
from berth.kube.errors import Busy, Denied, NotFound, Unknown
from berth.kube.resources import ENDPOINTS, NAMESPACES, NODES, PODS, POOLS, REPLICASETS, RESERVED


class Objects:
    """An API of objects that do not change."""

    def __init__(self, **listed: list[Object]) -> None:
        self._listed = listed

    async def list(
        self, path: str, params: object = None, *, metadata: bool = False, reading: Reading | None = None
    ) -> Listing:
        return Listing(self._listed.get(path.rsplit("/", 1)[-1], []), "1").read(reading)

    async def get(self, path: str, params: object = None) -> Object:
        plural, name = path.split("/")[-2:]
        for item in self._listed.get(plural, []):
            if item["metadata"]["name"] == name:
                return item
        raise NotFound(404, "NotFound", path)


def pool(name: str, subnet: str, *, pending: Mapping[str, str] | None = None, **spec: Any) -> Object:
    ready = {"type": "Ready", "status": "True", "reason": "Serving", "observedGeneration": 1}
    return {
        "metadata": {"name": name, "generation": 1},
        "spec": {"subnet": subnet, **spec},
        "status": {"conditions": [ready], "ledger": {"sequence": 1, "pending": dict(pending or {})}},
    }


def pod(name: str, **annotations: str) -> Object:
    said = {f"ipam.berth.dev/{key}": text for key, text in annotations.items()}
    meta = {"name": name, "namespace": "shop", "uid": f"uid-{name}", "annotations": said}
    return {"metadata": meta, "spec": {"nodeName": "node-1"}}


def endpoint(of: str, address: str, of_pool: str) -> Object:
    return {
        "metadata": {"name": f"{of}-eth0", "namespace": "shop", "uid": f"claim-{of}", "resourceVersion": "5"},
        "spec": {
            "pod": {"name": of, "uid": f"uid-{of}"},
            "node": "node-1",
            "network": "lan",
            "interface": "eth0",
            "containerID": "c1",
        },
        "status": {
            "addresses": [{"family": "IPv4", "address": f"{address}/24", "pool": of_pool}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "Confirmed", "message": ""}],
        },
    }


def cluster() -> Api:
    objects: Any = Objects(
        **{
            PODS.plural: [
                pod("holder"),
                pod("wish", pools="gone,red,small,big"),
                pod("plain"),
                pod("bad", pools="A"),
                pod("two", pools="big;big", routes="9.0.0.0/8"),
            ],
            NODES.plural: [{"metadata": {"name": "node-1"}}],
            NAMESPACES.plural: [{"metadata": {"name": "shop"}}],
            ENDPOINTS.plural: [endpoint("holder", "10.0.0.1", "small")],
            RESERVED.plural: [{"metadata": {"name": "kept"}, "spec": {"ips": ["10.1.0.1"]}}],
            POOLS.plural: [
                pool("small", "10.0.0.0/30", ips=["10.0.0.1"], pending={"10.0.0.1": "claim-holder"}),
                pool("big", "10.1.0.0/24", default=True, gateway="10.1.0.254", excludeIPs=["10.1.0.9"]),
                pool("red", "10.2.0.0/24", namespaces=["bank"]),
                pool("broken", "10.3.0.1/24"),
            ],
        }
    )
    api: Api = objects
    return api


def sliced() -> Api:
    """A pool cut into slices: one for a Deployment, which holds one address of it."""
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f", "uid": "rs", "controller": True}
    maker = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": True}
    of_web = pod("web-5d4f-x", pools="cut", slice="5")
    of_web["metadata"]["ownerReferences"] = [owner]
    cut = pool("cut", "10.4.0.0/28", slices={"size": 4}, pending={"10.4.0.1": "claim-other"})
    cut["status"]["ledger"]["slices"] = {"shop/Deployment.apps/web": ["10.4.0.1-10.4.0.4"]}
    objects: Any = Objects(
        **{
            PODS.plural: [of_web, pod("bare", pools="cut")],
            REPLICASETS.plural: [{"metadata": {"name": "web-5d4f", "uid": "rs", "ownerReferences": [maker]}}],
            NAMESPACES.plural: [{"metadata": {"name": "shop"}}],
            POOLS.plural: [cut],
        }
    )
    api: Api = objects
    return api


def told(name: str) -> dict[str, Any]:
    found = asyncio.run(explain.tell(cluster(), "shop", name, network="lan"))
    [attachment] = found["attachments"]
    assert isinstance(attachment, dict)
    return attachment


def test_explain_tells_each_pool_that_was_looked_at_and_why_it_was_passed_over() -> None:
    found = told("wish")
    assert [(each["pool"], each["verdict"]) for each in found["pools"]] == [
        ("small", "exhausted"),
        ("big", "taken"),
        ("gone", "passed over"),
        ("red", "passed over"),
    ]
    assert found["pools"][3]["why"] == "does not list namespace shop"
    assert found["addresses"] == [{"pool": "big", "address": "10.1.0.2"}], "10.1.0.1 is reserved"
    assert found["asked"] == ["IPv4 pools red, small, big: Pod annotation ipam.berth.dev/pools"]


def test_explain_tells_who_holds_an_address_that_it_does() -> None:
    found = told("holder")
    assert found["holds"]
    assert found["addresses"] == [{"pool": "small", "address": "10.0.0.1"}]
    assert found["condition"]["reason"] == "Confirmed"


def test_explain_tells_what_is_wrong_with_an_annotation() -> None:
    found = told("bad")
    assert found["addresses"] == []
    assert found["refused"]["reason"] == "BadAnnotation"
    assert '"A" is no name of an IPPool' in found["refused"]["message"]


def test_explain_without_annotations_tells_of_the_default_pools() -> None:
    assert told("plain")["asked"] == ["pools: nobody names any, so the default pools"]


def test_explain_tells_of_each_interface_that_a_pod_speaks_of() -> None:
    found = asyncio.run(explain.tell(cluster(), "shop", "two"))["attachments"]
    assert [(each["interface"], each["addresses"]) for each in found] == [
        ("eth0", [{"pool": "big", "address": "10.1.0.2"}]),
        ("net1", [{"pool": "big", "address": "10.1.0.3"}]),
    ]
    assert found[0]["asked"][-1] == "route: 9.0.0.0/8"
    [one] = asyncio.run(explain.tell(cluster(), "shop", "two", interface="net1"))["attachments"]
    assert one["interface"] == "net1"


def test_explain_of_nobody_says_so() -> None:
    with pytest.raises(ValueError, match="no Pod shop/nobody"):
        asyncio.run(explain.tell(cluster(), "shop", "nobody"))


def test_pools_tells_how_full_each_is_and_for_whom() -> None:
    found = {each["name"]: each for each in pools.tell(asyncio.run(view.read_pools(cluster())), [])}
    assert found["small"] | {"message": ""} == {
        "name": "small",
        "subnet": "10.0.0.0/30",
        "family": "IPv4",
        "ready": True,
        "reason": "Serving",
        "message": "",
        "default": False,
        "for": [],
        "total": 1,
        "allocated": 1,
        "available": 0,
        "pending": 1,
        "parked": 0,
    }
    assert found["red"]["for"] == ["namespaces bank"]
    assert found["big"]["total"] == 251, "less network, broadcast, gateway, excluded and reserved"
    assert "host bits" in found["broken"]["message"]


@pytest.mark.parametrize(
    ("address", "holders", "state"),
    [
        ("10.0.0.1", ["holder"], "granted to claim claim-holder, not confirmed yet"),
        ("10.1.0.1", [], "reserved"),
        ("10.1.0.9", [], "not handed out: outside of spec.ips, or in spec.excludeIPs"),
        ("10.1.0.254", [], "the gateway: never handed out"),
        ("10.1.0.7", [], "free"),
    ],
)
def test_who_tells_the_holder_of_an_address_and_what_keeps_it_back(
    address: str, holders: list[str], state: str
) -> None:
    parsed = parse_address(address)
    assert not isinstance(parsed, Malformed)
    api = cluster()
    endpoints = asyncio.run(api.list(ENDPOINTS.path())).items
    found = who.tell(parsed, asyncio.run(view.read_pools(api)), endpoints)
    assert [each["pod"] for each in found["holders"]] == holders
    assert [each["state"] for each in found["pools"]] == [state]
    assert found["reserved"] == (["kept"] if state == "reserved" else [])


def test_what_is_parked_is_told_as_such_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    api = cluster()
    item = asyncio.run(api.list(ENDPOINTS.path())).items[0]
    item["spec"]["containerID"] = ""
    item["status"]["heldFor"] = {"kind": "StatefulSet", "name": "db", "uid": "set"}
    explain.show(asyncio.run(explain.tell(api, "shop", "holder", "eth0", "lan")))
    known = asyncio.run(view.read_pools(api))
    pools.show(pools.tell(known, [item]))
    who.show(who.tell((Family.IPV4, 0x0A000001), known, [item]))
    said = capsys.readouterr().out
    assert "has no container: 10.0.0.1 of small kept for StatefulSet db, which makes the Pod again" in said
    assert "kept for StatefulSet db: no container" in said
    [small] = [line.split() for line in said.splitlines() if line.strip().startswith("small  ") and "10.0.0.0" in line]
    assert small[3:7] == ["1", "1", "1", "0"], "total, held, parked, free"


def test_explain_tells_of_the_slice_a_pod_draws_from() -> None:
    [found] = asyncio.run(explain.tell(sliced(), "shop", "web-5d4f-x", "eth0", "lan"))["attachments"]
    assert found["asked"] == ["IPv4 pools cut: Pod annotation ipam.berth.dev/pools", "a slice of 5 addresses"]
    assert found["addresses"] == [{"pool": "cut", "address": "10.4.0.2"}]
    assert found["pools"][0]["why"] == "3 of 5 free in the slice of shop/Deployment.apps/web"
    [found] = asyncio.run(explain.tell(sliced(), "shop", "bare", "eth0", "lan"))["attachments"]
    assert "cut is cut into slices for applications, and Pod bare has no controller" in found["refused"]["message"]


def test_pools_tells_the_slices_of_a_pool() -> None:
    [found] = pools.tell(asyncio.run(view.read_pools(sliced())), [])
    assert found["uncut"] == 10
    assert found["slices"] == [
        {
            "application": "shop/Deployment.apps/web",
            "addresses": ["10.4.0.1-10.4.0.4"],
            "total": 4,
            "allocated": 1,
            "available": 3,
        }
    ]
    parsed = parse_address("10.4.0.3")
    assert not isinstance(parsed, Malformed)
    [state] = who.tell(parsed, asyncio.run(view.read_pools(sliced())), [])["pools"]
    assert state["state"] == "free, in the slice of shop/Deployment.apps/web"


def test_the_table_of_pools_has_its_slices_below_each(capsys: pytest.CaptureFixture[str]) -> None:
    pools.show(pools.tell(asyncio.run(view.read_pools(sliced())), []))
    printed = " ".join(capsys.readouterr().out.split())
    assert "10.4.0.1-10.4.0.4 4 1 3 shop/Deployment.apps/web" in printed
    assert "10 addresses are in no slice" in printed


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NotFound(404, "NotFound", "the server could not find it"), "install them (kubectl apply -f crds/)"),
        (
            Denied(403, "Forbidden", 'nodes is forbidden: User "ann"'),
            'User "ann": reading Pods, nodes and the ClusterRole',
        ),
        (Denied(401, "Unauthorized", "Unauthorized"), "are the credentials in the kubeconfig still good?"),
        (Unknown("GET /x: cannot connect"), "https://here:6443 does not answer: is it the right cluster"),
        (Busy(429, "TooManyRequests", "later"), "https://here:6443 says: later"),
        (ValueError("no Pod shop/nobody"), "no Pod shop/nobody"),
    ],
    ids=["not installed", "forbidden", "unknown to it", "away", "busy", "nobody"],
)
def test_what_the_api_will_not_tell_is_one_line(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def act(_: Api) -> int:
        raise error

    monkeypatch.setattr(view, "load", lambda _: Access("https://here:6443"))
    assert view.look(argparse.Namespace(kubeconfig=None), act) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("berth: ")
    assert printed.count("\n") == 1
    assert said in printed


def test_what_is_no_address_is_told_before_anything_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["who", "10.0.0.300", "--kubeconfig", "/nowhere"]) == 1
    assert capsys.readouterr().err.startswith('berth: "10.0.0.300" is not an IP address: write it as')


@pytest.mark.parametrize("command", ["operator", "agent", "webhook", "explain", "pools", "who"])
def test_the_help_of_a_command_says_what_it_does_and_what_each_option_is(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    usage, what, *_ = capsys.readouterr().out.split("\n\n")
    assert usage.startswith(f"usage: berth {command}")
    assert what.endswith(".")


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        (["explain", "wish", "-n", "shop"], ["small", "exhausted", "red", "passed over", "would get 10.1.0.2 of big"]),
        (["explain", "bad", "-n", "shop"], ["is refused", "(BadAnnotation)"]),
        (["pools"], ["POOL", "namespaces bank", "everybody", "10.3.0.1/24"]),
        (["who", "10.0.0.1"], ["is held by", "holder", "IPPool small"]),
    ],
)
def test_tables_say_it_and_json_is_json(
    command: list[str], parts: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def look(_: argparse.Namespace, act: Any) -> int:
        return int(asyncio.run(act(cluster())))

    for module in (explain, pools, who):
        monkeypatch.setattr(module, "look", look)
    main(command)
    printed = capsys.readouterr().out
    for part in parts:
        assert part in printed
    main([*command, "-o", "json"])
    assert json.loads(capsys.readouterr().out)
