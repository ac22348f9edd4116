"""Files of generators: hashes, and writes that either happen whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from rtgan.errors import RtganError


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    total = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                total.update(chunk)
    except FileNotFoundError:
        raise RtganError(f"there is no file {path}") from None
    except OSError as error:
        raise RtganError(f"{path} cannot be read: {error.strerror or error}") from error
    return total.hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file through a temporary neighbour, so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
