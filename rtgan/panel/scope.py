"""What a page draws thirty times a second, from sound that the audio thread writes into shared memory.

One frame is little-endian: for input and output, and each of their channels, peak and level as float32 in dBFS; then
two spectra of the input and two of the output, one byte a band, 0 for -95 dBFS or less and 255 for full scale.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

BANDS = 160
#: Spectra of each side in a frame.
COLUMNS = 2
LOWEST_HZ, HIGHEST_HZ = 40.0, 20000.0
_FLOOR_DB = -95.0
_SILENT_DB = -120.0
_WINDOW_S = 0.043
_LEVEL_S = 0.3


def edges_hz(sample_rate_hz: float) -> NDArray[np.float64]:
    """Centres of the bands, even in ratio, (BANDS,)."""
    return np.geomspace(LOWEST_HZ, min(HIGHEST_HZ, 0.49 * sample_rate_hz), BANDS)


def bank(sample_rate_hz: float, size: int) -> NDArray[np.float32]:
    """Weights that take the power of ``size // 2 + 1`` bins to bands, (BANDS, bins).

    A band is a triangle between its neighbours' centres and never narrower than a bin, so that a sine of full scale
    reaches 1 in its own band.
    """
    centres = edges_hz(sample_rate_hz) * size / sample_rate_hz
    ratio = centres[1] / centres[0]
    bins = np.arange(size // 2 + 1)
    wide = np.maximum(centres * (ratio - 1.0), 1.0)
    away = np.abs(bins[None, :] - centres[:, None]) / wide[:, None]
    return np.asarray(np.maximum(0.0, 1.0 - away), np.float32)


class Scope:
    """Reads the newest sound and makes frames of it.

    Parameters
    ----------
    fd : int
        The shared memory.
    layout : mapping
        ``frames`` it holds, ``channels`` of each side, ``written_word`` and ``first_word`` of its 64-bit words.
    sample_rate_hz : int
    """

    def __init__(self, fd: int, layout: Mapping[str, int], sample_rate_hz: int) -> None:
        pages = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        self._words = np.frombuffer(pages, np.int64)
        self._written = layout["written_word"]
        self._frames, self._channels = layout["frames"], layout["channels"]
        width = 2 * self._channels
        self._ring = np.frombuffer(pages, np.float32, self._frames * width, 8 * layout["first_word"])
        self._ring = self._ring.reshape(self._frames, width)
        self._rate = sample_rate_hz
        self._size = 1 << round(math.log2(_WINDOW_S * sample_rate_hz))
        window = np.hanning(self._size + 1)[:-1]
        self._window = (window * 2.0 / window.sum()).astype(np.float32)
        self._bank = bank(sample_rate_hz, self._size)
        self._seen = int(self._words[self._written])
        self._power = np.zeros(width)

    def _newest(self, at: int, count: int) -> NDArray[np.float32] | None:
        """The ``count`` frames before ``at``, (count, width); None if they have been written over meanwhile."""
        if at < count:
            return None
        found = self._ring[np.arange(at - count, at) & (self._frames - 1)]
        # The audio thread may be within a piece of a few thousand frames of what has been copied.
        if int(self._words[self._written]) - (at - count) > self._frames - 4096:
            return None
        return np.asarray(found)

    def frame(self) -> bytes:
        """What has sounded since the last frame."""
        at = int(self._words[self._written])
        fresh = min(at - self._seen, self._frames // 4)
        self._seen = at
        sound = self._newest(at, fresh + self._size)
        if fresh <= 0 or sound is None:
            self._power[:] = 0.0
            silence = np.full(2 * len(self._power), _SILENT_DB, "<f4")
            return silence.tobytes() + bytes(2 * COLUMNS * BANDS)
        now = sound[-fresh:].astype(np.float64)
        peaks = np.abs(now).max(axis=0)
        keep = math.exp(-fresh / (_LEVEL_S * self._rate))
        self._power = keep * self._power + (1.0 - keep) * (now * now).mean(axis=0)
        levels = np.empty((len(peaks), 2))
        levels[:, 0] = 20.0 * np.log10(np.maximum(peaks, 1e-6))
        levels[:, 1] = 10.0 * np.log10(np.maximum(self._power, 1e-12))
        return levels.astype("<f4").tobytes() + self._spectra(sound, fresh).tobytes()

    def _spectra(self, sound: NDArray[np.float32], fresh: int) -> NDArray[np.uint8]:
        """(2 * COLUMNS, BANDS): the input's spectra in their order, then the output's."""
        channels = self._channels
        sides = np.stack([sound[:, :channels].mean(axis=1), sound[:, channels:].mean(axis=1)])
        ends = [len(sound) - fresh + fresh * (k + 1) // COLUMNS for k in range(COLUMNS)]
        pieces = np.stack([sides[:, end - self._size : end] for end in ends], axis=1)
        spectrum = np.fft.rfft(pieces * self._window)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32).reshape(2 * COLUMNS, -1)
        db = 10.0 * np.log10(np.maximum(power @ self._bank.T, 1e-12))
        return np.asarray(np.clip((db / -_FLOOR_DB + 1.0) * 255.0, 0, 255), np.uint8)
