"""The net that plays notes, and the sound of its answers in differentiable form.

`ToneNet` says what a note sounds like at a moment: amplitudes of partials, noise in bands, stiffness. Nothing passes
from one moment to the next, so that a voice can be taken away and given to another note at any sample. No two keys of
an instrument sound alike: the net keeps a few numbers for each pitch that it has heard of a timbre, and between two of
them plays what lies between their numbers. What belongs to the instrument's body, which colours a frequency whatever
partial of whatever key lies there, is a curve of its own for each timbre (source and filter: Fant 1960). `rendered`
makes sound of it as `rtgan.kernels.partials` does: phases turn, amplitudes glide from frame to frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..kernels.partials import BANDS, HARMONICS

#: Pitch (MIDI), velocity, seconds since the onset; shares of the timbres and latents follow.
FIRST = 3
OUTPUTS = HARMONICS + BANDS + 1
_EARLY = (0.003, 0.012, 0.05, 0.2, 0.8)
"""Time constants of what a note knows of its onset, in seconds."""
_LATE = (0.01, 0.1, 1.0)
_NOTHING = 1.6e-5
LOWEST, PITCHES = 20, 90
"""The pitches for which the net keeps numbers: MIDI notes from the lowest on."""
PER_OCTAVE, BODY = 6, 60
"""Points of a body's curve, from `_BODY_LOG2_HZ` on."""
_BODY_LOG2_HZ = 5.0
_LOWEST_LOG, _HIGHEST_LOG = math.log(1e-6), math.log(1.0)


@dataclass(frozen=True)
class ToneSettings:
    """Size of the net.

    Attributes
    ----------
    width, layers : int
        Of the hidden layers.
    latents : int
        Numbers in which notes of the same pitch and velocity differ.
    kept : int
        Numbers that are kept of every pitch of a timbre.
    """

    width: int = 192
    layers: int = 3
    latents: int = 4
    kept: int = 8

    def __post_init__(self) -> None:
        if not 8 <= self.width <= 1024 or not 1 <= self.layers <= 8 or not 1 <= self.latents <= 16:
            raise UsageError("network: width must lie in 8..1024, layers in 1..8, latents in 1..16.")
        if not 1 <= self.kept <= 64:
            raise UsageError("network: kept must lie in 1..64.")


class ToneNet(nn.Module):
    """From what is played to what it sounds like, one moment a row.

    Rows ``(rows, FIRST + timbres + latents)``; answers are ``(rows, OUTPUTS)``.

    Attributes
    ----------
    known : Parameter, (timbres, PITCHES, kept)
        What is kept of each pitch.
    heard : Tensor, (timbres, PITCHES)
        1 where there is something to keep.
    body : Parameter, (timbres, BODY)
        By what the body raises a partial, in nepers; between two points what lies between.
    """

    early: Tensor
    late: Tensor
    numbers: Tensor

    def __init__(self, settings: ToneSettings, timbres: int) -> None:
        super().__init__()
        self.timbres = timbres
        self.register_buffer("early", torch.tensor([[-1 / c for c in _EARLY]]))
        self.register_buffer("late", torch.tensor([[1 / c for c in _LATE]]))
        inputs = 2 + len(_EARLY) + len(_LATE) + timbres + settings.latents + settings.kept
        self.known = nn.Parameter(0.3 * torch.randn(timbres, PITCHES, settings.kept))
        self.register_buffer("heard", torch.zeros(timbres, PITCHES))
        self.body = nn.Parameter(torch.zeros(timbres, BODY))
        self.register_buffer("numbers", torch.log2(torch.arange(1, HARMONICS + 1).float())[None], persistent=False)
        layers: list[nn.Module] = []
        for _ in range(settings.layers):
            layers += [nn.Linear(inputs, settings.width), nn.SiLU()]
            inputs = settings.width
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(settings.width, OUTPUTS)
        self.register_buffer("centre", torch.zeros(1, OUTPUTS))
        self.register_buffer("spread", torch.ones(1, OUTPUTS))

    centre: Tensor
    spread: Tensor
    heard: Tensor

    def table(self) -> Tensor:
        """What is known of every pitch ``(timbres, PITCHES, kept)``: between two that were heard, what lies between."""
        table = self.known.detach().clone()
        places = torch.arange(PITCHES)
        for known, heard in zip(table, self.heard, strict=True):
            found = torch.nonzero(heard > 0.5)[:, 0]
            if len(found):
                right = torch.searchsorted(found, places).clamp_max(len(found) - 1)
                left = (torch.searchsorted(found, places, right=True) - 1).clamp_min(0)
                share = (places - found[left]) / (found[right] - found[left]).clamp_min(1)
                known.copy_(torch.lerp(known[found[left]], known[found[right]], share.clamp(0, 1)[:, None].float()))
        return table

    def forward(self, rows: Tensor, recalled: Tensor) -> Tensor:
        """Natural logarithms of amplitudes and of noise RMS; last, that of the stiffness.

        `recalled`, ``(rows, kept)``, is what is known of the pitch.
        """
        places = self.places(rows)
        curve = rows[:, FIRST : FIRST + self.timbres] @ self.body
        below = places.floor().clamp_max(BODY - 2)
        low = curve.gather(1, below.long())
        high = curve.gather(1, below.long() + 1)
        answers = self.played(rows, recalled)
        return torch.cat((answers[:, :HARMONICS] + torch.lerp(low, high, places - below), answers[:, HARMONICS:]), 1)

    def places(self, rows: Tensor) -> Tensor:
        """Where partials lie on the body's curve, ``(rows, HARMONICS)``; stiffness moves them too little to count."""
        octaves = (rows[:, 0:1] - 69.0) / 12.0 + (math.log2(440.0) - _BODY_LOG2_HZ)
        return torch.clamp((octaves + self.numbers) * PER_OCTAVE, 0.0, BODY - 1.0)

    def played(self, rows: Tensor, recalled: Tensor) -> Tensor:
        """`forward` without the body."""
        pitch, seconds = rows[:, 0:1] - 64.0, rows[:, 2:3]
        # How pitches differ is what is kept of them: pitch itself says little, so that what is kept of one serves the
        # pitches beside it.
        known = torch.cat(
            (
                pitch * 0.01,
                rows[:, 1:2] * 2.0 - 1.0,
                torch.exp(seconds * self.early),
                torch.log1p(seconds * self.late) * 0.4,
                rows[:, 3:],
                recalled,
            ),
            1,
        )
        answers: Tensor = self.out(self.layers(known)) * self.spread + self.centre
        return answers


class Playing(nn.Module):
    """The exported form: one row in, amplitudes (linear) and stiffness out."""

    floor: Tensor
    table: Tensor
    places: Tensor
    points: Tensor

    def __init__(self, net: ToneNet) -> None:
        super().__init__()
        self.net = net
        self.timbres = net.timbres
        self.register_buffer("table", net.table().flatten(0, 1))
        self.register_buffer("places", torch.arange(LOWEST, LOWEST + PITCHES).float()[None])
        self.register_buffer("points", torch.arange(BODY).float()[None, :, None])
        self.low, self.high = _LOWEST_LOG, _HIGHEST_LOG
        # What lies at the floor of the recordings is nothing; stiffness knows no floor.
        floor = torch.full((1, OUTPUTS), _NOTHING)
        floor[0, -1] = 0.0
        self.register_buffer("floor", floor)

    def forward(self, row: Tensor) -> Tensor:
        """``(1, FIRST + timbres + latents)`` to ``(1, OUTPUTS)``."""
        near = torch.relu(1.0 - torch.abs(torch.clamp(row[:, 0:1], LOWEST, LOWEST + PITCHES - 1) - self.places))
        shares = row[:, FIRST : FIRST + self.timbres]
        both = shares.unsqueeze(2) * near.unsqueeze(1)
        answers = self.net.played(row, torch.matmul(both.flatten(1), self.table))
        # What lies between two points of the body, said without looking up places: nets are lowered without that.
        hats = torch.relu(1.0 - torch.abs(self.net.places(row).unsqueeze(1) - self.points))
        body = torch.matmul(torch.matmul(shares, self.net.body).unsqueeze(1), hats).flatten(1)
        answers = torch.cat((answers[:, :HARMONICS] + body, answers[:, HARMONICS:]), 1)
        return torch.relu(torch.exp(torch.clamp(answers, self.low, self.high)) - self.floor)


def rendered(levels: Tensor, hertz: Tensor, phases: Tensor, noise: Tensor, hop: int, rate_hz: int) -> Tensor:
    """Sound of frames.

    Parameters
    ----------
    levels : Tensor, (batch, frames, HARMONICS + BANDS)
        Amplitudes of partials, RMS of the noise in bands.
    hertz : Tensor, (batch, HARMONICS)
        Of the partials, at rest.
    phases : Tensor, (batch, HARMONICS)
        At the first sample.
    noise : Tensor, (batch, (frames - 1) * hop, BANDS)
        Of the noise table.

    Returns
    -------
    Tensor, (batch, (frames - 1) * hop)
    """
    batch, frames = levels.shape[:2]
    partials, bands = levels[..., :HARMONICS], levels[..., HARMONICS:]
    audible = ((0.475 - hertz / rate_hz) / 0.055).clamp(0, 1)
    partials = partials * audible[:, None]
    rise = (torch.arange(hop) / hop)[None, None]
    with torch.no_grad():
        # sin(a + b) of the phase at a frame's start and the way since: a product of matrices makes the sum of partials.
        turns = (hertz.double() / rate_hz)[:, None]
        starts = torch.arange(frames - 1, dtype=torch.float64)[None, :, None] * hop * turns
        starts = (2 * math.pi * (starts - starts.floor())).float() + phases[:, None]
        ways = 2 * math.pi * torch.arange(hop, dtype=torch.float64)[None, :, None] * turns
        ways = torch.cat((ways.cos(), ways.sin()), -1).float().transpose(1, 2)
        sine, cosine = starts.sin(), starts.cos()
        table = noise.view(batch, frames - 1, hop, BANDS)

    def tonal(levels: Tensor) -> Tensor:
        return torch.matmul(torch.cat((levels * sine, levels * cosine), -1), ways)

    def noisy(levels: Tensor) -> Tensor:
        return torch.matmul(table, levels[..., None])[..., 0]

    sound = (tonal(partials[:, :-1]) + noisy(bands[:, :-1])) * (1 - rise)
    sound = sound + (tonal(partials[:, 1:]) + noisy(bands[:, 1:])) * rise
    return sound.reshape(batch, -1)


def stretched(hertz: Tensor, stiffness: Tensor) -> Tensor:
    """Frequencies of partials ``(batch, HARMONICS)`` of fundamentals and stiffnesses ``(batch,)``."""
    k = torch.arange(1, HARMONICS + 1)
    stretch = torch.sqrt((1 + stiffness[:, None] * k * k) / (1 + stiffness[:, None]))
    return hertz[:, None] * k * stretch


def rows_of(pitch: Tensor, velocity: Tensor, seconds: Tensor, timbre: Tensor, latents: Tensor) -> Tensor:
    """Rows for the net; timbres as shares ``(rows, timbres)``, the others ``(rows,)`` and ``(rows, latents)``."""
    return torch.cat((torch.stack((pitch, velocity, seconds), 1), timbre, latents), 1)


def amplitudes(logs: Tensor) -> Tensor:
    """Levels of partials and noise from answers of the net."""
    return torch.exp(logs[..., :-1].clamp(_LOWEST_LOG, _HIGHEST_LOG))


def one_hot(timbres: Sequence[int], count: int) -> Tensor:
    """Shares of single timbres."""
    return torch.nn.functional.one_hot(torch.tensor(list(timbres)), count).float()
