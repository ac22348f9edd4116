"""Single notes of instruments: found by their names, tuned, and taken apart into partials and noise.

A timbre is a folder of recordings of one note each. A file's name holds its pitch (``A4``, ``Bb2``, ``fs3``) and may
hold how hard it was played (``pp`` to ``ff``, ``v3``). Octaves are counted differently by different people: what is
heard decides, by the majority of a folder. A name without a pitch leaves it to the ear.

Every note is described by its fundamental, its stiffness (partial ``k`` lies at ``k f sqrt(1 + B k^2)``, Fletcher
1964), and by tracks: amplitudes of partials and the noise between them in bands, frame by frame.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..errors import UsageError
from ..kernels.partials import BANDS, HARMONICS, band_edges_hz
from .data import default_cache, filled

Array = NDArray[np.float32]
RATE_HZ = 48000
HOP = 128
SECONDS = 5.0
"""What is used of a recording."""
FLOOR = 1e-5
"""Amplitude below which nothing is told apart, where the loudest note of a timbre peaks at `PEAK`."""
PEAK = 0.2
_SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"}
_PITCH = re.compile(r"(?:^|[_\-. ])([A-Ga-g])([sb#]?)(-?\d)(?=$|[_\-. ])")
_FORCE = re.compile(r"(?:^|[_\-. ])(pp|p|mp|mf|f|ff)(?=$|[_\-. ])", re.IGNORECASE)
_LAYER = re.compile(r"(?:^|[_\-. ])vl?(\d+)(?=$|[_\-. ])", re.IGNORECASE)
_FORCES = {"pp": 0.2, "p": 0.35, "mp": 0.5, "mf": 0.68, "f": 0.85, "ff": 1.0}
_STEPS = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_FORMAT = 4
_LOWEST, _HIGHEST = 20, 109


@dataclass(frozen=True)
class TimbreSettings:
    """Where the notes of a timbre are and how it behaves.

    Attributes
    ----------
    folder : str
        Below the data folder.
    sustains : bool
        Whether a note lasts as long as it is held, such as of a wind instrument.
    release_ms : float
        Time in which a note that is let go falls by 60 dB.
    only, without : str
        Regular expressions that file names must, and must not, match; empty for none.
    """

    folder: str
    sustains: bool = False
    release_ms: float = 300.0
    only: str = ""
    without: str = ""

    def __post_init__(self) -> None:
        if not 5 <= self.release_ms <= 10000:
            raise UsageError(f"release_ms of {self.folder} is {self.release_ms:g} but must lie in 5 to 10000.")


@dataclass(frozen=True)
class Note:
    """One recorded note.

    Attributes
    ----------
    timbre : int
    pitch : float
        MIDI note number, 69 for 440 Hz, with what it is out of tune.
    velocity : float
        0..1; negative where the recordings of the timbre do not tell.
    stiffness : float
        ``B``; 0 for none.
    start, samples : int
        Where it lies in the corpus's audio, from its first sound on.
    first, frames : int
        Its rows of the tracks.
    held_out : bool
    source, licence : str
    """

    file: str
    timbre: int
    pitch: float
    velocity: float
    stiffness: float
    start: int
    samples: int
    first: int
    frames: int
    held_out: bool
    source: str
    licence: str

    @property
    def hertz(self) -> float:
        """The fundamental."""
        return float(440.0 * 2 ** ((self.pitch - 69) / 12))


@dataclass(frozen=True)
class NoteCorpus:
    """Notes with their sound and their tracks.

    Attributes
    ----------
    timbres : dict of str to TimbreSettings
    notes : list of Note
    audio : ndarray of float16 or float32, (samples,)
        Levelled: the loudest note of a timbre peaks at `PEAK`.
    times : ndarray of float32, (rows,)
        Seconds since the onset.
    partials : ndarray of float16, (rows, HARMONICS)
        Natural logarithm of amplitudes; -inf where there is nothing to know (above the band).
    noise : ndarray of float16, (rows, BANDS)
        Natural logarithm of the RMS in each band.
    """

    timbres: dict[str, TimbreSettings]
    notes: list[Note]
    audio: NDArray[Any]
    times: Array
    partials: NDArray[Any]
    noise: NDArray[Any]

    def side(self, held_out: bool) -> list[Note]:
        """Notes to train on, or those that are held out."""
        return [n for n in self.notes if n.held_out == held_out]

    def sound(self, note: Note) -> Array:
        """``(samples,)`` of a note."""
        return np.asarray(self.audio[note.start : note.start + note.samples], np.float32)

    def sources(self) -> list[dict[str, Any]]:
        """What the card names: source, licence, number of notes."""
        counts = Counter((n.source, n.licence) for n in self.notes if not n.held_out)
        return [{"name": s, "licence": v, "notes": c} for (s, v), c in sorted(counts.items())]


def named_pitch(stem: str) -> int | None:
    """The pitch in a file's name as a MIDI number, middle C being C4; None without one."""
    found = _PITCH.search(stem)
    if found is None:
        return None
    letter, sign, octave = found.groups()
    return _STEPS[letter.lower()] + {"": 0, "s": 1, "#": 1, "b": -1}[sign] + 12 * (int(octave) + 1)


def named_velocity(stem: str, layers: int) -> float:
    """How hard a note was played by its file's name; ``layers`` is the highest number of a folder. -1: not told."""
    forces = _FORCE.findall(stem)
    if forces:
        return _FORCES[forces[0].lower()]
    layer = _LAYER.search(stem)
    return int(layer.group(1)) / layers if layer and layers > 1 else -1.0


def heard_pitch(sound: Array) -> tuple[float, float]:
    """Pitch (MIDI number) and clearness (0..1) of a steady note.

    The first deep dip of the cumulative mean normalised difference (de Cheveigné and Kawahara, "YIN", 2002).
    """
    piece = sound[RATE_HZ // 10 : RATE_HZ // 10 + 16384].astype(np.float64)
    if len(piece) < 8192:
        piece = np.pad(sound.astype(np.float64), (0, 8192))[:8192]
    longest = min(1800, len(piece) // 3)
    width = len(piece) - longest
    size = 1 << (len(piece) + width).bit_length()
    cross = np.fft.irfft(np.fft.rfft(piece, size) * np.conj(np.fft.rfft(piece[:width], size)), size)[: longest + 1]
    power = np.concatenate([[0.0], np.cumsum(piece**2)])
    shifted = power[width : width + longest + 1] - power[: longest + 1]
    difference = np.maximum(power[width] + shifted - 2 * cross, 0)
    mean = np.cumsum(difference[1:]) / np.arange(1, longest + 1)
    relative = np.concatenate([[1.0], difference[1:] / np.maximum(mean, 1e-12)])
    deep = np.flatnonzero(relative[8:] < max(0.12, 1.5 * relative[8:].min())) + 8
    lag = int(deep[0]) if len(deep) else int(relative[8:].argmin()) + 8
    while lag + 1 < longest and relative[lag + 1] < relative[lag]:
        lag += 1
    a, b, c = relative[lag - 1], relative[lag], relative[min(lag + 1, longest)]
    bend = a - 2 * b + c
    exact = lag + (0.5 * (a - c) / bend if bend > 0 else 0.0)
    return 69 + 12 * float(np.log2(RATE_HZ / exact / 440)), 1 - float(b)


def tuned(sound: Array, pitch: float, stiff: bool) -> tuple[float, float]:
    """Pitch to a cent and stiffness: what gathers most of the spectrum on its partials, near a given pitch."""
    piece = sound[RATE_HZ // 20 : RATE_HZ // 20 + 48000]
    size = 1 << 18
    power = np.abs(np.fft.rfft(piece * np.hanning(len(piece)), size)) ** 2
    level = np.log(power + 1e-6 * power.max())
    # A partial counts where its peak is, give or take the width of the window.
    k = np.arange(1, 25)
    best = (-np.inf, pitch, 0.0)

    def score(cents: float, stiffness: float) -> float:
        hertz = 440 * 2 ** ((pitch + cents / 100 - 69) / 12)
        at = k * hertz * np.sqrt((1 + stiffness * k * k) / (1 + stiffness)) * size / RATE_HZ
        at = at[at < 0.9 * len(level)]
        return float(np.sum(level[np.round(at).astype(int)] - level.min()) / np.sqrt(len(at) + 4))

    grid = np.concatenate([[0.0], np.geomspace(2e-5, 4e-3, 28)]) if stiff else np.array([0.0])
    for stiffness in grid:
        for cents in np.arange(-45, 46, 1.5):
            value = score(cents, stiffness)
            if value > best[0]:
                best = (value, float(cents), float(stiffness))
    cents, stiffness = best[1], best[2]
    return pitch + cents / 100, stiffness


def frame_times(samples: int) -> NDArray[np.int64]:
    """Places of frames, in samples: dense at the onset, where everything happens."""
    dense, middle = RATE_HZ // 4, RATE_HZ
    grid = [np.arange(0, dense, HOP), np.arange(dense, middle, 4 * HOP), np.arange(middle, samples, 16 * HOP)]
    whole = np.concatenate(grid)
    return np.asarray(whole[whole < samples - HOP], np.int64)


def tracks(sound: Array, hertz: float, stiffness: float, places: NDArray[Any]) -> tuple[Array, Array]:
    """Amplitudes ``(frames, HARMONICS)`` and noise RMS ``(frames, BANDS)``, linear, of a note.

    A partial is the power around its place beyond the noise, so that vibrato and beating strings are no loss. Noise
    is the lower quartile of a band's bins, which partials do not reach, brought to the mean of an exponential
    distribution.
    """
    size = int(np.clip(1 << int(np.ceil(np.log2(5 * RATE_HZ / hertz))), 1024, 8192))
    window = np.hanning(size).astype(np.float32)
    scale = 1 / (size * float(np.sum(window**2)))
    k = np.arange(1, HARMONICS + 1)
    at = k * hertz * np.sqrt((1 + stiffness * k * k) / (1 + stiffness)) * size / RATE_HZ
    reach = 0.4 * hertz * size / RATE_HZ
    low = np.clip(np.round(at - reach).astype(int), 1, size // 2)
    high = np.clip(np.round(at + reach).astype(int) + 1, 2, size // 2 + 1)
    edges = np.clip(np.round(band_edges_hz() * size / RATE_HZ).astype(int), 1, size // 2 + 1)
    padded = np.pad(sound, (size // 2, size))
    partials = np.zeros((len(places), HARMONICS), np.float32)
    noise = np.zeros((len(places), BANDS), np.float32)
    for begin in range(0, len(places), 64):
        some = places[begin : begin + 64]
        frames = padded[some[:, None] + np.arange(size)] * window
        power = np.abs(np.fft.rfft(frames)).astype(np.float32) ** 2 * scale
        density = np.zeros_like(power)
        for b in range(BANDS):
            left, right = edges[b], max(edges[b + 1], edges[b] + 1)
            if left >= size // 2:
                continue
            quartile = np.quantile(power[:, max(1, left - 2) : right + 2], 0.25, axis=1) / 0.2877
            density[:, left:right] = quartile[:, None]
            noise[begin : begin + len(some), b] = np.sqrt(2 * quartile * (edges[b + 1] - edges[b]).clip(1))
        total = np.pad(np.cumsum(power, 1), ((0, 0), (1, 0)))
        below = np.pad(np.cumsum(density, 1), ((0, 0), (1, 0)))
        inside = (total[:, high] - total[:, low]) - (below[:, high] - below[:, low])
        partials[begin : begin + len(some)] = np.sqrt(4 * np.maximum(inside, 0))
    # A window that reaches beyond the onset holds less of the note than one that does not.
    share = np.clip(0.5 + places / size, 0.5, 1)[:, None].astype(np.float32)
    return partials / share, noise / share


def onset(sound: Array) -> int:
    """The sample at which a note begins: where it first comes within 40 dB of its peak, less 1 ms."""
    loud = np.flatnonzero(np.abs(sound) > 0.01 * np.abs(sound).max())
    return max(0, int(loud[0]) - RATE_HZ // 1000) if len(loud) else 0


def _ending(sound: Array, sustains: bool) -> int:
    """Where a note ends for our purposes: before its natural release if it sustains, else where it has died away."""
    hop = 2400
    level = np.sqrt(np.array([np.mean(sound[i : i + hop] ** 2) for i in range(0, len(sound) - hop, hop)]) + 1e-12)
    if not len(level):
        return len(sound)
    if sustains:
        loud = np.flatnonzero(level > 0.35 * np.median(level[level > 0.05 * level.max()]))
        return max(hop, int(loud[-1] - 1) * hop)
    loud = np.flatnonzero(level > 2e-4 * level.max())
    return int(loud[-1] + 1) * hop


def _decode(path: Path) -> Array:
    import soundfile
    import soxr

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(1)
    return np.ascontiguousarray(mono if rate == RATE_HZ else soxr.resample(mono, rate, RATE_HZ, "VHQ"), np.float32)


def _files(data: Path, name: str, timbre: TimbreSettings) -> list[Path]:
    folder = data / timbre.folder
    found = [
        path
        for path in sorted(folder.rglob("*") if folder.is_dir() else [])
        if path.suffix.lower() in _SUFFIXES
        and (not timbre.only or re.search(timbre.only, path.stem))
        and not (timbre.without and re.search(timbre.without, path.stem))
    ]
    if not found:
        raise UsageError(f"The timbre {name} has no recordings in {str(folder)!r}.")
    return found


def _pitches(paths: list[Path], sounds: list[Array]) -> list[float | None]:
    """Nominal pitch of each file: its name, in the octave that most files of the folder are heard in."""
    heard = [heard_pitch(sound) for sound in sounds]
    named = [named_pitch(path.stem) for path in paths]
    votes = Counter(
        12 * round((ear - name) / 12)
        for (ear, clear), name in zip(heard, named, strict=True)
        if name is not None and clear > 0.8 and abs((ear - name + 6) % 12 - 6) < 0.7
    )
    shift = votes.most_common(1)[0][0] if votes else 0
    nominal: list[float | None] = []
    for (ear, clear), name in zip(heard, named, strict=True):
        if name is not None:
            nominal.append(float(name + shift))
        else:
            nominal.append(ear if clear > 0.85 and _LOWEST < ear < _HIGHEST else None)
    return nominal


def load_notes(
    data: Path,
    timbres: dict[str, TimbreSettings],
    held_out: list[int],
    cache: Path | None = None,
    progress: bool = True,
) -> NoteCorpus:
    """Find, tune and take apart every note; the result is kept and found again until the files change.

    Parameters
    ----------
    data : Path
    timbres : dict of str to TimbreSettings
    held_out : list of int
        MIDI notes that are not trained on.
    cache : Path, optional
    """
    manifest: dict[str, dict[str, Any]] = {}
    if (data / "manifest.json").is_file():
        manifest = {e["file"]: e for e in json.loads((data / "manifest.json").read_text("utf-8"))}
    files = {name: _files(data, name, timbre) for name, timbre in timbres.items()}
    about = json.dumps([_FORMAT, HARMONICS, BANDS, {n: vars(t) for n, t in timbres.items()}, sorted(held_out)])
    digest = hashlib.sha256(about.encode())
    for paths in files.values():
        for path in paths:
            digest.update(f"{path.relative_to(data)} {path.stat().st_size}\n".encode())
    target = (cache or default_cache()) / f"notes-{digest.hexdigest()[:16]}"
    if not (target / "notes.json").is_file():
        with filled(target, "audio.f16", "tracks.npz", "notes.json") as folder:
            _build(data, timbres, set(held_out), files, manifest, folder, progress)
    rows = np.load(target / "tracks.npz")
    notes = [Note(**n) for n in json.loads((target / "notes.json").read_text("utf-8"))]
    for number in range(len(timbres)):
        if len({n.velocity for n in notes if n.timbre == number}) == 1:
            # A single layer tells nothing of how the sound follows the hand.
            notes = [dataclasses.replace(n, velocity=-1.0) if n.timbre == number else n for n in notes]
    audio = np.memmap(target / "audio.f16", np.float16, "r")
    return NoteCorpus(timbres, notes, audio, rows["times"], rows["partials"], rows["noise"])


def _build(
    data: Path,
    timbres: dict[str, TimbreSettings],
    held_out: set[int],
    files: dict[str, list[Path]],
    manifest: dict[str, dict[str, Any]],
    folder: Path,
    progress: bool,
) -> None:
    notes: list[Note] = []
    times, partials, noise = [], [], []
    start = first = 0
    with (folder / "audio.f16").open("wb") as stream:
        bar = tqdm(total=sum(map(len, files.values())), desc="notes", unit="file", disable=not progress)
        for number, (name, timbre) in enumerate(timbres.items()):
            sounds = [_decode(path) for path in files[name]]
            sounds = [s[onset(s) :][: int(SECONDS * RATE_HZ)] for s in sounds]
            nominal = _pitches(files[name], sounds)
            layers = max((int(m.group(1)) for p in files[name] if (m := _LAYER.search(p.stem))), default=1)
            # One gain for all: what is louder stays louder.
            gain = PEAK / max(float(np.quantile([np.abs(s).max() for s in sounds], 0.95)), 1e-6)
            for path, sound, pitch in zip(files[name], sounds, nominal, strict=True):
                bar.update()
                sound = sound[: _ending(sound, timbre.sustains)] * np.float32(gain)
                if pitch is None or not _LOWEST < pitch < _HIGHEST or len(sound) < RATE_HZ // 4:
                    continue
                exact, stiffness = tuned(sound, pitch, stiff=not timbre.sustains)
                places = frame_times(len(sound))
                hertz = float(440 * 2 ** ((exact - 69) / 12))
                amplitudes, bands = tracks(sound, hertz, stiffness, places)
                k = np.arange(1, HARMONICS + 1)
                beyond = k * hertz * np.sqrt((1 + stiffness * k * k) / (1 + stiffness)) > 0.42 * RATE_HZ
                logs = np.log(np.maximum(amplitudes, FLOOR))
                logs[:, beyond] = -np.inf
                relative = path.relative_to(data).as_posix()
                entry = manifest.get(relative, {})
                notes.append(
                    Note(
                        relative, number, exact, named_velocity(path.stem, layers), stiffness, start, len(sound),
                        first, len(places), round(exact) in held_out,
                        str(entry.get("source", timbre.folder)), str(entry.get("licence", "unknown")),
                    )
                )  # fmt: skip
                stream.write(sound.astype(np.float16).tobytes())
                start += len(sound)
                first += len(places)
                times.append(places / np.float32(RATE_HZ))
                partials.append(logs.astype(np.float16))
                noise.append(np.log(np.maximum(bands, FLOOR)).astype(np.float16))
        bar.close()
    np.savez(
        folder / "tracks.npz",
        times=np.concatenate(times).astype(np.float32),
        partials=np.concatenate(partials),
        noise=np.concatenate(noise),
    )
    (folder / "notes.json").write_text(json.dumps([vars(n) for n in notes]), "utf-8")
