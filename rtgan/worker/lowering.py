"""A model to a program that becomes machine code: recorded, compared, timed. Runs in workers."""

from __future__ import annotations

import copy
import time
from typing import Any

import numpy as np
import torch

from rtgan.errors import RtganError
from rtgan.generators import library
from rtgan.generators.compile import HALF, LARGE, Net, compile
from rtgan.generators.record import Drawn, record
from rtgan.worker.dialects import Choices, Player, calling
from rtgan.worker.spec import Knob, Spec

_BLOCKS = 16


class _Whole(torch.nn.Module):
    """A model and how it is called, as one function of tensors."""

    def __init__(self, spec: Spec, choices: Choices, module: Any) -> None:
        super().__init__()
        self.inner = module
        self._call = calling(spec, choices)

    def forward(self, x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        past, now = (list(v.unbind(0)) for v in values) if values else ([], [])
        return self._call(self.inner, x, past, now)  # type: ignore[arg-type]


def lower(spec: Spec, choices: Choices, out: str) -> float:
    """Record a model and write its program; the seconds that a block of it takes.

    Raises
    ------
    RtganError
        Why it cannot: an operation and its source line, or another sound.
    """
    method = spec.method(choices.method)
    if not method.sounds_in:
        raise RtganError("it makes sound of parameters alone")
    player = Player(spec, choices)
    knobs = player.knobs
    examples = [torch.zeros(1, method.sounds_in, choices.block)]
    if knobs:
        examples += [torch.tensor([float(knob.param.default) for knob in knobs])] * 2
    module = _Whole(spec, choices, copy.deepcopy(player._pristine)).eval()
    program = record(module, examples, spec.sha256, seed=choices.seed)
    if choices.weights == HALF:
        program.meta["weights"] = HALF
    if [view.shape for view in program.outputs] != [(1, method.channels_out, choices.block)]:
        raise RtganError(f"it gives {program.outputs[0].shape} for a block of {choices.block} samples")
    net = compile(program)
    if choices.weights == HALF and not net.report["halved_weights"]:
        raise RtganError(f"it has no matrix of {LARGE} weights or more, which are all that float16 is for")
    _compare(net, _Whole(spec, choices, copy.deepcopy(player._pristine)).eval(), examples[0], knobs, choices.seed)
    program.save(out)
    return _seconds(net)


def _compare(net: Net, module: torch.nn.Module, x: torch.Tensor, knobs: list[Knob], seed: int) -> None:
    """Refuse what does not sound as TorchScript does, over some blocks with values that move."""
    rng = np.random.default_rng(3)
    arena = net.arena()
    peak = worst = 0.0
    low, high = (np.array([getattr(k.param, end) for k in knobs], np.float32) for end in ("minimum", "maximum"))
    past = np.array([k.param.default for k in knobs], np.float32)
    drawn = Drawn(seed)
    for _ in range(_BLOCKS):
        sound = (0.1 * rng.standard_normal(x.shape)).astype(np.float32)
        now = (low + (high - low) * rng.random(len(knobs))).astype(np.float32)
        given = [sound, past, now] if knobs else [sound]
        drawn.source.again()
        with torch.inference_mode(), drawn:
            wanted = module(*map(torch.from_numpy, given)).numpy()
        for place, value in zip(net.inputs, given, strict=True):
            place.of(arena)[:] = value
        net.run(arena)
        peak = max(peak, float(np.abs(wanted).max()))
        worst = max(worst, float(np.abs(net.outputs[0].of(arena) - wanted).max()))
        past = now
    off, half = worst / max(peak, 1e-6), net.report["halved_weights"]
    if not off <= (library.HALF_TOLERANCE if half else library.TOLERANCE):
        what = f"with weights of float16 it is {off:.1e}" if half else f"it lowers to something else: {off:.1e}"
        raise RtganError(f"{what} of the peak off")


def _seconds(net: Net) -> float:
    """Time of a block where nothing else comes between."""
    arena = net.arena()
    spent = []
    for _ in range(50):
        begin = time.perf_counter()
        net.run(arena)
        spent.append(time.perf_counter() - begin)
    return float(np.percentile(spent, 10))
