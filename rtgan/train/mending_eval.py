"""How well recordings are mended: `rtgan eval repair --offline`.

Held-out speech and music are damaged in three ways, and what `rtgan process` makes of them is compared with what they
were: gaps, which the live plugin fills too; clicks, bursts of noise of 1 to 48 samples and as loud as the recording's
peak down to a tenth of it; and clipping at the level that gives a wanted signal-to-distortion ratio. What is found in
recordings that nothing was done to is false.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.interpolate
import scipy.ndimage
import scipy.signal
from numpy.typing import NDArray
from tqdm import tqdm

from .data import Array, Corpus, generated_corpus, load_corpus
from .mixing import SAMPLE_RATE_HZ
from .scoring import Plcmos, at_16_khz, intrusive_scores

GAPS_MS = (50, 100, 200)
SDRS_DB = (5, 10, 15, 20)
KINDS = ("speech", "music")
_SECONDS = 6.0
_CLICKS_A_SECOND = 10
_PEAK = 0.5
Spans = list[tuple[int, int]]
Row = dict[str, float]


def music_of(data: Path | None, cache: Path | None, count: int, seed: int) -> list[Array]:
    """Pieces of notes and loops one after the other, 48 kHz, from both sides of the split: nothing learns from them."""
    corpus: Corpus = generated_corpus(seconds=_SECONDS) if data is None else load_corpus(data, cache)
    clips = [clip for held_out in (False, True) for clip in corpus.pool("music", held_out)]
    groups = sorted({Path(clip.file).parts[1] if len(Path(clip.file).parts) > 2 else clip.group for clip in clips})
    rng = np.random.default_rng(seed)
    length = round(_SECONDS * SAMPLE_RATE_HZ)
    pieces = []
    for number in range(count if clips else 0):
        group = groups[number % len(groups)]
        own = [clip for clip in clips if group in (*Path(clip.file).parts, clip.group)]
        piece = np.zeros(0, np.float32)
        while len(piece) < length:
            clip = own[int(rng.integers(len(own)))]
            note = corpus.read(clip, 0, min(clip.samples, round(_SECONDS * clip.sample_rate_hz)))
            common = int(np.gcd(clip.sample_rate_hz, SAMPLE_RATE_HZ))
            up, down = SAMPLE_RATE_HZ // common, clip.sample_rate_hz // common
            note = note if up == down else scipy.signal.resample_poly(note, up, down).astype(np.float32)
            # Each note ends softly: the joint of two is no damage.
            note[-480:] *= np.linspace(1, 0, len(note[-480:]), dtype=np.float32)
            peak = float(np.abs(note).max(initial=0.0))
            piece = np.concatenate((piece, note * (_PEAK / peak if peak > 1e-3 else 0)))
        pieces.append(np.asarray(piece[:length], np.float32))
    return pieces


def gaps_in(samples: int, milliseconds: int, seed: int) -> Spans:
    """Gaps of one length, 0.35 to 0.6 s apart."""
    rng = np.random.default_rng((seed, milliseconds))
    length, at, found = milliseconds * SAMPLE_RATE_HZ // 1000, SAMPLE_RATE_HZ // 2, []
    while at + length + SAMPLE_RATE_HZ // 4 < samples:
        found.append((at, at + length))
        at += length + int(rng.uniform(0.35, 0.6) * SAMPLE_RATE_HZ)
    return found


def clicked(sound: Array, seed: int) -> tuple[Array, int]:
    """A sound with bursts of noise on it, and how many."""
    rng = np.random.default_rng(seed)
    out, count = sound.copy(), int(len(sound) / SAMPLE_RATE_HZ * _CLICKS_A_SECOND)
    peak = float(np.abs(sound).max())
    for at in rng.integers(SAMPLE_RATE_HZ // 10, len(sound) - SAMPLE_RATE_HZ // 10, count):
        length = int(np.exp(rng.uniform(0, np.log(48))))
        height = peak * 10 ** (rng.uniform(-20, 0) / 20)
        out[at : at + length] += (height * rng.standard_normal(length)).astype(np.float32)
    return out, count


def clipped(sound: Array, wanted_db: float) -> Array:
    """A sound clipped so far that this ratio of signal to distortion is left."""
    low, high = 0.0, float(np.abs(sound).max())
    for _ in range(40):
        level = 0.5 * (low + high)
        low, high = (level, high) if ratio_db(sound, np.clip(sound, -level, level)) < wanted_db else (low, level)
    return np.clip(sound, np.float32(-high), np.float32(high))


def ratio_db(sound: NDArray[Any], made: NDArray[Any]) -> float:
    """Signal to distortion."""
    wanted = np.asarray(sound, np.float64)
    error = np.asarray(made, np.float64) - wanted
    return float(10 * np.log10((wanted @ wanted + 1e-12) / (error @ error + 1e-12)))


def spectral_distance_db(sound: Array, made: Array, gaps: Spans) -> float:
    """Root mean square difference of levels in short-time spectra over gaps, as far down as -80 dB."""
    found = []
    for begin, end in gaps:
        first, last = max(0, begin - 1024), end + 1024
        a, b = (np.abs(scipy.signal.stft(x[first:last], nperseg=1024, noverlap=768)[2]) for x in (sound, made))
        levels = [20 * np.log10(np.maximum(x, 1e-4)) for x in (a, b)]
        found.append(float(np.sqrt(np.square(levels[0] - levels[1]).mean(0)).mean()))
    return float(np.mean(found))


def _holed(sound: Array, gaps: Spans) -> Array:
    out = sound.copy()
    for begin, end in gaps:
        out[begin:end] = 0
    return out


def _repeated(sound: Array, gaps: Spans) -> Array:
    """What was before a gap once more, fading."""
    out = sound.copy()
    for begin, end in gaps:
        length = end - begin
        out[begin:end] = out[begin - length : begin] * np.linspace(1, 0, length, dtype=np.float32)
    return out


def _live(sound: Array, gaps: Spans) -> Array:
    from ..mending import gaps as filling

    out = _holed(sound, gaps)
    for (begin, end), made in zip(gaps, filling.by_net(out.copy(), gaps, SAMPLE_RATE_HZ), strict=True):
        out[begin:end] = made
    return out


def _both_sides(sound: Array, gaps: Spans) -> Array:
    from ..mending import gaps as filling

    return filling.filled(_holed(sound, gaps), gaps, SAMPLE_RATE_HZ)


FILLERS: dict[str, Callable[[Array, Spans], Array]] = {
    "zeros": _holed, "repeat and fade": _repeated, "repair, live": _live, "repair, from both sides": _both_sides,
}  # fmt: skip


def _cubic(sound: Array) -> Array:
    """Clipped samples by a cubic spline through the others."""
    level = np.abs(sound).max()
    good = np.abs(sound) < level
    places = np.arange(len(sound))
    return np.asarray(scipy.interpolate.CubicSpline(places[good], sound[good])(places), np.float32)


def _restored(sound: Array) -> Array:
    from ..mending import clipping

    above, below = clipping.cut_off(sound)
    return clipping.restored(sound, above, below, SAMPLE_RATE_HZ) if above.any() or below.any() else sound


DECLIPPERS: dict[str, Callable[[Array], Array]] = {
    "none": lambda sound: sound, "cubic spline": _cubic, "repair": _restored,
}  # fmt: skip


def _median(sound: Array) -> Array:
    """The peer for clicks: samples that stand out of the median of 97 around them are replaced by it."""
    middle = scipy.signal.medfilt(sound, 97)
    off = np.abs(sound - middle)
    usual = np.sqrt(scipy.ndimage.uniform_filter1d(np.square(off), 4801)) + 1e-6
    return np.where(off > 5 * usual, middle, sound).astype(np.float32)


def _without_clicks(sound: Array) -> Array:
    from ..mending import clicks

    return clicks.removed(sound, SAMPLE_RATE_HZ)[0]


DECLICKERS: dict[str, Callable[[Array], Array]] = {
    "none": lambda sound: sound, "median filter": _median, "repair": _without_clicks,
}  # fmt: skip


class _Judge:
    """PESQ-WB and, with its model, PLCMOS of speech; nothing of music."""

    def __init__(self, plcmos: Plcmos | None) -> None:
        self._scores, self._plcmos = intrusive_scores(), plcmos

    def __call__(self, kind: str, sound: Array, made: Array) -> Row:
        if kind != "speech":
            return {}
        given, wanted = at_16_khz(made, SAMPLE_RATE_HZ), at_16_khz(sound, SAMPLE_RATE_HZ)
        found = self._scores(given, wanted)
        row = {} if found is None else {"PESQ-WB": found[0]}
        return row | ({"PLCMOS": self._plcmos(given)} if self._plcmos is not None else {})


def _changes(before: Array, after: Array) -> float:
    """Stretches that were changed, those less than a millisecond apart as one."""
    places = np.flatnonzero(before != after)
    return float((np.diff(places) > SAMPLE_RATE_HZ // 1000).sum() + 1) if len(places) else 0.0


def measure(
    pieces: Mapping[str, Sequence[Array]], plcmos: Plcmos | None = None, progress: bool = True
) -> dict[str, dict[tuple[str, str, str], Row]]:
    """Means over all pieces: by damage, then by kind of sound, case and system."""
    judge = _Judge(plcmos)
    gathered: dict[str, dict[tuple[str, str, str], list[Row]]] = {"gaps": {}, "clicks": {}, "clipping": {}}

    def note(damage: str, kind: str, case: str, system: str, row: Row) -> None:
        gathered[damage].setdefault((kind, case, system), []).append(row)

    cases = [(kind, number) for kind in pieces for number in range(len(pieces[kind]))]
    for kind, number in tqdm(cases, desc="measuring", unit="piece", disable=not progress):
        sound = pieces[kind][number]
        for milliseconds in GAPS_MS:
            spans = gaps_in(len(sound), milliseconds, number)
            for name, fill in FILLERS.items():
                made = fill(sound, spans)
                row = {"distance dB": spectral_distance_db(sound, made, spans)}
                note("gaps", kind, f"{milliseconds} ms", name, row | judge(kind, sound, made))
        broken, _ = clicked(sound, number)
        minutes = len(sound) / SAMPLE_RATE_HZ / 60
        for name, remove in DECLICKERS.items():
            made = remove(broken)
            row = {
                "SNR dB": ratio_db(sound, made), "false a minute": _changes(sound, remove(sound)) / minutes,
            }  # fmt: skip
            note("clicks", kind, f"{_CLICKS_A_SECOND} a second", name, row | judge(kind, sound, made))
        for wanted in SDRS_DB:
            cut = clipped(sound, wanted)
            for name, restore in DECLIPPERS.items():
                made = restore(cut)
                row = {"gain dB": ratio_db(sound, made) - ratio_db(sound, cut)}
                note("clipping", kind, f"{wanted} dB", name, row | judge(kind, sound, made))
    means = {}
    for damage, groups in gathered.items():
        means[damage] = {
            key: {name: float(np.mean([row[name] for row in rows if name in row])) for name in
                  dict.fromkeys(name for row in rows for name in row)}
            for key, rows in groups.items()
        }  # fmt: skip
    return means


def table(results: dict[tuple[str, str, str], Row]) -> str:
    """Means of one kind of damage as a Markdown table."""
    columns = list(dict.fromkeys(name for row in results.values() for name in row))
    lines = [f"| sound | case | system | {' | '.join(columns)} |", "|---" * (3 + len(columns)) + "|"]
    for (kind, case, system), row in sorted(results.items(), key=lambda item: KINDS.index(item[0][0])):
        cells = " | ".join(f"{row[name]:.2f}" if name in row else "" for name in columns)
        lines.append(f"| {kind} | {case} | {system} | {cells} |")
    return "\n".join(lines)
