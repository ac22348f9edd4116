"""Plugins that need another sample rate than the device's run between two resamplers: see `resampled`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rtgan.errors import UsageError
from rtgan.kernels import resample
from rtgan.kernels.native import call_node, f32p, i64p, node
from rtgan.memory import address_of
from rtgan.plugin import Activation, NativeNode, Plugin

_STRIDE, _FORTH, _BACK, _PROCESS, _STATE, _RESET, _INNER, _INNER_STRIDE, _LANES, _NOTES = range(10)
_LANE = 16
#: Words of a lane: its resampler, where it is inside, where it is outside, samples there.
_WAY, _INSIDE, _OUTSIDE, _LENGTH, _LANE_WORDS = range(5)


@node
def _process(state: int, io: int, n: int) -> None:
    w = i64p(state)
    resample.push(w[_FORTH], io, w[_STRIDE], n)
    count = resample.pull(w[_FORTH], w[_INNER], w[_INNER_STRIDE], w[_INNER_STRIDE])
    if count > 0:
        call_node(w[_PROCESS], w[_STATE], w[_INNER], count)
    resample.push(w[_BACK], w[_INNER], w[_INNER_STRIDE], count)
    resample.pull(w[_BACK], io, w[_STRIDE], n)
    for k in range(w[_LANES]):
        lane = i64p(state + 8 * (_LANE + _LANE_WORDS * k))
        resample.push(lane[_WAY], lane[_INSIDE], 0, count)
        resample.pull(lane[_WAY], lane[_OUTSIDE], 0, n)


@node
def _reset(state: int, io: int, n: int) -> None:
    w = i64p(state)
    resample.reset(w[_FORTH])
    resample.reset(w[_BACK])
    if w[_RESET] != 0:
        call_node(w[_RESET], w[_STATE], 0, 0)
    for k in range(w[_LANES]):
        lane = i64p(state + 8 * (_LANE + _LANE_WORDS * k))
        resample.reset(lane[_WAY])
        outside = f32p(lane[_OUTSIDE])
        for i in range(lane[_LENGTH]):
            outside[i] = -1.0


@node
def _midi(state: int, message: int, port: int) -> None:
    w = i64p(state)
    call_node(w[_NOTES], w[_STATE], message, port)


def resampled(plugin: Plugin, activation: Activation) -> NativeNode:
    """Activate a plugin at the rate it supports that is nearest to the engine's, with resampling around it.

    The delay of the way there and back is an exact number of samples at the engine's rate and part of the
    node's declared latency.
    """
    host_hz = activation.sample_rate_hz
    inner_hz = min(plugin.rates_hz, key=lambda r: abs(r - host_hz))
    allocate, short = activation.arena.int64, plugin.short_resampling
    try:
        trip = resample.round_trip(host_hz, inner_hz, activation.channels, activation.max_block, 0, short=short)
    except ValueError:
        raise UsageError(f"{plugin.id} runs at {inner_hz} Hz and cannot be used at {host_hz} Hz") from None
    period = -(-activation.period_samples * inner_hz // host_hz)
    lead = 0

    def rest(block: int) -> int:
        """Blocks end where calls end, behind a silence for that: what is left of one then is the least."""
        nonlocal lead
        call = min(activation.period_samples, activation.max_block)
        ends = resample.arrivals(host_hz, inner_hz, call, block, short)
        if ends is None:
            return block - 1
        gaps = np.diff(np.append(ends, ends[0] + block))
        leads = -(ends + gaps) % block
        # It all comes with the first call.
        gaps[leads > trip.max_inner_block] = 1
        widest = min(range(len(gaps)), key=lambda k: (-gaps[k], leads[k]))
        lead = int(leads[widest]) if gaps[widest] > 1 else 0
        return block - int(gaps[widest])

    most = trip.max_inner_block * (1 if activation.rest is None else 2)
    inner = plugin.activate(
        replace(
            activation, sample_rate_hz=inner_hz, max_block=most, stride_samples=most, lanes={}, period_samples=period,
            rest=rest if activation.rest is not None else None,
        )
    )  # fmt: skip

    def way(channels: int) -> resample.RoundTrip:
        return resample.round_trip(
            host_hz, inner_hz, channels, activation.max_block, inner.latency_samples,
            lead_samples=lead, short=short, allocate=allocate,
        )  # fmt: skip

    trip = way(activation.channels)
    words = allocate(_LANE + _LANE_WORDS * len(inner.lanes))
    words[_STRIDE] = activation.stride_samples
    words[_FORTH], words[_BACK] = trip.inner.address, trip.outer.address
    words[_PROCESS], words[_STATE], words[_RESET] = inner.process, inner.state, inner.reset
    words[_NOTES] = inner.midi
    words[_INNER] = address_of(activation.arena.float32(activation.channels, most))
    words[_INNER_STRIDE] = most
    # A lane goes the same way back as the sound, so that it stays beside it.
    words[_LANES] = len(inner.lanes)
    lanes, ways = {}, []
    for place, (name, inside) in zip(words[_LANE:].reshape(-1, _LANE_WORDS), inner.lanes.items(), strict=True):
        back = way(1).outer
        outside = activation.arena.float32(activation.max_block)
        outside[:] = -1
        lanes[name] = address_of(outside)
        place[:] = back.address, inside, lanes[name], activation.max_block
        ways.append(back)

    def at_host(samples: int) -> int:
        return -(-samples * host_hz // inner_hz)

    return NativeNode(
        int(_process.address),
        address_of(words),
        int(_reset.address),
        midi=int(_midi.address) if inner.midi else 0,
        latency_samples=trip.latency_samples,
        tail_samples=at_host(inner.tail_samples) + 2 * trip.inner.ahead_samples,
        settle_samples=at_host(inner.settle_samples),
        readings=inner.readings,
        lanes=lanes,
        lean=inner.lean,
        wait=inner.wait,
        problems=inner.problems,
        slips=inner.slips,
        keep=(inner.keep, trip, *ways),
    )
