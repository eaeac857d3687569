"""Runs the commands that make up a machine (ip, mount, openssl, …) and names the one that is absent."""

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from e2e.cluster.errors import CommandError, MissingToolError, StartError

PACKAGES = Path(__file__).with_name("debian-packages.txt")


def run(
    *argv: str | Path,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    check: bool = True,
    timeout: float = 120,
) -> str:
    """Runs a command to its end and returns what it printed on standard output."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(words, env=env, input=stdin, capture_output=True, text=True, timeout=timeout)
    except FileNotFoundError as error:
        raise MissingToolError(f"{words[0]} is not on this machine: {remedy(words[0])}") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(words, -1, f"still running after {timeout:.0f} s") from error
    if check and done.returncode:
        raise CommandError(words, done.returncode, done.stderr or done.stdout)
    return done.stdout


def require(tools: Sequence[str]) -> None:
    """Raises one error that names every absent tool and the packages that hold them."""
    absent = [tool for tool in tools if shutil.which(tool) is None]
    if absent:
        packages = packaged()
        names = sorted({packages.get(tool, tool) for tool in absent})
        raise MissingToolError(f"not on this machine: {', '.join(absent)}; run: apt-get install {' '.join(names)}")


def absent_packages() -> list[str]:
    """The Debian packages whose tools this machine lacks."""
    return sorted({package for tool, package in packaged().items() if shutil.which(tool) is None})


def remedy(tool: str) -> str:
    """How to get a tool that this machine lacks."""
    package = packaged().get(tool)
    return f"run: apt-get install {package}" if package else f"install {tool} and put it on PATH"


def packaged() -> dict[str, str]:
    """The Debian package of each tool, from debian-packages.txt (lines of `package tool,tool: reason`)."""
    packages: dict[str, str] = {}
    for line in PACKAGES.read_text().splitlines():
        if line and not line.startswith("#"):
            package, tools = line.split(":")[0].split()
            packages.update(dict.fromkeys(tools.split(","), package))
    return packages


def wait_for(what: str, probe: Callable[[], bool], bound: float, pause: float = 0.1) -> None:
    """Asks `probe` until it says yes; raises when `bound` seconds have passed."""
    end = time.monotonic() + bound
    while not probe():
        if time.monotonic() > end:
            raise StartError(f"{what} was not there after {bound:.0f} s")
        time.sleep(pause)
