"""Streaming resampler between any two rates with a small ratio, and the exact way there and back.

Each output sample is one dot product of the input with a windowed sinc (Kaiser window; Smith, "Digital Audio
Resampling", 2002; polyphase form of Crochiere and Rabiner, 1983). Output ``k`` is interpolated at the input
position ``(k step + offset) / phases``, integers all, so that nothing drifts and a delay can be any multiple
of ``1/phases`` input samples. Every output is computed by the same instructions whatever the block size.

Use inside a node, on raw addresses::

    push(state, source, stride, n)                     # n input samples of each channel
    count = pull(state, target, stride, limit)         # as many outputs as there are, at most limit
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import gcd
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from .fft import Allocate, aligned
from .native import f32p, i64p, inline, kernel
from .vector import LANES, Vectors, emitted

Floats = NDArray[np.float32]

# Words of the state.
#: Channels; number of fractional positions; steps per output, whole and in phases.
CHANNELS, PHASES, STEP_WHOLE, STEP_PHASE = 0, 1, 2, 3
#: Taps per phase (a multiple of 16) and address of the table; samples needed after a position.
TAPS, TABLE, AHEAD = 4, 5, 6
#: Address of the first channel's history, samples in it (a power of two, kept twice), bytes to the next.
HISTORY, LENGTH, HISTORY_STRIDE = 7, 8, 9
#: Inputs so far; position of the next output, whole and in phases; where they start after a reset.
WRITTEN, WHOLE, PHASE, START_WHOLE, START_PHASE = 10, 11, 12, 13, 14
_HEADER = 16

_STEP = 2 * LANES
_MOST_ARRIVALS = 1 << 20
#: Attenuation in the stop band in dB, and what is left between pass band and stop band, in lower rates.
ATTENUATION_DB = 110.0
PASS_EDGE, STOP_EDGE = 0.45, 0.55
#: The same of the short filter, which is made for little delay: 8 samples of the lower rate on either side.
SHORT_DB, SHORT_SAMPLES = 60.0, 8


@emitted(4)
def dot(v: Vectors, x: Any, taps: Any, count: Any, target: Any) -> None:
    """Dot product of ``count`` numbers, a multiple of 16, to one float32."""
    builder = v.builder
    sums = [builder.alloca(v.constant(0).type) for _ in range(2)]
    for total in sums:
        builder.store(v.constant(0), total)
    with v.loop(v.word(0), count, v.word(_STEP)) as i:
        for part, total in enumerate(sums):
            at = builder.add(i, v.word(part * LANES))
            product = v.mul(v.load(x, at), v.load(taps, at))
            builder.store(v.add(builder.load(total), product), total)
    folded = v.add(builder.load(sums[0]), builder.load(sums[1]))
    for width in (4, 2, 1):
        folded = v.add(folded, v.shuffle(folded, folded, [(i + width) % LANES for i in range(LANES)]))
    result = builder.extract_element(folded, ir.Constant(ir.IntType(32), 0))
    builder.store(result, v.pointer(target, v.word(0)), align=4)


@inline
def reset(state: int) -> None:
    """Forget everything heard."""
    s = i64p(state)
    s[WRITTEN] = 0
    s[WHOLE] = s[START_WHOLE]
    s[PHASE] = s[START_PHASE]
    history = f32p(s[HISTORY])
    for i in range(s[CHANNELS] * s[HISTORY_STRIDE] // 4):
        history[i] = 0.0


@inline
def push(state: int, source: int, stride: int, n: int) -> None:
    """Take ``n`` samples of each channel, at most the ``max_push`` of `build`, from ``source`` (channels, stride)."""
    s = i64p(state)
    length = s[LENGTH]
    written = s[WRITTEN]
    for channel in range(s[CHANNELS]):
        samples = f32p(source + 4 * channel * stride)
        history = f32p(s[HISTORY] + channel * s[HISTORY_STRIDE])
        for i in range(n):
            at = (written + i) & (length - 1)
            history[at] = samples[i]
            history[at + length] = samples[i]
    s[WRITTEN] = written + n


@inline
def pull(state: int, target: int, stride: int, limit: int) -> int:
    """Write the outputs there are, at most ``limit`` of each channel, to ``target`` (channels, stride); count them.

    What is not pulled stays; between pushes at most ``max_pending`` input samples may wait.
    """
    s = i64p(state)
    mask = s[LENGTH] - 1
    taps = s[TAPS]
    ahead = s[AHEAD]
    whole, phase = s[WHOLE], s[PHASE]
    count = 0
    while count < limit and whole + ahead < s[WRITTEN]:
        oldest = 4 * ((whole + ahead + 1 - taps) & mask)
        table = s[TABLE] + 4 * taps * phase
        for channel in range(s[CHANNELS]):
            history = s[HISTORY] + channel * s[HISTORY_STRIDE]
            dot(history + oldest, table, taps, target + 4 * (channel * stride + count))
        count += 1
        whole += s[STEP_WHOLE]
        phase += s[STEP_PHASE]
        if phase >= s[PHASES]:
            phase -= s[PHASES]
            whole += 1
    s[WHOLE] = whole
    s[PHASE] = phase
    return count


@cache
def _filter(in_rate_hz: int, out_rate_hz: int, short: bool) -> tuple[int, Floats]:
    """Design the filter: samples needed after a position, and taps (phases, taps), oldest input first."""
    phases = out_rate_hz // gcd(in_rate_hz, out_rate_hz)
    cutoff = min(1.0, out_rate_hz / in_rate_hz)
    attenuation = SHORT_DB if short else ATTENUATION_DB
    half = (SHORT_SAMPLES if short else (attenuation - 7.95) / (14.36 * (STOP_EDGE - PASS_EDGE)) / 2) / cutoff
    ahead = int(np.ceil(half))
    taps = -(-2 * ahead // _STEP) * _STEP
    # Distance of each input from the position: from ahead + 1 - taps to ahead, less the phase.
    distance = np.arange(ahead + 1 - taps, ahead + 1) - np.arange(phases)[:, None] / phases
    inside = np.sqrt(np.maximum(1 - (distance / half) ** 2, 0))
    beta = 0.1102 * (attenuation - 8.7)
    table = np.where(np.abs(distance) < half, np.sinc(cutoff * distance) * np.i0(beta * inside), 0.0)
    table /= table.sum(axis=1, keepdims=True)
    return ahead, table.astype(np.float32)


@dataclass(frozen=True)
class Resampler:
    """A resampler that is ready to run; keep it alive as long as a node uses `address`.

    Attributes
    ----------
    memory
        The state, an int64 block (see the constants of this module) with all buffers behind it.
    in_rate_hz, out_rate_hz, channels, max_push
        As given to `build`.
    ahead_samples
        Input samples after a position that its output waits for.
    """

    memory: NDArray[np.int64]
    in_rate_hz: int
    out_rate_hz: int
    channels: int
    max_push: int
    ahead_samples: int

    @property
    def address(self) -> int:
        """Address of the state, the first argument of `push` and `pull`."""
        return int(self.memory.ctypes.data)

    def process(self, x: Floats) -> Floats:
        """Resample the next samples of a stream.

        Parameters
        ----------
        x
            Float32 of shape (channels, samples), any number of samples.

        Returns
        -------
        numpy.ndarray
            The outputs that have become available, (channels, any number).
        """
        if x.ndim != 2 or x.shape[0] != self.channels:
            raise ValueError(f"the signal has shape {x.shape} but must have ({self.channels}, samples)")
        room = x.shape[1] * self.out_rate_hz // self.in_rate_hz + 2
        out = np.empty((self.channels, room + int(max(0, -self.memory[START_WHOLE]))), np.float32)
        count = _process(self.memory, np.ascontiguousarray(x, np.float32), out, self.max_push)
        return out[:, :count]


@kernel(types.int64(types.int64[::1], types.float32[:, ::1], types.float32[:, ::1], types.int64))
def _process(memory: Any, x: Any, out: Any, max_push: int) -> int:
    done = 0
    count = 0
    while done < x.shape[1]:
        n = min(max_push, x.shape[1] - done)
        push(memory.ctypes.data, x.ctypes.data + 4 * done, x.shape[1], n)
        count += pull(memory.ctypes.data, out.ctypes.data + 4 * count, out.shape[1], out.shape[1] - count)
        done += n
    return count


@kernel(types.void(types.int64[::1]))
def _reset(memory: Any) -> None:
    reset(memory.ctypes.data)


def build(
    in_rate_hz: int,
    out_rate_hz: int,
    channels: int,
    max_push: int,
    *,
    offset: int = 0,
    max_pending: int = 0,
    short: bool = False,
    allocate: Allocate = aligned,
) -> Resampler:
    """Lay out and fill the state of a resampler.

    The pass band reaches 0.45 of the lower rate; from 0.55 of it on at least 100 dB are taken away. With ``short`` it
    is 0.38, 0.62 and 55 dB, for a fourth of the delay.

    Parameters
    ----------
    in_rate_hz, out_rate_hz
        The two rates in Hz; ``out_rate_hz / gcd`` is the number of phases, at most 1024.
    channels
        Channels, resampled alike.
    max_push
        Most samples pushed at once.
    offset
        Position of the first output, in ``1/phases`` input samples; below 0 there is silence.
    max_pending
        Most samples that may wait when a push begins, beyond what the next output still needs.
    short
        Whether little delay counts for more than the highest frequencies.
    allocate
        Source of zeroed int64 memory that starts at a multiple of 64 bytes, given the number of words.

    Returns
    -------
    Resampler
        The state, reset.

    Raises
    ------
    ValueError
        When the rates have no small ratio or a count is not positive.
    """
    if min(in_rate_hz, out_rate_hz, channels, max_push) < 1 or max_pending < 0:
        raise ValueError("rates, channels and block sizes of a resampler must be positive")
    common = gcd(in_rate_hz, out_rate_hz)
    phases, step = out_rate_hz // common, in_rate_hz // common
    if max(phases, step) > 1024:
        raise ValueError(f"the ratio of {in_rate_hz} Hz to {out_rate_hz} Hz has terms above 1024")
    ahead, table = _filter(in_rate_hz, out_rate_hz, short)
    taps = table.shape[1]
    length = 1 << (max_push + max_pending + taps + step // phases + 1).bit_length()
    table_words = table.size // 2
    memory = allocate(_HEADER + table_words + channels * length)
    memory[_HEADER : _HEADER + table_words].view(np.float32)[:] = table.ravel()
    start = memory.ctypes.data
    memory[CHANNELS], memory[PHASES] = channels, phases
    memory[STEP_WHOLE], memory[STEP_PHASE] = divmod(step, phases)
    memory[TAPS], memory[TABLE], memory[AHEAD] = taps, start + 8 * _HEADER, ahead
    memory[HISTORY] = start + 8 * (_HEADER + table_words)
    memory[LENGTH], memory[HISTORY_STRIDE] = length, 8 * length
    memory[START_WHOLE], memory[START_PHASE] = divmod(offset, phases)
    _reset(memory)
    return Resampler(memory, in_rate_hz, out_rate_hz, channels, max_push, ahead)


@dataclass(frozen=True)
class RoundTrip:
    """Two resamplers around something that runs at another rate, with an exact delay at the host's rate.

    For each block of at most ``max_block`` samples: push it to ``inner``; pull everything, at most
    ``max_inner_block``; process that; push it to ``outer``; pull exactly as many samples as the block has.

    Attributes
    ----------
    inner, outer
        To the inner rate and back.
    latency_samples
        Delay of the whole at the host's rate, that of the process inside included.
    max_inner_block
        Most inner samples for one block.
    """

    inner: Resampler
    outer: Resampler
    latency_samples: int
    max_inner_block: int


def round_trip(
    host_rate_hz: int,
    inner_rate_hz: int,
    channels: int,
    max_block: int,
    inner_latency_samples: int,
    *,
    lead_samples: int = 0,
    short: bool = False,
    allocate: Allocate = aligned,
) -> RoundTrip:
    """Prepare the way to another rate and back.

    Parameters
    ----------
    host_rate_hz, inner_rate_hz
        The two rates in Hz.
    channels
        Channels.
    max_block
        Most samples of a block at the host's rate.
    inner_latency_samples
        Latency of the process inside, at its own rate.
    lead_samples
        Silence that the process inside hears before the first sample, at its own rate: it moves the beginnings of its
        blocks, and nothing else.
    short
        See `build`.
    allocate
        See `build`.

    Returns
    -------
    RoundTrip
        Both resamplers and the exact delay, for which the outer one's positions are offset.
    """
    common = gcd(host_rate_hz, inner_rate_hz)
    host, inside = host_rate_hz // common, inner_rate_hz // common
    max_inner = max_block * inside // host + 2 + lead_samples
    forth = build(
        host_rate_hz, inner_rate_hz, channels, max_block, offset=-lead_samples * host, short=short, allocate=allocate
    )
    wait = _filter(inner_rate_hz, host_rate_hz, short)[0]
    # The output for host time t lies at inner position t inside/host + latency and can be made when the inner
    # sample `last` is there, which itself needs host samples up to its own position and `ahead_samples` more.
    latency = 0
    for t in range(host):
        last = t * inside // host + inner_latency_samples + wait
        latency = max(latency, last * host // inside + forth.ahead_samples - t)
    offset = (lead_samples + inner_latency_samples) * host - latency * inside
    pending = wait + latency * inside // host + 2
    back = build(
        inner_rate_hz, host_rate_hz, channels, max_inner,
        offset=offset, max_pending=pending, short=short, allocate=allocate,
    )  # fmt: skip
    return RoundTrip(forth, back, latency, max_inner)


def arrivals(host_rate_hz: int, inner_rate_hz: int, block: int, cycle: int, short: bool) -> NDArray[np.int64] | None:
    """Where, in cycles of so many inner samples, what has come through stands at the ends of the host's blocks.

    For blocks of one size from the first on; each place once, in order. None where they are too many to tell.
    """
    common = gcd(host_rate_hz, inner_rate_hz)
    host, inside = host_rate_hz // common, inner_rate_hz // common
    count = cycle * host // gcd(block * inside, cycle * host)
    if count > _MOST_ARRIVALS:
        return None
    heard = np.arange(1, count + 1) * block - _filter(host_rate_hz, inner_rate_hz, short)[0]
    return np.unique(-(-heard * inside // host) % cycle)
