"""A device for machines without one: plays samples through the engine's callback at the pace of a sound card."""

from __future__ import annotations

import threading
import time

import numpy as np
from numpy.typing import NDArray

from rtgan.engine import Engine


class ClockedStream:
    """Feeds frames to an engine in real time and keeps what comes out.

    Parameters
    ----------
    engine : Engine
    frames : ndarray of float32, (frames, device_in)
        What the microphone hears; silence follows it.
    block : int
        Frames per callback.
    """

    jack = False
    ring_ms = 0.0
    slips = 0

    def __init__(self, engine: Engine, frames: NDArray[np.float32], block: int) -> None:
        self._engine = engine
        self._frames = frames
        self._block = block
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rtgan-clocked-device", daemon=True)
        self.output: list[NDArray[np.float32]] = []
        self.finished = threading.Event()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self, last: bool = False) -> bool:
        """Stop; whether another stream is wanted makes no difference."""
        self._halt.set()
        if self._thread.is_alive():
            self._thread.join()
        return True

    @property
    def active(self) -> bool:
        """Whether it runs."""
        return self._thread.is_alive()

    def latency_ms(self) -> tuple[float, float] | None:
        """One block in, none out."""
        return self._block / self._engine.sample_rate_hz * 1000, 0.0

    def _run(self) -> None:
        rate = self._engine.sample_rate_hz
        begin = time.perf_counter()
        done = 0
        while not self._halt.is_set():
            piece = self._frames[done : done + self._block]
            if len(piece) < self._block:
                self.finished.set()
                piece = np.pad(piece, ((0, self._block - len(piece)), (0, 0)))
            self.output.append(self._engine.render(np.ascontiguousarray(piece)))
            done += self._block
            wait = begin + done / rate - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
