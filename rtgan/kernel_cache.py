"""Where compiled machine code is kept between runs, and why it can be trusted there.

numba's own cache looks at the file that defines a function and not at the files of the functions inlined
into it: an edited inner kernel would be played in its old form. The cache folder is therefore named by a
hash of every source that holds kernels, of numba's and llvmlite's versions and of the processor, so that any
change starts a new folder. Old folders are removed when a new one is made.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_KEEP = 3


def user_cache() -> Path:
    """The folder for everything that can be made again (``RTGAN_CACHE_DIR`` overrides the platform's)."""
    override = os.environ.get("RTGAN_CACHE_DIR")
    if override:
        return Path(override)
    import platformdirs

    return Path(platformdirs.user_cache_dir("rtgan", appauthor=False))


def _sources() -> list[Path]:
    found = []
    for path in sorted([*(_PACKAGE / "kernels").glob("*.py"), *_PACKAGE.rglob("*.py")]):
        text = path.read_bytes()
        if any(mark in text for mark in (b"native import", b"import numba", b"from numba")):
            found.append(path)
    return found


def version_file(package: str) -> bytes:
    """What a package's own file says of its version: quicker than the metadata, and nothing is imported."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    found = (Path(spec.origin).with_name(name) for name in ("_version.py", "version.py"))
    return b"".join(path.read_bytes() for path in found if path.is_file())


@cache
def fingerprint() -> str:
    """Hash of everything that compiled kernels depend on."""
    digest = hashlib.sha256()
    for package in ("numba", "llvmlite", "numpy"):
        digest.update(version_file(package))
    digest.update(f"{sys.version_info[:2]} {platform.machine()}\n".encode())
    digest.update(os.environ.get("NUMBA_CPU_NAME", "").encode())
    digest.update(os.environ.get("NUMBA_BOUNDSCHECK", "").encode())
    for path in _sources():
        digest.update(path.relative_to(_PACKAGE).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def folder() -> Path:
    """The cache folder of this very version of the kernels, made and checked for writing.

    Where the user's cache cannot be written (read-only home, no home), a private temporary folder serves for
    this run and `is_persistent` says so.
    """
    root = user_cache() / "native"
    path = root / fingerprint()
    try:
        new = not path.is_dir()
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
        os.utime(path)
        if new:
            old = sorted((p for p in root.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
            for stale in old[:-_KEEP]:
                shutil.rmtree(stale, ignore_errors=True)
        return path
    except OSError:
        import atexit

        path = Path(tempfile.mkdtemp(prefix="rtgan-kernels-"))
        atexit.register(shutil.rmtree, path, ignore_errors=True)
        return path


def is_persistent() -> bool:
    """Whether compiled kernels survive this run."""
    return folder().is_relative_to(user_cache())


def use() -> None:
    """Point numba at the folder. Must run before the first kernel is decorated."""
    os.environ["NUMBA_CACHE_DIR"] = str(folder())
    numba = sys.modules.get("numba")
    if numba is not None:
        numba.config.CACHE_DIR = str(folder())
