"""The settled addresses, against a set of ints; and their text on the wire."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.core.ranges import Family, Malformed, Ranges, format_address
from berth.core.settled import SPAN, Settled, read_block, write_block

V4, V6 = Family.IPV4, Family.IPV6
BASES = st.sampled_from([0, 10 << 24, 0xFD << 120])
# Around the seams of three blocks, so that full, empty and half-filled ones meet.
OFFSETS = st.one_of(st.integers(0, 3 * SPAN - 1), st.sampled_from([0, SPAN - 1, SPAN, 2 * SPAN - 1, 2 * SPAN]))
SPANS = st.lists(st.tuples(OFFSETS, st.integers(0, 40)).map(lambda run: range(run[0], run[0] + run[1])), max_size=8)


def settled_of(addresses: set[int]) -> Settled:
    settled = Settled()
    for address in addresses:
        settled.add(address)
    return settled


@given(BASES, st.lists(st.tuples(st.booleans(), OFFSETS)))
def test_it_is_a_set(base: int, steps: list[tuple[bool, int]]) -> None:
    settled, model = Settled(), set[int]()
    for add, offset in steps:
        if add:
            settled.add(base + offset)
            model.add(base + offset)
        elif base + offset in model:
            settled.remove(base + offset)
            model.remove(base + offset)
        assert (base + offset in settled) == (base + offset in model)
        assert len(settled) == len(model)
    assert set(settled) == model
    assert sorted(settled) == sorted(model), "each once"
    assert len(settled.blocks()) == len({address // SPAN for address in model}), "empty blocks cost nothing"


@given(BASES, SPANS, OFFSETS, OFFSETS)
def test_the_first_clear_one_is_the_lowest_that_is_not_here(base: int, spans: list[range], one: int, two: int) -> None:
    model = {base + offset for span in spans for offset in span}
    first, last = base + min(one, two), base + max(one, two)
    brute = next((address for address in range(first, last + 1) if address not in model), None)
    assert settled_of(model).first_clear(first, last) == brute


@pytest.mark.parametrize(
    ("full", "first", "last", "clear"),
    [
        (range(SPAN), 0, SPAN - 1, None),
        (range(SPAN), 0, SPAN, SPAN),
        (range(10), 0, 9, None),  # the next one is clear, but past the end
        (range(10), 3, 10, 10),
        (range(SPAN + 10), 0, SPAN + 9, None),
        (range(3 * SPAN), 5, 3 * SPAN + 9, 3 * SPAN),
        (range(SPAN - 1), 7, 2 * SPAN, SPAN - 1),
        (range(0), 1 << 100, 1 << 101, 1 << 100),
        (range(0), 5, 4, None),
    ],
)
def test_full_blocks_are_stepped_over(full: range, first: int, last: int, clear: int | None) -> None:
    assert settled_of(set(full)).first_clear(first, last) == clear


@given(BASES, SPANS, SPANS)
def test_counting_inside_is_counting_one_by_one(base: int, spans: list[range], allowed_spans: list[range]) -> None:
    model = {base + offset for span in spans for offset in span}
    allowed = Ranges.of((base + span[0], base + span[-1]) for span in allowed_spans if span)
    assert settled_of(model).count_inside(allowed) == sum(address in allowed for address in model)


@given(st.sampled_from([(V4, 10 << 24), (V4, (1 << 32) - 3 * SPAN), (V6, 0xFD << 120)]), SPANS)
def test_it_comes_back_from_the_wire_as_it_was_written(place: tuple[Family, int], spans: list[range]) -> None:
    family, base = place
    model = {base + offset for span in spans for offset in span if offset < 3 * SPAN}
    blocks: dict[int, int] = {}
    for number, mask in settled_of(model).blocks().items():
        name, text = write_block(family, number, mask)
        block = read_block(family, name, text)
        assert block == (number, mask)
        assert isinstance(block, tuple)
        blocks[block[0]] = block[1]
    again = Settled(blocks)
    assert set(again) == model
    assert len(again) == len(model)


def test_a_full_slash_16_is_64_blocks_of_little_text() -> None:
    full = settled_of(set(range(10 << 24, (10 << 24) + (1 << 16))))
    written = [write_block(V4, number, mask) for number, mask in full.blocks().items()]
    assert len(written) == 64
    assert sum(len(name) + len(text) for name, text in written) < 16 * 1024


def test_a_block_is_as_long_as_its_highest_address_needs() -> None:
    assert write_block(V4, (10 << 24) // SPAN, 0b101) == ("10.0.0.0", "BQ==")


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("10.0.0.0", "", "not a bitmap"),
        ("10.0.0.0", "AAAA", "not a bitmap"),
        ("10.0.0.0", "A" * 172 + "AQ==", "not a bitmap"),
        ("10.0.0.0", "BQ=", "not base64"),
        ("10.0.0.0", "B Q==", "not base64"),
        ("10.0.0.0", "ä", "not base64"),
        ("10.0.0.1", "BQ==", "not the first address of a block"),
        ("fd00::", "BQ==", "not the first address of a block"),
        ("ten", "BQ==", "not an IP address"),
        ("fe80::%1", "BQ==", "zone"),
    ],
)
def test_a_block_that_is_not_understood_is_not_guessed_at(name: str, text: str, why: str) -> None:
    block = read_block(V4, name, text)
    assert isinstance(block, Malformed)
    assert why in block.why


@given(st.text(), st.text())
def test_whatever_stands_on_the_wire_the_answer_is_a_value(name: str, text: str) -> None:
    assert isinstance(read_block(V4, name, "BQ=="), tuple | Malformed)
    block = read_block(V4, "10.0.0.0", text)
    assert isinstance(block, tuple | Malformed)
    if isinstance(block, tuple):
        assert 0 < block[1] < 1 << SPAN


@given(st.integers(1, (1 << SPAN) - 1), st.data())
def test_a_corrupted_character_gives_another_block_or_none_and_never_an_error(mask: int, data: st.DataObject) -> None:
    name, text = write_block(V4, (10 << 24) // SPAN, mask)
    at = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:at] + data.draw(st.characters()) + text[at + 1 :]
    assert isinstance(read_block(V4, name, damaged), tuple | Malformed)
    assert isinstance(read_block(V4, format_address(V4, (10 << 24) + 1), text), Malformed)
