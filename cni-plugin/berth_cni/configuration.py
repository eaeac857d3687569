"""What a runtime asks for: the CNI_* variables and the network configuration on stdin, as one value or one CNI error.

Pure. `parse` reads what CNI 0.3.0 to 1.1.0 prescribe and refuses, with the code the specification has for it, what it
may not guess at. A DEL asks for little: only what names the attachment, so that it succeeds whatever has become of
the rest of the configuration since the ADD. Read by hand and not by pydantic: 4 MB of the agent's 45 would go for it.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from berth_cni.arguments import LONGEST_NAME, SUBDOMAIN, read_arguments, read_pod, requested_addresses, shown
from berth_cni.calls import (
    BAD_CONFIGURATION,
    BAD_ENVIRONMENT,
    INCOMPATIBLE,
    NEWEST,
    UNDECODABLE,
    VERSIONS,
    Add,
    Attachment,
    Call,
    Check,
    CniError,
    Del,
    Gc,
    Status,
    Version,
)

_SINCE = {"ADD": 0, "DEL": 0, "CHECK": VERSIONS.index("0.4.0"), "GC": 4, "STATUS": 4}
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_MOST_POOLS = 64


def parse(environment: Mapping[str, str], stdin: bytes) -> Call | CniError:
    document = _decode(stdin)
    version = NEWEST
    if isinstance(document, dict) and isinstance(document.get("cniVersion"), str):
        version = document["cniVersion"]
    call = _parse(environment, document, version)
    if isinstance(call, CniError):
        return CniError(call.code, call.message, call.details, version)
    return call


def _parse(environment: Mapping[str, str], document: dict[str, Any] | CniError, version: str) -> Call | CniError:
    command = environment.get("CNI_COMMAND", "")
    if command == "VERSION":
        return Version(version)
    if command not in _SINCE:
        return CniError(
            BAD_ENVIRONMENT, f'CNI_COMMAND is "{command}": it must be ADD, DEL, CHECK, GC, STATUS or VERSION'
        )
    if (wrong := _bad_environment(environment, command)) is not None:
        return wrong
    if isinstance(document, CniError):
        return document
    if (wrong := _bad_version(document, command)) is not None:
        return wrong
    if command == "STATUS":
        return Status(version)
    network = document.get("name")
    if not isinstance(network, str) or not _NAME.fullmatch(network) or len(network) > LONGEST_NAME:
        return CniError(
            BAD_CONFIGURATION,
            f"name: {shown(network)} is no network name: begin with a letter or digit, go on with those, _ . and -",
        )
    if command == "GC":
        return _gc(version, network, document)
    attachment = Attachment(network, environment["CNI_CONTAINERID"], environment["CNI_IFNAME"])
    if command == "DEL":
        return Del(version, attachment)
    if not isinstance(document.get("ipam"), dict) or not isinstance(document["ipam"].get("type"), str):
        return CniError(BAD_CONFIGURATION, 'ipam: is missing or no object with a type: write "ipam": {"type": "berth"}')
    if command == "CHECK":
        return _check(version, attachment, document)
    return _add(version, attachment, document, environment.get("CNI_ARGS", ""))


def _decode(stdin: bytes) -> dict[str, Any] | CniError:
    try:
        document = orjson.loads(stdin)
    except orjson.JSONDecodeError as error:
        what = f"it is not JSON ({error})" if stdin.strip() else "it is empty"
        return CniError(UNDECODABLE, f"the network configuration on stdin cannot be decoded: {what}")
    if not isinstance(document, dict):
        return CniError(UNDECODABLE, "the network configuration on stdin is no JSON object")
    return document


def _bad_environment(environment: Mapping[str, str], command: str) -> CniError | None:
    needed = {"ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"), "DEL": ("CNI_CONTAINERID", "CNI_IFNAME")}
    needed["CHECK"] = needed["ADD"]
    missing = [name for name in needed.get(command, ()) if not environment.get(name)]
    if missing:
        return CniError(BAD_ENVIRONMENT, f"{', '.join(missing)}: needed for {command}, and not set by the runtime")
    if command not in needed:
        return None
    container, interface = environment["CNI_CONTAINERID"], environment["CNI_IFNAME"]
    if not _NAME.fullmatch(container) or len(container) > LONGEST_NAME:
        return CniError(
            BAD_ENVIRONMENT,
            f"CNI_CONTAINERID: {shown(container)} is no container ID: begin with a letter or digit, "
            "go on with those, _ . and -",
        )
    bad = [letter for letter in interface if letter in "/:" or letter.isspace() or not letter.isprintable()]
    if bad or interface in (".", "..") or len(interface.encode("utf-8", "surrogateescape")) > 15:
        return CniError(
            BAD_ENVIRONMENT,
            f"CNI_IFNAME: {shown(interface)} is no interface name: at most 15 bytes, not . or .., "
            "without slash, colon and space",
        )
    return None


def _bad_version(document: Mapping[str, Any], command: str) -> CniError | None:
    version = document.get("cniVersion")
    if version is not None and not isinstance(version, str):
        return CniError(UNDECODABLE, f"cniVersion: {shown(version)} is no text")
    known = f"supported are {', '.join(VERSIONS)}"
    if version not in VERSIONS:
        return CniError(INCOMPATIBLE, f"cniVersion: {shown(version)} is not supported: {known}", known)
    if VERSIONS.index(version) < _SINCE[command]:
        oldest = VERSIONS[_SINCE[command]]
        return CniError(INCOMPATIBLE, f"cniVersion: {command} came with {oldest}, the configuration says {version}")
    return None


def _add(version: str, attachment: Attachment, document: Mapping[str, Any], args: str) -> Add | CniError:
    arguments = read_arguments(args)
    if isinstance(arguments, CniError):
        return arguments
    pod = read_pod(arguments)
    if isinstance(pod, CniError):
        return pod
    ipam = document["ipam"]
    lists: list[tuple[str, ...]] = []
    for key in ("ipv4Pools", "ipv6Pools"):
        names = _strings(ipam, key)
        if isinstance(names, CniError):
            return names
        if bad := [name for name in names if not SUBDOMAIN.fullmatch(name) or len(name) > LONGEST_NAME]:
            return CniError(BAD_CONFIGURATION, f"ipam.{key}: {shown(bad[0])} is no name of an IPPool")
        if len(names) > _MOST_POOLS:
            return CniError(BAD_CONFIGURATION, f"ipam.{key}: names {len(names)} pools: at most {_MOST_POOLS}")
        lists.append(names)
    families = _strings(ipam, "families")
    if isinstance(families, CniError):
        return families
    if not {"IPv4", "IPv6"}.issuperset(families):
        return CniError(BAD_CONFIGURATION, f"ipam.families: {shown(families)} may have IPv4 and IPv6 only")
    addresses = requested_addresses(document, arguments)
    if isinstance(addresses, CniError):
        return addresses
    default = ipam.get("defaultRoute")
    if default is not None and not isinstance(default, bool):
        return CniError(BAD_CONFIGURATION, f"ipam.defaultRoute: {shown(default)} is neither true nor false")
    dns = document.get("dns")
    return Add(
        version,
        attachment,
        pod,
        lists[0],
        lists[1],
        tuple(dict.fromkeys(families)),
        addresses,
        dns if isinstance(dns, dict) else {},
        default,
    )


def _strings(ipam: Mapping[str, Any], key: str) -> tuple[str, ...] | CniError:
    found = ipam.get(key) or []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        return CniError(BAD_CONFIGURATION, f'ipam.{key}: {shown(found)} is no list of names: write ["name"]')
    return tuple(found)


def _check(version: str, attachment: Attachment, document: Mapping[str, Any]) -> Check | CniError:
    previous = document.get("prevResult")
    ips = previous.get("ips") if isinstance(previous, dict) else None
    if not isinstance(ips, list):
        return CniError(BAD_CONFIGURATION, "prevResult: missing or without ips: CHECK needs the result of the ADD")
    return Check(version, attachment, frozenset(str(each.get("address")) for each in ips if isinstance(each, dict)))


def _gc(version: str, network: str, document: Mapping[str, Any]) -> Gc | CniError:
    # libcni sends the list under a second, wrong name too (containernetworking/cni#1101).
    for key in ("cni.dev/valid-attachments", "cni.dev/attachments"):
        if (listed := document.get(key)) is None:
            continue
        # An entry that is not understood could be an attachment that lives: then nothing may be freed.
        if not isinstance(listed, list) or not all(map(_is_attachment, listed)):
            return CniError(BAD_CONFIGURATION, f"{key}: {shown(listed)} is no list of containerID and ifname")
        return Gc(version, network, frozenset((each["containerID"], each["ifname"]) for each in listed))
    return Gc(version, network, None)


def _is_attachment(entry: object) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("containerID", "ifname"))
