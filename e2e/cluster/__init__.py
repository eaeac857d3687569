"""A real Kubernetes cluster on one Linux machine, without Docker: see README.md beside this file."""

from e2e.cluster.cleanup import leftovers
from e2e.cluster.cluster import Cluster
from e2e.cluster.controlplane import ControlPlane, Options
from e2e.cluster.errors import BuildError, ClusterError, CommandError, MissingToolError, StartError
from e2e.cluster.node import Node
from e2e.cluster.process import Process

__all__ = [
    "BuildError",
    "Cluster",
    "ClusterError",
    "CommandError",
    "ControlPlane",
    "MissingToolError",
    "Node",
    "Options",
    "Process",
    "StartError",
    "leftovers",
]
