"""Berth's parts on a bare control plane, as processes of this machine, with the rights that `config/` gives them.

The same service accounts, roles and policy as in a cluster; an agent's token is bound to its node, as a DaemonSet's is.
"""

import json
from pathlib import Path
from typing import Any

from e2e.cluster import ControlPlane

ROOT = Path(__file__).parents[1]
SYSTEM = "berth-system"
_INSTALLED = ("operator/serviceaccount", "operator/rbac", "agent/serviceaccount", "agent/rbac", "agent/policy")
_TOKEN_SECONDS = 6 * 3600


def install(plane: ControlPlane) -> None:
    """Kinds, accounts, roles and the policy; no Pods."""
    plane.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    plane.kubectl("wait", "--for=condition=Established", "crd", "-l", "app.kubernetes.io/part-of=berth")
    plane.kubectl("create", "namespace", SYSTEM)
    files = [word for name in _INSTALLED for word in ("-f", str(ROOT / "config" / f"{name}.yaml"))]
    plane.kubectl("apply", *files)


def kubeconfig(plane: ControlPlane, account: str, node: str = "", *, name: str = "", server: str = "") -> Path:
    """A file with a token of the service account; `server`: another way to the API server than the straight one."""
    bound = {"boundObjectRef": {"kind": "Node", "apiVersion": "v1", "name": node}} if node else {}
    spec = {"audiences": [], "expirationSeconds": _TOKEN_SECONDS, **bound}
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    path = f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/{account}/token"
    told = json.loads(plane.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(asked)))
    content: dict[str, Any] = json.loads(plane.kubeconfig.read_text())
    content["users"] = [{"name": content["users"][0]["name"], "user": {"token": told["status"]["token"]}}]
    if server:
        content["clusters"][0]["cluster"]["server"] = server
    file = plane.directory / f"{name or '-'.join(filter(None, (account, node)))}.kubeconfig"
    file.write_text(json.dumps(content))
    file.chmod(0o600)
    return file
