"""Plugins that need another sample rate than the device's run between two resamplers: see `at_rate`."""

from __future__ import annotations

from dataclasses import replace

from rtgan.errors import UsageError
from rtgan.kernels import resample
from rtgan.kernels.native import call_node, i64p, node
from rtgan.memory import address_of
from rtgan.plugin import Activation, NativeNode, Plugin

_STRIDE, _FORTH, _BACK, _PROCESS, _STATE, _RESET, _INNER, _INNER_STRIDE = range(8)


@node
def _process(state: int, io: int, n: int) -> None:
    w = i64p(state)
    resample.push(w[_FORTH], io, w[_STRIDE], n)
    count = resample.pull(w[_FORTH], w[_INNER], w[_INNER_STRIDE], w[_INNER_STRIDE])
    if count > 0:
        call_node(w[_PROCESS], w[_STATE], w[_INNER], count)
    resample.push(w[_BACK], w[_INNER], w[_INNER_STRIDE], count)
    resample.pull(w[_BACK], io, w[_STRIDE], n)


@node
def _reset(state: int, io: int, n: int) -> None:
    w = i64p(state)
    resample.reset(w[_FORTH])
    resample.reset(w[_BACK])
    if w[_RESET] != 0:
        call_node(w[_RESET], w[_STATE], 0, 0)


def at_rate(plugin: Plugin, activation: Activation) -> NativeNode:
    """Activate a plugin at the engine's rate, or at the nearest rate it supports with resampling around it.

    The delay of the way there and back is an exact number of samples at the engine's rate and part of the
    node's declared latency.
    """
    host_hz = activation.sample_rate_hz
    if not plugin.rates_hz or host_hz in plugin.rates_hz:
        return plugin.activate(activation)
    inner_hz = min(plugin.rates_hz, key=lambda r: abs(r - host_hz))
    allocate = activation.arena.int64
    try:
        most = resample.round_trip(host_hz, inner_hz, activation.channels, activation.max_block, 0).max_inner_block
    except ValueError:
        raise UsageError(f"{plugin.id} runs at {inner_hz} Hz and cannot be used at {host_hz} Hz") from None
    inner = plugin.activate(replace(activation, sample_rate_hz=inner_hz, max_block=most, stride_samples=most))
    trip = resample.round_trip(
        host_hz, inner_hz, activation.channels, activation.max_block, inner.latency_samples, allocate=allocate
    )
    words = allocate(8)
    words[_STRIDE] = activation.stride_samples
    words[_FORTH], words[_BACK] = trip.inner.address, trip.outer.address
    words[_PROCESS], words[_STATE], words[_RESET] = inner.process, inner.state, inner.reset
    words[_INNER] = address_of(activation.arena.float32(activation.channels, most))
    words[_INNER_STRIDE] = most

    def at_host(samples: int) -> int:
        return -(-samples * host_hz // inner_hz)

    return NativeNode(
        int(_process.address),
        address_of(words),
        int(_reset.address),
        latency_samples=trip.latency_samples,
        tail_samples=at_host(inner.tail_samples) + 2 * trip.inner.ahead_samples,
        settle_samples=at_host(inner.settle_samples),
        readings=inner.readings,
        keep=(inner.keep, trip),
    )
