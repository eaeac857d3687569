"""The resources Berth reads and writes, and their paths."""

from dataclasses import dataclass

GROUP = "ipam.berth.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind, as URLs name it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool

    def path(self, name: str | None = None, *, namespace: str | None = None, sub: str | None = None) -> str:
        """`/apis/GROUP/VERSION[/namespaces/NS]/PLURAL[/NAME[/SUB]]`."""
        parts = ["/api" if not self.group else f"/apis/{self.group}", self.version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name is not None:
            parts.append(name)
        if sub is not None:
            parts.append(sub)
        return "/".join(parts)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


POOLS = Resource(GROUP, VERSION, "ippools", "IPPool", namespaced=False)
ENDPOINTS = Resource(GROUP, VERSION, "endpoints", "Endpoint", namespaced=True)
RESERVED = Resource(GROUP, VERSION, "reservedips", "ReservedIP", namespaced=False)
PODS = Resource("", "v1", "pods", "Pod", namespaced=True)
STATEFUL_SETS = Resource("apps", "v1", "statefulsets", "StatefulSet", namespaced=True)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
REPLICASETS = Resource("apps", "v1", "replicasets", "ReplicaSet", namespaced=True)
JOBS = Resource("batch", "v1", "jobs", "Job", namespaced=True)
EVENTS = Resource("events.k8s.io", "v1", "events", "Event", namespaced=True)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", namespaced=True)
