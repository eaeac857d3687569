"""The three kinds on a real API server: what it refuses by itself (no webhook here), and with which words; and that
schemas and models name the same fields."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from berth.api.endpoint import Endpoint
from berth.api.ippool import IPPoolSpec, IPPoolStatus
from berth.api.reservedip import ReservedIPSpec, ReservedIPStatus
from e2e.cluster import CommandError, ControlPlane

CRDS = Path(__file__).parents[2] / "crds"
Object = dict[str, Any]


def crd(plural: str) -> Object:
    content: Object = yaml.safe_load((CRDS / f"{plural}.yaml").read_text())
    return content


# --- what the API server says to an object ----------------------------------------------------------------------------

CLAIM: Object = {
    "pod": {"name": "web-0", "uid": "7f0c"},
    "node": "node-1",
    "network": "lan",
    "interface": "eth0",
    "containerID": "c1",
}
POOL: Object = {"subnet": "10.0.0.0/24"}
NO_ENTRY = "is no address, range (first-last) or CIDR"
CONSTANT = "a claim never changes, but for its containerID: delete it, and claim anew"
NEVER = "never changes: delete the claim, and claim anew"

GOOD: list[tuple[str, str, Object]] = [
    ("the least a pool can say", "IPPool", POOL),
    ("a pool of IPv6", "IPPool", {"subnet": "fd00::/64", "gateway": "fd00::1", "routes": [{"dst": "::/0"}]}),
    (
        "addresses, ranges with and without blanks, and CIDRs",
        "IPPool",
        {"subnet": "10.0.0.0/24", "ips": ["10.0.0.9", "10.0.0.1-10.0.0.5", "10.0.0.6 - 10.0.0.8", "10.0.0.16/28"]},
    ),
    (
        "512 of the longest ranges in each list",
        "IPPool",
        {
            "subnet": "fd00::/64",
            "ips": ["fd00:0000:0000:0000:0000:0000:0000:0001 - fd00:0000:0000:0000:0000:0000:0000:0fff"] * 512,
            "excludeIPs": ["fd00:0000:0000:0000:0000:0000:0000:0001 - fd00:0000:0000:0000:0000:0000:0000:0002"] * 512,
        },
    ),
    (
        "everything a pool can say",
        "IPPool",
        {
            "subnet": "10.0.0.0/24",
            "gateway": "10.0.0.1",
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.1.0.0/16", "gw": "10.0.0.2"}],
            "default": True,
            "disabled": True,
            "reuseDelay": "1m30s",
            "nodeNames": ["node-1"],
            "nodeSelector": {"matchLabels": {"a": "b"}},
            "namespaces": ["default"],
            "namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
            "podSelector": {},
            "networks": ["lan"],
            "slices": {"size": 8},
        },
    ),
    ("a reservation of both families", "ReservedIP", {"ips": ["10.0.0.5", "fd00::/120", "fd00::1-fd00::9"]}),
    ("the least a claim can say", "Endpoint", CLAIM),
    (
        "everything a claim can say",
        "Endpoint",
        {
            **CLAIM,
            "ipv4Pools": ["blue", "green"],
            "ipv6Pools": ["six"],
            "families": ["IPv4", "IPv6"],
            "addresses": ["10.0.0.5", "fd00::5"],
            "defaultRoute": False,
        },
    ),
]

BAD: list[tuple[str, str, Object, str]] = [
    ("no subnet", "IPPool", {}, "spec.subnet: Required value"),
    ("a subnet that is none", "IPPool", {"subnet": "lan"}, "is not a subnet: write it as 10.0.0.0/24 or fd00::/64"),
    ("a subnet without a prefix", "IPPool", {"subnet": "10.0.0.0"}, "is not a subnet"),
    ("a subnet with a leading zero", "IPPool", {"subnet": "010.0.0.0/24"}, "is not a subnet"),
    ("a subnet with a zone", "IPPool", {"subnet": "fe80::%eth0/64"}, "is not a subnet"),
    ("IPv4 inside IPv6", "IPPool", {"subnet": "::ffff:10.0.0.0/120"}, "is not a subnet"),
    ("host bits", "IPPool", {"subnet": "10.0.0.1/24"}, "has host bits set: write the subnet's first address"),
    ("an entry that is none", "IPPool", {**POOL, "ips": ["10.0.0.1", "x"]}, f"spec.ips[1]: Invalid value: {NO_ENTRY}"),
    ("a range without an end", "IPPool", {**POOL, "ips": ["10.0.0.1-"]}, NO_ENTRY),
    ("a range without a beginning", "IPPool", {**POOL, "ips": ["-10.0.0.1"]}, NO_ENTRY),
    ("a range of three", "IPPool", {**POOL, "ips": ["10.0.0.1-10.0.0.2-10.0.0.3"]}, NO_ENTRY),
    ("an empty entry", "IPPool", {**POOL, "ips": [""]}, NO_ENTRY),
    ("an exclusion that is none", "IPPool", {**POOL, "excludeIPs": ["x"]},
     f"spec.excludeIPs[0]: Invalid value: {NO_ENTRY}"),
    ("too many entries", "IPPool", {**POOL, "ips": ["10.0.0.1"] * 513}, "must have at most 512 items"),
    ("a gateway that is none", "IPPool", {**POOL, "gateway": "10.0.0.1/24"},
     "spec.gateway: Invalid value: is not an IP address"),
    ("a route to nowhere", "IPPool", {**POOL, "routes": [{"dst": "default"}]},
     "spec.routes[0].dst: Invalid value: is not a subnet"),
    ("a route without an end", "IPPool", {**POOL, "routes": [{"gw": "10.0.0.1"}]},
     "spec.routes[0].dst: Required value"),
    ("a route by nothing", "IPPool", {**POOL, "routes": [{"dst": "0.0.0.0/0", "gw": "x"}]}, "is not an IP address"),
    ("a delay without a unit", "IPPool", {**POOL, "reuseDelay": "30"}, "spec.reuseDelay in body should match"),
    ("an operator of no selector", "IPPool",
     {**POOL, "podSelector": {"matchExpressions": [{"key": "a", "operator": "Gt"}]}},
     "Unsupported value"),
    ("a node without a name", "IPPool", {**POOL, "nodeNames": [""]}, "should be at least 1 chars long"),
    ("a reservation of nothing", "ReservedIP", {"ips": []}, "should have at least 1 items"),
    ("a reservation without a list", "ReservedIP", {}, "spec.ips: Required value"),
    ("slices of nothing", "IPPool", {**POOL, "slices": {"size": 0}}, "should be greater than or equal to 1"),
    ("slices of no size", "IPPool", {**POOL, "slices": {}}, "spec.slices.size: Required value"),
    ("a reservation that is none", "ReservedIP", {"ips": ["printer"]}, NO_ENTRY),
    ("a claim without a Pod", "Endpoint", {**CLAIM, "pod": {"name": "web-0"}}, "spec.pod.uid: Required value"),
    ("a claim without an interface", "Endpoint", {**CLAIM, "interface": ""}, "should be at least 1 chars long"),
    ("an interface with a name too long", "Endpoint", {**CLAIM, "interface": "a" * 16}, "Too long"),
    ("a claim that nobody makes for a container", "Endpoint", {**CLAIM, "containerID": ""},
     "a claim begins with a container"),
    ("a retention that is none", "IPPool", {**POOL, "retention": {"whenScaled": "Keep"}}, "Unsupported value"),
    ("a family that is none", "Endpoint", {**CLAIM, "families": ["IPv5"]}, "Unsupported value"),
    ("three addresses", "Endpoint", {**CLAIM, "addresses": ["10.0.0.1"] * 3}, "must have at most 2 items"),
]  # fmt: skip

CHANGES: list[tuple[str, str, Object, Object, str]] = [
    ("another subnet", "IPPool", POOL, {"subnet": "10.0.1.0/24"}, "is immutable: make a new IPPool for another subnet"),
    ("a claim for another Pod", "Endpoint", CLAIM, {"pod": {"name": "web-0", "uid": "other"}}, CONSTANT),
    ("a claim on another node", "Endpoint", CLAIM, {"node": "node-2"}, CONSTANT),
    ("a claim that asks for more", "Endpoint", CLAIM, {"ipv4Pools": ["blue"]}, CONSTANT),
    ("a claim that asks for something else", "Endpoint", {**CLAIM, "ipv4Pools": ["a"]}, {"ipv4Pools": ["b"]}, NEVER),
    ("a claim for another address", "Endpoint", {**CLAIM, "addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]},
     NEVER),
    ("a claim for another family", "Endpoint", {**CLAIM, "families": ["IPv4"]}, {"families": ["IPv6"]}, NEVER),
    ("a claim for the default route", "Endpoint", CLAIM, {"defaultRoute": True}, CONSTANT),
    ("a claim that is not to have the default route any more", "Endpoint", {**CLAIM, "defaultRoute": True},
     {"defaultRoute": False}, NEVER),
    ("a claim with a new container", "Endpoint", CLAIM, {"containerID": "c2"}, ""),
    ("a claim that is parked", "Endpoint", CLAIM, {"containerID": ""}, ""),
    ("a pool that is to be cut into slices now", "IPPool", POOL, {"slices": {"size": 8}},
     "spec.slices: Invalid value: is there from the beginning or never: make a new IPPool"),
    ("a pool that is not to be cut into slices any more", "IPPool", {**POOL, "slices": {"size": 8}}, {"slices": None},
     "spec.slices: Invalid value: is there from the beginning or never: make a new IPPool"),
    ("slices of another size", "IPPool", {**POOL, "slices": {"size": 8}}, {"slices": {"size": 16}}, ""),
    ("a pool with more addresses", "IPPool", {**POOL, "ips": ["10.0.0.1"]}, {"ips": ["10.0.0.1", "10.0.0.2"]}, ""),
]  # fmt: skip


def thing(kind: str, name: str, spec: Object) -> str:
    metadata = {"name": name, **({"namespace": "default"} if kind == "Endpoint" else {})}
    return json.dumps({"apiVersion": "ipam.berth.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})


def squeeze(message: str) -> str:
    """kubectl puts the type where the value would be, for values of rules."""
    return " ".join(message.replace('"string": ', "").replace('"object": ', "").split())


@pytest.mark.api
@pytest.mark.parametrize(("story", "kind", "spec"), GOOD, ids=[each[0] for each in GOOD])
def test_a_good_object_passes(api_server: ControlPlane, story: str, kind: str, spec: Object) -> None:
    api_server.kubectl(
        "create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=thing(kind, "crd-test", spec)
    )


@pytest.mark.api
@pytest.mark.parametrize(("story", "kind", "spec", "message"), BAD, ids=[each[0] for each in BAD])
def test_a_bad_object_is_refused_by_the_schema_alone(
    api_server: ControlPlane, story: str, kind: str, spec: Object, message: str
) -> None:
    with pytest.raises(CommandError) as raised:
        api_server.kubectl("create", "--dry-run=server", "-f", "-", stdin=thing(kind, "crd-test", spec))
    assert message in squeeze(str(raised.value))


@pytest.mark.api
@pytest.mark.parametrize(("story", "kind", "spec", "change", "message"), CHANGES, ids=[each[0] for each in CHANGES])
def test_what_may_change_changes_and_the_rest_does_not(
    api_server: ControlPlane, story: str, kind: str, spec: Object, change: Object, message: str
) -> None:
    place = [f"{kind.lower()}s.ipam.berth.dev", "crd-test", "-n", "default"]
    patch = ["patch", *place, "--type=merge", "--dry-run=server", "-p", json.dumps({"spec": change})]
    api_server.kubectl("create", "-f", "-", stdin=thing(kind, "crd-test", spec))
    try:
        if not message:
            api_server.kubectl(*patch)
            return
        with pytest.raises(CommandError) as raised:
            api_server.kubectl(*patch)
        assert message in squeeze(str(raised.value))
    finally:
        api_server.kubectl("delete", *place)


@pytest.mark.api
def test_the_three_kinds_are_listed_together_and_by_their_short_names(api_server: ControlPlane) -> None:
    api_server.kubectl("create", "-f", "-", stdin=thing("Endpoint", "crd-list", CLAIM))
    api_server.kubectl("create", "-f", "-", stdin=thing("IPPool", "crd-list", {**POOL, "default": True}))
    api_server.kubectl("create", "-f", "-", stdin=thing("ReservedIP", "crd-list", {"ips": ["10.0.0.5"]}))
    listed = api_server.kubectl("get", "berth", "-n", "default", "-o", "name").split()
    for kind in ("endpoint", "ippool", "reservedip"):
        assert f"{kind}.ipam.berth.dev/crd-list" in listed
    assert "node-1" in api_server.kubectl("get", "ipe", "-n", "default", "--field-selector", "spec.node=node-1")
    assert "crd-list" not in api_server.kubectl("get", "ipe", "-n", "default", "--field-selector", "spec.node=other")
    for short in ("ipe", "ipp", "rip"):
        assert "crd-list" in api_server.kubectl("get", short, "-n", "default")
        api_server.kubectl("delete", short, "crd-list", "-n", "default")


@pytest.mark.api
def test_a_spec_is_filled_with_its_defaults_and_they_are_those_of_the_models(api_server: ControlPlane) -> None:
    created = json.loads(
        api_server.kubectl(
            "create", "--dry-run=server", "-o", "json", "-f", "-", stdin=thing("IPPool", "crd-test", POOL)
        )
    )
    assert IPPoolSpec.model_validate(created["spec"]) == IPPoolSpec(subnet="10.0.0.0/24")
    assert created["spec"] == {"subnet": "10.0.0.0/24", "default": False, "disabled": False, "reuseDelay": "30s"}


# --- schemas and models -----------------------------------------------------------------------------------------------


def resolved(schema: Object, definitions: Object) -> Object:
    """A model's schema, without references and without the null that stands for "absent"."""
    if "anyOf" in schema:
        schema = next(each for each in schema["anyOf"] if each.get("type") != "null")
    if "allOf" in schema:
        schema = schema["allOf"][0]
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    return schema


def differences(schema: Object, model: Object, definitions: Object, path: str) -> list[str]:
    """Where the CRD's schema and the model's do not name the same fields."""
    model = resolved(model, definitions)
    if schema.get("x-kubernetes-int-or-string"):
        return []
    if schema.get("type") == "array":
        return differences(schema["items"], model.get("items", {}), definitions, f"{path}[]")
    if schema.get("type") != "object" or "additionalProperties" in schema:
        return []
    theirs, ours = schema["properties"], model.get("properties", {})
    found = [f"{path}.{name}: only in the CRD" for name in theirs.keys() - ours.keys()]
    found += [f"{path}.{name}: only in the model" for name in ours.keys() - theirs.keys()]
    # A model may do without what the API server promises; it must not demand what that does not.
    found += [
        f"{path}.{name}: demanded by the model alone"
        for name in set(model.get("required", ())) - set(schema.get("required", ()))
    ]
    for name in theirs.keys() & ours.keys():
        found += differences(theirs[name], ours[name], definitions, f"{path}.{name}")
    return found


def optional_in_the_model_alone(schema: Object, model: Object, definitions: Object, path: str) -> list[str]:
    model = resolved(model, definitions)
    if schema.get("type") == "array":
        return optional_in_the_model_alone(schema["items"], model.get("items", {}), definitions, f"{path}[]")
    found = [f"{path}.{name}" for name in set(schema.get("required", ())) - set(model.get("required", ()))]
    for name, inner in schema.get("properties", {}).items():
        found += optional_in_the_model_alone(
            inner, model.get("properties", {}).get(name, {}), definitions, f"{path}.{name}"
        )
    return found


PARTS: list[tuple[str, str, type[BaseModel]]] = [
    ("ippools", "spec", IPPoolSpec),
    ("ippools", "status", IPPoolStatus),
    ("reservedips", "spec", ReservedIPSpec),
    ("reservedips", "status", ReservedIPStatus),
    ("endpoints", "spec", Endpoint.model_fields["spec"].annotation),  # type: ignore[list-item]
    ("endpoints", "status", Endpoint.model_fields["status"].annotation),  # type: ignore[list-item]
]
# Written by us, and read with patience: a condition that lacks its time is no reason to be blind to a pool.
PATIENT = (".conditions[].message", ".conditions[].lastTransitionTime", "status.ledger.sequence")


@pytest.mark.parametrize(("plural", "part", "model"), PARTS, ids=[f"{each[0]}.{each[1]}" for each in PARTS])
def test_schema_and_model_name_the_same_fields(plural: str, part: str, model: type[BaseModel]) -> None:
    schema = crd(plural)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part]
    ours = model.model_json_schema(by_alias=True)
    assert differences(schema, ours, ours.get("$defs", {}), part) == []
    missing = optional_in_the_model_alone(schema, ours, ours.get("$defs", {}), part)
    assert [each for each in missing if not each.endswith(PATIENT)] == []
