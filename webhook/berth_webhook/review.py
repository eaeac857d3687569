"""An AdmissionReview: what is asked, which facts the answer needs, and the answer. Pure.

Whatever JSON comes in, nothing raises: what is no AdmissionReview is `Unusable` (HTTP 400), and what is one but
can't be understood is refused with a reason.

The pool's own ledger is taken from the request, not from a read of ours: the API server hands over the object it is
about to change, and asks again if that has moved before its conditional write. So of an address granted meanwhile this
check learns in time. Of other pools it can't: see `berth.core.admission`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from berth.core.admission import (
    Before,
    Held,
    Refusal,
    Verdict,
    by_family,
    judge_deletion,
    judge_pool,
    judge_reservation,
)
from berth.core.pool import BadField
from berth.core.ranges import Ranges
from berth.kube.resources import GROUP, POOLS, RESERVED
from berth_webhook.facts import (
    Object,
    around,
    draft_of,
    family_of,
    held_by_endpoints,
    held_by_pool,
    held_of,
    name_of,
    reserved_ips,
    section,
)

API_VERSION = "admission.k8s.io/v1"


class Need(StrEnum):
    """What must be read before a review can be decided."""

    POOLS = "ippools"
    RESERVED = "reservedips"
    ENDPOINTS = "endpoints"


@dataclass(frozen=True, slots=True)
class Unusable:
    """No AdmissionReview that could be answered."""

    why: str


@dataclass(frozen=True, slots=True)
class Review:
    """A question of the API server. `new` is empty for DELETE, `old` for CREATE."""

    uid: str
    operation: str
    resource: str
    subresource: str
    name: str
    new: Object
    old: Object

    @property
    def subject(self) -> str:
        kind = {POOLS.plural: POOLS.kind, RESERVED.plural: RESERVED.kind}.get(self.resource, self.resource)
        return f"{kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Known:
    """What was read from the API. `gaps`: what could not be, and why."""

    pools: Sequence[object] = ()
    reserved: Sequence[object] = ()
    endpoints: Sequence[object] = ()
    gaps: tuple[tuple[Need, str], ...] = ()


def read(body: bytes) -> Review | Unusable:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Unusable("the body is not JSON")
    if not isinstance(content, dict) or content.get("kind") != "AdmissionReview":
        return Unusable("the body is not an AdmissionReview")
    if content.get("apiVersion") != API_VERSION:
        return Unusable(f"this webhook speaks {API_VERSION} only: set admissionReviewVersions: [v1]")
    request = section(content, "request")
    uid, operation, resource = request.get("uid"), request.get("operation"), section(request, "resource")
    group, plural = resource.get("group"), resource.get("resource")
    if not isinstance(uid, str) or not uid:
        return Unusable("the AdmissionReview has no request.uid")
    if not isinstance(operation, str) or not isinstance(plural, str):
        return Unusable("the AdmissionReview does not say which operation on which resource")
    new, old, sub = section(request, "object"), section(request, "oldObject"), request.get("subResource")
    name = request.get("name")
    return Review(
        uid=uid,
        operation=operation,
        resource=plural if group == GROUP else f"{plural}.{group}",
        subresource=sub if isinstance(sub, str) else "",
        name=name_of(new) or name_of(old) or (name if isinstance(name, str) else ""),
        new=new,
        old=old,
    )


def exempt(review: Review) -> bool:
    """What is never held up: status, what is not ours, an object on its way out, a change of metadata alone."""
    ours = {POOLS.plural: ("CREATE", "UPDATE", "DELETE"), RESERVED.plural: ("CREATE", "UPDATE")}
    if review.subresource or review.operation not in ours.get(review.resource, ()):
        return True
    leaving = section(review.old, "metadata").get("deletionTimestamp") is not None
    if review.operation == "UPDATE":
        leaving = leaving or section(review.new, "metadata").get("deletionTimestamp") is not None
        # Two objects without any spec are equal, too; but that is no AdmissionReview of an UPDATE.
        return leaving or ("spec" in review.new and review.new["spec"] == review.old.get("spec"))
    return leaving and review.operation == "DELETE"


def needs(review: Review) -> frozenset[Need]:
    """What to read before `decide`."""
    if exempt(review):
        return frozenset()
    if review.resource == RESERVED.plural:
        return frozenset({Need.POOLS})
    doubtful = isinstance(held_of(review.old, family_of(review.old)), BadField)
    wanted = {Need.ENDPOINTS} if doubtful else set()
    return frozenset(wanted if review.operation == "DELETE" else wanted | {Need.POOLS, Need.RESERVED})


def blind(review: Review, known: Known) -> bool:
    """Whether something that the decision itself rests on could not be read; the rest is for warnings alone."""
    missing = {need for need, _ in known.gaps}
    return review.resource == POOLS.plural and bool(missing & {Need.POOLS, Need.ENDPOINTS})


def decide(review: Review, known: Known) -> Verdict:
    if exempt(review):
        return Verdict(review.subject)
    if not (review.old if review.operation == "DELETE" else review.new):
        return _refused(review, "the API server sent no object to judge: is the webhook's configuration its own?")
    gaps = dict(known.gaps)
    if review.resource == RESERVED.plural:
        return _decide_reservation(review, known, gaps)
    if blind(review, known):
        listed = ", ".join(f"{need} ({why})" for need, why in known.gaps)
        return _refused(review, f"can't be judged now, as the API could not be read: {listed}: try again")
    verdict = _decide_pool(review, known)
    if Need.RESERVED in gaps and verdict.allowed:
        warning = f"ReservedIPs could not be read ({gaps[Need.RESERVED]}): not looked at whether some are inside"
        return Verdict(verdict.subject, (), (*verdict.warnings, warning))
    return verdict


def _decide_pool(review: Review, known: Known) -> Verdict:
    held = held_of(review.old, family_of(review.old))
    in_use = Held(held) if isinstance(held, Ranges) else held_by_endpoints(review.name, str(held), known.endpoints)
    if review.operation == "DELETE":
        return judge_deletion(review.name, in_use)
    new = draft_of(review.name, review.new)
    before = Before(draft_of(review.name, review.old), in_use) if review.operation == "UPDATE" else None
    return judge_pool(new, before, around(review.name, new.pool, known.pools, known.reserved))


def _decide_reservation(review: Review, known: Known, gaps: Mapping[Need, str]) -> Verdict:
    ips = reserved_ips(review.new)
    bad = tuple(each for each in ips if isinstance(each, BadField))
    if bad:
        return Verdict(review.subject, tuple(Refusal(each.field, each.why) for each in bad))
    texts = tuple(each for each in ips if isinstance(each, str))
    old = tuple(each for each in reserved_ips(review.old) if isinstance(each, str))
    verdict = judge_reservation(review.name, texts, old, held_by_pool(known.pools, by_family(texts)))
    if Need.POOLS in gaps and verdict.allowed:
        warning = f"IPPools could not be read ({gaps[Need.POOLS]}): not looked at whether any address is in use"
        return Verdict(verdict.subject, (), (*verdict.warnings, warning))
    return verdict


def _refused(review: Review, why: str) -> Verdict:
    return Verdict(review.subject, (Refusal("", why),))


def answer(review: Review, verdict: Verdict, *, unavailable: bool = False) -> dict[str, Any]:
    """The AdmissionReview to send back. A refusal with fields says Invalid, as the API server's own do, and kubectl
    prints field by field; one of the object as a whole says Forbidden; `unavailable` that it may pass later."""
    response: dict[str, Any] = {"uid": review.uid, "allowed": verdict.allowed}
    if verdict.warnings:
        response["warnings"] = [f"{verdict.subject}: {each}" for each in verdict.warnings]
    if not verdict.allowed:
        response["status"] = _status(review, verdict, unavailable)
    return {"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}


def _status(review: Review, verdict: Verdict, unavailable: bool) -> dict[str, Any]:
    status: dict[str, Any] = {"status": "Failure", "message": verdict.message}
    if unavailable:
        return {**status, "code": 503, "reason": "ServiceUnavailable"}
    if not any(each.field for each in verdict.refusals):
        return {**status, "code": 403, "reason": "Forbidden"}
    causes = [{"reason": "FieldValueInvalid", "field": each.field, "message": each.why} for each in verdict.refusals]
    kind, _, name = verdict.subject.partition(" ")
    details = {"name": name, "group": GROUP, "kind": kind, "causes": causes}
    return {**status, "code": 422, "reason": "Invalid", "details": details}
