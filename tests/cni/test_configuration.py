"""What runtimes send, read: each row is one call, and what it means or why it cannot be. Numbers are those of the
checklist in docs (research/cni.md, section 1.5)."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth_cni.calls import Add, Attachment, Check, CniError, Del, Gc, Pod, Status, Version
from berth_cni.configuration import parse
from tests.cni.stage import request

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
POD = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=u1"


def add(**about: Any) -> Any:
    return parse(*request("ADD", "c1", **about))


def test_an_add_says_who_what_and_where() -> None:
    ipam = {"type": "berth", "ipv4Pools": ["blue", "green"], "ipv6Pools": ["six"], "families": ["IPv4"]}
    dns = {"nameservers": ["10.0.0.2"]}
    assert add(uid="u1", version="0.4.0", ipam=ipam, dns=dns) == Add(
        "0.4.0",
        Attachment("net", "c1", "eth0"),
        Pod("default", "web-0", "u1"),
        ("blue", "green"),
        ("six",),
        ("IPv4",),
        (),
        dns,
    )


# 1-5
@pytest.mark.parametrize(
    ("stdin", "version"),
    [(b'{"cniVersion":"1.1.0"}', "1.1.0"), (b'{"cniVersion":"0.4.0"}', "0.4.0"), (b"", "1.1.0"), (b"{", "1.1.0")],
)
def test_version_is_answered_whatever_comes_with_it(stdin: bytes, version: str) -> None:
    environment = {"CNI_COMMAND": "VERSION", "CNI_NETNS": "dummy", "CNI_IFNAME": "dummy", "CNI_PATH": "dummy"}
    assert parse(environment, stdin) == Version(version)


# 7-11
@pytest.mark.parametrize(
    ("command", "changed", "named"),
    [
        ("FOO", {}, ["CNI_COMMAND", "FOO"]),
        ("ADD", {"CNI_CONTAINERID": ""}, ["CNI_CONTAINERID"]),
        ("ADD", {"CNI_NETNS": ""}, ["CNI_NETNS"]),
        ("ADD", {"CNI_IFNAME": ""}, ["CNI_IFNAME"]),
        (
            "ADD",
            {"CNI_CONTAINERID": "", "CNI_NETNS": "", "CNI_IFNAME": ""},
            ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
        ),
        ("CHECK", {"CNI_NETNS": "", "CNI_IFNAME": ""}, ["CNI_NETNS", "CNI_IFNAME"]),
        ("DEL", {"CNI_CONTAINERID": ""}, ["CNI_CONTAINERID"]),
        *[("ADD", {"CNI_CONTAINERID": bad}, ["CNI_CONTAINERID"]) for bad in ("../x", "-a", "a b", "a" * 254)],
        *[
            ("ADD", {"CNI_IFNAME": bad}, ["CNI_IFNAME"])
            for bad in ("sixteen-letters-", ".", "..", "a/b", "a:b", "a b", "a\tb", "\udcff")
        ],
    ],
)
def test_variables_that_cannot_be_are_named_with_code_4(
    command: str, changed: dict[str, str], named: list[str]
) -> None:
    environment, stdin = request(command, "c1")
    error = parse({**environment, **changed}, stdin)
    assert isinstance(error, CniError)
    assert error.code == 4
    assert all(name in error.message for name in named)


# 12
@pytest.mark.parametrize("stdin", [b"", b" ", b"null", b"[]", b'"x"', b'{"name":', b'{"name":"\xff"}', b"[" * 5000])
def test_a_configuration_that_is_no_json_object_has_code_6(stdin: bytes) -> None:
    error = parse(request("ADD", "c1")[0], stdin)
    assert isinstance(error, CniError)
    assert error.code == 6


# 13, 14
@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"name": None}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": 5}, "name"),
        ({"ipam": None}, "ipam"),
        ({"ipam": []}, "ipam"),
        ({"ipam": {}}, "ipam"),
        ({"ipam": {"type": "berth", "ipv4Pools": "blue"}}, "ipam.ipv4Pools"),
        ({"ipam": {"type": "berth", "ipv4Pools": [5]}}, "ipam.ipv4Pools"),
        ({"ipam": {"type": "berth", "ipv6Pools": ["No Name"]}}, "ipam.ipv6Pools"),
        ({"ipam": {"type": "berth", "ipv4Pools": ["a"] * 65}}, "ipam.ipv4Pools"),
        ({"ipam": {"type": "berth", "families": ["IPv5"]}}, "ipam.families"),
        ({"runtimeConfig": {"ips": ["10.0.0.256"]}}, "runtimeConfig.ips"),
        ({"runtimeConfig": {"ips": "10.0.0.5"}}, "runtimeConfig.ips"),
        ({"runtimeConfig": {"ips": [5]}}, "runtimeConfig.ips"),
        ({"runtimeConfig": {"ips": ["10.0.0.5/x"]}}, "runtimeConfig.ips"),
        ({"args": {"cni": {"ips": ["10.0.0.5", "10.0.0.6"]}}}, "args.cni.ips"),
    ],
)
def test_a_configuration_that_cannot_be_has_code_7_and_names_the_field(changed: dict[str, Any], named: str) -> None:
    environment, stdin = request("ADD", "c1")
    error = parse(environment, json.dumps({**json.loads(stdin), **changed}).encode())
    assert isinstance(error, CniError)
    assert error.code == 7
    assert error.message.startswith(f"{named}:")


# 15, 16
@pytest.mark.parametrize(
    ("command", "version", "code"),
    [
        ("ADD", None, 1),
        ("ADD", "9.9.9", 1),
        ("ADD", "abc", 1),
        ("ADD", "0.2.0", 1),
        ("ADD", 5, 6),
        ("CHECK", "0.3.1", 1),
        ("GC", "1.0.0", 1),
        ("STATUS", "1.0.0", 1),
    ],
)
def test_a_version_that_does_not_go_with_the_call_is_refused(command: str, version: Any, code: int) -> None:
    error = parse(*request(command, "c1", version=version, prevResult={"ips": []}))
    assert isinstance(error, CniError)
    assert error.code == code
    assert "cniVersion" in error.message
    assert error.version == (version if isinstance(version, str) else "1.1.0")


# 19
def test_what_is_not_known_is_ignored() -> None:
    more = {"args": {"labels": 5}, "runtimeConfig": {"mac": "x", "ips": []}, "master": "eth1", "prevResult": {"x": 1}}
    assert add(**more) == add()


# 20
@pytest.mark.parametrize(
    "args",
    [
        f"{POD};IgnoreUnknown=1",
        "IgnoreUnknown=true;K8S_POD_UID=u1;X=y;IgnoreUnknown=1;K8S_POD_NAME=web-0;K8S_POD_NAMESPACE=default",
        f"{POD};K8S_POD_INFRA_CONTAINER_ID=c1",
        f"{POD};",
    ],
)
def test_cni_args_come_in_any_order(args: str) -> None:
    assert add(cni_args=args).pod == Pod("default", "web-0", "u1")


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ("", "K8S_POD_NAMESPACE, K8S_POD_NAME, K8S_POD_UID"),
        ("K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0", "K8S_POD_UID"),
        (f"{POD};A=B=C;IgnoreUnknown=1", "A=B=C"),
        (f"{POD};A", '"A"'),
        (f"{POD};A=B", '"A"'),
        (f"{POD};IgnoreUnknown=maybe", "IgnoreUnknown"),
        ("K8S_POD_NAMESPACE=../pods;K8S_POD_NAME=web-0;K8S_POD_UID=u1", "K8S_POD_NAMESPACE"),
        ("K8S_POD_NAMESPACE=default;K8S_POD_NAME=a/b;K8S_POD_UID=u1", "K8S_POD_NAME"),
        ("K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=u/1", "K8S_POD_UID"),
        (f"{POD};IP=10.0.0", "IP"),
    ],
)
def test_cni_args_that_cannot_be_have_code_4(args: str, named: str) -> None:
    error = add(cni_args=args)
    assert isinstance(error, CniError)
    assert error.code == 4
    assert "CNI_ARGS" in error.message
    assert named in error.message


# 34
@pytest.mark.parametrize(
    ("more", "asked"),
    [
        ({"runtimeConfig": {"ips": ["10.0.0.5/24"]}}, ("10.0.0.5",)),
        ({"args": {"cni": {"ips": ["10.0.0.6"]}}}, ("10.0.0.6",)),
        ({"args": f"{POD};IP=10.0.0.7/24"}, ("10.0.0.7",)),
        ({"args": f"{POD};IP=10.0.0.7,fd00:0::7/64"}, ("10.0.0.7", "fd00::7")),
        ({"runtimeConfig": {"ips": ["FD00::5", "10.0.0.5"]}}, ("fd00::5", "10.0.0.5")),
    ],
)
def test_an_address_is_asked_for_in_three_ways(more: dict[str, Any], asked: tuple[str, ...]) -> None:
    environment, stdin = request("ADD", "c1", cni_args=more["args"] if isinstance(more.get("args"), str) else POD)
    kept = {key: value for key, value in more.items() if not isinstance(value, str)}
    call = parse(environment, json.dumps({**json.loads(stdin), **kept}).encode())
    assert isinstance(call, Add)
    assert call.addresses == asked


def test_a_capability_goes_before_args_and_both_before_cni_args() -> None:
    environment, stdin = request("ADD", "c1", cni_args=f"{POD};IP=10.0.0.7")
    document = {**json.loads(stdin), "args": {"cni": {"ips": ["10.0.0.6"]}}, "runtimeConfig": {"ips": ["10.0.0.5"]}}
    wanted = []
    for key in ("runtimeConfig", "args"):
        call = parse(environment, json.dumps(document).encode())
        assert isinstance(call, Add)
        wanted.append(call.addresses)
        del document[key]
    assert wanted == [("10.0.0.5",), ("10.0.0.6",)]


# 35
def test_ranges_of_a_runtime_are_refused_and_not_passed_over() -> None:
    error = add(runtimeConfig={"ipRanges": [[{"subnet": "10.9.0.0/16"}]]})
    assert isinstance(error, CniError)
    assert error.code == 2
    assert "runtimeConfig.ipRanges" in error.message
    assert "10.9.0.0/16" in error.message


# 9, 47-49
@pytest.mark.parametrize(
    "changed",
    [{}, {"ipam": None}, {"ipam": {"type": "berth", "ipv4Pools": 5}}, {"runtimeConfig": 5}, {"prevResult": "x"}],
)
@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_a_del_needs_nothing_but_its_attachment(changed: dict[str, Any], version: str) -> None:
    environment, stdin = request("DEL", "c1", version=version)
    bare = {key: environment[key] for key in ("CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME")}
    call = parse(bare, json.dumps({**json.loads(stdin), **changed}).encode())
    assert call == Del(version, Attachment("net", "c1", "eth0"))


# 57
def test_a_check_needs_the_result_of_the_add() -> None:
    previous = {"ips": [{"address": "10.0.0.5/24"}, {"address": "fd00::5/64"}, 5]}
    call = parse(*request("CHECK", "c1", prevResult=previous))
    assert call == Check("1.1.0", Attachment("net", "c1", "eth0"), frozenset({"10.0.0.5/24", "fd00::5/64"}))
    error = parse(*request("CHECK", "c1"))
    assert isinstance(error, CniError)
    assert (error.code, error.message.partition(":")[0]) == (7, "prevResult")


# 58-61
@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
def test_gc_takes_the_list_under_either_name(key: str) -> None:
    stdin = request("GC")[1]
    listed = [{"containerID": "c1", "ifname": "eth0"}, {"containerID": "c2", "ifname": "net1"}]
    valid = frozenset({("c1", "eth0"), ("c2", "net1")})
    for found, meant in ((listed, valid), ([], frozenset())):
        document = {**json.loads(stdin), key: found}
        assert parse({"CNI_COMMAND": "GC"}, json.dumps(document).encode()) == Gc("1.1.0", "net", meant)


def test_gc_without_a_list_is_not_gc_with_an_empty_one() -> None:
    assert parse({"CNI_COMMAND": "GC"}, request("GC")[1]) == Gc("1.1.0", "net", None)


@pytest.mark.parametrize("listed", [5, {}, ["c1"], [{"containerID": "c1"}], [{"containerID": 1, "ifname": "x"}]])
def test_gc_with_a_list_that_is_not_understood_frees_nothing(listed: Any) -> None:
    error = parse({"CNI_COMMAND": "GC"}, request("GC", valid=listed)[1])
    assert isinstance(error, CniError)
    assert error.code == 7


def test_status_needs_a_version_alone() -> None:
    assert parse({"CNI_COMMAND": "STATUS"}, b'{"cniVersion":"1.1.0"}') == Status("1.1.0")


# 12, 17
@given(
    command=st.sampled_from(["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "X"]),
    document=st.dictionaries(
        st.sampled_from(["name", "ipam", "args", "runtimeConfig", "prevResult", "dns", "cni.dev/valid-attachments"]),
        ANY_JSON | st.dictionaries(st.sampled_from(["type", "ips", "cni", "ipv4Pools", "families"]), ANY_JSON),
    ),
    args=st.text(max_size=30),
)
def test_whatever_comes_is_a_call_or_an_error_that_says_something(
    command: str, document: dict[str, Any], args: str
) -> None:
    environment, stdin = request(command, "c1", cni_args=args)
    call = parse(environment, json.dumps({**json.loads(stdin), **document}).encode())
    assert not isinstance(call, CniError) or call.message
