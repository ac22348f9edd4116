"""A real PipeWire with its session manager and its PulseAudio server, private to a test."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: What must be installed.
PROGRAMS = ("pipewire", "wireplumber", "pipewire-pulse", "pw-jack", "pw-record", "pactl", "parecord", "dbus-daemon")


class PipeWire:
    """Servers in a runtime folder of their own, without hardware."""

    def __init__(self, folder: Path, quantum: int = 512) -> None:
        runtime = folder / "run"
        runtime.mkdir(mode=0o700)
        settings = folder / "config" / "pipewire" / "pipewire.conf.d"
        settings.mkdir(parents=True)
        clock = " ".join(f"default.clock.{k} = {quantum}" for k in ("quantum", "min-quantum", "max-quantum"))
        (settings / "clock.conf").write_text(f"context.properties = {{ default.clock.rate = 48000 {clock} }}\n")
        self.env = {
            **os.environ,
            "XDG_RUNTIME_DIR": str(runtime),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_STATE_HOME": str(folder / "state"),
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus",
        }
        for name in ("PULSE_SERVER", "PULSE_SINK", "PULSE_SOURCE", "PIPEWIRE_REMOTE"):
            self.env.pop(name, None)
        self._processes: list[subprocess.Popen[Any]] = []
        self._log = (folder / "servers.log").open("w")
        try:
            self._start("dbus-daemon", "--session", f"--address={self.env['DBUS_SESSION_BUS_ADDRESS']}", "--nofork")
            self.until(lambda: (runtime / "bus").exists())
            self._start("pipewire")
            self.until(lambda: (runtime / "pipewire-0").exists())
            self._start("wireplumber")
            self._start("pipewire-pulse")
            self.until(lambda: self.pactl("info", check=False) != "")
        except Exception:
            # Nobody else could end what did start.
            self.close()
            raise

    def _start(self, *command: str) -> None:
        self._processes.append(subprocess.Popen(command, env=self.env, stdout=self._log, stderr=self._log))

    @staticmethod
    def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError("PipeWire does not come to what the test waits for")
            time.sleep(0.05)

    def pactl(self, *arguments: str, check: bool = True) -> str:
        done = self._asked(*arguments)
        if check and done.returncode:
            raise RuntimeError(f"pactl {arguments}: {done.stderr}")
        return done.stdout if done.returncode == 0 else ""

    def _asked(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["pactl", *arguments], env=self.env, capture_output=True, text=True, timeout=20)

    def choose(self, *arguments: str) -> None:
        """Set a default, which the session manager does not take from the first moment on."""
        self.until(lambda: self._asked(*arguments).returncode == 0)

    def names(self, kind: str) -> list[str]:
        """Names of the sinks or sources."""
        return [line.split("\t")[1] for line in self.pactl("list", "short", kind).splitlines()]

    def close(self) -> None:
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._log.close()
