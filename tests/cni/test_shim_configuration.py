"""What the shim reads of a configuration: the socket, and nothing else; it never fails on the rest."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cni.relay import RESULT, Agent, Outcome, run, variables

# Which socket. A path that nobody listens on shows in the message.

DEFAULT = "/run/berth/berth.sock"
REFUSED = "absolute path"


@pytest.mark.parametrize(
    ("document", "used"),
    [
        ('{"ipam":{"socket":"/x/s"}}', "/x/s"),
        ('\t{ "name" : "n" ,\r\n "ipam" : { "type":"berth", "socket" : "/x/s" } , "z":null }\n', "/x/s"),
        ('{"socket":"/wrong","ipam":{"type":"berth"}}', DEFAULT),
        ('{"ipam":{"a":{"socket":"/wrong"},"socket":"/x/s","b":[{"socket":"/wrong"}]}}', "/x/s"),
        ('{"args":{"ipam":{"socket":"/wrong"}},"ipam":{}}', DEFAULT),
        ('{"plugins":[{"ipam":{"socket":"/wrong"}}]}', DEFAULT),
        ('{"a":"\\"ipam\\":{\\"socket\\":\\"/wrong\\"}","ipam":{"socket":"/x/s"}}', "/x/s"),
        ('{"a":"\\\\","ipam":{"socket":"/x/s"},"b":"{[\\\\\\""}', "/x/s"),
        ('{"ipam":{"a":"},\\"socket\\":\\"/wrong\\"","n":-1.5e+9,"t":true,"socket":"/x/s"}}', "/x/s"),
        ('{"ipam":{"s\\u006fck\\u0065t":"\\/x\\u002Fs"}}', "/x/s"),
        ('{"ipam":{"socket":"/a \\" \\\\ b"}}', '/a " \\ b'),
        ('{"ipam":{"socket":"/one","socket":"/two"},"ipam":{"socket":"/x/s"}}', "/x/s"),
        ('{"ipam":{"socket":"/one"},"ipam":{}}', DEFAULT),
        ('{"ipam":{"sockets":"/wrong","socke":"/wrong","Socket":"/wrong","socket ":"/wrong"}}', DEFAULT),
        ('{"ipam":[{"socket":"/wrong"}]}', DEFAULT),
        ('{"ipam":"socket"}', DEFAULT),
        ('{"ipam":{"socket":7}}', DEFAULT),
        ('{"ipam":{"socket":null}}', DEFAULT),
        ('{"ipam":{"socket":{"socket":"/wrong"}}}', DEFAULT),
        ('[{"ipam":{"socket":"/wrong"}}]', DEFAULT),
        ('"ipam"', DEFAULT),
        ("", DEFAULT),
        ("{}", DEFAULT),
        ('{"ipam":{}}', DEFAULT),
        ('{"ipam":{"socket":"/wrong"}', DEFAULT),
        ('{"ipam":{"socket":"/wrong', DEFAULT),
        ('{"ipam":{"socket":"/wrong\\', DEFAULT),
        ('{"ipam":{"socket":"/wrong\\u00', DEFAULT),
        ('{"ipam":{"socket":"/wrong\\x"}}', DEFAULT),
        ('{"ipam":{"socket":"/wr\nong"}}', DEFAULT),
        ('{"ipam":{"socket" "/wrong"}}', DEFAULT),
        ('{"ipam":{"socket":}}', DEFAULT),
        ('{"a":' + "[" * 200_000 + "]" * 200_000 + ',"ipam":{"socket":"/x/s"}}', "/x/s"),
        ('{"a":' + "[" * 200_000, DEFAULT),
        ('{"ipam":{"socket":"/' + "y" * 106 + '"}}', "/" + "y" * 106),
        ('{"ipam":{"socket":"/' + "y" * 107 + '"}}', REFUSED),
        ('{"ipam":{"socket":"relative"}}', REFUSED),
        ('{"ipam":{"socket":""}}', REFUSED),
        ('{"ipam":{"socket":"/x\\u0000/y"}}', REFUSED),
        ('{"ipam":{"socket":"/x\\u00e9"}}', REFUSED),
    ],
)
def test_the_socket_is_the_one_that_ipam_names(shim: Path, document: str, used: str) -> None:
    error = run(shim, variables("CHECK"), document.encode()).error
    assert (error["code"], f"{used}{'' if used == REFUSED else ':'} " in error["msg"]) == (
        7 if used == REFUSED else 11,
        True,
    )


@pytest.mark.parametrize("filler", ["[[", '{"a":', "\\u0041", "1,", " ", '"'])
def test_a_large_document_takes_no_time(shim: Path, filler: str) -> None:
    """A step that looks at all of the rest would make it a minute."""
    document = json.dumps({"a": filler * 100_000, "ipam": {"socket": "/x/s"}}).encode()
    bare = document.replace(b"\\\\", b"\\")
    started = time.monotonic()
    for text in (document, bare, (filler * 100_000).encode(), b'{"a":' + filler.encode() * 100_000):
        assert run(shim, variables("CHECK"), text).error["code"] == 11
    assert time.monotonic() - started < 5


def test_a_socket_path_beyond_ascii_works_when_written_as_it_is(shim: Path, tmp_path: Path) -> None:
    path = tmp_path / "bérth-北.sock"
    stdin = json.dumps({"ipam": {"socket": str(path)}}, ensure_ascii=False).encode()
    assert run(shim, variables("STATUS"), stdin).error["msg"].isascii()
    with Agent(path):
        assert run(shim, variables("STATUS"), stdin) == Outcome(0, RESULT)


PATHS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40).map(lambda text: "/" + text)
NESTED = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=8) | PATHS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["ipam", "socket", 'a"}', "\\"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.dictionaries(st.text(max_size=6), NESTED, max_size=3),
    inside=st.dictionaries(st.text(max_size=6), NESTED, max_size=3),
    named=PATHS,
    ascii_only=st.booleans(),
    indent=st.none() | st.integers(0, 2),
)
def test_any_document_is_read_as_a_json_library_reads_it(
    shim: Path, before: dict[str, Any], inside: dict[str, Any], named: str, ascii_only: bool, indent: int | None
) -> None:
    document = {**before, "ipam": {**inside, "socket": named, "z": inside}, "z": before}
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "replace")
    assert f"agent at {named}: is" in run(shim, variables("CHECK"), text).error["msg"]


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | st.text('{}[]":,\\u0ipamsocket /', max_size=60).map(str.encode))
def test_no_stdin_makes_the_shim_crash_or_print_anything_but_one_object(shim: Path, stdin: bytes) -> None:
    assert run(shim, variables("CHECK"), stdin).error["code"] in (7, 11)
