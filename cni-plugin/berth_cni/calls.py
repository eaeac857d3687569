"""The calls of CNI as values, and the one form of answer that is no success. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
NEWEST = VERSIONS[-1]

INCOMPATIBLE, UNSUPPORTED, BAD_ENVIRONMENT, UNDECODABLE, BAD_CONFIGURATION, TRY_LATER = 1, 2, 4, 6, 7, 11
NOT_AVAILABLE, POOL_EXHAUSTED, ADDRESS_TAKEN, ADDRESS_OUTSIDE, NO_POOL, MISMATCH = 50, 100, 101, 102, 103, 104
BAD_ANNOTATION = 105


@dataclass(frozen=True, slots=True)
class CniError:
    """An answer that is no success: the code of the specification (100 and up are ours), and what to do about it."""

    code: int
    message: str
    details: str = ""
    version: str = NEWEST


@dataclass(frozen=True, slots=True)
class Attachment:
    """What a runtime calls an interface of a container by, in every call: the key of a release."""

    network: str
    container: str
    interface: str


@dataclass(frozen=True, slots=True)
class Pod:
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Add:
    version: str
    attachment: Attachment
    pod: Pod
    ipv4_pools: tuple[str, ...] = ()
    ipv6_pools: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    dns: Mapping[str, Any] = field(default_factory=dict)
    default_route: bool | None = None  # None: as the pool has it


@dataclass(frozen=True, slots=True)
class Del:
    version: str
    attachment: Attachment


@dataclass(frozen=True, slots=True)
class Check:
    """`addresses`: those of prevResult, with prefix length."""

    version: str
    attachment: Attachment
    addresses: frozenset[str]


@dataclass(frozen=True, slots=True)
class Gc:
    """`valid`: (container, interface) of all attachments that live; None when the runtime did not say."""

    version: str
    network: str
    valid: frozenset[tuple[str, str]] | None


@dataclass(frozen=True, slots=True)
class Status:
    version: str


@dataclass(frozen=True, slots=True)
class Version:
    version: str


Call = Add | Del | Check | Gc | Status | Version
