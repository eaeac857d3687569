"""Who answers for an address on the wire: the test of all tests that it is given once."""

import ipaddress
import socket
import struct
import time
from collections.abc import Collection

_ARP, _REQUEST, _REPLY = 0x0806, 1, 2
_BROADCAST, _NOBODY = b"\xff" * 6, b"\0" * 6
_HEADER = struct.pack("!HHBB", 1, 0x0800, 6, 4)
_WAIT_SECONDS = 2.0
_LATER_SECONDS = 0.2  # for a second one to answer


def answers(link: str, addresses: Collection[str]) -> dict[str, set[str]]:
    """The hardware addresses that answer for each IPv4 address, asked for on a link of this machine (RFC 5227)."""
    found: dict[str, set[str]] = {address: set() for address in addresses}
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ARP)) as wire:
        wire.bind((link, _ARP))
        own: bytes = wire.getsockname()[4]
        for address in found:
            wire.send(_BROADCAST + own + struct.pack("!H", _ARP) + _question(own, address))
        until = time.monotonic() + (_WAIT_SECONDS if found else 0)
        while (left := until - time.monotonic()) > 0:
            wire.settimeout(left)
            try:
                frame = wire.recv(128)
            except TimeoutError:
                break
            sender, address = frame[22:28], str(ipaddress.IPv4Address(frame[28:32]))
            waiting = not all(found.values())
            if frame[20:22] == struct.pack("!H", _REPLY) and address in found:
                found[address].add(sender.hex(":"))
                if waiting and all(found.values()):
                    until = time.monotonic() + _LATER_SECONDS
    return found


def _question(own: bytes, address: str) -> bytes:
    """From nobody yet: so it is answered, and nobody's table learns of it."""
    return _HEADER + struct.pack("!H", _REQUEST) + own + b"\0" * 4 + _NOBODY + ipaddress.IPv4Address(address).packed
