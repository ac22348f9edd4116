"""``rtgan live``: open the devices, play, show how it is going, end cleanly."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import numpy as np

from rtgan import offline, presets, warm
from rtgan.control import mapping, midifile
from rtgan.control.desk import Desk
from rtgan.control.osc import Osc, parse_where
from rtgan.demo import phrase
from rtgan.errors import RtganError, UsageError
from rtgan.events import Record
from rtgan.host import Host, Stats, names_of
from rtgan.io.virtual_mic import VirtualMic
from rtgan.panel import link, password
from rtgan.presets import Preset

#: What the servers of sound and controllers may take to let go at the end.
_LEAVE_S = 15.0
_STATUS_S = 0.1
_PLAIN_STATUS_S = 5.0
_DEFAULT_PRESET = "clean"
_DEMO_PRESET = "keys"


def run(args: argparse.Namespace) -> int:
    """Play until interrupted, or for ``--seconds``."""
    if args.seconds is not None and not args.seconds > 0:
        raise UsageError(f"--seconds must be above 0, not {args.seconds:g}")
    if args.virtual_mic is not None and args.output is not None:
        raise UsageError("--virtual-mic is the output; leave --output out")
    if args.no_midi and (args.midi_in or args.midi_out):
        raise UsageError("--no-midi leaves no ports for --midi-in and --midi-out")
    if args.osc is not None:
        parse_where(args.osc)
    if args.panel_port is not None and (args.no_panel or not 0 < args.panel_port < 65536):
        allowed = "--no-panel leaves none" if args.no_panel else "allowed: 1 to 65535"
        raise UsageError(f"--panel-port {args.panel_port} cannot be served; {allowed}")
    if args.model is not None and args.preset is not None:
        raise UsageError("--model plays a model and nothing else; a preset with `plugin: model` plays it among others")
    if args.demo and args.midi_file is not None:
        raise UsageError("--demo plays a phrase of its own; leave --midi-file out")
    panel = {"port": args.panel_port, **_outside(args)}
    chosen = args.preset or (_DEMO_PRESET if args.demo else _DEFAULT_PRESET)
    preset = presets.of_model(args.model) if args.model is not None else presets.load(chosen)
    if args.strip:
        preset = presets.with_strips(preset, _strips(args.strip, preset))
    settings: dict[str, object] = dict(offline.parse_settings(args.set))
    if args.monitor_mix is not None:
        if args.monitor is None:
            raise UsageError("--monitor-mix needs a --monitor")
        settings["host.monitor_mix"] = args.monitor_mix
    reason = None if (args.input or args.output) else _no_device(args.virtual_mic is None)
    options: dict[str, Any] = {
        "preset": preset,
        "block": args.block,
        "settings": settings,
        "in_channels": args.in_channels,
        "out_channels": args.out_channels,
        "record": args.record,
        "stems": args.stem,
        "pre_roll_s": args.pre_roll,
        "wait_s": args.wait_device,
        "monitor": args.monitor,
        "shed": not args.no_shed,
    }
    with ExitStack() as stack:
        write = stack.enter_context(_telemetry(args.telemetry))
        source, target, rate_hz = args.input, args.output, args.rate
        if reason is not None and args.virtual_mic is not None:
            raise RtganError(f"{reason}: there is nothing to play into a virtual microphone")
        if args.virtual_mic is not None:
            mic = panel["mic"] = stack.enter_context(VirtualMic(args.virtual_mic, args.rate))
            print(mic.announcement, flush=True)
            chosen = mic.input(source)
            source, target = chosen.index if chosen is not None else None, mic.output.index
            rate_hz = mic.rate_hz
        if reason is None:
            host = Host(input=source, output=target, rate_hz=rate_hz, on_record=write, **options)
            return _play(host, args, write, panel)
        from rtgan import demo

        rate = demo.RATE_HZ if args.rate is None else offline.engine_rate(args.rate)
        if args.demo:
            print(f"{reason}: playing a built-in phrase with {preset.name} in real time", flush=True)
            silence = np.zeros((1, round(phrase.SECONDS * rate)), np.float32)
            host = Host(source=silence, rate_hz=rate, on_record=write, **options)
            return _play(host, args, write, panel, until_source_ends=args.seconds is None)
        print(f"{reason}: playing a built-in noisy recording through {preset.name} in real time", flush=True)
        samples = demo.recording(rate)
        host = Host(source=samples, rate_hz=rate, on_record=write, **options)
        code = _play(host, args, write, panel, until_source_ends=args.seconds is None)
        demo.show(samples, host.output_so_far(), host.latency_samples, rate)
        return code


def _strips(texts: list[str], preset: Preset) -> dict[str, tuple[tuple[int, ...], Preset]]:
    """``NAME[:CH[,CH]][=PRESET]``, by name: its inputs, by default the one behind those before it, and its chain."""
    found: dict[str, tuple[tuple[int, ...], Preset]] = {}
    last = 0
    for text in texts:
        head, _, chain = text.partition("=")
        name, _, channels = head.partition(":")
        if name in found:
            raise UsageError(f"--strip {text}: there is a strip '{name}' already")
        inputs = presets.inputs_of(channels, f"--strip {text}") if channels else (last + 1,)
        found[name] = inputs, presets.load(chain) if chain else preset
        last = max(inputs)
    return found


def _outside(args: argparse.Namespace) -> dict[str, Any]:
    """Where other machines reach the panel, and their password; nothing if they do not."""
    if args.panel_host is None:
        if args.panel_password_file is not None:
            raise UsageError("--panel-password-file is for --panel-host, which is not given")
        return {}
    if args.no_panel:
        raise UsageError("--no-panel leaves nothing for --panel-host")
    return {"address": link.check_address(args.panel_host), "password": password.obtain(args.panel_password_file)}


def _no_device(output: bool) -> str | None:
    """Why there is nothing to play on, or None; an output may be made later."""
    from rtgan.io import devices

    try:
        known = devices.devices()
    except RtganError as problem:
        return str(problem)
    if not any(d.inputs for d in known):
        return "no audio input device"
    if output and not any(d.outputs for d in known):
        return "no audio output device"
    return None


@contextmanager
def _controls(host: Host, args: argparse.Namespace, panel: Mapping[str, Any]) -> Iterator[Desk]:
    """Everything that may move the host meanwhile."""
    with ExitStack() as stack:
        desk = Desk(host, args.midi_in, args.midi_out, ports=not args.no_midi, on_reload=_say_reloaded)
        # Its messages are on their way before the first sample.
        if args.midi_file is not None or args.demo:
            rate = host.sample_rate_hz
            played = phrase.messages(rate) if args.demo else midifile.read(args.midi_file, rate)
            player = midifile.FilePlayer(host.engine, played)
            player.start()
            stack.callback(player.close)
            host.pinned = "a MIDI file plays along"
        stack.enter_context(desk)
        if args.osc is not None:
            osc = Osc(desk, parse_where(args.osc))
            osc.start()
            stack.callback(osc.close)
            print(f"OSC: {osc.where[0]}:{osc.where[1]}", flush=True)
        if not args.no_panel:
            absent = link.missing()
            if absent is None:
                shown = stack.enter_context(link.Panel(host, desk, **panel))
                print("\n".join(filter(None, (f"panel: {shown.url}", shown.opens))), flush=True)
            else:
                print(absent, file=sys.stderr, flush=True)
        yield desk


def _say_reloaded(preset: Preset) -> None:
    print(f"\n{preset.path} was saved: playing it", flush=True)


def _play(
    host: Host, args: argparse.Namespace, write: Any, panel: Mapping[str, Any], until_source_ends: bool = False
) -> int:
    halt = threading.Event()
    leave = threading.Timer(_LEAVE_S, _leave)
    leave.daemon = True
    try:
        with _signals(halt), _controls(host, args, panel) as desk:
            host.start()
            try:
                if host.wait_first_block():
                    warm.done()
                    _announce(host)
                    _announce_midi(desk, args)
                _wait(host, halt, args.seconds, until_source_ends, write)
                lost = not host.running and not halt.is_set()
            finally:
                leave.start()
                host.stop()
    finally:
        leave.cancel()
    stats = host.stats()
    problems = list(stats.problems)
    print(_summary(stats), flush=True)
    problem: RtganError | None = None
    if (lost or host.stuck) and host.input is not None:
        problem = RtganError(f"the audio device has gone away after {stats.seconds:.1f} s")
    elif problems:
        problem = RtganError(problems[0])
    if host.stuck:
        # PortAudio hangs on its dead server, at exit too: everything of ours is saved, so leave at once.
        print(f"rtgan: {problem}", file=sys.stderr, flush=True)
        os._exit(1)
    if problem is not None:
        raise problem
    return 0


def _leave() -> None:
    """A server that hangs keeps whoever says goodbye to it, without end; a recording is complete as it stands."""
    print("rtgan: the audio or MIDI server does not answer: left without it", file=sys.stderr, flush=True)
    os._exit(1)


def _wait(host: Host, halt: threading.Event, seconds: float | None, to_end: bool, write: Any) -> None:
    begin = time.monotonic()
    terminal = sys.stdout.isatty()
    every = _STATUS_S if terminal else _PLAIN_STATUS_S
    shown = begin
    told: set[str] = set()
    device = overload = ""
    notices = host.notices
    nl = "\n" if terminal else ""
    while not halt.is_set():
        now = time.monotonic()
        if seconds is not None and now - begin >= seconds:
            break
        if (to_end and host.source_ended) or not (host.running or host.waiting):
            break
        if host.device != device:
            device = host.device
            # Not to stderr, which is away while PortAudio looks for devices.
            print(f"{nl}{device or 'the device is back'}", flush=True)
        if host.notices != notices:
            # Another preset plays, with code of somebody's own.
            before, notices = notices, host.notices
            for notice in notices:
                if notice not in before:
                    print(f"{nl}{notice}", flush=True)
        if host.overload != overload:
            overload = host.overload
            print(f"{nl}{overload or 'this machine keeps up again: everything plays'}", flush=True)
        if now - shown >= every:
            shown = now
            stats = host.stats()
            if write is not None:
                write(stats)
            for trouble in (*stats.problems, *stats.warnings):
                if trouble not in told:
                    told.add(trouble)
                    print(f"\nrtgan: {trouble}", file=sys.stderr, flush=True)
            if terminal:
                print("\r" + _status(stats) + "\x1b[K", end="", flush=True)
            else:
                print(_status(stats), flush=True)
        left = _STATUS_S if seconds is None else min(_STATUS_S, max(0.0, begin + seconds - now))
        halt.wait(left)
    if terminal:
        print()


def _announce(host: Host) -> None:
    if host.input is not None and host.output is not None:
        print(
            f"{host.preset.name}: {host.input.name} -> {host.output.name} [{host.output.api}], "
            f"{host.sample_rate_hz / 1000:g} kHz",
            flush=True,
        )
        if host.input.name != host.output.name and not ("JACK" in host.input.api and "JACK" in host.output.api):
            print("input and output are different devices: their clocks are held together", flush=True)
    if host.monitor:
        print(f"monitor: {host.monitor}", flush=True)
    for notice in host.notices:
        print(notice, flush=True)
    if sys.stdout.isatty():
        print("Ctrl-C fades out and ends.", flush=True)


def _announce_midi(desk: Desk, args: argparse.Namespace) -> None:
    if args.no_midi:
        return
    names = [n for n in dict.fromkeys(desk.ports) if n and (n != mapping.FILE_NAME or args.midi_file)]
    if names:
        print(f"MIDI: {', '.join(names)}", flush=True)
    if args.midi_in or args.midi_out:
        for backend, why in desk.failures.items():
            print(f"MIDI: {backend} is not available: {why}", flush=True)


def _bar(db: float) -> str:
    width = 12
    full = round(width * min(1.0, max(0.0, (db + 60.0) / 60.0)))
    return "#" * full + "." * (width - full)


def _latency(parts: dict[str, float | None]) -> str:
    total = sum(v for v in parts.values() if v is not None)
    split = " + ".join(f"{name} {value:.1f}" if value is not None else f"{name} ?" for name, value in parts.items())
    return f"{total:.1f} ms ({split})"


def _status(stats: Stats) -> str:
    faults = sum(stats.faults.values())
    return (
        (f"{stats.device}  " if stats.device else "") + f"in {_bar(stats.in_db)} {max(stats.in_db, -99):5.1f}"
        f"  out {_bar(stats.out_db)} {max(stats.out_db, -99):5.1f} dBFS"
        f"  load {stats.load * 100:4.1f}% worst {stats.worst_load * 100:4.0f}%"
        f"  latency {_latency(stats.latency_ms)}  xruns {stats.xruns}{_slips(stats)}  faults {faults}"
        + (f"  {_shed(stats)}" if stats.shed else "")
    )


def _slips(stats: Stats) -> str:
    return f" slips {stats.slips}" if stats.slips else ""


def _shed(stats: Stats) -> str:
    return " ".join(f"{label} {how}" for label, how in stats.shed.items())


def _summary(stats: Stats) -> str:
    return (
        f"{stats.seconds:.1f} s played, load {stats.load * 100:.1f}% worst {stats.worst_load * 100:.0f}%, "
        f"latency {_latency(stats.latency_ms)}, xruns {stats.xruns}{_slips(stats)}, faults {sum(stats.faults.values())}"
    )


@contextmanager
def _signals(halt: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the session; the second Ctrl-C is Python's own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        halt.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    wanted = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {s: signal.signal(s, end) for s in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _telemetry(path: Path | None) -> Iterator[Any]:
    """Give a function that writes telemetry to a file, or None."""
    if path is None:
        yield None
        return
    try:
        # A line at a time: who follows the file sees what is, not what was a second ago.
        stream: TextIO = path.open("w", encoding="utf-8", buffering=1)
    except OSError as problem:
        raise RtganError(f"the telemetry file {path} cannot be written: {problem.strerror}") from None
    lock = threading.Lock()

    def write(entry: Record | Stats) -> None:
        line = names_of(entry) if isinstance(entry, Record) else {"kind": "stats", **vars(entry)}
        with lock:
            try:
                stream.write(json.dumps(line) + "\n")
            except (OSError, ValueError):
                pass  # a full disk ends the telemetry, never the sound

    try:
        yield write
    finally:
        try:
            stream.close()
        except OSError as problem:
            print(f"rtgan: the telemetry file {path} is not complete: {problem.strerror}", file=sys.stderr)
