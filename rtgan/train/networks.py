"""The denoiser: a causal recurrent net over spectra that filters low bins and gates the bands above.

The idea follows two-stage spectral enhancement (Schroeter et al., "DeepFilterNet", ICASSP 2022; Valin et al.,
"PercepNet", Interspeech 2020): band gains shape the envelope, and below some kilohertz a short complex filter
over past frames of each bin restores what lies between harmonics. Look-ahead is delay: the output of frame
``t`` is the enhanced spectrum of frame ``t - lookahead_frames``.

`Denoiser` runs over whole sequences for training and may carry several heads with different look-ahead on one
trunk; `StreamingDenoiser` is one head of it, frame by frame, with a single flat state tensor.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UsageError

_POWER_FLOOR = 1e-7  # of an unnormalised spectrum: below the rounding noise of 16-bit audio
_SILENT = -6.0  # mean log10 band power at which the running mean stops to learn


@dataclass(frozen=True)
class DenoiserSettings:
    """Shape of the net.

    Attributes
    ----------
    n_fft : int
        Frame length; there are ``n_fft // 2 + 1`` bins.
    sample_rate_hz, hop_samples : int
        Set the band edges and the time constant of the running mean.
    low_bins : int
        Bins, from 0 on, that are filtered bin by bin.
    bands : int
        Bands on the ERB scale over all bins.
    hidden : int
        Units of each recurrent layer.
    taps : tuple of int
        Delays of the filter's taps in frames, counted from the newest frame.
    lookaheads : tuple of int
        Look-ahead in frames of each head.
    mean_seconds : float
        Time constant of the running mean that takes level out of the features.
    """

    n_fft: int = 1024
    sample_rate_hz: int = 48000
    hop_samples: int = 192
    low_bins: int = 96
    bands: int = 48
    hidden: int = 144
    taps: tuple[int, ...] = (0, 2, 4)
    lookaheads: tuple[int, ...] = (0,)
    mean_seconds: float = 1.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "taps", tuple(self.taps))
        object.__setattr__(self, "lookaheads", tuple(self.lookaheads))
        for lookahead in self.lookaheads:
            if lookahead not in self.taps:
                raise UsageError(f"network.taps {list(self.taps)} must contain the look-ahead {lookahead}.")
        if not self.lookaheads or min(self.taps) < 0:
            raise UsageError("network.lookaheads must not be empty and network.taps must not be negative.")
        if not 8 <= self.low_bins <= self.bins or self.bands < 4 or self.hidden < 4:
            raise UsageError(f"network.low_bins must be 8..{self.bins}, network.bands and network.hidden at least 4.")

    @property
    def bins(self) -> int:
        """Number of frequency bins."""
        return self.n_fft // 2 + 1

    @property
    def features(self) -> int:
        """Number of inputs of the first layer."""
        return 2 * self.bands + 3 * self.low_bins

    def as_dict(self) -> dict[str, Any]:
        """Plain values for configs and cards."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def band_matrices(bands: int, n_fft: int, sample_rate_hz: int) -> tuple[Tensor, Tensor]:
    """Averages of bins into bands ``(bins, bands)``, and gains of bands back to bins ``(bands, bins)``.

    Band centres are even on the ERB-rate scale (Glasberg and Moore 1990) but never closer than two bins; the
    triangles overlap by half and interpolate linearly.
    """
    bins = n_fft // 2 + 1

    def hertz(rate: float) -> float:
        return (10 ** (rate / 21.4) - 1) / 0.00437

    top = 21.4 * math.log10(1 + 0.00437 * sample_rate_hz / 2)
    wanted = [hertz(r) * n_fft / sample_rate_hz for r in np.linspace(0, top, bands)]
    if 2 * bands > bins:
        raise UsageError(f"network.bands is {bands} but at most {bins // 2} bands fit {bins} bins.")
    centres = [0.0]
    for number, place in enumerate(wanted[1:], 1):
        centres.append(min(max(round(place), centres[-1] + 2), bins - 1 - 2 * (bands - 1 - number)))
    centres[-1] = bins - 1
    spread = np.zeros((bands, bins), np.float32)
    for band in range(bands):
        spread[band] = np.interp(np.arange(bins), centres, np.eye(bands, dtype=np.float32)[band])
    average = (spread / spread.sum(1, keepdims=True)).T
    return torch.from_numpy(np.ascontiguousarray(average)), torch.from_numpy(spread)


def _mean_rate(settings: DenoiserSettings) -> float:
    return 1 - math.exp(-settings.hop_samples / (settings.mean_seconds * settings.sample_rate_hz))


class _GruFunction(torch.autograd.Function):
    """A gated recurrent layer over ``(frames, batch, inputs)`` with backpropagation through time by hand.

    `torch.gru` on a CPU adds up the weights' gradient frame by frame; one product over all frames at the end
    halves the time of a training step.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> Tensor:
        frames, batch, size = x.shape[0], x.shape[1], w_hh.shape[1]
        gates = functional.linear(x, w_ih, b_ih)
        states = x.new_zeros(frames + 1, batch, size)
        recurrent = torch.empty_like(gates)
        turned = w_hh.t().contiguous()
        slots = zip(
            states[:-1].unbind(),
            states[1:].unbind(),
            recurrent.unbind(),
            recurrent[..., : 2 * size].unbind(),
            recurrent[..., 2 * size :].unbind(),
            gates[..., : 2 * size].unbind(),
            gates[..., :size].unbind(),
            gates[..., size : 2 * size].unbind(),
            gates[..., 2 * size :].unbind(),
            strict=True,
        )
        for before, after, all_kept, kept_switches, kept, switches, reset, update, fresh in slots:
            torch.addmm(b_hh, before, turned, out=all_kept)
            switches.add_(kept_switches).sigmoid_()
            fresh.addcmul_(reset, kept).tanh_()
            torch.lerp(fresh, before, update, out=after)
        ctx.save_for_backward(x, w_ih, w_hh, gates, states, recurrent)
        return states[1:]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        x, w_ih, w_hh, gates, states, recurrent = ctx.saved_tensors
        (gradient,) = gradients
        frames, batch, size = gradient.shape
        before = states[:-1]
        reset, update, fresh = gates.split(size, -1)
        kept = recurrent[..., 2 * size :]
        # each gate's gradient is the state's gradient times a factor that is known for all frames beforehand
        by_fresh = (1 - update) * (1 - fresh * fresh)
        by_update = (before - fresh) * update * (1 - update)
        factors = torch.stack((by_fresh * kept * reset * (1 - reset), by_update, by_fresh * reset), 2)
        onward = gradient.clone()
        gate_gradient = torch.empty_like(factors)
        slots = zip(
            onward.unbind(),
            onward.unsqueeze(2).unbind(),
            update.unbind(),
            factors.unbind(),
            gate_gradient.unbind(),
            gate_gradient.view(frames, batch, 3 * size).unbind(),
            strict=True,
        )
        steps = list(slots)
        for t in range(frames - 1, -1, -1):
            now, column, keep, factor, target, flat = steps[t]
            torch.mul(column, factor, out=target)
            if t > 0:
                earlier = steps[t - 1][0]
                earlier.addcmul_(now, keep)
                earlier.addmm_(flat, w_hh)
        flat_recurrent = gate_gradient.view(frames * batch, 3 * size)
        given = gate_gradient.clone()
        torch.mul(onward, by_fresh, out=given[:, :, 2])
        flat_given = given.view(frames * batch, 3 * size)
        return (
            (flat_given @ w_ih).view_as(x),
            flat_given.t() @ x.flatten(0, 1),
            flat_recurrent.t() @ before.flatten(0, 1),
            flat_given.sum(0),
            flat_recurrent.sum(0),
        )


class _Cell(nn.Module):
    """Weights of a gated recurrent unit, named and ordered as in `torch.nn.GRU`."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        bound = hidden**-0.5
        self.weight_ih = nn.Parameter(torch.empty(3 * hidden, inputs).uniform_(-bound, bound))
        self.weight_hh = nn.Parameter(torch.empty(3 * hidden, hidden).uniform_(-bound, bound))
        self.bias_ih = nn.Parameter(torch.empty(3 * hidden).uniform_(-bound, bound))
        self.bias_hh = nn.Parameter(torch.empty(3 * hidden).uniform_(-bound, bound))

    def sequence(self, x: Tensor) -> Tensor:
        """``(frames, batch, inputs)`` to ``(frames, batch, hidden)`` from a state of zeros."""
        if x.is_cuda:
            start = x.new_zeros(1, x.shape[1], self.weight_hh.shape[1])
            weights: list[Tensor] = [self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh]
            return torch.gru(x, start, weights, True, 1, 0.0, self.training, False, False)[0]
        apply: Callable[..., Tensor] = _GruFunction.apply
        out = apply(x, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        return out


class _Head(nn.Module):
    """From the trunk's output to gains and filter taps for one look-ahead.

    The gains are one for each low bin, then one for each band.
    """

    def __init__(self, settings: DenoiserSettings) -> None:
        super().__init__()
        self.gains = nn.Linear(settings.hidden, settings.low_bins + settings.bands)
        self.filter = nn.Linear(settings.hidden, 2 * len(settings.taps) * settings.low_bins)
        with torch.no_grad():
            self.gains.bias.fill_(1.0)
            self.gains.bias[: settings.low_bins] = 3.0
            self.filter.weight.mul_(0.2)
            self.filter.bias.zero_()


class Denoiser(nn.Module):
    """Trunk and heads over whole sequences."""

    average: Tensor
    spread: Tensor

    def __init__(self, settings: DenoiserSettings) -> None:
        super().__init__()
        self.settings = settings
        average, spread = band_matrices(settings.bands, settings.n_fft, settings.sample_rate_hz)
        self.register_buffer("average", average, persistent=False)
        self.register_buffer("spread", spread, persistent=False)
        self.enter = nn.Linear(settings.features, settings.hidden)
        self.first = _Cell(settings.hidden, settings.hidden)
        self.second = _Cell(settings.hidden, settings.hidden)
        self.heads = nn.ModuleList(_Head(settings) for _ in settings.lookaheads)

    @torch.no_grad()
    def features(self, spectrum: Tensor) -> Tensor:
        """``(batch, 2, frames, bins)`` to ``(batch, frames, features)``; nothing here is learned."""
        settings = self.settings
        low = settings.low_bins
        real, imag = spectrum[:, 0], spectrum[:, 1]
        power = real * real + imag * imag
        bands = torch.log10(power @ self.average + _POWER_FLOOR)
        rate = ((bands.mean(-1, keepdim=True) - _SILENT).clamp(0.0, 1.0) * _mean_rate(settings)).unbind(1)
        mean = torch.zeros_like(bands[:, 0])
        weight = torch.zeros_like(rate[0])
        means = []
        for now, step in zip(bands.unbind(1), rate, strict=True):
            mean = mean + step * (now - mean)
            weight = weight + step * (1.0 - weight)
            means.append(mean / (weight + 1e-5))
        floor = torch.stack(means, 1)
        level = floor.mean(-1, keepdim=True)
        bins = torch.log10(power[..., :low] + _POWER_FLOOR)
        before_real = functional.pad(real[..., :low], (0, 0, 1, -1))
        before_imag = functional.pad(imag[..., :low], (0, 0, 1, -1))
        now_real, now_imag = real[..., :low], imag[..., :low]
        before = before_real * before_real + before_imag * before_imag
        norm = torch.sqrt(power[..., :low] * before) + _POWER_FLOOR
        turn_real = (now_real * before_real + now_imag * before_imag) / norm
        turn_imag = (now_imag * before_real - now_real * before_imag) / norm
        logs = torch.cat((bands - level, bands - floor, bins - level), -1).clamp(-4.0, 4.0)
        return torch.cat((logs, turn_real, turn_imag), -1)

    def trunk(self, features: Tensor) -> Tensor:
        """``(batch, frames, features)`` to ``(batch, frames, hidden)``."""
        first = self.first.sequence(functional.leaky_relu(self.enter(features.transpose(0, 1).contiguous()), 0.1))
        return (first + self.second.sequence(first)).transpose(0, 1)

    def apply_head(self, head: int, code: Tensor, spectrum: Tensor) -> Tensor:
        """Enhance `spectrum` by what the trunk says; frame ``t`` of the result is frame ``t - lookahead``."""
        settings = self.settings
        lookahead, low = settings.lookaheads[head], settings.low_bins
        module = self.heads[head]
        assert isinstance(module, _Head)
        bins, bands = torch.split(torch.sigmoid(module.gains(code)), [low, settings.bands], -1)
        taps = module.filter(code).split(low, -1)  # real and imaginary part of each tap
        real: Tensor | float = 0.0
        imag: Tensor | float = 0.0
        for number, delay in enumerate(settings.taps):
            past_real, past_imag = functional.pad(spectrum[..., :low], (0, 0, delay, -delay)).unbind(1)
            tap_real, tap_imag = taps[2 * number], taps[2 * number + 1]
            if delay == lookahead:
                tap_real = tap_real + 1.0
            real = real + tap_real * past_real - tap_imag * past_imag
            imag = imag + tap_real * past_imag + tap_imag * past_real
        assert isinstance(real, Tensor) and isinstance(imag, Tensor)
        late = functional.pad(spectrum[..., low:], (0, 0, lookahead, -lookahead))
        gains_low = (bands @ self.spread[:, :low] * bins).unsqueeze(1)
        gains_high = (bands @ self.spread[:, low:]).unsqueeze(1)
        return torch.cat((torch.stack((real, imag), 1) * gains_low, late * gains_high), -1)

    def forward(self, spectrum: Tensor, head: int = 0) -> Tensor:
        """Enhanced spectrum ``(batch, 2, frames, bins)`` of one head, delayed by its look-ahead."""
        return self.apply_head(head, self.trunk(self.features(spectrum)), spectrum)


class StreamingDenoiser(nn.Module):
    """One head of a `Denoiser`, frame by frame, for TorchScript.

    ``forward(frame, state)`` takes the analysis spectrum ``(batch, 2, bins)`` and a state ``(batch, state_size)``
    of zeros at the start, and returns the enhanced spectrum of `lookahead` frames ago and the next state.
    """

    hidden: Final[int]
    bands: Final[int]
    low: Final[int]
    bins: Final[int]
    depth: Final[int]
    lookahead: Final[int]
    rate: Final[float]
    delays: Final[list[int]]
    state_size: Final[int]
    average: Tensor
    spread: Tensor
    enter_weight: Tensor
    enter_bias: Tensor
    first_weight_ih: Tensor
    first_weight_hh: Tensor
    first_bias_ih: Tensor
    first_bias_hh: Tensor
    second_weight_ih: Tensor
    second_weight_hh: Tensor
    second_bias_ih: Tensor
    second_bias_hh: Tensor
    gains_weight: Tensor
    gains_bias: Tensor
    filter_weight: Tensor
    filter_bias: Tensor

    def __init__(self, net: Denoiser, head: int = 0) -> None:
        super().__init__()
        settings = net.settings
        self.hidden, self.bands, self.low, self.bins = (
            settings.hidden,
            settings.bands,
            settings.low_bins,
            settings.bins,
        )
        self.lookahead = settings.lookaheads[head]
        self.depth = max(1, *settings.taps)
        self.delays = list(settings.taps)
        self.rate = _mean_rate(settings)
        module = net.heads[head]
        assert isinstance(module, _Head)

        def keep(name: str, value: Tensor) -> None:
            self.register_buffer(name, value.detach().clone().contiguous())

        keep("average", net.average)
        keep("spread", net.spread)
        keep("enter_weight", net.enter.weight)
        keep("enter_bias", net.enter.bias)
        for name, cell in (("first", net.first), ("second", net.second)):
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                keep(f"{name}_{part}", getattr(cell, part))
        keep("gains_weight", module.gains.weight)
        keep("gains_bias", module.gains.bias)
        bias = module.filter.bias.detach().clone().view(len(self.delays), 2, self.low)
        bias[self.delays.index(self.lookahead), 0] += 1.0  # the identity at the frame being enhanced
        keep("filter_weight", module.filter.weight)
        keep("filter_bias", bias.flatten())
        self.state_size = (
            2 * self.hidden + self.bands + 1 + 2 * self.depth * self.low + 2 * self.lookahead * (self.bins - self.low)
        )

    def _cell(self, x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> Tensor:
        n = self.hidden
        given = functional.linear(x, w_ih, b_ih)
        kept = functional.linear(h, w_hh, b_hh)
        reset = torch.sigmoid(given[:, :n] + kept[:, :n])
        update = torch.sigmoid(given[:, n : 2 * n] + kept[:, n : 2 * n])
        fresh = torch.tanh(given[:, 2 * n :] + reset * kept[:, 2 * n :])
        return fresh + update * (h - fresh)

    def forward(self, frame: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Enhance one frame: ``(batch, 2, bins), (batch, state_size)`` to the same shapes."""
        low, high = self.low, self.bins - self.low
        at = 2 * self.hidden
        h1, h2 = state[:, : self.hidden], state[:, self.hidden : at]
        mean, weight = state[:, at : at + self.bands], state[:, at + self.bands : at + self.bands + 1]
        at += self.bands + 1
        past = state[:, at : at + 2 * self.depth * low]
        at += 2 * self.depth * low
        late = state[:, at:]

        now = frame[:, :, :low]
        power = frame[:, 0] * frame[:, 0] + frame[:, 1] * frame[:, 1]
        bands = torch.log10(torch.matmul(power, self.average) + 1e-7)
        step = torch.clamp(torch.mean(bands, 1, keepdim=True) + 6.0, 0.0, 1.0) * self.rate
        mean = mean + step * (bands - mean)
        weight = weight + step * (1.0 - weight)
        floor = mean / (weight + 1e-5)
        level = torch.mean(floor, 1, keepdim=True)
        bins = torch.log10(power[:, :low] + 1e-7)
        newest = 2 * (self.depth - 1) * low
        before_real, before_imag = past[:, newest : newest + low], past[:, newest + low :]
        before = before_real * before_real + before_imag * before_imag
        norm = torch.sqrt(power[:, :low] * before) + 1e-7
        turn_real = (now[:, 0] * before_real + now[:, 1] * before_imag) / norm
        turn_imag = (now[:, 1] * before_real - now[:, 0] * before_imag) / norm
        logs = torch.clamp(torch.cat((bands - level, bands - floor, bins - level), 1), -4.0, 4.0)
        x = torch.cat((logs, turn_real, turn_imag), 1)

        x = functional.linear(x, self.enter_weight, self.enter_bias)
        x = torch.maximum(x, x * 0.1)
        h1 = self._cell(x, h1, self.first_weight_ih, self.first_weight_hh, self.first_bias_ih, self.first_bias_hh)
        h2 = self._cell(h1, h2, self.second_weight_ih, self.second_weight_hh, self.second_bias_ih, self.second_bias_hh)
        code = h1 + h2
        gains = torch.sigmoid(functional.linear(code, self.gains_weight, self.gains_bias))
        bin_gains = gains[:, :low]
        gains = torch.matmul(gains[:, low:], self.spread)
        taps = functional.linear(code, self.filter_weight, self.filter_bias)

        seen = torch.cat((past, now[:, 0], now[:, 1]), 1)
        real = torch.zeros_like(turn_real)
        imag = torch.zeros_like(turn_real)
        for number, delay in enumerate(self.delays):
            a = 2 * number * low
            b = 2 * (self.depth - delay) * low
            tap_real, tap_imag = taps[:, a : a + low], taps[:, a + low : a + 2 * low]
            seen_real, seen_imag = seen[:, b : b + low], seen[:, b + low : b + 2 * low]
            real = real + tap_real * seen_real - tap_imag * seen_imag
            imag = imag + tap_real * seen_imag + tap_imag * seen_real
        upper = torch.cat((late, frame[:, 0, low:], frame[:, 1, low:]), 1)
        out_real = torch.cat((real * bin_gains, upper[:, :high]), 1) * gains
        out_imag = torch.cat((imag * bin_gains, upper[:, high : 2 * high]), 1) * gains
        out = torch.stack((out_real, out_imag), 1)
        return out, torch.cat((h1, h2, mean, weight, seen[:, 2 * low :], upper[:, 2 * high :]), 1)


def stream(module: nn.Module, spectrum: Tensor, state_size: int) -> Tensor:
    """Run a streaming module over ``(batch, 2, frames, bins)``, one frame after the other."""
    state = spectrum.new_zeros(spectrum.shape[0], state_size)
    out = []
    for frame in spectrum.unbind(2):
        enhanced, state = module(frame, state)
        out.append(enhanced)
    return torch.stack(out, 2)


def count_parameters(net: nn.Module) -> int:
    """Number of learned values."""
    return sum(p.numel() for p in net.parameters())


def macs_per_frame(settings: DenoiserSettings) -> int:
    """Multiply-accumulates of one frame with one head."""
    hidden, low = settings.hidden, settings.low_bins
    dense = (
        settings.features * hidden
        + 12 * hidden * hidden
        + hidden * (settings.bands + (2 * len(settings.taps) + 1) * low)
    )
    return dense + 2 * settings.bands * settings.bins + 4 * len(settings.taps) * low


def pick(values: Sequence[int], wanted: int) -> int:
    """Index of a head by its look-ahead."""
    if wanted not in values:
        raise UsageError(f"The net has no head with look-ahead {wanted}; it has {list(values)}.")
    return list(values).index(wanted)
