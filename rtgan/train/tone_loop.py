"""Training of the net that plays notes: first on tracks taken from recordings, then by ear.

Every step fits a batch of moments to the tracks of `notes`. From `sound_step` on it also makes sound, a piece of each
of a few notes, and compares it with the recording in several short-time spectra and through discriminators. A step is
a function of weights, optimisers and its number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import UsageError
from ..kernels.partials import HARMONICS, TABLE_ROWS, noise_table
from .config import made, read_yaml
from .course import Course, CourseConfig, Lesson, parse_course
from .losses import level_scale
from .notes import HOP, RATE_HZ, Note, NoteCorpus, TimbreSettings, load_notes
from .tones import LOWEST, OUTPUTS, PITCHES, ToneNet, ToneSettings, amplitudes, one_hot, rendered, rows_of, stretched

TASK = "synth"
#: Velocity that recordings count as whose timbre has a single one, and what other velocities do to it: a law, not data.
PLAIN_VELOCITY = 0.85
_LEVEL_SLOPE, _TILT_SLOPE = 3.2, 0.9
_LATENTS_OFF = 0.9
#: How often the net is asked what it will be asked of pitches that it never heard: the note by those beside it, where
#: those up to 0, 1 and so on semitones away, fewer than so many, are left out.
_FORGOTTEN, _GAPS = 0.8, 4
_LATENT_COST, _BODY_COST = 0.02, 0.02
#: How recordings waver is counted from here on, at this distance, down to so many nepers below the loudest partial.
_WAVER_FROM_S, _WAVER_STEP_S, _WAVER_SPAN = 0.1, 0.02, 4.6
_NEPER_DB, _MOST_WAVER_DB = 20 / math.log(10), 12.0


@dataclass(frozen=True)
class ToneConfig(CourseConfig):
    """A training run of `ToneNet`, as in YAML."""

    TASK: ClassVar[str] = TASK

    learning_rate: float = 2e-3
    rows: int = 1536
    sound_step: int = 4000
    notes: int = 6
    frames: int = 128
    tracks_weight: float = 1.0
    held_out: list[int] = field(default_factory=list)
    timbres: dict[str, TimbreSettings] = field(default_factory=dict)
    network: ToneSettings = field(default_factory=ToneSettings)
    losses: dict[str, dict[str, Any]] = field(default_factory=lambda: {"stft": {"weight": 1.0}})

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.rows, self.notes) < 1 or self.frames < 32:
            raise UsageError("rows and notes must be above 0, frames at least 32.")
        if not self.timbres:
            raise UsageError("timbres must name at least one.")
        if not self.losses:
            raise UsageError("losses must name at least one.")


def parse_tone_config(values: Any, where: str) -> ToneConfig:
    """Check plain values and make a config of them; unknown keys are refused."""
    ready = dict(values) if isinstance(values, dict) else {}
    timbres = ready.get("timbres")
    if not isinstance(timbres, dict):
        raise UsageError(f"{where}: timbres must be a mapping.")
    ready["timbres"] = {
        n: made(TimbreSettings, t, f"{where}: timbres.{n}", f"{where}: timbres.{n}.") for n, t in timbres.items()
    }
    return parse_course(ToneConfig, ready, where, {"network": ToneSettings})


def load_tone_config(path: Path) -> ToneConfig:
    """Read a config file."""
    return parse_tone_config(read_yaml(path), str(path))


class ToneTrainer(Course[ToneConfig]):
    """A run.

    Parameters
    ----------
    config : ToneConfig
    corpus : NoteCorpus
    out : Path
        Run folder.
    """

    def __init__(self, config: ToneConfig, corpus: NoteCorpus, out: Path) -> None:
        self.corpus, self.count = corpus, len(config.timbres)
        torch.manual_seed(config.seed)
        self.notes = corpus.side(held_out=False)
        if not self.notes:
            raise UsageError("All notes are held out; there is nothing to train on.")
        self.tones = net = ToneNet(config.network, self.count)
        self.latents = nn.Embedding(len(self.notes), config.network.latents)
        nn.init.normal_(self.latents.weight, std=0.3)
        self.table = torch.from_numpy(noise_table(RATE_HZ))
        self._take_rows()
        self._set_scale(net)
        self._take_neighbours(net)
        self.wavers: list[dict[str, float]] = []
        super().__init__(config, net, out, RATE_HZ, {"latents": self.latents})

    def _take_rows(self) -> None:
        """The rows of notes to train on, with the number of their note, and how likely each is drawn."""
        chosen = np.concatenate([np.arange(n.first, n.first + n.frames) for n in self.notes])
        corpus = self.corpus
        self.row_note = torch.from_numpy(np.repeat(np.arange(len(self.notes)), [n.frames for n in self.notes]))
        self.row_seconds = torch.from_numpy(corpus.times[chosen])
        self.row_logs = torch.from_numpy(np.concatenate([corpus.partials[chosen], corpus.noise[chosen]], 1))
        self.note_timbre = torch.tensor([n.timbre for n in self.notes])
        self.note_pitch = torch.tensor([n.pitch for n in self.notes])
        self.note_velocity = torch.tensor([n.velocity for n in self.notes])
        self.note_stiffness = torch.tensor([math.log(max(n.stiffness, 1e-6)) for n in self.notes])
        timbre = self.note_timbre[self.row_note]
        # Timbres of few notes are drawn more often, short of evenly.
        self.row_chance = (1 / torch.bincount(timbre, minlength=self.count).clamp_min(1).float().sqrt())[timbre]
        notes = torch.bincount(self.note_timbre, minlength=self.count).clamp_min(1).float()
        self.note_chance = (1 / notes.sqrt())[self.note_timbre]

    def _take_neighbours(self, net: ToneNet) -> None:
        """Which of the numbers that are kept tell of a note: its own, or those of the pitches around it."""
        pitch = torch.round(self.note_pitch).long().sub(LOWEST).clamp(0, PITCHES - 1)
        net.heard[self.note_timbre, pitch] = 1.0
        own = self.note_timbre * PITCHES + pitch
        self.sides = own[:, None, None].repeat(1, 1 + _GAPS, 2)
        self.side_share = torch.zeros(len(own), 1 + _GAPS)
        for number, (timbre, at) in enumerate(zip(self.note_timbre.tolist(), pitch.tolist(), strict=True)):
            found = torch.nonzero(net.heard[timbre])[:, 0].tolist()
            for gap in range(_GAPS):
                below = max((p for p in found if p < at - gap), default=None)
                above = min((p for p in found if p > at + gap), default=None)
                if below is None and above is None:
                    continue
                left, right = (below if below is not None else above), (above if above is not None else below)
                assert left is not None and right is not None
                self.sides[number, 1 + gap] = torch.tensor([left, right]) + timbre * PITCHES
                self.side_share[number, 1 + gap] = (at - left) / (right - left) if left < right else 0.0

    def begin_as(self, content: Mapping[str, Any]) -> dict[str, Tensor]:
        """See `Course.begin_as`; which pitches were heard is a fact of these notes, not of the other run's."""
        return super().begin_as({**content, "ema": {k: v for k, v in content["ema"].items() if k != "heard"}})

    def recalled(self, notes: Tensor, generator: torch.Generator) -> Tensor:
        """What is known of each note's pitch, ``(rows, kept)``, often without what is known of it itself."""
        gaps = torch.randint(1, 1 + _GAPS, (len(notes),), generator=generator)
        gaps = gaps * (torch.rand(len(notes), generator=generator) < _FORGOTTEN)
        table = self.tones.known.flatten(0, 1)
        left, right = table[self.sides[notes, gaps]].unbind(1)
        return torch.lerp(left, right, self.side_share[notes, gaps][:, None])

    def _set_scale(self, net: ToneNet) -> None:
        logs = self.row_logs.float()
        known = torch.isfinite(logs)
        mean = torch.where(known, logs, 0).sum(0) / known.sum(0).clamp_min(1)
        net.centre[0, :-1] = torch.where(known.any(0), mean, -9.0)
        net.centre[0, -1] = float(self.note_stiffness.mean())
        net.spread[0, :] = 2.0

    def learning_rate(self, step: int) -> float:
        """Of the net: lower once it also learns by ear."""
        return super().learning_rate(step) * (0.25 if step >= self.config.sound_step else 1.0)

    def _latents_of(self, notes: Tensor, generator: torch.Generator) -> Tensor:
        on = torch.rand(len(notes), 1, generator=generator) >= _LATENTS_OFF
        latents: Tensor = self.latents(notes) * on
        return latents

    def tracks_loss(self, generator: torch.Generator) -> Tensor:
        """Distance of the logarithms, what is heard weighing more, of a batch of moments."""
        rows = torch.multinomial(self.row_chance, self.config.rows, replacement=True, generator=generator)
        notes = self.row_note[rows]
        aim = self.row_logs[rows].float()
        velocity = self.note_velocity[notes].clone()
        free = velocity < 0
        drawn = 0.1 + 0.9 * torch.rand(len(rows), generator=generator)
        velocity = torch.where(free, drawn, velocity)
        # Where recordings tell nothing of velocity: softer is lower in level and duller.
        change = torch.where(free, velocity - PLAIN_VELOCITY, torch.zeros(()))[:, None]
        octaves = torch.log2(torch.arange(1, HARMONICS + 1).float())
        aim[:, :HARMONICS] += change * (_LEVEL_SLOPE + _TILT_SLOPE * octaves * 0.69)
        aim[:, HARMONICS:] += change * (_LEVEL_SLOPE + 1.0)
        given = self.net(
            rows_of(
                self.note_pitch[notes],
                velocity,
                self.row_seconds[rows],
                nn.functional.one_hot(self.note_timbre[notes], self.count).float(),
                self._latents_of(notes, generator),
            ),
            self.recalled(notes, generator),
        )
        known = torch.isfinite(aim)
        aim = torch.where(known, aim, 0.0)
        loudest = torch.where(known, aim, -99.0)[:, :HARMONICS].amax(1, keepdim=True)
        weight = (0.5 + torch.sigmoid((aim - loudest + 6.5) * 0.8)) * known
        weight = weight * (0.6 + torch.sigmoid(loudest + 8.0))
        distance = (given[:, :-1] - aim).abs()
        stiffness = (given[:, -1] - self.note_stiffness[notes]).abs().mean()
        loss: Tensor = (distance * weight).sum() / weight.sum() + 0.1 * stiffness
        return loss

    def pieces(
        self, notes: list[Note], starts: list[int], latents: Tensor, recalled: Tensor, phases: Tensor, rows: list[int]
    ) -> Tensor:
        """Sound ``(notes, (frames - 1) * HOP)`` that the net makes of pieces of notes from given frames on."""
        frames = self.config.frames
        moments = torch.tensor(starts)[:, None] + torch.arange(frames)[None]
        every = torch.arange(len(notes)).repeat_interleave(frames)
        velocity = torch.tensor([n.velocity if n.velocity >= 0 else PLAIN_VELOCITY for n in notes])
        logs = self.net(
            rows_of(
                torch.tensor([n.pitch for n in notes])[every],
                velocity[every],
                moments.reshape(-1) * (HOP / RATE_HZ),
                one_hot([n.timbre for n in notes], self.count)[every],
                latents[every],
            ),
            recalled[every],
        ).view(len(notes), frames, OUTPUTS)
        hertz = stretched(torch.tensor([n.hertz for n in notes]), torch.tensor([n.stiffness for n in notes]))
        length = (frames - 1) * HOP
        places = (torch.tensor(rows)[:, None] + torch.arange(length)) % TABLE_ROWS
        # A note begins in silence: the first frame rises from nothing.
        rise = torch.tensor([[0.0 if s == 0 else 1.0] for s in starts])
        sound = rendered(amplitudes(logs), hertz, phases, self.table[places], HOP, RATE_HZ)
        ramp = torch.cat((torch.arange(HOP) / HOP, torch.ones(length - HOP)))[None]
        return sound * (rise + (1 - rise) * ramp)

    def sounds(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A few pieces as the net plays them, and as they were recorded, at unit level."""
        config = self.config
        chosen = torch.multinomial(self.note_chance, config.notes, replacement=True, generator=generator)
        notes = [self.notes[int(k)] for k in chosen]
        length = (config.frames - 1) * HOP
        starts, targets = [], []
        for note in notes:
            last = max(0, (note.samples - length) // HOP)
            early = float(torch.rand((), generator=generator)) < 0.6
            start = 0 if early else int(torch.randint(last + 1, (), generator=generator))
            piece = self.corpus.sound(note)[start * HOP : start * HOP + length]
            starts.append(start)
            targets.append(torch.from_numpy(np.pad(piece, (0, length - len(piece)))))
        phases = 2 * math.pi * torch.rand(config.notes, HARMONICS, generator=generator)
        rows = torch.randint(TABLE_ROWS, (config.notes,), generator=generator).tolist()
        target = torch.stack(targets)
        latents, recalled = self._latents_of(chosen, generator), self.recalled(chosen, generator)
        estimate = self.pieces(notes, starts, latents, recalled, phases, rows)
        scale = level_scale(target)
        return estimate * scale, target * scale

    def lesson(self, generator: torch.Generator) -> Lesson:
        """Moments of tracks, and from `sound_step` on sounds."""
        parts = {
            "tracks": self.tracks_loss(generator),
            "latents": self.latents.weight.square().mean(),
            "body": self.tones.body.diff(dim=1).square().mean(),
        }
        lesson = Lesson(parts, {"tracks": self.config.tracks_weight, "latents": _LATENT_COST, "body": _BODY_COST})
        if self.step >= self.config.sound_step:
            lesson.estimate, lesson.target = self.sounds(generator)
        return lesson

    def run(self, budget_minutes: float | None = None, progress: bool = True, tensorboard: bool = False) -> int:
        """See `Course.run`; at the end it is measured what the net leaves out."""
        steps = super().run(budget_minutes, progress, tensorboard)
        self.wavers = self.left_out()
        self.save()
        return steps

    def left_out(self) -> list[dict[str, float]]:
        """How levels of each timbre's recordings waver about what the averaged net says, in the form of a card.

        A note's own mean over time is not counted, nor are its first moments, nor what lies far below its loudest
        partial, which noise moves. Time constants are held between 50 and 1000 ms.
        """
        found = []
        with self.as_averaged():
            for timbre in range(self.count):
                sums = np.zeros((2, 4))
                for number, note in enumerate(self.notes):
                    if note.timbre == timbre:
                        sums += self._straying(number, note)
                (square, count, *_), (noise_square, noise_count, *_) = sums
                first, second = sums[0, 2:]
                likeness = min(max(first / max(second, 1e-12), 0.01), 0.999)
                found.append({
                    "waver_db": round(min(_NEPER_DB * math.sqrt(square / max(count, 1)), _MOST_WAVER_DB), 2),
                    "noise_waver_db": round(
                        min(_NEPER_DB * math.sqrt(noise_square / max(noise_count, 1)), _MOST_WAVER_DB), 2
                    ),
                    "waver_ms": round(min(max(-1000 * _WAVER_STEP_S / math.log(likeness), 50.0), 1000.0)),
                })  # fmt: skip
        return found

    def _straying(self, number: int, note: Note) -> NDArray[np.float64]:
        """Of partials and of noise: squares and their count, products of neighbours in time and their squares."""
        corpus, own = self.corpus, slice(note.first, note.first + note.frames)
        times = corpus.times[own]
        # Rows lie further apart the longer a note has sounded: at one distance they can be compared.
        moments = np.arange(_WAVER_FROM_S, float(times[-1]), _WAVER_STEP_S)
        if len(moments) < 4:
            return np.zeros((2, 4))
        near = np.abs(times[None] - moments[:, None]).argmin(1)
        logs = np.concatenate([corpus.partials[own][near], corpus.noise[own][near]], 1).astype(np.float64)
        count = len(moments)
        velocity = note.velocity if note.velocity >= 0 else PLAIN_VELOCITY
        given = self.net(
            rows_of(
                torch.full((count,), note.pitch),
                torch.full((count,), velocity),
                torch.from_numpy(times[near]),
                one_hot([note.timbre], self.count).expand(count, -1),
                self.latents(torch.full((count,), number)),
            ),
            self.tones.known.flatten(0, 1)[self.sides[number, 0, 0]].expand(count, -1),
        )
        loudest = np.where(np.isfinite(logs), logs, -99.0)[:, :HARMONICS].max(1, keepdims=True)
        heard = np.isfinite(logs) & (logs > loudest - _WAVER_SPAN)
        stray = np.where(heard, logs - given[:, :-1].numpy(), 0.0)
        stray = np.where(heard, stray - stray.sum(0) / np.maximum(heard.sum(0), 1), 0.0)
        both = heard[1:] & heard[:-1]
        after, before = stray[1:] * both, stray[:-1] * both
        sides = []
        for part in (slice(0, HARMONICS), slice(HARMONICS, None)):
            a, b = after[:, part], before[:, part]
            sides.append([np.square(stray[:, part]).sum(), heard[:, part].sum(),
                          (a * b).sum(), math.sqrt(np.square(a).sum() * np.square(b).sum())])  # fmt: skip
        return np.array(sides, np.float64)

    def facts(self) -> dict[str, Any]:
        """Where the notes are from, how much there is, and the range of each timbre."""
        pitches = [[n.pitch for n in self.notes if n.timbre == k] for k in range(self.count)]
        return {
            "sources": self.corpus.sources(),
            "seconds_of_audio": sum(n.samples for n in self.notes) / RATE_HZ,
            "ranges": [[min(p), max(p)] for p in pitches if p],
            "wavers": self.wavers,
        }


def notes_of(config: ToneConfig, data: Path | None, cache: Path | None = None) -> NoteCorpus:
    """The notes that a config is trained on and measured by."""
    if data is None:
        raise UsageError("Notes are learned from recordings: say where they are with --data DIR.")
    return load_notes(data, config.timbres, config.held_out, cache)


def begin(config: ToneConfig, data: Path | None, cache: Path | None, out: Path) -> ToneTrainer:
    """A run, after a word on the notes of each timbre."""
    corpus = notes_of(config, data, cache)
    for number, name in enumerate(config.timbres):
        own = [n for n in corpus.notes if n.timbre == number]
        held = sum(n.held_out for n in own)
        print(f"{name}: {len(own) - held} notes, {held} held out")
    return ToneTrainer(config, corpus, out)
