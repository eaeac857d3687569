"""Berth's image without Docker and without a registry: `python3 -m e2e.image` prints the archive it made.

The Dockerfile is the one that `docker build` takes. Here its base is made by debootstrap from the Debian mirror that
this machine's own apt uses, wheels come through this machine's own pip (with its proxies and certificates), the shim
from `make shim`; so inside the build nothing is fetched. buildah runs it in a chroot with a storage of its own, which
is thrown away: what stays is a docker archive, in the cache folder of the cluster's binaries, named by a hash of all
that went into it. The second time costs the reading of the sources.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.cluster.binaries import cache_folder
from e2e.cluster.errors import BuildError, ClusterError
from e2e.cluster.images import write_image
from e2e.cluster.shell import require, run

REPOSITORY = Path(__file__).parents[1]
REFERENCE = "berth:dev"
SOURCES = ("pyproject.toml", "README.md", "requirements", "operator", "webhook", "cni-plugin")
"""As in .dockerignore, and cni-plugin/bin besides."""

TOOLS = ("buildah", "debootstrap")
SUITE, PYTHON = "bookworm", "3.11"
PACKAGES = "python3,python3-venv,ca-certificates"
# Nobody reads these in a container. What apt has fetched is a third of the whole.
UNREAD = ("dev", "usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man", "usr/share/zoneinfo",
          "var/cache", "var/lib/apt/lists", "var/log")  # fmt: skip
KEPT_IMAGES = 3


def build() -> Path:
    """The archive of the image `berth:dev`, built unless there is one of these very sources."""
    cache = cache_folder() / "image"
    cache.mkdir(parents=True, exist_ok=True)
    with _alone(cache / "lock"), tempfile.TemporaryDirectory(prefix=".building-", dir=cache) as scratch:
        context = _context(Path(scratch) / "context")
        key = _hash(*_contents(context), (REPOSITORY / "Dockerfile").read_bytes(), _base_key().encode())
        archive = cache / f"berth-{key}.tar"
        if archive.exists():
            archive.touch()
            return archive
        _require()
        base, wheels = _base(cache), _wheels(cache)
        shutil.copytree(wheels, context / "requirements" / "wheels")
        with _timed(f"building {REFERENCE}"):
            _buildah(Path(scratch), context, base, archive)
        _forget_old(cache)
    return archive


def main() -> int:
    try:
        archive = build()
    except ClusterError as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
    print(archive)
    return 0


def _require() -> None:
    require(TOOLS)
    if os.geteuid() != 0:
        raise ClusterError("debootstrap and buildah's chroot need root: run this as root, or use docker build")


# --- what goes in ----------------------------------------------------------------------------------------------------


def _context(folder: Path) -> Path:
    """A copy: the sources may change while the build reads them."""
    run("make", "-C", REPOSITORY / "cni-plugin" / "shim", f"PYTHON={sys.executable}", timeout=600)
    folder.mkdir()
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.new")
    for name in SOURCES:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=unwanted)
        else:
            shutil.copy2(source, folder / name)
    return folder


def _contents(folder: Path) -> Iterator[bytes]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix().encode()
            yield path.read_bytes()


def _hash(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8) + part)
    return digest.hexdigest()[:12]


# --- the base --------------------------------------------------------------------------------------------------------


def _base_key() -> str:
    return _hash(SUITE.encode(), PACKAGES.encode(), ",".join(UNREAD).encode(), platform.machine().encode())


def _base(cache: Path) -> Path:
    """Debian with Python, as a docker archive."""
    archive = cache / f"base-{_base_key()}.tar"
    if archive.exists():
        return archive
    mirror = debian_mirror()
    with _timed(f"making the base: Debian {SUITE} with {PACKAGES}"), tempfile.TemporaryDirectory(dir=cache) as scratch:
        root = Path(scratch) / "root"
        run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, root, mirror, timeout=1800)
        return write_image(archive, "berth.test/base:1", lambda layer: _pack(layer, root), ["/bin/sh"])


def _pack(layer: tarfile.TarFile, root: Path) -> None:
    def wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        name = entry.name.removeprefix("./")
        return None if any(name.startswith(f"{unread}/") for unread in UNREAD) else entry

    layer.add(root, ".", filter=wanted)


def debian_mirror() -> str:
    """$BERTH_DEBIAN_MIRROR, else the one from which this machine's own apt gets the suite."""
    if chosen := os.environ.get("BERTH_DEBIAN_MIRROR"):
        return chosen
    apt = Path("/etc/apt")
    files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    for file in files:
        if file.suffix in (".list", ".sources") and file.is_file() and (found := mirror_in(file.read_text())):
            return found
    raise ClusterError(f"no apt source of Debian {SUITE} on this machine: set BERTH_DEBIAN_MIRROR to a mirror's URL")


def mirror_in(text: str) -> str | None:
    """The first mirror of the suite's main part, in either form that sources.list(5) knows."""
    text = re.sub(r"^#.*\n?", "", text, flags=re.M)
    for stanza in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^(\w[\w-]*):[ \t]*(.+)$", stanza, re.M))
        if SUITE in fields.get("Suites", "").split() and "deb" in fields.get("Types", "").split():
            return str(fields["URIs"].split()[0])
    line = re.search(rf"^deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+{SUITE}\s", text, re.M)
    return line[1] if line else None


# --- the wheels ------------------------------------------------------------------------------------------------------


def _wheels(cache: Path) -> Path:
    """What runtime.txt pins, and what builds our own wheel, for the image's Python."""
    runtime = (REPOSITORY / "requirements" / "runtime.txt").read_text()
    wanted = runtime + "\n" + build_requirements((REPOSITORY / "requirements" / "dev.txt").read_text())
    folder = cache / f"wheels-{_hash(wanted.encode(), platform.machine().encode())}"
    if folder.exists():
        return folder
    with _timed("fetching wheels"), tempfile.TemporaryDirectory(prefix=".fetching-", dir=cache) as scratch:
        pins = Path(scratch) / "requirements.txt"
        pins.write_text(wanted)
        target = ["--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp", "--no-deps"]
        target += [f"--platform={each}_{platform.machine()}" for each in _PLATFORMS]
        fresh = Path(scratch) / "wheels"
        _pip("download", "--quiet", *target, "--require-hashes", "--requirement", str(pins), "--dest", str(fresh))
        fresh.rename(folder)
    return folder


_PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014", "manylinux_2_5", "linux")
_BUILD = ("hatchling", "packaging", "pathspec", "pluggy", "tomlkit", "trove-classifiers")


def build_requirements(dev: str) -> str:
    """What the Dockerfile's sed takes out of dev.txt."""
    blocks = re.findall(rf"^(?:{'|'.join(_BUILD)})==(?:.*\\\n)*.*\n", dev, re.M)
    if len(blocks) != len(_BUILD):
        raise BuildError(f"requirements/dev.txt does not pin all of {', '.join(_BUILD)}: run make lock")
    return "".join(blocks)


def _pip(*argv: str) -> None:
    """This machine's pip, with this machine's configuration; its own words are the message when it fails."""
    done = subprocess.run([sys.executable, "-m", "pip", *argv], capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"pip {argv[0]} failed:\n{done.stderr[-3000:]}")


# --- buildah ---------------------------------------------------------------------------------------------------------


def _buildah(scratch: Path, context: Path, base: Path, archive: Path) -> None:
    """Offline, in a storage of its own below `scratch`."""
    storage = ["--storage-driver=vfs", f"--root={scratch / 'storage'}", f"--runroot={scratch / 'run'}"]
    arguments = [f"--build-arg=BASE=docker-archive:{base}", "--build-arg=PIP_NO_INDEX=1"]
    fresh = scratch / "image.tar"
    build = ["bud", "--isolation=chroot", "--format=docker", *arguments, f"--file={REPOSITORY / 'Dockerfile'}"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BUILDAH_")}
    log = scratch / "buildah.log"
    with log.open("w") as output:
        argv = ["buildah", *storage, *build, f"--iidfile={scratch / 'id'}", str(context)]
        status = subprocess.run(argv, stdout=output, stderr=subprocess.STDOUT, env=clean | {"TMPDIR": str(scratch)})
    if status.returncode:
        raise BuildError(f"buildah ended with status {status.returncode}:\n{log.read_text()[-4000:]}")
    push = ["push", "--quiet", (scratch / "id").read_text().strip(), f"docker-archive:{fresh}:{REFERENCE}"]
    run("buildah", *storage, *push, timeout=600)
    fresh.rename(archive)


def _forget_old(cache: Path) -> None:
    images = sorted(cache.glob("berth-*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
    for image in images[KEPT_IMAGES:]:
        image.unlink()


# --- telling and waiting ---------------------------------------------------------------------------------------------


@contextmanager
def _timed(what: str) -> Iterator[None]:
    print(f"image: {what} …", file=sys.stderr, flush=True)
    started = time.monotonic()
    yield
    print(f"image: {what}: done in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """One build at a time on this machine; a second waits and then finds the work done."""
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
