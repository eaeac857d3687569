"""What goes into the image, and where its base comes from."""

import re

import pytest

from e2e.cluster.errors import BuildError
from e2e.image import REPOSITORY, SOURCES, build_requirements, mirror_in

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()


def test_the_wheel_is_built_by_the_same_pins_here_and_in_the_dockerfile() -> None:
    names = re.search(r"sed -nE '/\^\(([^)]*)\)==/", DOCKERFILE)
    assert names is not None
    pinned = build_requirements((REPOSITORY / "requirements" / "dev.txt").read_text())
    assert re.findall(r"^([\w-]+)==", pinned, re.M) == names[1].split("|")
    assert pinned.count("==") == len(re.findall(r"==.*(?: \\\n    --hash=sha256:[0-9a-f]{64})+", pinned))


def test_a_pin_that_is_missing_is_said() -> None:
    with pytest.raises(BuildError, match="make lock"):
        build_requirements("hatchling==1.0 \\\n    --hash=sha256:00\n")


def test_the_context_is_what_dockerignore_lets_through() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    allowed = [line[1:].partition("/")[0] for line in lines if line.startswith("!")]
    assert allowed == list(SOURCES)
    assert "cni-plugin/bin" in lines, "a docker build compiles the shim from its source"


def test_the_image_runs_as_nobody_and_names_no_registry() -> None:
    *_, last = DOCKERFILE.split("\nFROM ")
    assert "\nUSER 65532:65532\n" in last
    assert '\nENTRYPOINT ["berth"]\n' in last
    assert re.search(r"^ARG BASE=[\w.-]+:[\w.-]+$", DOCKERFILE, re.M)
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)) == {"${BASE}"}


DEB822 = """
# The machine's own.
Types: deb
URIs: https://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb-src
URIs: https://mirror.example/sources
Suites: bookworm
Components: main

Types: deb
# a comment in between
URIs: https://mirror.example/debian https://second.example/debian
Suites: bookworm bookworm-updates
Components: main
"""
ONE_LINE = """
# deb https://off.example/debian bookworm main
deb https://mirror.example/debian-security bookworm-security main
deb [arch=amd64 signed-by=/usr/share/keyrings/k.gpg] https://mirror.example/debian bookworm main
"""


@pytest.mark.parametrize("text", [DEB822, ONE_LINE])
def test_the_mirror_is_that_of_this_machines_apt(text: str) -> None:
    assert mirror_in(text) == "https://mirror.example/debian"


def test_a_machine_of_another_distribution_has_none() -> None:
    assert mirror_in("deb https://mirror.example/ubuntu noble main\n") is None
