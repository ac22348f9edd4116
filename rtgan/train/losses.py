"""What training minimises: named terms with weights, each a function of estimate and target signals.

A config lists terms under ``losses``; `LossSum` reports each with its weight. A term is a module called with
``(estimate, target)``, both ``(batch, samples)`` at 48 kHz and at one level, so that a further term needs only a new
entry in `TERMS`. Each is a mean over examples of a value of one example alone, so that a batch split among processes
costs what the whole batch costs. `Balancer` weighs terms by their gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UsageError
from .stft import mel_triangles

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

    Examples with a silent target count as 0 dB; ratios saturate softly at `limit_db`.
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
        return (decibel * spoken).mean()


class MultiResolutionStft(nn.Module):
    """Spectral convergence and distance of logarithmic magnitudes over several transforms.

    Yamamoto, Song and Kim, "Parallel WaveGAN", ICASSP 2020; convergence is taken per example.

    Parameters
    ----------
    n_fft : sequence of int
        One transform each, with a quarter of the length as hop.
    floor_db : float
        Magnitudes below this, relative to the density of a signal with unit RMS, count as equal to it.
    """

    def __init__(self, n_fft: Sequence[int] = (512, 1024, 2048), floor_db: float = -50.0) -> None:
        super().__init__()
        self.sizes, self.floor = tuple(int(n) for n in n_fft), 10 ** (floor_db / 10)
        for size in self.sizes:
            window = torch.hann_window(size)
            self.register_buffer(f"window_{size}", window / window.square().sum().sqrt(), persistent=False)

    def _power(self, signal: Tensor, size: int) -> Tensor:
        pieces = signal.unfold(-1, size, size // 4) * self.get_buffer(f"window_{size}")
        real, imag = torch.view_as_real(torch.fft.rfft(pieces)).unbind(-1)
        return real * real + imag * imag + self.floor

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        """``(batch, samples)`` twice to a scalar."""
        total = estimate.new_zeros(())
        for size in self.sizes:
            given, wanted = self._power(estimate, size), self._power(target, size)
            logarithm = 0.5 * (given.log() - wanted.log()).abs().mean()
            error = (given.sqrt() - wanted.sqrt()).square().sum((1, 2))
            # a silent target has no convergence to speak of: its norm is held at that of the floor
            convergence = (error + 1e-12).sqrt() / wanted.sum((1, 2)).sqrt()
            total = total + convergence.mean() + logarithm
        return total / len(self.sizes)


class MultiResolutionMel(nn.Module):
    """Mean distance of logarithmic mel spectra over several transforms, in nepers.

    Kong, Kim and Bae, "HiFi-GAN", NeurIPS 2020, there at one resolution; at several in Kumar et al., "High-Fidelity
    Audio Compression with Improved RVQGAN", NeurIPS 2023. Bands of the ear's width, which a few loud partials do not
    outweigh.

    Parameters
    ----------
    n_fft : sequence of int
        One transform each, with a quarter of the length as hop.
    bands : int
        From 0 to `highest_hz`, in each.
    floor_db : float
        Bands below this, relative to the density of a signal with unit RMS, count as equal to it.
    """

    def __init__(
        self,
        n_fft: Sequence[int] = (512, 2048),
        bands: int = 64,
        highest_hz: float = 16000.0,
        floor_db: float = -60.0,
        sample_rate_hz: int = 48000,
    ) -> None:
        super().__init__()
        if bands < 1 or not 0 < highest_hz <= sample_rate_hz / 2:
            raise UsageError("losses.mel.bands must be above 0 and highest_hz at most half the sample rate.")
        self.sizes, self.floor = tuple(int(n) for n in n_fft), 10 ** (floor_db / 10)
        for size in self.sizes:
            window = torch.hann_window(size)
            self.register_buffer(f"window_{size}", window / window.square().sum().sqrt(), persistent=False)
            bank = torch.from_numpy(mel_triangles(size // 2 + 1, size, sample_rate_hz, bands, 0.0, highest_hz)).float()
            # The mean over a band; one that lies between two bins hears nothing and is left out.
            self.register_buffer(f"bank_{size}", (bank / bank.sum(0))[:, bank.sum(0) > 0], persistent=False)

    def _logarithm(self, signal: Tensor, size: int) -> Tensor:
        pieces = signal.unfold(-1, size, size // 4) * self.get_buffer(f"window_{size}")
        real, imag = torch.view_as_real(torch.fft.rfft(pieces)).unbind(-1)
        return torch.log((real * real + imag * imag) @ self.get_buffer(f"bank_{size}") + self.floor)

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        """``(batch, samples)`` twice to a scalar."""
        total = estimate.new_zeros(())
        for size in self.sizes:
            with torch.no_grad():
                wanted = self._logarithm(target, size)
            total = total + 0.5 * (self._logarithm(estimate, size) - wanted).abs().mean()
        return total / len(self.sizes)


class Waveform(nn.Module):
    """Mean absolute difference of the samples.

    Défossez, Synnaeve and Adi, "Real Time Speech Enhancement in the Waveform Domain", Interspeech 2020.
    """

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        """``(batch, samples)`` twice to a scalar."""
        return (estimate - target).abs().mean()


class Pmsqe(nn.Module):
    """A differentiable likeness of PESQ: symmetric and asymmetric disturbance of loudness in critical bands.

    Martín-Doñas, Gomez, Gonzalez and Peinado, "A Deep Learning Loss Function Based on the Perceptual Evaluation of
    the Speech Quality", IEEE Signal Processing Letters 2018, after ITU-T P.862: power in 49 critical bands, loudness
    by Zwicker's law, a dead zone of a quarter of the softer loudness, disturbance in the 2-norm, and in the 1-norm for
    what was added rather than lost. Bands follow Schroeder's Bark formula (1979), thresholds in quiet Terhardt's
    (1979); loudness is set so that a tone of 40 dB at 1 kHz has one sone. Level and frequency response are not
    equalised as P.862 does: an enhancer should not change them.

    Frames are 32 ms with half overlap; the target's loudest frames are heard at 79 dB SPL. Examples with a silent
    target cost nothing.
    """

    window: Tensor
    filters: Tensor
    threshold: Tensor
    width: Tensor
    exponent: Tensor

    def __init__(self, sample_rate_hz: int = 48000) -> None:
        super().__init__()
        bands, top_hz = 49, 8000.0
        self.size = sample_rate_hz // 125 * 4
        hertz = torch.arange(self.size // 2 + 1, dtype=torch.float64) * sample_rate_hz / self.size
        spacing = sample_rate_hz / self.size

        def bark(frequency_hz: Tensor) -> Tensor:
            return 7 * torch.asinh(frequency_hz / 650)

        top = bark(torch.tensor(top_hz, dtype=torch.float64))
        edges = 650 * torch.sinh(torch.linspace(float(bark(hertz[1] / 2)), float(top), bands + 1).double() / 7)
        low, high = edges[:-1, None], edges[1:, None]
        # share of each bin, spacing wide, that lies in each band
        shares = (torch.minimum(high, hertz + spacing / 2) - torch.maximum(low, hertz - spacing / 2)).clamp_min(0)
        self.bins = math.ceil(top_hz / spacing) + 1
        centre = (edges[:-1] + edges[1:]) / 2
        kilohertz = centre / 1000
        quiet_db = 3.64 * kilohertz**-0.8 - 6.5 * torch.exp(-0.6 * (kilohertz - 3.3) ** 2) + 1e-3 * kilohertz**4
        width = bark(edges[1:]) - bark(edges[:-1])
        # below 4 Bark loudness grows faster with level (P.862)
        exponent = 0.23 * (6 / (bark(centre) + 2)).clamp(1.0, 2.0) ** 0.15
        window = torch.hann_window(self.size, dtype=torch.float64)
        window = window / (window.square().sum() * self.size / 2).sqrt()  # a band's sum is then the mean square in it
        for name, value in (
            ("window", window), ("filters", (shares / spacing)[:, : self.bins].t()), ("width", width),
            ("threshold", 10 ** (quiet_db.clamp_max(60) / 10)), ("exponent", exponent),
        ):  # fmt: skip
            self.register_buffer(name, value.float().contiguous(), persistent=False)
        self.scale = 1.0
        tone = 2**0.5 * 100 * torch.sin(2 * math.pi * 1000 / sample_rate_hz * torch.arange(self.size))
        self.scale = 1 / float(self.loudness(self._power(tone[None])) @ self.width)

    def loudness(self, power: Tensor) -> Tensor:
        """Sone per Bark of band powers ``(..., bands)``, where 1 is the reference sound pressure squared."""
        quiet, exponent = self.threshold, self.exponent
        raised = (0.5 + 0.5 * power / quiet) ** exponent
        return (self.scale * (quiet / 0.5) ** exponent * (raised - 1)).clamp_min(0)

    def _power(self, signal: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(signal.unfold(-1, self.size, self.size // 2) * self.window)[..., : self.bins]
        real, imag = torch.view_as_real(spectrum).unbind(-1)
        return (real * real + imag * imag) @ self.filters

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        """``(batch, samples)`` twice to a scalar."""
        given, wanted = self._power(estimate), self._power(target)
        energy = wanted.sum(-1)
        loudest = energy.amax(-1, keepdim=True)
        spoken = (loudest[:, 0] > 1e-6).to(given.dtype)
        heard = energy > loudest * 1e-3
        level = (energy * heard).sum(-1) / heard.sum(-1).clamp_min(1)
        factor = (10**7.9 / level.clamp_min(1e-6))[:, None, None]
        given, wanted = given * factor, wanted * factor
        loud, aim = self.loudness(given), self.loudness(wanted)
        difference = (loud - aim).abs()
        disturbance = (difference - 0.25 * torch.minimum(loud, aim)).clamp_min(0)
        asymmetry = ((given + 50) / (wanted + 50)) ** 1.2
        asymmetry = torch.where(asymmetry < 3, torch.zeros_like(asymmetry), asymmetry.clamp_max(12))
        whole = self.width.sum()
        weighted = disturbance * self.width
        symmetric = (weighted.square().sum(-1) / whole + 1e-12).sqrt() * whole
        asymmetric = (weighted * asymmetry).sum(-1)
        audible = ((energy * factor[..., 0] + 1e5) / 1e7) ** 0.04
        # P.862 stops counting at 45; the logarithm beyond keeps a gradient
        frames = 0.1 * _bent(symmetric / audible, 45.0) + 0.0309 * _bent(asymmetric / audible, 45.0)
        return (frames.mean(-1) * spoken).mean()


def _bent(value: Tensor, knee: float) -> Tensor:
    return torch.where(value < knee, value, knee * (1 + (value.clamp_min(knee) / knee).log()))


class Stoi(nn.Module):
    """One minus short-time objective intelligibility, differentiable.

    Taal, Hendriks, Heusdens and Jensen, "An Algorithm for Intelligibility Prediction of Time-Frequency Weighted Noisy
    Speech", IEEE TASLP 2011: at 10 kHz, correlation of the envelopes of 15 third-octave bands over 30 frames of 12.8
    ms, the estimate's clipped at 15 dB above the target's. Stretches count by their share of frames that are within
    40 dB of the loudest, where the measure itself cuts silent frames out. Examples with a silent target cost nothing.
    """

    window: Tensor
    bands: Tensor

    def __init__(self, sample_rate_hz: int = 48000) -> None:
        super().__init__()
        self.rate = sample_rate_hz
        self.register_buffer("window", torch.hann_window(256), persistent=False)
        hertz = torch.arange(257, dtype=torch.float64) * 10000 / 512
        centre = 150 * 2 ** (torch.arange(15, dtype=torch.float64) / 3)
        inside = (hertz >= centre[:, None] * 2 ** (-1 / 6)) & (hertz < centre[:, None] * 2 ** (1 / 6))
        self.register_buffer("bands", inside.t().float().contiguous(), persistent=False)

    def _stretches(self, signal: Tensor) -> tuple[Tensor, Tensor]:
        """Envelopes ``(batch, stretches, bands, 30)`` and energy of their frames ``(batch, stretches, 30)``."""
        step = self.rate // math.gcd(self.rate, 10000)
        signal = signal[..., : signal.shape[-1] // step * step]
        samples = signal.shape[-1] * 10000 // self.rate
        slow = torch.fft.irfft(torch.fft.rfft(signal)[..., : samples // 2 + 1], samples) * (10000 / self.rate)
        spectrum = torch.fft.rfft(slow.unfold(-1, 256, 128) * self.window, 512)
        real, imag = torch.view_as_real(spectrum).unbind(-1)
        power = real * real + imag * imag
        envelope = (power @ self.bands + 1e-9).sqrt()
        return envelope.unfold(1, 30, 1), power.sum(-1).unfold(1, 30, 1)

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        """``(batch, samples)`` twice, at least 0.4 s, to a scalar."""
        given, _ = self._stretches(estimate)
        with torch.no_grad():
            wanted, energy = self._stretches(target)
            loudest = energy.amax((1, 2), keepdim=True)
            share = (energy > 1e-4 * loudest).float().mean(-1)
            share = share * (loudest[..., 0] > 1e-4)
            centred = wanted - wanted.mean(-1, keepdim=True)
            centred = centred / (centred.norm(dim=-1, keepdim=True) + 1e-6)
            limit = wanted * (1 + 10 ** (15 / 20))
        given = given * (wanted.norm(dim=-1, keepdim=True) / (given.norm(dim=-1, keepdim=True) + 1e-6))
        given = torch.minimum(given, limit)
        given = given - given.mean(-1, keepdim=True)
        alike = (given * centred).sum(-1) / (given.square().sum(-1) + 1e-9).sqrt()
        apart: Tensor = ((1 - alike.mean(-1)) * share).sum(1) / share.sum(1).clamp_min(1e-6)
        return apart.mean()


class VoiceActivity(nn.Module):
    """Cross entropy of the net's voice logits, with the answer read off the clean target.

    A frame is voice where the target's mean power over `smooth_ms` up to it is within `range_db` of the loudest such
    stretch of the example, the usual energy label (e.g. Braun and Tashev, ICASSP 2021), and above `floor_db` of the
    noisy input.
    """

    def __init__(
        self, range_db: float = 30.0, floor_db: float = -45.0, smooth_ms: float = 20.0, sample_rate_hz: int = 48000
    ) -> None:
        super().__init__()
        self.share, self.floor = 10 ** (-range_db / 10), 10 ** (floor_db / 10)
        self.smooth_samples = smooth_ms * sample_rate_hz / 1000

    def label(self, target: Tensor, frames: int) -> Tensor:
        """``(batch, samples)`` with unit RMS of the noisy input to zeros and ones ``(batch, frames)``."""
        hop = target.shape[-1] // frames
        power = target[:, : frames * hop].reshape(-1, frames, hop).square().mean(-1)
        count = max(1, round(self.smooth_samples / hop))
        padded = nn.functional.pad(power, (count - 1, 0))
        power = padded.unfold(-1, count, 1).mean(-1)
        return ((power > self.share * power.amax(-1, keepdim=True)) & (power > self.floor)).to(target.dtype)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits ``(batch, frames)`` and target ``(batch, samples)`` to a scalar."""
        return nn.functional.binary_cross_entropy_with_logits(logits, self.label(target, logits.shape[-1]))


TERMS: dict[str, type[nn.Module]] = {
    "compressed": CompressedSpectral,
    "si_sdr": SiSdr,
    "stft": MultiResolutionStft,
    "mel": MultiResolutionMel,
    "waveform": Waveform,
    "pmsqe": Pmsqe,
    "stoi": Stoi,
    "voice": VoiceActivity,
}


class LossSum(nn.Module):
    """Weighted terms of a config: ``{term: {"weight": w, **settings}}``; a term of weight 0 is left out."""

    def __init__(self, terms: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__()
        self.terms = nn.ModuleDict()
        self.weights: dict[str, float] = {}
        for name, settings in terms.items():
            if name not in TERMS:
                raise UsageError(f"losses.{name} is not known; there are {', '.join(sorted(TERMS))}.")
            if not isinstance(settings, Mapping):
                raise UsageError(f"losses.{name} must be a mapping with a weight.")
            options = dict(settings)
            weight = options.pop("weight", 1.0)
            if isinstance(weight, bool) or not isinstance(weight, int | float) or weight < 0:
                raise UsageError(f"losses.{name}.weight is {weight!r} but must be a number of at least 0.")
            try:
                term = TERMS[name](**options)
            except TypeError as error:
                raise UsageError(f"losses.{name} has a setting that it does not know: {error}.") from error
            if weight > 0:
                self.terms[name], self.weights[name] = term, float(weight)
        if not set(self.terms) - {"voice"}:
            raise UsageError("losses must name at least one term of the estimate with a weight above 0.")

    def forward(self, estimate: Tensor, target: Tensor, voice: Tensor | None = None) -> dict[str, Tensor]:
        """Each term's own value, without its weight; that of `voice` logits where they are given."""
        parts = {name: term(estimate, target) for name, term in self.terms.items() if name != "voice"}
        if voice is not None and "voice" in self.terms:
            parts["voice"] = self.terms["voice"](voice, target)
        return parts

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of the values of `forward`."""
        return torch.stack([self.weights[name] * value for name, value in parts.items()]).sum()


def feature_matching(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
    """Mean distance of a discriminator's inner maps for target and estimate, relative to the target's size.

    Larsen et al. 2016; Kumar et al., "MelGAN", NeurIPS 2019; the division as in Défossez et al., "EnCodec", 2022,
    here example by example. Both arguments: discriminators, then layers, then ``(batch, ...)``.
    """
    distances = []
    for wanted, given in zip(real, fake, strict=True):
        for aim, value in zip(wanted, given, strict=True):
            error = (value - aim.detach()).abs().flatten(1).mean(1)
            distances.append((error / aim.detach().abs().flatten(1).mean(1).clamp_min(1e-3)).mean())
    return torch.stack(distances).mean()


def adversarial(scores: Sequence[Tensor], kind: str) -> Tensor:
    """What the generator wants of the scores of its estimates, a scalar.

    ``"hinge"``: Lim and Ye, "Geometric GAN", 2017. ``"least-squares"``: Mao et al., "Least Squares GAN", ICCV 2017.
    """
    if kind == "hinge":
        return torch.stack([-score.mean() for score in scores]).mean()
    return torch.stack([(1 - score).square().mean() for score in scores]).mean()


def discriminating(real: Sequence[Tensor], fake: Sequence[Tensor], kind: str) -> Tensor:
    """What the discriminators want, a scalar; papers as in `adversarial`.

    1 and more for targets and -1 and less for estimates with ``"hinge"``, 1 and 0 with ``"least-squares"``.
    """
    losses = []
    for wanted, given in zip(real, fake, strict=True):
        if kind == "hinge":
            losses.append((1 - wanted).clamp_min(0).mean() + (1 + given).clamp_min(0).mean())
        else:
            losses.append((1 - wanted).square().mean() + given.square().mean())
    return torch.stack(losses).mean()


class Balancer:
    """Weighs terms by the size of their gradient at the estimate, so that a weight is a share of the push.

    Défossez et al., "High Fidelity Neural Audio Compression" (EnCodec), 2022, section 3.4: each term's gradient is
    divided by a running mean of its norm; weights are shares of their sum.

    Parameters
    ----------
    decay : float
        Of the running mean, 0..1.
    """

    def __init__(self, decay: float = 0.99) -> None:
        self.decay = decay
        self.norms: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def gradient(
        self,
        estimate: Tensor,
        parts: Mapping[str, Tensor],
        weights: Mapping[str, float],
        average: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Gradient at `estimate`: for each example of norm 1 / batch at most, reached where the terms agree.

        Parameters
        ----------
        estimate : Tensor
            Needs a gradient; not a leaf.
        parts, weights : mapping
            Scalars and weights by name.
        average : callable
            Mean of a tensor over processes.
        """
        names = list(parts)
        gradients = [torch.autograd.grad(parts[name], estimate, retain_graph=True)[0] for name in names]
        squares = average(torch.stack([g.square().sum() for g in gradients]))
        # norms of single examples do not depend on how a batch is shared out; that of a batch is taken per example
        sizes = (squares * estimate.shape[0]).sqrt().tolist()
        whole = sum(weights[name] for name in names)
        out = torch.zeros_like(estimate)
        for name, gradient, size in zip(names, gradients, sizes, strict=True):
            if math.isfinite(size):
                done = self.counts.get(name, 0)
                self.norms[name] = self.decay * self.norms.get(name, 0.0) + (1 - self.decay) * size
                self.counts[name] = done + 1
            mean = self.norms.get(name, size) / (1 - self.decay ** self.counts.get(name, 1))
            out += gradient * (weights[name] / whole / max(mean, 1e-12))
        return out

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"norms": dict(self.norms), "counts": dict(self.counts)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.norms, self.counts = dict(state["norms"]), dict(state["counts"])
