"""What tests share that is no fixture: sounds, and a real JACK server."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtgan.bench.jack import sweep

ROOT = Path(__file__).resolve().parent.parent
#: What a client of a server may take that asks something and goes.
PATIENCE_S = 30.0


def speechlike(seconds: float, rate: int = 48000, seed: int = 0) -> NDArray[np.float32]:
    """A deterministic sound with syllables, harmonics and noise; mono, float32."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    pitch = 140 + 30 * np.sin(2 * np.pi * 1.3 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    voice = sum(np.sin(k * phase) / k for k in range(1, 20))
    envelope = np.clip(np.sin(2 * np.pi * 2.1 * t), 0, 1) ** 0.5
    return (0.15 * envelope * voice + 0.01 * rng.standard_normal(len(t))).astype(np.float32)


class Jack:
    """A private JACK server with a dummy driver.

    With ``wait`` it lets a late client finish instead of going on without it, so that a machine that stalls
    loses no block.
    """

    def __init__(
        self, period: int, rate: int = 48000, wait: bool = False, playback: int = 2, realtime: bool = True
    ) -> None:
        self.name = f"rtgan-test-{os.getpid()}-{time.monotonic_ns()}"
        self.env = {
            **os.environ,
            "JACK_DEFAULT_SERVER": self.name,
            "JACK_NO_AUDIO_RESERVATION": "1",
        }
        self.period, self.rate, self.wait, self.playback, self.realtime = period, rate, wait, playback, realtime
        self.start()

    def start(self) -> None:
        """Begin, or begin again under the same name."""
        realtime = ["-R", "-P", "70"] if os.geteuid() == 0 and self.realtime else ["-r"]
        self._process = subprocess.Popen(
            ["jackd", "-n", self.name, *realtime, "--timeout", "5000", *(["-S"] if self.wait else []), "-d", "dummy",
             "-r", str(self.rate), "-p", str(self.period), "-P", str(self.playback)],
            env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            self._ask("jack_wait", "-s", self.name, "-w", "-t", "10", check=True)
        except BaseException:
            self._kill()
            raise

    def _ask(self, *command: str, input: str | None = None, check: bool = False) -> str:
        """What a client says that comes and goes; a server that hangs lets none go, and that is a failure."""
        done = subprocess.run(
            command, input=input, env=self.env, capture_output=True, text=True, check=check, timeout=PATIENCE_S
        )
        return done.stdout

    def ports(self) -> list[str]:
        return self._ask("jack_lsp").split()

    def wait_port(self, name: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while name not in self.ports():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the port {name} never appeared; there are {self.ports()}")
            time.sleep(0.05)

    def connect(self, source: str, target: str) -> None:
        self._ask("jack_connect", source, target, check=True)

    def transport(self, command: str) -> None:
        self._ask("jack_transport", input=f"{command}\nquit\n")

    def hang(self) -> None:
        """Stop answering, as a server in trouble does, without an end."""
        self._process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        if not self._ends():
            # One that is killed keeps its place among the eight that a machine has for servers, until another of its
            # name comes and goes.
            self._kill()
            self.start()
            if not self._ends():
                self._kill()
        sweep(self.name)

    def _ends(self) -> bool:
        """Whether it ends when it is told to."""
        self._process.terminate()
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def end_clients(self) -> None:
        """End whoever still plays here: what a test that failed has left behind."""
        mark = f"JACK_DEFAULT_SERVER={self.name}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            number = int(folder.name)
            if number in (os.getpid(), self._process.pid):
                continue
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    os.kill(number, signal.SIGKILL)
            except OSError:
                continue  # gone meanwhile, or another user's
