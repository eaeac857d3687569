"""A throw-away certificate authority, made with openssl in a folder of its own."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.shell import require, run

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate and its private key, both PEM files."""

    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Authority:
    """Issues the certificates of one cluster; client and server certificates come from the same root."""

    folder: Path

    @property
    def cert(self) -> Path:
        return self.folder / "ca.crt"

    def create(self) -> None:
        """Makes the root certificate and the key pair that signs service account tokens."""
        require(["openssl"])
        self.folder.mkdir(parents=True, exist_ok=True)
        # A configuration of our own: the machine's would add extensions that a leaf must not have.
        self._config.write_text("[req]\ndistinguished_name = dn\n[dn]\n")
        extensions = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature")
        self._request("ca", "/CN=berth-cluster", extensions)
        key = self.folder / "service-accounts.key"
        run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-out", key)
        run("openssl", "pkey", "-in", key, "-pubout", "-out", key.with_suffix(".pub"))

    @property
    def token_key(self) -> Credential:
        """Signs service account tokens; `cert` is the bare public key here."""
        key = self.folder / "service-accounts.key"
        return Credential(key.with_suffix(".pub"), key)

    def issue(self, name: str, user: str, groups: Sequence[str] = (), hosts: Sequence[str] = ()) -> Credential:
        """A certificate for a client (user and groups) that also serves `hosts` (DNS names and addresses)."""
        subject = "".join(f"/O={_escaped(group)}" for group in groups) + f"/CN={_escaped(user)}"
        usage = "extendedKeyUsage=clientAuth" + (",serverAuth" if hosts else "")
        names = ",".join(f"{'IP' if _is_address(host) else 'DNS'}:{host}" for host in hosts)
        extensions = ["keyUsage=critical,digitalSignature", usage]
        extensions += [f"subjectAltName={names}"] if hosts else []
        return self._request(name, subject, extensions, "-CA", self.cert, "-CAkey", self.folder / "ca.key")

    @property
    def _config(self) -> Path:
        return self.folder / "openssl.cnf"

    def _request(self, name: str, subject: str, extensions: Sequence[str], *signer: str | Path) -> Credential:
        made = Credential(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        argv = ["openssl", "req", "-x509", "-config", self._config, *_CURVE, "-days", "365", "-subj", subject, *signer]
        for extension in extensions:
            argv += ["-addext", extension]
        run(*argv, "-keyout", made.key, "-out", made.cert)
        return made


def write_kubeconfig(file: Path, server: str, authority: Authority, client: Credential) -> Path:
    """A kubeconfig for one client; JSON, which is YAML too. Files are named by path, so keep them."""
    cluster = {"server": server, "certificate-authority": str(authority.cert)}
    user = {"client-certificate": str(client.cert), "client-key": str(client.key)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "berth",
        "clusters": [{"name": "berth", "cluster": cluster}],
        "users": [{"name": "berth", "user": user}],
        "contexts": [{"name": "berth", "context": {"cluster": "berth", "user": "berth"}}],
    }
    file.write_text(json.dumps(config, indent=2) + "\n")
    file.chmod(0o600)
    return file


def _escaped(name: str) -> str:
    """A name inside openssl's -subj, where a slash starts the next part."""
    return name.replace("\\", "\\\\").replace("/", "\\/")


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()
