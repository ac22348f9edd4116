"""Training of the codec's music mode: its net by what the codec left out, its tables by counting what it told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ..errors import UsageError
from ..kernels import music
from .config import read_yaml
from .course import Course, CourseConfig, Lesson, parse_course
from .data import Corpus, describe, load_corpus
from .music_data import Draw, told
from .music_net import MusicNet, MusicSettings

TASK = "music"
_NOTHING = -50.0


@dataclass(frozen=True)
class MusicConfig(CourseConfig):
    """A training run of `MusicNet`, as in YAML.

    Attributes
    ----------
    batch, frames : int
        Pieces in a step, and their length.
    qualities : sequence of int
        From which to which examples are coded.
    level_db : sequence of float
        Range in which levels are altered.
    tilt : float
        By how much steps grow from band to band, in 1.5 dB.
    counted : int
        Pieces of 3 s that the tables are counted from.
    """

    TASK: ClassVar[str] = TASK

    batch: int = 12
    frames: int = 50
    qualities: tuple[int, int] = (36, 68)
    level_db: tuple[float, float] = (-15.0, 3.0)
    tilt: float = 0.8
    counted: int = 1200
    network: MusicSettings = field(default_factory=MusicSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch < 1 or self.frames < 4 or self.counted < 1:
            raise UsageError("batch and counted must be at least 1, frames at least 4.")
        if abs(self.tilt) > 4:
            raise UsageError("tilt must lie in -4..4.")
        for name in ("qualities", "level_db"):
            low, high = getattr(self, name)
            if low > high:
                raise UsageError(f"{name} must be [low, high].")
        low, high = map(int, self.qualities)
        if not 0 <= low <= high < music.QUALITIES:
            raise UsageError(f"qualities must lie in 0..{music.QUALITIES - 1}.")
        object.__setattr__(self, "qualities", (low, high))
        object.__setattr__(self, "level_db", (float(self.level_db[0]), float(self.level_db[1])))

    @property
    def tilts(self) -> NDArray[np.int64]:
        """Of every band."""
        return np.round(self.tilt * (np.arange(music.BANDS) - (music.BANDS - 1) / 2)).astype(np.int64)


def parse_music_config(values: Any, where: str) -> MusicConfig:
    """Check plain values and make a config of them; unknown keys are refused."""
    return parse_course(MusicConfig, values, where, {"network": MusicSettings})


def load_music_config(path: Path) -> MusicConfig:
    """Read a config file."""
    return parse_music_config(read_yaml(path), str(path))


class MusicTrainer(Course[MusicConfig]):
    """A run.

    Parameters
    ----------
    config : MusicConfig
    corpus : Corpus
    out : Path
        Run folder.
    """

    def __init__(self, config: MusicConfig, corpus: Corpus, out: Path) -> None:
        torch.manual_seed(config.seed)
        self.corpus, self._draw = corpus, Draw(corpus)
        self.counts: Tensor | None = None
        self.music = MusicNet(config.network)
        super().__init__(config, self.music, out, music.RATE_HZ)

    def _piece(self, rng: np.random.Generator, seconds: float) -> tuple[NDArray[np.float32], int]:
        """A piece at some level, and a quality to code it at."""
        config = self.config
        sound = self._draw(rng, seconds) * np.float32(10 ** (rng.uniform(*config.level_db) / 20))
        return sound, int(rng.integers(config.qualities[0], config.qualities[1] + 1))

    def lesson(self, generator: torch.Generator) -> Lesson:
        """A batch of pieces, coded."""
        config = self.config
        rng = np.random.default_rng((config.seed, self.step))
        heard = torch.zeros(config.batch, config.frames, music.ROW)
        wanted = torch.full((config.batch, config.frames, music.BANDS), 2 * _NOTHING)
        for k in range(config.batch):
            sound, quality = self._piece(rng, config.frames * music.FRAME / music.RATE_HZ)
            found = told(sound, quality, config.tilts)
            count = min(config.frames, len(found.heard))
            heard[k, :count], wanted[k, :count] = found.heard[:count], found.wanted[:count]
        counts = (wanted > _NOTHING).float()
        away = (self.music.sequence(heard) - wanted).abs() * counts
        return Lesson({"energy": away.sum() / counts.sum().clamp_min(1)}, {"energy": 1.0})

    def counted(self, progress: bool = False) -> Tensor:
        """How often each symbol was told in each row."""
        counts = np.zeros((music.ROWS, music.SYMBOLS))
        for number in tqdm(range(self.config.counted), "counting", disable=not progress):
            rng = np.random.default_rng((self.config.seed, 1 << 40, number))
            found = told(*self._piece(rng, 3.0), self.config.tilts)
            np.add.at(counts, (found.rows, found.symbols), 1)
        return torch.from_numpy(counts)

    def run(self, budget_minutes: float | None = None, progress: bool = True, tensorboard: bool = False) -> int:
        """See `Course.run`; behind the last step symbols are counted."""
        steps = super().run(budget_minutes, progress, tensorboard)
        if steps >= self.config.steps:
            self.counts = self.counted(progress)
            self.save()
        return steps

    def facts(self) -> dict[str, Any]:
        """Where the recordings are from, how much was heard, and counts."""
        heard = self.step * self.config.batch * self.config.frames * music.FRAME / music.RATE_HZ
        used = [s | {"roles": ["music"]} for s in self.corpus.sources() if "music" in s["roles"]]
        return {"sources": used, "seconds_of_audio": heard, "counts": self.counts}


def begin(config: MusicConfig, data: Path | None, cache: Path | None, out: Path) -> MusicTrainer:
    """A run, after a word on the recordings."""
    if data is None:
        raise UsageError("A codec is learned from recordings: say where they are with --data DIR.")
    corpus = load_corpus(data, cache)
    print(describe(corpus))
    return MusicTrainer(config, corpus, out)
