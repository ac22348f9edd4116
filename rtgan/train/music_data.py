"""Recordings for the codec's music mode: which are learned from, and what is told of them.

A recording is held out where the corpus holds it out, and of every kind of recordings one in six besides, so that all
are measured: notes, loops, drums, pieces. Notes of an instrument that other notes were learned from are among them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UsageError
from ..kernels import music
from .data import Array, Clip, Corpus

_ONE_IN = 6


def held_out(clips: Sequence[Clip]) -> set[str]:
    """Files that are only measured with.

    A kind is a folder and the letters that names begin with, as in ``loop_1`` and ``loop_2``; who is the only one is
    of the kind of those in his folder who are, too.
    """
    letters = {clip.file: (clip.file.rpartition("/")[0], _first_letters(clip.file)) for clip in clips}
    sizes = Counter(letters.values())
    kinds: dict[tuple[str, str], list[str]] = {}
    for file, kind in letters.items():
        kinds.setdefault(kind if sizes[kind] > 1 else (kind[0], "alone"), []).append(file)
    chosen = {clip.file for clip in clips if clip.held_out}
    for files in kinds.values():
        if len(files) > 1:
            chosen |= set(sorted(files, key=_number)[: -(-len(files) // _ONE_IN)])
    return chosen


def _first_letters(file: str) -> str:
    return "".join(takewhile(str.isalpha, file.rpartition("/")[2]))


def _number(file: str) -> str:
    return hashlib.sha1(f"music {file}".encode()).hexdigest()


def recordings(corpus: Corpus, measured: bool) -> list[Clip]:
    """Music of one side, to be measured with or to be learned from; `UsageError` where there is none."""
    whole = [clip for side in (False, True) for clip in corpus.pool("music", side)]
    apart = held_out(whole)
    clips = [clip for clip in whole if (clip.file in apart) is measured]
    if not clips:
        raise UsageError("There is no music to learn from or to measure with: it belongs in music/.")
    return clips


def read(corpus: Corpus, clip: Clip, start: int, seconds: float) -> Array:
    """So much of a recording from a sample on, at 48 kHz; less where it ends."""
    sound = corpus.read(clip, start, max(1, min(clip.samples - start, round(seconds * clip.sample_rate_hz))))
    if clip.sample_rate_hz != music.RATE_HZ:
        sound = soxr.resample(sound, clip.sample_rate_hz, music.RATE_HZ)
    return np.asarray(sound, np.float32)


class Draw:
    """Pieces by chance: longer recordings more often, by the square root of their length.

    Parameters
    ----------
    corpus : Corpus
    """

    def __init__(self, corpus: Corpus) -> None:
        self.corpus, self.clips = corpus, recordings(corpus, False)
        weights = np.array([clip.samples / clip.sample_rate_hz for clip in self.clips]) ** 0.5
        self._chance = weights / weights.sum()

    def __call__(self, rng: np.random.Generator, seconds: float) -> Array:
        """One piece, as long as that where the recording is."""
        clip = self.clips[int(rng.choice(len(self.clips), p=self._chance))]
        start = int(rng.integers(max(1, clip.samples - round(seconds * clip.sample_rate_hz) + 1)))
        return read(self.corpus, clip, start, seconds)


@dataclass(frozen=True)
class Told:
    """What the codec tells of a piece, and what it leaves to the net.

    Attributes
    ----------
    rows, symbols : ndarray
        Of the arithmetic coder.
    heard : Tensor, (frames, `music.ROW`)
        What the net is shown.
    wanted : Tensor, (frames, `music.BANDS`)
        What it should say; -99 where that does not matter.
    """

    rows: NDArray[np.int64]
    symbols: NDArray[np.int64]
    heard: Tensor
    wanted: Tensor


def told(sound: Array, quality: int, tilt: NDArray[np.int64]) -> Told:
    """Code a piece at a quality."""
    from ..codec import music as player

    analysis = player.Analysis()
    parts = [analysis.push(sound), analysis.end()]
    spectra: Any = np.concatenate([part[0] for part in parts])
    frames = player.told(spectra, np.concatenate([part[1] for part in parts]), quality, tilt)
    heard = np.zeros((len(spectra), music.ROW), np.float32)
    wanted = np.zeros((len(spectra), music.BANDS), np.float32)
    given = frames.kinds, frames.energies, frames.gains, frames.values, quality, tilt
    music.features(*given, heard)
    music.wanted(spectra, *given, wanted)
    return Told(*player.symbols(frames, tilt), torch.from_numpy(heard), torch.from_numpy(wanted))
