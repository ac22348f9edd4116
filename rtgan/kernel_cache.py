"""Where compiled machine code is kept between runs, and why it can be trusted there.

numba's own cache looks at the file that defines a function and not at the files of the functions inlined
into it: an edited inner kernel would be played in its old form. Every module with kernels has therefore a folder
named by a hash of its source, of every source with kernels that it imports, directly or not, of numba's and
llvmlite's versions and of the processor: any change starts a new folder, and only for the modules that it
concerns. Old folders are removed when a new one is made.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_KEEP = 3
_MARKS = (b"native import", b"import numba", b"from numba")
_FROM = re.compile(rb"^[ \t]*from[ \t]+([.\w]+)[ \t]+import[ \t]+(\([^)]*\)|[^\n(]+)", re.MULTILINE)
_IMPORT = re.compile(rb"^[ \t]*import[ \t]+([^\n#]+)", re.MULTILINE)
_COMMENT = re.compile(rb"#[^\n]*")


def user_cache() -> Path:
    """The folder for everything that can be made again (``RTGAN_CACHE_DIR`` overrides the platform's)."""
    override = os.environ.get("RTGAN_CACHE_DIR")
    if override:
        return Path(override)
    import platformdirs

    return Path(platformdirs.user_cache_dir("rtgan", appauthor=False))


def version_file(package: str) -> bytes:
    """What a package's own file says of its version: quicker than the metadata, and nothing is imported."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    found = (Path(spec.origin).with_name(name) for name in ("_version.py", "version.py"))
    return b"".join(path.read_bytes() for path in found if path.is_file())


@cache
def _toolchain() -> bytes:
    """Everything but our own sources that machine code depends on."""
    parts = [version_file(package) for package in ("numba", "llvmlite", "numpy")]
    parts.append(f"{sys.version_info[:2]} {platform.machine()}\n".encode())
    parts += (os.environ.get(name, "").encode() + b"\n" for name in ("NUMBA_CPU_NAME", "NUMBA_BOUNDSCHECK"))
    return b"".join(parts)


@cache
def _file(module: str) -> Path | None:
    """The file of one of our modules, or of one that is loaded."""
    if module.partition(".")[0] == _PACKAGE.name:
        path = _PACKAGE.joinpath(*module.split(".")[1:])
        found = (path.with_suffix(".py"), path / "__init__.py")
        return next((p for p in found if p.is_file()), None)
    origin = getattr(sys.modules.get(module), "__file__", None)
    return Path(origin) if origin else None


@cache
def _text(module: str) -> bytes:
    path = _file(module)
    return path.read_bytes() if path else b""


@cache
def _imports(module: str) -> frozenset[str]:
    """Our modules whose kernels or constants a module may have compiled into its own."""
    text = _text(module)
    wanted: list[tuple[str, str]] = []
    for found in _IMPORT.finditer(text):
        wanted += ((name.split()[0], "") for name in found[1].decode().split(",") if name.strip())
    for found in _FROM.finditer(text):
        base = found[1].decode()
        level = len(base) - len(base.lstrip("."))
        if level:
            path = _file(module)
            inside = module.split(".") if path and path.name == "__init__.py" else module.split(".")[:-1]
            base = ".".join([*inside[: len(inside) - level + 1], *filter(None, [base.lstrip(".")])])
        names = _COMMENT.sub(b"", found[2]).decode().strip("() \n").split(",")
        wanted += ((base, name.split()[0]) for name in names if name.strip())
    ours = set()
    for base, name in wanted:
        if base.partition(".")[0] != _PACKAGE.name:
            continue
        whole = f"{base}.{name}" if name and _file(f"{base}.{name}") else base
        # A constant goes into machine code wherever it comes from; anything else only if there are kernels.
        constant = whole == base and name.strip("_").isupper()
        if constant or any(mark in _text(whole) for mark in _MARKS):
            ours.add(whole)
    return frozenset(ours)


def fingerprint(module: str) -> str:
    """Hash of everything that the compiled kernels of a module depend on."""
    reached, waiting = {module}, [module]
    while waiting:
        new = _imports(waiting.pop()) - reached
        reached |= new
        waiting += new
    digest = hashlib.sha256(_toolchain())
    for name in sorted(reached):
        digest.update(name.encode() + b"\n" + _text(name))
    return digest.hexdigest()[:16]


@cache
def everything() -> str:
    """Hash of all that the product compiles."""
    digest = hashlib.sha256(_toolchain())
    for path in sorted([*(_PACKAGE / "kernels").glob("*.py"), *_PACKAGE.rglob("*.py")]):
        text = path.read_bytes()
        if any(mark in text for mark in _MARKS):
            digest.update(path.relative_to(_PACKAGE).as_posix().encode() + text)
    return digest.hexdigest()[:16]


@cache
def root() -> Path:
    """The folder of all compiled kernels, made and checked for writing.

    Where the user's cache cannot be written (read-only home, no home), a private temporary folder serves for
    this run and `is_persistent` says so.
    """
    path = user_cache() / "native"
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
        return path
    except OSError:
        import atexit

        path = Path(tempfile.mkdtemp(prefix="rtgan-kernels-"))
        atexit.register(shutil.rmtree, path, ignore_errors=True)
        return path


@cache
def folder(module: str) -> Path:
    """Where the compiled kernels of a module, as it stands now, are kept."""
    path = root() / f"{module}-{fingerprint(module)}"
    new = not path.is_dir()
    path.mkdir(exist_ok=True)
    os.utime(path)
    if new:
        old = sorted(root().glob(f"{module}-{'?' * 16}"), key=lambda p: p.stat().st_mtime)
        for stale in old[:-_KEEP]:
            shutil.rmtree(stale, ignore_errors=True)
    return path


def warm_marker() -> Path:
    """The file that stands where everything that playing needs has been compiled."""
    return root() / f"warm-{everything()}"


def is_persistent() -> bool:
    """Whether compiled kernels survive this run."""
    return root().is_relative_to(user_cache())


def use() -> None:
    """Point numba at a folder for functions that are not ours. Must run before the first of them is decorated.

    They may have inlined kernels of any of our modules; ours are pointed at their own by `kernels.native`.
    """
    path = root() / f"others-{everything()}"
    os.environ["NUMBA_CACHE_DIR"] = str(path)
    numba = sys.modules.get("numba")
    if numba is not None:
        numba.config.CACHE_DIR = str(path)
