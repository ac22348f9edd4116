"""Recordings as the recogniser hears them, and scenes made of them.

Everything is brought to what a card of task "tags" hears: power in mel bands below 8 kHz, every 20 ms, so that a
telephone, a wideband and a full-band recording of a sound look alike. Powers of sounds that have nothing to do with
each other add up, so that scenes are mixed, coloured and smeared band by band, which costs next to nothing.

A recording, a speaker and an instrument are on one side of the split only: ``train``, ``calibrate`` or ``test``. Of
singing there may be no more than one voice: all of it is for the test, and what is trained on is made of speech, whose
vowels are held at notes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..errors import UsageError
from ..kernels.loudness import k_weighting
from .data import _decode, _fraction, default_cache, filled, only_for_training, scan
from .stft import mel_triangles

Array = NDArray[np.float32]

RATE_HZ = 16000
HOP_S, WINDOW_S = 0.02, 0.04
HOP, WINDOW = round(HOP_S * RATE_HZ), round(WINDOW_S * RATE_HZ)
MELS = 64
BINS = 320
"""Frequencies in use, 25 Hz apart: up to 7975 Hz."""
_LOW_HZ, _HIGH_HZ = 30.0, 7600.0
FLOOR_DB = -100.0

SIDES = ("train", "calibrate", "test")
ENVIRONMENT = (
    "dog_bark", "rain", "sea_waves", "baby_cry", "clock_tick", "sneeze", "helicopter", "chainsaw", "rooster",
    "fire_crackling",
)  # fmt: skip
LABELS = ("silence", "speech", "singing", "music", "instrument", "noise", *ENVIRONMENT)
"""Noise is everything that is neither a voice nor music, the kinds behind it included; instrument is music of a single
line of notes."""
_ALIASES = {"person_sneeze": "sneeze"}
_INDEX = {name: number for number, name in enumerate(LABELS)}
SILENCE_DB = -60.0
"""Level of 0.1 s, in dB of a full-scale sine, below which nothing sounds."""
_SPEEDS = (0.85, 0.92, 1.0, 1.09, 1.18)
_LONGEST_S = {"speech": 40.0, "noise": 200.0, "music": 20.0}
_FORMAT = 4
_WHOLE = 500
"""Frames from which a recording of music counts no more than another."""
_PIECE = 120
"""Frames from which a recording of music is a piece or a loop by itself; a shorter one is a sound for a beat."""
#: Names by which recordings without a label are known, and what cannot be told of them.
_NAMED = {"rain": "rain", "waves": "sea_waves", "fireplace": "fire_crackling"}
_UNSURE = {"storm": ("rain",), "coffee": ("speech",), "berlin": ("speech", "music"), "kitchen": ("speech",),
           "cheering": ("speech", "singing"), "city": ("speech",), "boat": ("sea_waves",),
           "water": ("rain", "sea_waves"), "thunder": ("rain",), "bg_noise": ("speech",),
           "summer": ("rooster",)}  # fmt: skip
_NO_MUSIC = re.compile(
    r"glitch|mehackit_(phone|robot)|misc_|vinyl_|perc_(door|till|swash|swoosh|snap|impact)|loop_3d|ambi_(swoosh|sauna|dark)"
)


@dataclass(frozen=True)
class TagDataSettings:
    """How recordings are split and mixed.

    Attributes
    ----------
    test_fold : int
        Of recordings with a ``fold`` in the manifest.
    calibrate_share, test_share : float
        Of recordings without one, and, the first, of the other folds.
    test, calibrate : list of str
        What paths of music begin with that is on these sides.
    seconds : float
        Length of a scene.
    layers : list of float
        Chances of one, two and three sounds at a time.
    beside_db : list of float
        Between which the level of a further sound lies, in dB of the first one's.
    turns : float
        Share of scenes in the midst of which another one begins.
    """

    test_fold: int = 4
    calibrate_share: float = 0.1
    test_share: float = 0.15
    test: list[str] = field(default_factory=list)
    calibrate: list[str] = field(default_factory=list)
    seconds: float = 2.5
    layers: list[float] = field(default_factory=lambda: [0.75, 0.2, 0.05])
    beside_db: list[float] = field(default_factory=lambda: [-8.0, 8.0])
    turns: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.calibrate_share + self.test_share < 1 or min(self.calibrate_share, self.test_share) < 0:
            raise UsageError("data: calibrate_share and test_share must be at least 0 and less than 1 together.")
        if not 1 <= self.seconds <= 30 or len(self.layers) != 3 or min(self.layers) < 0 or sum(self.layers) <= 0:
            raise UsageError("data: seconds must lie in 1..30 and layers be three chances.")
        if len(self.beside_db) != 2 or not -40 <= self.beside_db[0] <= self.beside_db[1] <= 40:
            raise UsageError("data: beside_db must be two levels from -40 to 40, the lower one first.")
        if not 0 <= self.turns <= 1:
            raise UsageError("data: turns must lie in 0..1.")


@dataclass(frozen=True)
class TagClip:
    """A recording: the kind of its sound, and where its frames lie, once for each speed."""

    file: str
    kind: str
    group: str
    source: str
    licence: str
    side: str
    unsure: tuple[str, ...]
    starts: tuple[int, ...]
    frames: tuple[int, ...]


def mel_bank() -> Array:
    """Triangles ``(BINS, MELS)`` over frequencies 25 Hz apart."""
    return mel_triangles(BINS, WINDOW, RATE_HZ, MELS, _LOW_HZ, _HIGH_HZ).astype(np.float32)


def powers(sound: Array) -> Array:
    """Power ``(frames, MELS)`` of 16 kHz sound, a sine of full scale having about 1; a frame sees 40 ms of the past."""
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)
    padded = np.concatenate((np.zeros(WINDOW - HOP, np.float32), sound))
    if len(padded) < WINDOW:
        return np.zeros((0, MELS), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    bank, scale = mel_bank(), np.float32(2.0 / window.sum())
    found = [
        np.square(np.abs(np.fft.rfft(part * window)[:, :BINS].astype(np.complex64)) * scale) @ bank
        for part in np.array_split(frames, max(1, len(frames) // 512))
    ]
    return np.concatenate(found).astype(np.float32)


def _kind(item: Mapping[str, Any], label: str) -> str | None:
    name = Path(item["file"]).stem.lower()
    top = item["file"].split("/")[0].lower()
    if item["role"] == "noise":
        label = _ALIASES.get(label.lower(), label.lower())
        if label in ENVIRONMENT:
            return label
        # Whole words: a train is no rain.
        words = set(re.findall("[a-z]+", name))
        return next((kind for word, kind in _NAMED.items() if word in words), "noise")
    if item["role"] == "speech":
        return "singing" if top.startswith("singing") else "speech"
    if item["role"] == "music":
        if label in ("music", "instrument"):
            return label
        if "freesound" in item["file"] or "sonic_pi" in item["file"] or "drums" in item["file"]:
            return None if _NO_MUSIC.search(name) else "music"
        return "instrument"
    return None


def _side(item: Mapping[str, Any], kind: str, fold: int | None, settings: TagDataSettings) -> str:
    file, chance = str(item["file"]), _fraction("tags " + str(item["group"]))
    if kind == "singing" or any(file.startswith(begin) for begin in settings.test):
        return "test"
    if any(file.startswith(begin) for begin in settings.calibrate):
        return "calibrate"
    if fold is not None:
        return "test" if fold == settings.test_fold else "calibrate" if chance < settings.calibrate_share else "train"
    if kind in ("music", "noise"):
        # One library records many places, of which none is like another.
        chance = _fraction("tags " + file)
    elif kind in ("instrument", *ENVIRONMENT) or file.startswith("speech48"):
        return "train"
    if chance < settings.test_share:
        return "test"
    return "calibrate" if chance < settings.test_share + settings.calibrate_share else "train"


class TagCorpus:
    """Recordings as powers in bands; `train`, `calibrate` and `test` share none."""

    def __init__(self, clips: Sequence[TagClip], decibels: NDArray[np.float16]) -> None:
        self.clips = list(clips)
        self._decibels = decibels
        self._pools: dict[tuple[str, str], tuple[list[TagClip], NDArray[np.float64]]] = {}
        for side in SIDES:
            for kind in {c.kind for c in clips}:
                pool = [c for c in clips if c.side == side and c.kind == kind]
                if pool:
                    # Every recording alike, and among its pieces every piece; of music a piece before a single hit, and
                    # of the noise that is learned what lasts before it.
                    sizes = {g: sum(c.group == g for c in pool) for g in {c.group for c in pool}}
                    chance = np.array([1 / sizes[c.group] ** 0.5 for c in pool])
                    if kind == "music" or (side, kind) == ("train", "noise"):
                        chance *= [min(max(c.frames), _WHOLE) for c in pool]
                    self._pools[side, kind] = pool, chance / chance.sum()

    def kinds(self, side: str) -> list[str]:
        """Kinds of sound that a side has."""
        return sorted(kind for s, kind in self._pools if s == side)

    def pool(self, side: str, kind: str) -> list[TagClip]:
        """Clips of a kind on a side."""
        return self._pools[side, kind][0] if (side, kind) in self._pools else []

    def chances(self, side: str, kind: str) -> NDArray[np.float64]:
        """How probable each of the `pool` is to be drawn."""
        return self._pools[side, kind][1] if (side, kind) in self._pools else np.zeros(0)

    def draw(self, rng: np.random.Generator, side: str, kind: str) -> TagClip:
        """One clip by chance."""
        pool, chance = self._pools[side, kind]
        return pool[int(rng.choice(len(pool), p=chance))]

    def decibels(self, clip: TagClip, speed: int | None = None, within: slice = slice(None)) -> Array:
        """Frames ``(frames, MELS)`` of a clip in dB, at its own speed or another."""
        k = len(clip.starts) // 2 if speed is None else speed
        whole = self._decibels[clip.starts[k] : clip.starts[k] + clip.frames[k]]
        return whole[within].astype(np.float32)

    def sources(self) -> list[dict[str, Any]]:
        """Name, licence, kinds and hours of what training sees; for the card."""
        found: dict[tuple[str, str], tuple[set[str], list[float]]] = {}
        for clip in self.clips:
            if clip.side == "train":
                kinds, hours = found.setdefault((clip.source, clip.licence), (set(), []))
                kinds.add(clip.kind)
                hours.append(clip.frames[len(clip.frames) // 2] * HOP_S / 3600)
        return [
            {"name": name, "licence": licence, "kinds": sorted(kinds), "hours": round(sum(hours), 3)}
            for (name, licence), (kinds, hours) in sorted(found.items())
        ]

    def describe(self) -> str:
        """A line for each kind: recordings on every side."""
        lines = []
        for kind in sorted({c.kind for c in self.clips}):
            counts = [f"{len({c.group for c in self.pool(side, kind)})} {side}" for side in SIDES]
            lines.append(f"{kind}: {', '.join(counts)}")
        return "\n".join(lines)


def _listed(data: Path, settings: TagDataSettings) -> list[dict[str, Any]]:
    manifest: dict[str, dict[str, Any]] = {}
    if (data / "manifest.json").is_file():
        manifest = {e["file"]: e for e in json.loads((data / "manifest.json").read_text("utf-8"))}
    found = []
    for item in scan(data):
        entry = manifest.get(item["file"], {})
        kind = _kind(item, str(entry.get("label", "")))
        if kind is None:
            continue
        name = Path(item["file"]).stem
        unsure = () if "label" in entry else next((u for word, u in _UNSURE.items() if word in name), ())
        fold = entry.get("fold")
        found.append({
            "file": item["file"], "kind": kind, "group": item["group"], "source": item["source"],
            "licence": item["licence"], "unsure": list(unsure), "role": item["role"],
            "side": "train" if only_for_training(entry) else _side(item, kind, fold, settings),
        })  # fmt: skip
    return found


def load_tag_corpus(
    data: Path, settings: TagDataSettings, cache: Path | None = None, progress: bool = True
) -> TagCorpus:
    """Decode every recording once; what was found is kept until files or settings change."""
    listed = _listed(data, settings)
    digest = hashlib.sha256(f"tags {_FORMAT} {RATE_HZ} {HOP} {WINDOW} {_LONGEST_S} {_SPEEDS}\n".encode())
    for item in listed:
        digest.update(f"{item['file']} {(data / item['file']).stat().st_size}\n".encode())
    target = (cache or default_cache()) / f"tags-{digest.hexdigest()[:16]}"
    if not (target / "spans.json").is_file():
        with filled(target, "decibels.f16", "spans.json") as folder:
            _build(data, listed, folder, progress)
    spans = json.loads((target / "spans.json").read_text("utf-8"))
    clips = []
    for item in listed:
        starts, frames = spans.get(item["file"], ([], []))
        if frames and min(frames) > 0:
            about = {k: v for k, v in item.items() if k != "role"} | {"unsure": tuple(item["unsure"])}
            clips.append(TagClip(**about, starts=tuple(starts), frames=tuple(frames)))
    return TagCorpus(clips, np.memmap(target / "decibels.f16", np.float16, "r").reshape(-1, MELS))


def _build(data: Path, listed: list[dict[str, Any]], folder: Path, progress: bool) -> None:
    import soxr

    spans: dict[str, tuple[list[int], list[int]]] = {}
    at = 0
    with (folder / "decibels.f16").open("wb") as stream:
        for item in tqdm(listed, desc="listening", unit="file", disable=not progress):
            samples, rate = _decode(data / item["file"], item["file"])
            sound = samples[: round(_LONGEST_S[item["role"]] * rate)].astype(np.float32) / np.float32(32768)
            starts, frames = [], []
            for speed in (1.0,) if item["role"] == "speech" and item["kind"] == "speech" else _SPEEDS:
                slow = soxr.resample(sound, rate * speed, RATE_HZ, "HQ") if len(sound) else sound
                found = powers(np.asarray(slow, np.float32))
                decibels = 10 * np.log10(found + np.float32(10 ** (FLOOR_DB / 10)))
                stream.write(decibels.astype(np.float16).tobytes())
                starts.append(at)
                frames.append(len(found))
                at += len(found)
            spans[item["file"]] = starts, frames
    (folder / "spans.json").write_text(json.dumps(spans), "utf-8")


# -- scenes ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """A moment of sound.

    Attributes
    ----------
    decibels : ndarray of float32, (frames, MELS)
    labels : ndarray of int8, (frames, labels)
        1, 0, or -1 where nobody can tell.
    loudest : ndarray of int8, (frames,)
        Which of `GROUPS` is heard above the others by `LEAD_DB`, K-weighted; -1 for none.
    """

    decibels: Array
    labels: NDArray[np.int8]
    loudest: NDArray[np.int8]


GROUPS = ("silence", "speech", "singing", "music", "noise")
"""Of which one is the loudest; where it is quiet, that is silence."""
_GROUP_OF = {"instrument": "music", **dict.fromkeys(ENVIRONMENT, "noise")}
LEAD_DB, HOLD_S = 3.0, 0.3
"""By how much a sound must lead to be the one that is heard, and for how long it does so after it was that loud."""
_CHANCES = {"speech": 0.17, "singing": 0.05, "music": 0.2, "instrument": 0.08, "noise": 0.2, "environment": 0.3}
_LOUD_DB = {"speech": 32.0, "singing": 32.0, "music": 35.0, "instrument": 35.0, "noise": 35.0}
_TENTH = round(0.1 / HOP_S)
_HOLD, _DOUBT = round(HOLD_S / HOP_S), 60
"""Frames behind a sound's end during which it still counts as sounding, and during which nobody can tell."""


def _k_weights() -> NDArray[np.float64]:
    """What power in each band counts for its loudness, ``(MELS,)`` (ITU-R BS.1770-4)."""
    turn = np.exp(-2j * np.pi * np.arange(BINS) * 25.0 / 48000)[:, None] ** np.arange(3)
    gain = np.ones(BINS)
    for c in k_weighting(48000):
        gain *= np.abs(turn @ c[:3] / (turn @ np.array([1.0, *c[3:]]))) ** 2
    bank = mel_bank().astype(np.float64)
    return np.asarray(gain @ bank / bank.sum(0))


_K_WEIGHTS = _k_weights()


def _held(power: Array) -> NDArray[np.float64]:
    """Loudness of every tenth of a second, in dB and held for `HOLD_S`, as `tag_eval.lead` has it but below 8 kHz."""
    loud = np.convolve(power @ _K_WEIGHTS, np.full(_TENTH, 1 / _TENTH), "same")
    return _greatest(np.asarray(10 * np.log10(loud + 1e-12)), _HOLD - _TENTH + 1)


def _level(power: Array) -> NDArray[np.float64]:
    return np.asarray(10 * np.log10(power.sum(1, dtype=np.float64) + 1e-12))


def _greatest(values: NDArray[np.float64], frames: int) -> NDArray[np.float64]:
    """The greatest of each value and those before it, `frames` in all."""
    before = np.full(frames - 1, -np.inf)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(np.concatenate((before, values)), frames).max(1))


def sounding(power: Array, loud_db: float) -> NDArray[np.int8]:
    """Of every frame of a sound alone whether it sounds: 1, 0, or -1 for maybe."""
    level = _level(power)
    level = _greatest(level, 3)
    top = level.max()
    found = np.where(level > max(top - loud_db, -90.0), 1, np.where(level < max(top - 50, -90.0), 0, -1)).astype(
        np.int8
    )
    count = np.arange(len(found))
    since = count - np.maximum.accumulate(np.where(found == 1, count, -(10**6)))
    found[(found != 1) & (since <= _HOLD)] = 1
    found[(found == 0) & (since <= _DOUBT)] = -1
    return found


class TagMixer:
    """Scenes by number, always the same for a seed [any process].

    Parameters
    ----------
    corpus : TagCorpus
    side : str
        Whose recordings: ``train``, which also hides bands and moments, ``calibrate`` or ``test``.
    settings : TagDataSettings
    seed : int
    chances : mapping, optional
        Of kinds of sound; ``environment`` is all ten alike.
    """

    def __init__(
        self, corpus: TagCorpus, side: str, settings: TagDataSettings, seed: int,
        chances: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        self.corpus, self.side, self.settings, self.seed = corpus, side, settings, seed
        kinds = corpus.kinds(side)
        known = [k for k in ENVIRONMENT if k in kinds]
        self._kinds: dict[str, float] = {}
        for kind, chance in (chances or _CHANCES).items():
            there = kind in kinds or (kind == "singing" and side != "test" and "speech" in kinds)
            for name in known if kind == "environment" else [kind] if there else []:
                self._kinds[name] = chance / (len(known) if kind == "environment" else 1)
        self.frames = round(settings.seconds / HOP_S)
        music, weights = corpus.pool(side, "music"), corpus.chances(side, "music")
        lasts = np.array([max(c.frames) >= _PIECE for c in music], bool)
        self._pieces = [c for c, piece in zip(music, lasts, strict=True) if piece]
        self._hits = [c for c, piece in zip(music, lasts, strict=True) if not piece]
        self._piece_chances = weights[lasts] / max(weights[lasts].sum(), 1e-12)

    def _clip(self, rng: np.random.Generator, kind: str, group: str | None = None) -> Array:
        if group is None:
            clip = self.corpus.draw(rng, self.side, kind)
        else:
            pool = [c for c in self.corpus.pool(self.side, kind) if c.group == group]
            clip = pool[int(rng.integers(len(pool)))]
        return self._power(rng, clip)

    def _power(self, rng: np.random.Generator, clip: TagClip) -> Array:
        speed = int(rng.integers(len(clip.starts))) if self.side == "train" else None
        frames = clip.frames[len(clip.frames) // 2 if speed is None else speed]
        start = int(rng.integers(frames - self.frames)) if frames > 2 * self.frames else 0
        within = slice(start, start + self.frames) if frames > 2 * self.frames else slice(None)
        decibels = self.corpus.decibels(clip, speed, within)
        return np.asarray(np.power(np.float32(10), decibels * np.float32(0.1)), np.float32)

    def _looped(self, rng: np.random.Generator, power: Array) -> Array:
        start = int(rng.integers(len(power)))
        return np.asarray(power[(start + np.arange(self.frames)) % len(power)])

    def _phrase(self, rng: np.random.Generator, kind: str) -> Array:
        """Notes one after the other, of one instrument or voice."""
        group = self.corpus.draw(rng, self.side, kind).group
        out = np.full((self.frames, MELS), 1e-10, np.float32)
        longest = float(rng.choice([12, 30, 100, 200]))
        at = int(rng.integers(0, 20))
        while at < self.frames:
            note = self._clip(rng, kind, group)
            length = min(len(note), max(4, int(rng.uniform(0.4, 1) * longest)), self.frames - at)
            fall = np.minimum(1.0, (length - np.arange(length)) / 4.0)[:, None].astype(np.float32)
            out[at : at + length] += note[:length] * fall**2 * np.float32(10 ** rng.uniform(-0.6, 0))
            at += length + int(rng.choice([0, 0, 2, 10, 40]))
        return out

    def _music(self, rng: np.random.Generator) -> Array:
        """Some of: phrases of instruments, a piece, a beat of single hits, a synthesiser."""
        playable = "instrument" in self.corpus.kinds(self.side)
        chances = np.array([0.45 * playable, 0.5 * bool(self._pieces), 0.3, 0.3])
        there = rng.random(4) < chances
        if not there.any():
            there[int(rng.choice(4, p=chances / chances.sum()))] = True
        parts = []
        if there[0]:
            parts += [self._phrase(rng, "instrument") for _ in range(int(rng.integers(2, 5)))]
        if there[1]:
            parts.append(self._piece(rng))
        if there[2]:
            count = int(rng.integers(2, 6))
            if self._hits and rng.random() < 0.95:
                kit = [self._power(rng, self._hits[int(k)]) for k in rng.integers(0, len(self._hits), count)]
            else:
                kit = [struck(rng) for _ in range(count)]
            parts.append(beat(rng, self.frames, kit))
        if there[3]:
            parts.append(synthesised(rng, self.frames))
        out = np.full((self.frames, MELS), 1e-10, np.float32)
        for part in parts:
            out += part / max(float(part.mean()), 1e-12) * np.float32(10 ** rng.uniform(-0.8, 0))
        return out

    def _piece(self, rng: np.random.Generator) -> Array:
        """A piece or a loop; in training at times cut into steps that are played in another order."""
        power = self._power(rng, self._pieces[int(rng.choice(len(self._pieces), p=self._piece_chances))])
        if self.side == "train" and rng.random() < 0.25:
            count = int(rng.choice([8, 16, 32]))
            steps = np.array_split(power, count)
            order = rng.permutation(count) if rng.random() < 0.5 else rng.integers(0, count, count)
            power = np.concatenate([steps[int(k)] for k in order])
        return self._looped(rng, power)

    def _noise(self, rng: np.random.Generator) -> tuple[Array, set[str]]:
        """A recording, or, in training, also one backwards, what is like it on average, a machine, knocks; or two.

        With it what may be in it besides.
        """
        out = np.full((self.frames, MELS), 1e-10, np.float32)
        unsure: set[str] = set()
        train = self.side == "train"
        for _ in range(2 if train and rng.random() < 0.3 else 1):
            way = rng.random() if train else 0.0
            if way < 0.63:
                clip = self.corpus.draw(rng, self.side, "noise")
                part = self._power(rng, clip)
                if way < 0.53:
                    unsure |= set(clip.unsure)
                    part = self._looped(rng, part)[:: -1 if train and rng.random() < 0.15 else 1]
                else:
                    part = hiss(rng, self.frames, part.mean(0))
            elif way < 0.8:
                part = machine(rng, self.frames)
            else:
                part = knocks(rng, self.frames)
            out += part / max(float(part.mean()), 1e-12) * np.float32(10 ** rng.uniform(-1, 0))
        return out, unsure

    def _sound(self, rng: np.random.Generator, kind: str) -> tuple[Array, set[str]]:
        """A kind of sound, and what may be in it besides."""
        if kind == "noise":
            return self._noise(rng)
        if kind == "music":
            sound = self._music(rng)
        elif kind == "singing" and self.side != "test":
            sound = _sung(rng, self._clip(rng, "speech"), self.frames)
        elif kind in ("instrument", "singing"):
            sound = self._phrase(rng, kind)
        else:
            sound = self._looped(rng, self._clip(rng, kind))
        return sound, set()

    def __call__(self, number: int) -> Scene:
        """One scene."""
        rng = np.random.default_rng((self.seed, number))
        one = self._any(rng)
        if rng.random() >= self.settings.turns:
            return one
        other, cut = self._any(rng), int(rng.uniform(0.2, 0.8) * self.frames)
        labels = np.concatenate((one.labels[:cut], other.labels[cut:]))
        loudest = np.concatenate((one.loudest[:cut], other.loudest[cut:]))
        # A frame hears the moment before, too.
        both = slice(cut, cut + 2)
        labels[both] = np.where(one.labels[both] == other.labels[both], labels[both], -1)
        loudest[both] = np.where(one.loudest[both] == other.loudest[both], loudest[both], -1)
        return Scene(np.concatenate((one.decibels[:cut], other.decibels[cut:])), labels, loudest)

    def _any(self, rng: np.random.Generator) -> Scene:
        shares = np.array(self.settings.layers) / sum(self.settings.layers)
        names, chances = list(self._kinds), np.array(list(self._kinds.values()))
        count = min(1 + int(rng.choice(3, p=shares)), len(names))
        kinds = [names[int(k)] for k in rng.choice(len(names), count, replace=False, p=chances / chances.sum())]
        return self.scene(rng, kinds)

    def scene(self, rng: np.random.Generator, kinds: Sequence[str]) -> Scene:
        """Sounds of these kinds at once."""
        frames = self.frames
        labels = np.zeros((frames, len(LABELS)), np.int8)
        total = np.zeros((frames, MELS), np.float32)
        parts: list[tuple[str, set[str], Array, NDArray[np.int8]]] = []
        for place, kind in enumerate(kinds):
            sound, unsure = self._sound(rng, kind)
            sounds = sounding(sound, _LOUD_DB.get(kind, 25.0))
            cover = np.ones(frames, bool)
            if rng.random() < 0.4:
                cover[: int(rng.integers(0, int(0.6 * frames)))] = False
            if rng.random() < 0.25:
                cover[int(rng.integers(int(0.5 * frames), frames)) :] = False
            loud = sound[sounds == 1]
            scale = 1 / max(float(loud.sum(1).mean()) if len(loud) else 1.0, 1e-9)
            lowest, highest = self.settings.beside_db
            beside_db = rng.uniform(lowest, highest) if place else 0.0
            sound = sound * np.float32(scale * 10 ** (beside_db / 10)) * cover[:, None]
            sounds = np.where(cover, sounds, 0).astype(np.int8)
            # What has just ended still echoes in whoever listens.
            ended = np.flatnonzero(np.diff(cover.astype(np.int8)) < 0)
            for end in ended:
                sounds[end + 1 : end + 1 + _HOLD] = -1
            total += sound
            parts.append((kind, unsure, sound, sounds))
        if rng.random() < 0.2:
            total = _smeared(rng, total)
        colour = _colour(rng)
        total = total * colour
        parts = [(kind, unsure, sound * colour, sounds) for kind, unsure, sound, sounds in parts]
        peak = float(total.sum(1).max())
        gain_db = rng.uniform(-45, -3) if rng.random() < 0.95 else rng.uniform(-90, -60)
        total = total * np.float32(10 ** (gain_db / 10) / max(peak, 1e-12))
        if rng.random() < 0.6:
            floor_db = max(gain_db + rng.uniform(-60, -25), -90.0)
        else:
            floor_db = -95.0
        tilt = np.linspace(rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5), MELS)
        hiss = 10 ** (floor_db / 10 + tilt) / MELS * rng.gamma(6.0, 1 / 6.0, (frames, MELS))
        total = total + hiss.astype(np.float32)
        loudest = self._mark(labels, parts, total, 10 ** (gain_db / 10) / max(peak, 1e-12))
        decibels = 10 * np.log10(total + np.float32(10 ** (FLOOR_DB / 10)))
        if self.side == "train":
            for _ in range(int(rng.integers(0, 3))):
                low = int(rng.integers(0, MELS))
                decibels[:, low : low + int(rng.integers(2, 10))] = decibels.min()
            if rng.random() < 0.3:
                decibels += rng.normal(0, 1.5, decibels.shape)
        return Scene(decibels.astype(np.float32), labels, loudest)

    def _mark(
        self, labels: NDArray[np.int8], parts: Sequence[tuple[str, set[str], Array, NDArray[np.int8]]],
        total: Array, scale: float,
    ) -> NDArray[np.int8]:  # fmt: skip
        """What sounds in each frame; returns the loudest, each being as loud as it was at most a moment ago."""
        lines = np.zeros(len(total), np.int64)
        loudest = _held(total)
        levels = np.full((len(GROUPS), len(total)), -200.0)
        sure = np.zeros(levels.shape, bool)
        for kind, unsure, sound, sounds in parts:
            seen = sounds.copy()
            held = _held(sound * np.float32(scale))
            group = GROUPS.index(_GROUP_OF.get(kind, kind))
            louder = held > levels[group]
            levels[group][louder], sure[group][louder] = held[louder], (sounds == 1)[louder]
            # Drowned by others: neither there nor not.
            seen[(seen == 1) & (held - loudest < -12)] = -1
            names = {kind}
            if kind in ENVIRONMENT:
                names.add("noise")
            if kind == "instrument":
                names.add("music")
            if kind in ("music", "instrument"):
                lines += seen != 0
            for name in names:
                column = labels[:, _INDEX[name]]
                column[:] = np.where((column == 1) | (seen == 1), 1, np.where((column == -1) | (seen == -1), -1, 0))
            for name in unsure:
                column = labels[:, _INDEX[name]]
                column[(column == 0) & (seen != 0)] = -1
        column = labels[:, _INDEX["instrument"]]
        column[lines > 1] = -1
        recent = _greatest(_level(total), 5)
        quiet = recent < SILENCE_DB - 3
        silence = np.where(quiet, 1, np.where(recent < SILENCE_DB + 3, -1, 0))
        others = labels[:, 1:]
        others[quiet] = np.where(others[quiet] == 1, -1, others[quiet])
        labels[:, 0] = silence
        order = np.sort(levels, 0)
        first = levels.argmax(0)
        clear = (order[-1] - order[-2] >= LEAD_DB) & sure[first, np.arange(len(first))] & ~quiet
        return np.where(quiet, GROUPS.index("silence"), np.where(clear, first, -1)).astype(np.int8)


def _lines() -> Array:
    """What a line of power 1 is worth in every band, ``(frequencies 2.5 Hz apart, MELS)``."""
    hertz = np.arange(0, 7700, 2.5)[:, None]
    off = (hertz * WINDOW / RATE_HZ - np.arange(BINS)).clip(-2, 2)
    # The main lobe of a Hann window: sinc(x) / (1 - x^2).
    near = np.abs(np.abs(off) - 1) < 1e-6
    lobe = np.where(near, 0.5, np.sinc(off) / np.where(near, 1.0, 1 - off**2))
    return np.asarray((lobe**2) @ mel_bank(), np.float32)


_LINES = _lines()
_SMOOTHER = np.hanning(9)[1:-1] / np.hanning(9).sum()


def _sung(rng: np.random.Generator, speech: Array, frames: int) -> Array:
    """Notes that somebody might sing whose speech this is: envelopes of loud frames, held, with partials under them."""
    level = _level(speech)
    loud = np.flatnonzero(level >= np.quantile(level, 0.8))
    out = np.full((frames, MELS), 1e-10, np.float32)
    home = rng.uniform(45, 70)
    at = int(rng.integers(0, 15))
    centres = np.asarray(_LINES.argmax(0), np.float64) * 2.5
    note = home
    while at < frames:
        length = min(int(rng.choice([8, 15, 30, 60, 120]) * rng.uniform(0.7, 1.3)), frames - at)
        # Tones of a scale near the one before, each on a vowel that may turn into another.
        last, note = note, float(np.clip(note + rng.choice([-4, -3, -2, -1, 0, 1, 2, 3, 4, 7]), home - 9, home + 10))
        t = np.arange(length)
        way = np.clip(t / rng.uniform(1, 6), 0, 1)
        swing = rng.uniform(0, 0.7) * np.clip(t / 15 - 0.3, 0, 1)
        pitch = (
            last
            + (note - last) * way
            + swing * np.sin(2 * np.pi * rng.uniform(4.5, 6.8) * HOP_S * t + 6 * rng.random())
        )
        pitch = pitch + rng.normal(0, 0.06) + np.cumsum(rng.normal(0, 0.02, length))
        hertz = 440 * 2 ** ((pitch - 69) / 12)
        ends = [10 * np.log10(np.convolve(speech[i], _SMOOTHER, "same") + 1e-10) for i in rng.choice(loud, 2)]
        turn = np.clip((t / max(length, 1) - rng.random()) * rng.uniform(1, 6) + 0.5, 0, 1)[:, None]
        envelope = ends[0] * (1 - turn) + ends[1] * turn
        rise = np.minimum(1, (t + 1) / rng.uniform(1, 5)) * np.minimum(1, (length - t) / rng.uniform(1, 6))
        tilt = rng.uniform(-0.004, 0.001)
        partials = hertz[:, None] * np.arange(1, 80)
        heard = partials < 7600
        places = np.where(heard, partials / 2.5, 0).astype(np.int64)
        at_partials = np.stack([np.interp(p, centres, e) for p, e in zip(partials, envelope, strict=True)])
        power = np.where(heard, 10 ** (at_partials / 10 + tilt / 10 * partials), 0)
        sung = np.einsum("tp,tpm->tm", power.astype(np.float32), _LINES[places])
        breath = 10 ** (envelope / 10) * 10 ** rng.uniform(-3.5, -1.5)
        out[at : at + length] += ((sung + breath) * (rise**2)[:, None]).astype(np.float32)
        at += length + int(rng.choice([0, 0, 0, 4, 15, 40]))
    return out


def hiss(rng: np.random.Generator, frames: int, colour: Array) -> Array:
    """Noise of a colour ``(MELS,)``, which may swell and sink."""
    freedom = np.maximum(1.0, 0.6 * mel_bank().sum(0))
    fluctuating = rng.gamma(freedom, 1 / freedom, (frames, MELS))
    slow = np.cumsum(rng.normal(0, rng.choice([0.0, 0.05, 0.3]), frames))
    swell = np.power(10.0, np.clip(slow - slow.mean(), -15, 15) / 10)
    return np.asarray(fluctuating * swell[:, None] * colour, np.float32)


def _any_colour(rng: np.random.Generator) -> Array:
    points = rng.normal(0, 8, 6) - rng.uniform(0, 50) * np.linspace(0, 1, 6)
    return np.asarray(10 ** (np.interp(np.linspace(0, 5, MELS), np.arange(6), points) / 10), np.float32)


def hum(rng: np.random.Generator, frames: int) -> Array:
    """Mains, as a transformer, a bad cable or an appliance has them: lines 50 or 60 Hz apart that stay, over noise.

    At times with the turns of a motor. It is made as sound, since lines so near each other beat within a band.
    """
    samples = WINDOW + HOP * frames
    hertz = np.fft.rfftfreq(samples, 1 / RATE_HZ)
    lines = np.zeros(len(hertz), np.complex128)
    mains = float(rng.choice([50.0, 60.0])) * (1 + rng.normal(0, 0.002))
    turns = 10 ** rng.uniform(1.2, 2.3)
    for base, most, loud_db in ((mains, 40, 0.0), (turns, 13, -rng.uniform(0, 20) if rng.random() < 0.4 else -200.0)):
        count = np.arange(1, int(rng.integers(3, most)))
        # What a magnet pulls at it pulls at twice in each turn.
        twice_db = rng.uniform(0, 12) * (count % 2 == 0)
        strength_db = loud_db + twice_db + rng.normal(0, 7, len(count)) - rng.uniform(0.2, 1.5) * count
        at = np.round(base * count * samples / RATE_HZ).astype(np.int64)
        heard = at < len(lines)
        lines[at[heard]] += (10 ** (strength_db / 20) * np.exp(2j * np.pi * rng.random(len(count))))[heard]
    bed = (rng.normal(0, 1, len(hertz)) + 1j * rng.normal(0, 1, len(hertz))) / (20 + hertz) ** rng.uniform(0, 1.2)
    power = [float(np.square(np.abs(part)).sum()) for part in (lines, bed)]
    sound = np.fft.irfft(lines / power[0] ** 0.5 + bed * (10 ** rng.uniform(-4.5, 0.5) / power[1]) ** 0.5, samples)
    if rng.random() < 0.3:
        seconds = np.arange(samples) / RATE_HZ
        sound *= 1 + rng.uniform(0, 0.5) * np.cos(2 * np.pi * (10 ** rng.uniform(-0.5, 1.1) * seconds + rng.random()))
    found = powers((sound / np.abs(sound).max()).astype(np.float32))
    return found[2 : 2 + frames] + np.float32(1e-10)


def machine(rng: np.random.Generator, frames: int) -> Array:
    """A fan, a motor: lines that stay where they are or drift, over noise; or a `hum`."""
    if rng.random() < 0.5:
        return hum(rng, frames)
    base = 10 ** rng.uniform(1.6, 2.7)
    harmonics = np.arange(1, min(int(7500 / base), int(rng.integers(1, 40))) + 1)
    wander = np.cumsum(rng.normal(0, rng.choice([0.0, 0.001, 0.005]), frames))
    pitch = base * np.exp(wander - wander[0])
    strength = 10 ** ((rng.normal(0, 6, len(harmonics)) - rng.uniform(0, 2) * harmonics) / 10)
    hertz = pitch[:, None] * harmonics
    lines = np.einsum("p,tpm->tm", strength, _LINES[np.where(hertz < 7600, hertz / 2.5, 0).astype(np.int64)])
    bed = hiss(rng, frames, _any_colour(rng))
    out = 10 ** rng.uniform(-1.5, 2.5) * lines / max(float(lines.mean()), 1e-12) + bed / max(float(bed.mean()), 1e-12)
    if rng.random() < 0.3:
        # Behind a wall.
        out[:, int(rng.integers(8, 32)) :] *= 10 ** rng.uniform(-4.5, -1.5)
    return np.asarray(out, np.float32)


def struck(rng: np.random.Generator, ringing: float = 1.0, longest: float = 10.0) -> Array:
    """A knock, a click, a drum: noise and lines that die away within half a second.

    ``ringing`` is how loud the lines are, ``longest`` the greatest time constant, in frames.
    """
    frames = 24
    decay = np.exp(-np.arange(frames) / 10 ** rng.uniform(-0.4, np.log10(longest)))[:, None]
    out = hiss(rng, frames, _any_colour(rng)) * decay
    out /= max(float(out.sum()), 1e-12)
    for _ in range(int(rng.integers(0, 4))):
        line = _LINES[int(10 ** rng.uniform(1.7, 3.7) / 2.5)]
        ring = np.exp(-np.arange(frames) / longest ** rng.uniform(0, 1))[:, None] * line
        out += ringing * ring / ring.sum() * 10 ** rng.uniform(-1, 0.7)
    return np.asarray(out * np.minimum(1, np.arange(frames, 0, -1) / 8)[:, None], np.float32)


def knocks(rng: np.random.Generator, frames: int) -> Array:
    """Steps, dishes, strokes of one make, or bursts on the keys of a board, at no beat over faint noise."""
    out = hiss(rng, frames, _any_colour(rng))
    out /= max(float(out.mean()), 1e-12) * 10 ** rng.uniform(1.5, 5)
    keys = rng.random() < 0.5
    longest = 10 ** rng.uniform(-0.2, 0.3 if keys else 0.8)
    makes = [struck(rng, 0.02 if keys else 0.1, longest) for _ in range(int(rng.integers(1, 9 if keys else 4)))]
    makes = [make / max(float(make.mean()), 1e-12) for make in makes]
    if keys:
        # Those of one board differ a little.
        makes = [0.7 * makes[0] + 0.3 * make for make in makes]
    pace = 10 ** (rng.uniform(0.5, 1.1) if keys else rng.uniform(0.8, 1.8))

    def strike(at: int, loud: float) -> None:
        # No stroke is quite like another.
        tint = 10 ** (np.interp(np.linspace(0, 5, MELS), np.arange(6), rng.normal(0, 3, 6)) / 10)
        stroke = makes[int(rng.integers(len(makes)))][: frames - at]
        out[at : at + len(stroke)] += (stroke * tint * loud).astype(np.float32)

    at = int(rng.integers(0, 15))
    while at < frames:
        loud = 10 ** rng.uniform(-1, 0)
        strike(at, loud)
        up = at + int(rng.integers(3, 7))
        if keys and up < frames:
            strike(up, loud * 10 ** rng.uniform(-1.2, 0))
        at += max(2, int(rng.exponential(pace)))
        if keys and rng.random() < 0.08:
            at += int(rng.integers(10, 80))
    return np.asarray(out, np.float32)


def beat(rng: np.random.Generator, frames: int, kit: Sequence[Array]) -> Array:
    """A pattern of sixteenths, over and over."""
    out = np.full((frames, MELS), 1e-10, np.float32)
    sixteenth = 60 / rng.uniform(70, 180) / 4 / HOP_S
    for place, hit in enumerate(kit):
        dense = rng.uniform(0.1, 0.6)
        pattern = rng.random(16) < dense
        pattern[(4 * place) % 16] = True
        loudness = 10 ** (rng.uniform(-0.6, 0, 16) + rng.uniform(-0.6, 0)) / max(float(hit.sum()), 1e-12)
        for k in range(int(frames / sixteenth) + 1):
            at = int(k * sixteenth)
            if pattern[k % 16] and at < frames:
                part = hit[: frames - at]
                out[at : at + len(part)] += part * np.float32(loudness[k % 16])
    return out


def synthesised(rng: np.random.Generator, frames: int) -> Array:
    """Chords and melodies of tones that no instrument of the recordings has."""
    out = np.full((frames, MELS), 1e-10, np.float32)
    scale = np.array([[0, 2, 4, 5, 7, 9, 11], [0, 2, 3, 5, 7, 8, 10], [0, 3, 5, 7, 10, 12, 15]][int(rng.integers(3))])
    root = int(rng.integers(36, 60))
    for _ in range(int(rng.integers(1, 4))):
        partials = np.arange(1, int(rng.integers(3, 30)))
        if rng.random() < 0.3:
            partials = partials[::2]
        stretch = 1 + (rng.random() < 0.2) * rng.uniform(0, 0.02) * partials
        strength = 10 ** (rng.normal(0, rng.uniform(0, 5), len(partials)) / 10) / partials ** rng.uniform(0.5, 3)
        attack, fall = rng.choice([0.5, 2, 10]), 10 ** rng.uniform(0.7, 2.3)
        chord = int(rng.integers(1, 4))
        step = max(3, int(60 / rng.uniform(70, 180) / HOP_S * float(rng.choice([0.25, 0.5, 1, 2, 4]))))
        octave, vibrato = 12 * int(rng.integers(0, 3)), rng.uniform(0, 0.4) * (rng.random() < 0.3)
        loud = 10 ** rng.uniform(-0.6, 0)
        for at in range(int(rng.integers(0, step)), frames, step):
            if rng.random() < 0.12:
                continue
            length = min(int(step * rng.uniform(0.6, 1.6)), frames - at)
            t = np.arange(length)
            envelope = np.minimum(1, (t + 1) / attack) * np.exp(-t / fall) * np.minimum(1, (length - t) / 2)
            degree = int(rng.integers(len(scale)))
            for voice in range(chord):
                pitch = root + octave + scale[(degree + 2 * voice) % len(scale)]
                swing = vibrato * np.sin(2 * np.pi * 5.5 * HOP_S * t)
                hertz = 440 * 2 ** ((pitch + swing - 69) / 12)[:, None] * partials * stretch
                bands = _LINES[np.where(hertz < 7600, hertz / 2.5, 0).astype(np.int64)]
                tone = np.einsum("tp,tpm->tm", np.where(hertz < 7600, strength, 0), bands)
                out[at : at + length] += (tone * (envelope**2)[:, None] * loud).astype(np.float32)
    return out


def _colour(rng: np.random.Generator) -> Array:
    """Gain of power in each band: an equaliser, at times the band of a telephone."""
    points = rng.normal(0, rng.uniform(0, 6), 5)
    gains = np.interp(np.linspace(0, 4, MELS), np.arange(5), points)
    if rng.random() < 0.12:
        top = int(rng.integers(40, MELS))
        gains[top:] -= np.minimum(60, 8.0 * np.arange(1, MELS - top + 1))
    if rng.random() < 0.12:
        low = int(rng.integers(2, 12))
        gains[:low] -= np.minimum(40, 6.0 * np.arange(low, 0, -1))
    return np.asarray(10 ** (gains / 10), np.float32)


def _smeared(rng: np.random.Generator, power: Array) -> Array:
    """A room: every band dies away exponentially."""
    decay = 10 ** (-6 * HOP_S / rng.uniform(0.15, 1.0))
    wet = 10 ** rng.uniform(-1.8, -0.5)
    reach = min(len(power), int(-4 / np.log10(decay)) + 2)
    tail = (wet * decay ** np.arange(reach)).astype(np.float32)
    tail[0] = 1.0
    size = 1 << int(np.ceil(np.log2(len(power) + reach)))
    spread = np.fft.irfft(np.fft.rfft(power, size, axis=0) * np.fft.rfft(tail, size)[:, None], size, axis=0)
    return np.maximum(spread[: len(power)], 0).astype(np.float32)
