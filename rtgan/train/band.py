"""Music to learn from, composed by chance and played by a General MIDI sound font: ``rtgan compose``.

A data folder gets pieces of several parts, single notes of every instrument and takes of the font's effects, and its
``manifest.json`` says what they are, whose the font is and under which licence, and that they are for training only:
nothing is measured by music that nobody wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mido
import numpy as np
import soundfile
from numpy.typing import NDArray
from tqdm import tqdm

from ..errors import UsageError

Array = NDArray[np.float32]
Rng = np.random.Generator

RATE_HZ = 32000
PIECE_S, TAKE_S, NOTE_S = 20.0, 10.0, 3.0
INSTRUMENTS = 112
"""General MIDI's programs, from 0; behind them are percussion and effects."""
#: Fret noise, breath, birds, telephone, applause, gunshot; not the sea and helicopters, which a recogniser tells apart.
EFFECTS = (120, 121, 123, 124, 126, 127)
_DRUMS = 9
_TICKS_PER_S = 960
_PEAK = 0.5
_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10), (0, 3, 5, 7, 10), (0, 2, 4, 7, 9))
_BASSES = (*range(32, 40), 38, 43, 58, 87)
_KITS = (0, 8, 16, 24, 25, 32, 40)


@dataclass(frozen=True)
class Note:
    """A key that is held. `velocity` is 15..127; channel 9 plays percussion."""

    at_s: float
    length_s: float
    key: int
    velocity: float
    channel: int = 0


@dataclass(frozen=True)
class Tune:
    """What the parts of a piece agree on."""

    beat_s: float
    scale: tuple[int, ...]
    root: int
    chords: tuple[int, ...]
    swing: float

    def key(self, degree: int, octave: int) -> int:
        """MIDI number of a degree of the scale, which may lie below 0 or beyond an octave."""
        return self.root + 12 * (octave + degree // len(self.scale)) + self.scale[degree % len(self.scale)]

    def late_s(self, step: int) -> float:
        """By how much every second step is late."""
        return self.swing * self.beat_s / 2 if step % 2 else 0.0


Bar = Callable[[float, int], Iterator[tuple[float, float, int, float]]]
"""From a bar's beginning in seconds and its chord to onset, length in seconds, MIDI number and loudness around 1."""


def _pad(rng: Rng, tune: Tune, octave: int) -> Bar:
    voices = int(rng.integers(2, 5))

    def bar(at: float, chord: int) -> Iterator[tuple[float, float, int, float]]:
        for voice in range(voices):
            yield at + rng.uniform(0, 0.02), 3.9 * tune.beat_s, tune.key(chord + 2 * voice, octave), 1.0

    return bar


def _stabs(rng: Rng, tune: Tune, octave: int) -> Bar:
    def bar(at: float, chord: int) -> Iterator[tuple[float, float, int, float]]:
        for half in np.flatnonzero(rng.random(8) < 0.35):
            for voice in range(3):
                length = tune.beat_s * rng.uniform(0.1, 0.45)
                yield at + half * tune.beat_s / 2, length, tune.key(chord + 2 * voice, octave), 1.0

    return bar


def _arpeggio(rng: Rng, tune: Tune, octave: int) -> Bar:
    whole = len(tune.scale)
    order = rng.permutation([0, 2, 4, whole, whole + 2])[: int(rng.integers(3, 6))]
    step = float(rng.choice([0.25, 0.25, 0.5, 1 / 3]))

    def bar(at: float, chord: int) -> Iterator[tuple[float, float, int, float]]:
        for k in range(int(4 / step)):
            length = step * tune.beat_s * rng.uniform(0.5, 1.3)
            key = tune.key(chord + int(order[k % len(order)]), octave)
            yield at + k * step * tune.beat_s + tune.late_s(k), length, key, 1 + rng.normal(0, 0.1)

    return bar


def _melody(rng: Rng, tune: Tune, octave: int) -> Bar:
    lengths = rng.choice([0.25, 0.5, 0.5, 1.0, 1.0, 2.0], int(rng.integers(4, 17)))
    degrees = rng.integers(-3, len(tune.scale) + 4, len(lengths))
    place, behind = 0, 0.0

    def bar(at: float, chord: int) -> Iterator[tuple[float, float, int, float]]:
        nonlocal place, behind
        beat = behind
        while beat < 4:
            degree, length = int(degrees[place % len(degrees)]), float(lengths[place % len(lengths)])
            place += 1
            if rng.random() < 0.85:
                held = length * tune.beat_s * rng.uniform(0.6, 1)
                yield at + beat * tune.beat_s, held, tune.key(degree, min(octave + 1, 6)), 1 + rng.normal(0, 0.1)
            beat += length
        behind = beat - 4

    return bar


def _bass(rng: Rng, tune: Tune, octave: int) -> Bar:
    pattern = rng.random(8) < 0.5
    pattern[0] = True

    def bar(at: float, chord: int) -> Iterator[tuple[float, float, int, float]]:
        for half in np.flatnonzero(pattern):
            low = 2 if rng.random() < 0.8 else 3
            key = tune.key(chord + int(rng.choice([0, 0, 0, 4])), low)
            yield at + half * tune.beat_s / 2, tune.beat_s * rng.uniform(0.3, 0.5), key, 1.0

    return bar


def _drums(rng: Rng, tune: Tune, octave: int) -> Bar:
    kick_key, snare_key = int(rng.choice([35, 36, 36])), int(rng.choice([37, 38, 39, 40]))
    hats = rng.permutation([42, 44, 46, 51, 53, 54, 59, 69, 70, 82])[:2]
    else_key = int(rng.integers(35, 82))
    kick = rng.random(16) < 0.25
    kick[0] = True
    snare = rng.random(16) < 0.08
    snare[[4, 12]] |= rng.random() < 0.85
    hat = (np.arange(16) % int(rng.choice([1, 2, 2, 4])) == 0) & (rng.random(16) < 0.95)
    other = rng.random(16) < 0.12

    def bar(at: float, chord: int) -> Iterator[tuple[float, float, int, float]]:
        for step in range(16):
            onset = at + step * tune.beat_s / 4 + tune.late_s(step)
            if kick[step]:
                yield onset, 0.1, kick_key, 1.1
            if snare[step]:
                yield onset, 0.1, snare_key, 1.0
            if hat[step]:
                yield onset, 0.1, int(hats[0 if step % 4 else int(rng.integers(2))]), rng.uniform(0.5, 0.9)
            if other[step]:
                yield onset, 0.1, else_key, 0.8

    return bar


_PARTS: dict[Callable[[Rng, Tune, int], Bar], float] = {
    _pad: 0.5, _arpeggio: 0.4, _melody: 0.6, _bass: 0.6, _stabs: 0.3, _drums: 0.55,
}  # fmt: skip
_ALONE = (_melody, _arpeggio, _drums, _pad)


def written(notes: list[Note], programs: dict[int, int], levels: dict[int, int], seconds: float) -> mido.MidiFile:
    """A MIDI file of these notes, none of which is held beyond its end.

    Parameters
    ----------
    notes : list of Note
    programs, levels : dict
        Of each channel: General MIDI program from 0, and channel volume 0..127.
    seconds : float
    """
    told: list[tuple[float, mido.Message]] = []
    for channel, program in programs.items():
        told.append((0.0, mido.Message("program_change", channel=channel, program=program)))
        told.append((0.0, mido.Message("control_change", channel=channel, control=7, value=levels.get(channel, 100))))
    for note in notes:
        if 0 <= note.key <= 127 and note.at_s < seconds:
            at, end = max(0.0, note.at_s), min(note.at_s + note.length_s, seconds)
            velocity = int(np.clip(note.velocity, 15, 127))
            told.append((at, mido.Message("note_on", channel=note.channel, note=note.key, velocity=velocity)))
            told.append((max(end, at), mido.Message("note_off", channel=note.channel, note=note.key)))
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=500000)])
    last = 0
    for at, message in sorted(told, key=lambda one: one[0]):
        tick = round(at * _TICKS_PER_S)
        track.append(message.copy(time=tick - last))
        last = tick
    track.append(mido.MetaMessage("end_of_track", time=max(0, round(seconds * _TICKS_PER_S) - last)))
    file = mido.MidiFile(ticks_per_beat=480)
    file.tracks.append(track)
    return file


def piece(rng: Rng, seconds: float = PIECE_S) -> mido.MidiFile:
    """Some of pads, stabs, arpeggios, melodies, a bass and drums, on any instruments, over a few chords."""
    scale = _SCALES[int(rng.integers(len(_SCALES)))]
    chords = tuple(int(c) for c in rng.integers(0, len(scale), int(rng.choice([1, 2, 4, 4, 8]))))
    swing = float(rng.choice([0, 0, 0.1, 0.17]))
    tune = Tune(60 / rng.uniform(60, 185), scale, int(rng.integers(12)), chords, swing)
    parts = [part for part, chance in _PARTS.items() if rng.random() < chance] or [_ALONE[int(rng.integers(4))]]
    bars = int(seconds / tune.beat_s / 4) + 1
    notes, programs, levels = [], {}, {}
    for place, part in enumerate(parts):
        channel, lowest, highest = (_DRUMS, 27, 87) if part is _drums else (place, 21, 108)
        choice = _KITS if part is _drums else _BASSES if part is _bass else range(INSTRUMENTS)
        programs[channel] = int(choice[int(rng.integers(len(choice)))])
        levels[channel] = int(rng.integers(50, 120))
        bar, loudness = part(rng, tune, int(rng.integers(3, 7))), rng.uniform(50, 115)
        # The only part is there from the beginning, another may come in later.
        enters = int(rng.integers(bars)) if len(parts) > 1 and rng.random() < 0.3 else 0
        for number in range(enters, bars):
            for at_s, length_s, key, loud in bar(number * 4 * tune.beat_s, chords[number % len(chords)]):
                if lowest <= key <= highest:
                    notes.append(Note(at_s + rng.normal(0, 0.006), length_s, key, loudness * loud, channel))
    return written(notes, programs, levels, seconds)


def scale_of(rng: Rng, program: int, count: int) -> tuple[list[int], mido.MidiFile]:
    """`count` notes of an instrument, each with `NOTE_S` to itself; also which keys they are."""
    lowest, highest = (28, 55) if 32 <= program < 40 else (40, 90)
    keys = sorted(int(key) for key in rng.integers(lowest, highest, count))
    notes = [Note(k * NOTE_S + 0.02, rng.uniform(0.6, 2.4), key, rng.uniform(50, 120)) for k, key in enumerate(keys)]
    return keys, written(notes, {0: program}, {}, count * NOTE_S)


def effect(rng: Rng, program: int, seconds: float = TAKE_S) -> mido.MidiFile:
    """An effect now and then, or, of applause, for as long as it may."""
    notes, at = [], 0.1
    while at < seconds - 1:
        length = seconds if program == 126 else rng.uniform(0.2, 4)
        notes.append(Note(at, length, int(rng.integers(45, 76)), rng.uniform(60, 120)))
        at += length * rng.uniform(0.4, 1.5) + 0.1
    return written(notes, {0: program}, {}, seconds)


def played(file: mido.MidiFile, font: Path, room: bool = False) -> Array:
    """What a sound font makes of a MIDI file, ``(samples,)`` at `RATE_HZ`, peak 0.5; zeros if it has no such sound.

    Raises
    ------
    UsageError
        If fluidsynth, which plays it, is missing, or does not take the font.
    """
    program = shutil.which("fluidsynth")
    if program is None:
        raise UsageError("fluidsynth plays sound fonts and is not installed; try: apt-get install fluidsynth")
    with tempfile.TemporaryDirectory() as folder:
        score, take = Path(folder) / "score.mid", Path(folder) / "take.wav"
        file.save(score)
        # Of a font only what is played is loaded: of a compressed one it saves seconds.
        frugal = ("-o", "synth.dynamic-sample-loading=1")
        options = ("-ni", "-q", *frugal, "-g", "0.6", "-r", str(RATE_HZ), "-R", str(int(room)), "-C", "0")
        done = subprocess.run(
            [program, *options, "-F", str(take), str(font), str(score)], capture_output=True, text=True, check=False
        )
        # Of a font that it cannot load it says so, plays silence and reports success.
        if done.returncode or "Failed to load" in done.stderr or not take.is_file():
            said = [line.split("error: ", 1)[1] for line in done.stderr.splitlines() if "error: " in line]
            raise UsageError(f"fluidsynth cannot play with {str(font)!r}: {(said or ['it gives no reason'])[0]}.")
        stereo, _ = soundfile.read(take, dtype="float32", always_2d=True)
    sound = stereo.mean(1, dtype=np.float32)[: round(file.length * RATE_HZ)]
    peak = float(np.abs(sound).max(initial=0))
    # What fluidsynth dithers with is no sound.
    return np.asarray(sound * np.float32(_PEAK / peak) if peak > 1e-3 else np.zeros_like(sound), np.float32)


def about(font: Path) -> dict[str, str]:
    """What a sound font says of itself: ``name``, ``copyright`` and ``comment``, each if it has one.

    Raises
    ------
    UsageError
        If the file is none, or too damaged to say.
    """
    names = {b"INAM": "name", b"ICOP": "copyright", b"ICMT": "comment"}
    found: dict[str, str] = {}
    try:
        with font.open("rb") as file:
            head = file.read(24)
            if head[:4] != b"RIFF" or head[8:16] != b"sfbkLIST" or head[20:24] != b"INFO":
                raise UsageError(f"{str(font)!r} is not a sound font (.sf2 or .sf3).")
            # Sizes in a file are claims: no more is read than a font's own words may fill.
            left = file.read(min(int.from_bytes(head[16:20], "little"), 1 << 20))
    except OSError as error:
        raise UsageError(f"The sound font {str(font)!r} cannot be read: {error.strerror}.") from None
    while len(left) >= 8:
        size = int.from_bytes(left[4:8], "little")
        if left[:4] in names:
            found[names[left[:4]]] = left[8 : 8 + size].split(b"\0")[0].decode("utf-8", "replace").strip(" ,\t\r\n")
        left = left[8 + size + size % 2 :]
    return {name: text for name, text in found.items() if text}


def _jobs(name: str, pieces: int, notes: int, effects: int) -> Iterator[Callable[[Path], list[tuple[str, str, Array]]]]:
    """What is to be played: given the font, each returns file, label and sound."""

    def one_piece(k: int, font: Path) -> list[tuple[str, str, Array]]:
        rng = np.random.default_rng((9, k, *name.encode()))
        return [(f"music/{name}-pieces/piece_{k:04}.flac", "music", played(piece(rng), font, rng.random() < 0.5))]

    def one_instrument(program: int, font: Path) -> list[tuple[str, str, Array]]:
        keys, score = scale_of(np.random.default_rng((7, program, *name.encode())), program, notes)
        sound, size = played(score, font), round(NOTE_S * RATE_HZ)
        files = (f"music/{name}-notes/{program:03}/{program:03}-{key}-{k}.flac" for k, key in enumerate(keys))
        return [(file, "instrument", sound[k * size : (k + 1) * size]) for k, file in enumerate(files)]

    def one_effect(program: int, k: int, font: Path) -> list[tuple[str, str, Array]]:
        sound = played(effect(np.random.default_rng((5, program, k, *name.encode())), program), font)
        return [(f"noise/{name}-effects/{program}-{k:02}.flac", "noise", sound)]

    yield from (partial(one_piece, k) for k in range(pieces))
    yield from (partial(one_instrument, program) for program in range(INSTRUMENTS) if notes)
    yield from (partial(one_effect, program, k) for program in EFFECTS for k in range(effects))


def compose(
    font: Path, data: Path, licence: str, name: str, pieces: int = 400, notes: int = 8, effects: int = 4,
    progress: bool = True,
) -> int:  # fmt: skip
    """Put music of a sound font into a data folder, and into its manifest; returns how many files.

    The same font and numbers give the same music. Nothing is left behind by an interruption.

    Raises
    ------
    UsageError
        If the font or the manifest cannot be read, or music of this name is there already.
    """
    says = about(font)
    index = data / "manifest.json"
    try:
        entries = json.loads(index.read_text("utf-8")) if index.is_file() else []
    except ValueError:
        entries = None
    if not isinstance(entries, list):
        raise UsageError(f"{str(index)!r} is not a JSON list; nothing was changed.")
    targets = [data / kind / f"{name}-{what}" for kind, what in
               (("music", "pieces"), ("music", "notes"), ("noise", "effects"))]  # fmt: skip
    for target in targets:
        if target.exists():
            raise UsageError(f"{str(target)!r} is there already: take another --name, or remove it first.")
    source = f"rtgan compose, {says.get('name', font.stem)}" + (f", {says['copyright']}" if "copyright" in says else "")
    data.mkdir(parents=True, exist_ok=True)
    made: list[dict[str, Any]] = []
    jobs = list(_jobs(name, pieces, notes, effects))
    # A name that `scan` does not look into.
    with tempfile.TemporaryDirectory(prefix=".composing-", dir=data) as folder:
        pool = ThreadPoolExecutor(os.cpu_count() or 1)
        try:
            for sounds in tqdm(pool.map(lambda job: job(font), jobs), "playing", len(jobs), disable=not progress):
                for file, label, sound in sounds:
                    if not np.any(sound):
                        continue
                    path = Path(folder) / file
                    path.parent.mkdir(parents=True, exist_ok=True)
                    soundfile.write(path, sound, RATE_HZ, subtype="PCM_16")
                    entry = {"file": file, "label": label, "source": source, "licence": licence, "only": "train"}
                    made.append(entry | ({"recording": Path(file).parent.name} if label == "music" else {}))
        finally:
            pool.shutdown(cancel_futures=True)
        if not made:
            raise UsageError(f"{str(font)!r} makes no sound with these numbers; nothing was changed.")
        known = {entry["file"] for entry in made}
        kept = [e for e in entries if not (isinstance(e, dict) and e.get("file") in known)]
        (Path(folder) / index.name).write_text(json.dumps(kept + made, indent=1) + "\n", "utf-8")
        os.replace(Path(folder) / index.name, index)
        for target in targets:
            if (there := Path(folder) / target.relative_to(data)).exists():
                target.parent.mkdir(exist_ok=True)
                there.rename(target)
    return len(made)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``rtgan compose``."""
    parser.add_argument("font", type=Path, metavar="FONT.sf2", help="a General MIDI sound font, .sf2 or .sf3")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the data folder that it is put into")
    parser.add_argument("--licence", required=True, metavar="NAME", help="the font's; it ends on the models' cards")
    parser.add_argument("--name", help="of what is put there (default: the font's file name)")
    parser.add_argument("--pieces", type=int, default=400, metavar="N", help="of 20 seconds (default: 400)")
    parser.add_argument("--notes", type=int, default=8, metavar="N", help="of each instrument (default: 8)")
    parser.add_argument("--effects", type=int, default=4, metavar="N", help="takes of each effect (default: 4)")


def run(args: argparse.Namespace) -> int:
    """``rtgan compose``; returns the exit code."""
    for option in ("pieces", "notes", "effects"):
        if not 0 <= getattr(args, option) <= 9999:
            raise UsageError(f"--{option} is {getattr(args, option)} but must lie in 0..9999.")
    name = args.name or re.sub(r"[^a-z0-9]+", "-", args.font.stem.lower()).strip("-")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", name):
        raise UsageError(f"--name is {name!r} but must be letters, digits and hyphens.")
    says = about(args.font)
    for what, text in says.items():
        print(f"{what}: {text.splitlines()[0]}")
    count = compose(args.font, args.data, args.licence, name, args.pieces, args.notes, args.effects)
    print(f"{count} files in {args.data}, licence {args.licence}.")
    return 0
