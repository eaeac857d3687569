"""The TLS side of the server: a certificate that can be exchanged while connections are open.

asyncio keeps one SSLContext for as long as it listens. Each handshake is sent on to the context of the day: a new
certificate never meets an old key, and connections that are open go on as they are. A pair that can't be used is
reported and the one in use stays.
"""

import asyncio
import logging
import ssl
import tempfile
from pathlib import Path

from berth.kube.errors import BadConfiguration

log = logging.getLogger(__name__)

WATCH_SECONDS = 2.0


class Identity:
    """What the server presents. `context` is for the listening socket."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        self._current = server_context(certificate, key)
        self._pair = (certificate, key)
        self.context = server_context(certificate, key)
        self.context.sni_callback = self._choose

    def differs(self, certificate: bytes, key: bytes) -> bool:
        return (certificate, key) != self._pair

    def exchange(self, certificate: bytes, key: bytes) -> bool:
        """From the next handshake on. False: it is the same. Raises ValueError for a pair that can't be used."""
        if not self.differs(certificate, key):
            return False
        self._current = server_context(certificate, key)
        self._pair = (certificate, key)
        return True

    def _choose(self, connection: ssl.SSLObject, host: str | None, listening: ssl.SSLContext) -> None:
        connection.context = self._current


def server_context(certificate: bytes, key: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # ssl reads certificates from files alone; this one is ours for a moment, mode 0600.
    with tempfile.NamedTemporaryFile(prefix="berth-") as both:
        both.write(certificate.rstrip() + b"\n" + key)
        both.flush()
        try:
            context.load_cert_chain(both.name, password=_no_password)
        except ssl.SSLError as error:
            raise ValueError((error.reason or "not PEM").replace("_", " ").lower()) from None
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def read_files(certificate: Path, key: Path) -> tuple[bytes, bytes]:
    """What --cert and --key name; one line for each way it can be wrong."""
    contents: list[bytes] = []
    for flag, path in (("--cert", certificate), ("--key", key)):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BadConfiguration(
                f"{flag} {path}: {error.strerror}: give a readable PEM file, or leave out --cert and --key"
                " to have a certificate made"
            ) from None
        wanted = b"CERTIFICATE-----" if flag == "--cert" else b"PRIVATE KEY-----"
        if wanted not in content:
            kind = "certificate" if flag == "--cert" else "private key"
            raise BadConfiguration(f"{flag} {path}: holds no PEM {kind}: look whether the two files are mixed up")
        contents.append(content)
    return contents[0], contents[1]


def identity_from_files(certificate: Path, key: Path) -> Identity:
    pair = read_files(certificate, key)
    try:
        return Identity(*pair)
    except ValueError as error:
        raise BadConfiguration(
            f"--cert {certificate} and --key {key}: can't be used together ({error}): give the key that belongs"
            " to the certificate, unencrypted"
        ) from None


async def follow_files(identity: Identity, certificate: Path, key: Path) -> None:
    """Take over new files as they come. Two files never change at one moment: a pair that doesn't fit is read again."""
    complaint = ""
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        try:
            if identity.exchange(*read_files(certificate, key)):
                log.info("serving the new certificate of %s", certificate)
            complaint = ""
        except (BadConfiguration, ValueError) as error:
            if str(error) != complaint:
                complaint = str(error)
                log.warning("still serving the old certificate: %s", error)
