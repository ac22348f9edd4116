"""The denoiser: a small recurrent net that shares its weights over frequency and over time.

Bins are pooled into rows, each row is described by what does not depend on level or place, convolutions over
frequency shrink the rows, then recurrences alternate: along time within each row, and along frequency, both ways,
within each frame (dual-path recurrence: Le et al., "DPCRN", Interspeech 2021; Rong et al., "GTCRN", ICASSP 2024).
Out comes a complex gain per row, and how likely somebody speaks.

`Denoiser` runs over whole sequences for training; `StreamingDenoiser` is the same net frame by frame, with batch
normalisation folded into the weights and a single flat state tensor.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UsageError

_POWER_FLOOR = 1e-7  # of an unnormalised spectrum: below the rounding noise of 16-bit audio
_SILENT = -6.0  # mean log10 row power at which the running mean stops to learn
_FEATURES = 6


@dataclass(frozen=True)
class DenoiserSettings:
    """Shape of the net.

    Attributes
    ----------
    n_fft : int
        Frame length; there are ``n_fft // 2 + 1`` bins, of which the last joins the row below it.
    sample_rate_hz, hop_samples : int
        Latency is two hops.
    phases : int
        Frames are dealt out to this many copies of the recurrent state in turn: a net of a small hop then remembers
        in the same steps as one of `phases` times the hop.
    rows : tuple of tuple of int
        ``(count, width)`` from low to high frequency: `count` rows of `width` bins each. There must be a multiple of
        four rows and they must cover all bins but the last.
    narrow, wide : int
        Channels behind the first convolution and behind the second.
    blocks : int
        Pairs of a recurrence over time and one over frequency.
    mean_seconds : float
        Time constant of the running mean that takes level out of the features.
    smoothing, near : float
        In use (not in training) what comes out is smoothed: a bin whose level lies nearer than `near` (natural
        logarithm of magnitude) to where it was a frame of its phase before is drawn there by up to this share, the
        nearer the more. Gains tremble where the voice does not; what begins or ends lies further away and stays, and
        so does what passes untouched: all of this from a gain of one half on. 0 for none.
    """

    n_fft: int = 1536
    sample_rate_hz: int = 48000
    hop_samples: int = 480
    phases: int = 1
    rows: tuple[tuple[int, int], ...] = ((64, 1), (32, 2), (16, 8), (16, 32))
    narrow: int = 16
    wide: int = 32
    blocks: int = 3
    mean_seconds: float = 1.5
    smoothing: float = 0.0
    near: float = 1.5

    def __post_init__(self) -> None:
        try:
            rows = tuple((int(count), int(width)) for count, width in self.rows)
        except (TypeError, ValueError):
            raise UsageError("network.rows must be a list of [count, width] pairs.") from None
        object.__setattr__(self, "rows", rows)
        if any(count < 1 or width < 1 for count, width in rows) or sum(c * w for c, w in rows) != self.bins - 1:
            raise UsageError(f"network.rows must cover {self.bins - 1} bins, the sum of count times width.")
        if self.row_count % 4:
            raise UsageError(f"network.rows makes {self.row_count} rows, which is no multiple of four.")
        if min(self.narrow, self.wide // 2, self.blocks, self.phases) < 1 or self.narrow % 2 or self.wide % 2:
            raise UsageError(
                "network.narrow and network.wide must be even, network.blocks and network.phases positive."
            )
        if not 0 <= self.smoothing < 1 or self.near <= 0:
            raise UsageError("network.smoothing must be at least 0 and less than 1, and network.near above 0.")

    @property
    def bins(self) -> int:
        """Number of frequency bins."""
        return self.n_fft // 2 + 1

    @property
    def row_count(self) -> int:
        """Number of rows."""
        return sum(count for count, _ in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for configs and cards."""
        return asdict(self) | {"rows": [list(pair) for pair in self.rows]}


def _mean_rate(settings: DenoiserSettings) -> float:
    step = settings.hop_samples * settings.phases
    return 1 - math.exp(-step / (settings.mean_seconds * settings.sample_rate_hz))


def pool(x: Tensor, rows: list[tuple[int, int]]) -> Tensor:
    """Means over the bins of each row: ``(..., bins)`` to ``(..., rows)``; the last bin is left out."""
    parts: list[Tensor] = []
    at = 0
    for count, width in rows:
        part = x[..., at : at + count * width]
        parts.append(part if width == 1 else part.unflatten(-1, (count, width)).mean(-1))  # type: ignore[no-untyped-call]
        at += count * width
    return torch.cat(parts, -1)


def spread(x: Tensor, rows: list[tuple[int, int]]) -> Tensor:
    """Values of rows on every one of their bins: ``(..., rows)`` to ``(..., bins)``; the last bin takes the last."""
    parts: list[Tensor] = []
    at = 0
    for count, width in rows:
        part = x[..., at : at + count]
        parts.append(part if width == 1 else part.unsqueeze(-1).expand(list(part.shape) + [width]).flatten(-2))  # noqa: RUF005 (scripted)
        at += count
    parts.append(x[..., at - 1 :])
    return torch.cat(parts, -1)


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


class _Convolution(nn.Module):
    """Over frequency only, normalised over the batch; maps are ``(frames, channels, rows, 1)``, channels last."""

    def __init__(self, inputs: int, outputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.filter = nn.Conv2d(inputs, outputs, (width, 1), (stride, 1), (width // 2, 0), bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = functional.leaky_relu(self.norm(self.filter(x)), 0.1)
        return y

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight ``(outputs, inputs, width)`` and bias with the normalisation in them."""
        weight, bias = _folded(self.norm)
        return (self.filter.weight[..., 0] * weight[:, None, None]).detach(), bias.detach()


def _folded(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


class Block(nn.Module):
    """A recurrence along time and one along frequency, each with a residual path around it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.time = _Cell(channels, channels)
        self.time_out = nn.Linear(channels, channels, bias=False)
        self.time_norm = nn.BatchNorm1d(channels)
        self.up = _Cell(channels, channels // 2)
        self.down = _Cell(channels, channels // 2)
        self.row_out = nn.Linear(channels // 2 * 2, channels, bias=False)
        self.row_norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(frames, batch, rows, channels)`` to the same."""
        frames, batch, rows, channels = x.shape
        y = self.time_out(self.time.sequence(x.reshape(frames, batch * rows, channels)))
        x = x + self.time_norm(y.reshape(-1, channels)).view_as(x)
        across = x.reshape(frames * batch, rows, channels).transpose(0, 1).contiguous()
        both = torch.cat((self.up.sequence(across), self.down.sequence(across.flip(0)).flip(0)), -1)
        y = self.row_out(both).transpose(0, 1)
        return x + self.row_norm(y.reshape(-1, channels)).view_as(x)  # type: ignore[no-any-return]

    def begin_as_identity(self) -> None:
        """Do nothing until training finds something to do."""
        for norm in (self.time_norm, self.row_norm):
            nn.init.zeros_(norm.weight)
            nn.init.zeros_(norm.bias)

    def folded(self, way: str) -> tuple[Tensor, Tensor]:
        """Output layer of the ``"time"`` or ``"row"`` recurrence with the normalisation in it."""
        linear, norm = (self.time_out, self.time_norm) if way == "time" else (self.row_out, self.row_norm)
        scale, bias = _folded(norm)
        return (linear.weight * scale[:, None]).detach(), bias.detach()


class Denoiser(nn.Module):
    """The net over whole sequences."""

    turn: Tensor

    def __init__(self, settings: DenoiserSettings) -> None:
        super().__init__()
        self.settings = settings
        narrow, wide = settings.narrow, settings.wide
        self.register_buffer("turn", _expected_turn(settings), persistent=False)
        self.first = _Convolution(_FEATURES, narrow, 5, 2)
        self.second = _Convolution(narrow, wide, 5, 2)
        self.third = _Convolution(wide, wide, 3)
        self.blocks = nn.ModuleList(Block(wide) for _ in range(settings.blocks))
        self.rise = _Convolution(wide, 2 * narrow, 3)
        self.rise_again = _Convolution(narrow, 2 * narrow, 3)
        self.gains = nn.Conv2d(narrow + _FEATURES, 3, (3, 1), padding=(1, 0))
        self.voice = nn.Linear(wide, 1)
        with torch.no_grad():
            assert self.gains.bias is not None
            self.gains.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def features(self, spectrum: Tensor) -> Tensor:
        """``(batch, 2, frames, bins)`` to ``(frames, batch, rows, 6)``; nothing here is learned."""
        rows = list(self.settings.rows)
        real, imag = spectrum.permute(1, 2, 0, 3)  # (frames, batch, bins)
        power = real * real + imag * imag
        loud = pool(power, rows) + _POWER_FLOOR
        logs = torch.log10(loud)
        rate = (logs.mean(-1, keepdim=True) - _SILENT).clamp(0.0, 1.0) * _mean_rate(self.settings)
        mean = torch.zeros_like(logs[0])
        weight = torch.zeros_like(rate[0])
        means = []
        for now, step in zip(logs.unbind(0), rate.unbind(0), strict=True):
            mean = mean + step * (now - mean)
            weight = weight + step * (1.0 - weight)
            means.append(mean / (weight + 1e-5))
        floor = torch.stack(means)
        level = floor.mean(-1, keepdim=True)

        def earlier(x: Tensor) -> Tensor:
            return functional.pad(x[:-1], (0, 0, 0, 0, 1, 0))

        def below(x: Tensor) -> Tensor:
            return functional.pad(x[..., :-1], (1, 0))

        before_real, before_imag = earlier(real), earlier(imag)
        along = real * before_real + imag * before_imag
        across = imag * before_real - real * before_imag
        norm = torch.sqrt(loud * (earlier(loud - _POWER_FLOOR) + _POWER_FLOOR))
        turn_real = pool(along * self.turn[0] - across * self.turn[1], rows) / norm
        turn_imag = pool(along * self.turn[1] + across * self.turn[0], rows) / norm
        real_below, imag_below = below(real), below(imag)
        norm = pool((power + below(power)) * 0.5, rows) + _POWER_FLOOR
        lag_real = pool(real * real_below + imag * imag_below, rows) / norm
        lag_imag = pool(imag * real_below - real * imag_below, rows) / norm
        near = (logs - level).clamp(-4.0, 4.0)
        far = (logs - floor).clamp(-4.0, 4.0)
        return torch.stack((near, far, turn_real, turn_imag, lag_real, lag_imag), -1)

    def row_gains(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Raw gains ``(frames, batch, 3, rows)`` and voice logits ``(frames, batch)``."""
        frames, batch, rows, _ = features.shape

        def as_map(x: Tensor) -> Tensor:
            return x.reshape(frames * batch, x.shape[-2], 1, x.shape[-1]).permute(0, 3, 1, 2)

        def as_rows(x: Tensor) -> Tensor:
            return x.permute(0, 2, 3, 1).reshape(frames, batch, x.shape[2], x.shape[1])

        def doubled(x: Tensor) -> Tensor:
            x = as_rows(x)
            return as_map(x.reshape(frames, batch, 2 * x.shape[2], x.shape[3] // 2))

        whole = as_map(features)
        half = self.first(whole)
        quarter = self.second(half)
        x = as_rows(self.third(quarter))
        for block in self.blocks:
            x = block(x)
        voice = self.voice(x.mean(2))[..., 0]
        y = doubled(self.rise(as_map(x) + quarter))
        y = doubled(self.rise_again(y + half))
        y = self.gains(torch.cat((y, whole), 1))
        return y.permute(0, 3, 1, 2).reshape(frames, batch, 3, rows), voice

    def forward(self, spectrum: Tensor, one_phase: bool = False) -> tuple[Tensor, Tensor]:
        """Enhanced spectrum ``(batch, 2, frames, bins)``, and voice logits ``(batch, frames)``.

        With `one_phase` the frames given are those of a single phase, `phases` hops apart.
        """
        batch, _, frames, bins = spectrum.shape
        phases = 1 if one_phase else self.settings.phases
        whole = functional.pad(spectrum, (0, 0, 0, -frames % phases))
        dealt = whole.unflatten(2, (-1, phases)).permute(0, 3, 1, 2, 4).reshape(batch * phases, 2, -1, bins)  # type: ignore[no-untyped-call]
        gains, voice = self.row_gains(self.features(dealt))
        gain, real, imag = gains.permute(2, 1, 0, 3)  # (batch * phases, frames, rows)
        gain = torch.sigmoid(gain)
        rows = list(self.settings.rows)
        gain_real = spread(gain * (1.0 + torch.tanh(real)), rows)
        gain_imag = spread(gain * torch.tanh(imag), rows)
        a, b = dealt.unbind(1)
        out = torch.stack((a * gain_real - b * gain_imag, a * gain_imag + b * gain_real), 1)
        if self.settings.smoothing and not self.training:
            out = smoothed(dealt, out, self.settings.smoothing, self.settings.near)
        out = out.view(batch, phases, 2, -1, bins).permute(0, 2, 3, 1, 4).reshape(batch, 2, -1, bins)
        voice = voice.view(-1, batch, phases).permute(1, 0, 2).reshape(batch, -1)
        return out[:, :, :frames], voice[:, :frames]


def smoothed(given: Tensor, made: Tensor, share: float, near: float) -> Tensor:
    """Spectra `made` ``(batch, 2, frames, bins)`` of those given, their levels with inertia: see `DenoiserSettings`."""
    last, moves = torch.zeros_like(made[:, 0, 0]), []
    for before, after in zip(given.unbind(2), made.unbind(2), strict=True):
        move, last = inertia(before, after, last, share, near)
        moves.append(move)
    return made * torch.exp(torch.stack(moves, 1)).unsqueeze(1)


def inertia(given: Tensor, made: Tensor, last: Tensor, share: float, near: float) -> tuple[Tensor, Tensor]:
    """Logarithms of what a frame ``(batch, 2, bins)`` is to be multiplied by, and of its level then."""
    level = _loudness(made)
    removed = torch.clamp(2.0 - 2.0 * torch.exp(level - _loudness(given)), 0.0, 1.0)
    away = last - level
    move = removed * away * torch.clamp(1.0 - torch.abs(away) / near, 0.0, 1.0) * share
    return move, level + move


def _loudness(frame: Tensor) -> Tensor:
    """Natural logarithm of magnitude above that of silence, which is 1e-9 of power."""
    return 0.5 * torch.log((frame[:, 0] * frame[:, 0] + frame[:, 1] * frame[:, 1]) * 1e9 + 1.0)


def unfolded(weights: Mapping[str, Tensor], settings: DenoiserSettings, example: Tensor) -> Denoiser:
    """The net that a `StreamingDenoiser` was made of, so that it can be trained on.

    Parameters
    ----------
    weights : mapping of str to Tensor
        The streaming net's, by name.
    settings : DenoiserSettings
        Of the same shape; hop and phases may differ.
    example : Tensor
        Spectrum ``(batch, 2, frames, bins)`` of noisy speech. What the normalisations divide by went into the
        weights and is measured on it anew, so that the net does the same in training as it does in use.

    Raises
    ------
    UsageError
        If the weights are of another net.
    """
    net = Denoiser(settings)
    pairs: list[tuple[Tensor, str]] = [
        (net.gains.weight[..., 0], "gains_weight"), (net.gains.bias, "gains_bias"),  # type: ignore[list-item]
        (net.voice.weight, "voice_weight"), (net.voice.bias, "voice_bias"),
    ]  # fmt: skip
    for name in ("first", "second", "third", "rise", "rise_again"):
        layer = getattr(net, name)
        pairs += [(layer.filter.weight[..., 0], f"{name}_weight"), (layer.norm.bias, f"{name}_bias")]
    for number, block in enumerate(net.blocks):
        assert isinstance(block, Block)
        for cell in ("time", "up", "down"):
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                pairs.append((getattr(getattr(block, cell), part), f"blocks.{number}.{cell}_{part}"))
        for way, linear, norm in (("time", block.time_out, block.time_norm), ("row", block.row_out, block.row_norm)):
            pairs.append((linear.weight, f"blocks.{number}.{way}_out_weight"))
            pairs.append((norm.bias, f"blocks.{number}.{way}_out_bias"))
    known = {name for name in weights if name != "turn"}
    if known != {name for _, name in pairs} or any(to.shape != weights[name].shape for to, name in pairs):
        raise UsageError("The model's weights do not fit the config's network.")

    def measure(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
        assert norm.running_mean is not None and norm.running_var is not None
        values = inputs[0].transpose(0, 1).flatten(1)
        norm.running_mean.copy_(values.mean(1))
        norm.running_var.copy_(values.var(1))
        norm.weight.copy_(torch.sqrt(norm.running_var + norm.eps))
        norm.bias.add_(norm.running_mean)

    with torch.no_grad():
        for target, name in pairs:
            target.copy_(weights[name])
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
        hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
        net.eval()(example)
        for hook in hooks:
            hook.remove()
    return net


def _expected_turn(settings: DenoiserSettings) -> Tensor:
    """Cosine and sine ``(2, bins)`` that undo how far the centre of each bin turns from frame to frame."""
    turns = torch.arange(settings.bins, dtype=torch.float64) * settings.hop_samples * settings.phases / settings.n_fft
    angle = -2 * math.pi * (turns % 1.0)
    return torch.stack((torch.cos(angle), torch.sin(angle))).float()


class StreamingDenoiser(nn.Module):
    """A `Denoiser` frame by frame, for TorchScript.

    ``forward(frame, state)`` takes the analysis spectrum ``(1, 2, bins)`` and a state ``(1, state_size)`` of zeros at
    the start, and returns the enhanced spectrum, the next state and the chance that somebody speaks ``(1, 1)``.
    """

    rows: list[tuple[int, int]]
    row_count: Final[int]
    bins: Final[int]
    wide: Final[int]
    narrow: Final[int]
    phase_size: Final[int]
    rate: Final[float]
    smoothing: Final[float]
    near: Final[float]
    state_size: Final[int]
    turn: Tensor
    first_weight: Tensor
    first_bias: Tensor
    second_weight: Tensor
    second_bias: Tensor
    third_weight: Tensor
    third_bias: Tensor
    rise_weight: Tensor
    rise_bias: Tensor
    rise_again_weight: Tensor
    rise_again_bias: Tensor
    gains_weight: Tensor
    gains_bias: Tensor
    voice_weight: Tensor
    voice_bias: Tensor

    def __init__(self, net: Denoiser) -> None:
        super().__init__()
        settings = net.settings
        self.rows = list(settings.rows)
        self.row_count, self.bins = settings.row_count, settings.bins
        self.wide, self.narrow = settings.wide, settings.narrow
        self.rate = _mean_rate(settings)
        self.smoothing, self.near = settings.smoothing, settings.near
        hidden = settings.row_count // 4 * settings.wide
        spectra = 3 if settings.smoothing else 2
        self.phase_size = settings.blocks * hidden + settings.row_count + 1 + spectra * settings.bins
        self.state_size = settings.phases * self.phase_size
        self.register_buffer("turn", net.turn.detach().clone())
        for name in ("first", "second", "third", "rise", "rise_again"):
            layer = getattr(net, name)
            assert isinstance(layer, _Convolution)
            weight, bias = layer.folded()
            self.register_buffer(f"{name}_weight", weight.contiguous())
            self.register_buffer(f"{name}_bias", bias.contiguous())
        assert net.gains.bias is not None
        self.register_buffer("gains_weight", net.gains.weight[..., 0].detach().contiguous())
        self.register_buffer("gains_bias", net.gains.bias.detach().clone())
        self.register_buffer("voice_weight", net.voice.weight.detach().clone())
        self.register_buffer("voice_bias", net.voice.bias.detach().clone())
        self.blocks = nn.ModuleList(_StreamingBlock(block) for block in net.blocks if isinstance(block, Block))

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
        y = functional.conv1d(x, weight, bias, [stride], [weight.shape[2] // 2])
        return torch.maximum(y, y * 0.1)

    def _doubled(self, x: Tensor) -> Tensor:
        channels = x.shape[1] // 2
        return x.view(1, 2, channels, -1).permute(0, 2, 3, 1).reshape(1, channels, -1)

    def forward(self, frame: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Enhance one frame."""
        rows, count, bins = self.rows, self.row_count, self.bins
        hidden = count // 4 * self.wide
        at = len(self.blocks) * hidden
        mean, weight = state[:, at : at + count], state[:, at + count : at + count + 1]
        at += count + 1
        before_real, before_imag = state[:, at : at + bins], state[:, at + bins : at + 2 * bins]

        real, imag = frame[:, 0], frame[:, 1]
        power = real * real + imag * imag
        loud = pool(power, rows) + 1e-7
        logs = torch.log10(loud)
        step = torch.clamp(torch.mean(logs, 1, keepdim=True) + 6.0, 0.0, 1.0) * self.rate
        mean = mean + step * (logs - mean)
        weight = weight + step * (1.0 - weight)
        floor = mean / (weight + 1e-5)
        level = torch.mean(floor, 1, keepdim=True)
        along = real * before_real + imag * before_imag
        across = imag * before_real - real * before_imag
        norm = torch.sqrt(loud * (pool(before_real * before_real + before_imag * before_imag, rows) + 1e-7))
        turn_real = pool(along * self.turn[0] - across * self.turn[1], rows) / norm
        turn_imag = pool(along * self.turn[1] + across * self.turn[0], rows) / norm
        real_below = functional.pad(real[:, : bins - 1], [1, 0])
        imag_below = functional.pad(imag[:, : bins - 1], [1, 0])
        power_below = functional.pad(power[:, : bins - 1], [1, 0])
        norm = pool((power + power_below) * 0.5, rows) + 1e-7
        lag_real = pool(real * real_below + imag * imag_below, rows) / norm
        lag_imag = pool(imag * real_below - real * imag_below, rows) / norm
        near = torch.clamp(logs - level, -4.0, 4.0)
        far = torch.clamp(logs - floor, -4.0, 4.0)
        whole = torch.stack((near, far, turn_real, turn_imag, lag_real, lag_imag), 1)  # (1, features, rows)

        half = self._convolve(whole, self.first_weight, self.first_bias, 2)
        quarter = self._convolve(half, self.second_weight, self.second_bias, 2)
        x = self._convolve(quarter, self.third_weight, self.third_bias, 1)[0].t()
        kept: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            x, h = block(x, state[0, number * hidden : (number + 1) * hidden].view(-1, self.wide))
            kept.append(h.reshape(1, hidden))
        voice = torch.sigmoid(functional.linear(torch.mean(x, 0, keepdim=True), self.voice_weight, self.voice_bias))
        y = self._convolve(x.t().unsqueeze(0) + quarter, self.rise_weight, self.rise_bias, 1)
        y = self._convolve(self._doubled(y) + half, self.rise_again_weight, self.rise_again_bias, 1)
        y = self._doubled(y)
        y = functional.conv1d(torch.cat((y, whole), 1), self.gains_weight, self.gains_bias, [1], [1])
        gain = torch.sigmoid(y[:, 0])
        gain_real = spread(gain * (1.0 + torch.tanh(y[:, 1])), rows)
        gain_imag = spread(gain * torch.tanh(y[:, 2]), rows)
        out = torch.stack((real * gain_real - imag * gain_imag, real * gain_imag + imag * gain_real), 1)
        kept += [mean, weight, real, imag]
        if self.smoothing > 0.0:
            at += 2 * bins
            move, level = inertia(frame, out, state[:, at : at + bins], self.smoothing, self.near)
            kept.append(level)
            out = out * torch.exp(move).unsqueeze(1)
        return out, torch.cat((state[:, self.phase_size :], torch.cat(kept, 1)), 1), voice


class _StreamingBlock(nn.Module):
    """One step of a `Block`."""

    time_weight_ih: Tensor
    time_weight_hh: Tensor
    time_bias_ih: Tensor
    time_bias_hh: Tensor
    up_weight_ih: Tensor
    up_weight_hh: Tensor
    up_bias_ih: Tensor
    up_bias_hh: Tensor
    down_weight_ih: Tensor
    down_weight_hh: Tensor
    down_bias_ih: Tensor
    down_bias_hh: Tensor
    time_out_weight: Tensor
    time_out_bias: Tensor
    row_out_weight: Tensor
    row_out_bias: Tensor

    def __init__(self, block: Block) -> None:
        super().__init__()
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            self.register_buffer(f"time_{name}", getattr(block.time, name).detach().clone())
            self.register_buffer(f"up_{name}", getattr(block.up, name).detach().clone())
            self.register_buffer(f"down_{name}", getattr(block.down, name).detach().clone())
        for way in ("time", "row"):
            weight, bias = block.folded(way)
            self.register_buffer(f"{way}_out_weight", weight)
            self.register_buffer(f"{way}_out_bias", bias)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Rows ``(rows, channels)`` and their state of the same shape."""
        h = torch.gru_cell(x, h, self.time_weight_ih, self.time_weight_hh, self.time_bias_ih, self.time_bias_hh)
        x = x + functional.linear(h, self.time_out_weight, self.time_out_bias)
        start = torch.zeros(2, 1, x.shape[1] // 2)
        weights = [
            self.up_weight_ih, self.up_weight_hh, self.up_bias_ih, self.up_bias_hh,
            self.down_weight_ih, self.down_weight_hh, self.down_bias_ih, self.down_bias_hh,
        ]  # fmt: skip
        both = torch.gru(x.unsqueeze(1), start, weights, True, 1, 0.0, False, True, False)[0]
        return x + functional.linear(both[:, 0], self.row_out_weight, self.row_out_bias), h


def stream(module: nn.Module, spectrum: Tensor, state_size: int) -> tuple[Tensor, Tensor]:
    """Run a streaming module over ``(batch, 2, frames, bins)``, one frame and one signal after the other.

    Returns
    -------
    tuple of Tensor
        Enhanced spectrum of the same shape, and chance of voice ``(batch, frames)``.
    """
    whole, chances = [], []
    for signal in spectrum.split(1):  # type: ignore[no-untyped-call]
        state = spectrum.new_zeros(1, state_size)
        out, voices = [], []
        for frame in signal.unbind(2):
            enhanced, state, voice = module(frame, state)
            out.append(enhanced)
            voices.append(voice[:, 0])
        whole.append(torch.stack(out, 2))
        chances.append(torch.stack(voices, 1))
    return torch.cat(whole), torch.cat(chances)


def count_parameters(net: nn.Module) -> int:
    """Number of learned values."""
    return sum(p.numel() for p in net.parameters())


def macs_per_frame(settings: DenoiserSettings) -> int:
    """Multiply-accumulates of one frame in the learned layers."""
    rows, narrow, wide = settings.row_count, settings.narrow, settings.wide
    shrink = rows // 2 * 5 * _FEATURES * narrow + rows // 4 * (5 * narrow * wide + 3 * wide * wide)
    half = wide // 2
    block = 6 * wide * wide + wide * wide + 2 * 3 * half * (wide + half) + 2 * half * wide
    rise = rows // 4 * 3 * wide * 2 * narrow + rows // 2 * 3 * narrow * 2 * narrow
    return shrink + settings.blocks * rows // 4 * block + rise + rows * 3 * (narrow + _FEATURES) * 3 + wide
