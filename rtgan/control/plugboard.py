"""Which devices a host plays on, and its virtual microphone, changed while it plays.

PortAudio makes its list of devices once, so what has come since is asked of a process of its own; the devices
themselves are looked up anew while none is open. The same goes for what `rtgan doctor` finds.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from rtgan.errors import RtganError
from rtgan.host import Ends, Host
from rtgan.io import devices as io_devices
from rtgan.io.devices import Device
from rtgan.io.virtual_mic import DEFAULT_NAME, VirtualMic

_LOOK_S = 20.0
_EXAMINE_S = 90.0
#: PortAudio's own clients on a JACK server: this host, and whoever looks.
_OURSELVES = re.compile(r"PortAudio(-\d+)? \[.*JACK.*\]")


class Plugboard:
    """The devices of a host [one thread at a time].

    Parameters
    ----------
    host : Host
    mic : VirtualMic, optional
        The one that it plays into already.

    Attributes
    ----------
    known : list of Device
        What there was when somebody looked last.
    findings : mapping
        What ``rtgan doctor`` found when somebody examined the machine last: ``groups`` and ``verdict``.
    """

    def __init__(self, host: Host, mic: VirtualMic | None = None) -> None:
        self._host = host
        self._mic = mic
        self._before_mic = ""
        self.known: list[Device] = []
        self.findings: dict[str, Any] = {}

    @property
    def mic(self) -> str:
        """Name of the virtual microphone; empty if there is none."""
        return self._mic.name if self._mic is not None else ""

    @property
    def fixed(self) -> str:
        """Why there is nothing to choose, or empty."""
        return "" if self._host.input is not None else "The built-in recording plays; there is no device to change."

    def names(self, kind: str) -> list[str]:
        """What can be chosen as ``input`` or ``output``; what is in use always can."""
        used = getattr(self._host, kind)
        found = [d.full_name for d in self.known if (d.inputs if kind == "input" else d.outputs)]
        found = [name for name in found if not _OURSELVES.fullmatch(name)]
        if used is not None and used.full_name not in found:
            found.insert(0, used.full_name)
        return list(dict.fromkeys(found))

    def look(self) -> None:
        """See what devices there are now."""
        self.known = [Device(**fields) for fields in _ask("devices", "--json", timeout_s=_LOOK_S)]

    def examine(self) -> None:
        """Let ``rtgan doctor`` look at this machine; its measurement of time, which plays itself, is left out."""
        self.findings = _ask("doctor", "--json", "--seconds", "0", timeout_s=_EXAMINE_S)

    def open(self, input: str = "", output: str = "", rate_hz: int = 0, block: int = -1) -> None:
        """Play on other devices; what is empty, 0 or -1 stays.

        Raises
        ------
        RtganError
            Why that cannot be done; everything is as it was then.
        """
        host = self._host

        def find() -> Ends:
            wanted = (input or _name(host.input), output or _name(host.output))
            # On a server every look is a client that leaves and one that comes: only where somebody new is meant.
            known = io_devices.devices()
            if not set(wanted) <= {device.full_name for device in known}:
                known = _anew()
            chosen_in, chosen_out = _pick(wanted[0], "input", known), _pick(wanted[1], "output", known)
            if self._mic is not None and self._mic.owns(chosen_in):
                raise RtganError(f"the virtual microphone '{self._mic.name}' cannot be its own input")
            return Ends(chosen_in, chosen_out, rate_hz or host.sample_rate_hz, host.block if block < 0 else block)

        host.reopen(find)
        if self._mic is not None and host.output is not None and not self._plays_into(self._mic, host.output):
            self.close()

    def virtual_mic(self, on: bool, name: str = DEFAULT_NAME) -> None:
        """Play into a microphone that other programs can choose, or on the output there was before.

        Raises
        ------
        RtganError
            Why that cannot be done; everything is as it was then.
        """
        if on == (self._mic is not None):
            return
        host = self._host
        if not on:
            mic = self._mic
            assert mic is not None

            def back() -> Ends:
                known = [d for d in _anew() if not mic.owns(d)]
                chosen = _pick(self._before_mic, "output", known)
                return Ends(_pick(_name(host.input), "input", known), chosen, host.sample_rate_hz, host.block)

            host.reopen(back)
            self.close()
            return
        made: list[VirtualMic] = []
        before = _name(host.output)

        def into_it() -> Ends:
            mic = VirtualMic(name, host.sample_rate_hz)
            made.append(mic)
            chosen = mic.input(_name(host.input))
            assert chosen is not None
            return Ends(chosen, mic.output, mic.rate_hz or host.sample_rate_hz, host.block)

        def abandon() -> None:
            for mic in made:
                mic.close()

        host.reopen(into_it, abandon)
        self._mic, self._before_mic = made[0], before

    def _plays_into(self, mic: VirtualMic, output: Device) -> bool:
        return mic.owns(output) or output.plug == mic.output.plug

    def close(self) -> None:
        """Take the virtual microphone away; nobody plays into it any more."""
        mic, self._mic = self._mic, None
        if mic is not None:
            mic.close()


def _anew() -> list[Device]:
    io_devices.refresh()
    return io_devices.devices()


def _name(device: Device | None) -> str:
    return device.full_name if device is not None else ""


def _pick(name: str, kind: str, known: Sequence[Device]) -> Device:
    found = io_devices.choose(name or None, kind, known)
    if found is None:
        raise RtganError(f"this machine has no audio {kind} device")
    return found


def _ask(*arguments: str, timeout_s: float) -> Any:
    """What ``rtgan`` answers in a process of its own, where a backend that crashes or hangs harms nobody."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "JACK_NO_START_SERVER": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "rtgan", *arguments],
            env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s,
        )  # fmt: skip
        return json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        raise RtganError(f"`rtgan {arguments[0]}` has not come to an end within {timeout_s:g} s") from None
    except (ValueError, IndexError):
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise RtganError(f"`rtgan {arguments[0]}` failed: {reason}") from None
