"""A load that no machine carries, on a real JACK server: the sound steps down, and comes back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from support import ROOT, Jack

pytestmark = [pytest.mark.jack, pytest.mark.slow]

#: The compiler's cache knows the test's plugin by the name under which other tests import it.
BURNING = f"{ROOT}:{ROOT / 'tests'}"
SCRIPT = """
import sys, time
from rtgan import Host
from rtgan.generators.files import sha256_of
from rtgan.presets import Entry, Preset

burn = sys.argv[1]
made = {"hashes": {"plugin": sha256_of(burn)}}
chain = (Entry(burn, {"load": 25}, label="heavy", shed=1, **made), Entry(burn, label="hog", **made))

def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, host.stats()
        time.sleep(0.005)

host = Host(preset=Preset("x", chain, trusted=True), input="system", output="system", record="take.wav")
with host:
    until(lambda: host.stats().seconds > 1 and not host.stats().shed)
    late = host.stats().late
    latency = host.stats().latency_ms
    host.set("hog.load", 80)
    until(lambda: host.stats().shed == {"heavy": "out"})
    assert host.overload == "this machine cannot keep up: heavy is left out for now"
    assert host.stats().late >= late + 3
    host.set("hog.load", 0)
    until(lambda: not host.stats().shed)
    assert host.stats().latency_ms == latency
    begin = host.stats().seconds
    until(lambda: host.stats().seconds > begin + 0.3)
"""


def test_a_load_hog_is_survived(jack: Callable[..., Jack], tmp_path: Path, cli: Callable[..., Any]) -> None:
    server = jack(256)
    player = subprocess.Popen(
        ["jack_simple_client"], env=server.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        host = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(ROOT / "tests" / "burning.py")],
            env={**server.env, "PYTHONPATH": BURNING}, cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        server.wait_port("PortAudio:in_0")
        server.wait_port("jack_simple_client:output1")
        server.connect("jack_simple_client:output1", "PortAudio:in_0")
        _, errors = host.communicate(timeout=120)
        assert host.returncode == 0, errors
    finally:
        player.terminate()
        player.wait()
    log = (tmp_path / "take.events.jsonl").read_text()
    assert '"plugin": "heavy", "level": 2' in log and '"plugin": "heavy", "level": 0' in log
    dry, _ = soundfile.read(tmp_path / "take.dry.wav", dtype="float32")
    wet, _ = soundfile.read(tmp_path / "take.wav", dtype="float32")
    # As late as declared all along, and never louder or softer than the chain with and without the one left out.
    late = np.concatenate([np.zeros(200, np.float32), dry[:-200]])
    assert (np.abs(wet - 0.375 * late) <= 0.125 * np.abs(late) + 1e-6).all()
    done = cli("process", tmp_path / "take.dry.wav", "-o", tmp_path / "again.wav", "--keep-latency", "--allow-code",
               "--events", tmp_path / "take.events.jsonl", env={"PYTHONPATH": BURNING})  # fmt: skip
    assert done.returncode == 0, done.stderr
    again, _ = soundfile.read(tmp_path / "again.wav", dtype="float32")
    assert np.array_equal(again.view(np.int32), wet.view(np.int32))
