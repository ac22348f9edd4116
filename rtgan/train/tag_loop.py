"""Training of the recogniser, and what its answers are worth: `calibration`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import UsageError
from .config import read_yaml
from .course import Course, CourseConfig, Lesson, parse_course
from .tag_data import (
    ENVIRONMENT,
    GROUPS,
    HOP_S,
    LABELS,
    RATE_HZ,
    Scene,
    TagCorpus,
    TagDataSettings,
    TagMixer,
    load_tag_corpus,
)
from .tags import TagNet, TagSettings

TASK = "tags"
LOUDEST = tuple(f"mainly_{group}" for group in GROUPS)
"""What a net tells of `GROUPS`: how probably each is the loudest. They begin as `rtgan.generators.card.MAINLY` says."""
#: Scenes that probabilities are calibrated by, and the series they are drawn from.
_SCENES, _SERIES = 160, 77


@dataclass(frozen=True)
class TagConfig(CourseConfig):
    """A training run of `TagNet`, as in YAML.

    ``batch`` counts scenes; ``which_weight`` is that of telling kinds of sound from each other, and which is the
    loudest, beside telling each from everything else. What the net says is about ``delays_ms`` ago, so that it has
    heard a sound begin or end before it must judge; of two, the first answer is for who waits for it and the second for
    who has time. ``tell`` names the labels, and of `LOUDEST`, that the exported net tells; it learns all, so that it
    takes none of them for another. With ``bfloat16`` the net calculates in numbers of two bytes while it learns, which
    takes less time where the processor has them.
    """

    TASK: ClassVar[str] = TASK

    batch: int = 32
    which_weight: float = 0.5
    bfloat16: bool = False
    delays_ms: list[float] = field(default_factory=lambda: [0.0])
    tell: list[str] = field(default_factory=lambda: [*LABELS, *LOUDEST])
    network: TagSettings = field(default_factory=TagSettings)
    data: TagDataSettings = field(default_factory=TagDataSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch < 2 or self.which_weight < 0:
            raise UsageError("batch must be at least 2, which_weight at least 0.")
        if not 1 <= len(self.delays_ms) <= 2 or self.delays_ms != sorted(set(self.delays_ms)):
            raise UsageError("delays_ms must be one number, or two of which the second is the greater one.")
        if not all(0 <= ms <= 2000 and ms % 100 == 0 for ms in self.delays_ms):
            raise UsageError("delays_ms must be whole numbers of 100 ms from 0 to 2000.")
        if self.delays_ms[-1] + 500 >= 1000 * self.data.seconds:
            raise UsageError("delays_ms must end half a second before a scene does: see seconds in data.")
        if len(set(self.tell)) != len(self.tell) or not set(self.tell) <= {*LABELS, *LOUDEST}:
            raise UsageError(f"tell must name different labels of {', '.join((*LABELS, *LOUDEST))}.")
        if not set(self.tell) & set(LABELS):
            raise UsageError(f"tell must name one of {', '.join(LABELS)} at least.")
        if self.losses or self.adversary is not None:
            raise UsageError("a recogniser is taught by labels: leave losses and adversary out.")

    @property
    def delays_frames(self) -> list[int]:
        """`delays_ms` in frames of the net."""
        return [round(ms / 1000 / HOP_S) for ms in self.delays_ms]


def parse_tag_config(values: Any, where: str) -> TagConfig:
    """Check plain values and make a config of them; unknown keys are refused."""
    return parse_course(TagConfig, values, where, {"network": TagSettings, "data": TagDataSettings})


def load_tag_config(path: Path) -> TagConfig:
    """Read a config file."""
    return parse_tag_config(read_yaml(path), str(path))


def stacked(scenes: list[Scene]) -> tuple[Tensor, Tensor, Tensor]:
    """Scenes as ``(batch, frames, MELS)``, labels ``(batch, frames, labels)`` and the loudest ``(batch, frames)``."""
    return (
        torch.from_numpy(np.stack([s.decibels for s in scenes])),
        torch.from_numpy(np.stack([s.labels for s in scenes])).float(),
        torch.from_numpy(np.stack([s.loudest for s in scenes])).long(),
    )


def tag_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross entropy where the labels know."""
    known = labels >= 0
    each = functional.binary_cross_entropy_with_logits(logits, labels.clamp_min(0), reduction="none")
    return (each * known).sum() / known.sum().clamp_min(1)


_ENVIRONMENT = [LABELS.index(name) for name in ENVIRONMENT]


def which_loss(logits: Tensor, first: Tensor, labels: Tensor, loudest: Tensor) -> Tensor:
    """Mean cross entropy of which kind of noise it is, where it is one alone, and of which of `GROUPS` is loudest.

    Parameters
    ----------
    logits : Tensor, (batch, frames, labels)
    first : Tensor, (batch, frames, groups)
    labels : Tensor, (batch, frames, labels)
    loudest : Tensor, (batch, frames)
    """
    found = []
    given, wanted = logits[..., _ENVIRONMENT], labels[..., _ENVIRONMENT]
    one = ((wanted == 1).sum(-1) == 1) & ((wanted == 0).sum(-1) == len(_ENVIRONMENT) - 1)
    if one.any():
        found.append(functional.cross_entropy(given[one], wanted[one].argmax(-1)))
    clear = loudest >= 0
    if clear.any():
        found.append(functional.cross_entropy(first[clear], loudest[clear]))
    return torch.stack(found).mean() if found else logits.sum() * 0


def calibration(
    net: TagNet, mixer: TagMixer, scenes: int = _SCENES, delay_frames: int = 0, answer: int = 0
) -> tuple[list[list[float]], float]:
    """Scale and shift of every label's logit, and scale of those of `GROUPS`, by which probabilities come true.

    By recordings that are neither trained on nor tested by (Platt, 1999). The kinds of noise have few of these and
    share one pair.
    """
    logits, firsts, labels, loudest = [], [], [], []
    with torch.no_grad():
        for first in range(0, scenes, 16):
            x, y, z = stacked([mixer(k) for k in range(first, first + 16)])
            # Neighbours say the same: every fifth frame is enough.
            said = net(x)[:, 25 + delay_frames :: 5, answer].flatten(0, 1)
            logits.append(said[:, : len(LABELS)])
            firsts.append(said[:, len(LABELS) :])
            labels.append(y[:, 25 : y.shape[1] - delay_frames : 5].reshape(-1, len(LABELS)))
            loudest.append(z[:, 25 : z.shape[1] - delay_frames : 5].flatten())
    given, wanted = torch.cat(logits), torch.cat(labels)
    shared = LABELS.index(ENVIRONMENT[0])
    place = torch.tensor([shared if name in ENVIRONMENT else k for k, name in enumerate(LABELS)])
    scale = torch.ones(len(LABELS), requires_grad=True)
    shift = torch.zeros(len(LABELS), requires_grad=True)
    sharpness = torch.ones(1, requires_grad=True)
    fitter = torch.optim.LBFGS([scale, shift, sharpness], max_iter=60, line_search_fn="strong_wolfe")
    groups, largest = torch.cat(firsts), torch.cat(loudest)

    def cost() -> Tensor:
        fitter.zero_grad()
        # Few recordings stand behind a label: what they say is not taken to the letter.
        value = (
            tag_loss(given * scale[place] + shift[place], wanted) + 3e-4 * ((scale - 1).square() + shift.square()).sum()
        )
        if (largest >= 0).any():
            value = value + functional.cross_entropy(groups * sharpness, largest, ignore_index=-1)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    fitter.step(cost)  # type: ignore[no-untyped-call]
    return torch.stack((scale, shift), 1)[place].detach().tolist(), float(sharpness.detach())


class TagCourse(Course[TagConfig]):
    """A run.

    Parameters
    ----------
    config : TagConfig
    corpus : TagCorpus
    out : Path
        Run folder.
    """

    def __init__(self, config: TagConfig, corpus: TagCorpus, out: Path) -> None:
        torch.manual_seed(config.seed)
        self.corpus = corpus
        self.mixer = TagMixer(corpus, "train", config.data, config.seed)
        super().__init__(config, TagNet(config.network, len(LABELS), len(GROUPS), len(config.delays_ms)), out, RATE_HZ)

    def begin_as(self, content: Mapping[str, Any]) -> dict[str, Tensor]:
        """See `Course.begin_as`; a wider net begins as the narrower one."""
        given = parse_tag_config(content["config"], "checkpoint")
        said = content.get("labels"), content.get("groups"), len(given.delays_ms)
        state = None
        if said == (list(LABELS), list(GROUPS), len(self.config.delays_ms)):
            assert isinstance(self.net, TagNet)
            state = self.net.widened(content["ema"], given.network)
        return state or super().begin_as(content)

    def lesson(self, generator: torch.Generator) -> Lesson:
        """The next scenes."""
        torch.manual_seed(int(torch.randint(1 << 62, (), generator=generator)))
        batch = self.config.batch
        x, labels, loudest = stacked([self.mixer(self.step * batch + k) for k in range(batch)])
        delays = self.config.delays_frames
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.bfloat16):
            every = self.net(x).float()
        told, which = [], []
        for number, delay in enumerate(delays):
            said, until = every[:, delay:, number], x.shape[1] - delay
            logits, first = said[..., : len(LABELS)], said[..., len(LABELS) :]
            told.append(tag_loss(logits, labels[:, :until]))
            which.append(which_loss(logits, first, labels[:, :until], loudest[:, :until]))
        weights = {"tags": 1.0, "which": self.config.which_weight}
        return Lesson({"tags": torch.stack(told).mean(), "which": torch.stack(which).mean()}, weights)

    def facts(self) -> dict[str, Any]:
        """Sources and hours, and the calibration of the averaged net."""
        with self.as_averaged() as net:
            mixer = TagMixer(self.corpus, "calibrate", self.config.data, _SERIES)
            scales = [
                calibration(net, mixer, _SCENES, delay, number)
                for number, delay in enumerate(self.config.delays_frames)
            ]
        return {
            "labels": list(LABELS),
            "groups": list(GROUPS),
            "calibration": [scale for scale, _ in scales],
            "sharpness": [sharpness for _, sharpness in scales],
            "sources": self.corpus.sources(),
            "seconds_of_audio": sum(s["hours"] for s in self.corpus.sources()) * 3600,
        }


def begin(config: TagConfig, data: Path | None, cache: Path | None, out: Path) -> TagCourse:
    """A run, from ``rtgan train``."""
    corpus = corpus_of(config, data, cache)
    print(corpus.describe())
    return TagCourse(config, corpus, out)


def corpus_of(config: TagConfig, data: Path | None, cache: Path | None = None) -> TagCorpus:
    """The recordings that a config is trained on and measured by."""
    if data is None:
        raise UsageError("Sounds are learned from recordings: say where they are with --data DIR.")
    corpus = load_tag_corpus(data, config.data, cache)
    for side in ("train", "calibrate"):
        missing = [kind for kind in ("speech", "music", "noise") if not corpus.pool(side, kind)]
        if missing:
            raise UsageError(f"There is no {missing[0]} to {side} by in {str(data)!r}.")
    return corpus
