"""The engine without a device: files and arrays through the same callback, and performances again.

`Renderer` drives the callback as fast as it goes. A recorded performance (dry sound plus event log) comes out
bit for bit, because every event carries the sample it took effect at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtgan import events, presets
from rtgan.engine import HOST_PARAMS, Engine
from rtgan.errors import RtganError, UsageError
from rtgan.events import Record
from rtgan.generators import library
from rtgan.graph import TRIM, Graph, labelled
from rtgan.params import Param
from rtgan.plugin import all_params
from rtgan.presets import Preset

#: Rates that the engine runs at as they are; audio of any other rate is converted.
ENGINE_RATES_HZ = (44100, 48000, 88200, 96000)
_FALLBACK_RATE_HZ = 48000
_PIECE = 1 << 16
_HOST = "host."
#: Channels that strips are mixed to.
MIX_CHANNELS = 2
#: What is done to a graph of a preset before it plays.
Prepare = Callable[[Engine, Graph, Preset], None]


def engine_rate(rate_hz: int) -> int:
    """A sample rate that the engine runs at; `UsageError` for any other."""
    if rate_hz not in ENGINE_RATES_HZ:
        allowed = ", ".join(str(r) for r in ENGINE_RATES_HZ)
        raise UsageError(f"the sample rate {rate_hz} Hz is not supported; allowed: {allowed} Hz")
    return rate_hz


@dataclass(frozen=True)
class Step:
    """Something that happened in a performance.

    Parameters
    ----------
    position : int
        Sample at which it took effect.
    param, value : str, float
        A parameter's new value; or
    preset : Preset or None
        a preset that was loaded, with the values it started from.
    graph : int
        For a parameter: which preset's graph it changed, 0 for the one the performance began with, 1 for the
        first that was loaded. While one fades into the other both can be changed.
    ramp_samples : int
        For a parameter: length of its ramp, 0 for its own.
    panic : bool
        Everything was silenced and reset.
    keep : bool
        For a preset: the graph that was heard before ran on beside it.
    recall : bool
        For a preset: it is the graph of that number, which ran beside, that was heard again.
    level : int or None
        How much the plugin ``param`` may do from here on: `rtgan.events.FULL`, ``LEAN`` or ``OUT``.
    midi, port : bytes, int
        A message for what plays notes; what it did to parameters stands in steps of their own.
    """

    position: int
    param: str = ""
    value: float = 0.0
    preset: Preset | None = None
    values: Mapping[str, float] | None = None
    graph: int = 0
    ramp_samples: int = 0
    panic: bool = False
    keep: bool = False
    recall: bool = False
    level: int | None = None
    midi: bytes = b""
    port: int = 0


class Renderer:
    """One graph in an engine of its own, fed from Python.

    Parameters
    ----------
    preset : Preset
    sample_rate_hz : int
        One of `ENGINE_RATES_HZ`.
    channels : int
        Channels of what goes in; of what comes out, too, but for a preset with strips, which are mixed to two.
    settings : mapping of str to float
        Values on top of the preset's, by ``label.param``.
    max_block : int
        The engine's own piece size; the output does not depend on it.
    prepare : callable, optional
        Given every graph and its preset before it plays; may give the graph its routes.
    period_samples : int
        Samples of every push, for a chain that is as late as on a device with such calls; 0 for pushes of any length.
    """

    def __init__(
        self,
        preset: Preset,
        sample_rate_hz: int,
        channels: int,
        settings: Mapping[str, object] | None = None,
        max_block: int = 1024,
        prepare: Prepare | None = None,
        period_samples: int = 0,
    ) -> None:
        self.sample_rate_hz = sample_rate_hz
        self.channels = MIX_CHANNELS if preset.inputs else channels
        self.engine = Engine(sample_rate_hz, self.channels, max_block=max_block, mics=channels if preset.inputs else 0)
        self._prepare, self._period = prepare, period_samples
        self._graphs: list[Graph] = []
        self._publish(preset, {k: v for k, v in (settings or {}).items() if not k.startswith(_HOST)})
        for name, value in (settings or {}).items():
            if name.startswith(_HOST):
                self.set(name, value)
        self._position = 0

    @property
    def latency_samples(self) -> int:
        """Delay of the chain."""
        return self.graph.latency_samples

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Process the next samples, (channels, samples), of any length; as many come out."""
        frames = np.ascontiguousarray(samples.T, dtype=np.float32)
        out = self.engine.render(frames)
        self.engine.poll()
        # Nodes wait for their workers here: what went wrong with one is in the sound.
        for graph in self._graphs:
            if problems := graph.problems:
                raise RtganError(problems[0])
        self._position += len(frames)
        return np.ascontiguousarray(out.T)

    def set(self, name: str, value: object, when: int = events.NOW) -> None:
        """Change ``label.param`` or ``host.param``, at an absolute sample or at the next one."""
        graph = None if name.startswith(_HOST) else self.graph
        index, param = find(graph, name)
        self.engine.set_param(graph, index, param.check(value, name), when)

    def _publish(self, preset: Preset, settings: Mapping[str, object] | None, keep: bool = False) -> None:
        engine = self.engine
        self.graph = build(
            preset, self.sample_rate_hz, engine.max_block, self.channels, settings,
            mics=engine.mics, period_samples=self._period, regular=self._period > 0,
        )  # fmt: skip
        self.graph.wait_for_workers()
        if self._prepare is not None:
            self._prepare(self.engine, self.graph, preset)
        self.engine.publish(self.graph, keep)
        self._graphs.append(self.graph)

    def perform(
        self,
        samples: NDArray[np.float32],
        steps: Sequence[Step] = (),
        progress: Callable[[int], Any] = lambda count: None,
        flush: int = 0,
        midi: Sequence[tuple[int, bytes]] = (),
        port: int = 0,
    ) -> NDArray[np.float32]:
        """Process a whole recording with the events of its performance, and ``flush`` samples of silence.

        ``midi`` are messages with the samples at which they take effect, ``port`` the number of their port.
        """
        total = samples.shape[1]
        waiting = sorted(steps, key=lambda s: s.position)
        messages = sorted(midi, key=lambda m: m[0])
        sent = 0
        done = 0
        calls = self._period
        # Calls of one length to the end: what is behind it nobody hears.
        end = -(-(total + flush) // calls) * calls if calls else total + flush
        out = np.empty((self.channels, end), np.float32)
        while done < end:
            while waiting and waiting[0].position <= self._position:
                self._carry_out(waiting.pop(0))
            stop = min(done + (calls or _PIECE), end)
            if waiting and not calls:
                stop = min(stop, done + waiting[0].position - self._position)
            while sent < len(messages) and messages[sent][0] < self._position + stop - done:
                if not self.engine.midi(messages[sent][1], messages[sent][0], port):
                    # The inbox is full: play as far as what it holds, then go on. Everything up to there may be
                    # due at one and the same sample, which no inbox is large enough for.
                    if not calls:
                        stop = min(stop, done + max(1, messages[sent][0] - self._position))
                    break
                sent += 1
            piece = samples[:, done : min(stop, total)]
            if piece.shape[1] < stop - done:
                piece = np.pad(piece, ((0, 0), (0, stop - done - piece.shape[1])))
            out[:, done:stop] = self.push(piece)
            progress(min(stop, total) - min(done, total))
            done = stop
        return out[:, : total + flush]

    def _carry_out(self, step: Step) -> None:
        if step.recall:
            self.graph = self._graphs[step.graph]
            self.engine.publish(self.graph, True)
            return
        if step.preset is not None:
            self._publish(step.preset, step.values, step.keep)
            return
        taken = True
        if step.panic:
            taken = self.engine.send(Record(events.PANIC, events.NOW))
        elif step.level is not None:
            taken = self.engine.step(self._graphs[step.graph], step.param, step.level)
        elif step.midi:
            message = int.from_bytes(step.midi, "little")
            taken = self.engine.send(Record(events.PLAY, events.NOW, message, step.port))
        elif step.param:
            graph = None if step.param.startswith(_HOST) else self._graphs[step.graph]
            index, param = find(graph, step.param)
            value = param.check(step.value, step.param)
            taken = self.engine.set_param(graph, index, value, ramp_samples=step.ramp_samples)
        if not taken:
            raise RtganError(f"more changes at sample {step.position} than the engine takes at once")


def find(graph: Graph | None, name: str) -> tuple[int, Param]:
    """Index and declaration of ``label.param`` or the trim of a graph, or of ``host.param`` (graph None)."""
    if graph is not None:
        return (len(graph.declared), TRIM) if name == TRIM.id else graph.find(name)
    key = name.removeprefix(_HOST)
    if key not in HOST_PARAMS:
        raise UsageError(f"the host has no parameter '{key}'; it has: {', '.join(HOST_PARAMS)}")
    return HOST_PARAMS.index(key), HOST_PARAMS[key]


def build(
    preset: Preset,
    sample_rate_hz: int,
    max_block: int,
    channels: int,
    settings: Mapping[str, object] | None = None,
    stems: Sequence[str] = (),
    mics: int = 0,
    period_samples: int = 0,
    regular: bool = False,
) -> Graph:
    """A graph of a preset with settings on top, its trim among them; `UsageError` for one that does not fit."""
    if preset.inputs > mics:
        there = f"there are {mics}" if mics else "what plays was begun without strips; begin with this preset"
        raise UsageError(f"the strips of {preset.name} need {preset.inputs} inputs, and {there}")
    items = preset.items()
    trim_db = TRIM.default
    if settings:
        probe = {item.label: item for item in labelled(items)}
        for name, value in settings.items():
            if name == TRIM.id:
                trim_db = TRIM.check(value, name)
                continue
            label, _, key = name.partition(".")
            if label not in probe:
                known = ", ".join(probe) or "nothing"
                raise UsageError(f"{name}: there is no '{label}' in the preset {preset.name}; it holds: {known}")
            item = probe[label]
            declared = all_params(type(item.plugin))
            if key not in declared:
                raise UsageError(f"{name}: '{label}' has no parameter '{key}'; it has: {', '.join(declared)}")
            item.values[key] = declared[key].check(value, name)
        items = list(probe.values())
    fade_ms = preset.crossfade_ms
    return Graph(
        items, sample_rate_hz, max_block, channels, fade_ms, trim_db, stems, mics, period_samples, regular
    )  # fmt: skip


def parse_settings(pairs: Sequence[str]) -> dict[str, str]:
    """``plugin.param=value`` pairs of the command line."""
    out = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or "." not in name or not value.strip():
            raise UsageError(f"'{pair}' is not a setting; write plugin.param=value, for example gain.gain_db=-6")
        out[name.strip()] = value.strip()
    return out


def process(
    samples: NDArray[Any],
    sample_rate: int,
    preset: str | Preset = "clean",
    keep_latency: bool = False,
    steps: Sequence[Step] = (),
    progress: Callable[[int], Any] = lambda count: None,
    midi: Sequence[tuple[int, bytes]] = (),
    port: int = 0,
    prepare: Prepare | None = None,
    calls_samples: int = 0,
    **params: object,
) -> NDArray[np.float32]:
    """Send samples through a preset, as live, faster than real time.

    Parameters
    ----------
    samples : ndarray, (samples,) or (channels, samples)
        Finite values, full scale at 1.
    sample_rate : int
        In Hz; any. Rates the engine does not run at are converted to 48 kHz and back.
    preset : str or Preset
        Name or path.
    keep_latency : bool
        Leave the chain's delay in. By default the output is aligned with the input.
    steps : sequence of Step
        Events of a performance.
    progress : callable
        Told how many input samples are done.
    midi : sequence of (int, bytes)
        MIDI messages with the samples at which they take effect.
    port : int
        Number of the port they come from.
    prepare : callable, optional
        Given every graph before it plays; gives it the routes that MIDI takes.
    calls_samples : int
        As a device with calls of so many samples would play it, which is what a model's delay may depend on; 0 for
        the delay that holds whatever the calls are.
    **params
        Values on top of the preset's, with ``__`` for the dot: ``denoise__amount_db=12``.

    Returns
    -------
    ndarray of float32
        The shape of ``samples``; of a preset with strips, which take its channels as inputs, (2, samples).

    Raises
    ------
    UsageError, RtganError
        With one sentence.
    """
    chosen = presets.load(preset) if isinstance(preset, str) else preset
    data = np.asarray(samples)
    if data.ndim not in (1, 2) or data.size == 0:
        raise UsageError("samples must have the shape (samples,) or (channels, samples) and not be empty")
    if not np.issubdtype(data.dtype, np.floating):
        raise UsageError(f"samples must be floating point with full scale at 1, not {data.dtype}")
    planar = np.ascontiguousarray(np.atleast_2d(data), dtype=np.float32)
    if not np.isfinite(planar).all():
        raise UsageError("samples hold values that are not finite numbers")
    if not isinstance(sample_rate, (int, np.integer)) or not 1000 <= sample_rate <= 768000:
        raise UsageError(f"sample_rate must be a whole number from 1000 to 768000 Hz, not {sample_rate!r}")
    rate = int(sample_rate) if sample_rate in ENGINE_RATES_HZ else _FALLBACK_RATE_HZ
    if rate != sample_rate:
        if steps or midi:
            raise UsageError(f"a performance is rendered at the rate it was recorded at, not at {sample_rate} Hz")
        planar = convert(planar, int(sample_rate), rate)
    settings = {name.replace("__", ".", 1): value for name, value in params.items()}
    renderer = Renderer(chosen, rate, len(planar), settings, prepare=prepare, period_samples=calls_samples)
    latency = 0 if keep_latency else renderer.latency_samples
    out = renderer.perform(planar, steps, progress, latency, midi, port)[:, latency:]
    if rate != sample_rate:
        out = convert(out, rate, int(sample_rate))
        length = data.shape[-1]
        out = out[:, :length] if out.shape[1] >= length else np.pad(out, ((0, 0), (0, length - out.shape[1])))
    return np.ascontiguousarray(out if chosen.inputs else out.reshape(data.shape), dtype=np.float32)


def convert(samples: NDArray[np.float32], from_hz: int, to_hz: int) -> NDArray[np.float32]:
    """Change the sample rate of (channels, samples); aligned."""
    import soxr

    return np.ascontiguousarray(soxr.resample(samples.T, from_hz, to_hz, "VHQ").T, dtype=np.float32)


# --- the log of a performance -----------------------------------------------------------------------------

_LOG_SCHEMA = 1
_LONGEST_CALL = 1 << 16


def log_header(
    preset: Preset, sample_rate_hz: int, channels: int, values: Mapping[str, float], calls_samples: int = 0
) -> str:
    """First line of an event log; with the length of the device's calls where a delay depended on it."""
    head = {
        "schema": _LOG_SCHEMA,
        "sample_rate_hz": sample_rate_hz,
        "channels": channels,
        "preset": presets.dump(preset),
        "values": dict(values),
    }
    return json.dumps(head | ({"calls_samples": calls_samples} if calls_samples else {}))


def log_step(step: Step) -> str:
    """One line of an event log."""
    if step.preset is not None:
        loaded = {"position": step.position, "preset": presets.dump(step.preset), "values": dict(step.values or {})}
        beside = {"recall": step.graph} if step.recall else {"keep": True} if step.keep else {}
        return json.dumps(loaded | beside)
    if step.panic:
        return json.dumps({"position": step.position, "panic": True})
    if step.level is not None:
        return json.dumps({"position": step.position, "plugin": step.param, "level": step.level, "graph": step.graph})
    line = {"position": step.position, "param": step.param, "value": step.value, "graph": step.graph}
    return json.dumps(line | ({"ramp_samples": step.ramp_samples} if step.ramp_samples else {}))


def log_midi(position: int, message: bytes, port: int) -> str:
    """A line of an event log: what it did to parameters stands in lines of its own."""
    return json.dumps({"position": position, "midi": message.hex(" "), "port": port})


def log_marker(position: int, name: str) -> str:
    """A line of an event log: a marker, which changes nothing."""
    return json.dumps({"position": position, "marker": name})


def log_part(name: str) -> str:
    """A line of an event log: the sound goes on in this file."""
    return json.dumps({"part": name})


def read_log(path: Path, allow_code: bool = False) -> tuple[Preset, dict[str, float], list[Step], int, int]:
    """Read an event log: the preset it began with, its values, what happened in order, rate, and length of calls.

    Parameters
    ----------
    path : Path
    allow_code : bool
        Whether it may name files: Python plugins, which run, and models that are not shipped. A log carries the
        hashes of its own files, so that these say nothing about where it comes from.

    Raises
    ------
    UsageError
        With file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise RtganError(f"the event log {path} cannot be read: {problem}") from None
    found: list[tuple[Step, int]] = []
    number = 0
    try:
        head = json.loads(lines[0]) if lines else {}
        if head.get("schema") != _LOG_SCHEMA:
            raise UsageError(f"{path}:1: not an event log of rtgan (schema {_LOG_SCHEMA})")
        preset = _logged_preset(head["preset"], f"{path}:1", allow_code)
        for number, line in enumerate(lines[1:], 2):
            entry = json.loads(line)
            if "marker" in entry or "part" in entry:
                continue
            if "midi" in entry:
                message = bytes.fromhex(entry["midi"])
                if not 1 <= len(message) <= 3:
                    raise ValueError(f"a message of {len(message)} bytes is none of MIDI")
                found.append((Step(int(entry["position"]), midi=message, port=int(entry["port"])), number))
            elif "panic" in entry:
                found.append((Step(int(entry["position"]), panic=True), number))
            elif "preset" in entry:
                loaded = _logged_preset(entry["preset"], f"{path}:{number}", allow_code)
                step = Step(int(entry["position"]), preset=loaded, values=entry["values"], keep=bool(entry.get("keep")))
                if "recall" in entry:
                    step = replace(step, graph=int(entry["recall"]), recall=True)
                found.append((step, number))
            elif "level" in entry:
                level, name = int(entry["level"]), str(entry["plugin"])
                if not events.FULL <= level <= events.OUT:
                    raise ValueError(f"there is no level {level}")
                found.append((Step(int(entry["position"]), name, graph=int(entry["graph"]), level=level), number))
            else:
                ramp = int(entry.get("ramp_samples", 0))
                if not 0 <= ramp < 1 << 31:
                    raise ValueError(f"a ramp of {ramp} samples is not possible")
                name, value = str(entry["param"]), float(entry["value"])
                step = Step(int(entry["position"]), name, value, graph=int(entry["graph"]), ramp_samples=ramp)
                found.append((step, number))
        found.sort(key=lambda f: f[0].position)
        loads = 0
        for step, line_number in found:
            number = line_number
            loads += step.preset is not None and not step.recall
            if not 0 <= step.graph <= loads:
                raise ValueError(f"graph {step.graph} has not been loaded by sample {step.position}")
        steps = [step for step, _ in found]
        if not isinstance(head["values"], dict) or not all(isinstance(s.values or {}, dict) for s in steps):
            raise ValueError("values must be a table")
        calls = int(head.get("calls_samples", 0))
        if not 0 <= calls <= _LONGEST_CALL:
            raise ValueError(f"no device has calls of {calls} samples")
        return preset, dict(head["values"]), steps, int(head["sample_rate_hz"]), calls
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as problem:
        raise UsageError(f"{path}:{max(number, 1)}: malformed event log: {problem}") from None


def _logged_preset(text: str, where: str, allow_code: bool) -> Preset:
    """A preset of an event log; `UsageError` for one that names files of its own, unless they are allowed."""
    preset = presets.parse(text, f"{where} preset", code="never")
    files = [e.plugin for e in preset.chain if presets.is_code(e)]
    files += [v for e in preset.chain for v in e.options.values() if v.endswith(library.MODEL_SUFFIXES)]
    if files and not allow_code:
        raise UsageError(
            f"{where}: the performance names {', '.join(files)}; a plugin file is code and a model file is not one of "
            "ours: if you trust them, say --allow-code"
        )
    return presets.parse(text, f"{where} preset") if files else preset
