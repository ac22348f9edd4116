"""The order of the house: imports go one way, torch stays outside, compiled code is never stale."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import ROOT

#: From the ground up, names within ``rtgan``: a module may import what stands above it in this list, and its
#: own package; modules in one line do not know each other.
ORDER = (
    "kernel_cache",
    "kernels",
    "errors version memory",
    "params",
    "events notes",
    "plugin",
    "resampling",
    "graph",
    "switchboard",
    "generators",
    "codec worker",
    "plugins",
    "engine",
    "preset_text",
    "bindings",
    "rules",
    "presets",
    "chain setlist preset_watch preset_schema snapshots",
    "preset_files",
    "offline",
    "mending",
    "io",
    "recorder",
    "host",
    "control",
    "panel",
    "demo warm model_check",
    "live batch coding tagging listing bench",
    "doctor",
    "cli",
    "__main__",
)
RANKS = {name: rank for rank, line in enumerate(ORDER) for name in line.split()}

#: The package's front door opens `host` when somebody asks for it, inside a function.
FRONT_DOOR = "rtgan"
#: What training may use of the rest.
TRAIN_USES = {"errors", "version", "kernel_cache", "kernels"}
#: And to measure a net where it plays, inside functions.
EVAL_USES = {"codec", "generators", "mending", "tagging"}
#: Where torch may be imported: with the module, and inside functions.
TORCH_WITH_MODULE = ("rtgan.train.", "rtgan.generators.record", "rtgan.worker.dialects",
                     "rtgan.worker.frames", "rtgan.worker.lowering", "rtgan.worker.serve", "rtgan.bench.gtcrn",
                     "rtgan.bench.autoencoders")  # fmt: skip
TORCH_IN_FUNCTIONS = ("rtgan.generators.library", "rtgan.bench.")


@dataclass(frozen=True)
class Import:
    """One import: who, what, and whether it runs with the module or only inside a function."""

    source: str
    target: str
    inside: bool

    @property
    def house(self) -> bool:
        return self.target.split(".")[0] == "rtgan"


def modules() -> dict[str, Path]:
    """Every module of ours by its import name."""
    links = {ROOT / "rtgan" / name for name in ("kernels", "factory", "weights")}
    found = {}
    for top, prefix in (("rtgan", ()), ("kernels", ("rtgan",))):
        for path in (ROOT / top).rglob("*.py"):
            if links & set(path.parents):
                continue
            parts = (*prefix, *path.relative_to(ROOT).with_suffix("").parts)
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports_of(name: str, path: Path) -> Iterator[Import]:
    """Every import in a file but those for type checkers."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]

    def visit(node: ast.AST, inside: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, alias.name, inside)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield Import(name, whole if whole in MODULES else base, inside)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), False)


IMPORTS = [found for name, path in MODULES.items() for found in imports_of(name, path)]


def room(module: str) -> str:
    """The part of the house a module belongs to."""
    return module.split(".")[1] if "." in module else FRONT_DOOR


def test_the_search_sees_the_house() -> None:
    assert {"rtgan.kernels.native", "rtgan.engine", "rtgan.plugins.gain", "rtgan.train.loop"} <= set(MODULES)
    assert Import("rtgan.kernels.levels", "rtgan.kernels.native", False) in IMPORTS, "relative"
    assert Import("rtgan.engine", "rtgan.graph", False) in IMPORTS, "absolute"
    assert Import("rtgan.cli", "rtgan.live", True) in IMPORTS, "inside a function"
    assert Import("rtgan.generators.record", "torch", False) in IMPORTS, "foreign"
    # Nothing is loaded by a name put together at run time but plugins and optional peers of the measurements.
    dynamic = {n for n, p in MODULES.items() if "import_module(" in p.read_text(encoding="utf-8")}
    assert {room(n) for n in dynamic} <= {"plugin", "bench"}


def test_every_module_has_its_place() -> None:
    assert {room(name) for name in MODULES} - {FRONT_DOOR, "factory", "weights"} == {*RANKS, "train"}


def test_imports_go_one_way() -> None:
    wrong = []
    for found in IMPORTS:
        here, there = room(found.source), room(found.target)
        if not found.house or here == there or "train" in (here, there):
            continue
        if here == FRONT_DOOR:
            allowed = there in ("kernel_cache", "version") or (there == "host" and found.inside)
        elif there == FRONT_DOOR:
            # The version; kernels stay free of even that.
            allowed = here != "kernels"
        else:
            allowed = RANKS[there] < RANKS[here]
        if not allowed:
            wrong.append(f"{found.source} imports {found.target}")
    assert wrong == []


def test_no_module_is_needed_to_import_itself() -> None:
    edges: dict[str, set[str]] = {name: set() for name in MODULES}
    for found in IMPORTS:
        if found.target in MODULES and found.target != found.source and not found.inside:
            edges[found.source].add(found.target)
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for target in edges[name]:
                walk(target, (*path, name))
            done.add(name)

    for name in edges:
        walk(name, ())


def test_training_uses_the_ground_floor_and_only_the_command_line_knows_it() -> None:
    mine = [f for f in IMPORTS if f.house and room(f.source) == "train"]
    used = {room(f.target) for f in mine} - {"train", FRONT_DOOR}
    assert used <= TRAIN_USES | EVAL_USES
    assert {room(f.target) for f in mine if not f.inside} - {"train"} <= TRAIN_USES
    knows = {(f.source, f.inside) for f in IMPORTS if room(f.target) == "train" and f.house} - {
        (f.source, f.inside) for f in IMPORTS if room(f.source) == "train"
    }
    assert knows == {("rtgan.cli", True)}


def test_torch_is_imported_where_it_is_needed_and_nowhere_else() -> None:
    torch = [f for f in IMPORTS if f.target.split(".")[0] in ("torch", "torchaudio")]
    assert torch
    strict = [f for f in torch if not f.source.startswith(TORCH_WITH_MODULE)]
    assert [f"{f.source} imports {f.target}" for f in strict if not f.inside] == []
    assert [f.source for f in strict if not f.source.startswith(TORCH_IN_FUNCTIONS)] == []


@pytest.mark.parametrize("path", sorted(MODULES.values()), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_names_say_what_is_inside_and_nothing_is_left_to_do(path: Path) -> None:
    vague = {"utils", "util", "common", "base", "manager", "managers", "helpers", "misc"}
    assert not vague & set(path.relative_to(ROOT).with_suffix("").parts)
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", path.read_text(encoding="utf-8"))


# --- what importing costs ---


def python(program: str, cwd: Path = ROOT, **environment: str) -> str:
    """What a program prints, run in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=cwd, env={**os.environ, "PYTHONPATH": str(cwd), **environment},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "statement, heavy",
    [
        ("import rtgan", ["torch", "numba", "llvmlite", "sounddevice", "soundfile", "scipy", "numpy"]),
        ("import rtgan.cli", ["torch", "numba", "sounddevice", "scipy"]),
        ("import rtgan.host, rtgan.live", ["torch", "matplotlib", "tensorboard"]),
        ("import rtgan.batch, rtgan.listing, rtgan.generators", ["torch"]),
    ],
)
def test_importing_brings_in_no_more_than_it_needs(statement: str, heavy: list[str]) -> None:
    loaded = json.loads(python(f"{statement}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"))
    assert "rtgan" in loaded
    assert not set(heavy) & set(loaded)


def test_playing_a_shipped_model_works_without_torch() -> None:
    out = python(
        "import sys\nsys.modules['torch'] = None\n"
        "import numpy as np, rtgan\n"
        "print(np.abs(rtgan.process(0.1 * np.random.default_rng(0).standard_normal(9600), 48000, 'clean')).max())"
    )
    assert float(out) > 0


# --- the cache of compiled code ---

#: A kernel that inlines a helper of another file, which is what numba's own cache does not look at.
PROBE = """
from numba import types
from .native import kernel, larger
@kernel(types.float64(types.float64, types.float64))
def most(a, b):
    return larger(a, b)
"""
MEASURE = """
import json
import rtgan
from numba.core import event
from rtgan import kernel_cache
from rtgan.kernels.probe import most
with event.install_recorder("numba:compile") as compiled:
    found = most(1.0, 2.0)
print(json.dumps({"folder": str(kernel_cache.folder("rtgan.kernels.probe")), "persistent": kernel_cache.is_persistent(),
                  "found": found, "cached": not compiled.buffer}))
"""
INNER = "return a if a > b else b"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the house, links and all, with one kernel more."""
    copy = tmp_path / "house"
    ignore = shutil.ignore_patterns("__pycache__", "*.flac", "*.ts", "*.rtgp")
    for name in ("rtgan", "kernels", "presets", "models"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignore)
    (copy / "kernels" / "probe.py").write_text(PROBE, encoding="utf-8")
    return copy


def test_an_edited_inner_kernel_is_heard_at_once(tree: Path, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    first = json.loads(python(MEASURE, tree, RTGAN_CACHE_DIR=cache))
    again = json.loads(python(MEASURE, tree, RTGAN_CACHE_DIR=cache))
    assert first == {**first, "found": 2.0, "persistent": True, "cached": False}
    assert again == {**first, "cached": True}
    inner = tree / "kernels" / "native.py"
    text = inner.read_text(encoding="utf-8")
    assert text.count(INNER) == 1
    inner.write_text(text.replace(INNER, "return a + b"), encoding="utf-8")
    edited = json.loads(python(MEASURE, tree, RTGAN_CACHE_DIR=cache))
    assert edited == {**first, "folder": edited["folder"], "found": 3.0}
    assert edited["folder"] != first["folder"]
    inner.write_text(text, encoding="utf-8")
    assert json.loads(python(MEASURE, tree, RTGAN_CACHE_DIR=cache)) == again, "the old folder serves again"


@pytest.mark.parametrize("obstacle", ["a file in the way", "no permission"])
def test_a_cache_that_cannot_be_written_does_not_keep_anything_from_playing(
    tree: Path, tmp_path: Path, obstacle: str
) -> None:
    home = tmp_path / "home"
    if obstacle == "a file in the way":
        home.write_text("")
    else:
        home.mkdir(mode=0o500)
        if os.access(home, os.W_OK):
            pytest.skip("root may write anywhere")
    told = json.loads(python(MEASURE, tree, RTGAN_CACHE_DIR=str(home / "cache")))
    assert told == {**told, "persistent": False, "found": 2.0}
    assert not Path(told["folder"]).exists(), "the folder that stood in is gone"
