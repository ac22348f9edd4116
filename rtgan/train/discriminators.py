"""Nets that tell targets from estimates, for adversarial training.

Each takes signals ``(batch, samples)`` at unit level and returns scores ``(batch, ...)`` and its inner maps, from
which `losses.feature_matching` is taken. All are convolutional with LeakyReLU, normalised by weight (Salimans and
Kingma 2016) or spectrum (Miyato et al. 2018), and without anything that mixes examples or behaves differently in
training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from ..errors import UsageError

_NORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight": parametrizations.weight_norm,
    "spectral": parametrizations.spectral_norm,
}
_SLOPE = 0.2


class Discriminator(nn.Module):
    """A stack of convolutions; subclasses say how a signal is laid out for them."""

    layers: nn.ModuleList

    def laid_out(self, signal: Tensor) -> Tensor:
        """``(batch, samples)`` as the first layer takes it."""
        raise NotImplementedError

    def forward(self, signal: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Scores and inner maps of signals ``(batch, samples)``."""
        x = self.laid_out(signal)
        maps = []
        for layer in self.layers[:-1]:
            x = functional.leaky_relu(layer(x), _SLOPE)
            maps.append(x)
        return self.layers[-1](x), maps


class StftDiscriminator(Discriminator):
    """Looks at a compressed spectrum with convolutions dilated in time.

    Layout after Défossez et al., "EnCodec", 2022 (complex input), and Jang et al., "UnivNet", 2021 (magnitudes); the
    first layer halves the bins already, which halves the cost of all.

    Parameters
    ----------
    n_fft : int
        Length of the Hann window in samples, 64 at least; the hop is a quarter.
    input : str
        ``"complex"`` or ``"magnitude"``.
    power : float
        Exponent that magnitudes are compressed with, so that faint noise counts.
    channels : int
        Width of every layer.
    norm : str
        ``"weight"`` or ``"spectral"``.
    """

    window: Tensor

    def __init__(
        self, n_fft: int = 1024, input: str = "complex", power: float = 0.3, channels: int = 16, norm: str = "weight"
    ) -> None:
        super().__init__()
        if input not in ("complex", "magnitude"):
            raise UsageError(f"A discriminator's input is {input!r} but must be complex or magnitude.")
        if n_fft < 64 or n_fft % 4 or not 0 < power <= 1:
            raise UsageError("A discriminator's n_fft must be a multiple of 4 from 64 on, its power lie in 0..1.")
        self.n_fft, self.complex, self.power = n_fft, input == "complex", power
        window = torch.hann_window(n_fft)
        self.register_buffer("window", window / window.square().sum().sqrt(), persistent=False)
        wrap = _norm(norm)
        layers: list[nn.Module] = [wrap(nn.Conv2d(2 if self.complex else 1, channels, (3, 9), (1, 2), (1, 4)))]
        for dilation in (1, 2, 4):
            layers.append(wrap(nn.Conv2d(channels, channels, (3, 9), (1, 2), (dilation, 4), (dilation, 1))))
        layers.append(wrap(nn.Conv2d(channels, channels, 3, 1, 1)))
        layers.append(wrap(nn.Conv2d(channels, 1, 3, 1, 1)))
        self.layers = nn.ModuleList(layers)

    def laid_out(self, signal: Tensor) -> Tensor:
        """``(batch, 1 or 2, frames, bins)``."""
        spectrum = torch.fft.rfft(signal.unfold(-1, self.n_fft, self.n_fft // 4) * self.window)
        parts = torch.view_as_real(spectrum).movedim(-1, 1)
        power = parts.square().sum(1, keepdim=True) + 1e-6
        return parts * power ** ((self.power - 1) / 2) if self.complex else power ** (self.power / 2)


class PeriodDiscriminator(Discriminator):
    """Looks at every `period`-th sample (Kong, Kim and Bae, "HiFi-GAN", NeurIPS 2020).

    Parameters
    ----------
    period : int
        In samples, 2 at least.
    channels : int
        Of the first layer; they double up to the fourth.
    norm : str
        ``"weight"`` or ``"spectral"``.
    """

    def __init__(self, period: int = 2, channels: int = 8, norm: str = "weight") -> None:
        super().__init__()
        if period < 2:
            raise UsageError(f"A discriminator's period is {period} but must be at least 2.")
        self.period = period
        wrap = _norm(norm)
        widths = [1, channels, 2 * channels, 4 * channels, 8 * channels]
        layers: list[nn.Module] = [
            wrap(nn.Conv2d(inputs, outputs, (5, 1), (3, 1), (2, 0))) for inputs, outputs in pairwise(widths)
        ]
        layers.append(wrap(nn.Conv2d(widths[-1], widths[-1], (5, 1), 1, (2, 0))))
        layers.append(wrap(nn.Conv2d(widths[-1], 1, (3, 1), 1, (1, 0))))
        self.layers = nn.ModuleList(layers)

    def laid_out(self, signal: Tensor) -> Tensor:
        """``(batch, 1, samples / period, period)``, the end cut off."""
        whole = signal.shape[-1] // self.period * self.period
        return signal[:, :whole].reshape(signal.shape[0], 1, -1, self.period)


class ScaleDiscriminator(Discriminator):
    """Looks at the waveform at a lower rate (Kumar et al., "MelGAN", NeurIPS 2019).

    Parameters
    ----------
    factor : int
        By which the rate is lowered, by averaging; 1 leaves it.
    channels : int
        Of the first layer, a multiple of 4; they quadruple twice.
    norm : str
        ``"weight"`` or ``"spectral"``.
    """

    def __init__(self, factor: int = 1, channels: int = 16, norm: str = "weight") -> None:
        super().__init__()
        if factor < 1:
            raise UsageError(f"A discriminator's factor is {factor} but must be at least 1.")
        if channels % 4:
            raise UsageError(f"A discriminator's channels are {channels} but must be a multiple of 4.")
        self.factor = factor
        wrap = _norm(norm)
        layers: list[nn.Module] = [wrap(nn.Conv1d(1, channels, 15, 1, 7))]
        for width in (channels, 4 * channels):
            layers.append(wrap(nn.Conv1d(width, 4 * width, 41, 4, 20, groups=width // 4)))
        layers.append(wrap(nn.Conv1d(16 * channels, 16 * channels, 41, 4, 20, groups=16)))
        layers.append(wrap(nn.Conv1d(16 * channels, 16 * channels, 5, 1, 2)))
        layers.append(wrap(nn.Conv1d(16 * channels, 1, 3, 1, 1)))
        self.layers = nn.ModuleList(layers)

    def laid_out(self, signal: Tensor) -> Tensor:
        """``(batch, 1, samples / factor)``."""
        x = signal[:, None]
        return functional.avg_pool1d(x, 2 * self.factor, self.factor, self.factor // 2) if self.factor > 1 else x


KINDS: dict[str, type[Discriminator]] = {
    "stft": StftDiscriminator,
    "period": PeriodDiscriminator,
    "scale": ScaleDiscriminator,
}


def _norm(name: str) -> Callable[[nn.Module], nn.Module]:
    if name not in _NORMS:
        raise UsageError(f"A discriminator's norm is {name!r} but must be one of {', '.join(_NORMS)}.")
    return _NORMS[name]


class Discriminators(nn.Module):
    """All discriminators of a config: ``[{"kind": "stft" | "period" | "scale", **settings}, ...]``."""

    def __init__(self, wanted: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        if not wanted:
            raise UsageError("adversary.discriminators must name at least one.")
        self.members = nn.ModuleList()
        for entry in wanted:
            kind = entry.get("kind") if isinstance(entry, Mapping) else None
            if kind not in KINDS:
                raise UsageError(f"adversary.discriminators: kind is {kind!r} but must be one of {', '.join(KINDS)}.")
            try:
                self.members.append(KINDS[kind](**{k: v for k, v in entry.items() if k != "kind"}))
            except TypeError as error:
                raise UsageError(f"adversary.discriminators: {kind} has a wrong setting: {error}.") from error

    def forward(self, signal: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Scores and inner maps of every member."""
        scores, maps = [], []
        for member in self.members:
            score, inner = member(signal)
            scores.append(score)
            maps.append(inner)
        return scores, maps
