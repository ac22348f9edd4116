"""`rtgan bench`: the frame around the measurements."""

import json
import os
import signal
import subprocess
import sys
import time
import types
from argparse import Namespace
from pathlib import Path

import pytest

from rtgan import bench
from rtgan.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def measurements(monkeypatch):
    asked = []

    def load(name):
        asked.append(name)
        if name.endswith("generators"):
            raise ImportError("no peer", name="torch")
        return types.SimpleNamespace(run=lambda: [{"measure": name, "figure": 1.5}])

    monkeypatch.setattr(bench.importlib, "import_module", load)
    return asked


def test_all_is_measured_when_nothing_is_named(measurements, tmp_path, capsys):
    target = tmp_path / "figures.json"
    assert bench.run(Namespace(what=None, json=target, gtcrn=None)) == 0
    names = ["kernels", "engine", "load", "generators", "codec", "control", "panel"]
    assert [name.rpartition(".")[2] for name in measurements] == names
    figures = json.loads(target.read_text())
    assert figures["engine"] == [{"measure": "rtgan.bench.engine", "figure": 1.5}]
    assert figures["generators"] == {"skipped": "torch is not installed"}
    assert figures["machine"]["cores"] >= 1 and figures["machine"]["cpu"]
    printed = capsys.readouterr().out
    assert bench.cpu_name() in printed and "skipped: torch is not installed" in printed


def test_one_is_measured_when_it_is_named(measurements):
    assert bench.run(Namespace(what="kernels", json=None, gtcrn=None)) == 0
    assert measurements == ["rtgan.bench.kernels"]


def test_a_file_to_compare_with_belongs_to_generators(measurements, tmp_path):
    file = tmp_path / "net.onnx"
    for what, given in (("kernels", file), (None, file), ("generators", tmp_path / "gone.onnx")):
        file.write_bytes(b"x")
        with pytest.raises(UsageError, match="--gtcrn takes the ONNX file of GTCRN"):
            bench.run(Namespace(what=what, json=None, gtcrn=given))
    assert measurements == []


def test_a_target_that_cannot_be_written_is_refused_before_measuring(measurements, tmp_path):
    for target in (tmp_path, tmp_path / "missing" / "figures.json"):
        with pytest.raises(UsageError, match="cannot be written"):
            bench.run(Namespace(what=None, json=target, gtcrn=None))
    assert measurements == []


def test_sigterm_ends_in_order(tmp_path):
    """What a measurement has started is stopped by its own `finally`, also on SIGTERM."""
    script = """
import sys, time, types
from argparse import Namespace
from pathlib import Path
from rtgan import bench
def run():
    print("measuring", flush=True)
    try:
        time.sleep(60)
    finally:
        Path("ended").touch()
bench.importlib.import_module = lambda name: types.SimpleNamespace(run=run)
sys.exit(bench.run(Namespace(what="engine", json=None, gtcrn=None)))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stdout:
        if line.strip() == "measuring":
            break
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert (tmp_path / "ended").exists()
