"""By how much one sound is later than another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def delay_of(sound: NDArray[np.float32], out: NDArray[np.float32]) -> tuple[int, float]:
    """The lag, in samples from 0, at which two signals are most alike, and how alike they are then, 0 to 1."""
    n = min(len(sound), len(out))
    a: NDArray[Any] = sound[:n].astype(np.float64)
    b: NDArray[Any] = out[:n].astype(np.float64)
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    if not np.isfinite(scale) or scale < 1e-12:
        return 0, 0.0
    cross = np.fft.irfft(np.fft.rfft(b, 2 * n) * np.conj(np.fft.rfft(a, 2 * n)))[:n]
    lag = int(np.abs(cross).argmax())
    return lag, float(abs(cross[lag])) / scale
