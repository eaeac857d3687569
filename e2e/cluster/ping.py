"""`python3 -m e2e.cluster.ping ADDRESS`: an ICMP echo, run inside a namespace; no machine needs a package for it."""

import os
import socket
import struct
import sys
import time

BOUND = 3.0


def ping(address: str) -> bool:
    """Whether an IPv4 or IPv6 address answers within three tries of a second each."""
    v6 = ":" in address
    family, protocol = (socket.AF_INET6, "ipv6-icmp") if v6 else (socket.AF_INET, "icmp")
    with socket.socket(family, socket.SOCK_RAW, socket.getprotobyname(protocol)) as wire:
        wire.settimeout(0.2)
        end = time.monotonic() + BOUND
        for sequence in range(int(BOUND)):
            wire.sendto(_request(128 if v6 else 8, sequence), (address, 0))
            while time.monotonic() < end - BOUND + sequence + 1:
                try:
                    packet, sender = wire.recvfrom(2048)
                except TimeoutError:
                    continue
                reply = packet if v6 else packet[(packet[0] & 15) * 4 :]
                if reply[0] == (129 if v6 else 0) and sender[0] == address and reply[4:6] == _identifier():
                    return True
    return False


def _identifier() -> bytes:
    return struct.pack("!H", os.getpid() & 0xFFFF)


def _request(kind: int, sequence: int) -> bytes:
    body = _identifier() + struct.pack("!H", sequence) + b"berth"
    header = struct.pack("!BBH", kind, 0, 0)
    return header[:2] + _checksum(header + body) + body


def _checksum(data: bytes) -> bytes:
    """The internet checksum; for IPv6 the kernel replaces it."""
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


if __name__ == "__main__":
    sys.exit(0 if ping(sys.argv[1]) else f"{sys.argv[1]} does not answer")
