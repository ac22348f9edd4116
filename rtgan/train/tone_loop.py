"""Training of the net that plays notes: first on tracks taken from recordings, then by ear.

Every step fits a batch of moments to the tracks of `notes`. From `sound_step` on it also makes sound, a piece of each
of a few notes, and compares it with the recording in several short-time spectra and through discriminators. A step is
a function of weights, optimisers and its number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import RtganError, UsageError
from ..kernels.partials import BANDS, HARMONICS, TABLE_ROWS, noise_table
from .adversary import Adversary, AdversarySettings
from .checkpoint import CHECKPOINT, load_checkpoint, save_atomically
from .config import check_keys, check_kinds, read_yaml
from .diary import Diary
from .loop import _Interrupt
from .losses import LossSum, level_scale
from .notes import HOP, RATE_HZ, Note, NoteCorpus, TimbreSettings, load_notes
from .tones import FIRST, OUTPUTS, ToneNet, ToneSettings, amplitudes, one_hot, rendered, rows_of, stretched

TASK = "synth"
#: Velocity that recordings count as whose timbre has a single one, and what other velocities do to it: a law, not data.
PLAIN_VELOCITY = 0.85
_LEVEL_SLOPE, _TILT_SLOPE = 3.2, 0.9
_LATENTS_OFF = 0.3
_LATENT_COST = 0.02
_NO_STIFFNESS = math.log(1e-6)


@dataclass(frozen=True)
class ToneConfig:
    """A training run of `ToneNet`, as in YAML."""

    name: str
    task: str = TASK
    description: str = ""
    version: int = 1
    seed: int = 0
    steps: int = 8000
    rows: int = 1536
    sound_step: int = 4000
    notes: int = 6
    frames: int = 128
    learning_rate: float = 2e-3
    decay_share: float = 0.5
    gradient_clip: float = 1.0
    ema: float = 0.998
    tracks_weight: float = 1.0
    checkpoint_every: int = 250
    held_out: list[int] = field(default_factory=list)
    timbres: dict[str, TimbreSettings] = field(default_factory=dict)
    network: ToneSettings = field(default_factory=ToneSettings)
    losses: dict[str, dict[str, Any]] = field(default_factory=lambda: {"stft": {"weight": 1.0}})
    adversary: AdversarySettings | None = None

    def __post_init__(self) -> None:
        if self.task != TASK:
            raise UsageError(f"task is {self.task!r} but must be {TASK}.")
        whole = (self.steps, self.rows, self.notes, self.checkpoint_every)
        if min(whole) < 1 or self.frames < 32 or self.learning_rate <= 0 or not 0 <= self.ema < 1:
            raise UsageError("steps, rows, notes and learning_rate must be above 0, frames at least 32, ema below 1.")
        if not self.timbres:
            raise UsageError("timbres must name at least one.")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as in YAML."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


def _made(kind: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise UsageError(f"{where} must be a mapping.")
    check_keys(kind, values, f"{where}.")
    check_kinds(kind, values, f"{where}.")
    try:
        return kind(**values)
    except TypeError as problem:
        raise UsageError(f"{where} is not complete: {problem}.") from None


def parse_tone_config(values: Any, where: str) -> ToneConfig:
    """Check plain values and make a config of them; unknown keys are refused."""
    if not isinstance(values, dict) or "name" not in values:
        raise UsageError(f"{where} is not a training config: it must be a mapping with a 'name'.")
    ready = dict(values)
    timbres = ready.get("timbres")
    if not isinstance(timbres, dict):
        raise UsageError(f"{where}: timbres must be a mapping.")
    ready["timbres"] = {n: _made(TimbreSettings, t, f"{where}: timbres.{n}") for n, t in timbres.items()}
    ready["network"] = _made(ToneSettings, ready.get("network", {}), f"{where}: network")
    if ready.get("adversary") is not None:
        ready["adversary"] = _made(AdversarySettings, ready["adversary"], f"{where}: adversary")
    config: ToneConfig = _made(ToneConfig, ready, where)
    LossSum(config.losses)
    return config


def is_tone_config(path: Path) -> bool:
    """Whether a YAML file says that its task is this one."""
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    return isinstance(values, dict) and values.get("task") == TASK


def load_tone_config(path: Path) -> ToneConfig:
    """Read a config file."""
    return parse_tone_config(read_yaml(path), str(path))


class ToneTrainer:
    """A run.

    Parameters
    ----------
    config : ToneConfig
    corpus : NoteCorpus
    out : Path
        Run folder.
    """

    def __init__(self, config: ToneConfig, corpus: NoteCorpus, out: Path) -> None:
        self.config, self.corpus, self.out = config, corpus, out
        torch.manual_seed(config.seed)
        self.count = len(config.timbres)
        self.notes = corpus.side(held_out=False)
        if not self.notes:
            raise UsageError("All notes are held out; there is nothing to train on.")
        self.net = ToneNet(config.network, self.count)
        self.latents = nn.Embedding(len(self.notes), config.network.latents)
        nn.init.normal_(self.latents.weight, std=0.3)
        self._take_rows()
        self._set_scale()
        self.optimiser = torch.optim.AdamW(
            [*self.net.parameters(), *self.latents.parameters()], config.learning_rate, betas=(0.9, 0.99),
            weight_decay=1e-3,
        )  # fmt: skip
        self.averaged = {name: value.detach().clone() for name, value in self.net.state_dict().items()}
        self.losses = LossSum(config.losses)
        self.adversary = (
            Adversary(config.adversary, RATE_HZ, torch.device("cpu")) if config.adversary is not None else None
        )
        self.table = torch.from_numpy(noise_table(RATE_HZ))
        self.step, self.seconds = 0, 0.0
        out.mkdir(parents=True, exist_ok=True)

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

    def _set_scale(self) -> None:
        logs = self.row_logs.float()
        known = torch.isfinite(logs)
        mean = torch.where(known, logs, 0).sum(0) / known.sum(0).clamp_min(1)
        self.net.centre[0, :-1] = torch.where(known.any(0), mean, -9.0)
        self.net.centre[0, -1] = float(self.note_stiffness.mean())
        self.net.spread[0, :] = 2.0

    def rate_shape(self, step: int) -> float:
        """Share of the learning rate: a short rise, a plateau, a fall to zero."""
        fall = max(1.0, self.config.steps * self.config.decay_share)
        return min(1.0, (step + 1) / 100, max(0.0, (self.config.steps - step) / fall))

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
            )
        )
        known = torch.isfinite(aim)
        aim = torch.where(known, aim, 0.0)
        loudest = torch.where(known, aim, -99.0)[:, :HARMONICS].amax(1, keepdim=True)
        weight = (0.05 + torch.sigmoid((aim - loudest + 6.5) * 0.8)) * known
        weight = weight * (0.15 + torch.sigmoid(loudest + 8.0))
        distance = (given[:, :-1] - aim).abs()
        stiffness = (given[:, -1] - self.note_stiffness[notes]).abs().mean()
        loss: Tensor = (distance * weight).sum() / weight.sum() + 0.1 * stiffness
        return loss

    def pieces(self, notes: list[Note], starts: list[int], latents: Tensor, phases: Tensor, rows: list[int]) -> Tensor:
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
            )
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
        estimate = self.pieces(notes, starts, self._latents_of(chosen, generator), phases, rows)
        scale = level_scale(target)
        return estimate * scale, target * scale

    def train_step(self) -> dict[str, float]:
        """One update."""
        config, adversary = self.config, self.adversary
        generator = torch.Generator().manual_seed((config.seed << 32) + self.step)
        shape = self.rate_shape(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * shape * (0.25 if self.step >= config.sound_step else 1.0)
        parts = {"tracks": self.tracks_loss(generator)}
        weights = {"tracks": config.tracks_weight}
        estimate = target = None
        if self.step >= config.sound_step:
            estimate, target = self.sounds(generator)
            parts |= self.losses(estimate, target)
            weights |= self.losses.weights
            if adversary is not None and adversary.speaks(self.step):
                piece = adversary.piece(estimate.shape[1], self.step)
                parts |= adversary.terms(estimate[:, piece], target[:, piece])
                weights |= adversary.weights()
        total = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
        total = total + _LATENT_COST * self.latents.weight.square().mean()
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), config.gradient_clip)
        if not math.isfinite(float(total.detach())):
            raise RtganError(f"The loss is not finite at step {self.step}: training stopped.")
        if torch.isfinite(norm):
            self.optimiser.step()
        with torch.no_grad():
            decay = min(config.ema, (1 + self.step) / (10 + self.step))
            for name, now in self.net.state_dict().items():
                self.averaged[name].lerp_(now, 1 - decay)
        figures = {"loss": float(total.detach()), **{name: float(value.detach()) for name, value in parts.items()}}
        if adversary is not None and estimate is not None and target is not None and adversary.learns(self.step):
            piece = adversary.piece(estimate.shape[1], self.step)
            lost = adversary.step(estimate[:, piece], target[:, piece], shape, lambda gradients: None)
            figures["discriminators"] = float(lost)
        self.step += 1
        return figures

    def save(self) -> Path:
        """Write the checkpoint."""
        path = self.out / CHECKPOINT
        content = {
            "schema": 1,
            "config": self.config.as_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "ema": self.averaged,
            "net": self.net.state_dict(),
            "latents": self.latents.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "adversary": self.adversary.state() if self.adversary is not None else None,
            "sources": self.corpus.sources(),
            "seconds_of_audio": sum(n.samples for n in self.notes) / RATE_HZ,
            "ranges": [
                [min(p), max(p)] for k in range(self.count) if (p := [n.pitch for n in self.notes if n.timbre == k])
            ],
        }
        save_atomically(content, path)
        return path

    def restore(self, start_from: Path | None = None) -> None:
        """Go on where the run's checkpoint stopped, or begin with the weights of another run."""
        content = load_checkpoint(start_from or self.out)
        if content["config"].get("task") != TASK or content["config"]["network"] != self.config.as_dict()["network"]:
            raise UsageError("The checkpoint's network differs from the config's; choose another --out.")
        try:
            self.net.load_state_dict(content["net"])
            self.latents.load_state_dict(content["latents"])
        except RuntimeError:
            raise UsageError("The checkpoint was trained on other notes or timbres; choose another --out.") from None
        self.averaged = {name: value.clone() for name, value in content["ema"].items()}
        if start_from is not None:
            return
        self.optimiser.load_state_dict(content["optimiser"])
        if self.adversary is not None and content["adversary"] is not None:
            self.adversary.restore(content["adversary"])
        self.step, self.seconds = int(content["step"]), float(content["seconds"])

    def run(self, budget_minutes: float | None = None, progress: bool = True) -> int:
        """Train until the steps or the time are used up; returns the steps done in all."""
        config = self.config
        begun, earlier = time.monotonic(), self.seconds
        smooth: dict[str, float] = {}
        with contextlib.ExitStack() as stack:
            interrupt = stack.enter_context(_Interrupt())
            diary = stack.enter_context(Diary(self.out, tensorboard=False))
            bar = stack.enter_context(
                tqdm(total=config.steps, initial=self.step, desc=config.name, unit="step", disable=not progress)
            )
            while self.step < config.steps:
                for name, value in self.train_step().items():
                    smooth[name] = value if name not in smooth else 0.98 * smooth[name] + 0.02 * value
                self.seconds = earlier + time.monotonic() - begun
                bar.update()
                if self.step % 50 == 0:
                    bar.set_postfix({name: f"{value:.4g}" for name, value in smooth.items()})
                    diary.figures(self.step, {"seconds": round(self.seconds, 1)} | smooth)
                if self.step % config.checkpoint_every == 0:
                    self.save()
                if interrupt.seen or (budget_minutes is not None and time.monotonic() - begun > budget_minutes * 60):
                    break
        self.save()
        return self.step


def notes_of(config: ToneConfig, data: Path | None, cache: Path | None = None) -> NoteCorpus:
    """The notes that a config is trained on and measured by."""
    if data is None:
        raise UsageError("Notes are learned from recordings: say where they are with --data DIR.")
    return load_notes(data, config.timbres, config.held_out, cache)


__all__ = ["BANDS", "FIRST", "ToneConfig", "ToneTrainer", "load_tone_config", "notes_of", "parse_tone_config"]
