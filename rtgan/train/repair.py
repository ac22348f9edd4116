"""The net that says how a lost stretch of sound goes on, and the sound of its answers in differentiable form.

`RepairNet` is shown the frames before a gap and then, frame by frame, the extension that `rtgan.kernels.conceal` makes
of them; it answers how much of it stays in each band and how much noise is added. `shaped` makes sound of that as the
kernel does, so that losses and discriminators hear what will be heard. `repaired` fills all gaps of a signal, one after
the other, as the live plugin does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import UsageError
from ..kernels import conceal
from ..kernels.conceal import ANSWER, BANDS, PAST, ROW
from .data import Array

#: Most that an answer can make of a band of the extension, and the noise of a band, relative to it.
_MOST, _MOST_NOISE = 2.0, 1.5
_NOISE_AT_FIRST = -3.0
#: How much more noise is played than was learned.
_LIVELY_NOISE = 3.0
#: The fade from what was made up to what came back.
FADE_S = 0.005
#: Share of the longest gap after which what is made up fades away.
FADE_FROM = 0.6

Answers = Callable[[Array], Array]
"""Rows ``(frames, ROW)`` of one gap, those before it first, to answers ``(frames, ANSWER)``."""


@dataclass(frozen=True)
class RepairSettings:
    """Size of the net."""

    width: int = 160

    def __post_init__(self) -> None:
        if not 8 <= self.width <= 1024:
            raise UsageError("network: width must lie in 8..1024.")


class RepairNet(nn.Module):
    """Rows of frames in, shares of extension and noise out; a recurrent net that starts anew with each gap."""

    def __init__(self, settings: RepairSettings) -> None:
        super().__init__()
        self.width = settings.width
        self.front = nn.Linear(ROW, settings.width)
        self.memory = nn.GRU(settings.width, settings.width, batch_first=True)
        self.out = nn.Linear(2 * settings.width, ANSWER)
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)
        with torch.no_grad():
            self.out.bias[BANDS:] = _NOISE_AT_FIRST

    def _answer(self, x: Tensor, h: Tensor) -> Tensor:
        raw = torch.sigmoid(self.out(torch.cat((x, h), -1)))
        return torch.cat((raw[..., :BANDS] * _MOST, raw[..., BANDS:] * _MOST_NOISE), -1)

    def sequence(self, rows: Tensor) -> Tensor:
        """Rows ``(gaps, frames, ROW)`` to answers ``(gaps, frames, ANSWER)``."""
        x = torch.relu(self.front(rows))
        return self._answer(x, self.memory(x)[0])

    def forward(self, row: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One row ``(1, ROW)`` and the state ``(1, width)`` before it to its answer and the state after it."""
        x = torch.relu(self.front(row))
        h = self.memory(x[:, None], state[None])[1][0]
        return self._answer(x, h), h


class Playing(nn.Module):
    """The exported form, livelier than what was learned.

    Who minimises a distance answers with the middle of all that may come, which is fainter and smoother than any of
    it. Shares of the extension are drawn half of the way back to 1, in decibel, and noise is raised, which PLCMOS
    preferred on held-out recordings.
    """

    def __init__(self, net: RepairNet) -> None:
        super().__init__()
        self.net = net
        self.width = net.width

    def forward(self, row: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """As `RepairNet.forward`."""
        answer, state = self.net(row, state)
        return torch.cat((torch.sqrt(answer[:, :BANDS]), answer[:, BANDS:] * _LIVELY_NOISE), 1), state


class Rehearsal:
    """Extensions of histories, as the kernel makes them.

    Parameters
    ----------
    sample_rate_hz : int
    """

    def __init__(self, sample_rate_hz: int = 48000) -> None:
        self._concealer = conceal.build(sample_rate_hz)
        words = self._concealer.words
        self.hop, self.history = int(words[conceal.HOP]), int(words[conceal.HISTORY_SAMPLES])
        band, share, _ = conceal.band_tables(sample_rate_hz, self.hop + 1)
        self.band, self.share = torch.from_numpy(band).long(), torch.from_numpy(share)
        self.window = torch.sin(math.pi * (torch.arange(2 * self.hop) + 0.5) / (2 * self.hop))

    def __call__(self, history: Array, frames: int) -> tuple[Array, Array, Array, Array, Array]:
        """Rows, real and imaginary parts, band powers and first tail of so many frames behind a history."""
        bins = self.hop + 1
        made = (
            np.empty((PAST + 1 + frames, ROW), np.float32), np.empty((frames, bins), np.float32),
            np.empty((frames, bins), np.float32), np.empty((frames, BANDS), np.float32), np.empty(self.hop, np.float32),
        )  # fmt: skip
        conceal.rehearse(self._concealer.address, np.ascontiguousarray(history, np.float32), *made)
        return made

    def shaped(self, answers: Tensor, re: Tensor, im: Tensor, power: Tensor, first: Tensor, noise: Tensor) -> Tensor:
        """Sound ``(gaps, frames * hop)`` of answers ``(gaps, frames, ANSWER)`` about frames of the extension.

        ``noise``: complex, of unit power, as large as the spectra.
        """

        def spread(bands: Tensor) -> Tensor:
            return bands[..., self.band] * (1 - self.share) + bands[..., self.band + 1] * self.share

        level = spread(answers[..., BANDS:]) * spread(power).clamp_min(0).sqrt()
        spectrum = spread(answers[..., :BANDS]) * torch.complex(re, im) + level * noise
        frames = torch.fft.irfft(spectrum, 2 * self.hop) * self.window
        late = torch.cat((first[:, None], frames[:, :-1, self.hop :]), 1)
        sound: Tensor = (frames[..., : self.hop] + late).flatten(1)
        return sound


def gaps_of(lost: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Beginning and end of each stretch that is lost."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], lost, [False])).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def plain(rows: Array) -> Array:
    """The answer that leaves the extension as it is."""
    answers = np.zeros((len(rows), ANSWER), np.float32)
    answers[:, :BANDS] = 1
    return answers


def joined(made: Array, real: Array, fade: int) -> Array:
    """The first samples of a fade of given length, with gains that keep the power whatever they have in common."""
    own = float(made @ made) * float(real @ real)
    alike = min(1.0, max(0.0, float(made @ real) / math.sqrt(own + 1e-18)))
    rise = np.sin(0.5 * np.pi * (np.arange(len(real)) + 0.5) / fade).astype(np.float32)
    fall = np.sqrt(np.maximum(1 - rise * rise * (1 - alike * alike), 0)) - alike * rise
    return np.asarray(real * rise + made * fall, np.float32)


def repaired(
    sound: Array,
    lost: NDArray[np.bool_],
    answers: Answers,
    longest_s: float = 0.2,
    rate: int = 48000,
    rehearsal: Rehearsal | None = None,
) -> Array:
    """A signal with its gaps filled, causally but for the length of a fade.

    Parameters
    ----------
    sound : ndarray of float32, (samples,)
    lost : ndarray of bool, (samples,)
    answers : callable
        The net.
    longest_s : float
        After so long a gap is silent.
    """
    rehearsal = rehearsal or Rehearsal(rate)
    fade = round(FADE_S * rate)
    hop = rehearsal.hop
    out = np.where(lost, np.float32(0), sound).astype(np.float32)
    groups: list[list[tuple[int, int]]] = []
    for begin, end in gaps_of(lost):
        # So little good sound tells nothing new: what was made up before goes on.
        if groups and begin - groups[-1][-1][1] < hop:
            groups[-1].append((begin, end))
        else:
            groups.append([(begin, end)])
    padded = np.concatenate((np.zeros(rehearsal.history, np.float32), out))
    for group in groups:
        start, stop = group[0][0], group[-1][1]
        length = min(stop + fade, start + round(longest_s * rate) + fade) - start
        frames = -(-length // hop)
        rows, re, im, power, first = rehearsal(padded[start : start + rehearsal.history], frames)
        said = torch.from_numpy(answers(rows)[PAST + 1 :])[None]
        noise = complex_noise((1, frames, hop + 1), torch.Generator().manual_seed(1))
        with torch.no_grad():
            parts = [torch.from_numpy(part)[None] for part in (re, im, power, first)]
            made = rehearsal.shaped(said, parts[0], parts[1], parts[2], parts[3], noise)[0].numpy()
        made = np.pad(made, (0, max(0, stop + fade - start - len(made))))
        seconds = np.arange(len(made)) / rate / longest_s
        late = np.clip((seconds - FADE_FROM) / (1 - FADE_FROM), 0, 1)
        made = made * (0.5 + 0.5 * np.cos(np.pi * late)).astype(np.float32)
        for number, (begin, end) in enumerate(group):
            padded[rehearsal.history + begin : rehearsal.history + end] = made[begin - start : end - start]
            limit = group[number + 1][0] if number + 1 < len(group) else len(sound)
            # Out of silence, no longer than it takes not to click.
            long = fade if end - start < longest_s * rate else fade // 5
            good = min(end + long, limit) - end
            here = padded[rehearsal.history + end : rehearsal.history + end + good]
            here[:] = joined(made[end - start : end - start + good], here, long)
    return padded[rehearsal.history :]


def complex_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Complex noise of unit power."""
    half = math.sqrt(0.5)
    return torch.complex(torch.randn(shape, generator=generator) * half, torch.randn(shape, generator=generator) * half)
