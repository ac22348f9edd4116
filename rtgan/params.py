"""Parameters: declared once, used everywhere.

A `Param` is the one source of a parameter's range, unit, default and smoothing. The command line, presets,
MIDI, the panel and the documents all derive from it. Values are kept in plain units; 0..1 exists only at
controllers (`Param.normalise`, `Param.plain`).

The second half of this file is the parameter as the audio thread sees it: eight float64 slots with a linear
ramp from the old value to the new one, advanced sample by sample so that the block size never shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rtgan.errors import UsageError
from rtgan.kernels.native import f64p, inline

Scale = Literal["linear", "log", "switch"]


@dataclass(frozen=True)
class Param:
    """One parameter of a plugin.

    Parameters
    ----------
    id : str
        Stable name within the plugin; carries the unit (``gain_db``, ``cutoff_hz``). Never changes.
    name : str
        What a person reads.
    minimum, maximum, default : float
        In plain units. A switch has the range 0..1.
    unit : str
        Shown behind the value.
    smoothing_ms : float
        Length of the ramp that a change takes; 0 for switches that may jump.
    scale : {"linear", "log", "switch"}
        How a controller's 0..1 maps to plain values.
    description : str
        One sentence.
    """

    id: str
    name: str
    minimum: float
    maximum: float
    default: float
    unit: str = ""
    smoothing_ms: float = 20.0
    scale: Scale = "linear"
    description: str = ""

    def __post_init__(self) -> None:
        if not self.minimum <= self.default <= self.maximum:
            raise ValueError(f"default of {self.id} lies outside its range")
        if self.scale == "log" and self.minimum <= 0:
            raise ValueError(f"{self.id} has a log scale and needs a positive minimum")

    @property
    def allowed(self) -> str:
        """The range in words."""
        if self.scale == "switch":
            return "on or off"
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.minimum:g} to {self.maximum:g}{unit}"

    def check(self, value: object, where: str = "") -> float:
        """Return the value as a float in range, or raise `UsageError` with one sentence."""
        prefix = f"{where}: " if where else ""
        if isinstance(value, str) and self.scale == "switch" and value.lower() in ("on", "off", "true", "false"):
            value = value.lower() in ("on", "true")
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise UsageError(f"{prefix}'{value}' is not a value for {self.id}; allowed: {self.allowed}") from None
        if not isinstance(value, (bool, int, float)) or not -1e300 < value < 1e300:
            raise UsageError(f"{prefix}{value!r} is not a value for {self.id}; allowed: {self.allowed}")
        if isinstance(value, bool) and self.scale != "switch":
            raise UsageError(f"{prefix}{self.id} takes a number, not on/off; allowed: {self.allowed}")
        number = float(value)
        if not self.minimum <= number <= self.maximum or (self.scale == "switch" and number not in (0.0, 1.0)):
            raise UsageError(f"{prefix}{number:g} is out of range for {self.id}; allowed: {self.allowed}")
        return number

    def normalise(self, plain: float) -> float:
        """Plain value to 0..1."""
        if self.maximum == self.minimum:
            return 0.0
        if self.scale == "log":
            return math.log(plain / self.minimum) / math.log(self.maximum / self.minimum)
        return (plain - self.minimum) / (self.maximum - self.minimum)

    def plain(self, normalised: float) -> float:
        """0..1 to a plain value; what lies outside is clamped."""
        x = min(1.0, max(0.0, normalised))
        if self.scale == "switch":
            return float(x >= 0.5)
        if self.scale == "log":
            return float(min(self.maximum, self.minimum * (self.maximum / self.minimum) ** x))
        return self.minimum + x * (self.maximum - self.minimum)

    def text(self, plain: float) -> str:
        """A value as a person reads it."""
        if self.scale == "switch":
            return "on" if plain >= 0.5 else "off"
        return f"{plain:g} {self.unit}".rstrip()


class ParamSet(Mapping[str, Param]):
    """The parameters of a plugin in their order, by id."""

    def __init__(self, params: Iterable[Param]) -> None:
        self._params = {p.id: p for p in params}

    def __getitem__(self, key: str) -> Param:
        return self._params[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._params)

    def __len__(self) -> int:
        return len(self._params)

    def index(self, key: str) -> int:
        """Position of a parameter in the set."""
        return list(self._params).index(key)


# --- the same parameter on the audio thread ---------------------------------------------------------------

CURRENT, TARGET, STEP, REMAINING, SMOOTHING = 0, 1, 2, 3, 4
PARAM_SLOTS = 8
PARAM_BYTES = 8 * PARAM_SLOTS


@inline
def param_set(address: Any, value: Any) -> None:
    """[audio] Begin the ramp to a new value."""
    p = f64p(address)
    p[TARGET] = value
    if p[SMOOTHING] < 1.0:
        p[CURRENT] = value
        p[REMAINING] = 0.0
    else:
        p[STEP] = (value - p[CURRENT]) / p[SMOOTHING]
        p[REMAINING] = p[SMOOTHING]


@inline
def param_glide(address: Any, value: Any, samples: Any) -> None:
    """[audio] Begin a ramp of so many samples to a new value; 0 for the parameter's own length."""
    if samples < 1:
        param_set(address, value)
    else:
        p = f64p(address)
        p[TARGET] = value
        p[STEP] = (value - p[CURRENT]) / samples
        p[REMAINING] = np.float64(samples)


@inline
def param_jump(address: Any, value: Any) -> None:
    """[audio] Be at a value at once."""
    p = f64p(address)
    p[CURRENT] = value
    p[TARGET] = value
    p[REMAINING] = 0.0


@inline
def param_next(address: Any) -> Any:
    """[audio] Advance one sample and return the value."""
    p = f64p(address)
    if p[REMAINING] > 0.0:
        p[REMAINING] -= 1.0
        if p[REMAINING] <= 0.0:
            p[CURRENT] = p[TARGET]
        else:
            p[CURRENT] += p[STEP]
    return p[CURRENT]


@inline
def param_advance(address: Any, samples: Any) -> Any:
    """[audio] Advance a fixed number of samples (a hop) at once and return the value."""
    p = f64p(address)
    if p[REMAINING] > samples:
        p[REMAINING] -= samples
        p[CURRENT] += p[STEP] * samples
    else:
        p[REMAINING] = 0.0
        p[CURRENT] = p[TARGET]
    return p[CURRENT]


@inline
def param_settled(address: Any) -> Any:
    """[audio] Whether no ramp is under way."""
    return f64p(address)[REMAINING] <= 0.0
