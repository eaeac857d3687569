"""The annotations by which a Pod or a namespace has a say, and which of them counts for an interface.

    ipam.berth.dev/pools: office          for every interface
    ipam.berth.dev/pools: office; lab     by order: of eth0, net1, net2 and so on, as Multus calls them
    ipam.berth.dev/pools.net1: lab        for net1: goes before the first form, and has no place beside the second

`addresses` and `routes` are written likewise. What an annotation says and cannot be is a refusal that names the key,
the text and the remedy; so is a key with our prefix that nobody knows, for a typing error must not end in another pool.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from berth.core.claim import Surroundings
from berth.core.reasons import Reason
from berth.core.selection import Refused

PREFIX = "ipam.berth.dev/"
POOLS, ADDRESSES, FAMILIES = f"{PREFIX}pools", f"{PREFIX}addresses", f"{PREFIX}families"
ROUTES, DEFAULT_ROUTE = f"{PREFIX}routes", f"{PREFIX}default-route"
SLICE = f"{PREFIX}slice"
POD_KEYS = (POOLS, ADDRESSES, FAMILIES, ROUTES, DEFAULT_ROUTE, SLICE)
NAMESPACE_KEYS = (POOLS,)
BY_INTERFACE = (POOLS, ADDRESSES, ROUTES)

# What Linux takes, less what no annotation's key and no list of ours can hold.
_INTERFACE = re.compile(r"[A-Za-z0-9_.-]{1,15}")
FIRST = "eth0"
_NUMBERED = re.compile(r"net([1-9]\d{0,3})")


@dataclass(frozen=True, slots=True)
class Said:
    """An annotation: on what, its key, its text. `part`: what of the text is for the interface in question."""

    on: str
    key: str
    text: str
    part: str

    def __str__(self) -> str:
        return f"{self.on} annotation {self.key}"

    def bad(self, why: str) -> Refused:
        return Refused(Reason.BAD_ANNOTATION, f'{self} "{self.text}": {why}')

    def entries(self) -> tuple[str, ...]:
        return tuple(entry.strip() for entry in self.part.split(","))


def whole(on: str, annotations: Mapping[str, str], key: str) -> Said | None:
    """An annotation that is about no interface in particular."""
    text = annotations.get(key)
    return None if text is None else Said(on, key, text, text)


def said_for(on: str, annotations: Mapping[str, str], key: str, interface: str) -> Said | Refused | None:
    """What is said for this interface: under a key of its own, at its place in a list by order, or for all."""
    own, general = whole(on, annotations, f"{key}.{interface}"), whole(on, annotations, key)
    if general is None or ";" not in general.text:
        return own or general
    parts = [part.strip() for part in general.text.split(";")]
    number = _number_of(interface)
    if own is not None:
        if number is not None and number < len(parts) and parts[number]:
            return own.bad(f'names {interface} a second time, after {key} "{general.text}": keep one of the two')
        return own
    if number is None:
        return general.bad(
            f"goes by order, eth0; net1; net2, and {interface} has no place there: write {key}.{interface}"
        )
    if number >= len(parts):
        last = _name_of(len(parts) - 1)
        return general.bad(f"ends with {last}, and there is {interface} too: go on with it, or write {key}.{interface}")
    return Said(on, key, general.text, parts[number]) if parts[number] else None


def named_interfaces(annotations: Mapping[str, str]) -> tuple[str, ...]:
    """The interfaces that a Pod's annotations speak of, each by its name or by its place."""
    found: dict[str, None] = {}
    for key in BY_INTERFACE:
        parts = annotations.get(key, "").split(";")
        if len(parts) > 1:
            found |= {_name_of(number): None for number, part in enumerate(parts) if part.strip()}
        found |= {each[len(key) + 1 :]: None for each in sorted(annotations) if each.startswith(f"{key}.")}
    carrier = annotations.get(DEFAULT_ROUTE, "").strip()
    if _INTERFACE.fullmatch(carrier) and carrier != FIRST:  # that one is often attached by another plugin
        found[carrier] = None
    return tuple(found)


def has_default_route(annotations: Mapping[str, str], interface: str) -> bool | Refused | None:
    """Whether this interface is the one for the default route; None when nobody says which is."""
    said = whole("Pod", annotations, DEFAULT_ROUTE)
    if said is None:
        return None
    if not _INTERFACE.fullmatch(said.text.strip()):
        return said.bad("is no name of one interface: write eth0 or net1")
    return said.text.strip() == interface


def misspelt(around: Surroundings) -> Refused | None:
    """A key with our prefix that nobody knows, or for an interface that cannot be."""
    sides = (("Pod", around.pod_annotations, POD_KEYS), ("Namespace", around.namespace_annotations, NAMESPACE_KEYS))
    for on, annotations, known in sides:
        for key, text in sorted(annotations.items()):
            name, dot, interface = key.removeprefix(PREFIX).partition(".")
            said = Said(on, key, text, text)
            if PREFIX + name not in known or (dot and PREFIX + name not in BY_INTERFACE):
                listed = ", ".join([*known, *(f"{each}.INTERFACE" for each in known if each in BY_INTERFACE)])
                return said.bad(f"no such annotation: on a {on} Berth knows {listed}")
            if dot and not _INTERFACE.fullmatch(interface):
                return said.bad(f"{interface} is no name of an interface, at most 15 letters: write eth0 or net1")
    return None


def _number_of(interface: str) -> int | None:
    if interface == FIRST:
        return 0
    matched = _NUMBERED.fullmatch(interface)
    return int(matched[1]) if matched else None


def _name_of(number: int) -> str:
    return f"net{number}" if number else FIRST
