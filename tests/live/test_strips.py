"""Two microphones at once on a real JACK server, each through a chain of its own and into a file of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from support import ROOT, Jack, speechlike

pytestmark = [pytest.mark.jack, pytest.mark.slow]


def test_two_microphones_are_mixed_and_recorded_apart(
    jack: Callable[..., Jack], tmp_path: Path, cli: Callable[..., Any]
) -> None:
    server = jack(256)
    voice = tmp_path / "voice.wav"
    soundfile.write(voice, speechlike(60.0), 48000, "PCM_16")
    host = subprocess.Popen(
        [sys.executable, str(ROOT / "run_live.py"), "--preset", "voice-basic", "--strip", "anna", "--strip",
         "ben=bypass", "--set", "ben.duck_db=12", "--set", "ben.priority=1", "--record", "take.wav", "--no-midi",
         "--no-panel", "--no-shed", "--telemetry", "t.jsonl"],
        env=server.env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    players: list[subprocess.Popen[Any]] = []
    try:
        server.wait_port("PortAudio:in_1", 90)
        for command in (["jack_simple_client"], ["jack-play", "-u", "-n", "mic", str(voice)]):
            players.append(
                subprocess.Popen(
                    command, env={**server.env, "JACK_PLAY_CONNECT_TO": ""}, stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )  # fmt: skip
        for name, number in (("mic:out_1", 0), ("jack_simple_client:output1", 1)):
            server.wait_port(name)
            server.connect(name, f"PortAudio:in_{number}")
        ducked = False
        while not ducked:
            assert host.poll() is None, host.communicate()[0]
            lines = (tmp_path / "t.jsonl").read_text().splitlines()
            ducked = any('"ben.ducked_db": 1' in line for line in lines)
    finally:
        host.send_signal(signal.SIGINT)
        output = host.communicate(timeout=30)[0]
        for player in players:
            player.terminate()
            player.wait()
    assert host.returncode == 0, output
    dry, anna, ben, wet = (
        soundfile.read(tmp_path / f"take{name}.wav", dtype="float32", always_2d=True)[0]
        for name in (".dry", ".anna", ".ben", "")
    )
    assert [a.shape[1] for a in (dry, anna, ben, wet)] == [2, 1, 1, 2]
    assert np.abs(dry).max(0).min() > 0.05, "both were heard"
    late = 48  # of the limiter in the other strip
    assert np.array_equal(ben[late:, 0], dry[:-late, 1])
    assert np.abs(anna).max() > 0.05 and np.abs(wet[:, 0] - anna[:, 0]).max() > 0.01
    done = cli("replay", tmp_path / "take.wav")
    assert done.returncode == 0 and "identical to what was heard" in done.stdout, (done.stdout, done.stderr)
