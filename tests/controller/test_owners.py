"""Whether an application is still there, of whatever kind it is, and what becomes of its slice when nobody may tell."""

import asyncio
from typing import Any

import pytest

from berth.controller.owners import exists, parent_of
from berth.controller.slicer import Slicer
from berth.core.claim import Owner
from berth.core.slicing import Application
from berth.kube.client import Object
from berth.kube.errors import Denied, KubeError, NotFound, Unknown


class Answers:
    """An API that has these answers, and to all else 404."""

    def __init__(self, **answers: Any) -> None:
        self._answers = {"/" + path.replace("__", "/"): answer for path, answer in answers.items()}

    async def get(self, path: str, params: object = None) -> Object:
        answer = self._answers.get(path.replace(".", "_").replace("-", "_"), NotFound(404, "NotFound", path))
        if isinstance(answer, KubeError):
            raise answer
        found: Object = answer
        return found


def kinds(*names: str) -> Object:
    return {
        "resources": [
            {"name": f"{name.lower()}s", "kind": name.partition("/")[0], "namespaced": True} for name in names
        ]
    }


KRUISE = {
    "apis__apps_kruise_io": {"preferredVersion": {"groupVersion": "apps.kruise.io/v1beta1"}},
    "apis__apps_kruise_io__v1beta1": kinds("CloneSet/status", "CloneSet"),
}
WEB = "apis__apps_kruise_io__v1beta1__namespaces__shop__clonesets__web"
CORE = {"api__v1": kinds("ReplicationController")}
OLD = "api__v1__namespaces__shop__replicationcontrollers__old"


@pytest.mark.parametrize(
    ("application", "answers", "there"),
    [
        ("shop/CloneSet.apps.kruise.io/web", {**KRUISE, WEB: {"metadata": {"name": "web"}}}, True),
        ("shop/CloneSet.apps.kruise.io/web", KRUISE, False),
        ("shop/CloneSet.apps.kruise.io/web", {}, False),  # its CustomResourceDefinition is gone
        ("shop/Rollout.apps.kruise.io/web", KRUISE, False),
        ("shop/ReplicationController/old", {**CORE, OLD: {"metadata": {"name": "old"}}}, True),
        ("shop/ReplicationController/old", CORE, False),
    ],
)
def test_an_application_of_any_kind_is_looked_for(application: str, answers: dict[str, Any], there: bool) -> None:
    read = Application.read(application)
    assert read is not None
    api: Any = Answers(**answers)
    assert asyncio.run(exists(api, read)) is there


@pytest.mark.parametrize("error", [Denied(403, "Forbidden", "no"), Unknown("no answer")])
def test_one_that_may_not_be_read_or_of_which_nothing_is_heard_is_not_gone(error: KubeError) -> None:
    api: Any = Answers(**{**KRUISE, WEB: error})
    slicer = Slicer(api, lambda: 0.0)
    if isinstance(error, Denied):
        assert asyncio.run(slicer.there("shop/CloneSet.apps.kruise.io/web"))
    else:
        with pytest.raises(Unknown):
            asyncio.run(slicer.there("shop/CloneSet.apps.kruise.io/web"))


REFERENCE = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": True}
REPLICASET = "apis__apps__v1__namespaces__shop__replicasets__web_1"


@pytest.mark.parametrize(
    ("there", "parent"),
    [
        ({"metadata": {"uid": "rs", "ownerReferences": [REFERENCE]}}, Owner("Deployment", "web", "d")),
        ({"metadata": {"uid": "rs"}}, None),
        ({"metadata": {"uid": "of the same name", "ownerReferences": [REFERENCE]}}, None),
        (NotFound(404, "NotFound", ""), None),
    ],
)
def test_a_replicaset_is_of_what_made_this_very_one(there: Any, parent: Owner | None) -> None:
    api: Any = Answers(**{REPLICASET: there})
    assert asyncio.run(parent_of(api, "shop", Owner("ReplicaSet", "web-1", "rs"))) == parent
