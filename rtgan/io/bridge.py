"""Input and output on different devices: two native callbacks, a ring, and a resampler that holds the clocks together.

Each device keeps its own time. The input's callback writes frames into the ring, the output's callback takes
them out and runs the engine on them. The two clocks differ by some hundred parts per million and wander; a slow loop
(Adriaensen, "Controlling adaptive resampling", Linux Audio Conference 2012) sets the speed at which the input is
read so that what waits in the ring stays what it is meant to be. What waits is known to the sample between the
input's callbacks too, from the processor's counter. What the loop cannot follow is a slip, and counted: where too much
waits, because the output's side was stopped for a while, the surplus is left out by a fade within a second, so that the
delay never creeps; where nothing waits any more it starts again from the intended fill.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from rtgan.engine import TickRate
from rtgan.kernels import rings, varispeed
from rtgan.kernels.native import (
    NODES,
    call_stream,
    cfunc,
    exchange,
    f32p,
    f64p,
    i64p,
    inline,
    larger,
    load_acquire,
    smaller,
    store_release,
    ticks,
)
from rtgan.memory import Arena, address_of

# What both sides use.
B_RING, B_ENGINE, B_CALLBACK, B_SCRATCH, B_RESAMPLER, B_WIDTH, B_OUT_WIDTH, B_CLOCK = range(8)
# Float words: ticks in a sample, seconds in a sample.
F_TICKS, F_SECONDS = 8, 9
# The input's: even while the two behind it belong together, frames so far, the counter then; frames of a block.
B_SEQUENCE, B_IN_FRAMES, B_IN_TICKS, B_IN_BLOCK = range(16, 20)
# The output's: whether it reads, slips, frames taken out of the ring, frames that are to wait there.
B_FLOWS, B_SLIPS, B_READ, B_FILL = range(24, 28)
# Float words, the output's: smoothed surplus in frames, what the loop has learnt of the clocks, the speed now.
F_SURPLUS, F_LEARNT, F_SPEED = 28, 29, 30
# The surplus as of the last moments, in frames.
F_LATELY = 31
_WORDS = 32

_PIECE = 1024
_SCRATCH_FRAMES = 4096
_RING_FRAMES = 1 << 17
#: Natural frequency and smoothing of the loop in Hz, and the most that it may pull, which is 0.9 cents.
_LOOP_HZ, _SMOOTHING_HZ, _MOST = 0.012, 0.1, 500e-6

#: How long it takes to believe in a surplus, the least that is one, the fade by which it goes, in seconds.
_LATELY_S, _CREEP_S, _FADE_S = 0.2, 0.003, 0.005

_STREAM = types.int32(types.int64, types.int64, types.int64, types.int64, types.int64, types.int64)


@inline
def _now(bridge: Any) -> Any:
    clock = i64p(bridge)[B_CLOCK]
    return ticks() if clock == 0 else i64p(clock)[0]


@inline
def _meet(bridge: Any, frames: Any) -> None:
    """What is to wait grows to twice the largest block, and what the resampler looks ahead."""
    w = i64p(bridge)
    w[B_FILL] = larger(w[B_FILL], 2 * larger(w[B_IN_BLOCK], frames) + varispeed.AHEAD + 2)


@cfunc(_STREAM, cache=True, error_model="numpy", boundscheck=False)
def take(source: int, target: int, frames: int, time_info: int, flags: int, bridge: int) -> int:
    """[audio, input device] ``PaStreamCallback``: frames into the ring."""
    w = i64p(bridge)
    if source == 0:
        return 0
    w[B_IN_BLOCK] = larger(w[B_IN_BLOCK], frames)
    written = rings.ring_write(w[B_RING], source, frames)
    sequence = w[B_SEQUENCE]
    exchange(bridge + 8 * B_SEQUENCE, sequence + 1)
    w[B_IN_FRAMES] += written
    w[B_IN_TICKS] = _now(bridge)
    store_release(bridge + 8 * B_SEQUENCE, sequence + 2)
    return 0


@inline
def _waiting(bridge: Any) -> Any:
    """Frames that the input device has heard and nothing was made of; below zero if that cannot be known now."""
    w = i64p(bridge)
    f = f64p(bridge)
    before = load_acquire(bridge + 8 * B_SEQUENCE)
    frames = load_acquire(bridge + 8 * B_IN_FRAMES)
    at = load_acquire(bridge + 8 * B_IN_TICKS)
    if before & 1 or load_acquire(bridge + 8 * B_SEQUENCE) != before:
        return -1.0
    since = 0.0
    if f[F_TICKS] > 0.0:
        # A device that has stopped hears no more than its next block.
        since = smaller(larger((_now(bridge) - at) / f[F_TICKS], 0.0), 2.0 * w[B_IN_BLOCK])
    r = i64p(w[B_RESAMPLER])
    ahead = r[varispeed.WRITTEN] - r[varispeed.WHOLE] - f64p(w[B_RESAMPLER])[varispeed.FRACTION]
    return frames - w[B_READ] + since + ahead


@inline
def _let_go(bridge: Any, frames: Any) -> None:
    """Read frames that nothing is made of."""
    w = i64p(bridge)
    left = smaller(frames, rings.ring_ready(w[B_RING]))
    while left > 0:
        count = rings.ring_read(w[B_RING], w[B_SCRATCH], smaller(left, _SCRATCH_FRAMES))
        w[B_READ] += count
        left -= count


@inline
def _mend(bridge: Any, surplus: Any, frames: Any) -> None:
    """Leave out what came to wait at once, as soon as it is known to stay."""
    w = i64p(bridge)
    f = f64p(bridge)
    f[F_LATELY] += smaller(1.0, frames * f[F_SECONDS] / _LATELY_S) * (surplus - f[F_LATELY])
    least = _CREEP_S / f[F_SECONDS]
    stays = f[F_LATELY] > least and abs(surplus - f[F_LATELY]) < 0.3 * least
    if not stays and surplus <= 2 * w[B_FILL]:
        return
    fade = np.int64(_FADE_S / f[F_SECONDS])
    count = smaller(np.int64(surplus), rings.ring_ready(w[B_RING]) - fade)
    if count <= 0:
        return
    rings.ring_skip(w[B_RING], count, fade)
    w[B_READ] += count
    w[B_SLIPS] += 1
    f[F_LATELY] = 0.0
    f[F_SURPLUS] = 0.0


@inline
def _follow(bridge: Any, surplus: Any, seconds: Any) -> None:
    """Set the speed by how much more waits than is meant to, in frames; ``seconds`` since the last time."""
    f = f64p(bridge)
    smoothing = smaller(1.0, 2 * math.pi * _SMOOTHING_HZ * seconds)
    f[F_SURPLUS] += smoothing * (surplus - f[F_SURPLUS])
    turn = 2 * math.pi * _LOOP_HZ
    learnt = f[F_LEARNT] + turn * turn * f[F_SECONDS] * f[F_SURPLUS] * seconds
    f[F_LEARNT] = smaller(larger(learnt, -_MOST), _MOST)
    pull = f[F_LEARNT] + 2 * turn * f[F_SECONDS] * f[F_SURPLUS]
    f[F_SPEED] = 1.0 + smaller(larger(pull, -_MOST), _MOST)


@cfunc(_STREAM, cache=True, error_model="numpy", boundscheck=False)
def give(source: int, target: int, frames: int, time_info: int, flags: int, bridge: int) -> int:
    """[audio, output device] ``PaStreamCallback``: frames out of the ring, through the engine, to the device."""
    w = i64p(bridge)
    f = f64p(bridge)
    _meet(bridge, frames)
    meant = w[B_FILL] + frames
    if w[B_FLOWS] == 0 and rings.ring_ready(w[B_RING]) >= meant:
        varispeed.reset(w[B_RESAMPLER])
        w[B_FLOWS] = 1
        f[F_SURPLUS] = 0.0
        f[F_LATELY] = 0.0
        _let_go(bridge, np.int64(larger(_waiting(bridge) - meant, 0.0)))
    elif w[B_FLOWS] != 0:
        surplus = _waiting(bridge) - meant
        if surplus >= -meant:
            _follow(bridge, surplus, frames * f[F_SECONDS])
            _mend(bridge, surplus, frames)
    done = 0
    while done < frames:
        n = smaller(frames - done, _PIECE)
        made = w[B_SCRATCH] + 4 * w[B_WIDTH] * (_SCRATCH_FRAMES - _PIECE)
        need = varispeed.wanted(w[B_RESAMPLER], f[F_SPEED], n)
        if w[B_FLOWS] != 0 and rings.ring_ready(w[B_RING]) < need:
            w[B_FLOWS] = 0
            w[B_SLIPS] += 1
        if w[B_FLOWS] != 0:
            rings.ring_read(w[B_RING], w[B_SCRATCH], need)
            w[B_READ] += need
            varispeed.push(w[B_RESAMPLER], w[B_SCRATCH], w[B_WIDTH], need)
            varispeed.pull(w[B_RESAMPLER], made, w[B_WIDTH], f[F_SPEED], n)
        else:
            silent = f32p(made)
            for i in range(n * w[B_WIDTH]):
                silent[i] = 0.0
        call_stream(w[B_CALLBACK], made, target + 4 * done * w[B_OUT_WIDTH], n, time_info, flags, w[B_ENGINE])
        done += n
    return 0


NODES[f"{__name__}.take"] = take
NODES[f"{__name__}.give"] = give


class Bridge:
    """The memory between two device callbacks [main].

    Parameters
    ----------
    engine_callback, engine : int
        Addresses.
    in_width, out_width : int
        Channels per frame of the two devices.
    sample_rate_hz : int
        The rate that both devices say they have.
    fill : int
        Frames that wait in the ring on purpose, to begin with; it grows to twice the largest block that either
        device turns out to use.
    clock : int
        Address of an int64 with the time in samples, in the place of the processor's counter.
    """

    def __init__(
        self,
        engine_callback: int,
        engine: int,
        in_width: int,
        out_width: int,
        sample_rate_hz: int,
        fill: int,
        clock: int = 0,
    ) -> None:
        self.arena = Arena()
        self._ring = rings.build(_RING_FRAMES, in_width, allocate=self.arena.int64)
        self._resampler = resampler = varispeed.build(in_width, _PIECE, allocate=self.arena.int64)
        words = self.arena.int64(_WORDS)
        words[B_RING], words[B_RESAMPLER] = self._ring.address, resampler.address
        words[B_ENGINE], words[B_CALLBACK] = engine, engine_callback
        words[B_SCRATCH] = address_of(self.arena.float32(_SCRATCH_FRAMES, in_width))
        words[B_WIDTH], words[B_OUT_WIDTH], words[B_FILL] = in_width, out_width, fill
        words[B_CLOCK] = clock
        self._floats = words.view(np.float64)
        self._floats[F_SPEED] = 1.0
        self._floats[F_SECONDS] = 1 / sample_rate_hz
        self._floats[F_TICKS] = 1.0 if clock else TickRate().per_second() / sample_rate_hz
        self._words: Any = words
        self.address = address_of(words)
        self.take_address, self.give_address = int(take.address), int(give.address)

    @property
    def fill(self) -> int:
        """Frames that wait in the ring on purpose."""
        return int(self._words[B_FILL])

    @property
    def waiting(self) -> float:
        """Frames that wait now, in the ring and in the resampler."""
        resampler = self._resampler.memory
        ahead = resampler[varispeed.WRITTEN] - resampler[varispeed.WHOLE]
        return float(self._words[B_IN_FRAMES] - self._words[B_READ] + ahead)

    @property
    def speed(self) -> float:
        """Input frames that an output frame is made of, by which the clocks differ."""
        return float(self._floats[F_SPEED])

    @property
    def slips(self) -> int:
        """How often the two clocks had to be brought together by force."""
        return int(self._words[B_SLIPS]) + int(self._ring.overruns > 0)
