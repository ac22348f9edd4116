"""Elementwise functions and activations by the names that programs use, and expressions of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .nn_code import Code, Vec


def _one(e: Code, v: Vec) -> Vec:
    return e.const(v.n, 1.0)


def _truth(how: str) -> Callable[..., Vec]:
    def test(e: Code, x: Vec, y: Vec) -> Vec:
        return e.select(e.compare(how, x, y), e.const(x.n, 1.0), e.const(x.n, 0.0))

    return test


def _relu(e: Code, x: Vec) -> Vec:
    return e.max(e.const(x.n, 0.0), x)


def _positive(e: Code, x: Vec, yes: Vec, no: Vec) -> Vec:
    return e.select(e.compare("ogt", x, e.const(x.n, 0.0)), yes, no)


def _elu(e: Code, x: Vec, alpha: float, scale: float, inner: float) -> Vec:
    low = e.mul(e.expm1(e.mul(x, e.const(x.n, inner))), e.const(x.n, alpha * scale))
    return _positive(e, x, e.mul(x, e.const(x.n, scale)), low)


def _softplus(e: Code, x: Vec, beta: float, threshold: float) -> Vec:
    scaled = e.mul(x, e.const(x.n, beta))
    y = e.add(_relu(e, scaled), e.log1p(e.exp(e.neg(e.abs(scaled)))))
    y = e.mul(y, e.const(x.n, 1.0 / beta))
    return e.select(e.compare("ogt", scaled, e.const(x.n, threshold)), x, y)


def _gelu(e: Code, x: Vec) -> Vec:
    half = e.mul(x, e.const(x.n, 0.5))
    return e.fma(half, e.erf(e.mul(x, e.const(x.n, 0.5**0.5))), half)


def _gelu_tanh(e: Code, x: Vec) -> Vec:
    half = e.mul(x, e.const(x.n, 0.5))
    cube = e.mul(e.mul(x, x), x)
    inner = e.mul(e.fma(cube, e.const(x.n, 0.044715), x), e.const(x.n, (2 / np.pi) ** 0.5))
    return e.fma(half, e.tanh(inner), half)


def _hard_sigmoid(e: Code, x: Vec) -> Vec:
    return e.clamp(e.fma(x, e.const(x.n, 1 / 6), e.const(x.n, 0.5)), 0.0, 1.0)


def _trunc(e: Code, x: Vec) -> Vec:
    down = e.floor(e.abs(x))
    return e.select(e.compare("olt", x, e.const(x.n, 0.0)), e.neg(down), down)


def _sign(e: Code, x: Vec) -> Vec:
    zero, one = e.const(x.n, 0.0), e.const(x.n, 1.0)
    below = e.select(e.compare("olt", x, zero), e.neg(one), x)
    return e.select(e.compare("ogt", x, zero), one, below)


def _log_sigmoid(e: Code, x: Vec) -> Vec:
    return e.neg(_softplus(e, e.neg(x), 1.0, 1e30))


def _finite(e: Code, x: Vec, nan: float, high: float, low: float) -> Vec:
    y = e.select(e.compare("oeq", x, e.const(x.n, np.inf)), e.const(x.n, high), x)
    y = e.select(e.compare("oeq", x, e.const(x.n, -np.inf)), e.const(x.n, low), y)
    return e.select(e.compare("uno", x, x), e.const(x.n, nan), y)


def _pow(e: Code, x: Vec, y: Vec) -> Vec:
    """``x ** y``: below 0 for whole ``y`` only."""
    zero, one = e.const(x.n, 0.0), _one(e, x)
    size = e.exp(e.mul(y, e.log(e.abs(x))))
    half = e.mul(y, e.const(x.n, 0.5))
    signed = e.select(e.compare("une", half, e.floor(half)), e.neg(size), size)
    below = e.select(e.compare("oeq", y, e.floor(y)), signed, e.const(x.n, np.nan))
    result = e.select(e.compare("olt", x, zero), below, size)
    return e.select(e.compare("oeq", y, zero), one, result)


def _xorshift(e: Code, x: Vec) -> Vec:
    """The next word of a stream of random bits, in place of a float; see `rtgan.generators.chance`."""
    w = e.bits(x)
    for op, by in (("shl", 13), ("lshr", 17), ("shl", 5)):
        w = e.integer("xor", w, e.integer(op, w, by))
    return e.from_bits(w)


def _uniform(e: Code, x: Vec) -> Vec:
    mantissa = e.integer("or", e.integer("lshr", e.bits(x), 9), 0x3F800000)
    return e.sub(e.from_bits(mantissa), _one(e, x))


def _normal(e: Code, x: Vec, y: Vec) -> Vec:
    distance = e.sqrt(e.mul(e.const(x.n, -2.0), e.log(e.sub(_one(e, x), _uniform(e, x)))))
    return e.mul(distance, e.sin_cos(e.mul(e.const(x.n, 2 * np.pi), _uniform(e, y)))[1])


#: Elementwise functions ``f(code, values..., literals...)`` by the names used in programs. Truth is 1 and 0.
FUNCTIONS: dict[str, Callable[..., Vec]] = {
    "add": lambda e, x, y: e.add(x, y),
    "sub": lambda e, x, y: e.sub(x, y),
    "mul": lambda e, x, y: e.mul(x, y),
    "div": lambda e, x, y: e.div(x, y),
    "max": lambda e, x, y: e.max(x, y),
    "min": lambda e, x, y: e.min(x, y),
    "atan2": lambda e, y, x: e.atan2(y, x),
    "affine": lambda e, x, scale, shift: e.fma(x, scale, shift),
    "lerp": lambda e, x, y, t: e.fma(t, e.sub(y, x), x),
    "eq": _truth("oeq"),
    "ne": _truth("une"),
    "gt": _truth("ogt"),
    "ge": _truth("oge"),
    "lt": _truth("olt"),
    "le": _truth("ole"),
    "where": lambda e, c, x, y: e.select(e.compare("une", c, e.const(c.n, 0.0)), x, y),
    "logical_not": lambda e, x: e.select(e.compare("oeq", x, e.const(x.n, 0.0)), _one(e, x), e.const(x.n, 0.0)),
    "neg": lambda e, x: e.neg(x),
    "abs": lambda e, x: e.abs(x),
    "exp": lambda e, x: e.exp(x),
    "log": lambda e, x: e.log(x),
    "log2": lambda e, x: e.mul(e.log(x), e.const(x.n, 1 / np.log(2))),
    "log10": lambda e, x: e.mul(e.log(x), e.const(x.n, 1 / np.log(10))),
    "log1p": lambda e, x: e.log1p(x),
    "expm1": lambda e, x: e.expm1(x),
    "sqrt": lambda e, x: e.sqrt(x),
    "rsqrt": lambda e, x: e.div(_one(e, x), e.sqrt(x)),
    "reciprocal": lambda e, x: e.div(_one(e, x), x),
    "square": lambda e, x: e.mul(x, x),
    "power": lambda e, x, k: e.power(x, k),
    "pow": _pow,
    "sigmoid": lambda e, x: e.sigmoid(x),
    "tanh": lambda e, x: e.tanh(x),
    "tanhshrink": lambda e, x: e.sub(x, e.tanh(x)),
    "erf": lambda e, x: e.erf(x),
    "sin": lambda e, x: e.sin_cos(x)[0],
    "cos": lambda e, x: e.sin_cos(x)[1],
    "atan": lambda e, x: e.atan2(x, _one(e, x)),
    "sign": _sign,
    "floor": lambda e, x: e.floor(x),
    "ceil": lambda e, x: e.neg(e.floor(e.neg(x))),
    "round": lambda e, x: e.round(x),
    "trunc": _trunc,
    "relu": _relu,
    "relu6": lambda e, x: e.clamp(x, 0.0, 6.0),
    "leaky_relu": lambda e, x, slope: _positive(e, x, x, e.mul(x, e.const(x.n, slope))),
    "prelu": lambda e, x, slope: _positive(e, x, x, e.mul(x, slope)),
    "elu": _elu,
    "selu": lambda e, x: _elu(e, x, 1.6732632423543772, 1.0507009873554805, 1.0),
    "silu": lambda e, x: e.mul(x, e.sigmoid(x)),
    "mish": lambda e, x: e.mul(x, e.tanh(_softplus(e, x, 1.0, 20.0))),
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "softplus": _softplus,
    "softsign": lambda e, x: e.div(x, e.add(_one(e, x), e.abs(x))),
    "hardsigmoid": _hard_sigmoid,
    "hardswish": lambda e, x: e.mul(x, _hard_sigmoid(e, x)),
    "log_sigmoid": _log_sigmoid,
    "threshold": lambda e, x, edge, value: e.select(e.compare("ogt", x, e.const(x.n, edge)), x, e.const(x.n, value)),
    "finite": _finite,
    "key": lambda e, x: e.select(e.compare("uno", x, x), e.const(x.n, np.inf), x),
    "wrap": lambda e, x, n: e.select(e.compare("olt", x, e.const(x.n, 0.0)), e.add(x, e.const(x.n, n)), x),
    "xorshift": _xorshift,
    "uniform": _uniform,
    "normal": _normal,
}


def evaluate(e: Code, expression: Sequence[tuple[Any, ...]], values: list[Vec], lanes: int) -> Vec:
    """Compute an expression: ``("in", k)``, ``("const", c)`` or ``(function, index..., ("lit", x)...)`` in sequence."""
    done: list[Vec] = []
    for name, *operands in expression:
        if name == "in":
            done.append(values[operands[0]])
        elif name == "const":
            done.append(e.const(lanes, operands[0]))
        else:
            done.append(FUNCTIONS[name](e, *(o[1] if isinstance(o, tuple) else done[o] for o in operands)))
    return done[-1]
