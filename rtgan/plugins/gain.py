"""Gain."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rtgan.kernels.native import f32p, i64p, inline, node
from rtgan.memory import address_of
from rtgan.params import Param, ParamSet, param_next, param_settled
from rtgan.plugin import Activation, NativeNode, Plugin

_CHANNELS, _STRIDE, _GAIN = range(3)
_DB = math.log(10.0) / 20.0


@inline
def apply_gain_db(param: Any, io: Any, stride: Any, channels: Any, n: Any) -> None:
    """[audio] Multiply by a gain given in dB by a smoothed parameter; 0 dB leaves every bit as it is."""
    if param_settled(param):
        db = param_next(param)
        if db == 0.0:
            return
        g = np.float32(math.exp(db * _DB))
        for c in range(channels):
            x = f32p(io + 4 * c * stride)
            for i in range(n):
                x[i] *= g
        return
    for i in range(n):
        g = np.float32(math.exp(param_next(param) * _DB))
        for c in range(channels):
            f32p(io + 4 * c * stride)[i] *= g


@node
def _process(state: int, io: int, n: int) -> None:
    w = i64p(state)
    apply_gain_db(w[_GAIN], io, w[_STRIDE], w[_CHANNELS], n)


class Gain(Plugin):
    """Make it louder or softer."""

    id = "gain"
    name = "Gain"
    description = "Make it louder or softer."
    params = ParamSet([Param("gain_db", "Gain", -60, 24, 0, unit="dB", description="Level change.")])

    def activate(self, activation: Activation) -> NativeNode:
        """[main] See `rtgan.plugin.Plugin.activate`."""
        words = activation.arena.int64(3)
        words[:] = activation.channels, activation.stride_samples, activation.params["gain_db"]
        return NativeNode(int(_process.address), address_of(words))
