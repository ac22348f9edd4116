"""A real JACK server that ends and is started again under a running host: the same sound goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support import ROOT, Jack

pytestmark = [pytest.mark.jack, pytest.mark.slow]

#: A host that changes a parameter, loses its server twice, and goes on.
SCRIPT = """
import os, sys, time
from rtgan import Host, events
told = []
host = Host(preset="voice-basic", input="system", output="system", record="take.wav",
            on_record=lambda r: told.append(r.kind))
def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, (host.device, host.running, host.stats())
        time.sleep(0.005)
with host:
    host.set("gate.threshold_db", -37)
    until(lambda: host.values["gate.threshold_db"] == -37)
    for _ in range(2):
        until(lambda: host.running and host.engine.counters.position_samples > 0)
        print("playing", flush=True)
        until(lambda: host.device)
        assert host.waiting and not host.running
        assert host.stats().device == "system has gone; waiting for it", host.stats().device
        held = host.engine.counters.position_samples
        print("held", flush=True)
        sys.stdin.readline()
        began = time.monotonic()
        until(lambda: host.running and host.engine.counters.position_samples > held + 4800)
        print("back", round(time.monotonic() - began, 3), flush=True)
        assert host.values["gate.threshold_db"] == -37 and host.device == ""
print("ended", [told.count(k) for k in (events.DEVICE_GONE, events.DEVICE_BACK)], host.stuck, flush=True)
"""


def test_a_server_that_comes_back_is_played_on_within_two_seconds(jack: Callable[..., Jack], tmp_path: Path) -> None:
    server = jack(256)
    host = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], env={**server.env, "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert host.stdin is not None and host.stdout is not None
    lines: list[str] = []
    for line in host.stdout:
        lines.append(line.strip())
        if line.strip() == "playing":
            server.wait_port("PortAudio:out_0")
            server.close()
        elif line.strip() == "held":
            server.start()
            host.stdin.write("\n")
            host.stdin.flush()
    errors = host.communicate(timeout=60)[1]
    assert host.returncode == 0, errors
    assert [text.partition(" ")[0] for text in lines] == ["playing", "held", "back"] * 2 + ["ended"]
    assert lines[-1] == "ended [2, 2] False"
    assert all(float(text.split()[1]) < 2.0 for text in lines if text.startswith("back")), lines
    log = [json.loads(line) for line in (tmp_path / "take.events.jsonl").read_text().splitlines()]
    assert sum("without a device" in entry.get("marker", "") for entry in log) == 2
    assert soundfile.info(tmp_path / "take.wav").frames > 9600


def test_rtgan_live_says_so_and_ends_when_it_is_told_to(jack: Callable[..., Jack], tmp_path: Path) -> None:
    server = jack(256)
    host = subprocess.Popen(
        [sys.executable, str(ROOT / "run_live.py"), "--preset", "bypass", "--telemetry", "t.jsonl",
         "--record", "t.wav"],
        env=server.env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert host.stdout is not None
    assert any("system -> system" in line for line in host.stdout), "it plays"
    server.close()
    said = []
    for line in host.stdout:
        said.append(line)
        if "system has gone; waiting for it" in line:
            server.start()
        if "the device is back" in line:
            break
    assert "the device is back" in said[-1], (said, host.poll())
    server.wait_port("PortAudio:out_0")
    server.close()
    for line in host.stdout:
        said.append(line)
        if "system has gone" in line:
            break
    host.send_signal(signal.SIGINT)
    output = host.communicate(timeout=30)[0]
    assert host.returncode == 0, (said, output)
    assert "played" in output
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [k for k in kinds if k.startswith("device")] == ["device_gone", "device_back", "device_gone"]
    wet, _ = soundfile.read(tmp_path / "t.wav", dtype="float32")
    dry, _ = soundfile.read(tmp_path / "t.dry.wav", dtype="float32")
    assert len(wet) > 0 and np.array_equal(wet, dry)


#: A leveller that has come to its gain, and a denoiser that knows its noise, when the server ends.
HELD = """
import sys, time
import numpy as np
from rtgan import Host
from rtgan.presets import Entry, Preset
chain = (Entry("denoise", {"amount_db": 0}),
         Entry("leveller", {"target_lufs": -35, "cut_db": 30, "speed_db_per_s": 12}))
host = Host(preset=Preset("x", chain), input="system", output="system")
def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, (host.device, host.running, host.stats())
        time.sleep(0.005)
def memory():
    return b"".join(bytes(pages) for pages, _, _ in host._graph.arena._chunks)
def gain():
    return host.stats().readings["leveller.gain_db"]
with host:
    print("playing", flush=True)
    def settled():
        now = gain()
        time.sleep(0.1)
        return now < -5 and abs(gain() - now) < 0.01
    until(settled)
    print("settled", flush=True)
    until(lambda: host.device)
    before, known = gain(), memory()
    print("held", flush=True)
    sys.stdin.readline()
    assert host.device and memory() == known
    print("again", flush=True)
    sys.stdin.readline()
    until(lambda: host.running and not host.device)
    at = host.engine.counters.position_samples
    until(lambda: host.engine.counters.position_samples > at + 4800)
    assert abs(gain() - before) < 0.5 and gain() < -4, (gain(), before)
print("ended", flush=True)
"""


def test_what_plugins_have_come_to_know_is_kept_while_a_device_is_away(
    jack: Callable[..., Jack], tmp_path: Path
) -> None:
    server = jack(256)
    host = subprocess.Popen(
        [sys.executable, "-c", HELD], env={**server.env, "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert host.stdin is not None and host.stdout is not None
    player: subprocess.Popen[bytes] | None = None
    for line in host.stdout:
        if line.strip() == "playing":
            server.wait_port("PortAudio:in_0")
            player = subprocess.Popen(
                ["jack_simple_client"], env=server.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            server.wait_port("jack_simple_client:output1")
            server.connect("jack_simple_client:output1", "PortAudio:in_0")
        elif line.strip() == "settled":
            server.close()
        elif line.strip() in ("held", "again"):
            if line.strip() == "again":
                server.start()
            host.stdin.write("\n")
            host.stdin.flush()
    errors = host.communicate(timeout=60)[1]
    if player is not None:
        player.kill()
        player.wait()
    assert host.returncode == 0, errors
