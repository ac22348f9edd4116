"""Training of the net that fills gaps: many gaps are cut into recordings, and what it makes of them is compared.

A step takes a few stretches of speech, with and without noise and music, cuts gaps of all lengths into each, mostly
where somebody speaks, and has the net roll out its answers over the whole of every gap, with nothing to go by but what
was before it. Sound and recording are compared in several short-time spectra and, towards the end, through
discriminators.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from ..kernels.conceal import PAST
from .config import read_yaml
from .course import Course, CourseConfig, Lesson, parse_course
from .data import Array, Corpus, describe, generated_corpus, load_corpus
from .losses import level_scale
from .mixing import PLAIN, SAMPLE_RATE_HZ, Mixer, MixSettings
from .repair import FADE_S, Rehearsal, RepairNet, RepairSettings, complex_noise

TASK = "repair"
#: What of the sound before a gap is compared too: a step at its beginning would be heard.
_LEAD_HOPS = 3
#: Share of gaps that begin where somebody speaks.
_SPOKEN = 0.85
_HELD_OUT_MIXES = 6


@dataclass(frozen=True)
class RepairConfig(CourseConfig):
    """A training run of `RepairNet`, as in YAML.

    Attributes
    ----------
    mixes, gaps : int
        Stretches of sound in a step, and gaps in each.
    shortest_ms, longest_ms : float
        Length of a gap; short ones are more frequent.
    """

    TASK: ClassVar[str] = TASK

    mixes: int = 3
    gaps: int = 12
    shortest_ms: float = 8.0
    longest_ms: float = 120.0
    mixing: MixSettings = field(default_factory=lambda: PLAIN)
    network: RepairSettings = field(default_factory=RepairSettings)
    losses: dict[str, dict[str, Any]] = field(default_factory=lambda: {"stft": {"weight": 1.0}})

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.mixes, self.gaps) < 1 or not 1 <= self.shortest_ms < self.longest_ms <= 500:
            raise UsageError("mixes and gaps must be above 0, and 1 <= shortest_ms < longest_ms <= 500.")
        if self.mixing.seconds < 1 or not self.losses:
            raise UsageError("mixing.seconds must be at least 1, and losses must name at least one.")


def parse_repair_config(values: Any, where: str) -> RepairConfig:
    """Check plain values and make a config of them; unknown keys are refused."""
    return parse_course(RepairConfig, values, where, {"network": RepairSettings, "mixing": MixSettings})


def load_repair_config(path: Path) -> RepairConfig:
    """Read a config file."""
    return parse_repair_config(read_yaml(path), str(path))


class RepairTrainer(Course[RepairConfig]):
    """A run.

    Parameters
    ----------
    config : RepairConfig
    corpus : Corpus
    out : Path
        Run folder.
    """

    METRIC, MORE_IS_BETTER = "distance", False
    net: RepairNet

    def __init__(self, config: RepairConfig, corpus: Corpus, out: Path) -> None:
        torch.manual_seed(config.seed)
        self.corpus = corpus
        self.rehearsal = Rehearsal(SAMPLE_RATE_HZ)
        hop = self.rehearsal.hop
        self.fade = round(FADE_S * SAMPLE_RATE_HZ)
        self.frames = -(-(round(config.longest_ms * SAMPLE_RATE_HZ / 1000) + self.fade) // hop)
        self.mixer = Mixer(corpus, config.mixing, config.seed)
        held_out = bool(corpus.pool("speech", held_out=True))
        plain = dataclasses.replace(PLAIN, seconds=config.mixing.seconds, clean_chance=0.7)
        self._held_out = Mixer(corpus, plain, 2024, held_out=held_out)
        super().__init__(config, RepairNet(config.network), out, SAMPLE_RATE_HZ)

    def _starts(self, sound: Array, rng: np.random.Generator) -> list[int]:
        """Where gaps begin in a stretch of sound."""
        hop, first = self.rehearsal.hop, self.rehearsal.history
        last = len(sound) - self.frames * hop
        power = np.square(sound[: len(sound) // hop * hop].reshape(-1, hop)).mean(1)
        spoken = np.flatnonzero(power > 0.01 * power.max(initial=1e-9)) * hop
        spoken = spoken[(spoken >= first) & (spoken < last - hop)]
        starts = rng.integers(first, last, self.config.gaps)
        if len(spoken):
            there = rng.choice(spoken, self.config.gaps) + rng.integers(0, hop, self.config.gaps)
            starts = np.where(rng.random(self.config.gaps) < _SPOKEN, there, starts)
        return [int(s) for s in starts]

    def filled(self, net: RepairNet, mixer: Mixer, numbers: list[int], seed: int) -> tuple[Tensor, Tensor]:
        """Sounds with one filled gap each, and what they were, at unit level."""
        config, hop, history = self.config, self.rehearsal.hop, self.rehearsal.history
        rng = np.random.default_rng((config.seed, seed))
        made: list[tuple[Array, ...]] = []
        wanted, lengths = [], []
        short, long = (ms * SAMPLE_RATE_HZ / 1000 for ms in (config.shortest_ms, config.longest_ms))
        for number in numbers:
            sound = mixer(number).noisy
            for start in self._starts(sound, rng):
                made.append(self.rehearsal(sound[start - history : start], self.frames))
                wanted.append(sound[start - _LEAD_HOPS * hop : start + self.frames * hop])
                lengths.append(int(np.exp(rng.uniform(np.log(short), np.log(long)))))
        rows, re, im, power, first = (torch.from_numpy(np.stack(part)) for part in zip(*made, strict=True))
        target = torch.from_numpy(np.stack(wanted))
        answers = net.sequence(rows)[:, PAST + 1 :]
        noise = complex_noise(tuple(re.shape), torch.Generator().manual_seed(seed))
        gap = self.rehearsal.shaped(answers, re, im, power, first, noise)
        # Behind the gap what came back fades in, as it will be heard.
        place = torch.arange(gap.shape[1])[None] - torch.tensor(lengths)[:, None]
        rise = (place / self.fade).clamp(0, 1)
        real = target[:, _LEAD_HOPS * hop :]
        estimate = torch.cat((target[:, : _LEAD_HOPS * hop], gap * (1 - rise) + real * rise), 1)
        scale = level_scale(target, 1e-3)
        return estimate * scale, target * scale

    def lesson(self, generator: torch.Generator) -> Lesson:
        """Gaps in a few stretches of sound."""
        first = self.step * self.config.mixes
        numbers = list(range(first, first + self.config.mixes))
        estimate, target = self.filled(self.net, self.mixer, numbers, self.step + 1)
        return Lesson({}, {}, estimate, target)

    def develop(self) -> dict[str, float]:
        """The losses on gaps in held-out recordings."""
        assert self.losses is not None
        with self.as_averaged() as net:
            parts = self.losses(*self.filled(net, self._held_out, list(range(_HELD_OUT_MIXES)), 0))
            total = self.losses.total(parts)
        return {"distance": float(total), **{name: float(value) for name, value in parts.items()}}

    def facts(self) -> dict[str, Any]:
        """Where the recordings are from, and how much was heard."""
        return {
            "sources": self.corpus.sources(),
            "seconds_of_audio": self.step * self.config.mixes * self.config.mixing.seconds,
        }


def begin(config: RepairConfig, data: Path | None, cache: Path | None, out: Path) -> RepairTrainer:
    """A run, after a word on the recordings."""
    corpus = generated_corpus() if data is None else load_corpus(data, cache)
    print(describe(corpus))
    return RepairTrainer(config, corpus, out)
