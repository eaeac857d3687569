"""What the shim prints: the abbreviated result of an IPAM plugin, an error, the versions. Pure.

From 0.3.0 to 0.4.0 an address says its family ("version"); 1.0.0 took that away. `interfaces` is the main plugin's.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from berth_cni.calls import VERSIONS, CniError
from berth_cni.endpoints import Address

_WITH_FAMILY = ("0.3.0", "0.3.1", "0.4.0")


def success(
    version: str, addresses: Iterable[Address], routes: Iterable[Mapping[str, Any]], dns: Mapping[str, Any]
) -> bytes:
    ips: list[dict[str, str]] = []
    for each in addresses:
        entry = {"address": each.address}
        if version in _WITH_FAMILY:
            entry["version"] = each.family[-1]
        if each.gateway:
            entry["gateway"] = each.gateway
        ips.append(entry)
    return _document({"cniVersion": version, "ips": ips, "routes": list(routes), "dns": dict(dns)})


def failure(error: CniError) -> bytes:
    # Variables of the environment may hold bytes that are no UTF-8; an answer may not.
    texts = {
        key: value.encode("utf-8", "replace").decode()
        for key, value in (("cniVersion", error.version), ("msg", error.message), ("details", error.details))
        if value
    }
    return _document({**texts, "code": error.code})


def versions(version: str) -> bytes:
    return _document({"cniVersion": version, "supportedVersions": list(VERSIONS)})


def _document(content: Mapping[str, Any]) -> bytes:
    return orjson.dumps(content) + b"\n"
