"""What the shim prints, by version; and what an Endpoint of an attachment is called."""

import json
import re
from typing import Any

import pytest

from berth_cni.calls import Add, Attachment, CniError, Pod
from berth_cni.endpoints import Address, body_of, name_of
from berth_cni.result import failure, success, versions

FOUR = Address("IPv4", "10.0.0.5/24", "10.0.0.1", "blue")
SIX = Address("IPv6", "fd00::5/64", None, "six")
ROUTE = {"dst": "0.0.0.0/0", "gw": "10.0.0.1"}


# 23, 24, 26
@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0"])
def test_the_older_versions_say_the_family_of_each_address(version: str) -> None:
    assert json.loads(success(version, [FOUR, SIX], [ROUTE], {"domain": "x"})) == {
        "cniVersion": version,
        "ips": [
            {"version": "4", "address": "10.0.0.5/24", "gateway": "10.0.0.1"},
            {"version": "6", "address": "fd00::5/64"},
        ],
        "routes": [ROUTE],
        "dns": {"domain": "x"},
    }


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
def test_the_newer_versions_do_not(version: str) -> None:
    assert json.loads(success(version, [FOUR, SIX], [], {})) == {
        "cniVersion": version,
        "ips": [{"address": "10.0.0.5/24", "gateway": "10.0.0.1"}, {"address": "fd00::5/64"}],
        "routes": [],
        "dns": {},
    }


# 17
def test_an_error_is_one_json_object_even_of_bytes_that_are_no_text() -> None:
    printed = json.loads(failure(CniError(4, "CNI_IFNAME: \udcff", "", "9.9.9")))
    assert printed == {"cniVersion": "9.9.9", "code": 4, "msg": "CNI_IFNAME: ?"}
    assert json.loads(failure(CniError(11, "later", "why")))["details"] == "why"


def test_versions_echo_the_one_asked_with() -> None:
    printed = json.loads(versions("0.4.0"))
    assert printed == {"cniVersion": "0.4.0", "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]}


def add(pod: str = "web-0", uid: str = "u1", interface: str = "eth0", network: str = "net", **more: Any) -> Add:
    return Add("1.1.0", Attachment(network, more.pop("container", "c1"), interface), Pod("default", pod, uid), **more)


@pytest.mark.parametrize(
    ("pod", "interface", "start"),
    [
        ("web-0", "eth0", "web-0-eth0-"),
        ("web.example", "net1", "web.example-net1-"),
        ("web-0", "Eth_0.5", "web-0-eth-0-5-"),
        ("web-0", "\u00e4", "web-0-"),
        ("a" * 253, "eth0", "a" * 237 + "-eth0-"),
        ("a" * 236 + "." + "b" * 16, "eth0", "a" * 236 + "-eth0-"),
    ],
)
def test_an_endpoint_is_named_after_its_pod_and_interface(pod: str, interface: str, start: str) -> None:
    name = name_of(add(pod, interface=interface))
    assert name.startswith(start)
    assert len(name) <= 253
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", name)


def test_the_name_outlives_the_sandbox_and_nothing_else() -> None:
    assert name_of(add()) == name_of(add(container="c2"))
    others = {name_of(each) for each in (add(), add(uid="u2"), add(network="other"), add(interface="net1"))}
    assert len(others) == 4


def test_what_is_not_asked_for_is_not_in_the_claim() -> None:
    assert set(body_of(add(), "n")["spec"]) == {"pod", "node", "network", "interface", "containerID"}
    full = body_of(add(ipv4_pools=("a",), ipv6_pools=("b",), families=("IPv4",), addresses=("10.0.0.5",)), "n")
    assert full["spec"]["ipv4Pools"] == ["a"]
    assert full["spec"]["addresses"] == ["10.0.0.5"]
