"""Container images without a registry: docker archives written with tarfile, ready for `Node.import_image`."""

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from e2e.cluster.shell import require, run

PAUSE = "berth.test/pause:1"

# It must handle SIGTERM (the first process of a PID namespace ignores what it doesn't handle, and every Pod would
# take its whole grace period to end) and collect children that lose their parent.
_PAUSE_SOURCE = """
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int number) { (void)number; _exit(0); }
static void collect(int number) { (void)number; while (waitpid(-1, 0, WNOHANG) > 0) { } }
int main(void) {
    signal(SIGTERM, end);
    signal(SIGINT, end);
    signal(SIGCHLD, collect);
    for (;;) pause();
}
"""


def write_pause(file: Path) -> Path:
    """The image of a container that does nothing, well: a sandbox, or a Pod whose network is what matters."""
    require(["gcc"])
    with tempfile.TemporaryDirectory() as scratch:
        binary = Path(scratch) / "pause"
        run("gcc", "-Os", "-static", "-s", "-x", "c", "-o", binary, "-", stdin=_PAUSE_SOURCE)
        return write_image(file, PAUSE, lambda layer: layer.add(binary, "pause"), ["/pause"])


def write_image(
    file: Path,
    reference: str,
    fill: Callable[[tarfile.TarFile], object],
    command: Sequence[str],
    env: Sequence[str] = ("PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",),
) -> Path:
    """Writes an image of one layer; `fill` adds the layer's files (`layer.add(folder, ".")` for a whole tree)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
        layer = Path(scratch) / "layer.tar"
        with tarfile.open(layer, "w") as archive:
            fill(archive)
        with layer.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        config = {
            "architecture": _architecture(),
            "os": "linux",
            "config": {"Entrypoint": list(command), "Env": list(env)},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
        manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
        whole = Path(scratch) / "image.tar"
        with tarfile.open(whole, "w") as archive:
            archive.add(layer, "layer.tar")
            _add_json(archive, "config.json", config)
            _add_json(archive, "manifest.json", manifest)
        whole.rename(file)
    return file


def _architecture() -> str:
    """This machine's, by the name that images use."""
    machine = run("uname", "-m").strip()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _add_json(archive: tarfile.TarFile, name: str, content: object) -> None:
    data = json.dumps(content).encode()
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))
