"""``rtgan doctor``: what this machine has, what it can do, and what to change so that it can do more.

Whatever may crash, hang or chatter (audio and MIDI backends, drivers) is asked in a process of its own; a
backend that takes that process down is one line of the report.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rtgan import __version__, kernel_cache
from rtgan.bench import cpu_name
from rtgan.errors import RtganError, UsageError

BLOCKS = (64, 128, 256)
_ROOT = Path(__file__).resolve().parent.parent
_PRESETS = ("clean", "voice-basic", "bypass")
_LIMITS = "/etc/security/limits.d/95-rtgan.conf"
_REAL_TIME_PRIORITY = 60
_SETTLE_S = 0.3
_RECORDED_BYTES_PER_S = 2 * 4 * 48000  # dry and wet, mono, float32
_GOVERNORS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Parameters
    ----------
    text : str
        What was found.
    change : str
        What to do about it; empty where all is well.
    prevents : bool
        Whether live audio cannot work because of it.
    """

    text: str
    change: str = ""
    prevents: bool = False

    def lines(self) -> list[str]:
        """The finding for a person."""
        mark = "NO" if self.prevents else "! " if self.change else "ok"
        return [f"  {mark}  {self.text}", *([f"      change: {self.change}"] if self.change else [])]


class NoAnswer(Exception):
    """A probe's process ended without an answer; the text says how."""


def run(seconds: float, as_json: bool = False) -> int:
    """Print the report; 0 when live audio works here, 1 when something prevents it."""
    if not (seconds == 0 or 0.1 <= seconds <= 3600):
        raise UsageError(f"--seconds must be 0 or from 0.1 to 3600, not {seconds:g}")
    groups: list[dict[str, Any]] = []

    def said(text: str) -> None:
        if not as_json:
            print(text, flush=True)

    said(f"rtgan {__version__} on {platform.system()} {platform.release()}, {platform.machine()}")
    found: list[Finding] = []
    measured: dict[str, Any] = {}

    def group(title: str, examine: Callable[[], Sequence[Finding]]) -> None:
        said(f"\n{title}")
        try:
            findings = list(examine())
        except Exception as problem:  # a report that stops halfway helps nobody
            findings = [Finding(f"could not be examined: {type(problem).__name__}: {problem}")]
        found.extend(findings)
        groups.append({"title": title, "findings": [asdict(finding) for finding in findings]})
        for finding in findings:
            said("\n".join(finding.lines()))

    def timing() -> list[Finding]:
        measured.update(_measured(seconds))
        return timing_findings(measured)

    group("Installed", installed)
    group("Compiled kernels", kernels)
    group("Processor", lambda: [*processor(), *governor(_governors())])
    group("Audio", lambda: audio_findings(_asked("probe_audio()")))
    group("MIDI", midi)
    group("Real-time priority", lambda: [priority(_rtprio_limit(), real_time_granted(), _is_linux())])
    group("Recordings", lambda: [disk(shutil.disk_usage(Path.cwd()).free)])
    if seconds:
        group(f"Timing, {seconds:g} s beside whatever else runs here", timing)
        group("Locked memory", lambda: [memory(_memlock_limit(), measured)])
    said("\n" + verdict(found))
    if as_json:
        print(json.dumps({"groups": groups, "verdict": verdict(found)}))
    return int(any(f.prevents for f in found))


def verdict(found: Sequence[Finding]) -> str:
    """The last line."""
    changes = sum(1 for f in found if f.change)
    advice = f"; {changes} {'thing' if changes == 1 else 'things'} to change, see above" if changes else ""
    if any(f.prevents for f in found):
        return f"Live audio does not work here{advice}."
    return f"Live audio works here{advice}."


# --- what is installed ---


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed(version: Callable[[str], str | None] = _version) -> list[Finding]:
    """Python and packages; ``version`` gives that of an installed package or None."""
    found = [Finding(f"Python {platform.python_version()} ({sys.executable})")]
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        found = [Finding(found[0].text, "use Python 3.11, 3.12 or 3.13; rtgan is made for these")]
    present: list[str] = []
    missing: list[str] = []
    for package in ("numba", "llvmlite", "numpy", "sounddevice", "soundfile", "python-rtmidi", "soxr", "PyYAML"):
        known = version(package)
        (present if known else missing).append(f"{package} {known}" if known else package)
    found.append(Finding(f"rtgan {__version__}, {', '.join(present)}"))
    for package in missing:
        optional = package == "python-rtmidi"
        effect = "no MIDI" if optional else "rtgan does not play without it"
        found.append(Finding(f"{package} is not installed: {effect}", f"pip install {package}", not optional))
    torch = version("torch")
    found.append(
        Finding(
            f"torch {torch} (not used by playing)" if torch
            else "torch is not installed: only needed for your own TorchScript, training and export"
        )
    )  # fmt: skip
    return found


def kernels() -> list[Finding]:
    """The cache of compiled kernels."""
    folder = kernel_cache.root()
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    if not kernel_cache.is_persistent():
        return [
            Finding(
                f"{kernel_cache.user_cache()} cannot be written: every start compiles anew, which takes a minute",
                "make that folder writable, or set RTGAN_CACHE_DIR to one that is",
            )
        ]
    if not kernel_cache.warm_marker().exists():
        return [
            Finding(
                f"{folder} is not warm ({size / 1e6:.1f} MB): the next start compiles, which takes up to a minute",
                f"{sys.executable} -m rtgan.warm",
            )
        ]
    return [Finding(f"{folder} is warm ({size / 1e6:.1f} MB)")]


# --- processor ---


def processor() -> list[Finding]:
    """Model, cores, and the widest vectors that kernels are compiled for."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    wide = next((n for n, flag in ((16, "avx512f"), (8, "avx2"), (8, "avx")) if features.get(flag)), 4)
    target = f"compiled for {binding.get_host_cpu_name()}, {wide} float32 at once"
    return [Finding(f"{cpu_name()}, {os.cpu_count()} cores; {target}")]


def _governors() -> dict[str, int]:
    count: dict[str, int] = {}
    for path in _GOVERNORS.glob("cpu[0-9]*/cpufreq/scaling_governor"):
        try:
            name = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        count[name] = count.get(name, 0) + 1
    return count


def governor(count: Mapping[str, int]) -> list[Finding]:
    """Frequency governors, cores by name; empty where the system does not tell (virtual machines)."""
    if not count:
        return [Finding("the frequency governor cannot be read here (usual in a virtual machine)")]
    text = ", ".join(f"{name} on {cores} cores" for name, cores in sorted(count.items()))
    slow = set(count) - {"performance"}
    change = "sudo cpupower frequency-set -g performance (a core that clocks down between blocks is late)"
    return [Finding(f"frequency governor: {text}", change if slow else "")]


# --- backends, asked in processes of their own ---


def _ask(expression: str, timeout_s: float = 30.0) -> Any:
    """What ``rtgan.doctor.<expression>`` gives in a fresh process; `NoAnswer` where it gives nothing."""
    code = f"import json; from rtgan import doctor; print('\\n' + json.dumps(doctor.{expression}))"
    env = {**os.environ, "JACK_NO_START_SERVER": "1"}
    env["PYTHONPATH"] = os.pathsep.join(p for p in (str(_ROOT), os.environ.get("PYTHONPATH")) if p)
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, errors="replace",
    )  # fmt: skip
    try:
        out, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"no answer within {timeout_s:.0f} s") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode < 0:
        raise NoAnswer(f"it crashed ({signal.Signals(-process.returncode).name})")
    lines = out.strip().splitlines()
    if process.returncode or not lines:
        reason = errors.strip().splitlines()
        raise NoAnswer(reason[-1] if reason else "no reason given")
    return json.loads(lines[-1])


def _asked(expression: str, timeout_s: float = 30.0) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = _ask(expression, timeout_s)
    except NoAnswer as problem:
        return {"problem": str(problem)}
    return answer


def probe_audio() -> dict[str, Any]:
    """PortAudio's version, host APIs and devices, or the ``problem`` [in a process of its own]."""
    from rtgan.io import devices

    try:
        known = devices.devices()
        import sounddevice

        return {
            "version": sounddevice.get_portaudio_version()[1].split(",")[0],
            "apis": [
                {
                    "name": api["name"],
                    "inputs": sum(d.api == api["name"] and d.inputs > 0 for d in known),
                    "outputs": sum(d.api == api["name"] and d.outputs > 0 for d in known),
                }
                for api in sounddevice.query_hostapis()
            ],
        }
    except RtganError as problem:
        return {"problem": str(problem)}
    except ImportError as problem:
        return {"problem": f"{problem.name} is not installed"}


def audio_findings(answer: Mapping[str, Any]) -> list[Finding]:
    """What `probe_audio` found."""
    if "problem" in answer:
        change = "install PortAudio; on Debian or Ubuntu: sudo apt-get install libportaudio2"
        return [Finding(f"PortAudio does not work: {answer['problem']}", change, prevents=True)]
    found = [Finding(answer["version"])]
    apis = answer["apis"]
    for api in apis:
        found.append(Finding(f"{api['name']}: {api['inputs']} input and {api['outputs']} output devices"))
    jack = any("JACK" in api["name"] and api["inputs"] + api["outputs"] for api in apis)
    found.append(Finding("a JACK server answers" if jack else "no JACK server answers"))
    lacking = [kind for kind in ("input", "output") if not any(api[f"{kind}s"] for api in apis)]
    if lacking:
        found.append(
            Finding(
                f"no audio {' and no '.join(lacking)} device: `rtgan live` plays a built-in recording instead",
                "connect one, or start JACK or PipeWire (then: pw-jack rtgan live)",
            )
        )
    return found


def probe_midi() -> list[list[str]]:
    """Name and title of every MIDI backend that python-rtmidi was compiled with [in a process of its own]."""
    import rtmidi

    return [[rtmidi.get_api_name(api), rtmidi.get_api_display_name(api)] for api in rtmidi.get_compiled_api()]


def probe_midi_ports(name: str) -> dict[str, Any]:
    """Ports of one MIDI backend, or the ``problem`` [in a process of its own]."""
    import rtmidi

    api = next(a for a in rtmidi.get_compiled_api() if rtmidi.get_api_name(a) == name)
    try:
        midi_in, midi_out = rtmidi.MidiIn(api, name="rtgan-doctor"), rtmidi.MidiOut(api, name="rtgan-doctor")
        return {"inputs": midi_in.get_ports(), "outputs": midi_out.get_ports()}
    except (rtmidi.RtMidiError, SystemError, OSError, ValueError) as problem:
        # The binding raises SystemError where the library's error comes out of a constructor.
        cause = problem.__cause__ or problem
        return {"problem": str(cause)}


def midi(ask: Callable[[str], Any] = _ask) -> list[Finding]:
    """Every MIDI backend, each tried; ``ask`` evaluates a probe in another process."""
    change = "pip install --force-reinstall python-rtmidi"
    try:
        backends = ask("probe_midi()")
    except NoAnswer as problem:
        return [Finding(f"no MIDI: {problem}", change)]
    found = []
    for name, title in backends:
        if name == "dummy":
            continue
        try:
            answer = ask(f"probe_midi_ports({name!r})")
            problem_text = answer.get("problem")
        except NoAnswer as problem:
            problem_text = str(problem)
        if problem_text is None:
            ports = f"{len(answer['inputs'])} input and {len(answer['outputs'])} output ports"
            found.append(Finding(f"{title}: {ports}"))
        else:
            found.append(Finding(f"{title} does not answer: {problem_text}"))
    if not found:
        return [Finding("no MIDI: python-rtmidi was compiled without a backend", change)]
    if not any(": " in f.text and "does not answer" not in f.text for f in found):
        advice = "sudo modprobe snd-seq (ALSA), or start JACK" if _is_linux() else "install a MIDI driver"
        found[-1] = Finding(found[-1].text, f"for MIDI: {advice}; audio works without")
    return found


# --- privileges ---


def _is_linux() -> bool:
    return sys.platform.startswith("linux")


def _limit(name: str) -> float | None:
    try:
        import resource
    except ImportError:
        return None
    number = getattr(resource, name, None)
    if number is None:
        return None
    soft = resource.getrlimit(number)[0]
    return float("inf") if soft == resource.RLIM_INFINITY else float(soft)


def _rtprio_limit() -> float | None:
    return _limit("RLIMIT_RTPRIO")


def _memlock_limit() -> float | None:
    return _limit("RLIMIT_MEMLOCK")


def _become_real_time() -> bool:
    """Ask for a real-time priority for the calling thread."""
    setter = getattr(os, "sched_setscheduler", None)
    if setter is None:
        return False
    try:
        setter(0, os.SCHED_FIFO, os.sched_param(_REAL_TIME_PRIORITY))
    except OSError:
        return False
    return True


def real_time_granted() -> bool:
    """Whether a thread of this process may become real-time, found out by a thread that then ends."""
    answer: list[bool] = []
    thread = threading.Thread(target=lambda: answer.append(_become_real_time()))
    thread.start()
    thread.join()
    return answer[0]


def _limits_advice(line: str) -> str:
    return (
        f"put '{line}' into {_LIMITS}, then `sudo usermod -aG audio {os.environ.get('USER', '$USER')}`, "
        "and log out and in again"
    )


def priority(limit: float | None, granted: bool, linux: bool = True) -> Finding:
    """Real-time priority: the limit (RLIMIT_RTPRIO; None where there is no such thing) and whether it was given."""
    if not linux:
        return Finding("given to the audio thread by this system itself")
    shown = "unknown" if limit is None else f"{limit:g}"
    if granted:
        how = "" if limit is not None and limit >= _REAL_TIME_PRIORITY else ", by privilege"
        return Finding(f"granted (SCHED_FIFO {_REAL_TIME_PRIORITY}{how}; limit {shown})")
    return Finding(
        f"refused (SCHED_FIFO {_REAL_TIME_PRIORITY}; limit {shown}): other programs can make the sound stutter",
        _limits_advice("@audio - rtprio 95"),
    )


def memory(limit_bytes: float | None, measured: Mapping[str, Any]) -> Finding:
    """The limit of locked memory (RLIMIT_MEMLOCK) against what the engine and two presets take."""
    if "arena_bytes" not in measured:
        return Finding("how much is needed is not known, since nothing could be played")
    need = measured["arena_bytes"]
    shown = "unknown" if limit_bytes is None else f"{limit_bytes / 1e6:.1f} MB"
    if limit_bytes == float("inf"):
        shown = "none"
    text = f"{need / 1e6:.1f} MB are needed during a change of preset while recording, limit {shown}"
    if measured["locked"]:
        return Finding(f"{text}: locked")
    return Finding(
        f"{text}: refused, so that a page may be swapped out while it is played",
        _limits_advice("@audio - memlock unlimited"),
    )


def disk(free_bytes: int) -> Finding:
    """Room for recordings in the present folder."""
    minutes = free_bytes / _RECORDED_BYTES_PER_S / 60
    length = f"{minutes / 60:.0f} h" if minutes >= 120 else f"{minutes:.0f} min"
    text = f"{free_bytes / 1e9:.1f} GB free in {Path.cwd()}: {length} of dry and wet in mono"
    return Finding(text, "make room, or record to another disk" if minutes < 30 else "")


# --- timing ---


def _measured(seconds: float) -> dict[str, Any]:
    from rtgan import warm

    warm.announce()
    return _asked(f"measure({seconds!r})", 2 * seconds + 180)


def measure(seconds: float) -> dict[str, Any]:
    """Play the default preset on the default device, then at a device's pace without one [own process].

    Returns
    -------
    dict
        ``preset``; ``arena_bytes`` and ``locked``; ``device`` (or ``device_problem``) and, by block size,
        ``paced``: see `_on_device` and `_paced`. Only ``problem`` if nothing can be played.
    """
    from rtgan import offline, presets
    from rtgan.engine import Engine
    from rtgan.io import devices
    from rtgan.memory import Arena

    refused: list[str] = []
    preset = None
    for name in _PRESETS:
        try:
            preset = presets.load(name)
            graphs = [offline.build(preset, 48000, 1024, 1) for _ in range(2)]
            break
        except RtganError as problem:
            preset = None
            refused.append(f"{name}: {problem}")
    if preset is None:
        return {"problem": refused[0]}
    arenas: list[Arena] = [Engine(48000, tape_frames=1 << 19).arena, *(g.arena for g in graphs)]
    answer: dict[str, Any] = {
        "preset": name,
        "refused": refused,
        "arena_bytes": sum(a.size_bytes for a in arenas),
        "locked": all(a.locked for a in arenas),
    }
    try:
        known = devices.devices()
        if any(d.inputs for d in known) and any(d.outputs for d in known):
            answer["device"] = _on_device(preset, seconds)
    except RtganError as problem:
        answer["device_problem"] = str(problem)
    answer["paced"] = {}

    def paced() -> None:
        answer["real_time"] = _become_real_time()
        for block in BLOCKS:
            answer["paced"][str(block)] = _paced(preset, block, seconds / len(BLOCKS))

    thread = threading.Thread(target=paced)
    thread.start()
    thread.join()
    return answer


def _spread(values: Any) -> dict[str, float]:
    import numpy as np

    p50, p99_9 = np.percentile(values, [50, 99.9])
    return {"p50": float(p50), "p99.9": float(p99_9), "max": float(np.max(values))}


def _on_device(preset: Any, seconds: float) -> dict[str, Any]:
    """Callback load, in percent of the period, and xruns on the default device; nothing is heard."""
    import numpy as np

    from rtgan import events
    from rtgan.engine import TickRate
    from rtgan.events import Record
    from rtgan.host import Host

    host = Host(preset)
    rate = TickRate()
    room = 1 << int(seconds * host.sample_rate_hz / 16).bit_length()
    ticks = host.engine.trace(room)
    # All of the work and none of the sound: a microphone beside loudspeakers would howl.
    host.engine.send(Record(events.FADE_OUT, 0))
    with host:
        if not host.wait_first_block():
            raise RtganError("the device never called back")
        time.sleep(_SETTLE_S)
        first = host.engine.counters
        time.sleep(seconds)
        last = host.engine.counters
    callbacks = last.callbacks - first.callbacks
    if callbacks == 0:
        raise RtganError("the device stopped calling back")
    block = (last.position_samples - first.position_samples) / callbacks
    which = np.arange(max(first.callbacks, last.callbacks - room), last.callbacks) & (room - 1)
    spent = ticks[which] / rate.per_second() / (block / host.sample_rate_hz)
    assert host.input is not None and host.output is not None
    return {
        "input": host.input.name,
        "output": host.output.name,
        "api": host.output.api,
        "block": block,
        "load": _spread(100 * spent),
        "callbacks": callbacks,
        "xruns": last.xruns - first.xruns,
    }


def _paced(preset: Any, block: int, seconds: float) -> dict[str, Any]:
    """The engine called at the pace of a sound card: one preset at first, then two at once as in a change.

    Returns
    -------
    dict
        ``load`` and ``load_both`` in percent of the period, ``late_ms`` by which the thread was woken late,
        ``blocks``, and how many of them were ``missed`` (not finished when the next was due), of these
        ``missed_alone`` although the callback itself took less than the period.
    """
    import numpy as np

    from rtgan import demo, events, offline
    from rtgan.engine import Engine, TickRate

    rate_hz = 48000
    engine = Engine(rate_hz)
    graphs = [offline.build(preset, rate_hz, engine.max_block, 1) for _ in range(2)]
    engine.publish(graphs[0])
    tick_rate = TickRate()
    period = block / rate_hz
    count = max(8, round(seconds / period))
    ticks = engine.trace(1 << count.bit_length())
    sound = demo.recording()[0]
    pieces = np.ascontiguousarray(sound[: len(sound) // block * block].reshape(-1, block, 1))
    out = np.empty((block, 1), np.float32)
    finished, both = np.zeros(count), np.zeros(count, bool)
    late = np.zeros(count)
    playing, changing = 0, False
    due = time.perf_counter() + period
    for k in range(count):
        if 2 * k >= count and not changing:
            playing = 1 - playing
            engine.publish(graphs[playing])
            changing = True
        both[k] = changing
        wait = due - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        late[k] = time.perf_counter() - due
        engine.render(pieces[k % len(pieces)], out)
        finished[k] = time.perf_counter() - due
        changing = changing and not any(r.kind == events.SWAP_DONE and r.a for r in engine.poll())
        due += period * max(1, int(finished[k] / period + 1))
    spent = ticks[:count] / tick_rate.per_second() / period
    missed = finished > period
    return {
        "load": _spread(100 * spent[~both]),
        "load_both": _spread(100 * spent[both]),
        "late_ms": _spread(1000 * np.maximum(late, 0.0)),
        "blocks": count,
        "missed": int(missed.sum()),
        "missed_alone": int((missed & (spent <= 1.0)).sum()),
    }


def _figures(spread: Mapping[str, float]) -> str:
    return f"{spread['p50']:.1f} / {spread['p99.9']:.1f} / {spread['max']:.1f}"


def holds(paced: Mapping[str, Any]) -> bool:
    """Whether every block was finished before the next one was due, also while two presets played at once."""
    return bool(paced["missed"] == 0)


def timing_findings(measured: Mapping[str, Any]) -> list[Finding]:
    """What `measure` found."""
    if "problem" in measured:
        return [Finding(f"nothing can be played: {measured['problem']}", "reinstall rtgan", prevents=True)]
    found = [Finding(f"measured with the preset {measured['preset']}; figures are p50 / p99.9 / worst")]
    found += [Finding(f"not with {reason}") for reason in measured["refused"]]
    if "device_problem" in measured:
        change = "close the program that uses the device, or choose another with --input and --output"
        found.append(Finding(f"the default device: {measured['device_problem']}", change, prevents=True))
    if "device" in measured:
        found.append(_device_finding(measured["device"]))
    held = [b for b in BLOCKS if holds(measured["paced"][str(b)])]
    for block in BLOCKS:
        paced = measured["paced"][str(block)]
        text = (
            f"blocks of {block} ({block / 48:.2f} ms): callback {_figures(paced['load'])} % of the period, "
            f"{_figures(paced['load_both'])} % with two presets at once; woken {_figures(paced['late_ms'])} ms late: "
        )
        if block in held:
            found.append(Finding(text + "holds, also while a preset changes"))
            continue
        larger = [b for b in held if b > block]
        advice = f"use --block {larger[0]}" if larger else "use a larger --block"
        count = f"{paced['missed']} of {paced['blocks']} blocks"
        if paced["missed"] == paced["missed_alone"]:
            text += f"does not hold, {count} came late though the callback was quick: this thread was held up"
            advice = f"close other programs (in a virtual machine: those beside it), or {advice}"
        else:
            text += f"does not hold, {count} came late"
        if measured.get("real_time") is False:
            advice += "; get real-time priority, see above"
        found.append(Finding(text, advice))
    return found


def _device_finding(device: Mapping[str, Any]) -> Finding:
    text = (
        f"{device['input']} to {device['output']} [{device['api']}], blocks of {device['block']:.0f}: callback "
        f"{_figures(device['load'])} % of the period, {device['xruns']} xruns in {device['callbacks']} blocks"
    )
    if not device["xruns"]:
        return Finding(text)
    larger = "a JACK server with a larger period (jackd ... -p)" if "JACK" in device["api"] else "a larger --block"
    return Finding(text, f"{larger} makes room; close other programs")
