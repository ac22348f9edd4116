"""A training run as written in YAML, checked key by key."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import UsageError
from .adversary import AdversarySettings
from .discriminators import Discriminators
from .losses import LossSum
from .mixing import MixSettings
from .networks import DenoiserSettings
from .stft import Stft

METRICS = {"loss": False, "si_sdr_db": True, "pesq_wb": True}
"""Metrics of the development set, and whether more is better."""
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class DevelopSettings:
    """The look at a small held-out set during training.

    Attributes
    ----------
    every_steps : int
        Steps between two looks; 0 for none.
    mixes : int
        How many, always the same.
    metric : str
        What decides which weights are kept as the best: ``loss``, ``si_sdr_db`` or ``pesq_wb``.
    patience : int
        Training stops after so many looks in a row without a new best; 0 never stops.
    """

    every_steps: int = 500
    mixes: int = 16
    metric: str = "si_sdr_db"
    patience: int = 0

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise UsageError(f"develop.metric is {self.metric!r} but must be one of {', '.join(METRICS)}.")
        if min(self.every_steps, self.patience) < 0 or self.mixes < 1:
            raise UsageError("develop: every_steps and patience must be at least 0, mixes at least 1.")


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    The learning rate rises over `warmup_steps`, stays, and falls to zero over the last `decay_share` of `steps`.
    `batch` counts the examples of one process. With `balance`, the weights of the losses are shares of the gradient
    (`losses.Balancer`).
    """

    name: str
    description: str = ""
    version: int = 1
    seed: int = 0
    steps: int = 4000
    batch: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup_steps: int = 200
    decay_share: float = 0.3
    gradient_clip: float = 1.0
    ema: float = 0.998
    balance: bool = False
    precision: str = "auto"
    checkpoint_every: int = 200
    workers: int = 1
    network: DenoiserSettings = field(default_factory=DenoiserSettings)
    mixing: MixSettings = field(default_factory=MixSettings)
    losses: dict[str, dict[str, Any]] = field(default_factory=lambda: {"compressed": {"weight": 1.0}})
    adversary: AdversarySettings | None = None
    develop: DevelopSettings = field(default_factory=DevelopSettings)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.learning_rate <= 0 or not 0 <= self.ema < 1 or not 0 <= self.decay_share <= 1:
            raise UsageError("steps and learning_rate must be positive, ema and decay_share between 0 and 1.")
        if self.batch < 1 or self.checkpoint_every < 1 or self.workers < 0 or self.gradient_clip <= 0:
            raise UsageError("batch, checkpoint_every and gradient_clip must be above 0, workers at least 0.")
        if self.precision not in PRECISIONS:
            raise UsageError(f"precision is {self.precision!r} but must be one of {', '.join(PRECISIONS)}.")

    @property
    def stft(self) -> Stft:
        """The transform that belongs to the net."""
        return Stft(self.network.n_fft, self.network.hop_samples, 2 * self.network.hop_samples)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as in YAML."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


_SECTIONS: dict[str, type] = {
    "network": DenoiserSettings,
    "mixing": MixSettings,
    "adversary": AdversarySettings,
    "develop": DevelopSettings,
}


def check_keys(kind: type, given: Mapping[str, Any], where: str) -> None:
    """Refuse what a dataclass has no field for; ``where`` comes before the key."""
    known = sorted(f.name for f in dataclasses.fields(kind))
    for key in given:
        if key not in known:
            raise UsageError(f"{where}{key} is not known; allowed are {', '.join(known)}.")


_LISTED = {int: "whole numbers", float: "numbers", str: "words"}


def _is_a(value: Any, kind: type) -> bool:
    if kind is str:
        return isinstance(value, str)
    return not isinstance(value, bool) and isinstance(value, (int, float) if kind is float else int)


def check_kinds(kind: type, given: Mapping[str, Any], where: str) -> None:
    """Refuse values of another kind than the field's: a switch, a whole number, a number, or a list of such."""
    defaults = {f.name: f.default for f in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    for key, value in given.items():
        default = defaults[key]
        if typing.get_origin(hints[key]) is list:
            of = typing.get_args(hints[key])[0]
            if of in _LISTED and not (isinstance(value, list) and all(_is_a(one, of) for one in value)):
                raise UsageError(f"{where}{key} is {value!r} but must be a list of {_LISTED[of]}.")
        elif isinstance(default, bool):
            if not isinstance(value, bool):
                raise UsageError(f"{where}{key} is {value!r} but must be true or false.")
        elif isinstance(default, int | float) and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UsageError(f"{where}{key} is {value!r} but must be a number.")
        elif isinstance(default, int) and not isinstance(value, int):
            raise UsageError(f"{where}{key} is {value!r} but must be a whole number.")


def made(kind: type, values: Any, where: str, prefix: str) -> Any:
    """A dataclass of plain values; unknown keys, other kinds and missing fields are refused."""
    if not isinstance(values, dict):
        raise UsageError(f"{where} must be a mapping.")
    check_keys(kind, values, prefix)
    check_kinds(kind, values, prefix)
    try:
        return kind(**values)
    except TypeError as problem:
        raise UsageError(f"{where} is not complete: {problem}.") from None


def read_yaml(path: Path) -> Any:
    """What a config file holds; `UsageError` where it cannot be read."""
    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"The config {str(path)!r} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise UsageError(f"The config {str(path)!r} is not YAML: {' '.join(str(error).split())}.") from error


def parse_config(values: Any, where: str) -> TrainConfig:
    """Check plain values and make a config of them; unknown keys are refused."""
    if not isinstance(values, dict) or "name" not in values:
        raise UsageError(f"{where} is not a training config: it must be a mapping with a 'name'.")

    def build(kind: type, given: dict[str, Any], prefix: str) -> Any:
        check_keys(kind, given, f"{where}: {prefix}")
        ready = dict(given)
        for key, inner in _SECTIONS.items() if kind is TrainConfig else ():
            if ready.get(key) is not None:
                if not isinstance(ready[key], dict):
                    raise UsageError(f"{where}: {key} must be a mapping.")
                ready[key] = build(inner, ready[key], f"{key}.")
            elif key != "adversary":
                ready.pop(key, None)
        check_kinds(kind, ready, f"{where}: {prefix}")
        return kind(**ready)

    config: TrainConfig = build(TrainConfig, values, "")
    if not isinstance(config.losses, dict):
        raise UsageError(f"{where}: losses must be a mapping.")
    LossSum(config.losses)
    if config.adversary is not None:
        Discriminators(config.adversary.discriminators)
    return config


def load_config(path: Path) -> TrainConfig:
    """Read a config from YAML."""
    return parse_config(read_yaml(path), path.name)
