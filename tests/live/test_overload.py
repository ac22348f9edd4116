"""A load that no machine carries, on a real JACK server: the sound steps down, and comes back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from support import ROOT, Jack

pytestmark = [pytest.mark.jack, pytest.mark.slow]

#: The compiler's cache knows the test's plugin by the name under which other tests import it.
BURNING = f"{ROOT}:{ROOT / 'tests'}"
BEGIN = """
import sys, time
from rtgan import Host
from rtgan.generators.files import sha256_of
from rtgan.presets import Entry, Preset

burn = sys.argv[1]
made = {"hashes": {"plugin": sha256_of(burn)}}
chain = (Entry(burn, {"load": 25}, label="heavy", shed=1, **made), Entry(burn, label="hog", **made))

def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, host.stats()
        time.sleep(0.005)
"""
#: Beside a hog of its own.
SCRIPT = (
    BEGIN
    + """
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
)
#: Beside those of others, without any priority over them.
OUTSIDE = (
    BEGIN
    + """
host = Host(preset=Preset("x", chain[:1], trusted=True), input="system", output="system", record="take.wav")
with host:
    until(lambda: host.stats().seconds > 1 and not host.stats().shed)
    latency = host.stats().latency_ms
    print("calm", flush=True)
    until(lambda: host.stats().shed == {"heavy": "out"})
    print("out", flush=True)
    sys.stdin.readline()
    until(lambda: not host.stats().shed)
    assert host.stats().latency_ms == latency
    begin = host.stats().seconds
    until(lambda: host.stats().seconds > begin + 0.3)
"""
)


def check_take(folder: Path, middle: float, half: float) -> np.ndarray:
    """As late as declared all along, and never louder or softer than with and without the one left out."""
    log = (folder / "take.events.jsonl").read_text()
    assert '"plugin": "heavy", "level": 2' in log and '"plugin": "heavy", "level": 0' in log
    dry, _ = soundfile.read(folder / "take.dry.wav", dtype="float32")
    wet, _ = soundfile.read(folder / "take.wav", dtype="float32")
    samples = 200 if middle < 0.5 else 100
    late = np.concatenate([np.zeros(samples, np.float32), dry[:-samples]])
    assert np.abs(dry).max() > 0.1
    assert (np.abs(wet - middle * late) <= half * np.abs(late) + 1e-6).all()
    return wet


@pytest.fixture
def hogs() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that compute and nothing else; whoever asks for them starts them, they end by themselves at last."""
    running: list[subprocess.Popen[bytes]] = []
    yield running
    for process in running:
        process.kill()
        process.wait()


def test_beside_others_hogs_the_sound_steps_down_and_is_whole_again_when_they_have_gone(
    jack: Callable[..., Jack], tmp_path: Path, hogs: list[subprocess.Popen[bytes]]
) -> None:
    server = jack(1024, realtime=False)
    player = subprocess.Popen(
        ["jack_simple_client"], env=server.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    host = subprocess.Popen(
        [sys.executable, "-c", OUTSIDE, str(ROOT / "tests" / "burning.py")],
        env={**server.env, "PYTHONPATH": BURNING}, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert host.stdin is not None and host.stdout is not None
    try:
        server.wait_port("PortAudio:in_0")
        server.wait_port("jack_simple_client:output1")
        server.connect("jack_simple_client:output1", "PortAudio:in_0")
        for line in host.stdout:
            if line.strip() == "calm":
                spin = ["sh", "-c", "ulimit -t 30; while :; do :; done"]
                hogs += [subprocess.Popen(spin) for _ in range(6 * (os.cpu_count() or 1))]
            elif line.strip() == "out":
                for process in hogs:
                    process.kill()
                host.stdin.write("\n")
                host.stdin.flush()
        assert host.wait(120) == 0, host.stderr and host.stderr.read()
    finally:
        host.kill()
        host.wait()
        player.terminate()
        player.wait()
    check_take(tmp_path, 0.75, 0.25)


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
    wet = check_take(tmp_path, 0.375, 0.125)
    done = cli("process", tmp_path / "take.dry.wav", "-o", tmp_path / "again.wav", "--keep-latency", "--allow-code",
               "--events", tmp_path / "take.events.jsonl", env={"PYTHONPATH": BURNING})  # fmt: skip
    assert done.returncode == 0, done.stderr
    again, _ = soundfile.read(tmp_path / "again.wav", dtype="float32")
    assert np.array_equal(again.view(np.int32), wet.view(np.int32))
