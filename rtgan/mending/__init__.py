"""What is done to a whole recording before it is played: damage is mended with what comes before it and behind it.

Gaps are filled from both sides (`gaps`), clicks are taken out (`clicks`), clipped tops are restored (`clipping`).
What nothing is found in comes back bit for bit. Offline only; the plugin `repair` is its live counterpart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtgan.errors import UsageError

from . import clicks, clipping, gaps

#: What can be mended.
DAMAGE = ("gaps", "clicks", "clipping")
#: Highest peak that restored tops are lowered to.
_PEAK = 0.98


@dataclass(frozen=True)
class Report:
    """What was mended in all channels: gaps, seconds in them, clicks, clipped samples, and the gain that was needed."""

    gaps: int = 0
    filled_s: float = 0.0
    clicks: int = 0
    clipped: int = 0
    gain_db: float = 0.0

    def __str__(self) -> str:
        parts = []
        if self.gaps:
            parts.append(f"{self.gaps} gap{'s' * (self.gaps > 1)} ({1000 * self.filled_s:.0f} ms)")
        if self.clicks:
            parts.append(f"{self.clicks} click{'s' * (self.clicks > 1)}")
        if self.clipped:
            parts.append(f"{self.clipped} clipped sample{'s' * (self.clipped > 1)}")
        softer = f"; {-self.gain_db:.1f} dB softer, so that the restored peaks fit" if self.gain_db else ""
        return (", ".join(parts) or "nothing to mend") + softer


def parse(text: str) -> tuple[str, ...]:
    """What to mend, as the command line says it: some of `DAMAGE` with commas between, or ``none``."""
    words = [] if text.strip() == "none" else [word.strip() for word in text.split(",")]
    for word in words:
        if word not in DAMAGE:
            raise UsageError(f"'{word}' cannot be mended; --mend takes {', '.join(DAMAGE)} (commas between), or none")
    return tuple(word for word in DAMAGE if word in words)


def mend(
    samples: NDArray[np.float32],
    rate_hz: int,
    what: Sequence[str] = DAMAGE,
    marked: Sequence[tuple[float, float, str]] = (),
    progress: Callable[[str], Any] = lambda task: None,
) -> tuple[NDArray[np.float32], Report]:
    """Mend a recording; each channel by itself, but for the gain that restored tops need.

    Parameters
    ----------
    samples : ndarray of float32, (channels, samples)
    rate_hz : int
    what : sequence of str
        Some of `DAMAGE`.
    marked : sequence of (float, float, str)
        Gaps in all channels, see `gaps.read_list`.
    progress : callable
        Told what begins.

    Returns
    -------
    ndarray of float32, (channels, samples)
    Report
    """
    out = np.ascontiguousarray(samples, np.float32).copy()
    count = out.shape[1]
    own = gaps.placed(list(marked), rate_hz, count)
    holes = [gaps.merged(own + (gaps.detected(x, rate_hz) if "gaps" in what else [])) for x in out]
    clipped = found = 0
    gain = 1.0
    made = np.zeros(out.shape, bool)
    if "clipping" in what:
        progress("clipping")
        for x, restored in zip(out, made, strict=True):
            above, below = clipping.cut_off(x)
            restored |= above | below
            clipped += int(above.sum() + below.sum())
            if above.any() or below.any():
                x[:] = clipping.restored(x, above, below, rate_hz)
        peak = float(np.abs(out).max(initial=0.0))
        if clipped and peak > _PEAK:
            gain = _PEAK / peak
            out *= np.float32(gain)
    if any(holes):
        progress("gaps")
        for x, spans, filled in zip(out, holes, made, strict=True):
            if spans:
                x[:] = gaps.filled(x, spans, rate_hz)
            for begin, end in spans:
                filled[begin:end] = True
    if "clicks" in what:
        progress("clicks")
        for x, filled in zip(out, made, strict=True):
            x[:], number = clicks.removed(x, rate_hz, filled)
            found += number
    seconds = sum(end - begin for spans in holes for begin, end in spans) / rate_hz
    return out, Report(sum(map(len, holes)), seconds, found, clipped, round(20 * float(np.log10(gain)), 2))
