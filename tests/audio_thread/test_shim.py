"""Every node on a native thread that dies when it allocates, locks, calls the system or enters the interpreter."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CASES = ("chain", "overload", "strips", "swap", "midi", "poison", "worker", "lowered", "bridge")
GETPPID = {"x86_64": 110, "aarch64": 173}


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The preloaded library, compiled here; in CI nothing may be missing for that."""
    missing = ""
    if sys.platform != "linux" or platform.machine() not in GETPPID or platform.libc_ver()[0] != "glibc":
        missing = "the guarded thread needs glibc on x86-64 or aarch64"
    elif shutil.which("cc") is None:
        missing = "there is no C compiler"
    if missing and os.environ.get("CI") == "true":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    subprocess.run(
        ["cc", "-Wall", "-Wextra", "-Wno-unused-parameter", "-shared", "-fPIC", "-O2", "-o", str(library),
         str(HERE / "shim.c"), "-ldl", "-lpthread", "-Wl,-z,now"],
        check=True,
    )  # fmt: skip
    return library


def drive(shim: Path, blocks: int, *cases: str) -> list[dict[str, Any]]:
    """What `drive.py` reports, one entry for each case."""
    done = subprocess.run(
        [sys.executable, str(HERE / "drive.py"), str(shim), str(blocks), *cases],
        env={
            **os.environ,
            "LD_PRELOAD": str(shim),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]),
        },
        capture_output=True,
        text=True,
    )
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"ended with {done.returncode} after {reports[-1:]}: {done.stderr[-2000:]}"
    return reports


def check(reports: list[dict[str, Any]], blocks: int) -> None:
    assert all(r["blocks"] == blocks and r["frames"] > 20 * blocks for r in reports)
    if not all(r["seccomp"] for r in reports):
        print("system calls could not be watched here")


def test_a_guarded_thread_plays_every_plugin_and_dies_of_every_violation(shim: Path) -> None:
    reports = drive(shim, 300, "planted", *CASES)
    ends = {r["planted"]: r["end"] for r in reports if "planted" in r}
    played = [r for r in reports if "case" in r]
    assert tuple(r["case"] for r in played) == CASES
    check(played, 300)
    assert ends["allocates"] == [97, "malloc on the audio thread"]
    assert ends["raises"] == [97, "PyGILState_Ensure on the audio thread"]
    assert ends["prints"] == [97, "PyGILState_Ensure on the audio thread"]
    assert ends["locks"] == [97, "pthread_mutex_lock on the audio thread"]
    assert ends["stray"] == [0, ""]
    if played[0]["seccomp"]:
        assert ends["calls_the_system"] == [97, f"system call {GETPPID[platform.machine()]} on the audio thread"]


@pytest.mark.slow
def test_ten_thousand_blocks_of_every_case(shim: Path) -> None:
    reports = drive(shim, 10000, "all")
    names = {r["case"] for r in reports}
    assert names >= {"chain", "empty", "swap", "midi", "poison", "bridge", "gain-1", "limiter-2", "denoise-44100"}
    check(reports, 10000)
