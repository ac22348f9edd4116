"""A host on the built-in clocked device: what a person does to it while it plays."""

from __future__ import annotations

import argparse
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

from rtgan import Host, batch, events, offline
from rtgan.errors import RtganError, UsageError
from rtgan.events import Record
from rtgan.recorder import Recorder

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
    preset, values, steps, rate, _ = offline.read_log(tmp_path / "take.events.jsonl")
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


def test_without_a_device_or_a_keyboard_an_instrument_is_heard(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "run_live.py"), "--demo", "--seconds", "2", "--record", "take.wav"],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "playing a built-in phrase with Keys in real time" in done.stdout
    sound, rate = soundfile.read(tmp_path / "take.wav")
    assert len(sound) > rate and np.abs(sound).max() > 0.02


def test_without_a_device_the_rate_is_the_one_that_was_asked_for(tmp_path: Path) -> None:
    arguments = [sys.executable, str(ROOT / "run_live.py"), "--preset", "bypass", "--seconds", "1", "--rate"]
    done = subprocess.run(
        [*arguments, "44100"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    before, rate = soundfile.read(tmp_path / "rtgan-demo" / "before.wav")
    assert rate == 44100 and len(before) > 30000
    done = subprocess.run([*arguments, "7"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "the sample rate 7 Hz is not supported; allowed: 44100, 48000, 88200, 96000 Hz" in done.stderr


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


def test_the_hosts_own_parameters_and_panic(tmp_path: Path) -> None:
    with Host(preset="bypass", source=speechlike(20.0)[None], record=tmp_path / "take") as host:
        assert host.wait_first_block()
        host.set("host.volume_db", -6)
        host.set("host.mute", "on")
        wait_for(lambda: host.values["host.mute"] == 1)
        host.set("host.mute", "off")
        host.load("voice-basic")
        host.set("host.bypass", True)
        host.panic()
        wait_for(lambda: host.values["host.bypass"] == 1)
        time.sleep(0.3)
        assert host.values["host.volume_db"] == -6
        with pytest.raises(UsageError, match="the host has no parameter 'gain'; it has: volume_db, mute, bypass"):
            host.set("host.gain", 1)
        with pytest.raises(UsageError, match="allowed: -60 to 12 dB"):
            host.set("host.volume_db", 99)
    assert replayed(tmp_path / "take") == 0


def replayed(take: Path) -> int:
    return batch.replay(argparse.Namespace(take=take, output=None, allow_code=False))


def test_a_take_that_begins_while_it_plays_holds_what_is_heard_from_then_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Host(preset="bypass", source=speechlike(20.0)[None]) as host:
        assert host.wait_first_block()
        time.sleep(0.3)
        for name in ("one", "two"):
            host.record(tmp_path / f"{name}.wav")
            time.sleep(0.4)
            host.set("host.volume_db", -12 if name == "one" else 0)
            time.sleep(0.2)
            host.stop_recording()
            assert host.recording is None
        host.set("host.volume_db", 0)
    for name in ("one", "two"):
        wet, _ = soundfile.read(tmp_path / f"{name}.wav", dtype="float32")
        dry, _ = soundfile.read(tmp_path / f"{name}.dry.wav", dtype="float32")
        assert len(wet) == len(dry) > 20000
    assert np.array_equal(wet[-100:], dry[-100:])
    assert replayed(tmp_path / "one.wav") == 0, "a chain without memory is exact even so"
    assert replayed(tmp_path / "two.wav") == 1, "the volume was on its way when the second began"
    assert "differs from what was heard" in capsys.readouterr().out


def test_a_listener_that_raises_is_a_warning_and_goes_on_being_told() -> None:
    told: list[Record] = []

    def listener(record: Record) -> None:
        told.append(record)
        raise ValueError("oh")

    with Host(preset="bypass", source=speechlike(20.0)[None], on_record=listener) as host:
        wait_for(lambda: len(told) > 5)
        assert host.stats().warnings == ("a listener met ValueError('oh')",)
        assert host.stats().problems == ()


def test_the_sound_goes_on_and_is_polled_after_anything() -> None:
    with Host(preset="bypass", source=speechlike(20.0)[None]) as host:
        assert host.wait_first_block()
        note = host._note

        def broken(record: Record) -> None:
            host._note = note  # type: ignore[method-assign]
            raise KeyError("once")

        host._note = broken  # type: ignore[method-assign]
        wait_for(lambda: "KeyError('once')" in " ".join(host.stats().warnings))
        host.set("host.volume_db", -3)
        wait_for(lambda: host.values["host.volume_db"] == -3 and host._past.values.get("host.volume_db") == -3)


def test_a_recording_that_cannot_be_is_refused_and_the_next_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Host(preset="bypass", source=speechlike(30.0)[None]) as host:
        assert host.wait_first_block()
        with pytest.raises(RtganError, match="nowhere of the output does not exist"):
            host.record(tmp_path / "nowhere" / "take.wav")

        def full(*anything: object) -> None:
            raise OSError(28, "No space left on device")

        for failing in (True, False, True, False):
            with monkeypatch.context() as patch:
                if failing:
                    patch.setattr("rtgan.recorder.keep_older", full)
                    with pytest.raises(RtganError, match="cannot be recorded to: No space left on device"):
                        host.record(tmp_path / "full.wav")
                    assert host.recording is None
                    continue
            begins: list[int] = []
            take = tmp_path / "take.wav"
            host.listen(
                lambda record, begins=begins: begins.append(record.when) if record.kind == events.TAPING else None
            )  # type: ignore[misc]
            host.record(take)
            time.sleep(0.2)
            recorder = host._recorder
            assert isinstance(recorder, Recorder)
            host.set("host.volume_db", -6 - len(list(tmp_path.iterdir())))
            host.stop_recording()
            assert [recorder.origin] == begins[-1:], "the log's first sample is the file's"
            dry, _ = soundfile.read(take.with_suffix(".dry.wav"), dtype="float32")
            heard = speechlike(30.0)[recorder.origin : recorder.origin + len(dry)]
            assert len(dry) > 4000 and np.array_equal(dry, heard)
            assert take.with_suffix(".events.jsonl").read_text().count("host.volume_db") >= 1


def test_what_was_done_in_the_last_moment_is_in_the_log(tmp_path: Path) -> None:
    with Host(preset="voice-basic", source=speechlike(20.0)[None]) as host:
        assert host.wait_first_block()
        host._halt.set()  # whoever polls now and then does not any more
        assert host._thread is not None
        host._thread.join()
        host.record(tmp_path / "take.wav")
        wait_for(lambda: host.engine.counters.position_samples > 9600)
        host.set("host.volume_db", -7)
        wait_for(lambda: host.values["host.volume_db"] == -7)
        host.stop_recording()
    assert '"param": "host.volume_db", "value": -7.0' in (tmp_path / "take.events.jsonl").read_text()


def test_the_log_begins_from_what_the_values_were_and_not_from_what_they_became(tmp_path: Path) -> None:
    with Host(preset="bypass", source=speechlike(20.0)[None], record=tmp_path / "take.wav") as host:
        assert host.wait_first_block()
        wait_for(lambda: len(host._adopted) == 1)
        with host._polling:  # the thread that writes the log comes late
            host.load("voice-basic")
            serial = host._graph.serial
            wait_for(lambda: host.engine.counters.position_samples > 0)
            begin = host.engine.counters.position_samples
            wait_for(lambda: host.engine.counters.position_samples > begin + 9600)
            before = host.values["gate.threshold_db"]
            index, _ = host._graph.find("gate.threshold_db")
            host.engine.set_param(host._graph, index, -33.0)
            wait_for(lambda: host._graph.values()["gate.threshold_db"] == -33)
        wait_for(lambda: serial in host._adopted)
        time.sleep(0.1)
    _, _, steps, *_ = offline.read_log(tmp_path / "take.events.jsonl")
    loaded = next(s for s in steps if s.preset is not None)
    assert loaded.values is not None and loaded.values["gate.threshold_db"] == before != -33
    assert any(s.param == "gate.threshold_db" and s.value == -33 for s in steps)
    assert replayed(tmp_path / "take.wav") == 0
