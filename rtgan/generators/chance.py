"""Random numbers of a lowered program: a stream of its own for every element, the same on every machine.

Each element steps a 32-bit xorshift generator (Marsaglia 2003) that begins at a mixed number; two of them give a normal
value (Box and Muller 1958). Here as NumPy has it; `rtgan.kernels.nn_functions` has the same as machine code.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]
Floats = NDArray[np.float32]
#: Kinds of values by the operations that ask for them.
KINDS = {"randn": "normal", "randn_like": "normal", "rand": "uniform", "rand_like": "uniform"}


def begin(seed: int, number: int, count: int) -> Words:
    """Where the streams of the ``number``-th state of a program begin: mixed (splitmix64), never 0."""
    x = np.arange(1, count + 1, dtype=np.uint64) + np.uint64((seed & 0xFFFFFFFF) << 32 | (number & 0xFFF) << 20)
    x *= np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return (x >> np.uint64(32)).astype(np.uint32) | np.uint32(1)


def step(state: Words) -> Words:
    """The next word of every stream."""
    state = state ^ (state << np.uint32(13))
    state = state ^ (state >> np.uint32(17))
    return state ^ (state << np.uint32(5))


def uniform(state: Words) -> Floats:
    """From 0 to below 1."""
    return ((state >> np.uint32(9)) | np.uint32(0x3F800000)).view(np.float32) - np.float32(1)


def normal(first: Words, second: Words) -> Floats:
    """Mean 0, variance 1."""
    distance: Floats = np.sqrt(np.float32(-2) * np.log(np.float32(1) - uniform(first)))
    angle: Floats = np.float32(2 * np.pi) * uniform(second)
    return distance * np.cos(angle)


class Source:
    """The values that a program draws, in its order, run after run.

    Parameters
    ----------
    seed : int
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._states: list[list[Words]] = []
        self._number = 0

    def again(self) -> None:
        """The next run begins."""
        self._number = 0

    def draw(self, kind: str, count: int) -> Floats:
        """What the next operation of a run gives."""
        if self._number == len(self._states):
            parts = 2 if kind == "normal" else 1
            self._states.append([begin(self._seed, 2 * self._number + k, count) for k in range(parts)])
        states = self._states[self._number] = [step(s) for s in self._states[self._number]]
        self._number += 1
        return normal(states[0], states[1]) if kind == "normal" else uniform(states[0])
