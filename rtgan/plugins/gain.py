"""Gain."""

from __future__ import annotations

import math

import numpy as np

from rtgan.kernels.native import f32p, i64p, node
from rtgan.memory import address_of
from rtgan.params import Param, ParamSet, param_next, param_settled
from rtgan.plugin import Activation, NativeNode, Plugin

_CHANNELS, _STRIDE, _GAIN = range(3)
_DB = math.log(10.0) / 20.0


@node
def _process(state: int, io: int, n: int) -> None:
    w = i64p(state)
    if param_settled(w[_GAIN]):
        db = param_next(w[_GAIN])
        if db == 0.0:
            return
        g = np.float32(math.exp(db * _DB))
        for c in range(w[_CHANNELS]):
            x = f32p(io + 4 * c * w[_STRIDE])
            for i in range(n):
                x[i] *= g
        return
    for i in range(n):
        g = np.float32(math.exp(param_next(w[_GAIN]) * _DB))
        for c in range(w[_CHANNELS]):
            f32p(io + 4 * c * w[_STRIDE])[i] *= g


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
