"""The real ``run_live.py`` on a real JACK server, with players and recorders that are not ours."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from support import ROOT, Jack, speechlike

pytestmark = [pytest.mark.jack, pytest.mark.slow]

Floats = NDArray[np.float32]


def perform(jack: Jack, folder: Path, *arguments: str, seconds: float = 4.0) -> tuple[Floats, str]:
    """Play a voice into the host and capture dry and wet on one clock; returns (samples, 2) and what was printed."""
    voice = folder / "voice.wav"
    soundfile.write(voice, speechlike(seconds, jack.rate, seed=5), jack.rate, "PCM_16")
    capture = folder / "capture.wav"
    jack.transport("stop")
    jack.transport("locate 0")
    host = subprocess.Popen(
        [sys.executable, str(ROOT / "run_live.py"), "--input", "system", "--output", "system", *arguments],
        env=jack.env, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    players: list[subprocess.Popen[Any]] = []
    try:
        jack.wait_port("PortAudio:out_0", 90)
        players.append(
            subprocess.Popen(
                ["jack-play", "-u", "-t", "-n", "mic", str(voice)],
                env={**jack.env, "JACK_PLAY_CONNECT_TO": ""}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
        )  # fmt: skip
        jack.wait_port("mic:out_1")
        jack.connect("mic:out_1", "PortAudio:in_0")
        recorder = subprocess.Popen(
            ["jack_rec", "-f", str(capture), "-d", str(int(seconds) + 2), "-b", "24", "mic:out_1", "PortAudio:out_0"],
            env=jack.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        players.append(recorder)
        jack.wait_port("jackrec:input1")
        time.sleep(0.3)
        jack.transport("play")
        recorder.wait(timeout=seconds + 30)
    finally:
        host.send_signal(signal.SIGINT)
        output, _ = host.communicate(timeout=30)
        for player in players:
            player.terminate()
            player.wait()
    assert host.returncode == 0, output
    frames, rate = soundfile.read(capture, dtype="float32", always_2d=True)
    assert rate == jack.rate
    return frames, output


def lag(late: Floats, early: Floats) -> int:
    """Samples by which one signal comes after another, by cross-correlation."""
    size = 1 << (len(late) + len(early)).bit_length()
    product = np.fft.irfft(np.fft.rfft(late, size) * np.conj(np.fft.rfft(early, size)), size)
    at = int(np.argmax(product))
    return at if at < size // 2 else at - size


def find(part: Floats, whole: Floats) -> int:
    """Where ``part`` begins in ``whole``."""
    return -lag(part, whole)


LAST_BIT_24 = 2.0**-23


@pytest.mark.parametrize("preset", ["voice-basic", "clean", "stage"])
def test_capture_recording_and_offline_agree(
    jack: Callable[..., Jack], tmp_path: Path, cli: Callable[..., Any], preset: str
) -> None:
    frames, output = perform(
        jack(512, wait=True),
        tmp_path,
        "--preset",
        preset,
        "--record",
        "take.wav",
        "--telemetry",
        "telemetry.jsonl",
        "--no-shed",
    )
    dry, rate = soundfile.read(tmp_path / "take.dry.wav", dtype="float32")
    wet, _ = soundfile.read(tmp_path / "take.wav", dtype="float32")
    assert len(dry) == len(wet)
    loud = np.flatnonzero(np.abs(frames[:, 0]) > 0.01)
    begin, end = loud[0], loud[-1]
    assert end - begin > 2 * rate

    # The server's capture is the host's own recording at one integer offset, to the capture's word length.
    offset = find(frames[begin:end, 0], dry)
    assert np.abs(frames[begin:end, 0] - dry[offset : offset + end - begin]).max() <= LAST_BIT_24
    assert np.abs(frames[begin:end, 1] - wet[offset : offset + end - begin]).max() <= LAST_BIT_24

    # The same code offline: bit for bit.
    done = cli("process", tmp_path / "take.dry.wav", "-o", tmp_path / "again.wav", "--preset", preset, "--keep-latency")
    assert done.returncode == 0, done.stderr
    again, _ = soundfile.read(tmp_path / "again.wav", dtype="float32")
    assert np.array_equal(again.view(np.int32), wet.view(np.int32))

    kinds = {json.loads(line)["kind"] for line in (tmp_path / "telemetry.jsonl").read_text().splitlines()}
    assert {"swap_done", "meter", "stopped"} <= kinds
    assert "faults 0" in output


def test_the_host_adds_no_frame_beyond_the_declared_latency(jack: Callable[..., Jack], tmp_path: Path) -> None:
    frames, _ = perform(jack(128), tmp_path, "--preset", "bypass", "--block", "0")
    dry, wet = frames[:, 0], frames[:, 1]
    assert lag(wet, dry) == 0
    different = np.flatnonzero(np.abs(wet - dry) > LAST_BIT_24)
    # A stalled machine may lose single blocks; everything else is the input, to the sample.
    assert len(different) <= 0.02 * len(dry)


def test_the_chains_latency_is_the_declared_one_on_the_device(jack: Callable[..., Jack], tmp_path: Path) -> None:
    frames, _ = perform(
        jack(256, wait=True),
        tmp_path,
        "--preset",
        "voice-basic",
        "--set",
        "gate.threshold_db=-90",
        "--set",
        "highpass.cutoff_hz=10",
    )
    assert lag(frames[:, 1], frames[:, 0]) == 48  # the limiter's look-ahead of 1 ms


def test_sigterm_ends_cleanly(jack: Callable[..., Jack], tmp_path: Path) -> None:
    server = jack(256)
    host = subprocess.Popen(
        [sys.executable, str(ROOT / "run_live.py"), "--preset", "bypass", "--record", "t.wav"],
        env=server.env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    server.wait_port("PortAudio:out_0")
    time.sleep(1)
    host.terminate()
    output, _ = host.communicate(timeout=20)
    assert host.returncode == 0, output
    assert "played" in output
    assert soundfile.info(tmp_path / "t.wav").frames > 20000


def test_a_killed_host_leaves_a_playable_recording(jack: Callable[..., Jack], tmp_path: Path) -> None:
    server = jack(256)
    host = subprocess.Popen(
        [sys.executable, str(ROOT / "run_live.py"), "--preset", "bypass", "--record", "t.wav"],
        env=server.env, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    server.wait_port("PortAudio:out_0")
    time.sleep(4)
    host.kill()
    host.wait()
    samples, rate = soundfile.read(tmp_path / "t.wav")
    assert len(samples) > rate


def test_a_server_that_goes_away_is_one_clear_sentence(jack: Callable[..., Jack], tmp_path: Path) -> None:
    server = jack(256)
    host = subprocess.Popen(
        [sys.executable, str(ROOT / "run_live.py"), "--preset", "bypass", "--record", "t.wav", "--wait-device", "0"],
        env=server.env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    server.wait_port("PortAudio:out_0")
    time.sleep(1.5)
    server.close()
    _, errors = host.communicate(timeout=30)
    assert host.returncode == 1
    assert "the audio device has gone away" in errors
    assert "Traceback" not in errors
    assert soundfile.info(tmp_path / "t.wav").frames > 0


def test_a_server_that_hangs_keeps_nobody(jack: Callable[..., Jack], tmp_path: Path) -> None:
    server = jack(256)
    host = subprocess.Popen(
        [sys.executable, str(ROOT / "run_live.py"), "--preset", "bypass", "--record", "t.wav", "--midi-in", "none"],
        env=server.env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    server.wait_port("PortAudio:out_0")
    server.wait_port("rtgan:midi_in")
    time.sleep(1.0)
    server.hang()
    host.send_signal(signal.SIGTERM)
    _, errors = host.communicate(timeout=60)
    assert host.returncode == 1
    assert len(errors.strip().splitlines()) == 1 and errors.startswith("rtgan: "), errors
    assert soundfile.info(tmp_path / "t.wav").frames > 0


def test_a_device_that_refuses_the_rate(jack: Callable[..., Jack]) -> None:
    server = jack(256)
    done = subprocess.run(
        [sys.executable, str(ROOT / "run_live.py"), "--preset", "bypass", "--rate", "96000", "--seconds", "1"],
        env=server.env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "system refuses 96000 Hz; its own rate is 48000 Hz" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("rate", [44100, 88200, 96000])
def test_devices_of_other_rates(jack: Callable[..., Jack], tmp_path: Path, cli: Callable[..., Any], rate: int) -> None:
    perform(jack(1024, rate, wait=True), tmp_path, "--preset", "stage", "--record", "take.wav", "--no-shed", seconds=3)
    wet, recorded_rate = soundfile.read(tmp_path / "take.wav", dtype="float32")
    assert recorded_rate == rate
    assert np.abs(wet).max() > 0.01
    done = cli("process", tmp_path / "take.dry.wav", "-o", tmp_path / "a.wav", "--preset", "stage", "--keep-latency")
    assert done.returncode == 0, done.stderr
    again, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert np.array_equal(again, wet)


def test_a_performance_with_changes_is_rendered_again_bit_for_bit(
    jack: Callable[..., Jack], tmp_path: Path, cli: Callable[..., Any]
) -> None:
    """Parameters and presets change while another Python thread is busy; the event log brings it all back."""
    server = jack(256)
    script = """
import threading, time, sys
from rtgan import Host
stop = threading.Event()
def busy():
    while not stop.is_set(): sum(range(1000))
threading.Thread(target=busy, daemon=True).start()
with Host(preset="voice-basic", input="system", output="system", record="take.wav") as host:
    time.sleep(0.6)
    host.set("gate.threshold_db", -90)
    time.sleep(0.3)
    host.set("highpass.cutoff_hz", 900)
    time.sleep(0.3)
    host.load("bypass")
    time.sleep(0.4)
    host.load("voice-basic")
    host.set("limiter.drive_db", 9)
    time.sleep(0.6)
    assert host.values["limiter.drive_db"] == 9
    stats = host.stats()
    assert stats.faults == {"highpass": 0, "gate": 0, "limiter": 0}
stop.set()
"""
    player = subprocess.Popen(
        ["jack_simple_client"], env=server.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        host = subprocess.Popen(
            [sys.executable, "-c", script], env={**server.env, "PYTHONPATH": str(ROOT)}, cwd=tmp_path
        )
        server.wait_port("PortAudio:in_0")
        server.wait_port("jack_simple_client:output1")
        server.connect("jack_simple_client:output1", "PortAudio:in_0")
        assert host.wait(timeout=60) == 0
    finally:
        player.terminate()
        player.wait()
    done = cli("process", tmp_path / "take.dry.wav", "-o", tmp_path / "again.wav", "--keep-latency",
               "--events", tmp_path / "take.events.jsonl")  # fmt: skip
    assert done.returncode == 0, done.stderr
    wet, _ = soundfile.read(tmp_path / "take.wav", dtype="float32")
    again, _ = soundfile.read(tmp_path / "again.wav", dtype="float32")
    assert np.abs(wet).max() > 0.1
    assert np.array_equal(again.view(np.int32), wet.view(np.int32))
