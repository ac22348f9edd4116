"""The contract suite once more under checks that are too slow or too drastic for every day."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

HERE = Path(__file__).resolve().parent
CONTRACT = HERE / "test_contract.py"


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(HERE), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def passes(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stdout[-4000:]}{done.stderr[-2000:]}"
    assert re.search(r"[1-9]\d\d passed", done.stdout)


@pytest.mark.slow
def test_the_contract_holds_under_numbas_bounds_checks(tmp_path: Path) -> None:
    passes(
        python(
            "-m", "pytest", "-x", "-m", "not slow", str(CONTRACT),
            NUMBA_BOUNDSCHECK="1", RTGAN_CACHE_DIR=str(tmp_path),
        )
    )  # fmt: skip


@pytest.mark.slow
def test_the_contract_holds_with_forbidden_pages_behind_all_memory() -> None:
    passes(python("-m", "pytest", "-x", "-p", "fences", "-m", "not slow", str(CONTRACT)))


def test_a_forbidden_page_ends_what_reaches_behind_its_memory() -> None:
    program = (
        "import sys, numpy as np\n"
        "if 'fences' in sys.argv: import fences\n"
        "from planted import Overrun\n"
        "from rtgan.engine import Engine\n"
        "from rtgan.graph import ChainItem, Graph\n"
        "engine = Engine(48000)\n"
        "engine.publish(Graph([ChainItem(Overrun())], 48000, 1024, 1))\n"
        "engine.render(np.zeros((64, 1), np.float32))\n"
        "print('played on')\n"
    )
    assert python("-c", program).stdout == "played on\n"
    assert python("-c", program, "fences").returncode == -signal.SIGSEGV
