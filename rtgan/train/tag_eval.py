"""How often the recogniser is right about recordings that it was not trained on: `rtgan eval tags`.

Everything goes through the lowered net by the code of the audio thread, as in `rtgan tag`. Clips of the held-out fold
count as right where the most probable of the environment's labels, silent steps left out, is theirs. Programmes are cut
from the recordings of the test side, one kind of sound after the other, some with another one beneath. The right
answer to 100 ms of them is what is loudest there, K-weighted (ITU-R BS.1770-4), since what an ear hardly hears is not
above the rest, and each sound being as loud as it was at most within the last 0.3 s, so that a pause between two words
is still speech. Steps are left out that are quieter than `SILENCE_DB`, in which no sound leads by `LEAD_DB`, or in
which the louder one may just have died away. A net's answer is what it says is mainly heard or, where it says no such
thing, the most probable kind. It is held against the moment that it is about: `rtgan tag` knows the delays of a model
from its card. A model may answer twice, soon and late.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..kernels.loudness import k_weighting
from .checkpoint import load_checkpoint
from .data import _decode
from .tag_data import (
    ENVIRONMENT,
    GROUPS,
    HOLD_S,
    HOP,
    LEAD_DB,
    RATE_HZ,
    SILENCE_DB,
    TagClip,
    TagCorpus,
    powers,
    sounding,
)
from .tag_export import export_tags
from .tag_loop import LOUDEST, TASK, TagConfig, corpus_of, parse_tag_config

Array = NDArray[np.float32]
KINDS = ("speech", "music", "noise")
_RATE_HZ = 48000
_STEP = _RATE_HZ // 10
_SETTLED = 5
"""Steps behind a change during which the net may still be at the sound before."""
_FADE = 480


@dataclass(frozen=True)
class Programme:
    """Audio ``(samples,)`` at 48 kHz, and what sounds in every 100 ms of it.

    Attributes
    ----------
    sound : ndarray
    kinds, beneath : list of str
        Kind of what is loudest, "" where nobody can tell, and of what else there may be, "" for nothing.
    fresh : ndarray of int
        Steps since the piece began.
    """

    sound: Array
    kinds: list[str]
    beneath: list[str]
    fresh: NDArray[np.int64]


class _Player:
    """Sound of the test side."""

    def __init__(self, data: Path, corpus: TagCorpus) -> None:
        self.data, self.corpus = data, corpus
        self._kept: dict[str, Array] = {}

    def sound(self, clip: TagClip) -> Array:
        """A recording at 48 kHz, at most a minute of it."""
        import soxr

        if clip.file not in self._kept:
            samples, rate = _decode(self.data / clip.file, clip.file)
            sound = samples[: 60 * rate].astype(np.float32) / np.float32(32768)
            self._kept[clip.file] = np.asarray(soxr.resample(sound, rate, _RATE_HZ, "HQ"), np.float32)
        return self._kept[clip.file]

    def piece(self, rng: np.random.Generator, kind: str, samples: int) -> Array:
        """So much of a kind of sound, its loudest tenth of a second at full scale's tenth."""
        if kind == "silence":
            return (rng.normal(0, 1, samples) * 10 ** (rng.uniform(-110, -80) / 20)).astype(np.float32)
        if kind in ("instrument", "singing"):
            out = self._line(rng, kind, samples)
        elif kind == "music" and rng.random() < 0.5 and self.corpus.pool("test", "instrument"):
            lines = [self._line(rng, "instrument", samples) for _ in range(int(rng.integers(2, 4)))]
            out = np.sum(lines, 0)
        else:
            while True:
                name = str(rng.choice(ENVIRONMENT)) if kind == "noise" and rng.random() < 0.6 else kind
                clip = self.corpus.draw(rng, "test", name if self.corpus.pool("test", name) else kind)
                whole = self.sound(clip)
                # A piece of music or a loop is meant, not a single sound of an instrument.
                if kind != "music" or len(whole) > 4 * _RATE_HZ:
                    break
            out = whole[(int(rng.integers(len(whole))) + np.arange(samples)) % len(whole)]
        loud = np.sqrt(np.mean(out[: samples // _STEP * _STEP].reshape(-1, _STEP) ** 2, 1).max() + 1e-12)
        return np.asarray(out * np.float32(0.1 / loud), np.float32)

    def _line(self, rng: np.random.Generator, kind: str, samples: int) -> Array:
        group = self.corpus.draw(rng, "test", kind).group
        pool = [c for c in self.corpus.pool("test", kind) if c.group == group]
        out = np.zeros(samples, np.float32)
        at = 0
        while at < samples:
            note = self.sound(pool[int(rng.integers(len(pool)))])
            # Recordings of notes may begin with silence.
            note = note[max(0, int(np.argmax(np.abs(note) > 0.02 * np.abs(note).max())) - 240) :]
            length = min(len(note), int(rng.uniform(0.25, 1.5) * _RATE_HZ), samples - at)
            fall = np.minimum(1, (length - np.arange(length)) / 2400)
            out[at : at + length] += note[:length] * fall.astype(np.float32)
            at += length + int(rng.choice([0, 0, 0.05, 0.2]) * _RATE_HZ)
        return out


def programme(player: _Player, rng: np.random.Generator, pieces: int = 5) -> Programme:
    """A series of pieces of 3 to 5 s; a third of those that sound have another kind 12 to 20 dB beneath."""
    parts, kinds, beneath, fresh = [], [], [], []
    last = ""
    for _ in range(pieces):
        known = ["speech", "music", "noise", "speech", "music", "noise", "instrument", "singing", "silence"]
        there = [k for k in known if k != last and (k == "silence" or k in player.corpus.kinds("test"))]
        kind = last = str(rng.choice(there))
        steps = int(rng.integers(30, 51))
        part = player.piece(rng, kind, steps * _STEP)
        sounds = _sounds(part, kind)
        gain = np.float32(10 ** (rng.uniform(-25, 0) / 20))
        said, others = np.where(sounds, kind, ""), np.full(steps, "", dtype="<U16")
        if kind != "silence":
            part = part * gain
            if rng.random() < 1 / 3:
                under = str(rng.choice([k for k in KINDS if k != kind and (kind, k) != ("instrument", "music")]))
                lower = np.float32(10 ** (rng.uniform(-20, -12) / 20)) * gain
                second = player.piece(rng, under, len(part)) * lower
                both = sounds, _sounds(second, under)
                said, others = told(kind, under, both, lead(part, second))
                part = part + second
            part = part + (rng.normal(0, 1, len(part)) * 10 ** (-75 / 20)).astype(np.float32) * gain
            said = np.where(heard(part) < SILENCE_DB, "", said)
        ramp = np.minimum(1, np.minimum(np.arange(len(part)), np.arange(len(part))[::-1]) / _FADE)
        parts.append((part * ramp).astype(np.float32))
        kinds += said.tolist()
        beneath += others.tolist()
        fresh.append(np.arange(steps))
    return Programme(np.concatenate(parts), kinds, beneath, np.concatenate(fresh))


def heard(part: NDArray[np.floating]) -> NDArray[np.float64]:
    """Level of every 100 ms, dB of a full-scale sine, held for `HOLD_S`."""
    power = 2 * np.mean(np.square(part, dtype=np.float64).reshape(-1, _STEP), 1)
    steps = round(HOLD_S * _RATE_HZ / _STEP)
    held = np.lib.stride_tricks.sliding_window_view(np.concatenate((np.zeros(steps - 1), power)), steps).max(1)
    return np.asarray(10 * np.log10(held + 1e-20))


def lead(first: Array, second: Array) -> NDArray[np.float64]:
    """By how much the first sound is louder in every 100 ms, K-weighted and held for `HOLD_S`."""
    import scipy.signal

    sections = np.insert(k_weighting(_RATE_HZ), 3, 1.0, 1)

    def loudness(sound: Array) -> NDArray[np.float64]:
        return heard(scipy.signal.sosfilt(sections, sound.astype(np.float64)))

    return loudness(first) - loudness(second)


def told(
    kind: str, under: str, sounds: tuple[NDArray[np.bool_], NDArray[np.bool_]], lead_db: NDArray[np.float64]
) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Which of two sounds is heard in every step, "" where nobody can tell, and which is the other one."""
    first = lead_db >= 0
    sure = (np.abs(lead_db) >= LEAD_DB) & np.where(first, *sounds)
    return np.where(sure, np.where(first, kind, under), ""), np.where(first, under, kind)


def _sounds(part: Array, kind: str) -> NDArray[np.bool_]:
    """For every 100 ms whether this sound surely is heard in it."""
    if kind == "silence":
        return np.ones(len(part) // _STEP, bool)
    import soxr

    frames = sounding(powers(np.asarray(soxr.resample(part, _RATE_HZ, RATE_HZ, "HQ"), np.float32)), 35.0)
    size = RATE_HZ // 10 // HOP
    whole = np.resize(frames, (len(part) // _STEP) * size).reshape(-1, size)
    return np.asarray((whole == 1).all(1))


def measure(name: str, config: TagConfig, data: Path, corpus: TagCorpus, count: int, seed: int) -> dict[str, Any]:
    """All figures of a model, by name or path."""
    from ..generators.card import ANSWERS

    player = _Player(data, corpus)
    return {
        "clips": _clips(name, data, corpus),
        "answers": {a: _programmes(name, player, count, seed, a) for a in ANSWERS[: len(config.delays_ms)]},
        "test_fold": config.data.test_fold,
    }


def _clips(name: str, data: Path, corpus: TagCorpus) -> dict[str, Any]:
    """Clips of the test side that carry a label in the manifest."""
    from ..tagging import recognise

    manifest = {e["file"]: e for e in json.loads((data / "manifest.json").read_text("utf-8"))}
    right: dict[str, list[bool]] = {}
    mistaken: dict[str, int] = {}
    for clip in corpus.clips:
        if clip.side != "test" or clip.kind not in ENVIRONMENT or "fold" not in manifest.get(clip.file, {}):
            continue
        samples, rate = _decode(data / clip.file, clip.file)
        means = recognise(samples.astype(np.float32)[None] / np.float32(32768), rate, name).means()
        answer = max(ENVIRONMENT, key=lambda label: means[label])
        right.setdefault(clip.kind, []).append(answer == clip.kind)
        if answer != clip.kind:
            mistaken[f"{clip.kind} for {answer}"] = mistaken.get(f"{clip.kind} for {answer}", 0) + 1
    every = [r for rs in right.values() for r in rs]
    if not every:
        return {}
    return {
        "count": len(every),
        "accuracy": round(float(np.mean(every)), 4),
        "by_label": {k: round(float(np.mean(v)), 3) for k, v in sorted(right.items())},
        "mistaken": dict(sorted(mistaken.items(), key=lambda m: -m[1])),
    }


def _programmes(name: str, player: _Player, count: int, seed: int, answer: str) -> dict[str, Any]:
    from ..tagging import recognise

    rows: list[Array] = []
    kinds: list[str] = []
    beneath: list[str] = []
    fresh: list[NDArray[np.int64]] = []
    labels: tuple[str, ...] = ()
    delay_s = 0.0
    for number in range(count):
        made = programme(player, np.random.default_rng((seed, number)))
        found = recognise(made.sound[None], _RATE_HZ, name, answer=answer)
        labels, delay_s = found.labels, found.delay_s
        rows.append(found.probabilities)
        kinds += made.kinds
        beneath += made.beneath
        fresh.append(made.fresh)
    return figures(
        labels, np.concatenate(rows), kinds, beneath, np.concatenate(fresh), round(delay_s * _RATE_HZ / _STEP)
    )


def figures(
    labels: Sequence[str], chances: Array, kinds: Sequence[str], beneath: Sequence[str], fresh: NDArray[np.int64],
    delay_steps: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """What answers ``(steps, labels)`` to programmes, given ``delay_steps`` later, are worth; see `Programme`."""
    said, under = np.array(kinds), np.array(beneath)
    place = {label: k for k, label in enumerate(labels)}
    three = np.where(said == "instrument", "music", said)
    counts = np.isin(three, KINDS)
    mainly = [LOUDEST[GROUPS.index(k)] for k in KINDS]
    asked = mainly if set(mainly) <= set(labels) else KINDS
    best = np.array(KINDS)[chances[:, [place[k] for k in asked]].argmax(1)]
    settled = fresh >= _SETTLED
    single: dict[str, Any] = {}
    errors: list[NDArray[np.float64]] = []
    kind_of = {k: k for k in ("silence", "speech", "singing", "music", "instrument", "noise")}
    for label, kind in (kind_of | dict(zip(mainly, KINDS, strict=True))).items():
        true = np.isin(said, ("music", "instrument") if kind == "music" else (kind,))
        if label not in place or not true.any():
            continue
        # What is mixed in beneath may be heard or not, but never is the loudest.
        known = settled & (said != "") & (true | (under != label))
        given = chances[:, place[label]]
        hits, alarms = given[known & true] >= 0.5, given[known & ~true] >= 0.5
        single[label] = {
            "steps": int((known & true).sum()),
            "found": round(float(hits.mean()), 4),
            "false": round(float(alarms.mean()), 4),
        }
        errors.append(np.stack((given[known].astype(np.float64), true[known].astype(np.float64))))
    delays = _delays(place, chances, kinds, fresh, delay_steps)
    alone = np.array(beneath) == ""
    return {
        "speech_music_noise": {
            "steps": int(counts.sum()),
            "accuracy": round(float((best == three)[counts].mean()), 4),
            "accuracy_settled": round(float((best == three)[counts & settled].mean()), 4),
            "delay_ms": 100 * delay_steps,
            "by_company": {
                where: round(float((best == three)[counts & among].mean()), 4)
                for where, among in (("alone", alone), ("over another", ~alone))
                if (counts & among).any()
            },
            "by_kind": {k: round(float((best == k)[three == k].mean()), 4) for k in KINDS if k in three},
        },
        "labels": single,
        "calibration_error": round(calibration_error(np.concatenate(errors, 1)), 4),
        "delay_ms": delays,
    }


def calibration_error(pairs: NDArray[np.float64]) -> float:
    """Mean distance of a probability said from how often it came true, in tenths (Naeini et al., AAAI 2015)."""
    said, true = pairs
    tenth = np.minimum((said * 10).astype(int), 9)
    off = [abs(said[tenth == k].mean() - true[tenth == k].mean()) * (tenth == k).mean() for k in set(tenth.tolist())]
    return float(sum(off))


def _delays(
    place: dict[str, int], chances: Array, kinds: Sequence[str], fresh: NDArray[np.int64], delay_steps: int
) -> dict[str, float]:
    """Median time from the beginning of a piece, of those that sound at once, until its label is said at one half."""
    times: dict[str, list[int]] = {}
    starts = np.flatnonzero(fresh == 0).tolist()
    for start, end in zip(starts, [*starts[1:], len(fresh)], strict=True):
        label = kinds[start]
        if label in place:
            # What is said of a moment is said so much later: at the beginning they speak of what was before.
            start = max(0, start - delay_steps)
            above = np.flatnonzero(chances[start:end, place[label]] >= 0.5)
            times.setdefault(label, []).append(100 * (int(above[0]) + 1) if len(above) else 100 * (end - start))
    return {label: float(np.median(t)) for label, t in sorted(times.items())}


def table(results: dict[str, dict[str, Any]]) -> str:
    """The figures as Markdown."""
    lines = []
    for name, r in results.items():
        if r["clips"]:
            lines.append(f"{name}: {r['clips']['accuracy']:.1%} of {r['clips']['count']} clips of ten kinds of sound "
                         f"(fold {r['test_fold']}).")  # fmt: skip
            lines += ["", "| " + " | ".join(k.replace("_", " ") for k in r["clips"]["by_label"]) + " |"]
            lines += ["|" + "---|" * len(r["clips"]["by_label"])]
            lines += ["| " + " | ".join(f"{v:.0%}" for v in r["clips"]["by_label"].values()) + " |", ""]
        for answer in r["answers"].values():
            lines += [*_answer_table(name, answer), ""]
    return "\n".join(lines).rstrip()


def _answer_table(name: str, answer: dict[str, Any]) -> list[str]:
    three = answer["speech_music_noise"]
    shares = ", ".join(f"{k} {v:.1%}" for k, v in (three["by_company"] | three["by_kind"]).items())
    lines = [f"{name}: speech, music or noise, told {three['delay_ms']} ms later: {three['accuracy']:.1%} of "
             f"{three['steps']} steps of 100 ms right ({shares}), {three['accuracy_settled']:.1%} from half a second "
             "after a change on.", "", "| label | steps | found | false alarms | delay, median |",
             "|---|---|---|---|---|"]  # fmt: skip
    for label, f in answer["labels"].items():
        delay = answer["delay_ms"].get(label)
        shown = "" if delay is None else f"{delay:.0f} ms"
        lines.append(f"| {label} | {f['steps']} | {f['found']:.1%} | {f['false']:.1%} | {shown} |")
    return [*lines, "", f"{name}: calibration error {answer['calibration_error']:.3f}."]


def eval_command(args: argparse.Namespace) -> int:
    """``rtgan eval tags``."""
    from ..generators import library

    if args.count < 1:
        raise UsageError(f"--count is {args.count} but must be at least 1.")
    if args.data is None:
        raise UsageError("What sounds is measured by recordings: say where they are with --data DIR.")
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in args.model or [Path("tags")]:
            name = str(path)
            if path.is_dir() or path.suffix == ".pt":
                content = load_checkpoint(path)
                if content["config"].get("task") != TASK:
                    raise UsageError(f"The run {name!r} recognises nothing.")
                name = str(Path(folder) / f"{path.stem}.ts")
                export_tags(path, Path(name))
            card = library.card_of(name)
            if card.task != TASK:
                raise UsageError(f"The model {str(path)!r} recognises nothing.")
            config = parse_tag_config(card.fields["training"]["config"], name)
            corpus = corpus_of(config, args.data, args.cache)
            results[path.stem] = measure(name, config, args.data, corpus, args.count, args.seed)
    print(table(results))
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0
