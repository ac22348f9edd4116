"""The microphone that others can choose, on a real PipeWire, recorded by programs that are not ours."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from pipewire import PROGRAMS, PipeWire
from support import ROOT

from rtgan import demo, offline, presets

pytestmark = [pytest.mark.jack, pytest.mark.slow]

MIC = "Stage Mic"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PipeWire]:
    missing = [name for name in (*PROGRAMS, "ffmpeg") if shutil.which(name) is None]
    if missing:
        if os.environ.get("CI") == "true":
            pytest.fail(f"PipeWire and ffmpeg must be installed in CI; {', '.join(missing)} missing")
        pytest.skip(f"{', '.join(missing)} not installed")
    made = PipeWire(tmp_path)
    try:
        made.pactl("load-module", "module-null-sink", "sink_name=room", "channels=1", "rate=48000")
        made.choose("set-default-source", "room.monitor")
        made.choose("set-default-sink", "room")
        yield made
    finally:
        made.close()


def live(server: PipeWire, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["pw-jack", sys.executable, str(ROOT / "run_live.py"), "--no-midi", "--preset", "clean", *arguments],
        env=server.env, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def until_heard(server: PipeWire, host: subprocess.Popen[str]) -> None:
    """Wait until the host plays into its microphone."""

    def connected() -> bool:
        assert host.poll() is None, host.communicate()[0]
        links = subprocess.run(["pw-link", "--links"], env=server.env, capture_output=True, text=True)
        return "PortAudio:out_0" in links.stdout

    server.until(connected, 90)


def likeness(recorded: np.ndarray, expected: np.ndarray, piece: int = 24000) -> float:
    """How well the louder pieces of what is expected are found in what was recorded, by normalised correlation.

    Piece by piece, and their median: where a machine that stalls loses a block, the rest comes earlier.
    """
    size = 1 << (len(recorded) + piece).bit_length()
    spectrum = np.fft.rfft(recorded, size)
    energy = np.concatenate(([0.0], np.cumsum(recorded.astype(np.float64) ** 2)))
    local = np.sqrt(np.maximum(energy[piece:] - energy[:-piece], 1e-9))
    pieces = expected[: len(expected) // piece * piece].reshape(-1, piece)
    loudness = np.sqrt((pieces**2).sum(1))
    found = []
    for part, loud in zip(pieces, loudness, strict=True):
        if loud > 0.5 * loudness.mean():
            product = np.fft.irfft(spectrum * np.conj(np.fft.rfft(part, size)), size)[: len(local)]
            found.append(float((product / local).max() / loud))
    return float(np.median(found))


def test_a_denoised_voice_is_recorded_from_it_and_it_goes_with_the_host(server: PipeWire, tmp_path: Path) -> None:
    before = server.names("sources"), server.names("sinks")
    host = live(server, tmp_path, "--virtual-mic", MIC, "--input", "room")
    until_heard(server, host)
    assert "stage_mic" in server.names("sources")
    noisy = demo.recording()
    soundfile.write(tmp_path / "noisy.wav", noisy[0], 48000, "FLOAT")
    recorders = {
        "pw.wav": ["pw-record", "--target", "stage_mic", "--rate", "48000", "--channels", "1", "--format", "f32"],
        "pa.wav": ["parecord", "--device", "stage_mic", "--rate", "48000", "--channels", "1", "--format", "float32le",
                   "--file-format=wav", "--latency-msec=50"],
        "ff.wav": ["ffmpeg", "-nostdin", "-loglevel", "error", "-f", "pulse", "-i", "stage_mic", "-ac", "1",
                   "-ar", "48000", "-c:a", "pcm_f32le"],
    }  # fmt: skip
    running: list[subprocess.Popen[Any]] = [
        subprocess.Popen([*command, str(tmp_path / name)], env=server.env) for name, command in recorders.items()
    ]
    time.sleep(1.0)
    subprocess.run(["pw-play", "--target", "room", str(tmp_path / "noisy.wav")], env=server.env, check=True, timeout=60)
    time.sleep(0.5)
    for process in running:
        process.send_signal(signal.SIGINT)
        process.wait(10)
    assert server.pactl("get-default-source").strip() == "room.monitor"
    assert server.pactl("get-default-sink").strip() == "room"
    host.send_signal(signal.SIGINT)
    output = host.communicate(timeout=30)[0]
    assert host.returncode == 0, output
    assert f"virtual microphone: choose '{MIC}' in the other program" in output
    assert (server.names("sources"), server.names("sinks")) == before
    clean = offline.process(noisy[0], 48000, presets.load("clean"))
    for name in recorders:
        recorded, rate = soundfile.read(tmp_path / name, dtype="float32")
        assert rate == 48000
        # A machine that stalls may lose blocks; the voice is the denoised one and not the noisy one.
        assert likeness(recorded, clean) > 0.9, name
        assert likeness(recorded, clean) > likeness(recorded, noisy[0]), name


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_it_however_the_host_ends(server: PipeWire, tmp_path: Path, how: signal.Signals) -> None:
    before = server.names("sources"), server.names("sinks")
    host = live(server, tmp_path, "--virtual-mic")
    until_heard(server, host)
    assert "rtgan_microphone" in server.names("sources")
    # Who kills the shell that pw-jack is has not killed the host: it is the host's own process, by exec.
    host.send_signal(how)
    host.communicate(timeout=30)
    server.until(lambda: (server.names("sources"), server.names("sinks")) == before)


def test_what_a_host_of_earlier_left_is_cleared_away_and_it_cannot_hear_itself(
    server: PipeWire, tmp_path: Path
) -> None:
    before = server.names("sources")
    server.pactl("load-module", "module-null-sink", "sink_name=rtgan_microphone_feed",
                 "sink_properties='device.description=\"left\" rtgan.owner=4194000.17'")  # fmt: skip
    host = live(server, tmp_path, "--virtual-mic", "--input", "rtgan microphone feed")
    output = host.communicate(timeout=90)[0]
    assert host.returncode == 2, output
    assert "cannot be its own input" in output and "Traceback" not in output
    assert server.names("sources") == before
