"""Reads config/ as kustomize does, as far as these files go: resources one after another, and their namespace."""

from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
CONFIG = REPOSITORY / "config"
NAMESPACED = {
    "DaemonSet", "Deployment", "PodDisruptionBudget", "Role", "RoleBinding", "Secret", "Service", "ServiceAccount",
}  # fmt: skip
Manifest = dict[str, Any]


def load(folder: Path = CONFIG / "default") -> list[Manifest]:
    """All objects of a kustomization."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    found: list[Manifest] = []
    for name in kustomization["resources"]:
        path = (folder / name).resolve()
        found += load(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    if (namespace := kustomization.get("namespace")) is not None:
        for each in found:
            if each["kind"] in NAMESPACED:
                each["metadata"]["namespace"] = namespace
    return found


def of_kind(*kinds: str) -> list[Manifest]:
    return [each for each in load() if each["kind"] in kinds]


def named(kind: str, name: str) -> Manifest:
    (found,) = [each for each in of_kind(kind) if each["metadata"]["name"] == name]
    return found


def workloads() -> list[Manifest]:
    return of_kind("Deployment", "DaemonSet")
