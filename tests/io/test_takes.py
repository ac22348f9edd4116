"""Files that are being recorded: whole at any moment, split without a lost sample, with markers others read."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support import ROOT

from rtgan.io.files import Take, read_parts


def markers(path: Path) -> list[tuple[int, str]]:
    """Sample and name of each marker, as libsndfile sees them (SFC_GET_CUE)."""
    ffi, library = soundfile._ffi, soundfile._snd
    with soundfile.SoundFile(path) as sound:
        cues = ffi.new("char[]", 4 + 100 * (6 * 4 + 256))
        if library.sf_command(sound._file, 0x10CE, cues, len(cues)) == 0:
            return []
        raw = bytes(ffi.buffer(cues))
    count = int.from_bytes(raw[:4], "little")
    points = [raw[4 + 280 * k : 4 + 280 * (k + 1)] for k in range(count)]
    return [(int.from_bytes(p[20:24], "little"), p[24:].split(b"\0")[0].decode()) for p in points]


def test_a_take_is_split_without_a_lost_sample_and_each_part_has_its_markers(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    sound = rng.standard_normal((20000, 2)).astype(np.float32)
    take = Take(tmp_path / "t.wav", 48000, 2, ".dry", limit_bytes=16384 + 8 * 6000)
    take.mark(13000, "still to come")
    for begin in range(0, len(sound), 997):
        take.append(sound[begin : begin + 997])
        assert soundfile.info(take.parts[-1]).frames == take.frames - 6000 * (len(take.parts) - 1)
    take.mark(100, "verse")
    take.mark(19999, "last")
    take.close()
    assert take.problem is None
    assert [p.name for p in take.parts] == ["t.dry.wav", "t-2.dry.wav", "t-3.dry.wav", "t-4.dry.wav"]
    assert [p.stat().st_size for p in take.parts[:3]] == [16384 + 8 * 6000] * 3
    again, rate = read_parts(take.parts)
    assert rate == 48000
    assert np.array_equal(again.T, sound)
    assert [markers(p) for p in take.parts] == [[], [], [(1000, "still to come")], [(0, "verse"), (1999, "last")]]


def test_markers_are_read_by_others_and_too_many_harm_nothing(tmp_path: Path) -> None:
    take = Take(tmp_path / "t.wav", 44100, 1)
    take.append(np.ones((5000, 1), np.float32))
    for k in range(1000):
        take.mark(k, f"marker {k}")
    take.append(np.zeros((5000, 1), np.float32))
    take.close()
    samples, _ = soundfile.read(take.parts[0], dtype="float32")
    assert len(samples) == 10000 and samples.sum() == 5000
    found = markers(take.parts[0])
    assert len(found) > 90
    assert found == [(k, f"marker {k}") for k in range(len(found))]


@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_a_killed_process_leaves_what_it_had_recorded(tmp_path: Path, ending: str) -> None:
    script = f"""
import os, signal
import numpy as np
from rtgan.io.files import Take
take = Take(__import__("pathlib").Path("t.{ending}"), 48000, 1)
for k in range(100):
    take.append(np.full((1000, 1), k / 128, np.float32))
take.mark(50000, "here")
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == -signal.SIGKILL
    path = tmp_path / f"t.{ending}"
    samples, _ = soundfile.read(path, dtype="float32")
    expected = np.repeat(np.arange(100) / 128, 1000)
    # FLAC is brought to the disk about once a second, but for its last frames.
    assert len(samples) == 100000 if ending == "wav" else len(samples) == 96000 - 9216
    assert np.array_equal(samples, expected[: len(samples)].astype(np.float32))
    if ending == "wav":
        assert markers(path) == [(50000, "here")]


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None, reason="mounts a tiny file system"
)
def test_a_full_disk_leaves_a_playable_file_and_says_so(tmp_path: Path, rng: np.random.Generator) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        sound = rng.standard_normal((100000, 3)).astype(np.float32)
        take = Take(disk / "t.wav", 48000, 3)
        for begin in range(0, len(sound), 1000):
            take.append(sound[begin : begin + 1000])
        take.mark(10, "too late")
        take.close()
        assert take.problem == f"recording to {disk / 't.wav'} stopped after 0.4 s: No space left on device"
        samples, _ = soundfile.read(disk / "t.wav", dtype="float32")
        assert 19000 < len(samples) < 21000
        assert np.array_equal(samples, sound[: len(samples)])
    finally:
        subprocess.run(["umount", disk], check=True)
