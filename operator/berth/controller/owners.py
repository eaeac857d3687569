"""Workloads as the API knows them: what made a ReplicaSet or a Job, and whether an application is still there.

An application may be of any kind, one of somebody's own included: the API itself says under which path a kind is found.
"""

from berth.controller.surroundings import owner_of
from berth.core.claim import Owner
from berth.core.slicing import Application
from berth.kube.client import Api, Object
from berth.kube.errors import NotFound
from berth.kube.resources import JOBS, REPLICASETS


async def parent_of(api: Api, namespace: str, owner: Owner) -> Owner | None:
    """The controller of a ReplicaSet or a Job. One that is gone, or is made by hand, has none."""
    resource = REPLICASETS if owner.kind == REPLICASETS.kind else JOBS
    item = await _get(api, resource.path(owner.name, namespace=namespace))
    return None if item is None or item["metadata"]["uid"] != owner.uid else owner_of(item)


async def exists(api: Api, application: Application) -> bool:
    """Read live. A kind that the API no longer has is gone with all of its objects."""
    folder = await _folder(api, application)
    if folder is None:
        return False
    return await _get(api, folder + f"/{application.name}") is not None


async def _folder(api: Api, application: Application) -> str | None:
    base = "/api/v1"
    if application.group:
        group = await _get(api, f"/apis/{application.group}")
        if group is None:
            return None
        base = f"/apis/{group['preferredVersion']['groupVersion']}"
    for each in (await api.get(base))["resources"]:
        if each["kind"] == application.kind and each["namespaced"] and "/" not in each["name"]:
            return f"{base}/namespaces/{application.namespace}/{each['name']}"
    return None


async def _get(api: Api, path: str) -> Object | None:
    try:
        return await api.get(path)
    except NotFound:
        return None
