"""Run a torch module and its lowered form side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from rtgan.generators.compile import Net, compile
from rtgan.generators.record import record
from rtgan.kernels.nn_code import Machine

Shape = tuple[int, ...]


def tensors(result: Any) -> list[torch.Tensor]:
    """The outputs of a module, flattened."""
    if isinstance(result, torch.Tensor):
        return [result]
    return [t for part in result for t in tensors(part)]


def of_width(lanes: int, registers: int) -> Machine:
    """This machine with the tiles of another: wider vectors run in parts."""
    return replace(Machine.host(), lanes=lanes, registers=registers)


def worst(
    function: Callable[..., Any],
    shapes: Sequence[Shape],
    frames: int = 3,
    carry: Sequence[tuple[int, int]] = (),
    machine: Machine | None = None,
) -> float:
    """Largest difference between a function and its lowered form on random frames, relative to the peak."""
    torch.manual_seed(1)
    if isinstance(function, torch.nn.Module):
        function.eval()
    net = compile(record(function, [torch.zeros(s) for s in shapes]), carry, use_cache=False, machine=machine)
    return difference(function, net, shapes, frames, carry)


def difference(
    function: Callable[..., Any],
    net: Net,
    shapes: Sequence[Shape],
    frames: int,
    carry: Sequence[tuple[int, int]] = (),
) -> float:
    """The same for a net already compiled; carried state begins at zero."""
    arena, found = net.arena(), 0.0
    carried = {i: o for o, i in carry}
    states = {i: torch.zeros(shapes[i]) for i in carried}
    for _ in range(frames):
        inputs = [states[k] if k in states else torch.randn(s) for k, s in enumerate(shapes)]
        with torch.inference_mode():
            expected = tensors(function(*[t.clone() for t in inputs]))
        for k, (place, t) in enumerate(zip(net.inputs, inputs, strict=True)):
            if k not in states:
                place.of(arena)[...] = t.numpy()
        net.run(arena)
        for place, t in zip(net.outputs, expected, strict=True):
            assert place.shape == tuple(t.shape)
            gap = float(np.abs(place.of(arena) - t.numpy()).max()) / max(float(t.abs().max()), 1e-9)
            found = max(found, gap if gap == gap else np.inf)
        states = {i: expected[o] for i, o in carried.items()}
    return found
