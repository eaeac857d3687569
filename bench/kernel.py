"""The few system calls of a container runtime: namespaces entered by one thread, mounts, the addresses of a link.

Python has `unshare` and `setns` from 3.12 on only, and a command for each (`ip netns add`) costs more than the CNI
plugin that is to be measured. Each function acts on the calling thread.
"""

import ctypes
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_MNT_DETACH = 2
_SIOCSIFFLAGS, _SIOCGIFADDR = 0x8914, 0x8915
_UP_AND_RUNNING = 0x41
_LINK_LOCAL = "20"
_OWN_NETWORK = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p)


def _call(done: int, what: str) -> None:
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def own_mounts() -> None:
    """A mount namespace of this process: what it mounts goes with it, however it ends. Before any thread starts."""
    _call(_libc.unshare(CLONE_NEWNS), "unshare of the mount namespace (the benchmark needs root)")
    _call(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "making mounts private")


def own_network() -> int:
    """A new network namespace for this thread, and a descriptor to come back to it by."""
    _call(_libc.unshare(CLONE_NEWNET), "unshare of the network namespace")
    return os.open(_OWN_NETWORK, os.O_RDONLY | os.O_CLOEXEC)


def enter_network(descriptor: int) -> None:
    _call(_libc.setns(descriptor, CLONE_NEWNET), "setns")


@contextmanager
def network_of(place: Path, back: int) -> Iterator[None]:
    """This thread inside the namespace mounted at `place`; afterwards back where it was."""
    descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter_network(descriptor)
        yield
    finally:
        enter_network(back)
        os.close(descriptor)


def make_network(place: Path, back: int) -> None:
    """A new network namespace, its loopback up, kept by a bind mount at `place`, as runtimes do."""
    os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o444))
    _call(_libc.unshare(CLONE_NEWNET), "unshare of the network namespace")
    try:
        _loopback_up()
        _call(_libc.mount(_OWN_NETWORK.encode(), os.fsencode(place), None, _MS_BIND, None), f"mount at {place}")
    finally:
        enter_network(back)


def remove_network(place: Path) -> None:
    _call(_libc.umount2(os.fsencode(place), _MNT_DETACH), f"unmount of {place}")
    place.unlink()


def addresses_of(interface: str) -> list[str]:
    """The addresses of a link of this thread's namespace, without those every link gives itself."""
    found: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("16s24x", interface.encode()))
            found.append(str(ipaddress.IPv4Address(answer[20:24])))
        except OSError:
            pass  # it has none
    for line in Path("/proc/thread-self/net/if_inet6").read_text().splitlines():
        digits, _, _, scope, _, name = line.split()
        if name == interface and scope != _LINK_LOCAL:
            found.append(str(ipaddress.IPv6Address(bytes.fromhex(digits))))
    return found


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _UP_AND_RUNNING))
