"""How to reach the API server: a kubeconfig, or the service account of the Pod we run in.

Our own reader, because kubernetes-asyncio's brings every model of Kubernetes with it: 72 MB against the agent's budget
of 45 MB for everything. It reads what service accounts and certificate users have: server, CA, client certificate,
token, token file. A kubeconfig that runs a command for its credentials is refused with the remedy.
"""

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from berth.kube.errors import BadConfiguration

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API server is and who we are to it. `token_file` is read anew as it is rotated."""

    server: str
    tls: ssl.SSLContext | None = None
    token: str | None = None
    token_file: Path | None = None
    ca_data: bytes | None = None  # for kopf, which wants a file of its own
    certificate: tuple[bytes, bytes] | None = None  # PEM: certificate, key

    def bearer(self) -> str | None:
        """The token as it is now."""
        if self.token_file is None:
            return self.token
        try:
            return self.token_file.read_text().strip()
        except OSError as error:
            raise BadConfiguration(f"token file {self.token_file}: {error.strerror}: is it mounted?") from None


def load(kubeconfig: str | None) -> Access:
    """The kubeconfig named, else $KUBECONFIG, else the service account, else ~/.kube/config."""
    if kubeconfig:
        return from_kubeconfig(Path(kubeconfig))
    if found := os.environ.get("KUBECONFIG"):
        return from_kubeconfig(Path(found.split(os.pathsep)[0]))
    if "KUBERNETES_SERVICE_HOST" in os.environ and (SERVICE_ACCOUNT / "token").exists():
        return from_service_account(os.environ, SERVICE_ACCOUNT)
    default = Path.home() / ".kube" / "config"
    if default.exists():
        return from_kubeconfig(default)
    raise BadConfiguration(
        "no way to the Kubernetes API: give --kubeconfig FILE, set KUBECONFIG, or run in a Pod with a service account"
    )


def from_service_account(environment: Mapping[str, str], folder: Path) -> Access:
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment.get("KUBERNETES_SERVICE_PORT", "443")
    try:
        ca = (folder / "ca.crt").read_bytes()
    except OSError as error:
        raise BadConfiguration(f"{folder / 'ca.crt'}: {error.strerror}: is a service account mounted?") from None
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return Access(server, tls=_tls(ca, None, str(folder / "ca.crt")), token_file=folder / "token", ca_data=ca)


def from_kubeconfig(path: Path) -> Access:
    """The current context of a kubeconfig."""
    try:
        content = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise BadConfiguration(f"kubeconfig {path}: {error.strerror}: check --kubeconfig") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise BadConfiguration(
            f"kubeconfig {path}: is not YAML: get it anew from the cluster's administrator"
        ) from None
    return _Kubeconfig(path, content).access()


class _Kubeconfig:
    """Reads one kubeconfig; every error names the file and the field."""

    def __init__(self, path: Path, content: object) -> None:
        self._path = path
        if not isinstance(content, dict):
            raise self._bad("kind", "is not a kubeconfig (expected kind: Config)")
        self._content: dict[str, Any] = content

    def _bad(self, field: str, why: str) -> BadConfiguration:
        return BadConfiguration(f"kubeconfig {self._path}: {field}: {why}")

    def access(self) -> Access:
        context = self._named("contexts", self._content.get("current-context"), "current-context")["context"]
        cluster = self._named("clusters", context.get("cluster"), "context.cluster")["cluster"]
        user: dict[str, Any] = {}
        if context.get("user"):
            user = self._named("users", context["user"], "context.user").get("user") or {}
        for field in ("exec", "auth-provider"):
            if field in user:
                raise self._bad(f"user.{field}", "is not supported: use a client certificate, a token or a token file")
        server = cluster.get("server")
        if not isinstance(server, str) or not server.startswith(("https://", "http://")):
            raise self._bad("cluster.server", f"{server!r} is no URL: write https://HOST:PORT")
        ca = self._bytes(cluster, "certificate-authority")
        certificate, key = self._bytes(user, "client-certificate"), self._bytes(user, "client-key")
        if (certificate is None) != (key is None):
            raise self._bad("user.client-certificate", "and user.client-key: give both or neither")
        pair = (certificate, key) if certificate is not None and key is not None else None
        token_file = user.get("tokenFile")
        return Access(
            server.rstrip("/"),
            tls=self._tls(cluster, ca, pair) if server.startswith("https") else None,
            token=user.get("token"),
            token_file=self._path.parent / token_file if token_file else None,
            ca_data=ca,
            certificate=pair,
        )

    def _tls(self, cluster: dict[str, Any], ca: bytes | None, pair: tuple[bytes, bytes] | None) -> ssl.SSLContext:
        context = _tls(ca, pair, f"kubeconfig {self._path}")
        if cluster.get("insecure-skip-tls-verify"):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _named(self, section: str, name: object, field: str) -> dict[str, Any]:
        for entry in self._content.get(section) or []:
            if isinstance(entry, dict) and entry.get("name") == name and name:
                return entry
        raise self._bad(field, f"{name!r} is not listed in {section}: check which context is current")

    def _bytes(self, section: dict[str, Any], field: str) -> bytes | None:
        if data := section.get(f"{field}-data"):
            try:
                return base64.b64decode(data, validate=True)
            except (binascii.Error, ValueError, TypeError):
                raise self._bad(f"{field}-data", "is not base64") from None
        if name := section.get(field):
            try:
                return (self._path.parent / str(name)).read_bytes()
            except OSError as error:
                raise self._bad(field, f"{name}: {error.strerror}") from None
        return None


def _tls(ca: bytes | None, pair: tuple[bytes, bytes] | None, where: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=ca.decode("ascii") if ca else None)
    except (ssl.SSLError, UnicodeDecodeError, ValueError):
        raise BadConfiguration(f"{where}: certificate-authority: is not a PEM certificate") from None
    if pair is not None:
        # ssl reads certificates from files alone; this one is ours for a moment, mode 0600.
        with tempfile.NamedTemporaryFile(prefix="berth-") as both:
            both.write(pair[0] + b"\n" + pair[1])
            both.flush()
            try:
                context.load_cert_chain(both.name)
            except (ssl.SSLError, ValueError):
                raise BadConfiguration(
                    f"{where}: client-certificate and client-key: are not a PEM pair that belongs together"
                ) from None
    return context
