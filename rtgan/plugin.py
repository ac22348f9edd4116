"""The plugin contract, and where plugins are found.

Lifecycle (CLAP's): created, `activate` [main], process/reset [audio], gone. A plugin is one class in one
file: it declares its parameters, and in `activate` it hands the host a native function. Nothing of the class
itself is ever called on the audio thread.
"""

from __future__ import annotations

import importlib.util
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rtgan.errors import RtganError, UsageError
from rtgan.memory import Arena
from rtgan.params import Param, ParamSet

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


@dataclass(frozen=True)
class NativeNode:
    """What `Plugin.activate` returns: the plugin as the audio thread knows it.

    Parameters
    ----------
    process : int
        Address of ``void process(int64 state, int64 io, int64 n)``. ``io`` is the address of planar float32
        audio, channel ``c`` at ``io + 4 * c * stride`` (`Activation.stride_samples`); processed in place, for
        any ``1 <= n <= max_block``.
    state : int
        Address handed to both functions.
    reset : int
        Address of a function of the same signature (``io`` and ``n`` unused) that brings the state back to
        that of a fresh activation and leaves the parameters alone; 0 for a node without state.
    midi : int
        Address of a function of the same signature for a node that plays notes; 0 for others. It is called between two
        calls of ``process``, at the very sample of a MIDI message: ``io`` is then the message, up to three bytes, the
        first lowest, ``n`` its port. `rtgan.notes` says what becomes of it.
    latency_samples : int
        Constant delay of the wet path, to the sample.
    tail_samples : int
        How long sound may go on after the input has ended, beyond the latency.
    settle_samples : int
        How long a cold node needs, beyond its latency, before it sounds like a warm one.
    readings : mapping of str to int
        What the node lets others read while it runs: address of one float64 each, by name.
    lanes : mapping of str to int
        Signals beside the sound, for nodes behind it in the chain: address of ``max_block`` float32 each, by name.
        ``process`` writes as many as it gets samples, each for the sample that comes out with it; ``reset`` writes
        -1 all over, which means that nothing is known.
    lean : int
        Address of an int64 that is 1 while the machine cannot keep up and the node is to do with less, by a way of
        its own and without a click; 0 for a node that cannot.
    wait : callable, optional
        [main] From now on let the node wait for whoever answers it in another process, as a sound file has the time to;
        before it plays.
    problems : callable, optional
        [main] What went wrong outside the audio thread so far, a sentence each.
    slips : int
        Address of an int64 for a node that counts on calls of one length (`Activation.rest`): not 0 once one was of
        another, from when on it is later than declared. It is handed the device's calls whole; 0 for any other node.
    keep : tuple
        Objects that own memory the node uses.
    """

    process: int
    state: int
    reset: int = 0
    midi: int = 0
    latency_samples: int = 0
    tail_samples: int = 0
    settle_samples: int = 0
    readings: Mapping[str, int] = field(default_factory=dict)
    lanes: Mapping[str, int] = field(default_factory=dict)
    lean: int = 0
    wait: Callable[[], None] | None = None
    problems: Callable[[], list[str]] | None = None
    slips: int = 0
    keep: tuple[Any, ...] = ()


@dataclass(frozen=True)
class StripEnd:
    """A strip behind its fader, as the mixer finds it in every piece.

    Parameters
    ----------
    buffer : int
        Address of its planar samples, with `Activation.stride_samples`.
    channels : int
    params, lanes, readings : Mapping[str, int]
        Those of its fader, by name.
    """

    buffer: int
    channels: int
    params: Mapping[str, int]
    lanes: Mapping[str, int]
    readings: Mapping[str, int]


@dataclass(frozen=True)
class Activation:
    """What a plugin may know and use when it is activated [main].

    Parameters
    ----------
    sample_rate_hz : int
    max_block : int
        The largest ``n`` that ``process`` will see.
    channels : int
    stride_samples : int
        Distance between channels in ``io``.
    arena : Arena
        All memory of the node comes from here.
    params : Mapping[str, int]
        Address of each parameter's slots (see `rtgan.params.param_next`), by id.
    lanes : Mapping[str, int]
        The lanes of the nodes in front, by name, of the nearest where several have the same.
    align_samples : int
        For a fader: how much later than its own strip the slowest one is.
    strips : tuple of StripEnd
        For a mixer: the strips, in their order.
    period_samples : int
        Samples that a call of the device brings, as far as that is known; 0 where it is not.
    rest : callable, optional
        Where all calls are of one length: how many samples of an unfinished block there are at most at the end of one,
        for blocks of so many samples that are counted from the beginning. Who answers within the call in which a block
        is full is that late, and no later.
    """

    sample_rate_hz: int
    max_block: int
    channels: int
    stride_samples: int
    arena: Arena
    params: Mapping[str, int] = field(default_factory=dict)
    lanes: Mapping[str, int] = field(default_factory=dict)
    align_samples: int = 0
    strips: tuple[StripEnd, ...] = ()
    period_samples: int = 0
    rest: Callable[[int], int] | None = None


class Plugin(ABC):
    """One effect or instrument.

    Class attributes
    ----------------
    id, name, version, description : str
        A stable id, what a person reads, the version of the sound, one sentence.
    params : ParamSet
        In the order a person should see them.
    options : frozenset of str
        Texts that a preset may give, such as the name of a model: keywords of the constructor.
    settings : ParamSet
        Numbers that are fixed when the plugin is made, because the latency depends on them: keywords of the
        constructor as well, which get them as texts.
    required : tuple of str
        Options without which it cannot be made.
    rates_hz : tuple of int
        Rates the plugin can run at; empty for any. The host resamples around it where the device differs.
    short_resampling : bool
        Whether little delay counts for more there than the highest frequencies (`rtgan.kernels.resample.build`).
    shed : int
        Place, 1 to 9, among those that are left out while the machine cannot keep up: their input passes instead, as
        late as declared. 0 for one that never is, because it guards somebody's ears or sets a level.
    notice : str
        What a person should be told when it starts to play, such as the hash of a model file; or empty.
    inputs : tuple of int
        For a fader, which ends a strip: the strip's inputs, from 0. Empty for any other plugin.
    mixes : bool
        Whether it mixes the strips in front of it.
    steady : bool
        Whether it plays on when the whole chain is bypassed, because bypassed it would open what somebody has muted.
    rings : bool
        Whether what it made sounds on, for `NativeNode.tail_samples` at most, where a chain without it takes over.
    """

    id: ClassVar[str]
    name: ClassVar[str]
    version: ClassVar[str] = "1.0.0"
    description: ClassVar[str] = ""
    params: ClassVar[ParamSet] = ParamSet([])
    options: ClassVar[frozenset[str]] = frozenset()
    settings: ClassVar[ParamSet] = ParamSet([])
    shed: ClassVar[int] = 0
    required: ClassVar[tuple[str, ...]] = ()
    rates_hz: tuple[int, ...] = ()
    short_resampling: bool = False
    notice: str = ""
    inputs: tuple[int, ...] = ()
    mixes: ClassVar[bool] = False
    steady: ClassVar[bool] = False
    rings: ClassVar[bool] = False

    @classmethod
    def variant(cls, options: Mapping[str, str], load: bool) -> type[Plugin] | None:
        """The class to make with these options: a subclass where parameters come out of a file [main].

        Parameters
        ----------
        options : mapping of str to str
        load : bool
            Whether a file that is code may be loaded to find out.

        Returns
        -------
        type or None
            None if only loading could tell.
        """
        return cls

    @classmethod
    def reading_names(cls, options: Mapping[str, str]) -> tuple[str, ...] | None:
        """Names of the readings that it will have with these options; None if only playing it tells [main]."""
        return None

    @abstractmethod
    def activate(self, activation: Activation) -> NativeNode:
        """[main] Allocate, load, compile, warm up. The only place that may."""


#: What the host itself gives every plugin.
HOST_PARAMS = (
    Param("bypass", "Bypass", 0, 1, 0, scale="switch", description="Pass the input, delayed as the plugin would."),
    Param("mix", "Mix", 0, 100, 100, unit="%", description="Share of the plugin in what is heard."),
)


def all_params(plugin: type[Plugin]) -> ParamSet:
    """A plugin's parameters behind the host's own (bypass, mix)."""
    return ParamSet([*HOST_PARAMS, *plugin.params.values()])


@cache
def _builtin() -> dict[str, str]:
    return {
        "codec": "rtgan.plugins.codec",
        "compressor": "rtgan.plugins.compressor",
        "deesser": "rtgan.plugins.deesser",
        "denoise": "rtgan.plugins.denoise",
        "eq": "rtgan.plugins.eq",
        "gain": "rtgan.plugins.gain",
        "gate": "rtgan.plugins.gate",
        "highpass": "rtgan.plugins.highpass",
        "howl": "rtgan.plugins.howl",
        "hum": "rtgan.plugins.hum",
        "leveller": "rtgan.plugins.leveller",
        "limiter": "rtgan.plugins.limiter",
        "model": "rtgan.plugins.model",
        "morph": "rtgan.plugins.morph",
        "repair": "rtgan.plugins.repair",
        "synth": "rtgan.plugins.synth",
        "tags": "rtgan.plugins.tags",
        "truepeak": "rtgan.plugins.truepeak",
    }


#: What strips are made of; presets write it another way, and no chain can hold it elsewhere.
STRIP_PARTS = {"fader": "rtgan.plugins.fader", "mixer": "rtgan.plugins.mixer"}


def _declared() -> dict[str, EntryPoint]:
    # Slow to import, and asked for only where a name is none of ours.
    from importlib.metadata import entry_points

    return {e.name: e for e in entry_points(group="rtgan.plugins")}


def plugin_ids() -> list[str]:
    """Ids of every plugin that can be named in a preset."""
    return sorted({*_builtin(), *_declared()})


def whole_plugin_ids() -> list[str]:
    """Ids of those that need nothing else named, such as a model file."""
    return [name for name in plugin_ids() if not plugin_class(name).required]


def plugin_class(name: str) -> type[Plugin]:
    """The class of a plugin, by id or by the path of a Python file that defines exactly one.

    Raises
    ------
    UsageError
        If there is no such plugin.
    RtganError
        If the plugin cannot be loaded.
    """
    builtin = {**_builtin(), **STRIP_PARTS}
    if name in builtin:
        module = importlib.import_module(builtin[name])
        found = _defined_in(module)
        return found[0]
    if name.endswith(".py"):
        return _from_file(name)
    declared = _declared().get(name)
    if declared is None:
        raise UsageError(f"there is no plugin '{name}'; known are: {', '.join(plugin_ids())}")
    try:
        loaded = declared.load()
    except Exception as problem:
        raise RtganError(f"the plugin '{name}' of {declared.value} cannot be loaded: {problem}") from problem
    if not (isinstance(loaded, type) and issubclass(loaded, Plugin)):
        raise RtganError(f"the plugin '{name}' of {declared.value} is not a rtgan Plugin class")
    return loaded


def _from_file(name: str) -> type[Plugin]:
    path = Path(name).expanduser()
    if not path.is_file():
        raise UsageError(f"there is no plugin file {path}")
    spec = importlib.util.spec_from_file_location(f"rtgan_plugin_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise RtganError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as problem:
        raise RtganError(f"the plugin file {path} cannot be loaded: {problem}") from problem
    found = _defined_in(module)
    if len(found) != 1:
        raise RtganError(f"the plugin file {path} defines {len(found)} Plugin classes; exactly one is expected")
    return found[0]


def _defined_in(module: Any) -> list[type[Plugin]]:
    return [
        v
        for v in vars(module).values()
        if isinstance(v, type)
        and issubclass(v, Plugin)
        and v.__module__ == module.__name__
        and hasattr(v, "id")
        and v.__name__[0] != "_"
    ]
