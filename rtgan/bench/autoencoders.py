"""Streaming autoencoders of the size and shape of RAVE (Caillon and Esling 2021) and BRAVE (Caspe et al. 2025).

Written anew, with random weights: a filter bank of 16 bands, strided convolutions down to latents, transposed ones
and dilated residual stacks back up, filtered noise beside them in the first version. All convolutions are causal and
remember their past in buffers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

_BANDS = 16
_LATENTS = 128


class _Conv(nn.Module):
    """A causal convolution that remembers what it needs of the past."""

    pad: Tensor

    def __init__(self, inputs: int, outputs: int, taps: int, stride: int = 1, dilation: int = 1, groups: int = 1):
        super().__init__()
        self.past = (taps - 1) * dilation + 1 - stride
        self.conv = nn.Conv1d(inputs, outputs, taps, stride, dilation=dilation, groups=groups, bias=False)
        self.register_buffer("pad", torch.zeros(1, inputs, self.past))

    def forward(self, x: Tensor) -> Tensor:
        line = torch.cat([self.pad, x], 2)
        self.pad.copy_(line[..., line.shape[2] - self.past :])
        y: Tensor = self.conv(line)
        return y


class _Up(nn.Module):
    """A transposed convolution whose overlap goes on in the next block."""

    cache: Tensor

    def __init__(self, inputs: int, outputs: int, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.conv = nn.ConvTranspose1d(inputs, outputs, 2 * ratio, ratio, bias=False)
        self.register_buffer("cache", torch.zeros(1, outputs, ratio))

    def forward(self, x: Tensor) -> Tensor:
        y, r = self.conv(x), self.ratio
        head = y[..., :r] + self.cache
        self.cache.copy_(y[..., y.shape[2] - r :])
        return torch.cat([head, y[..., r : y.shape[2] - r]], 2)


class _Residual(nn.Module):
    def __init__(self, width: int, taps: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList([_Conv(width, width, taps, dilation=d) for d in dilations])

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for conv in self.convs:
            y = conv(nn.functional.leaky_relu(y, 0.2))
        return x + y


class _Noise(nn.Module):
    """Noise in frames, each through a filter whose response a net tells (Engel et al. 2020)."""

    def __init__(self, width: int, ratios: Sequence[int], bins: int = 5) -> None:
        super().__init__()
        self.bins, self.frame = bins, math.prod(ratios)
        layers: list[nn.Module] = []
        for ratio in ratios:
            layers += [_Conv(width, width, 2 * ratio + 1, stride=ratio), nn.LeakyReLU(0.2)]
        self.net = nn.Sequential(*layers, _Conv(width, _BANDS * bins, 1))

    def forward(self, x: Tensor) -> Tensor:
        gains = 2 * torch.sigmoid(self.net(x) - 5) ** 2.3 + 1e-7
        gains = gains.transpose(1, 2).reshape(gains.shape[0], -1, _BANDS, self.bins)
        response = torch.fft.irfft(torch.view_as_complex(torch.stack([gains, torch.zeros_like(gains)], -1)))
        taps, frame = response.shape[-1], self.frame
        response = torch.roll(response, taps // 2, -1) * torch.hann_window(taps)
        response = torch.roll(nn.functional.pad(response, (0, frame - taps)), -(taps // 2), -1)
        noise = nn.functional.pad(2 * torch.rand_like(response) - 1, (0, frame))
        spectrum = torch.fft.rfft(noise) * torch.fft.rfft(nn.functional.pad(response, (frame, 0)))
        heard: Tensor = torch.fft.irfft(spectrum)[..., frame:]
        return heard.transpose(1, 2).reshape(x.shape[0], _BANDS, -1)


class Autoencoder(nn.Module):
    """Sound ``(1, 1, block)`` in, as much out.

    Parameters
    ----------
    capacity : int
        Channels at the rate of the bands; doubled at each stage.
    ratios : sequence of int
        Strides of the stages; with the bands they give the block's least length.
    stacks : sequence of int
        Taps of the residual stacks that stand side by side behind each stage up.
    dilations : sequence of sequence of int
        Of the convolutions of each residual layer.
    taps : int
        Length of the filter bank.
    repeats : int
        Convolutions of a stage down.
    noise : sequence of int
        Strides of the net that shapes noise, with that of the first version of RAVE; none without.
    """

    def __init__(
        self, capacity: int, ratios: Sequence[int], stacks: Sequence[int], dilations: Sequence[Sequence[int]],
        taps: int, repeats: int = 1, noise: Sequence[int] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        top = capacity << len(ratios)
        down: list[nn.Module] = [_Conv(1, _BANDS, taps, stride=_BANDS), _Conv(_BANDS, capacity, 7)]
        for k, ratio in enumerate(ratios):
            width = capacity << k
            down += [nn.BatchNorm1d(width), nn.LeakyReLU(0.2), _Conv(width, 2 * width, 2 * ratio + 1, stride=ratio)]
            for _ in range(repeats - 1):
                down += [nn.BatchNorm1d(2 * width), nn.LeakyReLU(0.2), _Conv(2 * width, 2 * width, 3)]
        down += [nn.LeakyReLU(0.2), _Conv(top, 2 * _LATENTS, 5, groups=2)]
        self.down, self.enter = nn.Sequential(*down), _Conv(_LATENTS, top, 7)
        self.ups, self.stacks = nn.ModuleList(), nn.ModuleList()
        self.sides = len(stacks)
        for k, ratio in enumerate(reversed(ratios)):
            width = top >> (k + 1)
            self.ups.append(_Up(2 * width, width, ratio) if ratio > 1 else _Conv(2 * width, width, 3))
            self.stacks += [nn.Sequential(*(_Residual(width, n, d) for d in dilations)) for n in stacks]
        self.noise = _Noise(capacity, noise) if noise else None
        self.wave, self.loud, self.out = _Conv(capacity, _BANDS, 7), _Conv(capacity, 1, 3), _Up(_BANDS, 1, _BANDS)

    def forward(self, x: Tensor) -> Tensor:
        """[any] One block."""
        y = self.enter(self.down(x)[:, :_LATENTS])
        for k, up in enumerate(self.ups):
            y = up(nn.functional.leaky_relu(y, 0.2))
            y = torch.stack([self.stacks[self.sides * k + j](y) for j in range(self.sides)]).sum(0)
        bands = torch.tanh(self.wave(y)) * torch.sigmoid(self.loud(y))
        if self.noise is not None:
            bands = bands + self.noise(y)
        out: Tensor = self.out(bands)
        return out


def _made(**shape: Any) -> nn.Module:
    torch.manual_seed(3)
    return Autoencoder(**shape).eval().requires_grad_(False)


def brave() -> tuple[nn.Module, list[tuple[int, ...]]]:
    """4 million weights, 128 samples at a time."""
    layers = [[3, 1], [9, 1], [27, 1], [36, 1]]
    return _made(capacity=32, ratios=[2, 2, 2, 1], stacks=[3], dilations=layers, taps=257), [(1, 1, 128)]


def small_rave() -> tuple[nn.Module, list[tuple[int, ...]]]:
    """1.3 million weights, 2048 samples at a time: the size made for small computers."""
    layers = [[1, 1], [3, 1], [5, 1]]
    return _made(capacity=16, ratios=[4, 4, 4, 2], stacks=[3], dilations=layers, taps=513), [(1, 1, 2048)]


def noisy_rave() -> tuple[nn.Module, list[tuple[int, ...]]]:
    """12 million weights, 2048 samples at a time: the first version, whose noise goes through Fourier transforms."""
    layers = [[1], [3], [5]]
    shape = _made(capacity=64, ratios=[4, 4, 4, 2], stacks=[3], dilations=layers, taps=513, noise=[4, 4, 4])
    return shape, [(1, 1, 2048)]


def rave() -> tuple[nn.Module, list[tuple[int, ...]]]:
    """30 million weights, 2048 samples at a time."""
    layers = [[1, 1], [3, 1], [5, 1]]
    shape = _made(capacity=64, ratios=[4, 4, 4, 2], stacks=[3, 5], dilations=layers, taps=513, repeats=2)
    return shape, [(1, 1, 2048)]
