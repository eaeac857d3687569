"""From bytes to JSON that is almost right.

Arbitrary bytes are no JSON, and arbitrary JSON is no IPPool: both are refused at the door, and nothing behind it is
tried. So a document that is right is altered, here and there, as the bytes say: each alteration walks down to some
place and puts there what is often wrong, another part of the same document, or text made of the bytes. The same bytes
give the same document, for whichever engine they come from.
"""

from collections.abc import Sequence
from typing import Any

NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**53, 2**63, 1.5, 1e308, "", [], {}, [[]], {"": ""}),
    *(" ", "\0", "\n", "ä", "\U0001f600", "x" * 300, "..", "/", "0", "00", "1", "-1", "٣"),
    *("10.0.0.5", "10.0.0.05", "10.0.0.256", "10.0.0.5/24", "10.0.0.0/24", "10.0.0.0/33", "10.0.0.9-10.0.0.3"),
    *("10.0.0.3-10.0.0.9", "10.0.0.3 - 10.0.0.9", "10.0.0.3-fd00::1", "0.0.0.0/0", "255.255.255.255", "0.0.0.0"),
    *("fd00::5", "FD00::11", "fd00:0::5", "fd00::/64", "::/0", "::", "::ffff:10.0.0.5", "fd00::5%eth0", "fe80::1"),
    *("eth0", "net1", "net0", "office", "lab*", "office; lab", ";", ",", "IPv4", "IPv6", "30s", "1e3s", "1m30s"),
    *("*", "AAAB", "AA==", "A", "////", "deadbeef", "shop/Deployment.apps/web", "K8S_POD_NAME=a;IP=10.0.0.7"),
)
_MOST_ALTERATIONS = 12


class Bytes:
    """Bytes read one after the other; when they end, zeros."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def __bool__(self) -> bool:
        return self._at < len(self._content)

    def below(self, most: int) -> int:
        """A number from 0 to `most` - 1, `most` at most 65,536."""
        raw = self.take(1 if most <= 256 else 2)
        return int.from_bytes(raw, "big") % most

    def take(self, size: int) -> bytes:
        raw = self._content[self._at : self._at + size]
        self._at += size
        return raw


def altered(documents: Sequence[Any], content: bytes) -> Any:
    """One of the documents, altered. The documents themselves stay as they are."""
    source = Bytes(content)
    document = documents[source.below(len(documents))]
    for _ in range(_MOST_ALTERATIONS):
        if not source:
            break
        document = _alter(document, document, source)
    return document


def _alter(place: Any, whole: Any, source: Bytes) -> Any:
    """The place as it was, with an alteration somewhere in it."""
    if not isinstance(place, dict | list) or not place or source.below(8) == 0:
        return _other(place, whole, source)
    if isinstance(place, list):
        at = source.below(len(place) + 1)
        if at == len(place):
            return [*place, _other(place[0], whole, source)]
        if source.below(8) == 0:
            return [*place[:at], *place[at + 1 :]]
        return [*place[:at], _alter(place[at], whole, source), *place[at + 1 :]]
    keys = sorted(place)
    key = keys[source.below(len(keys))]
    match source.below(12):
        case 0:
            return {each: value for each, value in place.items() if each != key}
        case 1:
            again = key.swapcase() if source.below(2) else _text(key, source)
            return {**place, again: _other(place[key], whole, source)}
        case 2:
            return {(_text(key, source) if each == key else each): value for each, value in place.items()}
        case _:
            return {**place, key: _alter(place[key], whole, source)}


def _other(place: Any, whole: Any, source: Bytes) -> Any:
    match source.below(4):
        case 0:
            return NASTY[source.below(len(NASTY))]
        case 1:
            return _part(whole, source)
        case _:
            return _text(place, source)


def _part(place: Any, source: Bytes) -> Any:
    while isinstance(place, dict | list) and place and source.below(4):
        values = list(place.values()) if isinstance(place, dict) else place
        place = values[source.below(len(values))]
    return place


def _text(place: Any, source: Bytes) -> str:
    """The text there was, cut and mended."""
    text = place if isinstance(place, str) else ""
    first, last = source.below(len(text) + 1), source.below(len(text) + 1)
    nasty = NASTY[source.below(len(NASTY))]
    middle = (
        nasty if isinstance(nasty, str) and source.below(2) else source.take(source.below(6)).decode("utf-8", "replace")
    )
    return text[: min(first, last)] + middle + text[max(first, last) :]
