"""One node around each helper for the audio thread, so that its machine code can be looked at.

Run as a program it compiles every node afresh and prints, as JSON, what each calls outside itself.
"""

from __future__ import annotations

import json
import re
import sys

import numpy as np

import rtgan  # noqa: F401 - chooses the cache folder before the first kernel
from rtgan.kernels import channels, delay, fft, filters, levels, resample, rings, stft  # noqa: F401
from rtgan.kernels.native import NODES, f32p, f64p, i64p, node


@node
def ramp(state, io, n):
    levels.ramp_set(state, 0.5, n)
    levels.ramp_apply(state, io, 2, n, n)


@node
def meter(state, io, n):
    levels.meter_clear(state)
    levels.meter_add(state, io, n)
    f64p(state)[3] = levels.meter_rms(state)


@node
def limiter(state, io, n):
    levels.limit(state, io, 2, n, n, 0.9, 0.001)


@node
def finite(state, io, n):
    i64p(state)[0] = levels.all_finite(io, n)


@node
def fades(state, io, n):
    levels.fade_equal_gain(state, io, io, n, 0, n)
    levels.fade_equal_power(state, io, io, n, 0, n)


@node
def biquads(state, io, n):
    filters.cascade(state, 3, state + 8 * 15, io, n)


@node
def delay_line(state, io, n):
    delay.delay(state, io, n, n)
    delay.delay_reset(state)


@node
def interleaving(state, io, n):
    channels.deinterleave(io, 3, state, io + 12 * n, 2, n, n)
    channels.interleave(io + 12 * n, n, state, io, 3, n)


@node
def resampling(state, io, n):
    resample.push(state, io, n, n)
    i64p(state)[15] = resample.pull(state, io, n, n)
    resample.reset(state)


@node
def ring(state, io, n):
    rings.ring_write(state, io, n)
    rings.ring_read(state, io, n)


@node
def planted_error(state, io, n):
    if n < 0:
        raise ValueError("planted")
    f32p(io)[0] = 0.0


@node
def planted_allocation(state, io, n):
    f32p(io)[0] = np.zeros(n)[n // 2]


def outside_calls() -> dict[str, list[str]]:
    """Names outside the node that its machine code refers to, LLVM's own instructions left out."""
    fft.plan(512)
    found = {}
    for name, compiled in NODES.items():
        text = compiled.inspect_llvm()
        called = set(re.findall(r"call [^@\n]*@\"?([\w.$<>]+)", text))
        called |= set(re.findall(r"\b(PyErr_\w+|Py[A-Z]\w+|numba_gil\w+|NRT_\w+)", text))
        inside = set(re.findall(r"define [^@\n]*@\"?([\w.$<>]+)", text))
        found[name] = sorted(call for call in called - inside if not call.startswith("llvm."))
    return found


if __name__ == "__main__":
    json.dump(outside_calls(), sys.stdout)
