"""The pitch of a voice while it sounds: a tracker that hears sample by sample and answers every few milliseconds.

The cumulative mean normalised difference of de Cheveigné and Kawahara ("YIN", JASA, 2002) on the sound at about 12 kHz,
where voices lie; its first deep dip is the period. The period is then measured again over as many periods as the span
holds, which brings the parabola's error below a cent or two. The middle of three answers is given, so that one that is
wrong by an octave is not heard.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from .fft import Allocate, aligned
from .native import f32p, f64p, i64p, inline, inline_fast, kernel, smaller

#: Samples at the lower rate between answers, compared at a time, and the longest period.
STEP, WINDOW, LONGEST = 32, 256, 192
_SPAN = WINDOW + LONGEST + 2
_SHORTEST = 10
_RATE_HZ = 12000.0
_CUTOFF_HZ = 2000.0
#: A dip below the first is a period at once; below the second the deepest is one.
_DEEP, _SHALLOW = 0.12, 0.3

# Words of a tracker: every so manieth sample is kept, which of them this is, how many since the last answer.
_EVERY, _TURN, _COUNT = range(3)
#: Float words for others: pitch in Hz (0: no voice), how clear it is (0..1), level of the last step in dB.
HERTZ, CLEARNESS, LEVEL_DB = 8, 9, 10
_POWER, _KEPT_HZ, _LAST, _BEFORE = 11, 12, 13, 14
_FILTER = 16  # two sections of five coefficients and two states each
_SOUND = 32
_DIPS = _SOUND + (_SPAN + 1) // 2
WORDS = _DIPS + LONGEST // 2 + 2


@inline_fast
def _difference(sound: Any, lag: Any) -> Any:
    """Sum of squared differences of the newest samples and those a lag earlier."""
    x = f32p(sound)
    total = np.float32(0.0)
    start = _SPAN - WINDOW
    for i in range(WINDOW):
        step = x[start + i] - x[start + i - lag]
        total += step * step
    return np.float64(total)


@inline
def _valley(sound: Any, lag: Any) -> Any:
    """Where the parabola through the differences at a lag and its neighbours is lowest."""
    a = _difference(sound, lag - 1)
    b = _difference(sound, lag)
    c = _difference(sound, lag + 1)
    bend = a - 2.0 * b + c
    if bend <= 0.0 or b > a or b > c:
        return -1.0
    return lag + 0.5 * (a - c) / bend


@inline
def _answer(tracker: Any) -> None:
    f = f64p(tracker)
    sound = tracker + 8 * _SOUND
    dips = f32p(tracker + 8 * _DIPS)
    total = 1e-12
    best = 0
    found = 0
    for lag in range(1, LONGEST + 1):
        value = _difference(sound, lag)
        total += value
        dips[lag] = np.float32(value * lag / total)
        if lag > _SHORTEST and (best == 0 or dips[lag] < dips[best]):
            best = lag
    lag = _SHORTEST
    while lag < LONGEST - 1 and found == 0:
        if dips[lag] < np.float32(_DEEP) and dips[lag + 1] >= dips[lag]:
            found = lag
        lag += 1
    if found == 0 and best < LONGEST and dips[best] < np.float32(_SHALLOW):
        found = best
    hertz = 0.0
    f[CLEARNESS] = 0.0
    if found > 0:
        # The dip of the normalised difference may lie a sample beside that of the difference.
        period = _valley(sound, found)
        if period < 0.0:
            period = _valley(sound, found - 1)
        if period < 0.0:
            period = _valley(sound, found + 1)
        if period > 0.0:
            many = 2
            while many * period + 2.0 < LONGEST:
                far = _valley(sound, np.int64(many * period + 0.5))
                if far < 0.0:
                    break
                period = far / many
                many += 1
            hertz = f[_KEPT_HZ] / period
            f[CLEARNESS] = 1.0 - np.float64(dips[found])
    # The middle of three: a single answer that is far off, or none, does not count.
    a = f[_BEFORE]
    b = f[_LAST]
    f[HERTZ] = a + b + hertz - smaller(a, smaller(b, hertz)) + smaller(-a, smaller(-b, -hertz))
    f[_BEFORE] = b
    f[_LAST] = hertz


@inline
def pitch_hear(tracker: Any, sample: Any) -> Any:
    """[audio] Take the next sample; whether there is a new answer."""
    w = i64p(tracker)
    f = f64p(tracker)
    f[_POWER] += sample * sample
    value = sample
    for section in range(2):
        at = _FILTER + 7 * section
        out = f[at] * value + f[at + 5]
        f[at + 5] = f[at + 1] * value - f[at + 3] * out + f[at + 6]
        f[at + 6] = f[at + 2] * value - f[at + 4] * out
        value = out
    w[_TURN] += 1
    if w[_TURN] < w[_EVERY]:
        return False
    w[_TURN] = 0
    x = f32p(tracker + 8 * _SOUND)
    place = _SPAN - STEP + w[_COUNT]
    x[place] = np.float32(value)
    w[_COUNT] += 1
    if w[_COUNT] < STEP:
        return False
    w[_COUNT] = 0
    f[LEVEL_DB] = 10.0 * math.log(f[_POWER] / (STEP * w[_EVERY]) + 1e-12) / math.log(10.0)
    f[_POWER] = 0.0
    _answer(tracker)
    for i in range(_SPAN - STEP):
        x[i] = x[i + STEP]
    return True


@inline
def pitch_reset(tracker: Any) -> None:
    """[audio] Forget everything heard."""
    w = i64p(tracker)
    f = f64p(tracker)
    w[_TURN] = 0
    w[_COUNT] = 0
    for k in (HERTZ, CLEARNESS, LEVEL_DB, _POWER, _LAST, _BEFORE):
        f[k] = 0.0
    f[LEVEL_DB] = -120.0
    for section in range(2):
        f[_FILTER + 7 * section + 5] = 0.0
        f[_FILTER + 7 * section + 6] = 0.0
    x = f32p(tracker + 8 * _SOUND)
    for i in range(_SPAN):
        x[i] = 0.0


_I = types.int64


@kernel(types.int64(_I, _I, _I, _I))
def _track(tracker: Any, samples: Any, answers: Any, n: Any) -> Any:
    x = f32p(samples)
    out = f64p(answers)
    count = 0
    for i in range(n):
        if pitch_hear(tracker, np.float64(x[i])):
            out[3 * count] = f64p(tracker)[HERTZ]
            out[3 * count + 1] = f64p(tracker)[CLEARNESS]
            out[3 * count + 2] = f64p(tracker)[LEVEL_DB]
            count += 1
    return count


def build(sample_rate_hz: int, *, allocate: Allocate = aligned) -> NDArray[np.int64]:
    """State of a tracker, an int64 block; keep it alive as long as its address is used.

    Raises
    ------
    ValueError
        Below 8 kHz, where voices do not fit.
    """
    if sample_rate_hz < 8000:
        raise ValueError(f"a pitch tracker needs 8000 Hz, not {sample_rate_hz}")
    memory = allocate(WORDS)
    floats = memory.view(np.float64)
    memory[_EVERY] = max(1, round(sample_rate_hz / _RATE_HZ))
    floats[_KEPT_HZ] = sample_rate_hz / memory[_EVERY]
    floats[LEVEL_DB] = -120.0
    # A Butterworth low-pass of the fourth order (Bristow-Johnson's sections).
    w = 2 * math.pi * _CUTOFF_HZ / sample_rate_hz
    for section, q in enumerate((0.54119610, 1.3065630)):
        alpha = math.sin(w) / (2 * q)
        b = (1 - math.cos(w)) / (2 * (1 + alpha))
        at = _FILTER + 7 * section
        floats[at : at + 5] = b, 2 * b, b, -2 * math.cos(w) / (1 + alpha), (1 - alpha) / (1 + alpha)
    return memory


def step_samples(sample_rate_hz: int) -> int:
    """Samples between two answers."""
    return STEP * max(1, round(sample_rate_hz / _RATE_HZ))


def track(samples: NDArray[np.float32], sample_rate_hz: int) -> NDArray[np.float64]:
    """Pitch in Hz (0: none), clearness and level in dB, ``(steps, 3)``, of a whole sound."""
    memory = build(sample_rate_hz)
    sound = np.ascontiguousarray(samples, np.float32)
    answers = np.zeros((len(sound) // step_samples(sample_rate_hz) + 1, 3))
    count = _track(memory.ctypes.data, sound.ctypes.data, answers.ctypes.data, len(sound))
    return answers[:count]
