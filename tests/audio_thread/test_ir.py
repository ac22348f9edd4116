"""No function of the audio thread refers to the interpreter, the allocator or anything else not listed here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

#: Leaf functions of the C library that neither allocate, lock, nor call the system.
ALLOWED = {"exp", "log", "tan", "sin", "cos", "sincos", "pow", "sqrt", "sqrtf", "memcpy", "memmove", "memset"}
#: Functions that call others through pointers; those others stand in this audit themselves, or are lowered
#: generators, whose code has a check of its own.
CALLS_THROUGH_POINTERS = {
    "rtgan.control.jack_callback.process",
    "rtgan.engine._apply",
    "rtgan.engine._deliver",
    "rtgan.engine._end_panic",
    "rtgan.engine._mind_load",
    "rtgan.engine._ring",
    "rtgan.engine._run",
    "rtgan.engine._run_graphs",
    "rtgan.engine.callback",
    "rtgan.generators.blocks.process",
    "rtgan.io.bridge.give",
    "rtgan.io.gate.enter",
    "rtgan.kernels.stft.stft_process",
    "rtgan.plugins.codec._process",
    "rtgan.plugins.denoise._process",
    "rtgan.plugins.denoise._reset",
    "rtgan.plugins.denoise._spectrum",
    "rtgan.plugins.howl._process",
    "rtgan.plugins.morph._process",
    "rtgan.plugins.morph._reset",
    "rtgan.plugins.repair._begin",
    "rtgan.plugins.repair._make",
    "rtgan.plugins.repair._process",
    "rtgan.plugins.synth._process",
    "rtgan.plugins.tags._listen",
    "rtgan.plugins.tags._process",
    "rtgan.plugins.tags._reset",
    "rtgan.resampling._midi",
    "rtgan.resampling._process",
    "rtgan.resampling._reset",
    "rtgan.worker.node.process",
}


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    environment = {
        **os.environ,
        "RTGAN_CACHE_DIR": str(tmp_path_factory.mktemp("empty-cache")),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("audit.py"))], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def forbidden(name: str, calls: list[str]) -> list[str]:
    return sorted(set(calls) - ALLOWED - ({"pointer"} if name in CALLS_THROUGH_POINTERS else set()))


def test_nothing_on_the_audio_thread_reaches_outside(audit: dict[str, Any]) -> None:
    found = {n: forbidden(n, calls) for n, calls in audit["calls"].items() if not n.startswith("violations.")}
    assert len(found) >= 16
    assert set(found) >= CALLS_THROUGH_POINTERS
    assert {name: calls for name, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    "planted, symbol",
    [
        ("allocates", "NRT_MemInfo_alloc_aligned"),
        ("raises", "PyErr_SetString"),
        ("raises", "numba_gil_ensure"),
        ("prints", "PySys_FormatStdout"),
        ("calls_the_system", "pointer"),
    ],
)
def test_what_is_planted_is_found(audit: dict[str, Any], planted: str, symbol: str) -> None:
    name = f"violations.{planted}"
    assert symbol in forbidden(name, audit["calls"][name])


def test_no_plugin_holds_a_function_that_is_not_audited(audit: dict[str, Any]) -> None:
    escaped = dict(audit["escaped"])
    assert len(escaped.pop("planted")) == 1, "a function compiled past `node` is noticed"
    assert len(escaped) >= 5
    assert {name: functions for name, functions in escaped.items() if functions} == {}
