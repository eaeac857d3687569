"""Puts the shim where the container runtime looks for CNI plugins.

By rename: the runtime may be executing the old one, and one that is half written would fail every Pod of the node.
"""

import os
import secrets
import shutil
from pathlib import Path

from berth.kube.errors import BadConfiguration

NAME = "berth"


def find_shim() -> Path:
    """$BERTH_SHIM, else the one built beside this package."""
    named = os.environ.get("BERTH_SHIM")
    path = Path(named) if named else Path(__file__).parents[1] / "bin" / NAME
    if not path.is_file():
        remedy = "let BERTH_SHIM name it" if named is None else "correct BERTH_SHIM"
        raise BadConfiguration(f"the shim is not at {path}: build it with `make shim`, or {remedy}")
    return path


def install(shim: Path, folder: Path) -> Path:
    target = folder / NAME
    temporary = folder / f".{NAME}-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with shim.open("rb") as source, temporary.open("xb") as copy:
                shutil.copyfileobj(source, copy)
                copy.flush()
                os.fsync(copy.fileno())
            temporary.chmod(0o755)
            temporary.rename(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise BadConfiguration(f"--install-shim {folder}: {error.strerror}: is it mounted and writable?") from None
    return target
