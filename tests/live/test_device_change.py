"""Other devices, another block and another rate, while a host plays on real servers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pipewire import PROGRAMS, PipeWire
from support import ROOT, Jack

pytestmark = [pytest.mark.jack, pytest.mark.slow]

#: A host that is asked for what it cannot have, and whose server comes back at another rate.
SCRIPT = """
import sys, time
import numpy as np
from rtgan import Host
from rtgan.control.desk import Desk
from rtgan.control.plugboard import Plugboard
from rtgan.errors import RtganError
host = Host(preset="voice-basic", input="system", output="system")
board = Plugboard(host)
def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, (host.device, host.running, host.stats())
        time.sleep(0.005)
def plays():
    at = host.engine.counters.position_samples
    until(lambda: host.running and host.engine.counters.position_samples > at + 4800 and not host.device)
def refused(**wanted):
    try:
        board.open(**wanted)
    except RtganError as problem:
        return str(problem)
    raise AssertionError(wanted)
with Desk(host, inputs=["nobody"]) as desk, host:
    host.set("gate.threshold_db", -37)
    host.set("host.volume_db", -6)
    plays()
    engine, before = host.engine, host.latency_ms()
    assert refused(rate_hz=44100).startswith("system refuses 44100 Hz")
    assert "no output device 'nothing'" in refused(output="nothing")
    assert "out of range" in refused(block=99999)
    assert "is not supported" in refused(rate_hz=12345)
    plays()
    assert host.engine is engine and host.sample_rate_hz == 48000 and host.latency_ms() == before
    board.open(block=128)
    plays()
    assert host.block == 128 and host.engine is engine and host.values["gate.threshold_db"] == -37
    host.record("take.wav")
    assert "a recording runs" in refused(rate_hz=44100)
    plays()
    print("rate", flush=True)
    until(lambda: host.device)
    sys.stdin.readline()
    began = time.monotonic()
    until(lambda: host.sample_rate_hz == 44100)
    plays()
    assert time.monotonic() - began < 2.0, "it plays on within two seconds of the server's return"
    told = "system has come back at 44100 Hz: playing on at that rate; take.wav ends here, take-44100.wav goes on"
    assert told in host.stats().warnings, host.stats().warnings
    assert host.recording.name == "take-44100.wav"
    host.stop_recording()
    assert host.sample_rate_hz == host.engine.sample_rate_hz == desk.clock.sample_rate_hz == 44100
    assert host.engine is not engine
    assert host.values["gate.threshold_db"] == -37 and host.values["host.volume_db"] == -6
    host.load("bypass")
    until(lambda: not host.strips)
    plays()
    # Controllers reach the engine that plays.
    until(lambda: desk._jack is not None and desk._jack.serves(host.engine, True))
    print("there", host.stuck, flush=True)
"""


def test_what_is_refused_changes_nothing_and_another_rate_needs_another_engine(
    jack: Callable[..., Jack], tmp_path: Path
) -> None:
    server = jack(256)
    host = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], env={**server.env, "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert host.stdin is not None and host.stdout is not None
    said = []
    for line in host.stdout:
        said.append(line.strip())
        if line.strip() == "rate":
            server.close()
            server.rate = 44100
            server.start()
            host.stdin.write("\n")
            host.stdin.flush()
    errors = host.communicate(timeout=60)[1]
    assert (host.returncode, said) == (0, ["rate", "there False"]), errors


#: A host whose microphone for others comes and goes.
MICROPHONE = """
import subprocess, time
from rtgan import Host
from rtgan.control.plugboard import Plugboard
def sources():
    return subprocess.run(["pactl", "list", "short", "sources"], capture_output=True, text=True, check=True).stdout
host = Host(preset="voice-basic")
board = Plugboard(host)
def plays():
    at, deadline = host.engine.counters.position_samples, time.monotonic() + 60
    while host.device or not host.running or host.engine.counters.position_samples < at + 4800:
        assert time.monotonic() < deadline, (host.device, host.running, host.stats())
        time.sleep(0.005)
with host:
    plays()
    before = host.output.plug
    board.virtual_mic(True)
    plays()
    assert board.mic == "rtgan microphone" and "rtgan_microphone" in sources() and host.output.plug != before
    board.virtual_mic(False)
    plays()
    assert not board.mic and "rtgan_microphone" not in sources() and host.output.plug == before
    print("there", flush=True)
"""


def test_a_microphone_for_others_comes_and_goes(tmp_path: Path) -> None:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{', '.join(missing)} not installed")
    server = PipeWire(tmp_path)
    try:
        server.pactl("load-module", "module-null-sink", "sink_name=room", "channels=1", "rate=48000")
        server.choose("set-default-source", "room.monitor")
        server.choose("set-default-sink", "room")
        host = subprocess.run(
            ["pw-jack", sys.executable, "-c", MICROPHONE], env={**server.env, "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
            capture_output=True, text=True, timeout=180,
        )  # fmt: skip
    finally:
        server.close()
    assert (host.returncode, host.stdout.strip()[-5:]) == (0, "there"), host.stderr
