"""What tests share that is no fixture: sounds, and a real JACK server."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent


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
        subprocess.run(["jack_wait", "-s", self.name, "-w", "-t", "10"], env=self.env, check=True, capture_output=True)

    def ports(self) -> list[str]:
        out = subprocess.run(["jack_lsp"], env=self.env, capture_output=True, text=True)
        return out.stdout.split()

    def wait_port(self, name: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while name not in self.ports():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the port {name} never appeared; there are {self.ports()}")
            time.sleep(0.05)

    def connect(self, source: str, target: str) -> None:
        subprocess.run(["jack_connect", source, target], env=self.env, check=True, capture_output=True)

    def transport(self, command: str) -> None:
        subprocess.run(["jack_transport"], input=f"{command}\nquit\n", text=True, env=self.env, capture_output=True)

    def hang(self) -> None:
        """Stop answering, as a server in trouble does, without an end."""
        self._process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        self._process.terminate()
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            # One that is killed keeps its place among the eight that a machine has for servers, until another of its
            # name comes and goes.
            self._process.kill()
            self._process.wait()
            self.start()
            self._process.terminate()
            self._process.wait()
