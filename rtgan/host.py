"""The live host: a preset on a pair of devices, and everything a person may do to it while it plays."""

from __future__ import annotations

import ctypes
import math
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtgan import events, offline, presets
from rtgan.engine import HOST, HOST_PARAMS, Engine, TickRate
from rtgan.errors import RtganError, UsageError
from rtgan.events import Record
from rtgan.graph import TRIM, Graph
from rtgan.io import devices as io_devices
from rtgan.io.clocked import ClockedStream
from rtgan.io.devices import Device, Stream
from rtgan.io.monitor import Monitor
from rtgan.kernels.loudness import lufs
from rtgan.offline import ENGINE_RATES_HZ, Step, process
from rtgan.params import CURRENT, PARAM_SLOTS, TARGET, Param
from rtgan.plugin import Plugin
from rtgan.presets import Preset
from rtgan.recorder import Heard, Message, Past, Recorder, take_path
from rtgan.snapshots import same_chain

__all__ = ["Host", "Stats", "process"]

_POLL_S = 0.02
#: Samples of a call of the device that plays a source, where nobody says.
_SOURCE_BLOCK = 128
_TAPE_FRAMES = 1 << 19
_GONE_S = 2.0
_AGAIN_S = 0.5
_MOST_WARNINGS = 20
_STUCK: list[object] = []
#: What belongs to one engine and goes with it.
_OF_THE_ENGINE = (
    "engine", "_heard", "_keep_frames", "_graph", "_serials", "_published", "_past", "_adopted", "_waiting",
    "_load", "_last_seen", "_monitor_device", "_monitors",
)  # fmt: skip
_MOST_PRE_ROLL_S = 60.0


@dataclass(frozen=True)
class Stats:
    """A reading of a running host.

    Parameters
    ----------
    seconds : float
        Sound processed so far.
    in_db, out_db : float
        Peak level of the last reading, dBFS.
    load, worst_load : float
        Time used over time available: mean since the last reading, and the worst callback since the start.
    xruns : int
        Blocks that the device lost or repeated.
    slips : int
        How often the clocks of two different devices had to be brought together again.
    faults : dict of str to int
        Non-finite outputs by plugin.
    bad_input, limited : int
        Input samples that no sound can be (not a number, 40 dB above full scale); output samples that the
        safety limiter held down.
    latency_ms : dict of str to float or None
        Delay by part: the device's own (None where the device does not say) and each plugin's.
    problems : tuple of str
        What went wrong outside the audio thread, such as a full disk.
    dropped : int
        Events that found no room.
    readings : dict of str to float
        What plugins let others read, such as ``denoise.voice``, the chance that somebody speaks.
    warnings : tuple of str
        What was asked for and could not be done, such as a preset that is broken; the sound goes on.
    device : str
        What is wrong with the device, such as that it has gone; empty while it plays.
    late : int
        Callbacks that took too large a part of their time.
    shed : dict of str to str
        What is spared while the machine cannot keep up, by plugin: it is ``reduced`` or left ``out``.
    """

    seconds: float = 0.0
    in_db: float = -200.0
    out_db: float = -200.0
    load: float = 0.0
    worst_load: float = 0.0
    xruns: int = 0
    slips: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    bad_input: int = 0
    limited: int = 0
    latency_ms: dict[str, float | None] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    dropped: int = 0
    readings: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    device: str = ""
    late: int = 0
    shed: dict[str, str] = field(default_factory=dict)

    @property
    def overload(self) -> str:
        """What the machine leaves undone because it cannot keep up, as one sentence; empty while it keeps up."""
        return _overload(self.shed)


def _overload(shed: Mapping[str, str]) -> str:
    words = {"out": "is left out", "reduced": "does with less"}
    told = ", ".join(f"{label} {words[how]}" for label, how in shed.items())
    return f"this machine cannot keep up: {told} for now" if told else ""


@dataclass(frozen=True)
class Ends:
    """What a host plays on.

    Parameters
    ----------
    input, output : Device
    rate_hz : int
        One of `rtgan.offline.ENGINE_RATES_HZ`.
    block : int
        Frames per callback; 0 leaves it to the device.
    """

    input: Device
    output: Device
    rate_hz: int
    block: int


def _db(power: float) -> float:
    return float(10.0 * np.log10(max(power, 1e-20)))


class Host:
    """A preset, live.

    Parameters
    ----------
    preset : str or Preset
        Name or path.
    input, output : str or int, optional
        Device index, name or unique part of a name; default: the machine's.
    block : int
        Frames per callback; 0 lets the device choose, which gives the least latency.
    rate_hz : int, optional
        Default: the output device's.
    in_channels, out_channels : sequence of int, optional
        Device channels, counted from 1. Default: the first input, the first two outputs.
    settings : mapping, optional
        Values on top of the preset's, by ``plugin.param``.
    record : Path, optional
        Record to this WAV or FLAC file, or into this folder; see `rtgan.recorder.Recorder`.
    stems : sequence of str
        Plugins of the chain behind which the sound is recorded too, to a file of its own each.
    pre_roll_s : float
        How much of what was heard before it a recording that begins while playing holds, 0 to 60.
    wait_s : float
        How long to wait for a device that has gone, from 0.
    monitor : str, optional
        Where a mix of its own goes (``host.monitor_mix``, ``host.monitor_db``): channels of the output device such as
        ``"3,4"``, another device, or ``"DEVICE:1,2"``.
    shed : bool
        Let plugins step down while callbacks take longer than they may, in the order that the preset gives.
    source : ndarray, optional
        (channels, samples) to play through a built-in clocked device instead of a sound card.
    on_record : callable, optional
        Given every telemetry record, in a background thread.

    Attributes
    ----------
    prepare : callable or None
        Given every graph and its preset before it plays; may give the graph its routes.

    Examples
    --------
    >>> with Host(preset="clean") as host:          # doctest: +SKIP
    ...     host.set("denoise.amount_db", 12)
    ...     host.stats().load

    Notes
    -----
    The audio thread runs no Python: the process may do anything else meanwhile without costing a block.
    """

    def __init__(
        self,
        preset: str | Preset = "clean",
        input: str | int | None = None,
        output: str | int | None = None,
        block: int = 0,
        rate_hz: int | None = None,
        in_channels: Sequence[int] | None = None,
        out_channels: Sequence[int] | None = None,
        settings: Mapping[str, object] | None = None,
        record: Path | str | None = None,
        stems: Sequence[str] = (),
        pre_roll_s: float = 0.0,
        wait_s: float = math.inf,
        monitor: str | None = None,
        shed: bool = True,
        source: NDArray[np.float32] | None = None,
        on_record: Callable[[Record], None] | None = None,
    ) -> None:
        if not 0 <= pre_roll_s <= _MOST_PRE_ROLL_S:
            raise UsageError(f"the pre-roll of {pre_roll_s:g} s is out of range; allowed: 0 to {_MOST_PRE_ROLL_S:g}")
        if not wait_s >= 0:
            raise UsageError(f"waiting {wait_s:g} s for a device is not possible; allowed: from 0")
        self.preset = presets.load(preset) if isinstance(preset, str) else preset
        check_block(block)
        self.block = block
        self._source = source
        # Of strips each is recorded to a file of its own.
        self._stems = _check_stems(
            [*self.preset.strips, *(s for s in stems if s not in self.preset.strips)], self.preset
        )
        self._mono = presets.mono(self.preset)
        self._mics = self.preset.inputs
        self._listeners: list[Callable[[Record], None]] = [on_record] if on_record is not None else []
        self.prepare: offline.Prepare | None = None
        self._settings = dict(settings or {})
        self.input, self.output = self._devices(input, output)
        self.sample_rate_hz = self._rate(rate_hz)
        self._wanted_channels = tuple(in_channels or ()), tuple(out_channels or ())
        self._wanted_monitor = monitor
        self._monitor: Monitor | None = None
        self._pre_roll_s = pre_roll_s
        self._weighing = False
        # Samples of a call that the chain was built for; whether they have all been so long; whether it is built anew.
        self._built_for, self._regular, self._renewing = 0, True, False
        #: Why there can be no other engine, such as something that plays to the samples of this one; empty if nothing.
        self.pinned = ""
        self._begin(self._settings, bool(record or pre_roll_s))
        self._record = take_path(Path(record)) if record else None
        self._recorder: Recorder | None = None
        self._stream: Stream | ClockedStream | None = None
        self._halt = threading.Event()
        self._silent = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()
        # Building a graph takes long; two that load at a time would come in the wrong order.
        self._loading = threading.Lock()
        # Telemetry has one reader at a time, and so has the tape. Taken before the other lock.
        self._polling = threading.RLock()
        self._meters = (-200.0, -200.0)
        self._ticks = TickRate()
        self.stuck = False
        self._problems: list[str] = []
        self._warnings: tuple[str, ...] = ()
        self._wait_s = wait_s
        self._shed = shed
        self._device = ""
        self._gone_at: float | None = None
        self._wrong_rate = False
        self._tried_at = 0.0
        self._slips = 0
        # Whether a stream is meant to run; a stream is opened and closed by one thread at a time.
        self._started = False
        self._opening = threading.Lock()
        self._changing = False

    # --- set-up ---

    def _begin(self, settings: Mapping[str, object] | None, tape: bool) -> None:
        """Make an engine for the present devices and rate, with the graph that it begins with."""
        ins, outs = self._channels()
        self._monitor_device, self._monitors = self._find_monitor(self._wanted_monitor, outs)
        here = self._monitors if self._monitor_device is None else ()
        self.engine = Engine(
            self.sample_rate_hz,
            channels=offline.MIX_CHANNELS if self._mics else len(ins),
            device_in=max(ins),
            device_out=max((*outs, *here)),
            in_map=tuple(c - 1 for c in ins),
            out_map=tuple(c - 1 for c in outs),
            monitor_map=tuple(c - 1 for c in here),
            tape_frames=_TAPE_FRAMES if tape else 0,
            stems=len(self._stems),
            mics=len(ins) if self._mics else 0,
        )
        self._keep_frames = round(self._pre_roll_s * self.sample_rate_hz)
        self._heard = Heard(self.engine.tape, self._keep_frames) if self.engine.tape is not None else None
        self._graph = self._build(self.preset, settings)
        self._serials: dict[int, tuple[Graph, Preset]] = {self._graph.serial: (self._graph, self.preset)}
        # Values by serial as published, and whether the graph before was kept. And what has been done since, as of the
        # telemetry read so far, not as of now.
        self._published = {self._graph.serial: (dict(self._graph.values()), False)}
        self._past = Past(self.preset, self._graph.values(), {f"host.{k}": p.default for k, p in HOST_PARAMS.items()})
        # Serial of every graph the audio thread has taken, and its number in the order of taking.
        self._adopted: dict[int, int] = {}
        self._waiting: list[tuple[Graph, int, float]] = []
        self._load = (0, 0, 0.0)
        self._last_seen = (-1, 0.0)
        if self.prepare is not None:
            self.prepare(self.engine, self._graph, self.preset)
        if self._weighing:
            self.engine.weigh()
        self.engine.publish(self._graph)
        self.engine.start_silent()

    def _channels(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Device channels to use, counted from 1; `UsageError` if the devices have not got them."""
        ins, outs = self._wanted_channels
        heard = ins or tuple(range(1, 1 + max(1, self._mics)))
        found = heard, outs or ((1, 2) if self.output is None or self.output.outputs >= 2 else (1,))
        self._check_channels(*found)
        return found

    def _devices(self, input: str | int | None, output: str | int | None) -> tuple[Device | None, Device | None]:
        if self._source is not None:
            return None, None
        known = io_devices.devices()
        chosen_in = io_devices.choose(input, "input", known)
        chosen_out = io_devices.choose(output, "output", known)
        if chosen_in is None or chosen_out is None:
            kind = "input" if chosen_in is None else "output"
            raise RtganError(f"this machine has no audio {kind} device")
        return chosen_in, chosen_out

    def _rate(self, rate_hz: int | None) -> int:
        wanted = rate_hz if rate_hz is not None else round(self.output.rate_hz) if self.output else 48000
        if rate_hz is None and wanted not in ENGINE_RATES_HZ:
            wanted = 48000  # most devices and servers convert; one that does not says so when it is opened
        return offline.engine_rate(wanted)

    def _check_channels(self, ins: tuple[int, ...], outs: tuple[int, ...]) -> None:
        for kind, chosen, device in (("input", ins, self.input), ("output", outs, self.output)):
            most = 64 if device is None else device.inputs if kind == "input" else device.outputs
            name = "the built-in device" if device is None else device.name
            if kind == "input" and self._mics:
                if len(chosen) < self._mics:
                    raise UsageError(f"{self.preset.name} needs {self._mics} input channels, not {len(chosen)}")
            elif not 1 <= len(chosen) <= 2:
                raise UsageError(f"{kind} channels: one or two are allowed, not {len(chosen)}")
            if len(set(chosen)) != len(chosen):
                raise UsageError(f"{kind} channels: {','.join(map(str, chosen))} names a channel twice")
            for channel in chosen:
                if not 1 <= channel <= most:
                    raise UsageError(f"{name} has no {kind} channel {channel}; it has 1 to {most}")

    def _find_monitor(self, text: str | None, outs: tuple[int, ...]) -> tuple[Device | None, tuple[int, ...]]:
        """The monitor's device, None for the output's own, and its channels; none at all without a monitor."""
        if text is None:
            return None, ()
        if self.output is None:
            raise UsageError("a monitor needs an audio device, and there is none")
        name, channels = _monitor_parts(text)
        found = io_devices.choose(name, "output") if name else self.output
        assert found is not None
        chosen = channels or tuple(range(1, 1 + min(2, found.outputs)))
        if not 1 <= len(chosen) <= 2 or len(set(chosen)) != len(chosen):
            raise UsageError(
                f"monitor channels: one or two different ones are allowed, not {','.join(map(str, chosen))}"
            )
        for channel in chosen:
            if not 1 <= channel <= found.outputs:
                raise UsageError(f"{found.name} has no output channel {channel}; it has 1 to {found.outputs}")
        if found.index != self.output.index:
            return found, chosen
        for channel in chosen:
            if channel in outs:
                raise UsageError(f"channel {channel} of {found.name} cannot be output and monitor at once")
        return None, chosen

    @property
    def monitor(self) -> str:
        """Where the monitor goes, for a person; empty where there is none."""
        if not self._monitors or self.output is None:
            return ""
        name = (self._monitor_device or self.output).name
        return f"{name}, channel{'s' * (len(self._monitors) > 1)} {','.join(map(str, self._monitors))}"

    def _build(self, preset: Preset, settings: Mapping[str, object] | None = None) -> Graph:
        graph = {k: v for k, v in (settings or {}).items() if not k.startswith("host.")}
        for name in set(settings or {}) - set(graph):
            self.set(name, (settings or {})[name])
        self._built_for = self._period()
        return offline.build(
            preset, self.sample_rate_hz, self.engine.max_block, self.engine.channels, graph, self._stems,
            self.engine.mics, self._built_for, self._regular,
        )  # fmt: skip

    def _period(self) -> int:
        """Samples of a call, as far as they are known."""
        own = _SOURCE_BLOCK if self._source is not None else io_devices.period_samples(self.input or self.output)
        return self.block or own

    # --- life ---

    def start(self) -> None:
        """Open the devices and play; sound fades in."""
        if self._stream is not None:
            raise RtganError("a host plays once; make another one to play again")
        engine = self.engine
        if self._source is not None:
            frames = np.zeros((self._source.shape[1], engine.device_in), np.float32)
            for channel in range(engine.device_in):
                frames[:, channel] = self._source[channel % len(self._source)]
            self._stream = ClockedStream(engine, frames, self.block or _SOURCE_BLOCK)
        else:
            assert self.input is not None and self.output is not None
            self._stream = self._open(self.input, self.output)
        try:
            if self._record is not None:
                self._recorder = self._new_take(self._record)
                # What the values are before anything can change them.
                self._recorder.begin(0, self._past, self._graph.calls_samples)
            self._thread = threading.Thread(target=self._watch, name="rtgan-host", daemon=True)
            self._thread.start()
            self._mind_load()
            self._open_monitor()
            self._stream.start()
            self._started = True
        except BaseException:
            self._stream.close()
            self._close_monitor()
            self._finish()
            raise

    def _open(self, input: Device, output: Device) -> Stream:
        engine = self.engine
        return Stream(
            input,
            output,
            self.sample_rate_hz,
            self.block,
            engine.device_in,
            engine.device_out,
            engine.callback_address,
            engine.address,
        )

    def _open_monitor(self) -> None:
        if self._monitor_device is not None:
            self._monitor = Monitor(self.engine, self._monitor_device, self._monitors, self.block)
            self._monitor.start()

    def _close_monitor(self, last: bool = False) -> bool:
        """Behind the stream that feeds it; see `rtgan.io.devices.Stream.close`."""
        monitor, self._monitor = self._monitor, None
        return monitor is None or monitor.close(last)

    def _mind_load(self) -> None:
        if self._shed:
            self.engine.mind_load(self._ticks.per_second())

    def stop(self) -> None:
        """Fade out, give the devices back, finish the recording."""
        with self._opening:
            self._started = False
        if self._stream is None:
            self._finish()
            return
        self._fade_out()
        if self._gone_at is None:
            self.stuck = not self._stream.close(last=True)
        self.stuck = not self._close_monitor(last=True) or self.stuck
        if self.stuck:
            # PortAudio may still call into this memory: it must not be given back.
            _STUCK.append(self)
        self._finish()

    def _finish(self) -> None:
        self._halt.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        try:
            self._poll()
        finally:
            if self._recorder is not None:
                self._recorder.close()

    def __enter__(self) -> Host:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- other devices ---

    def reopen(self, find: Callable[[], Ends], abandon: Callable[[], None] = lambda: None) -> None:
        """Fade out, play on other devices, fade in. Any thread.

        Another rate or other channels need another engine, made with the present values; else the plugins hold what
        they held. What cannot be opened leaves everything as it was.

        Parameters
        ----------
        find : callable
            Says what to play on. Called while no device is open, so that it may look for them anew where it must.
        abandon : callable
            Called where that could not be played on, before the devices there were are opened again.

        Raises
        ------
        RtganError
            Why other devices cannot be played on.
        """
        with self._loading, self._opening:
            stream = self._stream
            if self._source is not None:
                raise RtganError("what plays is the built-in recording; there is no device to change")
            if not isinstance(stream, Stream) or not self._started or self.stuck:
                raise RtganError("nothing plays that could play on other devices")
            assert self.input is not None and self.output is not None
            before = Ends(self.input, self.output, self.sample_rate_hz, self.block)
            held = {name: getattr(self, name) for name in _OF_THE_ENGINE}
            self._changing = True
            try:
                if self._gone_at is None:
                    self._fade_out()
                    self._lose(stream, "the devices are being changed")
                if self.stuck:
                    raise RtganError(f"{stream.name} cannot be closed")
                try:
                    self._move(find(), before)
                except Exception:
                    abandon()
                    vars(self).update(held)
                    self.input, self.output, self.block = before.input, before.output, before.block
                    self.sample_rate_hz = before.rate_hz
                    # Where they do not come back either, the host's thread goes on trying.
                    self._resume()
                    raise
            finally:
                self._changing = False

    def _move(self, wanted: Ends, before: Ends) -> None:
        check_block(wanted.block)
        offline.engine_rate(wanted.rate_hz)
        present = self._channels()
        self.input, self.output, self.block = wanted.input, wanted.output, wanted.block
        if (wanted.rate_hz, self._channels()) != (before.rate_hz, present):
            why = "a recording runs" if self._recorder is not None else self.pinned
            if why:
                raise RtganError(f"{why}: neither the rate nor the channels can be changed meanwhile")
            self._change_engine(wanted.rate_hz)
        self._play_on(wanted.input, wanted.output)

    def _change_engine(self, rate_hz: int) -> None:
        """Another engine for the present devices, with the present chain and values."""
        self.sample_rate_hz = rate_hz
        with self._polling, self._lock:
            engine = self.engine
            self._begin(self._graph.values(), engine.tape is not None)
            for name, value in engine.host_values.items():
                slots = (ctypes.c_double * PARAM_SLOTS).from_address(self.engine.host_slot(name))
                slots[CURRENT] = slots[TARGET] = value

    def _fade_out(self) -> None:
        if not self.running:
            return
        self._silent.clear()
        self.engine.send(Record(events.FADE_OUT, events.NOW))
        # The fade is a matter of milliseconds; a device that has gone never answers.
        until = time.monotonic() + 0.5
        while not self._silent.is_set() and time.monotonic() < until:
            self._poll()
            time.sleep(0.002)

    # --- control ---

    def set(self, name: str, value: object) -> None:
        """Change ``plugin.param`` or ``host.param`` to a plain value; it ramps there. Any thread."""
        if name.startswith("host."):
            index, param = offline.find(None, name)
            if not self._has(name):
                raise UsageError(f"{name} needs a monitor, and there is none; begin with --monitor")
            if not self.engine.set_param(None, index, param.check(value, name)):
                raise RtganError("the audio thread does not take events at the moment; try again")
            return
        graph = self._graph
        index, param = graph.find(name)
        plain = param.check(value, name)
        with self._lock:
            if graph.serial not in self._adopted:
                # The audio thread has not taken this graph yet and would not know the event's address.
                self._waiting.append((graph, index, plain))
                return
        if not self.engine.set_param(graph, index, plain):
            raise RtganError("the audio thread does not take events at the moment; try again")

    def load(self, preset: str | Preset, trim_db: float = 0.0, keep: bool = False) -> None:
        """Fade over to another preset. Built and warmed here; the sound goes on meanwhile. Any thread.

        Parameters
        ----------
        preset : str or Preset
        trim_db : float
            What it is turned down by, as by `trim`.
        keep : bool
            Let what played run on beside it, unheard, for `recall`.
        """
        chosen = presets.load(preset) if isinstance(preset, str) else preset
        with self._loading:
            self._publish(chosen, {TRIM.id: trim_db} if trim_db else {}, keep)

    def recall(self, serial: int) -> bool:
        """Let a graph that runs beside be heard, at once; what was heard runs on beside it. False if it has ended."""
        with self._loading:
            with self._lock:
                if serial not in self._serials or serial not in self._adopted:
                    return False
                self._graph, self.preset = self._serials[serial]
            if self.prepare is not None:
                self.prepare(self.engine, self._graph, self.preset)
            with self._lock:
                self._forget(self.engine.publish(self._graph, keep=True))
        return True

    def let_go(self, serial: int) -> None:
        """End what runs beside, if it is this graph."""
        self.engine.let_go(serial)

    def _publish(self, chosen: Preset, trim: Mapping[str, float], keep: bool) -> None:
        graph = self._build(chosen, trim)
        if self.prepare is not None:
            self.prepare(self.engine, graph, chosen)
        with self._lock:
            self._serials[graph.serial] = (graph, chosen)
            self._published[graph.serial] = ({**graph.values(), **trim}, keep)
            self._graph = graph
            self.preset = chosen
            if not self._adopted:
                self._past.restart(chosen, {**graph.values(), **trim})
            self._forget(self.engine.publish(graph, keep))

    def catch_up(self, timeout_s: float = 0.2) -> None:
        """Wait until the changes that were asked for so far have been made, and told to whoever listens."""

        def behind() -> bool:
            return bool(self._waiting) or self._graph.serial not in self._adopted

        if behind() or not self.engine.inbox.empty:
            deadline = time.monotonic() + timeout_s
            while time.monotonic() < deadline and behind():
                time.sleep(0.001)
            # What was waiting has only been sent by now.
            callbacks = self.engine.counters.callbacks
            while time.monotonic() < deadline and self.engine.counters.callbacks < callbacks + 2:
                time.sleep(0.001)
        self._poll()

    def trim(self, db: float, ramp_ms: float = TRIM.smoothing_ms) -> None:
        """Turn what plays down behind its last plugin, whatever the volume; what is loaded next is not. Any thread."""
        graph, value = self._graph, TRIM.check(db, TRIM.id)
        index = len(graph.declared)
        with self._lock:
            if graph.serial not in self._adopted:
                self._waiting.append((graph, index, value))
                return
        ramp = round(ramp_ms * self.sample_rate_hz / 1000)
        if not self.engine.set_param(graph, index, value, ramp_samples=ramp):
            raise RtganError("the audio thread does not take events at the moment; try again")

    def change(self, edit: Callable[[Preset], Preset]) -> None:
        """Fade over to the present preset with its present values as ``edit`` changes it, such as its chain.

        Plugins that are in both keep their values, also those that are turned meanwhile. Any thread.
        """
        with self._loading:
            self.catch_up()
            graph, before = self._graph, self._graph.values()
            known = self.preset.values()
            self._publish(edit(self.preset.with_values({k: v for k, v in before.items() if k in known})), {}, False)
            for name, value in graph.values().items():
                if before[name] != value and name in self._graph.index:
                    self.set(name, value)

    def adopt(self, preset: Preset) -> None:
        """Let the preset that plays be this one from now on: same chain, other name, file, controls or snapshots.

        Nothing is heard of it. Any thread.

        Raises
        ------
        RtganError
            If another chain plays.
        """
        with self._loading:
            if not same_chain(self.preset, preset):
                raise RtganError(f"{self.preset.name} plays another chain by now")
            self.preset = preset
            if self.prepare is not None:
                self.prepare(self.engine, self._graph, preset)

    def _forget(self, serial: int) -> None:
        """Let go of a graph that no longer plays, or never did."""
        self._serials.pop(serial, None)
        self._published.pop(serial, None)
        self._waiting = [w for w in self._waiting if w[0].serial != serial]

    def panic(self) -> None:
        """Silence, everything back to zero, sound comes back. Any thread, whatever else is wrong."""
        self.engine.panic()

    def reroute(self, wait: bool = True) -> bool:
        """Prepare the present graph anew, after its bindings have changed.

        While a preset is being built this waits, or returns False at once.
        """
        if not self._loading.acquire(blocking=wait):
            return False
        try:
            if self.prepare is not None:
                self.prepare(self.engine, self._graph, self.preset)
        finally:
            self._loading.release()
        return True

    def weigh(self) -> None:
        """From now on report loudness before and behind the chain, ten times a second, in LOUDNESS records."""
        self._weighing = True
        self.engine.weigh()

    def listen(self, function: Callable[[Record], None]) -> None:
        """Give every telemetry record to a function, in a background thread; what it raises becomes a warning."""
        self._listeners.append(function)

    def warn(self, text: str) -> None:
        """Tell the person who plays, in `Stats.warnings`. Any thread."""
        self._warnings = (*(w for w in self._warnings if w != text), text)[-_MOST_WARNINGS:]

    @property
    def recording(self) -> Path | None:
        """The file that is being recorded to."""
        return self._recorder.path if self._recorder is not None else None

    def record(self, target: Path | str) -> None:
        """Begin to record while playing, the pre-roll included; one that runs ends.

        Such a take is performed again from rest: its first moments may differ, as nothing that sounded before is
        part of it. A recording from the start (``Host(record=...)``) is exact.
        """
        path = take_path(Path(target))
        with self._polling:
            self.stop_recording()
            try:
                recorder = self._new_take(path)
            except OSError as problem:
                raise RtganError(f"{path} cannot be recorded to: {problem.strerror or problem}") from None
            self._poll()
            with self._lock:
                heard = self._heard
                if heard is None:
                    if self.engine.tape is not None:
                        self.engine.tape.read()
                    self._heard = Heard(self.engine.run_tape(_TAPE_FRAMES), 0)
                elif heard.begin_kept is not None:
                    recorder.begin(heard.begin_kept, self._past, self._graph.calls_samples)
                    recorder.append(heard.kept)
                self._recorder = recorder

    def _new_take(self, path: Path) -> Recorder:
        engine = self.engine
        return Recorder(
            path, self.sample_rate_hz, engine.channels, stems=self._stems, mono=self._mono, mics=engine.mics
        )

    def mark(self, name: str = "", position: int | None = None) -> str:
        """Put a marker into the recording, at an engine's sample or now. Any thread.

        Returns
        -------
        str
            Its name, by default its number.
        """
        with self._lock:
            if self._recorder is None:
                raise RtganError("a marker needs a recording, and none runs")
            return self._recorder.mark(self.engine.counters.position_samples if position is None else position, name)

    def _stop_tape(self) -> None:
        """Read all that the audio thread reported until now; without pre-roll it puts the tape down."""
        if not self._keep_frames:
            self.engine.stop_tape(self.running)
        deadline = time.monotonic() + 0.5
        callbacks = self.engine.counters.callbacks
        while self.running and self.engine.counters.callbacks < callbacks + 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        self._poll()

    def stop_recording(self) -> None:
        """End the recording, if there is one."""
        with self._polling:
            if self._recorder is None:
                return
            self._stop_tape()
            with self._lock:
                recorder, self._recorder = self._recorder, None
                if not self._keep_frames and self._heard is not None:
                    self._heard.stop()
                    self._heard = None
            recorder.close()
            if recorder.problem:
                self._problems.append(recorder.problem)

    @property
    def values(self) -> Mapping[str, float]:
        """Every parameter by ``plugin.param``, the host's own as ``host.param``."""
        own = {f"host.{k}": v for k, v in self.engine.host_values.items()}
        return {**self._graph.values(), **{k: v for k, v in own.items() if self._has(k)}}

    @property
    def params(self) -> Mapping[str, Param]:
        """Every parameter's declaration by ``plugin.param``, the host's own included."""
        graph = self._graph
        own = {name: graph.declared[index] for name, index in graph.index.items()}
        return {**own, **{f"host.{k}": p for k, p in HOST_PARAMS.items() if self._has(f"host.{k}")}}

    def _has(self, name: str) -> bool:
        """Whether a host's parameter moves anything here."""
        return bool(self._monitors) or not name.startswith("host.monitor")

    @property
    def strips(self) -> list[tuple[str, Plugin, dict[str, Param]]]:
        """The chain that plays in its order: label, plugin, and its parameters by ``label.param``."""
        graph = self._graph
        own = {name: graph.declared[index] for name, index in graph.index.items()}
        return [
            (item.label, item.plugin, {n: p for n, p in own.items() if n.partition(".")[0] == item.label})
            for item in graph.chain
        ]

    @property
    def serial(self) -> int:
        """The graph that was loaded last, as telemetry counts them."""
        return self._graph.serial

    def name_of(self, record: Record) -> str:
        """The parameter that an APPLIED record speaks of; empty for a trim, and if its graph has gone."""
        if record.b == HOST:
            return f"host.{list(HOST_PARAMS)[record.a]}"
        known = self._serials.get(record.b)
        return next((n for n, i in known[0].index.items() if i == record.a), "") if known is not None else ""

    @property
    def takes_notes(self) -> bool:
        """Whether a plugin of the chain plays the notes of MIDI messages."""
        return any(node.midi for node in self._graph.nodes)

    @property
    def away(self) -> str:
        """Why no device plays: ``"gone"``, or ``"wrong rate"`` if it is back at one that is not played; else empty."""
        return "" if self._gone_at is None else "wrong rate" if self._wrong_rate else "gone"

    @property
    def notices(self) -> list[str]:
        """What a person should know of the plugins: model files of their own, with their hashes."""
        return [item.plugin.notice for item in self._graph.chain if item.plugin.notice]

    @property
    def latency_samples(self) -> int:
        """Delay of the chain at the engine's rate; what the device adds is its own."""
        return self._graph.latency_samples

    @property
    def on_jack(self) -> bool:
        """Whether the engine runs in periods of a JACK server."""
        return self.output is not None and "JACK" in self.output.api

    @property
    def running(self) -> bool:
        """Whether the audio thread is being called.

        A server that dies does not always tell PortAudio: a stream that has not called for two seconds counts
        as gone.
        """
        if self._stream is None or self._gone_at is not None or not self._stream.active:
            return False
        now = time.monotonic()
        callbacks = self.engine.counters.callbacks
        if callbacks != self._last_seen[0]:
            self._last_seen = (callbacks, now)
        return now - self._last_seen[1] < _GONE_S

    @property
    def waiting(self) -> bool:
        """Whether the device has gone and will be taken up again when it comes back."""
        if not self._started or not isinstance(self._stream, Stream) or self.stuck or self.running:
            return False
        return self._changing or self._gone_at is None or time.monotonic() - self._gone_at < self._wait_s

    @property
    def changing(self) -> bool:
        """Whether other devices are being opened; which engine plays is not settled before."""
        return self._changing

    @property
    def device(self) -> str:
        """What is wrong with the device, in one sentence; empty while it plays."""
        return self._device

    @property
    def overload(self) -> str:
        """See `Stats.overload`."""
        return _overload(self._graph.shed)

    @property
    def source_ended(self) -> bool:
        """Whether a built-in clocked device has played all it was given."""
        return isinstance(self._stream, ClockedStream) and self._stream.finished.is_set()

    def output_so_far(self) -> NDArray[np.float32]:
        """What a built-in clocked device has put out, (device channels, samples)."""
        if not isinstance(self._stream, ClockedStream) or not self._stream.output:
            return np.empty((self.engine.device_out, 0), np.float32)
        return np.ascontiguousarray(np.concatenate(self._stream.output).T)

    def wait_first_block(self, timeout_s: float = 5.0, halt: threading.Event | None = None) -> bool:
        """Wait until the audio thread has run; False if it has not within the time, or before ``halt`` is set."""
        deadline = time.monotonic() + timeout_s
        while self.engine.counters.callbacks == 0:
            if time.monotonic() > deadline:
                return False
            # Who can be halted waits beside somebody who builds what is waited for, and must not hold that up.
            if halt is None:
                time.sleep(0.001)
            elif halt.wait(0.02):
                return False
        return True

    def stats(self) -> Stats:
        """How it is going."""
        counters = self.engine.counters
        per_second = self._ticks.per_second()
        ticks, position, last = self._load
        frames = counters.position_samples - position
        load = last
        if frames > 0 and per_second > 0:
            load = (counters.busy_ticks - ticks) / per_second / (frames / self.sample_rate_hz)
            self._load = (counters.busy_ticks, counters.position_samples, load)
        block_s = counters.position_samples / max(1, counters.callbacks) / self.sample_rate_hz
        worst = counters.busy_max_ticks / per_second / block_s if per_second > 0 and block_s > 0 else 0.0
        problems = list(self._problems)
        if self._recorder and self._recorder.problem:
            problems.append(self._recorder.problem)
        if counters.tape_dropped_frames:
            lost = counters.tape_dropped_frames / self.sample_rate_hz
            problems.append(f"the recording is silent for {lost:.2f} s that could not be written in time")
        warnings = (*self._warnings, *self._graph.problems)
        return Stats(
            seconds=counters.position_samples / self.sample_rate_hz,
            in_db=self._meters[0],
            out_db=self._meters[1],
            load=load,
            worst_load=worst,
            xruns=counters.xruns,
            slips=self._slips + (self._stream.slips if self._stream and self._gone_at is None else 0),
            faults=self._graph.faults,
            bad_input=counters.bad_input_samples,
            limited=counters.limited_samples,
            latency_ms=self.latency_ms(),
            problems=tuple(problems),
            dropped=counters.events_dropped,
            readings=self._graph.readings,
            warnings=warnings,
            device=self._device,
            late=counters.callbacks_late,
            shed=self._graph.shed,
        )

    @property
    def readings(self) -> dict[str, float]:
        """What plugins let others read, by ``label.reading``, as of now. Any thread."""
        return self._graph.readings

    def latency_ms(self) -> dict[str, float | None]:
        """Delay by part: device in, each plugin, device out."""
        stream = self._stream if self._gone_at is None else None
        device: tuple[float, float] | None = stream.latency_ms() if stream else None
        parts: dict[str, float | None] = {"device in": device[0] if device else None}
        if stream and stream.ring_ms:
            parts["ring"] = stream.ring_ms
        for label, samples in self._graph.parts:
            if samples:
                parts[label] = samples / self.sample_rate_hz * 1000
        parts["device out"] = device[1] if device else None
        return parts

    # --- the background thread ---

    def _watch(self) -> None:
        while not self._halt.wait(_POLL_S):
            # This thread carries every control and the recording: it lives as long as the sound.
            for duty in (self._poll, self._mind_device, self._mind_calls):
                try:
                    duty()
                except Exception as problem:
                    self.warn(f"the host's thread met {problem!r}")

    def _mind_calls(self) -> None:
        """Build the chain anew where the device's calls are not as long as it was built for."""
        if self._renewing or not self._graph.slipped:
            return
        self._renewing = True
        if self._period() == self._built_for and self._regular:
            self._regular = False
            self.warn(f"the device's calls are not all of {self._built_for} samples: models answer a block later")
        threading.Thread(target=self._renew, name="rtgan-renew", daemon=True).start()

    def _renew(self) -> None:
        try:
            self.change(lambda preset: preset)
        except RtganError as problem:
            self.warn(str(problem))
        finally:
            self._renewing = False

    def _mind_device(self) -> None:
        """Notice that the device has gone, and play on when it is back."""
        with self._opening:
            stream = self._stream
            if not self._started or not isinstance(stream, Stream) or self.stuck:
                return
            now = time.monotonic()
            if self._gone_at is None:
                if not self.running:
                    # Its clock may have gone with it; who follows it opens it anew.
                    self.engine.follow_clock(0, 0)
                    self._lose(stream, f"{stream.name} has gone; waiting for it")
                elif self._monitor is not None and not self._monitor.active:
                    self.warn(f"the monitor {self._monitor.device.name} has gone; the output plays on")
            elif now - self._tried_at >= _AGAIN_S:
                self._tried_at = now
                self._resume()

    def _lose(self, stream: Stream, why: str) -> None:
        self._gone_at = self._tried_at = time.monotonic()
        self._wrong_rate = False
        self._device = why
        self._slips += stream.slips
        self.stuck = not stream.close()
        self.stuck = not self._close_monitor() or self.stuck
        if self.stuck:
            _STUCK.append(self)
        self._tell(Record(events.DEVICE_GONE, self.engine.counters.position_samples))

    def _resume(self) -> None:
        """Open the same devices by their names; what the plugins hold is as it was, and the sound fades in."""
        assert self.input is not None and self.output is not None
        io_devices.refresh()
        known = io_devices.devices()
        engine = self.engine
        inputs = [d for d in known if d.plug == self.input.plug and d.inputs >= engine.device_in]
        outputs = [d for d in known if d.plug == self.output.plug and d.outputs >= engine.device_out]
        if not inputs or not outputs:
            return
        try:
            self._play_on(inputs[0], outputs[0])
        except RtganError as problem:
            self._device = str(problem)
            if round(outputs[0].rate_hz) not in (self.sample_rate_hz, 0):
                self._adapt(inputs[0], outputs[0])

    def _adapt(self, input: Device, output: Device) -> None:
        """Play on at the rate that a device has come back with; values and chain are kept, plugins begin anew."""
        rate_hz, before = round(output.rate_hz), Ends(self.input or input, self.output or output, 0, 0)
        came = f"{output.name} has come back at {rate_hz} Hz"
        if rate_hz not in ENGINE_RATES_HZ or self.pinned:
            why = self.pinned or f"rtgan plays at {', '.join(map(str, ENGINE_RATES_HZ))}"
            self._device = f"{came}, and {why}; waiting for {self.sample_rate_hz} Hz"
            self._wrong_rate = True
            return
        # Who loads a preset meanwhile does so for the engine there is; half a second later it is this one's turn.
        if not self._loading.acquire(blocking=False):
            return
        try:
            present, held = self.sample_rate_hz, {name: getattr(self, name) for name in _OF_THE_ENGINE}
            # A recording has one rate: it ends with what was heard before.
            with self._polling, self._lock:
                self._poll()
                recorder, self._recorder = self._recorder, None
            self._changing = True
            try:
                self.input, self.output = input, output
                self._change_engine(rate_hz)
                self._play_on(input, output)
            except Exception:
                vars(self).update(held)
                self.input, self.output, self.sample_rate_hz = before.input, before.output, present
                self._recorder = recorder
                raise
            finally:
                self._changing = False
            told = f"{came}: playing on at that rate"
            if recorder is not None:
                recorder.close()
                self._problems += [recorder.problem] if recorder.problem else []
                another = recorder.path.with_name(f"{recorder.path.stem}-{rate_hz}{recorder.path.suffix}")
                self.record(another)
                told += f"; {recorder.path.name} ends here, {another.name} goes on"
            self.warn(told)
        except RtganError as problem:
            self._device = str(problem)
        finally:
            self._loading.release()

    def _play_on(self, input: Device, output: Device) -> None:
        """Open devices for the engine as it is, and fade in."""
        engine = self.engine
        stream = self._open(input, output)
        engine.start_silent()
        self._mind_load()
        self._reopen_monitor(io_devices.devices())
        try:
            stream.start()
        except RtganError:
            stream.close()
            self._close_monitor()
            raise
        self.input, self.output, self._stream = input, output, stream
        away_s = time.monotonic() - (self._gone_at or 0.0)
        self._last_seen = (-1, 0.0)
        self._gone_at, self._wrong_rate = None, False
        self._device = ""
        position = engine.counters.position_samples
        self._tell(Record(events.DEVICE_BACK, position))
        with self._lock:
            if self._recorder is not None:
                self._recorder.mark(position, f"{away_s:.1f} s without a device")

    def _reopen_monitor(self, known: Sequence[Device]) -> None:
        if self._monitor_device is None:
            return
        found = [d for d in known if d.plug == self._monitor_device.plug and d.outputs >= max(self._monitors)]
        try:
            if not found:
                raise RtganError(f"the monitor {self._monitor_device.name} has gone; the output plays on")
            self._monitor_device = found[0]
            self._open_monitor()
        except RtganError as problem:
            self._close_monitor()
            self.warn(str(problem))

    def _poll(self) -> None:
        with self._polling:
            ready = self._heard.ready if self._heard is not None else 0
            for record in self.engine.poll():
                with self._lock:
                    self._note(record)
                self._tell(record)
            with self._lock:
                frames = self._heard.read(ready) if self._heard is not None else None
                if self._recorder is not None and frames is not None:
                    self._recorder.append(frames)
                begin = self._heard.begin_kept if self._heard is not None else None
                self._past.forget(self.engine.counters.position_samples if begin is None else begin)

    def _tell(self, record: Record) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(record)
            except Exception as problem:
                # Someone else's code: it must end neither the recording nor what others are told.
                self.warn(str(problem) if isinstance(problem, RtganError) else f"a listener met {problem!r}")

    def _did(self, deed: Step | Message) -> None:
        """Keep what was done, for the event log that runs and one that may begin."""
        self._past.deeds.append(deed)
        if self._recorder is not None and self._recorder.begun:
            self._recorder.log(deed)

    def _note(self, record: Record) -> None:
        if record.kind == events.METER:
            self._meters = (_db(record.x**2), _db(record.y**2))
        elif record.kind == events.STOPPED:
            self._silent.set()
        elif record.kind == events.TAPING:
            if self._heard is not None:
                self._heard.begin(record.when)
            if self._recorder is not None and not self._recorder.begun:
                self._recorder.begin(record.when, self._past, self._graph.calls_samples)
        elif record.kind == events.TAPE_LOST and self._heard is not None:
            self._heard.lost(record.b, record.a)
        elif record.kind == events.APPLIED:
            self._log_change(record)
        elif record.kind == events.HEARD:
            data = record.a.to_bytes(8, "little")[: length_of(record.a & 0xFF)]
            self._did(Message(record.when, data, record.b))
        elif record.kind == events.STEPPED:
            self._log_level(record)
        elif record.kind == events.PANICKED:
            self._did(Step(record.when, panic=True))
        elif record.kind == events.SWAP_BEGUN:
            if record.b in self._serials:
                graph, preset = self._serials[record.b]
                values, keep = self._published[record.b]
                if record.b in self._adopted:
                    now = {**graph.values(), TRIM.id: graph.trim_db}
                    number = self._adopted[record.b]
                    self._did(Step(record.when, preset=preset, values=now, graph=number, keep=True, recall=True))
                elif self._adopted:
                    self._did(Step(record.when, preset=preset, values=values, graph=len(self._adopted), keep=keep))
                else:
                    self._past.restart(preset, values)
            for graph, index, value in self._waiting:
                if graph.serial == record.b:
                    self.engine.set_param(graph, index, value)
            self._adopted.setdefault(record.b, len(self._adopted))
            self._waiting = [w for w in self._waiting if w[0].serial > record.b]
        elif record.kind == events.SWAP_DONE and record.a and not self.engine.holds(record.a):
            self._forget(record.a)

    def _log_change(self, record: Record) -> None:
        name = self.name_of(record)
        if record.b in self._serials and record.a == len(self._serials[record.b][0].declared):
            name = TRIM.id
        if name:
            number = self._adopted.get(record.b, 0) if record.b != HOST else 0
            self._did(Step(record.when, name, record.x, graph=number, ramp_samples=int(record.y)))

    def _log_level(self, record: Record) -> None:
        known = self._serials.get(record.b)
        if known is not None:
            label = known[0].chain[record.a].label
            self._did(Step(record.when, label, graph=self._adopted.get(record.b, 0), level=int(record.x)))


def _check_stems(stems: Sequence[str], preset: Preset) -> tuple[str, ...]:
    known = presets.labels(preset.chain)
    for stem in stems:
        if stem not in known:
            raise UsageError(
                f"there is no '{stem}' in the preset {preset.name}; it holds: {', '.join(known) or 'nothing'}"
            )
        if stem == "dry" or list(stems).count(stem) > 1:
            raise UsageError(f"a stem cannot be called {stem}: there would be two files of that name")
    return tuple(stems)


def _monitor_parts(text: str) -> tuple[str, tuple[int, ...]]:
    """``3,4``, ``DEVICE`` or ``DEVICE:1,2``: the device's name, empty for the output's, and the channels given."""
    name, colon, tail = text.rpartition(":")
    if not re.fullmatch(r"\d+(,\d+)*", tail):
        name, colon, tail = text, "", ""
    if not (name if colon or not tail else tail).strip():
        raise UsageError(f"'{text}' is no monitor; write channels such as 3,4, a device, or DEVICE:1,2")
    return name.strip(), tuple(int(c) for c in tail.split(",") if c)


def check_block(block: int) -> int:
    """A block size that can be asked of a device; `UsageError` for any other."""
    if not 0 <= block <= 16384:
        raise UsageError(f"the block size {block} is out of range; allowed: 0 (device's choice) to 16384")
    return block


def length_of(status: int) -> int:
    """Bytes of the MIDI message that begins with a status."""
    if status >= 0xF0:
        return {0xF1: 2, 0xF2: 3, 0xF3: 2}.get(status, 1)
    return 2 if status & 0xE0 == 0xC0 else 3


def names_of(record: Record) -> dict[str, Any]:
    """A telemetry record as plain fields, for a JSON line."""
    kind = {
        events.APPLIED: "param", events.METER: "meter", events.FAULT: "fault", events.RECOVERED: "recovered",
        events.SWAP_BEGUN: "swap_begun", events.SWAP_DONE: "swap_done", events.STOPPED: "stopped",
        events.HEARD: "midi", events.ACTION: "action", events.PANICKED: "panic", events.TAPING: "taping",
        events.TAPE_LOST: "tape_lost", events.DEVICE_GONE: "device_gone", events.DEVICE_BACK: "device_back",
        events.LOUDNESS: "loudness", events.STEPPED: "stepped",
    }.get(record.kind, str(record.kind))  # fmt: skip
    line: dict[str, Any] = {"kind": kind, "position": record.when}
    if record.kind == events.METER:
        line |= {
            "in_peak_db": round(_db(record.x**2), 2),
            "out_peak_db": round(_db(record.y**2), 2),
            "in_rms_db": round(_db(record.z), 2),
            "out_rms_db": round(_db(record.w), 2),
        }
    elif record.kind == events.APPLIED:
        line |= {"param": record.a, "graph": record.b, "value": record.x}
    elif record.kind == events.LOUDNESS:
        line |= {"graph": record.b, "in_lufs": round(lufs(record.x), 2), "out_lufs": round(lufs(record.y), 2)}
    elif record.kind == events.HEARD:
        line |= {"bytes": record.a.to_bytes(8, "little")[: length_of(record.a & 0xFF)].hex(" "), "port": record.b}
    else:
        line |= {"node": record.a, "graph": record.b}
        if record.kind == events.STEPPED:
            line |= {"level": ("full", "lean", "out")[int(record.x)], "load": round(record.y, 3)}
    return line
