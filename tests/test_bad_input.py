"""Everything a person can get wrong ends in one clear sentence, the right exit code and no traceback."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from support import ROOT, speechlike

Cli = Callable[..., Any]


def refused(done: Any, code: int, *words: str) -> None:
    """One sentence on stderr, the code, no traceback."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if line.strip() and "compil" not in line]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0], (word, lines[0])


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    path = tmp_path / "voice.wav"
    soundfile.write(path, speechlike(0.2), 48000, "FLOAT")
    return path


def _bad_files(folder: Path) -> dict[str, tuple[Path, int, str]]:
    good = folder / "good.wav"
    soundfile.write(good, speechlike(0.2), 48000)
    empty = folder / "empty.wav"
    empty.write_bytes(b"")
    corrupt = folder / "corrupt.flac"
    corrupt.write_bytes(os.urandom(2000))
    cut = folder / "cut.wav"
    cut.write_bytes(good.read_bytes()[:30])
    zero = folder / "zero.wav"
    soundfile.write(zero, np.zeros((0, 1), np.float32), 48000)
    nan = folder / "nan.wav"
    soundfile.write(nan, np.full(100, np.nan, np.float32), 48000, "FLOAT")
    text = folder / "text.wav"
    text.write_text("not a sound")
    return {
        "missing": (folder / "missing.wav", 2, "there is no file"),
        "folder": (folder, 2, "is a folder"),
        "empty": (empty, 1, "is empty"),
        "corrupt": (corrupt, 1, "is not a readable sound file"),
        "cut": (cut, 1, "is not a readable sound file"),
        "zero": (zero, 1, "holds no sound"),
        "nan": (nan, 1, "100 values that are not finite"),
        "text": (text, 1, "is not a readable sound file"),
    }


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "corrupt", "cut", "zero", "nan", "text"])
def test_unusable_sound_files(cli: Cli, tmp_path: Path, kind: str) -> None:
    path, code, words = _bad_files(tmp_path)[kind]
    target = tmp_path / "out.wav"
    refused(cli("process", path, "-o", target, "--preset", "bypass"), code, str(path), words)
    assert not target.exists()


def test_output_paths_that_cannot_be(cli: Cli, voice: Path, tmp_path: Path) -> None:
    before = voice.read_bytes()
    refused(cli("process", voice, "-o", voice, "--preset", "bypass"), 2, "the output", "is the input")
    assert voice.read_bytes() == before
    refused(cli("process", voice, "-o", tmp_path / "no" / "x.wav", "--preset", "bypass"), 2, "does not exist")
    refused(cli("process", voice, "-o", tmp_path / "x.mp4", "--preset", "bypass"), 2, "must end in .wav, .flac, .ogg")
    refused(cli("process", voice, voice, "-o", tmp_path / "x.wav", "--preset", "bypass"), 2, "need a folder")
    folder = tmp_path / "take.wav"
    folder.mkdir()
    refused(cli("live", "--preset", "bypass", "--seconds", "1", "--record", folder), 2, "is a folder")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--preset", "nothing"], 2, "there is no preset 'nothing'; known are:"),
        (["--set", "gain"], 2, "write plugin.param=value"),
        (["--set", "gain.gain_db=loud", "--preset", "voice-basic"], 2, "there is no 'gain' in the preset"),
        (["--set", "limiter.ceiling_db=5", "--preset", "voice-basic"], 2, "allowed: -24 to 0 dBFS"),
        (["--input", "no such microphone"], 2, "there is no input device 'no such microphone'"),
        (["--input", "77"], 2, "there is no input device '77'"),
        (["--preset", "bypass", "--in-channels", "9,9"], 2, "names a channel twice"),
        (["--preset", "bypass", "--in-channels", "0"], 2, "has no input channel 0"),
        (["--in-channels", "x"], 2, "is not a list of channels"),
        (["--preset", "bypass", "--block", "-4"], 2, "the block size -4 is out of range"),
        (["--preset", "bypass", "--seconds", "0"], 2, "--seconds must be above 0"),
        (["--wrong"], 2, "unrecognized arguments"),
        (["--preset", "bypass", "--telemetry", "/proc/none/x"], 1, "cannot be written"),
        (["--preset", "bypass", "--seconds", "1", "--record", "/proc/none/x.wav"], 2, "does not exist"),
        (["--preset", "bypass", "--seconds", "1", "--record", "x.ogg"], 2, "must end in .wav or .flac"),
        (["--preset", "bypass", "--seconds", "1", "--pre-roll", "99"], 2, "allowed: 0 to 60"),
        (["--preset", "bypass", "--seconds", "1", "--wait-device", "-1"], 2, "allowed: from 0"),
        (["--preset", "bypass", "--seconds", "1", "--rate", "0"], 2, "the sample rate 0 Hz is not supported"),
        (["--preset", "bypass", "--virtual-mic", "--output", "x"], 2, "leave --output out"),
    ],
)
def test_live_refuses_what_cannot_be(cli: Cli, arguments: list[str], code: int, words: str) -> None:
    refused(cli("live", *arguments), code, words)


def test_presets_that_are_wrong_name_file_and_line(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("schema: 1\nname: Mine\nchain:\n- plugin: gain\n  params: {gain_db: 99}\n")
    refused(cli("live", "--preset", path, "--seconds", "1"), 2, f"{path}:5", "gain.gain_db", "-60 to 24 dB")
    path.write_text("schema: [1\n")
    refused(cli("live", "--preset", path, "--seconds", "1"), 2, f"{path}:", "malformed YAML")
    refused(cli("info", path), 2, "malformed YAML")


def test_model_files_that_are_not_models(cli: Cli, tmp_path: Path, voice: Path) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text("schema: 1\nname: Mine\nchain:\n- plugin: denoise\n  model: m.ts\n")
    model = tmp_path / "m.ts"

    def attempt(code: int, *words: str) -> None:
        refused(cli("process", voice, "-o", tmp_path / "o.wav", "--preset", preset), code, *words)
        refused(cli("info", model), code, *words)

    model.write_bytes(b"")
    attempt(1, str(model))
    model.write_bytes(os.urandom(5000))
    attempt(1, str(model))
    with zipfile.ZipFile(model, "w") as archive:
        archive.writestr("hello.txt", "hello")
    attempt(1, str(model), "no TorchScript model")
    shipped = sorted((ROOT / "models").glob("*.ts"))
    model.write_bytes(shipped[0].read_bytes()[:-4000])
    attempt(1, str(model))
    model.unlink()
    refused(cli("process", voice, "-o", tmp_path / "o.wav", "--preset", preset), 2, "there is no model file m.ts")


def test_a_cache_that_cannot_be_written_costs_time_but_nothing_else(tmp_path: Path, voice: Path, cli: Cli) -> None:
    blocked = tmp_path / "cache"
    blocked.write_text("a file where the folder should be")
    done = cli("process", voice, "-o", tmp_path / "o.wav", "--preset", "bypass", env={"RTGAN_CACHE_DIR": str(blocked)})
    assert done.returncode == 0, done.stderr
    assert np.array_equal(soundfile.read(tmp_path / "o.wav")[0], soundfile.read(voice)[0])


def test_a_full_disk_ends_the_recording_with_a_sentence_and_keeps_what_was_recorded(tmp_path: Path) -> None:
    """A file-size limit stands in for the full disk: the write fails in the same place."""
    limit = 1 << 20

    def confine() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        [sys.executable, "-m", "rtgan", "live", "--preset", "bypass", "--seconds", "8", "--record", "take.wav"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), "JACK_NO_START_SERVER": "1"},
        preexec_fn=confine, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "recording to take.wav stopped after" in done.stderr
    assert "Traceback" not in done.stderr
    samples, rate = soundfile.read(tmp_path / "take.wav")
    assert len(samples) > 2 * rate
