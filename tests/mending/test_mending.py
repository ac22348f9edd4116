"""Damage of every kind to recordings, and what mending makes of it; and that whole recordings are left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rtgan import mending
from rtgan.errors import UsageError
from rtgan.mending import clicks, clipping, gaps

Sound = NDArray[np.float32]
RATE = 48000


def tones(seconds: float, rate: int = RATE) -> Sound:
    """A held chord with a little noise, as music has it."""
    t = np.arange(round(seconds * rate)) / rate
    sound = sum(np.sin(2 * np.pi * f * t + f) / (1 + k) for k, f in enumerate((220, 277.2, 329.6, 554, 880, 1760)))
    return (0.12 * sound + 1e-4 * np.random.default_rng(1).standard_normal(len(t))).astype(np.float32)


def syllables(seconds: float, rate: int = RATE) -> Sound:
    """Something like speech: vowels whose pitch glides, with noise bursts between, beginning at once."""
    rng = np.random.default_rng(2)
    t = np.arange(round(seconds * rate)) / rate
    hertz = 120 + 25 * np.sin(2 * np.pi * 1.3 * t)
    phase = 2 * np.pi * np.cumsum(hertz) / rate
    voice = sum(np.sin(k * phase + k * k) / k for k in range(1, 24))
    loud = np.clip(30 * (np.sin(2 * np.pi * 2.1 * t) + 0.2), 0, 1)
    sound = 0.1 * voice * loud + 0.05 * rng.standard_normal(len(t)) * (1 - loud) * np.exp(-((t * 4.2) % 1) * 8)
    return (sound + 2e-4 * rng.standard_normal(len(t))).astype(np.float32)


def snr_db(sound: Sound, made: Sound) -> float:
    error = np.square(made - sound, dtype=np.float64).sum()
    return float(10 * np.log10(np.square(sound, dtype=np.float64).sum() / (error + 1e-20)))


def holed(sound: Sound, spans: gaps.Spans) -> Sound:
    out = sound.copy()
    for begin, end in spans:
        out[begin:end] = 0
    return out


@pytest.mark.parametrize("rate", [22050, 48000])
def test_whole_recordings_come_back_bit_for_bit(rate: int) -> None:
    drum = (np.random.default_rng(3).standard_normal(rate) * np.exp(-np.arange(rate) / 900)).astype(np.float32) * 0.2
    silence = np.zeros(rate // 10, np.float32)
    for sound in (tones(1, rate), syllables(1.5, rate), np.concatenate((silence, drum, silence, drum, silence))):
        out, report = mending.mend(sound[None], rate)
        assert np.array_equal(out[0], sound) and str(report) == "nothing to mend"


@pytest.mark.parametrize(("ms", "least_db"), [(5, 25), (60, 18), (200, 12)])
def test_gaps_in_a_held_chord_are_as_if_they_had_not_been(ms: int, least_db: float) -> None:
    sound, begin = tones(1.5), 36000
    span = (begin, begin + 48 * ms)
    out, report = mending.mend(holed(sound, [span])[None], RATE)
    assert snr_db(sound[slice(*span)], out[0, slice(*span)]) > least_db
    outside = np.r_[0:begin, span[1] : len(sound)]
    assert np.array_equal(out[0, outside], sound[outside])
    assert (report.gaps, report.filled_s) == (1, pytest.approx(ms / 1000))


def test_gaps_in_speech_are_filled_to_their_middle_without_a_step() -> None:
    sound, spans = syllables(2.0), [(26000, 26000 + 7200), (50000, 50000 + 4800)]
    out = gaps.filled(sound, spans, RATE)
    for begin, end in spans:
        middle = slice((begin + end) // 2 - 480, (begin + end) // 2 + 480)
        level = np.sqrt(np.mean(np.square(sound[begin - 2400 : begin])))
        assert np.sqrt(np.mean(np.square(out[middle]))) > 0.3 * level
        assert np.abs(np.diff(out[begin - 2 : end + 2])).max() < 2 * np.abs(np.diff(sound)).max()


def test_silence_and_what_fades_into_it_is_no_gap() -> None:
    sound = tones(1.0)
    faded = sound * np.minimum(1, np.abs(np.arange(len(sound)) - 24000) / 4800).astype(np.float32)
    faded[23000:25000] = 0
    faded[20000:28000] *= np.linspace(0, 1, 8000).astype(np.float32) < 0
    assert gaps.detected(np.concatenate((np.zeros(2400, np.float32), sound)), RATE) == []
    assert gaps.detected(holed(sound, [(10000, 10000 + 12000)]), RATE) == [], "longer than can be filled"
    assert gaps.detected(holed(sound, [(10000, 10040)]), RATE) == [], "shorter than a millisecond"
    assert gaps.detected(holed(sound, [(10000, 14800)]), RATE) == [(10000, 14800)]


def test_gaps_may_be_marked_and_what_stood_there_is_not_heard(tmp_path: Path) -> None:
    sound = tones(1.2)
    broken = sound.copy()
    broken[24000:28800] = 0.5 * np.random.default_rng(0).standard_normal(4800)
    for text in ("start,end\n0.5,0.6\n", "0.500000\t0.600000\tdrop-out\n\\\t100\t200\n"):
        marks = tmp_path / "gaps.csv"
        marks.write_text(text)
        out, report = mending.mend(np.stack([broken, broken]), RATE, (), gaps.read_list(marks))
        assert report.gaps == 2 and snr_db(sound, out[0]) > 25 and np.array_equal(out[0], out[1])


@pytest.mark.parametrize(
    ("line", "says"),
    [("0.5", "no gap"), ("a,0.6", "not a time"), ("0.6,0.5", "end after it begins"), ("1,1.5", "lasts 500 ms"),
     ("-1,0", "not a time"), ("nan,1", "not a time")],
)  # fmt: skip
def test_a_wrong_line_is_told_with_file_and_line(tmp_path: Path, line: str, says: str) -> None:
    marks = tmp_path / "gaps.csv"
    marks.write_text(f"0.1,0.2\n{line}\n")
    with pytest.raises(UsageError, match=says) as refusal:
        gaps.read_list(marks)
    assert str(refusal.value).startswith(f"{marks}:2: ")
    with pytest.raises(UsageError, match="cannot be read"):
        gaps.read_list(tmp_path / "none.csv")


def test_a_marked_gap_behind_the_end_is_refused(tmp_path: Path) -> None:
    marks = tmp_path / "gaps.csv"
    marks.write_text("7,7.1\n")
    with pytest.raises(UsageError, match=r"gaps\.csv:1: a gap begins at 7 s"):
        mending.mend(tones(1.0)[None], RATE, (), gaps.read_list(marks))


@pytest.mark.parametrize("make", [tones, syllables])
def test_clicks_are_found_and_replaced(make: object) -> None:
    sound: Sound = make(2.0)  # type: ignore[operator]
    broken, rng, at = sound.copy(), np.random.default_rng(4), list(range(5000, 90000, 4000))
    for number, begin in enumerate(at):
        length = (1, 2, 5, 12, 30)[number % 5]
        broken[begin : begin + length] += (0.3 * rng.standard_normal(length) + 0.2).astype(np.float32)
    out, count = clicks.removed(broken, RATE)
    assert snr_db(sound, out) > snr_db(sound, broken) + 15
    assert len(at) - 2 <= count <= len(at) + 2
    changed = np.flatnonzero(out != broken)
    assert all(min(abs(place - begin) for begin in at) < 64 for place in changed)


def test_clipped_tops_are_restored_beyond_the_level_and_all_else_stays() -> None:
    for sound in (tones(0.6), syllables(0.6)):
        level = float(np.quantile(np.abs(sound), 0.93))
        broken = np.clip(sound, -level, 0.9 * level)
        above, below = clipping.cut_off(broken)
        assert above[broken >= np.float32(0.9 * level)].all() and below[broken <= np.float32(-level)].all()
        assert not above[broken < 0.899 * level].any() and not below[broken > -0.999 * level].any()
        out = clipping.restored(broken, above, below, RATE)
        whole = ~(above | below)
        assert np.array_equal(out[whole], broken[whole])
        assert (out[above] >= broken[above]).all() and (out[below] <= broken[below]).all()
        assert snr_db(sound, out) > snr_db(sound, broken) + 6


def test_restored_peaks_fit_by_a_lower_gain() -> None:
    sound = 4 * tones(0.5)
    out, report = mending.mend(np.clip(sound, -1, 1)[None], RATE, ("clipping",))
    assert report.clipped > 100 and report.gain_db < -0.5 and np.abs(out).max() <= 0.981
    assert snr_db(sound, out[0] / np.float32(10 ** (report.gain_db / 20))) > snr_db(sound, np.clip(sound, -1, 1)) + 6


def test_round_tops_are_not_clipped() -> None:
    t = np.arange(RATE) / RATE
    for hertz in (20.0, 50.0, 997.0, 12000.0):
        assert not clipping.cut_off((0.9 * np.sin(2 * np.pi * hertz * t)).astype(np.float32))[0].any()


def test_what_cannot_be_mended_is_told() -> None:
    assert mending.parse("clicks, gaps") == ("gaps", "clicks") and mending.parse("none") == ()
    with pytest.raises(UsageError, match="'rust' cannot be mended"):
        mending.parse("rust")


def test_a_preset_that_repairs_mends_files_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rtgan.cli import main
    from rtgan.io import files

    sound, broken, whole = tones(1.0), tmp_path / "broken.wav", tmp_path / "whole.wav"
    files.write(broken, holed(sound, [(24000, 31200)])[None], RATE)
    assert main(["process", str(broken), "-o", str(whole), "--preset", "repair"]) == 0
    assert "mended: 1 gap (150 ms)" in capsys.readouterr().out
    assert snr_db(sound[24000:31200], files.read(whole)[0][0, 24000:31200]) > 12
    asleep = ["--preset", "repair", "--set", "repair.bypass=on"]
    for words in (asleep, ["--preset", "bypass"]):
        assert main(["process", str(broken), "-o", str(whole), *words]) == 0
        assert "mended" not in capsys.readouterr().out
    assert np.array_equal(files.read(whole)[0], files.read(broken)[0])
    two = [str(broken), str(broken), "-o", str(tmp_path)]
    for wrong in (
        [str(broken), "-o", str(whole), "--mend", "rust"],
        [str(broken), "-o", str(whole), "--preset", "repair", "--set", "repair.bypass=maybe"],
        [str(broken), "-o", str(whole), "--gaps", str(tmp_path / "none.csv")],
        [*two, "--gaps", "x.csv"],
        ["-o", str(whole), "--mend", "clicks"],
    ):
        assert main(["process", *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1
