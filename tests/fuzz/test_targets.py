"""The laws of targets.py under hypothesis: arbitrary bytes, and what was once read wrongly."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berth.api.ippool import IPPoolSpec, LedgerEntry
from berth.controller import claims
from berth.core.ledger import Image
from berth.core.pool import Pool
from berth_cni.calls import CniError
from berth_cni.configuration import parse
from berth_webhook.review import Review, read
from tests.fuzz.altering import altered
from tests.fuzz.documents import CALLS, ENDPOINTS, POOLS, REVIEWS
from tests.fuzz.targets import TARGETS

# What was once read wrongly, by target.
FOUND: dict[str, tuple[bytes, ...]] = {
    "journal": (b'"abc"', b'{"a": 1, "b": 2, "c": 3}', b'["", "", ""]'),
}


@pytest.mark.parametrize("target", TARGETS)
def test_the_law_holds_whatever_the_bytes(target: str) -> None:
    law = TARGETS[target]
    for content in (b"", *FOUND.get(target, ())):
        law(content)
    settings(max_examples=300)(given(st.binary(max_size=120))(law))()


def test_what_the_alterations_start_from_is_right() -> None:
    """Else the laws would speak of refusals alone."""
    for pool in POOLS:
        made = IPPoolSpec.model_validate(pool["spec"]).to_core("office")
        assert isinstance(made, Pool)
        assert isinstance(LedgerEntry.model_validate(pool["status"]["ledger"]).to_core(made.family), Image)
    assert all(claims.read(each)[1] is not None for each in ENDPOINTS)
    assert not any(isinstance(parse(each["environment"], orjson.dumps(each["stdin"])), CniError) for each in CALLS)
    assert all(isinstance(read(orjson.dumps(each)), Review) for each in REVIEWS)


@given(st.binary(max_size=60))
def test_the_same_bytes_alter_a_document_the_same_way_and_leave_it_as_it_was(content: bytes) -> None:
    before = orjson.dumps(POOLS)
    assert orjson.dumps(altered(POOLS, content)) == orjson.dumps(altered(POOLS, content))
    assert orjson.dumps(POOLS) == before
