"""A training run of a net that one process feeds: settings, steps, checkpoints, diary.

What is learned from what is a task's own: a subclass of `Course` says it in `Course.lesson`. A step is a function of
weights, optimisers and its number, so that a run that is killed and resumed goes the way of one that is not.
(The denoiser's `loop.Trainer` is a run of another make: many processes mix its examples, on several machines.)
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from ..errors import RtganError, UsageError
from .adversary import Adversary, AdversarySettings
from .checkpoint import BEST, CHECKPOINT, fitting, lineage, load_checkpoint, save_atomically
from .config import made
from .diary import Diary
from .discriminators import Discriminators
from .losses import LossSum
from .running import go_on, keep_average, rate_shape

_RISE_STEPS = 100


@dataclass(frozen=True)
class CourseConfig:
    """A training run, as in YAML; a task's own config adds fields.

    The learning rate rises over 100 steps, stays, and falls to zero over the last `decay_share` of `steps`. With
    `develop_every` above 0, held-out recordings are looked at that often and the best weights are kept.
    """

    TASK: ClassVar[str] = ""

    name: str
    task: str = ""
    description: str = ""
    version: int = 1
    seed: int = 0
    steps: int = 8000
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    decay_share: float = 0.5
    gradient_clip: float = 1.0
    ema: float = 0.998
    checkpoint_every: int = 250
    develop_every: int = 0
    losses: dict[str, dict[str, Any]] = field(default_factory=dict)
    adversary: AdversarySettings | None = None

    def __post_init__(self) -> None:
        if self.task not in ("", self.TASK):
            raise UsageError(f"task is {self.task!r} but must be {self.TASK}.")
        object.__setattr__(self, "task", self.TASK)
        if min(self.steps, self.checkpoint_every) < 1 or self.develop_every < 0:
            raise UsageError("steps and checkpoint_every must be above 0, develop_every at least 0.")
        if min(self.learning_rate, self.gradient_clip) <= 0 or self.weight_decay < 0:
            raise UsageError("learning_rate and gradient_clip must be above 0, weight_decay at least 0.")
        if not 0 <= self.ema < 1 or not 0 <= self.decay_share <= 1:
            raise UsageError("ema and decay_share must be between 0 and 1.")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as in YAML."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


Config = TypeVar("Config", bound=CourseConfig)


def parse_course(kind: type[Config], values: Any, where: str, sections: Mapping[str, type] | None = None) -> Config:
    """Check plain values and make a task's config of them.

    Parameters
    ----------
    kind : type
        The config's dataclass.
    values : mapping
        As read from YAML or a checkpoint.
    where : str
        What a message calls the file.
    sections : mapping, optional
        Fields that are dataclasses themselves; ``adversary`` is known.

    Raises
    ------
    UsageError
        Unknown keys, values of the wrong kind or out of range.
    """
    if not isinstance(values, dict) or "name" not in values:
        raise UsageError(f"{where} is not a training config: it must be a mapping with a 'name'.")
    ready = dict(values)
    for key, inner in (dict(sections or {}) | {"adversary": AdversarySettings}).items():
        if ready.get(key) is not None:
            ready[key] = made(inner, ready[key], f"{where}: {key}", f"{where}: {key}.")
        else:
            ready.pop(key, None)
    config: Config = made(kind, ready, where, f"{where}: ")
    if not isinstance(config.losses, dict):
        raise UsageError(f"{where}: losses must be a mapping.")
    if config.losses:
        LossSum(config.losses)
    if config.adversary is not None:
        Discriminators(config.adversary.discriminators)
    return config


@dataclass
class Lesson:
    """What one step is taught by.

    Attributes
    ----------
    parts, weights : dict
        Losses, and what each counts in their sum.
    estimate, target : Tensor, optional
        Sounds ``(batch, samples)`` for the config's ``losses`` and, from its step on, the discriminators.
    """

    parts: dict[str, Tensor]
    weights: dict[str, float]
    estimate: Tensor | None = None
    target: Tensor | None = None


class Course(ABC, Generic[Config]):
    """A run.

    Parameters
    ----------
    config : CourseConfig
    net : nn.Module
        What is learned, averaged over steps (`averaged`) and exported.
    out : Path
        Run folder.
    sample_rate_hz : int
        Of the sounds in lessons.
    beside : mapping of str to nn.Module, optional
        What is learned with the net and only needed for that.
    """

    #: The figure of `develop` that says which weights are best, and whether more is better.
    METRIC: ClassVar[str] = ""
    MORE_IS_BETTER: ClassVar[bool] = True

    def __init__(
        self, config: Config, net: nn.Module, out: Path, sample_rate_hz: int,
        beside: Mapping[str, nn.Module] | None = None,
    ) -> None:  # fmt: skip
        self.config, self.net, self.out = config, net, out
        self.beside = dict(beside or {})
        learned = [p for module in (net, *self.beside.values()) for p in module.parameters()]
        self.optimiser = torch.optim.AdamW(
            learned, config.learning_rate, betas=(0.9, 0.99), weight_decay=config.weight_decay
        )
        self.averaged = {name: value.detach().clone() for name, value in net.state_dict().items()}
        self.losses = LossSum(config.losses) if config.losses else None
        self.adversary = (
            Adversary(config.adversary, sample_rate_hz, torch.device("cpu")) if config.adversary is not None else None
        )
        self.step, self.seconds = 0, 0.0
        self.best: float | None = None
        #: The runs whose weights this one went on from, the first one first.
        self.lineage: list[dict[str, Any]] = []
        out.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def lesson(self, generator: torch.Generator) -> Lesson:
        """The losses of the step `step`; what is drawn is drawn from `generator`."""

    def facts(self) -> dict[str, Any]:
        """What an export must know beside the weights: plain values for the checkpoint."""
        return {}

    def develop(self) -> dict[str, float]:
        """Figures of the averaged net (`as_averaged`) on what is never trained on, `METRIC` among them."""
        return {}

    @contextlib.contextmanager
    def as_averaged(self) -> Any:
        """The net with its averaged weights, at rest, for as long as the block lasts."""
        own = {name: value.detach().clone() for name, value in self.net.state_dict().items()}
        self.net.load_state_dict(self.averaged)
        self.net.eval()
        try:
            with torch.no_grad():
                yield self.net
        finally:
            self.net.load_state_dict(own)
            self.net.train()

    def rate_shape(self, step: int) -> float:
        """Share of the learning rate: a short rise, a plateau, a fall to zero."""
        return rate_shape(self.config, step, _RISE_STEPS)

    def learning_rate(self, step: int) -> float:
        """Of the net."""
        return self.config.learning_rate * self.rate_shape(step)

    def train_step(self) -> dict[str, float]:
        """One update; returns the losses."""
        config, adversary = self.config, self.adversary
        generator = torch.Generator().manual_seed((config.seed << 32) + self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate(self.step)
        lesson = self.lesson(generator)
        parts, weights = dict(lesson.parts), dict(lesson.weights)
        estimate, target = lesson.estimate, lesson.target
        heard = None
        if estimate is not None and target is not None:
            if self.losses is not None:
                parts |= self.losses(estimate, target)
                weights |= self.losses.weights
            if adversary is not None:
                piece = adversary.piece(estimate.shape[1], self.step)
                heard = estimate[:, piece], target[:, piece]
                if adversary.speaks(self.step):
                    parts |= adversary.terms(*heard)
                    weights |= adversary.weights()
        total = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
        loss = float(total.detach())
        if not math.isfinite(loss):
            raise RtganError(f"The loss is not finite at step {self.step}: training stopped; the last checkpoint is "
                             f"in {self.out}.")  # fmt: skip
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), config.gradient_clip)
        if torch.isfinite(norm):
            self.optimiser.step()
        keep_average(self.averaged, self.net.state_dict(), config, self.step)
        figures = {"loss": loss, **{name: float(value.detach()) for name, value in parts.items()}}
        if adversary is not None and heard is not None and adversary.learns(self.step):
            lost = adversary.step(*heard, self.rate_shape(self.step), lambda gradients: None)
            figures["discriminators"] = float(lost)
        self.step += 1
        return figures

    def _content(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "config": self.config.as_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "lineage": self.lineage,
            "ema": self.averaged,
            "net": self.net.state_dict(),
            "beside": {name: module.state_dict() for name, module in self.beside.items()},
            "optimiser": self.optimiser.state_dict(),
            "adversary": self.adversary.state() if self.adversary is not None else None,
            **self.facts(),
        }

    def save(self) -> Path:
        """Write the checkpoint."""
        path = self.out / CHECKPOINT
        save_atomically(self._content(), path)
        return path

    def restore(self) -> None:
        """Go on where the run's checkpoint stopped."""
        content = self._checkpoint(self.out)
        given, own = content["config"], self.config.as_dict()
        if given.get("network") != own.get("network"):
            raise UsageError("The checkpoint's network differs from the config's; choose another --out.")
        try:
            self.net.load_state_dict(content["net"])
            for name, module in self.beside.items():
                module.load_state_dict(content["beside"][name])
        except RuntimeError:
            raise UsageError(
                "The checkpoint was trained on other data, or is of an earlier form of the net; choose another --out."
            ) from None
        self.averaged = {name: value.clone() for name, value in content["ema"].items()}
        self.optimiser.load_state_dict(content["optimiser"])
        if self.adversary is not None and content["adversary"] is not None:
            self.adversary.restore(content["adversary"])
        self.step, self.seconds, self.best = int(content["step"]), float(content["seconds"]), content["best"]
        self.lineage = list(content.get("lineage", []))

    def _checkpoint(self, run: Path) -> dict[str, Any]:
        content = load_checkpoint(run)
        if content["config"].get("task") != self.config.task:
            raise UsageError("The checkpoint is of another task.")
        return content

    def start_from(self, run: Path) -> tuple[int, int]:
        """Begin with what `begin_as` takes of another run's averaged weights.

        Returns
        -------
        tuple of int
            How many of this net's tensors were taken, and how many it has.
        """
        content = self._checkpoint(run)
        own, taken = self.net.state_dict(), self.begin_as(content)
        if not taken:
            raise UsageError("The checkpoint has no weights of the config's shapes; leave --start-from out.")
        self.net.load_state_dict(own | taken)
        self.lineage = lineage(content.get("lineage", []), content["config"], content["step"])
        self.averaged = {name: value.detach().clone() for name, value in self.net.state_dict().items()}
        for name, module in self.beside.items():
            mine = module.state_dict()
            module.load_state_dict(mine | fitting(mine, content["beside"].get(name, {})))
        if self.adversary is not None and content["adversary"] is not None:
            self.adversary.take_over(content["adversary"])
        return len(taken), len(own)

    def begin_as(self, content: Mapping[str, Any]) -> dict[str, Tensor]:
        """What of another run's checkpoint the net begins with: averaged weights that fit by name and shape."""
        return fitting(self.net.state_dict(), content["ema"])

    def _look(self, diary: Diary | None) -> str:
        figures = self.develop()
        if diary is not None:
            diary.figures(self.step, dict(figures), "held out")
        now = figures[self.METRIC]
        better = self.best is None or (now > self.best if self.MORE_IS_BETTER else now < self.best)
        if better:
            self.best = now
            save_atomically(self._content(), self.out / BEST)
        text = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        return f"{text}{' (best)' if better else ''}"

    def run(self, budget_minutes: float | None = None, progress: bool = True, tensorboard: bool = False) -> int:
        """Train until the steps or the time are used up, then write the checkpoint; returns the steps done in all."""
        results = (self.train_step() for _ in range(self.step, self.config.steps))
        return go_on(
            self, results, look_every=self.config.develop_every, look=self._look, budget_minutes=budget_minutes,
            progress=progress, tensorboard=tensorboard,
        )  # fmt: skip
