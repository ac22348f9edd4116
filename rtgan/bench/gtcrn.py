"""A net of GTCRN's size and shape, written anew, into which the weights of its published ONNX file can be loaded.

What the file computes is known from its graph: grouped convolutions, gates by energy over time, two blocks of
recurrent nets along frequency and time, a complex mask (Rong et al. 2024). Only for comparison: the weights are
read from a file that the user names and go nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rtgan.errors import RtganError

#: Inputs: a frame, what the convolutions, the gates and the recurrent nets along time remember.
SHAPES = [(1, 257, 1, 2), (2, 1, 16, 16, 33), (2, 3, 1, 1, 16), (2, 1, 33, 16)]
_SPREADS = (1, 2, 5)
_PAST = {1: (0, 2), 2: (2, 6), 5: (6, 16)}


def _near(x: Tensor) -> Tensor:
    """Each bin beside its neighbours, as channels."""
    wide = nn.functional.pad(x, [1, 1])
    n = x.shape[3]
    parts = torch.stack([wide[..., :n], wide[..., 1 : n + 1], wide[..., 2:]], 2)
    return parts.reshape(1, 3 * x.shape[1], 1, n)


class _Gated(nn.Module):
    """Half of the channels through pointwise and dilated depthwise layers, then scaled by a gate over time."""

    def __init__(self, spread: int, up: bool) -> None:
        super().__init__()
        conv: Any = nn.ConvTranspose2d if up else nn.Conv2d
        self.enter = conv(24, 16, 1)
        self.enter_norm = nn.BatchNorm2d(16) if up else nn.Identity()
        self.enter_slope = nn.PReLU()
        edge = (2 * spread, 1) if up else (0, 1)
        self.depth = conv(16, 16, 3, padding=edge, dilation=(spread, 1), groups=16)
        self.depth_norm = nn.BatchNorm2d(16) if up else nn.Identity()
        self.depth_slope = nn.PReLU()
        self.leave = conv(16, 8, 1)
        self.leave_norm = nn.BatchNorm2d(8) if up else nn.Identity()
        self.gate, self.share = nn.GRU(8, 16, batch_first=True), nn.Linear(16, 8)

    def forward(self, x: Tensor, past: Tensor, held: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = self.enter_slope(self.enter_norm(self.enter(_near(x[:, :8]))))
        line = torch.cat([past, y], 2)
        y = self.leave_norm(self.leave(self.depth_slope(self.depth_norm(self.depth(line)))))
        g, held = self.gate((y * y).mean(3).transpose(1, 2), held)
        y = y * torch.sigmoid(self.share(g)).transpose(1, 2).unsqueeze(3)
        return torch.stack([y, x[:, 8:]], 2).reshape(1, 16, 1, 33), line[:, :, 1:], held


class _Paths(nn.Module):
    """Recurrent nets along frequency, both ways, and along time, each in two groups."""

    def __init__(self) -> None:
        super().__init__()
        self.along = nn.ModuleList([nn.GRU(8, 4, batch_first=True, bidirectional=True) for _ in range(2)])
        self.along_mix, self.along_norm = nn.Linear(16, 16), nn.LayerNorm([33, 16], eps=1e-8)
        self.through = nn.ModuleList([nn.GRU(8, 8, batch_first=True) for _ in range(2)])
        self.through_mix, self.through_norm = nn.Linear(16, 16), nn.LayerNorm([33, 16], eps=1e-8)

    def forward(self, x: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.cat([net(x[..., 8 * k : 8 * k + 8])[0] for k, net in enumerate(self.along)], 2)
        x = x + self.along_norm(self.along_mix(y))
        rows, found, kept = x.transpose(0, 1), [], []
        for k, net in enumerate(self.through):
            y, h = net(rows[..., 8 * k : 8 * k + 8], held[..., 8 * k : 8 * k + 8])
            found.append(y)
            kept.append(h)
        y = self.through_mix(torch.cat(found, 2)).transpose(0, 1)
        return x + self.through_norm(y), torch.cat(kept, 2)


class Gtcrn(nn.Module):
    """One frame ``(1, 257, 1, 2)`` and three caches in, the enhanced frame and the caches out."""

    def __init__(self) -> None:
        super().__init__()
        self.bands, self.bins = nn.Linear(192, 64, bias=False), nn.Linear(64, 192, bias=False)
        self.first, self.first_slope = nn.Conv2d(9, 16, (1, 5), (1, 2), (0, 2)), nn.PReLU()
        self.second, self.second_slope = nn.Conv2d(16, 16, (1, 5), (1, 2), (0, 2), groups=2), nn.PReLU()
        self.down = nn.ModuleList([_Gated(s, up=False) for s in _SPREADS])
        self.paths = nn.ModuleList([_Paths(), _Paths()])
        self.up = nn.ModuleList([_Gated(s, up=True) for s in reversed(_SPREADS)])
        self.fourth = nn.ConvTranspose2d(16, 16, (1, 5), (1, 2), (0, 2), groups=2)
        self.fourth_norm, self.fourth_slope = nn.BatchNorm2d(16), nn.PReLU()
        self.fifth, self.fifth_norm = nn.ConvTranspose2d(16, 2, (1, 5), (1, 2), (0, 2)), nn.BatchNorm2d(2)

    def forward(
        self, frame: Tensor, lines: Tensor, gates: Tensor, paths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[any] One frame."""
        re, im = (frame[..., k].transpose(1, 2) for k in range(2))
        x = torch.stack([torch.sqrt(re * re + im * im + 1e-12), re, im], 1)
        x = torch.cat([x[..., :65], self.bands(x[..., 65:])], 3)
        skips = [self.first_slope(self.first(_near(x)))]
        x = self.second_slope(self.second(skips[0]))
        skips.append(x)
        kept: list[list[Tensor]] = [[], []]
        held: list[list[Tensor]] = [[], []]

        def gated(block: nn.Module, x: Tensor, side: int, k: int, spread: int) -> Tensor:
            start, stop = _PAST[spread]
            x, line, h = block(x, lines[side][:, :, start:stop], gates[side, k])
            kept[side].append(line)
            held[side].append(h)
            return x

        for k, (block, spread) in enumerate(zip(self.down, _SPREADS, strict=True)):
            x = gated(block, x, 0, k, spread)
            skips.append(x)
        y, states = x.permute(0, 2, 3, 1)[0], []
        for k, block in enumerate(self.paths):
            y, h = block(y, paths[k])
            states.append(h)
        x = y.unsqueeze(0).permute(0, 3, 1, 2)
        for k, (block, spread) in enumerate(zip(self.up, reversed(_SPREADS), strict=True)):
            x = gated(block, x + skips.pop(), 1, k, spread)
        x = self.fourth_slope(self.fourth_norm(self.fourth(x + skips.pop())))
        mask = torch.tanh(self.fifth_norm(self.fifth(x + skips.pop())))
        mask = torch.cat([mask[..., :65], self.bins(mask[..., 65:])], 3)
        a, b = mask[:, 0], mask[:, 1]
        out = torch.stack([re * a - im * b, im * a + re * b], 3).transpose(1, 2)
        lines = torch.stack([torch.cat(kept[0], 2), torch.cat(kept[1][::-1], 2)])
        return out, lines, torch.stack([torch.stack(held[0]), torch.stack(held[1])]), torch.stack(states)


def _fill(target: Tensor | None, values: Any, file: Path) -> None:
    assert target is not None
    found = torch.from_numpy(np.array(values, np.float32))
    if found.numel() != target.numel():
        raise RtganError(f"{file} is not the ONNX file of GTCRN: {tuple(found.shape)} where {tuple(target.shape)} fits")
    with torch.no_grad():
        target.copy_(found.reshape(target.shape))


def load(file: Path) -> Gtcrn:
    """The net with the weights of GTCRN's streaming ONNX file.

    Raises
    ------
    RtganError
        If the file holds another net.
    """
    import onnx
    from onnx import numpy_helper

    try:
        graph = onnx.load(str(file)).graph
    except Exception as problem:
        raise RtganError(f"{file} cannot be read as ONNX: {str(problem).splitlines()[0][:200]}") from None
    known = {t.name: numpy_helper.to_array(t) for t in graph.initializer}

    def weights(*kinds: str) -> Iterator[list[Any]]:
        """The constants of each node of some kinds, in the graph's order."""
        for node in graph.node:
            if node.op_type in kinds:
                found = [known[name] for name in node.input if name in known]
                if found:
                    yield found

    net = Gtcrn().eval()
    convs, norms, slopes = weights("Conv", "ConvTranspose"), weights("BatchNormalization"), weights("PRelu")
    products, grus, sums = weights("MatMul"), weights("GRU"), weights("Add")
    gains = (v for v in weights("Mul") if v[0].shape == (33, 16))
    shifts = (v for v in sums if v[0].dtype == np.float32 and v[0].ndim >= 1)
    try:
        for module in _ran(net):
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                for target, values in zip((module.weight, module.bias), next(convs), strict=True):
                    _fill(target, values, file)
            elif isinstance(module, nn.BatchNorm2d):
                parts = (module.weight, module.bias, module.running_mean, module.running_var)
                for target, values in zip(parts, next(norms), strict=True):
                    _fill(target, values, file)
            elif isinstance(module, nn.PReLU):
                _fill(module.weight, next(slopes)[0], file)
            elif isinstance(module, nn.Linear):
                _fill(module.weight, next(products)[0].T, file)
                if module.bias is not None:
                    _fill(module.bias, next(shifts)[0], file)
            elif isinstance(module, nn.LayerNorm):
                _fill(module.weight, next(gains)[0], file)
                _fill(module.bias, next(shifts)[0], file)
            elif isinstance(module, nn.GRU):
                _fill_gru(module, next(grus), file)
    except StopIteration:
        raise RtganError(f"{file} is not the ONNX file of GTCRN: it has fewer layers") from None
    return net


def _fill_gru(module: nn.GRU, found: list[Any], file: Path) -> None:
    """ONNX has gates in the order update, reset, new; torch has reset, update, new."""
    by_rank = sorted((v for v in found if v.size and v.shape[-1] != 1), key=lambda v: -v.ndim)
    weights = [v for v in by_rank if v.ndim == 3 and v.shape[1] == 3 * module.hidden_size]
    bias = next(v for v in by_rank if v.ndim == 2)

    def turned(values: Any) -> Any:
        z, r, n = np.split(values, 3)
        return np.concatenate([r, z, n])

    for way in range(2 if module.bidirectional else 1):
        end = "_reverse" if way else ""
        for name, values in zip(("weight_ih_l0", "weight_hh_l0"), weights, strict=True):
            _fill(getattr(module, name + end), turned(values[way]), file)
        for name, values in zip(("bias_ih_l0", "bias_hh_l0"), np.split(bias[way], 2), strict=True):
            _fill(getattr(module, name + end), turned(values), file)


def _ran(net: Gtcrn) -> list[nn.Module]:
    """The layers in the order in which a frame passes them."""
    found: list[nn.Module] = []
    hooks = [
        m.register_forward_pre_hook(lambda module, _: found.append(module))
        for m in net.modules()
        if not [*m.children()]
    ]
    with torch.inference_mode():
        net(*(torch.zeros(s) for s in SHAPES))
    for hook in hooks:
        hook.remove()
    return found
