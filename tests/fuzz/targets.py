"""What reads input that others write, and the law each must keep.

A law takes any bytes. It raises AssertionError when it is broken; any other exception is one that nobody expects, and
breaks it as well. All say: the answer is a value, or the one error that belongs there with words in it; what was
accepted comes back the same when it is written again. The engines that bring the bytes are elsewhere: hypothesis in
`make test` (test_targets.py), atheris in `make fuzz` (__main__.py).
"""

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from berth.api.endpoint import Endpoint
from berth.api.ippool import IPPoolSpec, IPPoolStatus, LedgerEntry, write_ledger
from berth.api.reservedip import ReservedIPSpec
from berth.controller import claims
from berth.core.claim import Claim, Surroundings
from berth.core.ledger import Ledger
from berth.core.pool import BadField, Pool
from berth.core.ranges import (
    Family,
    Malformed,
    Span,
    Subnet,
    format_address,
    format_run,
    parse_address,
    parse_span,
    parse_subnet,
)
from berth.core.request import decide as decide_claim
from berth.core.selection import Choice, Offer, Refused
from berth_cni import spool
from berth_cni.calls import CniError
from berth_cni.configuration import parse
from berth_cni.frames import Malformed as BadFrame
from berth_cni.frames import Reply, Request, decode_reply, decode_request, encode_reply, encode_request
from berth_cni.journal import Journal
from berth_cni.result import failure
from berth_webhook.review import Known, Need, Unusable, answer, blind, decide, needs, read
from tests.fuzz.altering import altered
from tests.fuzz.documents import CALLS, ENDPOINTS, PODS, POOLS, RESERVATIONS, REVIEWS
from tests.invariants import check_ledger

Law = Callable[[bytes], None]


def _says_something(text: str) -> None:
    assert text.strip(), "an error without words"


# --- what people write -----------------------------------------------------------------------------------------------


def _ranges(content: bytes) -> None:
    text = content.decode("utf-8", "surrogateescape")
    address, span, subnet = parse_address(text), parse_span(text), parse_subnet(text)
    for found in (address, span, subnet):
        if isinstance(found, Malformed):
            _says_something(found.why)
    if not isinstance(address, Malformed):
        assert parse_address(format_address(*address)) == address
        assert span == Span(address[0], address[1], address[1]), "an address is a range of one"
    if isinstance(span, Span):
        assert 0 <= span.first <= span.last < 1 << span.family.bits
        assert parse_span(format_run(span.family, (span.first, span.last))) == span
    if isinstance(subnet, Subnet):
        assert parse_subnet(str(subnet)) == subnet
        assert isinstance(span, Span), "a subnet is a range"


def _pool(content: bytes) -> None:
    pool = _valid(IPPoolSpec, altered([each["spec"] for each in POOLS], content))
    if pool is None:
        return
    made = pool.to_core("office")
    if isinstance(made, BadField):
        assert made.field.startswith("spec.")
        _says_something(made.why)
        return
    assert all(made.subnet.network <= first <= last <= made.subnet.last for first, last in made.offered.runs)
    assert made.gateway is None or made.gateway not in made.offered, "the gateway would be given to a Pod"
    assert made.reuse_delay >= 0
    again = pool.model_dump(by_alias=True, mode="json", exclude_none=True)
    assert IPPoolSpec.model_validate(again).to_core("office") == made, "read back, it is another pool"


def _reservation(content: bytes) -> None:
    spec = _valid(ReservedIPSpec, altered(RESERVATIONS, content))
    made = None if spec is None else spec.to_core()
    if isinstance(made, BadField):
        assert made.field.startswith("spec.ips[")
        _says_something(made.why)


def _annotations(content: bytes) -> None:
    """What a Pod and its namespace say: a choice of pools, or one refusal."""
    said = altered(PODS, content)
    # The API server lets nothing else pass than text.
    pod, namespace = (
        {key: value for key, value in (part if isinstance(part, dict) else {}).items() if isinstance(value, str)}
        for part in (said if isinstance(said, list) and len(said) == 2 else (said, {}))
    )
    around = Surroundings(pod_annotations=pod, namespace_annotations=namespace)
    claim, outcome = decide_claim(_CLAIM, around, _OFFERS)
    assert claim.uid == _CLAIM.uid
    if isinstance(outcome, Refused):
        _says_something(outcome.message)
        return
    assert isinstance(outcome, Choice)
    assert any(outcome.candidates.values()), "neither refused nor given anything"
    for family, pools in outcome.candidates.items():
        assert all(pool.family is family for pool in pools)
        wanted = claim.wanted.get(family)
        assert wanted is None or 0 <= wanted < 1 << family.bits


# --- what a runtime and the shim send --------------------------------------------------------------------------------


def _call(content: bytes) -> None:
    """A call of CNI, almost right: its variables and its configuration."""
    call = altered(CALLS, content)
    if not isinstance(call, dict) or not isinstance(call.get("environment"), dict):
        return
    environment = {key: value for key, value in call["environment"].items() if isinstance(value, str)}
    _answered(environment, orjson.dumps(call.get("stdin")))


def _stdin(content: bytes) -> None:
    """Bytes for the configuration of a call that is right otherwise, and for its arguments."""
    environment = CALLS[0]["environment"]
    _answered(environment, content)
    arguments = content.decode("utf-8", "surrogateescape")
    _answered({**environment, "CNI_ARGS": arguments}, orjson.dumps(CALLS[0]["stdin"]))


def _answered(environment: dict[str, str], stdin: bytes) -> None:
    call = parse(environment, stdin)
    if isinstance(call, CniError):
        said = orjson.loads(failure(call))
        _says_something(said["msg"])
        assert len(said["msg"]) < 4096, "a message longer than anybody reads"
        assert 0 < said["code"] < 200


def _frame(content: bytes) -> None:
    request, reply = decode_request(content), decode_reply(content)
    for found in (request, reply):
        if isinstance(found, BadFrame):
            _says_something(found.reason)
    if isinstance(request, Request):
        written = encode_request(request)
        assert isinstance(written, bytes)
        assert decode_request(written) == request
        _answered(request.environment, request.stdin)
    if isinstance(reply, Reply):
        assert encode_reply(reply) == content


def _review(content: bytes) -> None:
    said = altered(REVIEWS, content)
    review = read(orjson.dumps(said))
    if isinstance(review, Unusable):
        _says_something(review.why)
        return
    assert needs(review) <= set(Need)
    # The objects that are there already may be as odd as the one in question.
    known = Known([said, review.old, *POOLS], [review.new, *RESERVATIONS], [review.old, *ENDPOINTS])
    verdict = decide(review, known)
    response = orjson.loads(orjson.dumps(answer(review, verdict, unavailable=blind(review, known))))["response"]
    assert response["uid"] == review.uid
    if not response["allowed"]:
        _says_something(response["status"]["message"])


def _review_bytes(content: bytes) -> None:
    review = read(content)
    if isinstance(review, Unusable):
        _says_something(review.why)


# --- what Berth itself wrote, and has to read again ------------------------------------------------------------------


def _ledger(content: bytes) -> None:
    entry = _valid(LedgerEntry, altered([each["status"]["ledger"] for each in POOLS], content))
    if entry is None:
        return
    for family in Family:
        image = entry.to_core(family)
        if isinstance(image, BadField):
            assert image.field.startswith("status.ledger")
            _says_something(image.why)
            continue
        written, found = (entry.pending, entry.blocks, entry.slices), (image.pending, image.settled, image.slices)
        assert [len(each) for each in written] == [len(each) for each in found], "something written is not understood"
        assert LedgerEntry.model_validate(write_ledger(family, image)).to_core(family) == image
        check_ledger(Ledger(image, _ALLOWED[family]))


def _status(content: bytes) -> None:
    _valid(IPPoolStatus, altered([each["status"] for each in POOLS], content))


def _endpoint(content: bytes) -> None:
    """Spec and status are what anybody wrote, the metadata are the API server's."""
    said = altered([{key: each[key] for key in ("spec", "status")} for each in ENDPOINTS], content)
    item = {**(said if isinstance(said, dict) else {"spec": said}), "metadata": ENDPOINTS[0]["metadata"]}
    uid, seen = claims.read(item)
    assert uid == item["metadata"]["uid"]
    if seen is None:
        return
    for holding in seen.claim.holdings:
        assert 0 <= holding.address < 1 << holding.family.bits
    endpoint = Endpoint.model_validate(item)
    again = {**endpoint.model_dump(by_alias=True, mode="json"), "metadata": item["metadata"]}
    assert claims.read(again)[1] == seen, "read back, it is another claim"


def _journal(content: bytes) -> None:
    """A file in the journal is an entry, just as it would be written, or is left where it is."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "00.json"
        path.write_bytes(content)
        journal = Journal(Path(folder))
        journal.load()
        assert path.read_bytes() == content, "what was promised is gone"
        for attachment in journal.entries():
            fresh = Journal(Path(folder) / "fresh")
            fresh.load()
            assert asyncio.run(fresh.add(attachment)) is None
            (written,) = (Path(folder) / "fresh").iterdir()
            assert orjson.loads(written.read_bytes()) == orjson.loads(content), "an entry was guessed at"


def _spool(content: bytes) -> None:
    """A file in the spool is a DEL, or is kept for a human: under its name, or as broken."""
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "berth.sock"
        spool.folder(socket).mkdir()
        path = spool.folder(socket) / "0"
        path.write_bytes(content)
        found = spool.pending(socket)
        kept = [each.read_bytes() for each in spool.folder(socket).iterdir()]
        assert kept == [content], "what was promised is gone"
        for each in found:
            assert each.request.environment["CNI_COMMAND"] == "DEL"
            _answered(each.request.environment, each.request.stdin)


def _valid(model: Any, content: Any) -> Any:
    """None when the model refuses it."""
    try:
        return model.model_validate(content)
    except ValidationError:
        return None


def _claim(item: Any) -> Claim:
    seen = claims.read(item)[1]
    assert seen is not None
    return seen.claim


def _offer(item: Any) -> Offer:
    pool = IPPoolSpec.model_validate(item["spec"]).to_core(item["metadata"]["name"])
    assert isinstance(pool, Pool)
    return Offer(pool, serving=True)


_CLAIM = _claim(ENDPOINTS[1])
_OFFERS = {each["metadata"]["name"]: _offer(each) for each in POOLS}
_ALLOWED = {
    family: next(offer.pool.offered for offer in _OFFERS.values() if offer.pool.family is family) for family in Family
}

TARGETS: dict[str, Law] = {
    "ranges": _ranges,
    "pool": _pool,
    "reservation": _reservation,
    "annotations": _annotations,
    "call": _call,
    "stdin": _stdin,
    "frame": _frame,
    "review": _review,
    "review-bytes": _review_bytes,
    "ledger": _ledger,
    "status": _status,
    "endpoint": _endpoint,
    "journal": _journal,
    "spool": _spool,
}
