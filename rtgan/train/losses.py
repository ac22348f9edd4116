"""What training minimises: named terms with weights, each a function of estimate and target signals.

A config lists terms under ``losses``; `LossSum` adds them up and reports each. A term is a module called with
``(estimate, target)``, both ``(batch, samples)`` at one level, so that further terms need only a new entry in
`TERMS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UsageError

_SPECTRAL_FLOOR = 1e-5  # power, where 1 is the density of a signal with unit RMS


def level_scale(noisy: Tensor, floor: float = 1e-4) -> Tensor:
    """Factor ``(batch, 1)`` that brings each noisy signal to unit RMS, so that level does not weigh examples."""
    return 1 / noisy.square().mean(-1, keepdim=True).sqrt().clamp_min(floor)


class CompressedSpectral(nn.Module):
    """Mean squared error of compressed spectra, of magnitudes and of complex values.

    Magnitudes are raised to `power` before the difference (Ephrat et al. 2018; Braun and Tashev 2021), which
    gives faint parts of the spectrum their say. Bins above 8 kHz weigh less.

    Parameters
    ----------
    power : float
        Exponent, 0..1.
    complex_share : float
        Share of the complex part, 0..1.
    n_fft : sequence of int
        One transform each, with half the length as hop.
    removal_weight : float
        Weight of the magnitude error where the estimate exceeds the target, i.e. of noise left in; 1 is even.
    """

    def __init__(
        self,
        power: float = 0.3,
        complex_share: float = 0.3,
        n_fft: Sequence[int] = (512, 1024),
        removal_weight: float = 1.0,
        sample_rate_hz: int = 48000,
    ) -> None:
        super().__init__()
        if not 0 < power <= 1 or not 0 <= complex_share <= 1:
            raise UsageError("losses.compressed.power must lie in 0..1 and complex_share in 0..1.")
        self.power, self.complex_share, self.removal_weight = power, complex_share, removal_weight
        self.sizes = tuple(int(n) for n in n_fft)
        for size in self.sizes:
            window = torch.hann_window(size)
            self.register_buffer(f"window_{size}", window / window.square().sum().sqrt(), persistent=False)
            hertz = torch.arange(size // 2 + 1) * (sample_rate_hz / size)
            weight = (8000 / hertz.clamp_min(8000)).pow(0.7)
            self.register_buffer(f"weight_{size}", weight / weight.mean(), persistent=False)

    def _compressed(self, signal: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Compressed magnitude, and real and imaginary part scaled to it."""
        window = self.get_buffer(f"window_{size}")
        pieces = signal.unfold(-1, size, size // 2) * window
        real, imag = torch.view_as_real(torch.fft.rfft(pieces)).unbind(-1)
        power = real * real + imag * imag + _SPECTRAL_FLOOR
        logarithm = torch.log(power)  # one logarithm and two exponentials are cheaper than two powers
        magnitude = torch.exp(logarithm * (self.power / 2))
        shrink = torch.exp(logarithm * ((self.power - 1) / 2))
        return magnitude, real * shrink, imag * shrink

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        """Mean over transforms, ``(batch, samples)`` twice to a scalar."""
        total = estimate.new_zeros(())
        for size in self.sizes:
            weight = self.get_buffer(f"weight_{size}")
            magnitude, real, imag = self._compressed(estimate, size)
            with torch.no_grad():
                wanted_magnitude, wanted_real, wanted_imag = self._compressed(target, size)
            error = magnitude - wanted_magnitude
            square = error * error
            if self.removal_weight != 1.0:
                excess = error.clamp_min(0)
                square = square + (self.removal_weight - 1) * excess * excess
            error_real, error_imag = real - wanted_real, imag - wanted_imag
            complex_square = error_real * error_real + error_imag * error_imag
            whole = (1 - self.complex_share) * square + self.complex_share * complex_square
            total = total + (whole * weight).mean()
        return total / len(self.sizes)


class SiSdr(nn.Module):
    """Negative scale-invariant signal-to-distortion ratio in decibel (Le Roux et al. 2019), speech only.

    Examples with a silent target are left out; ratios saturate softly at `limit_db`.
    """

    def __init__(self, limit_db: float = 30.0) -> None:
        super().__init__()
        self.floor = 10 ** (-limit_db / 10)

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        """``(batch, samples)`` twice to a scalar."""
        energy = target.square().sum(-1)
        spoken = energy > 1e-3 * target.shape[-1] * 1e-3
        scale = (estimate * target).sum(-1) / energy.clamp_min(1e-8)
        aligned = scale.unsqueeze(-1) * target
        wanted = aligned.square().sum(-1)
        error = (estimate - aligned).square().sum(-1)
        decibel = 10 * torch.log10((error + self.floor * wanted + 1e-8) / (wanted + 1e-8))
        return (decibel * spoken).sum() / spoken.sum().clamp_min(1)


TERMS: dict[str, type[nn.Module]] = {"compressed": CompressedSpectral, "si_sdr": SiSdr}


class LossSum(nn.Module):
    """Weighted sum of the terms of a config: ``{term: {"weight": w, **settings}}``."""

    def __init__(self, terms: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__()
        if not terms:
            raise UsageError("losses must name at least one term.")
        self.terms = nn.ModuleDict()
        self.weights: dict[str, float] = {}
        for name, settings in terms.items():
            if name not in TERMS:
                raise UsageError(f"losses.{name} is not known; there are {', '.join(sorted(TERMS))}.")
            options = dict(settings)
            self.weights[name] = float(options.pop("weight", 1.0))
            try:
                self.terms[name] = TERMS[name](**options)
            except TypeError as error:
                raise UsageError(f"losses.{name} has a setting that it does not know: {error}.") from error

    def forward(self, estimate: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum and each term's own value."""
        parts = {name: term(estimate, target) for name, term in self.terms.items()}
        total = torch.stack([self.weights[name] * value for name, value in parts.items()]).sum()
        return total, {name: value.detach() for name, value in parts.items()}
