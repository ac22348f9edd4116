"""Audio devices: listing, choosing, and the stream that calls the engine.

A thin layer over sounddevice (PortAudio). The stream gets the engine's C callback; Python is not called by it.
"""

from __future__ import annotations

import atexit
import os
import re
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rtgan.errors import RtganError, UsageError
from rtgan.io.bridge import Bridge
from rtgan.io.gate import Gate
from rtgan.io.jack_server import Watch

_CLOSE_S = 2.0
_SPLIT_BLOCK = 256
#: Streams whose server has died, and the copies of PortAudio that they belong to: nobody can close them.
_ABANDONED: list[object] = []
#: Who watches the JACK server that PortAudio began with; nobody watches the one that is there at first.
_watch: Watch | None = None


@dataclass(frozen=True)
class Device:
    """An audio device as PortAudio lists it.

    Parameters
    ----------
    index : int
        Number in the list; may change when devices come and go.
    name, api : str
        Device and host API (ALSA, JACK, Core Audio, ...).
    inputs, outputs : int
        Channels.
    rate_hz : float
        The device's own sample rate.
    """

    index: int
    name: str
    api: str
    inputs: int
    outputs: int
    rate_hz: float

    @property
    def plug(self) -> tuple[str, str]:
        """What it is known by when it has been pulled out and put in again, whatever number it gets."""
        return re.sub(r" \(hw:\d+,\d+\)$", "", self.name), self.api

    @property
    def full_name(self) -> str:
        """Name and host API, as `describe` shows them and `choose` takes them."""
        return f"{self.name} [{self.api}]"

    def describe(self) -> str:
        """One line for a person."""
        return f"{self.index:3d}  {self.full_name}  {self.inputs} in, {self.outputs} out, {self.rate_hz / 1000:g} kHz"


def _sounddevice() -> Any:
    try:
        import sounddevice
    except OSError as problem:
        raise RtganError(
            f"PortAudio is not installed ({problem}); on Debian or Ubuntu: apt-get install libportaudio2"
        ) from None
    return sounddevice


def devices() -> list[Device]:
    """Every device; an empty list on a machine without audio."""
    sd = _sounddevice()
    apis = [a["name"] for a in sd.query_hostapis()]
    return [
        Device(
            d["index"],
            d["name"],
            apis[d["hostapi"]],
            d["max_input_channels"],
            d["max_output_channels"],
            float(d["default_samplerate"]),
        )
        for d in sd.query_devices()
    ]


def period_samples(device: Device | None) -> int:
    """Samples of a call of a device that chooses them itself, as far as it tells: JACK ports are as late as a period.

    0 where nothing is known.
    """
    if device is None or "JACK" not in device.api:
        return 0
    about = _sounddevice().query_devices(device.index)
    late = about["default_low_input_latency" if device.inputs else "default_low_output_latency"]
    return max(0, round(float(late) * device.rate_hz))


def refresh() -> None:
    """Look for devices anew; no stream may be open. PortAudio makes its list once, when it begins."""
    global _watch
    sd = _sounddevice()
    try:
        with_jack = any("JACK" in api["name"] for api in sd.query_hostapis())
    except sd.PortAudioError:
        # It could not begin the last time, and has no list to look at.
        _begin(sd)
        return
    if with_jack and _watch is None:
        _watch = Watch()
    if with_jack and _watch is not None and not _watch.goes_on:
        # The end of a PortAudio whose JACK server has died is an assertion that fails, and takes the process along.
        _renew()
        return
    sd._terminate()
    _begin(sd)


def _begin(sd: Any) -> None:
    """Let PortAudio begin, and watch the server it begins with."""
    global _watch
    if _watch is not None:
        _watch.end()
    _watch = Watch()
    sd._initialize()
    atexit.unregister(_leave)
    atexit.register(_leave)


def _leave() -> None:
    """At the end of the process, before PortAudio is brought to its end: not if that would be an abort."""
    if _watch is not None and not _watch.goes_on:
        _sounddevice()._initialized = 0


def _renew() -> bool:
    """Leave PortAudio as it is, for ever, and begin with another copy of its library; False where that cannot be."""
    sd = _sounddevice()
    if sys.platform != "linux":
        return False
    with open("/proc/self/maps", encoding="utf-8") as maps:
        paths = [line.split(maxsplit=5)[5].strip() for line in maps if "/libportaudio" in line]
    if not paths:
        return False
    with open(paths[0], "rb") as library:
        memory = os.memfd_create("portaudio")
        os.write(memory, library.read())
    # The file stays open: the loader takes a path that it has seen for the library that it knows.
    _ABANDONED.append((sd._lib, memory))
    sd._lib = sd._ffi.dlopen(f"/proc/self/fd/{memory}")
    sd._initialized = 0
    _begin(sd)
    return True


def choose(spec: str | int | None, kind: str, known: Sequence[Device] | None = None) -> Device | None:
    """The device that a person means.

    Parameters
    ----------
    spec : str, int or None
        Index, name, name with host API, or a part of a name that only one device has. None: the default, which on a
        running JACK server is its ``system`` ports.
    kind : {"input", "output"}
    known : sequence of Device, optional
        What to choose from; by default what `devices` finds.

    Returns
    -------
    Device or None
        None only if ``spec`` is None and the machine has no such device.
    """
    everything = list(devices() if known is None else known)
    able = [d for d in everything if (d.inputs if kind == "input" else d.outputs) > 0]
    if spec is None:
        return _default(kind, able)
    text = str(spec).strip()
    if text.lstrip("-").isdigit():
        found = [d for d in able if d.index == int(text)]
    else:
        # Exact name first, then a unique part of one. JACK before others: it is there on purpose.
        found = [d for d in able if text in (d.name, d.full_name)]
        if len(found) > 1:
            found = [d for d in found if "JACK" in d.api] or found[:1]
        if not found:
            found = [d for d in able if text.lower() in d.name.lower()]
    if len(found) == 1:
        return found[0]
    if not found:
        names = ", ".join(f"{d.index} {d.name}" for d in able) or "none at all"
        raise UsageError(f"there is no {kind} device '{text}'; this machine has: {names}")
    names = ", ".join(f"{d.index} {d.name}" for d in found)
    raise UsageError(f"'{text}' fits several {kind} devices: {names}; give the whole name or the index")


def _default(kind: str, able: Sequence[Device]) -> Device | None:
    jack = [d for d in able if "JACK" in d.api]
    for device in jack:
        if device.name == "system":
            return device
    if not able:
        return None
    sd = _sounddevice()
    index = sd.default.device[0 if kind == "input" else 1]
    if index is None or index < 0:
        try:
            index = sd.query_devices(kind=kind)["index"]
        except (ValueError, sd.PortAudioError):
            index = -1
    for device in able:
        if device.index == index:
            return device
    return able[0]


class Stream:
    """A running PortAudio stream that calls the engine.

    Parameters
    ----------
    input, output : Device
        No input: an output alone.
    rate_hz : int
    block : int
        Frames per callback; 0 leaves it to the device, which on JACK adds no latency.
    input_channels, output_channels : int
        Channels to open.
    callback, userdata : int
        Addresses of the engine's callback and of the engine.
    split : bool
        Use two streams and a ring between them (see `rtgan.io.bridge`) even for one device. Different devices
        always get them, but on JACK.
    """

    def __init__(
        self,
        input: Device | None,
        output: Device,
        rate_hz: int,
        block: int,
        input_channels: int,
        output_channels: int,
        callback: int,
        userdata: int,
        split: bool = False,
    ) -> None:
        sd = _sounddevice()
        ffi = sd._ffi
        self._error = sd.PortAudioError
        alone = input is None or input.name == output.name
        self.name = output.name if input is None or alone else f"{input.name} or {output.name}"
        self.jack = "JACK" in output.api
        self.rate_hz = rate_hz
        self._started = False
        self.bridge: Bridge | None = None
        self.gate = Gate(callback, userdata, output_channels)
        enter, gate = self.gate.enter_address, self.gate.address

        def open_one(kind: str, device: Any, channels: Any, dtype: Any, function: int, user: int) -> Any:
            return sd._StreamBase(
                kind=kind,
                samplerate=rate_hz,
                blocksize=block,
                device=device,
                channels=channels,
                dtype=dtype,
                latency="low",
                clip_off=True,
                dither_off=True,
                callback=ffi.cast("PaStreamCallback *", function),
                userdata=ffi.cast("void *", user),
            )

        # PortAudio waits for two devices in turn and breaks up when they drift; JACK has one clock for all.
        together = input is None or input.index == output.index or (self.jack and input.api == output.api)
        try:
            if input is None:
                self._streams = [open_one("output", output.index, output_channels, "float32", enter, gate)]
            elif together and not split:
                devices = (input.index, output.index)
                channels = (input_channels, output_channels)
                self._streams = [open_one("duplex", devices, channels, ("float32", "float32"), enter, gate)]
            else:
                fill = 2 * (block or _SPLIT_BLOCK)
                self.bridge = Bridge(enter, gate, input_channels, output_channels, rate_hz, fill)
                ends = self.bridge
                self._streams = []
                for kind, device, width, function in (
                    ("input", input.index, input_channels, ends.take_address),
                    ("output", output.index, output_channels, ends.give_address),
                ):
                    self._streams.append(open_one(kind, device, width, "float32", function, ends.address))
        except (sd.PortAudioError, ValueError) as problem:
            for stream in getattr(self, "_streams", []):
                stream.close(ignore_errors=True)
            raise RtganError(_why(problem, input or output, output, rate_hz, input_channels, output_channels)) from None

    def start(self) -> None:
        """Begin; the callback runs from now on."""
        self._started = True
        try:
            for stream in self._streams:
                stream.start()
        except self._error as problem:
            raise RtganError(f"the audio stream does not start: {problem}") from None

    def close(self, last: bool = False) -> bool:
        """Stop and give the device back.

        From a JACK server that has died PortAudio does not come back, and no other stream can be had from it: the
        stream is shut out of the engine and left to itself, and the next one belongs to another copy of PortAudio.

        Parameters
        ----------
        last : bool
            No other stream is wanted, and no other copy, which a server that hangs would keep from beginning.

        Returns
        -------
        bool
            False if PortAudio does not come back and there is no other copy to be had.
        """
        if self.jack and self._started and not self.active:
            return self._abandon(last)
        closer = threading.Thread(target=self._close, name="rtgan-close", daemon=True)
        closer.start()
        closer.join(_CLOSE_S)
        return not closer.is_alive() or self._abandon(last)

    def _abandon(self, last: bool) -> bool:
        _ABANDONED.append(self)
        return self.gate.shut() and not last and _renew()

    def _close(self) -> None:
        for stream in reversed(self._streams):
            try:
                stream.stop()
                stream.close()
            except self._error:
                # The device or its server has gone: there is nothing left to stop.
                stream.close(ignore_errors=True)

    @property
    def active(self) -> bool:
        """Whether the callback is being called."""
        try:
            return all(stream.active for stream in self._streams)
        except self._error:
            return False

    def latency_ms(self) -> tuple[float, float] | None:
        """What the device says of its input and output latency; None on JACK, where PortAudio is wrong."""
        if self.jack:
            return None
        if self.bridge is None:
            seconds = self._streams[0].latency
        else:
            seconds = self._streams[0].latency, self._streams[1].latency
        return seconds[0] * 1000, seconds[1] * 1000

    @property
    def ring_ms(self) -> float:
        """What the ring between two devices holds on purpose."""
        return self.bridge.fill / self.rate_hz * 1000 if self.bridge else 0.0

    @property
    def slips(self) -> int:
        """How often two devices' clocks had to be brought together again."""
        return self.bridge.slips if self.bridge else 0


def _why(problem: Exception, input: Device, output: Device, rate_hz: int, ins: int, outs: int) -> str:
    text = str(problem)
    if "sample rate" in text.lower():
        return (
            f"{output.name} refuses {rate_hz} Hz; its own rate is {output.rate_hz:g} Hz "
            f"(input {input.name}: {input.rate_hz:g} Hz)"
        )
    if "channels" in text.lower():
        return (
            f"{input.name} has {input.inputs} input and {output.name} {output.outputs} output channels; "
            f"{ins} and {outs} were asked for"
        )
    return f"the audio device cannot be opened ({input.name} to {output.name}): {text}"
