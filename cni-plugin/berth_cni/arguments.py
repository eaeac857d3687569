"""What comes beside the configuration: CNI_ARGS, and the addresses that a runtime asks for in three places. Pure."""

import re
from collections.abc import Mapping
from typing import Any

from berth.core.ranges import Malformed, format_address, parse_address
from berth_cni.calls import BAD_CONFIGURATION, BAD_ENVIRONMENT, UNSUPPORTED, CniError, Pod

SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LONGEST_NAME = 253

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_UID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,127}")
_POD_KEYS = ("K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_UID")
_KNOWN_KEYS = {*_POD_KEYS, "K8S_POD_INFRA_CONTAINER_ID", "IP", "IgnoreUnknown"}


def read_arguments(text: str) -> dict[str, str] | CniError:
    """CNI_ARGS, as the libraries of CNI read it."""
    arguments: dict[str, str] = {}
    for pair in text.split(";"):
        key, equals, value = pair.partition("=")
        if not pair:
            continue
        if not equals or "=" in value:
            return CniError(BAD_ENVIRONMENT, f'CNI_ARGS: {shown(pair)} is no pair: write "KEY=VALUE;KEY=VALUE"')
        arguments[key] = value
    lenient = arguments.get("IgnoreUnknown", "0").lower()
    if lenient not in ("1", "true", "0", "false"):
        return CniError(BAD_ENVIRONMENT, f"CNI_ARGS: IgnoreUnknown is {shown(lenient)}: write 1 or 0")
    unknown = [key for key in arguments if key not in _KNOWN_KEYS]
    if unknown and lenient in ("0", "false"):
        return CniError(
            BAD_ENVIRONMENT, f"CNI_ARGS: {', '.join(map(shown, unknown))} not known: remove it or add IgnoreUnknown=1"
        )
    return arguments


def read_pod(arguments: Mapping[str, str]) -> Pod | CniError:
    missing = [key for key in _POD_KEYS if not arguments.get(key)]
    if missing:
        return CniError(
            BAD_ENVIRONMENT,
            f"CNI_ARGS: {', '.join(missing)} missing: an address belongs to a Pod, so its runtime must say which "
            "(by hand: CNI_ARGS='K8S_POD_NAMESPACE=default;K8S_POD_NAME=test;K8S_POD_UID=any-id')",
        )
    pod = Pod(arguments["K8S_POD_NAMESPACE"], arguments["K8S_POD_NAME"], arguments["K8S_POD_UID"])
    # These become part of a URL: nothing but a name may pass.
    for key, value, form in zip(_POD_KEYS, (pod.namespace, pod.name, pod.uid), (_LABEL, SUBDOMAIN, _UID), strict=True):
        if not form.fullmatch(value) or len(value) > LONGEST_NAME:
            return CniError(BAD_ENVIRONMENT, f"CNI_ARGS: {key} is {shown(value)}, which cannot be one in Kubernetes")
    return pod


def requested_addresses(document: Mapping[str, Any], arguments: Mapping[str, str]) -> tuple[str, ...] | CniError:
    """The addresses asked for: a capability goes before `args`, and both before CNI_ARGS (CNI conventions)."""
    runtime, cni = document.get("runtimeConfig"), document.get("args")
    runtime = runtime if isinstance(runtime, dict) else {}
    cni = cni.get("cni") if isinstance(cni, dict) else None
    cni = cni if isinstance(cni, dict) else {}
    if ranges := runtime.get("ipRanges"):
        return CniError(
            UNSUPPORTED,
            f"runtimeConfig.ipRanges: {shown(ranges)} is not supported: ranges belong in an IPPool; "
            "take the capability ipRanges out of the configuration",
        )
    if runtime.get("ips"):
        return _addresses(runtime["ips"], "runtimeConfig.ips", BAD_CONFIGURATION)
    if cni.get("ips"):
        return _addresses(cni["ips"], "args.cni.ips", BAD_CONFIGURATION)
    texts = [text.strip() for text in arguments.get("IP", "").split(",") if text.strip()]
    return _addresses(texts, "CNI_ARGS: IP", BAD_ENVIRONMENT)


def _addresses(found: object, where: str, code: int) -> tuple[str, ...] | CniError:
    """In canonical form, without the prefix length: that is the pool's."""
    if not isinstance(found, list):
        return CniError(code, f'{where}: {shown(found)} is no list of addresses: write ["10.0.0.5"]')
    families: dict[str, str] = {}
    for text in found:
        bare, slash, prefix = text.partition("/") if isinstance(text, str) else ("", "", "")
        address = parse_address(bare)
        if isinstance(address, Malformed) or (slash and not prefix.isdecimal()):
            return CniError(code, f"{where}: {shown(text)} is no IP address, with or without a prefix length")
        if address[0] in families:
            return CniError(code, f"{where}: {shown(text)} is a second {address[0]} address: ask for one of a family")
        families[address[0]] = format_address(*address)
    return tuple(families.values())


def shown(value: object) -> str:
    """What was written, short enough for a message."""
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
