"""A host on the built-in clocked device: what a person does to it while it plays."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support import ROOT, speechlike

from rtgan import Host, offline
from rtgan.errors import UsageError

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "JACK_NO_START_SERVER": "1"}


def wait_for(condition: object, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def test_parameters_presets_and_figures_while_it_plays() -> None:
    with Host(preset="voice-basic", source=speechlike(20.0)[None], settings={"gate.threshold_db": -90}) as host:
        assert host.wait_first_block()
        host.set("highpass.cutoff_hz", 200)
        wait_for(lambda: host.values["highpass.cutoff_hz"] == 200)
        wait_for(lambda: host.stats().in_db > -40)
        host.load("bypass")
        host.load("voice-basic")
        host.set("limiter.drive_db", 3)
        wait_for(lambda: host.values["limiter.drive_db"] == 3)
        with pytest.raises(UsageError, match="it has: bypass, mix, cutoff_hz"):
            host.set("highpass.volume", 3)
        with pytest.raises(UsageError, match="allowed: 10 to 2000 Hz"):
            host.set("highpass.cutoff_hz", 3)
        with pytest.raises(UsageError, match="there is no preset"):
            host.load("nothing")
        stats = host.stats()
        assert stats.xruns == 0
        assert stats.faults == {"highpass": 0, "gate": 0, "limiter": 0}
        assert stats.latency_ms["limiter"] == pytest.approx(1.0)
        assert 0 < stats.load < 1
    assert not host.running
    heard = host.output_so_far()
    assert np.isfinite(heard).all()
    assert np.abs(heard[:, -100:]).max() < 1e-3, "it ends in silence"
    assert np.abs(np.diff(heard[0])).max() < 0.5


def test_a_recording_with_changes_is_performed_again_bit_for_bit(tmp_path: Path) -> None:
    take = tmp_path / "take.wav"
    with Host(preset="voice-basic", source=speechlike(20.0)[None], record=take) as host:
        assert host.wait_first_block()
        for k in range(6):
            host.set("gate.threshold_db", -30 - 5 * k)
            if k == 2:
                host.load("bypass")
            if k == 2:
                time.sleep(0.15)
                host.load("voice-basic")
            time.sleep(0.1)
    preset, values, steps, rate = offline.read_log(tmp_path / "take.events.jsonl")
    assert [s.preset.name for s in steps if s.preset] == ["Bypass", "Voice without a model"]
    assert len([s for s in steps if s.param]) >= 5
    dry, _ = soundfile.read(tmp_path / "take.dry.wav", dtype="float32")
    wet, _ = soundfile.read(take, dtype="float32")
    settings = {name.replace(".", "__", 1): value for name, value in values.items()}
    again = offline.process(dry, rate, preset, keep_latency=True, steps=steps, **settings)
    assert np.array_equal(again.view(np.int32), wet.view(np.int32))
    plain = offline.process(dry, rate, preset, keep_latency=True, **settings)
    assert not np.array_equal(plain, wet), "without the log it is another performance"


def test_an_older_take_is_never_overwritten(tmp_path: Path) -> None:
    take = tmp_path / "take.wav"
    take.write_text("precious")
    with Host(preset="bypass", source=speechlike(1.0)[None], record=take) as host:
        host.wait_first_block()
    assert (tmp_path / "take.1.wav").read_text() == "precious"
    assert soundfile.info(take).frames > 0


def test_python_may_be_busy_meanwhile() -> None:
    """The threads of this process hold the interpreter lock as long as they can; the sound does not notice."""
    halt = threading.Event()

    def busy() -> None:
        while not halt.is_set():
            sum(range(20000))

    threads = [threading.Thread(target=busy) for _ in range(2)]
    with Host(preset="voice-basic", source=speechlike(3.0)[None]) as host:
        host.wait_first_block()
        for thread in threads:
            thread.start()
        host.set("gate.threshold_db", -80)
        wait_for(lambda: host.stats().seconds > 1.0, 30)
        halt.set()
        for thread in threads:
            thread.join()
    assert host.stats().faults == {"highpass": 0, "gate": 0, "limiter": 0}


def test_without_a_device_the_main_job_is_seen_and_heard(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "run_live.py"), "--preset", "voice-basic", "--seconds", "2"],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "no audio input device: playing a built-in noisy recording" in done.stdout
    folder = tmp_path / "rtgan-demo"
    before, rate = soundfile.read(folder / "before.wav")
    after, _ = soundfile.read(folder / "after.wav")
    assert rate == 48000
    assert len(before) == len(after) > 48000
    assert (folder / "before-after.png").read_bytes().startswith(b"\x89PNG")


def test_the_status_line_on_a_terminal_and_ctrl_c(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    host = subprocess.Popen(
        [sys.executable, str(ROOT / "run_live.py"), "--preset", "voice-basic"],
        cwd=tmp_path, env={**ENVIRONMENT, "COLUMNS": "200"}, stdout=slave, stderr=slave, stdin=slave,
    )  # fmt: skip
    os.close(slave)
    seen = b""
    deadline = time.monotonic() + 60
    while b"dBFS" not in seen and time.monotonic() < deadline:
        seen += os.read(master, 4096)
    time.sleep(0.5)
    host.send_signal(signal.SIGINT)
    while True:
        try:
            more = os.read(master, 4096)
        except OSError:
            break
        if not more:
            break
        seen += more
    assert host.wait(20) == 0
    text = seen.decode()
    for words in ("load", "worst", "latency", "limiter 1.0", "xruns 0", "faults 0", "Ctrl-C fades out", "played"):
        assert words in text, text
    assert "Traceback" not in text
