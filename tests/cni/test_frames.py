"""The frames between shim and agent, and the spool that holds them: every outcome is a value, whatever the bytes."""

import logging
import os
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth_cni import spool
from berth_cni.frames import (
    ENVIRONMENT_LIMIT,
    HEADER_SIZE,
    REPLY_LIMIT,
    SENT,
    STDIN_LIMIT,
    Malformed,
    Reply,
    Request,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
    request_body_size,
)

NAMES = st.from_regex(r"CNI_[A-Z0-9_]{0,12}", fullmatch=True)
VALUES = st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape"))
REQUESTS = st.builds(Request, st.dictionaries(NAMES, VALUES, max_size=6), st.binary(max_size=200))
REPLIES = st.builds(Reply, st.integers(0, 255), st.binary(max_size=200))

DEL = Request({"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "abc", "CNI_IFNAME": "eth0"}, b'{"name":"net"}')


def encoded(request: Request) -> bytes:
    frame = encode_request(request)
    assert isinstance(frame, bytes)
    return frame


@given(REQUESTS)
def test_a_request_comes_back_as_it_was_sent(request: Request) -> None:
    assert decode_request(encoded(request)) == request


@given(REPLIES)
def test_a_reply_comes_back_as_it_was_sent(reply: Reply) -> None:
    frame = encode_reply(reply)
    assert isinstance(frame, bytes)
    assert decode_reply(frame) == reply


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_a_value_and_never_an_exception(raw: bytes) -> None:
    assert isinstance(decode_request(raw), Request | Malformed)
    assert isinstance(decode_reply(raw), Reply | Malformed)
    assert isinstance(request_body_size(raw), int | Malformed)


@given(st.integers(0, 40), st.integers(0, 40), st.binary(max_size=90))
def test_a_right_header_before_arbitrary_bytes_raises_nothing(first: int, second: int, body: bytes) -> None:
    frame = struct.pack(">4sII", b"BRT1", first, second) + body
    assert isinstance(decode_request(frame), Request | Malformed)
    assert isinstance(decode_reply(frame), Reply | Malformed)


@given(REQUESTS, st.data())
def test_a_request_cut_anywhere_is_malformed(request: Request, data: st.DataObject) -> None:
    frame = encoded(request)
    cut = data.draw(st.integers(0, len(frame) - 1))
    assert isinstance(decode_request(frame[:cut]), Malformed)


@given(REQUESTS)
def test_a_byte_too_many_is_malformed(request: Request) -> None:
    assert isinstance(decode_request(encoded(request) + b"x"), Malformed)


@given(REQUESTS)
def test_the_header_alone_tells_how_much_follows(request: Request) -> None:
    frame = encoded(request)
    assert request_body_size(frame[:HEADER_SIZE]) == len(frame) - HEADER_SIZE


def test_the_layout_is_the_one_that_the_shim_has() -> None:
    assert encoded(Request({"CNI_COMMAND": "DEL"}, b"{}")) == b"BRT1\0\0\0\x10\0\0\0\x02CNI_COMMAND=DEL\0{}"
    assert encode_reply(Reply(7, b"no")) == b"BRT1\0\0\0\x07\0\0\0\x02no"


@pytest.mark.parametrize(
    "value",
    [
        Request({"PATH": "/bin"}, b""),
        Request({"CNI_A=B": "x"}, b""),
        Request({"CNI_A": "x\0y"}, b""),
        Request({"CNI_A": "\ud800"}, b""),
        Request({"CNI_A": "x" * ENVIRONMENT_LIMIT}, b""),
        Request({}, b"x" * (STDIN_LIMIT + 1)),
    ],
    ids=["not a CNI variable", "= in a name", "NUL in a value", "half a character", "long", "large"],
)
def test_what_no_frame_may_hold_is_not_encoded(value: Request) -> None:
    assert isinstance(encode_request(value), Malformed)


@pytest.mark.parametrize("reply", [Reply(-1, b""), Reply(256, b""), Reply(0, b"x" * (REPLY_LIMIT + 1))])
def test_an_answer_that_the_shim_would_refuse_is_not_encoded(reply: Reply) -> None:
    assert isinstance(encode_reply(reply), Malformed)


def test_the_largest_allowed_request_and_reply_pass() -> None:
    environment = {"CNI_A": "x" * (ENVIRONMENT_LIMIT - len("CNI_A=\0"))}
    request = Request(environment, b"x" * STDIN_LIMIT)
    assert decode_request(encoded(request)) == request
    frame = encode_reply(Reply(255, b"x" * REPLY_LIMIT))
    assert isinstance(frame, bytes)
    assert decode_reply(frame) == Reply(255, b"x" * REPLY_LIMIT)


@pytest.mark.parametrize("sizes", [(ENVIRONMENT_LIMIT + 1, 0), (0, STDIN_LIMIT + 1), (2**32 - 1, 2**32 - 1)])
def test_a_header_out_of_bounds_is_refused_before_anything_is_read(sizes: tuple[int, int]) -> None:
    assert isinstance(request_body_size(struct.pack(">4sII", b"BRT1", *sizes)), Malformed)


def frame_of(environment: bytes) -> bytes:
    return struct.pack(">4sII", b"BRT1", len(environment), 0) + environment


def test_of_a_variable_given_twice_the_first_counts_as_for_getenv() -> None:
    assert decode_request(frame_of(b"CNI_A=1\0CNI_A=2\0")) == Request({"CNI_A": "1"}, b"")


@pytest.mark.parametrize("environment", [b"CNI_A=1", b"CNI_A\0", b"PATH=/bin\0", b"\0", b"CNI_A=1\0\0"])
def test_an_environment_that_the_shim_never_sends_is_malformed(environment: bytes) -> None:
    assert isinstance(decode_request(frame_of(environment)), Malformed)


# The spool.


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    (tmp_path / "berth.sock.spool").mkdir()
    return tmp_path / "berth.sock"


def put(socket_path: Path, name: str, content: bytes) -> Path:
    path = spool.folder(socket_path) / name
    path.write_bytes(content)
    return path


def sent(at: str) -> Request:
    return Request({**DEL.environment, SENT: at}, DEL.stdin)


def test_no_folder_means_nothing_is_pending(tmp_path: Path) -> None:
    assert spool.pending(tmp_path / "absent.sock") == []


def test_the_oldest_comes_first_and_is_gone_once_discarded(socket_path: Path) -> None:
    newer = put(socket_path, "a", encoded(sent("1200")))
    older = put(socket_path, "b", encoded(sent("900")))
    unknown = [put(socket_path, f"c{number}", encoded(sent(at))) for number, at in enumerate(["", "-1", "x", "9" * 16])]
    assert [found.path for found in spool.pending(socket_path)] == [*unknown, older, newer]
    for each in (*unknown, older, older):
        spool.discard(each)
    assert spool.pending(socket_path) == [spool.SpooledRequest(newer, sent("1200"))]


def test_a_request_of_another_version_stays_for_an_agent_that_knows_it(
    socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    newer = put(socket_path, "x", b"BRT2" + encoded(DEL)[4:])
    assert spool.pending(socket_path) == []
    assert newer.exists()
    assert "speaks BRT1" in caplog.text


@pytest.mark.parametrize(
    "content",
    [b"", b"BRT1", encoded(DEL)[:-1], encoded(DEL) + b"x", encoded(Request({"CNI_COMMAND": "ADD"}, b"{}"))],
    ids=["empty", "header cut", "end cut", "too long", "an ADD"],
)
def test_a_broken_file_is_kept_aside_with_one_line_in_the_log(
    socket_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = put(socket_path, "x", content)
    good = put(socket_path, "y", encoded(DEL))
    with caplog.at_level(logging.WARNING):
        assert [found.path for found in spool.pending(socket_path)] == [good]
        assert [found.path for found in spool.pending(socket_path)] == [good]
    assert not path.exists()
    assert path.with_name("x.broken").read_bytes() == content
    assert len(caplog.records) == 1
    assert str(path) in caplog.text


def test_a_folder_or_link_in_the_spool_is_not_followed(socket_path: Path) -> None:
    elsewhere = socket_path.with_name("elsewhere")
    elsewhere.write_bytes(encoded(DEL))
    (spool.folder(socket_path) / "link").symlink_to(elsewhere)
    (spool.folder(socket_path) / "folder").mkdir()
    assert spool.pending(socket_path) == []
    assert sorted(os.listdir(spool.folder(socket_path))) == ["folder.broken", "link.broken"]


def test_a_temporary_file_is_left_to_its_shim_and_removed_when_the_shim_is_long_dead(socket_path: Path) -> None:
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    ages = {"young": 1, "old": spool.ABANDONED_AFTER + 60, "from before a reboot": -60}
    names = {each: f".tmp-3-{int((now - age) * 1000)}" for each, age in ages.items()}
    for name in names.values():
        put(socket_path, name, b"BRT1")
    assert spool.pending(socket_path) == []
    assert os.listdir(spool.folder(socket_path)) == [names["young"]]
