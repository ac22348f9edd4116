"""The recogniser: which of some kinds of sound are heard now, each for itself.

Small causal convolutions over mel bands and time; what they find is averaged over the last moments, over about a
second and over some seconds. Such averages have little to learn by heart, where recordings are few, but forget at a
fixed pace; a small recurrent layer beside them notices that one sound has given way to another. A perceptron judges
by all of these what is there, and another one which of it is the loudest: music that is faint behind speech is there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UsageError
from .tag_data import BINS, FLOOR_DB, HOP_S, MELS, mel_bank

#: What the input is shifted and divided by, in dB.
_CENTRE_DB, _SPREAD_DB = -60.0, 20.0
_TAPS = 3


@dataclass(frozen=True)
class TagSettings:
    """Shape of the net.

    Attributes
    ----------
    channels : list of int
        Behind each convolution.
    strides : list of int
        By how much each thins the bands out.
    dilations : list of int
        Frames between the three that a convolution sees.
    features, hidden : int
        What is averaged, and width of the perceptron.
    memory_s : list of float
        Time constants of the averages.
    recall : int
        Units of a recurrent layer beside the averages, which can forget at once; 0 for none.
    lags : list of int
        Of layers beside them, each of which compares three moments: frames between these. What is answered late needs
        them, to find the moment that it is about.
    dropout : float
        Share of averages hidden in training.
    """

    channels: list[int] = field(default_factory=lambda: [24, 48, 64])
    strides: list[int] = field(default_factory=lambda: [4, 2, 2])
    dilations: list[int] = field(default_factory=lambda: [1, 2, 4])
    features: int = 96
    hidden: int = 96
    memory_s: list[float] = field(default_factory=lambda: [0.1, 0.6, 2.5])
    recall: int = 0
    lags: list[int] = field(default_factory=list)
    dropout: float = 0.2

    def __post_init__(self) -> None:
        lists = (self.channels, self.strides, self.dilations)
        if len({len(values) for values in lists}) != 1 or not 1 <= len(self.channels) <= 5:
            raise UsageError("network: channels, strides and dilations must be lists of one length, from 1 to 5.")
        if min(min(values) for values in lists) < 1 or MELS % math.prod(self.strides):
            raise UsageError(f"network: channels and dilations must be above 0, and strides divide {MELS} bands.")
        if min(self.features, self.hidden) < 1 or self.recall < 0 or not 0 <= self.dropout < 1:
            raise UsageError(
                "network: features and hidden must be above 0, recall at least 0, dropout at least 0 and less than 1."
            )
        if len(self.lags) > 8 or not all(1 <= lag <= 50 for lag in self.lags):
            raise UsageError("network: lags must be at most 8 numbers of frames from 1 to 50.")
        if not self.memory_s or min(self.memory_s) < HOP_S:
            raise UsageError(f"network: memory_s must name time constants from {HOP_S:g} s.")


class _Stage(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.context = (_TAPS - 1) * dilation
        reach = max(stride - 1, 1)
        self.filter = nn.Conv2d(
            inputs, outputs, (_TAPS, 2 * reach + 1), (1, stride), (0, reach), (dilation, 1), bias=False
        )
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, inputs, context + frames, bands)`` to ``(batch, outputs, frames, bands / stride)``."""
        y: Tensor = torch.relu(self.norm(self.filter(x)))
        return y


class _Moments(nn.Module):
    def __init__(self, features: int, lag: int) -> None:
        super().__init__()
        self.lag = lag
        self.filter = nn.Conv1d(features, features, _TAPS, dilation=lag, bias=False)
        self.norm = nn.BatchNorm1d(features)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, features, frames)``, and what the moments `lag` and twice `lag` ago add to each."""
        y: Tensor = x + torch.relu(self.norm(self.filter(functional.pad(x, ((_TAPS - 1) * self.lag, 0)))))
        return y


class TagNet(nn.Module):
    """From bands in dB ``(batch, frames, MELS)`` to logits ``(batch, frames, answers, labels + groups)``.

    Parameters
    ----------
    settings : TagSettings
    labels : int
        Of which each is there or not.
    groups : int
        Of which one is the loudest.
    answers : int
        How often each frame is judged, some time later each time.
    """

    def __init__(self, settings: TagSettings, labels: int, groups: int, answers: int = 1) -> None:
        super().__init__()
        self.settings, self.answers = settings, answers
        inputs = [1, *settings.channels]
        self.stages = nn.ModuleList(
            _Stage(*shape)
            for shape in zip(inputs, settings.channels, settings.strides, settings.dilations, strict=False)
        )
        self.flat = settings.channels[-1] * (MELS // math.prod(settings.strides))
        self.gather = nn.Linear(self.flat, settings.features)
        self.memory = nn.GRU(settings.features, settings.recall, batch_first=True) if settings.recall else None
        self.moments = nn.ModuleList(_Moments(settings.features, lag) for lag in settings.lags)
        known = settings.features * (len(settings.memory_s) + bool(settings.lags)) + settings.recall
        self.judge = nn.Linear(known, settings.hidden)
        self.out = nn.Linear(settings.hidden, answers * labels)
        self.compare = nn.Linear(known, settings.hidden)
        self.first = nn.Linear(settings.hidden, answers * groups)

    def forward(self, decibels: Tensor) -> Tensor:
        """Logits of every frame."""
        x = ((decibels - _CENTRE_DB) / _SPREAD_DB)[:, None]
        for stage in self.stages:
            # Silence lies before the beginning, as in a net that has just been reset.
            assert isinstance(stage, _Stage)
            fill = (FLOOR_DB - _CENTRE_DB) / _SPREAD_DB if stage is self.stages[0] else 0.0
            x = stage(functional.pad(x, (0, 0, stage.context, 0), value=fill))
        x = torch.relu(self.gather(x.permute(0, 2, 1, 3).flatten(2)))
        recalled = [] if self.memory is None else [self.memory(x)[0]]
        if len(self.moments):
            compared = x.transpose(1, 2)
            for layer in self.moments:
                compared = layer(functional.dropout1d(compared, self.settings.dropout / 2, self.training))
            recalled.append(compared.transpose(1, 2))
        averages = torch.cat([averaged(x, seconds) for seconds in self.settings.memory_s] + recalled, 2)
        averages = functional.dropout(averages, self.settings.dropout, self.training)
        there = self.out(torch.relu(self.judge(averages))).unflatten(2, (self.answers, -1))
        first = self.first(torch.relu(self.compare(averages))).unflatten(2, (self.answers, -1))
        return torch.cat((there, first), 3)

    def widened(self, given: Mapping[str, Tensor], settings: TagSettings) -> dict[str, Tensor] | None:
        """The state in which this net judges as a narrower one does; None where that is of another make.

        Units that are new see what there is, but nobody listens to them yet (after T. Chen et al., "Net2Net:
        Accelerating learning via knowledge transfer", ICLR 2016).

        Parameters
        ----------
        given : mapping of str to Tensor
            State of a net of the same labels, groups and answers.
        settings : TagSettings
            Of that net.
        """
        own = self.settings
        make = ("strides", "dilations", "memory_s", "lags")
        if any(getattr(own, name) != getattr(settings, name) for name in make):
            return None
        wide, narrow = _blocks(own), _blocks(settings)
        state = {name: value.detach().clone() for name, value in self.state_dict().items()}
        if set(given) != set(state):
            return None
        for name, value in state.items():
            old = given[name]
            seats = []
            for place, (into, size) in enumerate(zip(old.shape, value.shape, strict=True)):
                key = name.partition(".")[0], place
                at = _seats(narrow.get(key), wide.get(key), into, size)
                if at is None:
                    return None
                seats.append(at)
            if len(seats) > 1:
                # What was there does not listen to what is new.
                value[seats[0]] = 0.0
            if seats:
                value[torch.meshgrid(*seats, indexing="ij")] = old
            else:
                value.copy_(old)
        return state


def _blocks(settings: TagSettings) -> dict[tuple[str, int], list[int]]:
    """Layers whose inputs or outputs are several things side by side: by name and dimension, how long each is."""
    features, recall = settings.features, settings.recall
    known = [features] * len(settings.memory_s) + [recall] + [features] * bool(settings.lags)
    return {("judge", 1): known, ("compare", 1): known, ("memory", 0): [recall] * 3}


def _seats(narrow: list[int] | None, wide: list[int] | None, count: int, size: int) -> Tensor | None:
    """Where in a dimension of ``size`` the ``count`` of a narrower net sit, block by block."""
    given, own = narrow or [count], wide or [size]
    if any(a > b for a, b in zip(given, own, strict=True)):
        return None
    starts = [sum(own[:k]) for k in range(len(own))]
    return torch.cat([torch.arange(start, start + length) for start, length in zip(starts, given, strict=True)])


def averaged(x: Tensor, seconds: float) -> Tensor:
    """Exponentially weighted means of ``(batch, frames, features)`` up to each frame, of what there has been so far."""
    keep = math.exp(-HOP_S / seconds)
    count = torch.arange(x.shape[1])
    ages = count[:, None] - count[None]
    weights = torch.where(ages >= 0, keep ** ages.clamp_min(0).double(), 0.0)
    weights = (weights / weights.sum(1, keepdim=True)).float()
    return torch.matmul(weights, x)


class Listening(nn.Module):
    """The exported form, frame by frame: a spectrum in, probabilities out.

    Parameters
    ----------
    net : TagNet
    calibration : sequence of sequences of (float, float)
        Of each answer, scale and shift of each label's logit.
    sharpness : sequence of float
        Of each answer, scale of the logits of what is loudest.
    told, groups : sequence of int
        Places of the labels that it tells, and of the groups of which it tells how probably they are the loudest.
    n_fft : int
        Length of the Hann window behind the spectrum, in samples; frequencies must lie 25 Hz apart.
    apart : int
        Frames by which the second answer comes later than the first. It is a mean of two opinions of a moment: its own
        counts twice, and once what the first answer said of it.
    """

    bank: Tensor

    def __init__(
        self, net: TagNet, calibration: Sequence[Sequence[Sequence[float]]], sharpness: Sequence[float],
        told: Sequence[int], groups: Sequence[int], n_fft: int, apart: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        settings = net.settings
        self.register_buffer("bank", torch.from_numpy(mel_bank()) * (4.0 / n_fft) ** 2)
        self.filters = nn.ModuleList()
        self.contexts: list[tuple[int, int, int]] = []
        inputs, bands = 1, MELS
        for stage in net.stages:
            assert isinstance(stage, _Stage)
            self.filters.append(nn.utils.fusion.fuse_conv_bn_eval(stage.filter, stage.norm))
            self.contexts.append((inputs, stage.context, bands))
            inputs, bands = stage.filter.out_channels, bands // stage.filter.stride[1]
        self.gather, self.judge, self.memory, self.recall = net.gather, net.judge, net.memory, settings.recall
        labels = len(calibration[0])
        kept = [answer * labels + k for answer in range(len(calibration)) for k in told]
        scale, shift = torch.tensor(calibration).flatten(0, 1)[kept].T
        self.labels, self.groups, self.apart = len(told), list(groups), apart
        self.told = len(told) + len(groups)
        self.out, self.compare = nn.Linear(settings.hidden, len(kept)), net.compare
        self.first = nn.Linear(settings.hidden, net.first.out_features)
        self.whole = net.first.out_features // net.answers
        sharp = torch.tensor(sharpness).repeat_interleave(self.whole)
        with torch.no_grad():
            self.out.weight.copy_(net.out.weight[kept] * scale[:, None])
            self.out.bias.copy_(net.out.bias[kept] * scale + shift)
            self.first.weight.copy_(net.first.weight * sharp[:, None])
            self.first.bias.copy_(net.first.bias * sharp)
        self.features = settings.features
        self.keep = [math.exp(-HOP_S / seconds) for seconds in settings.memory_s]
        self.moments = nn.ModuleList()
        self.lags = list(settings.lags)
        for layer in net.moments:
            assert isinstance(layer, _Moments)
            # Three moments side by side, and the norm's share, make it a single product.
            fused = nn.utils.fusion.fuse_conv_bn_eval(layer.filter, layer.norm)
            product = nn.Linear(_TAPS * self.features, self.features)
            with torch.no_grad():
                product.weight.copy_(fused.weight.transpose(1, 2).flatten(1))
                assert fused.bias is not None
                product.bias.copy_(fused.bias)
            self.moments.append(product)
        averages = len(self.keep) * (self.features + 1)
        moments = (_TAPS - 1) * sum(self.lags) * self.features
        self.state_size = sum(math.prod(c) for c in self.contexts) + averages + self.recall + moments
        self.state_size += self.apart * self.told

    def forward(self, spectrum: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """``(1, 2, bins)`` and ``(1, state_size)``, zeros at the start, to ``(1, answers * told)`` and the next."""
        real, imag = spectrum[:, 0, :BINS], spectrum[:, 1, :BINS]
        power = torch.matmul(real * real + imag * imag, self.bank)
        decibels = torch.log10(power + 10 ** (FLOOR_DB / 10)) * 10.0
        # A state of zeros is silence, which lies at the floor.
        fill = (FLOOR_DB - _CENTRE_DB) / _SPREAD_DB
        x = ((decibels - _CENTRE_DB) / _SPREAD_DB - fill)[:, None, None]
        kept = []
        at = 0
        for number, (filter, (channels, frames, bands)) in enumerate(zip(self.filters, self.contexts, strict=True)):
            size = channels * frames * bands
            whole = torch.cat((state[:, at : at + size].view(1, channels, frames, bands), x), 2)
            at += size
            kept.append(whole[:, :, 1:].reshape(1, size))
            x = torch.relu(filter(whole + fill if number == 0 else whole))
        x = torch.relu(self.gather(x.flatten(1)))
        averages = []
        for keep in self.keep:
            total = state[:, at : at + self.features] * keep + x
            weight = state[:, at + self.features : at + self.features + 1] * keep + 1.0
            at += self.features + 1
            kept += [total, weight]
            averages.append(total / weight)
        if self.memory is not None:
            recalled = self.memory(x[None], state[:, at : at + self.recall][None])[0][0]
            at += self.recall
            kept.append(recalled)
            averages.append(recalled)
        for layer, lag in zip(self.moments, self.lags, strict=True):
            size = 2 * lag * self.features
            past = torch.cat((state[:, at : at + size], x), 1)
            at += size
            kept.append(past[:, self.features :])
            three = (past[:, : self.features], past[:, lag * self.features : (lag + 1) * self.features], x)
            x = x + torch.relu(layer(torch.cat(three, 1)))
        if self.lags:
            averages.append(x)
        known = torch.cat(averages, 1)
        there = torch.sigmoid(self.out(torch.relu(self.judge(known))))
        first = self.first(torch.relu(self.compare(known)))
        parts = []
        for answer in range(first.shape[1] // self.whole):
            parts.append(there[:, answer * self.labels : (answer + 1) * self.labels])
            each = torch.softmax(first[:, answer * self.whole : (answer + 1) * self.whole], 1)
            parts += [each[:, group : group + 1] for group in self.groups]
        said = torch.cat(parts, 1)
        if self.apart:
            soon = said[:, : self.told]
            earlier = torch.cat((state[:, at : at + self.apart * self.told], soon), 1)
            kept.append(earlier[:, self.told :])
            said = torch.cat((soon, (said[:, self.told :] * 2.0 + earlier[:, : self.told]) * (1.0 / 3.0)), 1)
        return said, torch.cat(kept, 1)
