"""Builds the cluster's programs from pinned Go modules, once, into a cache outside the repository.

Each folder of `modules/` is a Go module whose go.mod names, as `tool`s, the commands to build; of those in `suites` it
is their own tests that are built (`bridge.test`), and only when asked for. What a binary depends on (go.mod, go.sum,
flags, architecture, compiler) is hashed into the name of its folder, so another version never meets an old binary, and
two checkouts share what they have in common. A binary appears by rename: it is whole or it is not there.
"""

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from e2e.cluster.errors import BuildError, MissingToolError

MODULES = Path(__file__).with_name("modules")
RENAMED = {"v3": "etcd"}  # etcd's command is the root of a module that ends in its major version


@dataclass(frozen=True, slots=True)
class Module:
    """One Go module of tools, and how it is built."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    def text(self) -> str:
        return (self.folder / "go.mod").read_text()

    def tools(self) -> dict[str, str]:
        """The package of each binary, read from the tool directives."""
        text = self.text()
        blocks = re.findall(r"^tool \(\n(.*?)^\)", text, re.M | re.S)
        packages = [*re.findall(r"^tool (\S+/\S+)$", text, re.M), *" ".join(blocks).split()]
        ending = ".test" if self.is_of_suites else ""
        return {RENAMED.get(last := package.rsplit("/", 1)[-1], last) + ending: package for package in packages}

    @property
    def is_of_suites(self) -> bool:
        return self.name == "suites"

    def version(self, tool: str) -> str:
        """The version of the module that a tool comes from: the longest required prefix of its package."""
        package = self.tools()[tool]
        required = dict(re.findall(r"^(?:require )?\s*(\S+) (v\S+)", self.text(), re.M))
        module = max((path for path in required if package.startswith(path)), key=len)
        return str(required[module])

    def ldflags(self) -> str:
        """Without symbols; Kubernetes gets its version stamped in, since clients parse it."""
        flags = "-s -w"
        if self.name == "kubernetes":
            version = self.version("kubelet")
            major, minor, _ = version.removeprefix("v").split(".")
            stamps = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
            flags += "".join(f" -X k8s.io/component-base/version.{key}={value}" for key, value in stamps.items())
        return flags

    def key(self) -> str:
        """Names the build: whatever changes a binary changes this."""
        parts = [self.text(), (self.folder / "go.sum").read_text(), self.ldflags()]
        parts += [platform.machine(), _compiler()]
        if self.is_of_suites:
            parts += [_NETLINK, *_DUMMY]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


PROGRAMS = ("kubernetes", "etcd", "containerd", "cni")
KNOWN = {name: Module(MODULES / name) for name in (*PROGRAMS, "multus", "suites")}


def cache_folder() -> Path:
    """`$BERTH_CACHE`, else `berth` in the user's cache folder."""
    if chosen := os.environ.get("BERTH_CACHE"):
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "berth"


def names(*modules: str) -> list[str]:
    """All binaries of the named modules; of all that a cluster runs when none is named."""
    return [tool for name in modules or PROGRAMS for tool in KNOWN[name].tools()]


def ensure(*wanted: str) -> Path:
    """Builds what is not in the cache yet and returns the folder that holds all binaries built so far."""
    tools = {tool: module for module in KNOWN.values() for tool in module.tools()}
    if unknown := set(wanted) - set(tools):
        raise BuildError(f"no module has the tool {', '.join(sorted(unknown))}; known are {', '.join(tools)}")
    together = hashlib.sha256("".join(module.key() for module in KNOWN.values()).encode()).hexdigest()[:12]
    folder = cache_folder() / f"bin-{together}"
    missing = [name for name in wanted if not (folder / name).exists()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(cache_folder() / "lock"):
            for name in missing:
                _link(folder / name, _build(tools[name], name))
    return folder


def _build(module: Module, name: str) -> Path:
    """The binary in the module's own folder, built if it is not there."""
    binary = cache_folder() / f"{module.name}-{module.key()}" / name
    if binary.exists():  # built meanwhile, or for another combination of versions
        return binary
    binary.parent.mkdir(parents=True, exist_ok=True)
    for remains in binary.parent.glob(".building-*"):  # of a build that was killed: only one runs at a time
        shutil.rmtree(remains)
    print(f"building {name} {module.version(name)} …", file=sys.stderr, flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=".building-", dir=binary.parent) as scratch:
        fresh = Path(scratch) / name
        verb, folder = ["build"], module.folder
        if module.is_of_suites:
            verb, folder = ["test", "-c"], _without_dummies(module, Path(scratch))
        argv = ["go", *verb, "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", module.ldflags()]
        _go([*argv, "-o", str(fresh), module.tools()[name]], folder)
        fresh.rename(binary)
    print(f"built    {name} in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return binary


# The suites make links of type `dummy`, which a kernel may lack. A bridge without ports serves as well, on any kernel.
_NETLINK = "github.com/vishvananda/netlink"
_DUMMY = ('return "dummy"', 'return "bridge"')


def _without_dummies(module: Module, scratch: Path) -> Path:
    """The module with a netlink library that makes a bridge where a dummy is asked for."""
    for name in ("go.mod", "go.sum"):
        shutil.copyfile(module.folder / name, scratch / name)
    copy = scratch / "netlink"
    original = json.loads(_go(["go", "mod", "download", "-json", _NETLINK], scratch))["Dir"]
    shutil.copytree(original, copy, copy_function=shutil.copyfile)
    for each in (copy, *copy.rglob("*/")):  # Go's cache is read-only
        each.chmod(0o755)
    changed = copy / "link.go"
    text = changed.read_text()
    if text.count(_DUMMY[0]) != 1:
        raise BuildError(f"{_NETLINK}: link.go does not say once what a dummy is: look at _without_dummies")
    changed.write_text(text.replace(*_DUMMY))
    _go(["go", "mod", "edit", "-replace", f"{_NETLINK}=./netlink"], scratch)
    return scratch


def _go(argv: list[str], folder: Path) -> str:
    """Runs the compiler; its own words are the message when it fails."""
    env = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": ""}
    try:
        done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise MissingToolError(_NO_GO) from error
    if done.returncode:
        raise BuildError(f"{' '.join(argv)} failed in {folder}:\n{done.stderr[-3000:]}")
    return done.stdout


_NO_GO = "go is not on this machine: install Go 1.26 or later and put it on PATH"


def _compiler() -> str:
    go = shutil.which("go")
    if go is None:
        raise MissingToolError(_NO_GO)
    return _version_of(go)


@cache
def _version_of(go: str) -> str:
    return subprocess.run([go, "version"], capture_output=True, text=True, check=True).stdout


def _link(place: Path, binary: Path) -> None:
    fresh = place.with_name(f".{place.name}-{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(Path("..") / binary.parent.name / binary.name)
    fresh.rename(place)


@contextmanager
def _lock(file: Path) -> Iterator[None]:
    """One builder at a time on this machine; a second waits and then finds the work done."""
    with file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another process is building; waiting for it …", file=sys.stderr, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
