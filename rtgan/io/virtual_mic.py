"""A microphone that other programs can choose, fed by this one.

On Linux it is made: a sink that the sound is played into and a source that gives it to others, two modules of
PipeWire's or PulseAudio's, which speak one protocol. They go when this process goes, however it ends: a helper waits
for the end of a pipe and unloads them. What is left all the same (a helper that was killed too) is cleared away by
the next one. Elsewhere a virtual cable must be installed, and is found by its name.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from types import TracebackType

from rtgan.errors import RtganError, UsageError
from rtgan.io import devices as io_devices
from rtgan.io.devices import Device

#: Its name unless somebody gives it another.
DEFAULT_NAME = "rtgan microphone"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,39}")
_OWNER = re.compile(r"rtgan\.owner=(\d+)\.(\d+)")
_PACTL_S = 5.0
_RATE_HZ = 48000
_APPEARS_S = 3.0
#: Virtual cables by system: what we play to and others record from, by parts of their names; and what to install.
CABLES = {
    "darwin": (
        (("BlackHole", "BlackHole"), ("Loopback Audio", "Loopback Audio")),
        "install BlackHole (brew install blackhole-2ch) and start rtgan again",
    ),
    "win32": (
        (("CABLE Input", "CABLE Output"), ("VoiceMeeter Input", "VoiceMeeter Output")),
        "install VB-CABLE (https://vb-audio.com/Cable) and start rtgan again",
    ),
}


def _pactl(*arguments: str) -> str:
    """What ``pactl`` answers; `RtganError` if it does not."""
    if shutil.which("pactl") is None:
        raise RtganError(
            "a virtual microphone needs the program pactl; on Debian or Ubuntu: apt-get install pulseaudio-utils"
        )
    try:
        done = subprocess.run(["pactl", *arguments], capture_output=True, text=True, timeout=_PACTL_S)
    except subprocess.TimeoutExpired:
        raise RtganError("PipeWire or PulseAudio does not answer") from None
    if done.returncode:
        raise RtganError(f"PipeWire or PulseAudio refuses 'pactl {arguments[0]}': {done.stderr.strip()}")
    return done.stdout


def _birth(process: int) -> int | None:
    """When a process was started, in ticks since the system was; None if there is none. A number may come again."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8") as stat:
            return int(stat.read().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def clear_leftovers() -> int:
    """Unload what processes that are no more have left behind; how many modules that were [Linux]."""
    count = 0
    for line in reversed(_pactl("list", "short", "modules").splitlines()):
        number, _, rest = line.partition("\t")
        owner = _OWNER.search(rest)
        if owner is not None and _birth(int(owner[1])) != int(owner[2]):
            _pactl("unload-module", number)
            count += 1
    return count


class VirtualMic:
    """A virtual microphone, from making it to taking it away [one thread].

    Parameters
    ----------
    name : str
        What other programs list: letters, digits, spaces, dots, dashes, at most 40. On macOS and Windows part of the
        name of the cable to use, or `DEFAULT_NAME` for any.
    sample_rate_hz : int, optional
        Default: what the way to it has, or 48000.

    Attributes
    ----------
    output : Device
        Where the host has to play to.
    rate_hz : int or None
        The rate to play at; None leaves it to the device.
    announcement : str
        What to tell the person.
    """

    def __init__(self, name: str = DEFAULT_NAME, sample_rate_hz: int | None = None) -> None:
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"the virtual microphone cannot be called '{name}'; allowed are up to 40 letters, digits, spaces, dots "
                "and dashes, a letter or digit first"
            )
        self.name = name
        self.rate_hz = sample_rate_hz
        self._marks: tuple[str, ...] = ()
        self._helper: subprocess.Popen[bytes] | None = None
        self._environment: dict[str, str | None] = {}
        if sys.platform == "linux":
            slug = re.sub(r"\W+", "_", name).strip("_").lower()
            self._sink, self._source = f"{slug}_feed", slug
            self._make()
        else:
            self.output, self._marks = find_cable(io_devices.devices(), sys.platform, name)
            self.announcement = f"virtual microphone: choose '{self._marks[1]}' in the other program"

    def _make(self) -> None:
        clear_leftovers()
        for line in _pactl("list", "short", "sources").splitlines():
            if self._source in line.split("\t")[1:2]:
                raise RtganError(f"there is a microphone '{self.name}' already; give --virtual-mic another name")
        before = {kind: _pactl(f"get-default-{kind}").strip() for kind in ("sink", "source")}
        owner = f"rtgan.owner={os.getpid()}.{_birth(os.getpid())}"
        feed = f"{self.name} feed"
        modules: list[str] = []
        try:
            modules.append(_pactl(
                "load-module", "module-null-sink", f"sink_name={self._sink}", "channels=1",
                f"rate={self.rate_hz or _RATE_HZ}",
                f"sink_properties='device.description=\"{feed}\" priority.session=1 {owner}'",
            ).strip())  # fmt: skip
            modules.append(_pactl(
                "load-module", "module-remap-source", f"master={self._sink}.monitor", f"source_name={self._source}",
                "channels=1", "remix=no",
                f"source_properties='device.description=\"{self.name}\" priority.session=1 {owner}'",
            ).strip())  # fmt: skip
        finally:
            if modules:
                self._guard(modules)
        try:
            self._keep_defaults(before)
            self._marks = (self._sink, self._source, feed, self.name)
            self._reach(before["source"])
        except BaseException:
            self.close()
            raise
        self.announcement = f"virtual microphone: choose '{self.name}' in the other program"

    def _guard(self, modules: Sequence[str]) -> None:
        """Let a helper unload the modules when this process ends, or closes the pipe."""
        unload = "; ".join(f"pactl unload-module {number}" for number in reversed(modules))
        self._helper = subprocess.Popen(
            ["sh", "-c", f"cat; {unload}"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def _keep_defaults(self, before: dict[str, str]) -> None:
        """Nobody's default changes because of this: with no other device a server takes the new one."""
        for kind, name in before.items():
            now = _pactl(f"get-default-{kind}").strip()
            if name and now != name and now.split(".")[0] in (self._sink, self._source):
                _pactl(f"set-default-{kind}", name)

    def _reach(self, source: str) -> None:
        """Find the way that PortAudio has to the sink: as a device of JACK's on PipeWire, or through ALSA."""
        deadline = time.monotonic() + _APPEARS_S
        while True:
            io_devices.refresh()
            known = io_devices.devices()
            jack = [d for d in known if "JACK" in d.api]
            found = [d for d in jack if d.outputs and d.name in (self._sink, f"{self.name} feed")]
            if found or not jack or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        if not found:
            # This plugin of ALSA's asks the environment; recording keeps to the microphone that was the default.
            found = [d for d in known if d.outputs and d.name == "pulse"]
            self._set("PULSE_SINK", self._sink)
            self.rate_hz = self.rate_hz or _RATE_HZ  # the plugin offers 44.1 kHz and converts
            if source and "PULSE_SOURCE" not in os.environ:
                self._set("PULSE_SOURCE", source)
        if not found:
            raise RtganError(
                "PortAudio has no way to the virtual microphone; start rtgan with pw-jack, or on Debian or Ubuntu: "
                "apt-get install libasound2-plugins"
            )
        self.output = found[0]

    def _set(self, name: str, value: str) -> None:
        self._environment[name] = os.environ.get(name)
        os.environ[name] = value

    def owns(self, device: Device) -> bool:
        """Whether a device is this microphone, or what feeds it: it cannot be its own input."""
        return any(mark.lower() in device.name.lower() for mark in self._marks)

    def input(self, spec: str | int | None) -> Device | None:
        """The input that a person means; never this microphone.

        Raises
        ------
        UsageError
            If that is what was asked for.
        """
        known = io_devices.devices()
        if spec is None:
            return io_devices.choose(None, "input", [d for d in known if not self.owns(d)])
        chosen = io_devices.choose(spec, "input", known)
        if chosen is not None and self.owns(chosen):
            raise UsageError(f"the virtual microphone '{self.name}' cannot be its own input; choose another --input")
        return chosen

    def close(self) -> None:
        """Take it away."""
        for name, value in self._environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._environment = {}
        helper, self._helper = self._helper, None
        if helper is not None and helper.stdin is not None:
            helper.stdin.close()
            try:
                helper.wait(2 * _PACTL_S)
            except subprocess.TimeoutExpired:
                pass  # a server that hangs; the helper goes on waiting for it, we do not

    def __enter__(self) -> VirtualMic:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def find_cable(known: Sequence[Device], platform: str, name: str = DEFAULT_NAME) -> tuple[Device, tuple[str, str]]:
    """The virtual cable that is installed: its end for us, and what the two ends are called.

    Raises
    ------
    RtganError
        If there is none, with what to install.
    """
    cables, advice = CABLES.get(platform, ((), "use one of Linux, macOS and Windows"))
    for ours, theirs in cables:
        for device in known:
            if (
                ours.lower() in device.name.lower()
                and device.outputs
                and name.lower() in (DEFAULT_NAME, device.name.lower())
            ):
                other = next((d.name for d in known if theirs.lower() in d.name.lower() and d.inputs), theirs)
                return device, (device.name, other)
    wanted = "no virtual cable" if name == DEFAULT_NAME else f"no virtual cable '{name}'"
    raise RtganError(f"this machine has {wanted}: {advice}")
