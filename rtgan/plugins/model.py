"""A model of the user's own: TorchScript as it is, in a worker; or a carded generator, run natively."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from rtgan.errors import NotLowered, UsageError
from rtgan.generators import blocks, card, library
from rtgan.generators.compile import compile
from rtgan.params import Param, ParamSet
from rtgan.plugin import Activation, NativeNode, Plugin
from rtgan.plugins.denoise import Denoise
from rtgan.worker import lowered
from rtgan.worker import node as sides
from rtgan.worker import spec as specs
from rtgan.worker.node import LEAST_MARGIN
from rtgan.worker.spec import Spec

_LATE = ("dry", "silence", "hold")
_RUN = ("auto", "native", "worker")
_WEIGHTS = ("float32", "float16")
_variants: dict[tuple[str, ...], type[Plugin]] = {}


class Model(Plugin):
    """Any TorchScript model; its parameters are those of the file (`variant`).

    Parameters
    ----------
    model : str
        Path of the file: an nn~ export, a Neutone model, a plain module, or a generator with a card.
    method : str
        Of an nn~ model: what to play, ``latents`` for encode, your hands on the latents, decode.
    attributes : str
        ``name=value; name=value``: what an nn~ model is set to when it is loaded, sound files of buffers included.
    ranges : str
        ``name low high; ...`` of parameters whose range no file tells.
    late : {"dry", "silence", "hold"}
        What is heard where an answer is missing; with ``hold`` what it gave last goes on and dies away.
    run : {"auto", "native", "worker"}
        Whether it becomes machine code where it can, and runs on the audio thread itself where it is fast enough. With
        ``native`` its attributes stay as they are set when it is loaded, and are no parameters.
    weights : {"float32", "float16"}
        Of large matrices where it is lowered; with ``float16`` only as long as that is not heard.
    block_samples, margin_samples, rate_hz, seed, threads : str
        See `settings`.
    """

    id = "model"
    name = "Model"
    description = "A TorchScript model of your own, nn~ and Neutone files included; natively where it lowers."
    options = frozenset({"model", "method", "attributes", "ranges", "late", "run", "weights"})
    required = ("model",)
    rings = True
    settings = ParamSet(
        [
            Param("block_samples", "Block", 0, 65536, 0,
                  description="Samples the model gets at a time, at its own rate; 0 for its own choice."),
            Param("margin_samples", "Margin", 0, 65536, 0,
                  description="Samples, at its rate, that it has to answer in; 0 for a block, more for long periods."),
            Param("rate_hz", "Rate", 0, 192000, 0, unit="Hz",
                  description="Rate the model was made for; 0 for what it says itself."),
            Param("seed", "Seed", 0, 2**31 - 1, 0, description="Holds chance fast: the same seed, the same sound."),
            Param("threads", "Threads", 1, 64, 1, description="Threads that the model may use."),
        ]
    )  # fmt: skip
    spec: ClassVar[Spec | None] = None

    @classmethod
    def variant(cls, options: Mapping[str, str], load: bool) -> type[Plugin] | None:
        """The class with the parameters of a model file; see `rtgan.plugin.Plugin.variant`."""
        path = library.find(options.get("model", ""))
        if path is None:
            raise UsageError(f"there is no model file '{options.get('model', '')[:200]}'")
        if card.has_card(path):
            return _Carded
        spec = specs.look(path) if load else specs.known(path)
        if spec is None:
            return None
        method, ranges, run = (options.get(key, "") for key in ("method", "ranges", "run"))
        key = (str(path), spec.sha256, method, ranges, run)
        if key not in _variants:
            params = ParamSet([knob.param for knob in spec.knobs(method, ranges, run == "native")])
            _variants[key] = type(cls.__name__, (cls,), {"params": params, "spec": spec, "__module__": cls.__module__})
        return _variants[key]

    def __init__(
        self, model: str, method: str = "", attributes: str = "", ranges: str = "", late: str = "dry",
        run: str = "auto", block_samples: str = "0", margin_samples: str = "0", rate_hz: str = "0", seed: str = "0",
        threads: str = "1", weights: str = "float32",
    ) -> None:  # fmt: skip
        if late not in _LATE:
            raise UsageError(f"late is '{late[:40]}'; allowed: {' or '.join(_LATE)}")
        if run not in _RUN:
            raise UsageError(f"run is '{run[:40]}'; allowed: {' or '.join(_RUN)}")
        if weights not in _WEIGHTS:
            raise UsageError(f"weights is '{weights[:40]}'; allowed: {' or '.join(_WEIGHTS)}")
        assert self.spec is not None, "made through `variant`"
        self._spec = self.spec.set_by(attributes)
        self._native = run != "worker"
        self._wanted = int(block_samples)
        self._block = self._spec.block_for(int(block_samples))
        self._margin = int(margin_samples)
        if 0 < self._margin < LEAST_MARGIN:
            raise UsageError(f"margin_samples is {self._margin}; allowed: 0 for a whole block, or from {LEAST_MARGIN}")
        own = self._spec.rates_hz or ((self._spec.rate_hz,) if self._spec.rate_hz else ())
        self.rates_hz = (int(rate_hz),) if int(rate_hz) else own
        # The wrapper in such a file has next to no filter, and no delay by it.
        self.short_resampling = self._spec.kind == "neutone"
        self._method = self._spec.method(method)
        self._late = "keep" if late == "hold" and self._method.ratio_out > 1 else late
        self._choices: dict[str, Any] = {
            "method": method, "ranges": ranges, "attributes": attributes, "block": self._block, "seed": int(seed),
            "threads": int(threads), "fixed": run == "native", "weights": weights,
        }  # fmt: skip
        found = "; ".join(self._spec.findings)
        self.notice = f"model {self._spec.path}, sha256 {self._spec.sha256}" + (f" ({found})" if found else "")

    def activate(self, activation: Activation) -> NativeNode:
        """[main] See `rtgan.plugin.Plugin.activate`."""
        rate = activation.sample_rate_hz
        choices = {**self._choices, "rate_hz": rate, "channels": activation.channels}
        if self._native:
            found = self._lowered(activation)
            if isinstance(found, NativeNode):
                return found
            made = lowered.lower(self._spec, {**choices, "channels": 1})
            if not isinstance(made, str):
                choices["program"] = str(made.path)
            self.notice += f"; in a worker{', as machine code' if 'program' in choices else ''}: {found}"
        margin = self._margin or sides.margin_for(self._block, activation.period_samples)
        return _in_worker(self._spec, choices, activation, margin, list(self.params), self._late)

    def _lowered(self, activation: Activation) -> NativeNode | str:
        """The model as machine code on the audio thread, or why it cannot run there."""
        block, rate = lowered.block_for(self._spec, self._wanted), activation.sample_rate_hz
        found = lowered.lower(self._spec, {**self._choices, "block": block, "rate_hz": rate, "channels": 1})
        if isinstance(found, str):
            return found
        if why := found.too_slow(block, rate, activation.period_samples):
            return why
        self.notice += "; native"
        method = self._method
        own = replace(activation, params={p: activation.params[p] for p in self.params})
        return blocks.activate(
            compile(found.program), block, method.sounds_in, method.channels_out, method.delay_samples,
            self._spec.tail_samples, own,
        )  # fmt: skip


class _Carded(Model):
    """A generator with a card: frame by frame on the audio thread, or in a worker where it cannot be lowered."""

    params = Denoise.params
    rings = False

    def __init__(self, model: str, **more: str) -> None:
        if more:
            raise UsageError(f"{model} is a generator with a card, which takes no {next(iter(more))}")
        self._inner: Denoise | None = None
        try:
            self._inner = Denoise(model)
            self.rates_hz, self.notice = self._inner.rates_hz, self._inner.notice
        except NotLowered as why:
            path = library.find(model)
            assert path is not None
            about = card.read_card(path)
            if about.task != "denoise" or about.channels != 1:
                raise
            self._of_frames(path, about, why)

    def _of_frames(self, path: Path, about: card.Card, why: NotLowered) -> None:
        self._frames = specs.of_card(path, about)
        self.rates_hz = self._frames.rates_hz
        self.notice = f"model {path}, sha256 {about.sha256}; in a worker: {why}"

    def activate(self, activation: Activation) -> NativeNode:
        """[main] See `rtgan.plugin.Plugin.activate`."""
        if self._inner is not None:
            try:
                return self._inner.activate(activation)
            except NotLowered as why:
                self._of_frames(self._inner.model.path, self._inner.model.card, why)
        block = self._frames.block_for(0)
        choices = {"block": block, "rate_hz": activation.sample_rate_hz, "channels": activation.channels}
        margin = sides.margin_for(block, activation.period_samples)
        return _in_worker(self._frames, choices, activation, margin, list(self.params), "dry")


def _in_worker(
    spec: Spec, choices: dict[str, Any], activation: Activation, margin: int, params: Sequence[str], late: str
) -> NativeNode:
    from rtgan.worker.worker import Worker

    given = [activation.params[p] for p in params]
    worker = Worker(spec, choices, activation.arena, activation.stride_samples, margin, given, late)
    rate = activation.sample_rate_hz
    return NativeNode(
        int(sides.process.address),
        worker.node.address,
        int(sides.reset.address),
        latency_samples=worker.node.latency_samples + max(0, spec.method(choices.get("method", "")).delay_samples),
        tail_samples=spec.tail_samples,
        settle_samples=rate // 4,
        readings=worker.readings,
        wait=worker.wait,
        problems=worker.problems,
        keep=(worker,),
    )
