"""The engine: one native callback, the same for a sound card and for a file.

`callback` is what PortAudio calls. It deinterleaves, drains the inbox at exact sample offsets, walks the
graph (or two graphs, while one fades into the other), limits, meters, records, fades and interleaves. It is a
numba cfunc on raw memory: no interpreter, no allocation, no lock, no system call. `Engine.render` calls the
very same function from Python to process arrays, which is why live and offline give the same samples.
"""

from __future__ import annotations

import ctypes
import math
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from rtgan import events
from rtgan.events import Record, Ring, ring_drop, ring_peek, ring_push
from rtgan.graph import G_LATENCY, G_SERIAL, G_SETTLE, Graph, graph_reset, graph_run, graph_set
from rtgan.kernels.native import (
    NODES,
    cfunc,
    exchange,
    f32p,
    f64p,
    flush_denormals,
    i32p,
    i64p,
    inline,
    kernel,
    larger,
    load_acquire,
    restore_denormals,
    smaller,
    store_release,
    ticks,
)
from rtgan.memory import Arena, address_of
from rtgan.params import CURRENT, PARAM_SLOTS, SMOOTHING, TARGET, param_next, param_set, param_settled

# Integer words of an engine.
(
    E_MAX_BLOCK, E_CHANNELS, E_DEVICE_IN, E_DEVICE_OUT, E_IN_MAP, E_OUT_MAP, E_OUT_COUNT, E_WORK, E_NEXT_WORK,
    E_DRY, E_POSITION, E_ACTIVE, E_NEXT, E_SWAP_AT, E_SWAP_FADE, E_INBOX, E_TELEMETRY, E_TAPE, E_FADE,
    E_STOPPED, E_CALLBACKS, E_BUSY, E_BUSY_MAX, E_UNDERFLOWS, E_OVERFLOWS, E_BAD_INPUT, E_LIMITED,
    E_METER_SAMPLES, E_TRACE, E_TRACE_MASK, E_FAULT_BLOCKS, E_LATE,
) = range(32)  # fmt: skip
# Float words, behind the integer ones.
F_IN_PEAK, F_OUT_PEAK, F_IN_SQUARE, F_OUT_SQUARE, F_LIMITER, F_CEILING, F_RELEASE = range(32, 39)
E_MAILBOX = 48  # a cache line of its own: both threads write it
_WORDS = 64

_METER_EVERY = 1024
_CEILING = 10.0 ** (-0.1 / 20)
_RELEASE_MS = 80.0

# The tape: a ring of recorded frames, written by the audio thread and drained by the recorder.
_T_WRITE, _T_READ, _T_MASK, _T_WIDTH, _T_DROPPED, _T_DATA = 0, 8, 16, 17, 18, 24


@inline
def _take_input(engine: Any, source: Any, n: Any) -> None:
    """Deinterleave the chosen channels; what is not a number becomes silence and is counted."""
    e = i64p(engine)
    f = f64p(engine)
    width = e[E_DEVICE_IN]
    block = e[E_MAX_BLOCK]
    peak = np.float32(0.0)
    square = 0.0
    for c in range(e[E_CHANNELS]):
        work = f32p(e[E_WORK] + 4 * c * block)
        dry = f32p(e[E_DRY] + 4 * c * block)
        column = i64p(e[E_IN_MAP])[c]
        if source == 0:
            for i in range(n):
                work[i] = 0.0
                dry[i] = 0.0
        else:
            samples = f32p(source + 4 * column)
            bits = i32p(source + 4 * column)
            for i in range(n):
                x = samples[i * width]
                if (bits[i * width] & 0x7F800000) == 0x7F800000:
                    x = np.float32(0.0)
                    e[E_BAD_INPUT] += 1
                work[i] = x
                dry[i] = x
                peak = larger(peak, abs(x))
                square += x * x
    f[F_IN_PEAK] = larger(f[F_IN_PEAK], peak)
    f[F_IN_SQUARE] += square


@inline
def _take_graph(engine: Any) -> None:
    """Look into the mailbox; a new graph starts to run beside the old one."""
    e = i64p(engine)
    if e[E_NEXT] != 0 or load_acquire(engine + 8 * E_MAILBOX) == 0:
        return
    graph = exchange(engine + 8 * E_MAILBOX, 0)
    serial = i64p(graph)[G_SERIAL]
    ring_push(e[E_TELEMETRY], events.SWAP_BEGUN, e[E_POSITION], 0, serial, 0.0, 0.0, 0.0, 0.0)
    if e[E_ACTIVE] == 0:
        e[E_ACTIVE] = graph
        ring_push(e[E_TELEMETRY], events.SWAP_DONE, e[E_POSITION], 0, serial, 0.0, 0.0, 0.0, 0.0)
    else:
        e[E_NEXT] = graph
        e[E_SWAP_AT] = 0


@inline
def _run_graphs(engine: Any, offset: Any, n: Any) -> None:
    """Run the graph on ``n`` samples of the work buffer; two graphs and a cross-fade during a swap."""
    e = i64p(engine)
    channels = e[E_CHANNELS]
    block = e[E_MAX_BLOCK]
    io = e[E_WORK] + 4 * offset
    position = e[E_POSITION]
    telemetry = e[E_TELEMETRY]
    if e[E_ACTIVE] == 0:
        for c in range(channels):
            samples = f32p(io + 4 * c * block)
            for i in range(n):
                samples[i] = 0.0
        return
    if e[E_NEXT] == 0:
        graph_run(e[E_ACTIVE], io, n, telemetry, position)
        return
    other = e[E_NEXT_WORK]
    for c in range(channels):
        a = f32p(io + 4 * c * block)
        b = f32p(other + 4 * c * block)
        for i in range(n):
            b[i] = a[i]
    graph_run(e[E_ACTIVE], io, n, telemetry, position)
    graph_run(e[E_NEXT], other, n, telemetry, position)
    # The new graph is heard only once it has seen its latency and settling time of input. While it fades in,
    # both carry the same source: equal gain, so that identical graphs null.
    begin = i64p(e[E_NEXT])[G_LATENCY] + i64p(e[E_NEXT])[G_SETTLE]
    length = e[E_SWAP_FADE]
    at = e[E_SWAP_AT]
    for c in range(channels):
        a = f32p(io + 4 * c * block)
        b = f32p(other + 4 * c * block)
        for i in range(n):
            k = at + i - begin
            if k >= length:
                a[i] = b[i]
            elif k > 0:
                g = np.float32(k / length)
                a[i] = a[i] + (b[i] - a[i]) * g
    e[E_SWAP_AT] = at + n
    if e[E_SWAP_AT] >= begin + length:
        old = i64p(e[E_ACTIVE])[G_SERIAL]
        new = i64p(e[E_NEXT])[G_SERIAL]
        e[E_ACTIVE] = e[E_NEXT]
        e[E_NEXT] = 0
        ring_push(telemetry, events.SWAP_DONE, position + n, old, new, 0.0, 0.0, 0.0, 0.0)


@inline
def _apply(engine: Any, record: Any) -> None:
    """Carry out one event at the present position."""
    e = i64p(engine)
    words = i64p(record)
    floats = f64p(record)
    kind = words[0]
    if kind == events.SET_PARAM:
        serial = words[3]
        done = 0
        if e[E_ACTIVE] != 0 and i64p(e[E_ACTIVE])[G_SERIAL] == serial:
            graph_set(e[E_ACTIVE], words[2], floats[4])
            done = 1
        if e[E_NEXT] != 0 and i64p(e[E_NEXT])[G_SERIAL] == serial:
            graph_set(e[E_NEXT], words[2], floats[4])
            done = 1
        if done:
            ring_push(e[E_TELEMETRY], events.APPLIED, e[E_POSITION], words[2], serial, floats[4], 0.0, 0.0, 0.0)
    elif kind == events.FADE_OUT:
        param_set(e[E_FADE], 0.0)
        e[E_STOPPED] = 0
    elif kind == events.FADE_IN:
        param_set(e[E_FADE], 1.0)
        e[E_STOPPED] = 0
    elif kind == events.RESET and e[E_ACTIVE] != 0:
        graph_reset(e[E_ACTIVE])


@inline
def _limit(engine: Any, n: Any) -> None:
    """Safety limiter: what stays below the ceiling passes untouched, to the bit."""
    e = i64p(engine)
    f = f64p(engine)
    channels = e[E_CHANNELS]
    block = e[E_MAX_BLOCK]
    ceiling = f[F_CEILING]
    release = f[F_RELEASE]
    gain = f[F_LIMITER]
    out_peak = f[F_OUT_PEAK]
    square = f[F_OUT_SQUARE]
    for i in range(n):
        peak = 0.0
        for c in range(channels):
            peak = larger(peak, abs(float(f32p(e[E_WORK] + 4 * c * block)[i])))
        if gain < 1.0:
            gain += (1.0 - gain) * release
            if gain > 0.99999:
                gain = 1.0
        if peak * gain > ceiling:
            gain = ceiling / peak
            e[E_LIMITED] += 1
        if gain < 1.0:
            g = np.float32(gain)
            for c in range(channels):
                f32p(e[E_WORK] + 4 * c * block)[i] *= g
            peak *= gain
        out_peak = larger(out_peak, peak)
        square += peak * peak
    f[F_LIMITER] = gain
    f[F_OUT_PEAK] = out_peak
    f[F_OUT_SQUARE] = square


@inline
def _record(engine: Any, n: Any) -> None:
    """Append dry and wet to the tape."""
    e = i64p(engine)
    tape = e[E_TAPE]
    if tape == 0:
        return
    t = i64p(tape)
    write = t[_T_WRITE]
    mask = t[_T_MASK]
    if write + n - load_acquire(tape + 8 * _T_READ) > mask + 1:
        t[_T_DROPPED] += n
        return
    channels = e[E_CHANNELS]
    block = e[E_MAX_BLOCK]
    width = t[_T_WIDTH]
    data = f32p(tape + 8 * _T_DATA)
    for c in range(channels):
        dry = f32p(e[E_DRY] + 4 * c * block)
        wet = f32p(e[E_WORK] + 4 * c * block)
        for i in range(n):
            at = ((write + i) & mask) * width
            data[at + c] = dry[i]
            data[at + channels + c] = wet[i]
    store_release(tape + 8 * _T_WRITE, write + n)


@inline
def _give_output(engine: Any, target: Any, n: Any) -> None:
    """Fade, map the chain's channels to the device's, interleave; every sample of the device is written."""
    e = i64p(engine)
    channels = e[E_CHANNELS]
    block = e[E_MAX_BLOCK]
    width = e[E_DEVICE_OUT]
    fade = e[E_FADE]
    if not (param_settled(fade) and f64p(fade)[CURRENT] == 1.0):
        for i in range(n):
            g = np.float32(param_next(fade))
            if g < 1.0:
                for c in range(channels):
                    f32p(e[E_WORK] + 4 * c * block)[i] *= g
        if param_settled(fade) and f64p(fade)[CURRENT] == 0.0 and e[E_STOPPED] == 0:
            e[E_STOPPED] = 1
            ring_push(e[E_TELEMETRY], events.STOPPED, e[E_POSITION], 0, 0, 0.0, 0.0, 0.0, 0.0)
    if target == 0:
        return
    out = f32p(target)
    count = e[E_OUT_COUNT]
    if count < width:
        for i in range(n * width):
            out[i] = 0.0
    columns = i64p(e[E_OUT_MAP])
    if count == 1 and channels > 1:
        share = np.float32(1.0 / channels)
        for i in range(n):
            x = np.float32(0.0)
            for c in range(channels):
                x += f32p(e[E_WORK] + 4 * c * block)[i]
            out[i * width + columns[0]] = x * share
    else:
        for k in range(count):
            work = f32p(e[E_WORK] + 4 * (k % channels) * block)
            column = columns[k]
            for i in range(n):
                out[i * width + column] = work[i]


@inline
def _chunk(engine: Any, source: Any, target: Any, n: Any) -> None:
    """One piece of at most ``max_block`` frames, door to door."""
    e = i64p(engine)
    f = f64p(engine)
    _take_input(engine, source, n)
    _take_graph(engine)
    inbox = e[E_INBOX]
    start = 0
    while start < n:
        stop = n
        while True:
            record = ring_peek(inbox)
            if record == 0:
                break
            wait = i64p(record)[1] - e[E_POSITION]
            if wait > 0:
                stop = smaller(n, start + wait)
                break
            _apply(engine, record)
            ring_drop(inbox)
        _run_graphs(engine, start, stop - start)
        e[E_POSITION] += stop - start
        start = stop
    _limit(engine, n)
    _record(engine, n)
    _give_output(engine, target, n)
    e[E_METER_SAMPLES] += n
    if e[E_METER_SAMPLES] >= _METER_EVERY:
        samples = e[E_METER_SAMPLES]
        ring_push(
            e[E_TELEMETRY], events.METER, e[E_POSITION], samples, 0,
            f[F_IN_PEAK], f[F_OUT_PEAK],
            f[F_IN_SQUARE] / (samples * e[E_CHANNELS]), f[F_OUT_SQUARE] / samples,
        )  # fmt: skip
        e[E_METER_SAMPLES] = 0
        f[F_IN_PEAK] = 0.0
        f[F_OUT_PEAK] = 0.0
        f[F_IN_SQUARE] = 0.0
        f[F_OUT_SQUARE] = 0.0


@cfunc(
    types.int32(types.int64, types.int64, types.int64, types.int64, types.int64, types.int64),
    cache=True,
    error_model="numpy",
    boundscheck=False,
)
def callback(source: Any, target: Any, frames: Any, time_info: Any, flags: Any, engine: Any) -> int:
    """[audio] ``PaStreamCallback``; ``engine`` is the address of an engine's words."""
    control = flush_denormals()
    begin = ticks()
    e = i64p(engine)
    if flags & 5:
        e[E_UNDERFLOWS] += 1
    if flags & 10:
        e[E_OVERFLOWS] += 1
    done = 0
    while done < frames:
        n = smaller(frames - done, e[E_MAX_BLOCK])
        chunk_source = source
        if source != 0:
            chunk_source = source + 4 * done * e[E_DEVICE_IN]
        chunk_target = target
        if target != 0:
            chunk_target = target + 4 * done * e[E_DEVICE_OUT]
        _chunk(engine, chunk_source, chunk_target, n)
        done += n
    spent = ticks() - begin
    if e[E_TRACE] != 0:
        i64p(e[E_TRACE])[e[E_CALLBACKS] & e[E_TRACE_MASK]] = spent
    e[E_BUSY] += spent
    if spent > e[E_BUSY_MAX]:
        e[E_BUSY_MAX] = spent
    e[E_CALLBACKS] += 1
    restore_denormals(control)
    return 0


NODES[f"{__name__}.callback"] = callback


@kernel(types.int64(types.int64))
def _load(address: Any) -> Any:
    return load_acquire(address)


@kernel(types.void(types.int64, types.int64))
def _store(address: Any, value: Any) -> None:
    store_release(address, value)


@kernel(types.int64(types.int64, types.int64))
def _exchange(address: Any, value: Any) -> Any:
    return exchange(address, value)


@kernel(types.int64())
def _ticks() -> Any:
    return ticks()


class TickRate:
    """How fast the processor's counter runs, measured against the system's clock."""

    def __init__(self) -> None:
        self._zero = (time.perf_counter(), _ticks())
        self._per_second = 0.0

    def per_second(self) -> float:
        """Ticks in a second; 0 where the processor has no counter."""
        now = (time.perf_counter(), _ticks())
        elapsed = now[0] - self._zero[0]
        if elapsed < 0.02:
            time.sleep(0.02)
            return self.per_second()
        return float((now[1] - self._zero[1]) / elapsed)


@dataclass(frozen=True)
class Counters:
    """What an engine has counted since it was made."""

    position_samples: int
    callbacks: int
    busy_ticks: int
    busy_max_ticks: int
    underflows: int
    overflows: int
    bad_input_samples: int
    limited_samples: int
    telemetry_dropped: int
    tape_dropped_frames: int

    @property
    def xruns(self) -> int:
        """Blocks the device lost or repeated."""
        return self.underflows + self.overflows


class Engine:
    """The native engine and its memory [main-thread object; one engine, one audio thread].

    Parameters
    ----------
    sample_rate_hz : int
    channels : int
        Channels of the chain.
    device_in, device_out : int
        Channels per frame of the interleaved buffers that the callback is given.
    in_map : sequence of int
        For each chain channel the device's input channel (from 0); length ``channels``.
    out_map : sequence of int
        The device's output channels (from 0) to write. A mono chain goes to all of them; a chain of several
        channels into one output is averaged.
    max_block : int
        Larger callbacks are split.
    tape_frames : int
        Room of the recording ring, a power of two; 0 for no recording.
    """

    FADE_MS = 30.0
    SWAP_FADE_MS = 30.0

    def __init__(
        self,
        sample_rate_hz: int,
        channels: int = 1,
        device_in: int | None = None,
        device_out: int | None = None,
        in_map: tuple[int, ...] | None = None,
        out_map: tuple[int, ...] | None = None,
        max_block: int = 1024,
        tape_frames: int = 0,
    ) -> None:
        self.sample_rate_hz = sample_rate_hz
        self.channels = channels
        self.max_block = max_block
        in_map = tuple(range(channels)) if in_map is None else in_map
        out_map = tuple(range(channels)) if out_map is None else out_map
        self.device_in = max(in_map) + 1 if device_in is None else device_in
        self.device_out = max(out_map) + 1 if device_out is None else device_out
        if len(in_map) != channels or max(in_map) >= self.device_in or max(out_map) >= self.device_out:
            raise ValueError("the channel maps do not fit the device")
        self.arena = arena = Arena()
        words = arena.int64(_WORDS)
        self._words = words
        self._floats = words.view(np.float64)
        self.address = address_of(words)
        self._in_map, self._out_map = arena.int64(len(in_map)), arena.int64(len(out_map))
        self._in_map[:] = in_map
        self._out_map[:] = out_map
        self._buffers = arena.float32(3, channels, max_block)
        self.inbox = Ring(arena, 4096)
        self.telemetry = Ring(arena, 8192)
        fade = arena.float64(PARAM_SLOTS)
        fade[TARGET] = fade[CURRENT] = 1.0
        fade[SMOOTHING] = round(self.FADE_MS * sample_rate_hz / 1000)
        self._fade = fade
        words[E_MAX_BLOCK] = max_block
        words[E_CHANNELS] = channels
        words[E_DEVICE_IN] = self.device_in
        words[E_DEVICE_OUT] = self.device_out
        words[E_IN_MAP] = address_of(self._in_map)
        words[E_OUT_MAP] = address_of(self._out_map)
        words[E_OUT_COUNT] = len(out_map)
        words[E_WORK], words[E_NEXT_WORK], words[E_DRY] = (address_of(b) for b in self._buffers)
        words[E_SWAP_FADE] = round(self.SWAP_FADE_MS * sample_rate_hz / 1000)
        words[E_INBOX] = self.inbox.address
        words[E_TELEMETRY] = self.telemetry.address
        words[E_FADE] = address_of(fade)
        self._floats[F_LIMITER] = 1.0
        self._floats[F_CEILING] = _CEILING
        self._floats[F_RELEASE] = 1.0 - math.exp(-1000.0 / (_RELEASE_MS * sample_rate_hz))
        self.tape: Tape | None = None
        if tape_frames:
            self.tape = Tape(arena, channels, tape_frames)
            words[E_TAPE] = self.tape.address
        self.callback_address = int(callback.address)
        self._call = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_int64] * 6)(self.callback_address)
        self._graphs: dict[int, Graph] = {}
        self._send = threading.Lock()

    # --- control [main] ---

    def publish(self, graph: Graph) -> None:
        """Hand a graph to the audio thread, which fades over to it. A graph still waiting is replaced."""
        self._graphs[graph.serial] = graph
        replaced = _exchange(self.address + 8 * E_MAILBOX, graph.address)
        if replaced:
            for serial, waiting in list(self._graphs.items()):
                if waiting.address == replaced:
                    del self._graphs[serial]

    def send(self, record: Record) -> bool:
        """Put an event into the inbox; False if it is full. Any thread but the audio thread."""
        with self._send:
            return self.inbox.push(record)

    def set_param(self, graph: Graph, index: int, value: float, when: int = events.NOW) -> bool:
        """Change a parameter, at an absolute sample position or as soon as possible."""
        return self.send(Record(events.SET_PARAM, when, index, graph.serial, value))

    def start_silent(self) -> None:
        """Begin at zero gain, so that the first sound fades in. Before the stream starts."""
        self._fade[CURRENT] = 0.0
        self._fade[TARGET] = 0.0
        self._fade[3] = 0.0
        self._words[E_STOPPED] = 1
        self.send(Record(events.FADE_IN, 0))

    def poll(self) -> list[Record]:
        """Everything the audio thread reported; frees graphs it has let go. One thread at a time."""
        records = self.telemetry.drain()
        for record in records:
            if record.kind == events.SWAP_DONE and record.a:
                self._graphs.pop(record.a, None)
        return records

    @property
    def counters(self) -> Counters:
        """A reading of the counters."""
        w = self._words
        return Counters(
            position_samples=int(w[E_POSITION]),
            callbacks=int(w[E_CALLBACKS]),
            busy_ticks=int(w[E_BUSY]),
            busy_max_ticks=int(w[E_BUSY_MAX]),
            underflows=int(w[E_UNDERFLOWS]),
            overflows=int(w[E_OVERFLOWS]),
            bad_input_samples=int(w[E_BAD_INPUT]),
            limited_samples=int(w[E_LIMITED]),
            telemetry_dropped=self.telemetry.dropped,
            tape_dropped_frames=self.tape.dropped if self.tape else 0,
        )

    def forget_worst(self) -> None:
        """Start the worst-case timing anew."""
        self._words[E_BUSY_MAX] = 0

    def trace(self, callbacks: int) -> NDArray[np.int64]:
        """Keep the duration in ticks of each of the last ``callbacks`` (a power of two) callbacks."""
        durations = self.arena.int64(callbacks)
        self._words[E_TRACE_MASK] = callbacks - 1
        self._words[E_TRACE] = address_of(durations)
        return durations

    @property
    def memory_intact(self) -> bool:
        """Whether nothing wrote outside its memory, in the engine and in the graphs it knows."""
        return self.arena.intact() and all(g.arena.intact() for g in self._graphs.values())

    # --- offline [any thread, while no stream runs] ---

    def render(self, frames: NDArray[np.float32], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Run the callback over interleaved frames.

        Parameters
        ----------
        frames : ndarray of float32, (frames, device_in), C-contiguous
        out : ndarray of float32, (frames, device_out), optional

        Returns
        -------
        ndarray of float32, (frames, device_out)
        """
        if frames.dtype != np.float32 or not frames.flags.c_contiguous or frames.shape[1:] != (self.device_in,):
            raise ValueError("frames must be float32, C-contiguous, (frames, device_in)")
        if out is None:
            out = np.empty((len(frames), self.device_out), np.float32)
        self._call(address_of(frames), address_of(out), len(frames), 0, 0, self.address)
        return out


class Tape:
    """Dry and wet frames on their way from the audio thread to a file [drained by one thread].

    A frame holds the chain's dry channels, then its wet channels.
    """

    def __init__(self, arena: Arena, channels: int, frames: int) -> None:
        if frames & (frames - 1):
            raise ValueError("the length of a tape is a power of two")
        self.width = 2 * channels
        words = arena.int64(_T_DATA + frames * self.width // 2 + 1)
        words[_T_MASK] = frames - 1
        words[_T_WIDTH] = self.width
        self._words = words
        self._frames = words[_T_DATA:].view(np.float32)[: frames * self.width].reshape(frames, self.width)
        self.address = address_of(words)

    @property
    def dropped(self) -> int:
        """Frames lost because nobody drained."""
        return int(self._words[_T_DROPPED])

    def take(self) -> NDArray[np.float32]:
        """A copy of the frames that have arrived, (frames, 2 * channels)."""
        write = _load(self.address + 8 * _T_WRITE)
        read = int(self._words[_T_READ])
        mask = int(self._words[_T_MASK])
        first, last = read & mask, write & mask
        if read == write:
            return np.empty((0, self.width), np.float32)
        if first < last:
            frames: NDArray[Any] = self._frames[first:last].copy()
        else:
            frames = np.concatenate([self._frames[first:], self._frames[:last]])
        _store(self.address + 8 * _T_READ, write)
        return frames
