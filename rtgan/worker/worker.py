"""A worker as its host sees it: started, watched, started again, ended."""

from __future__ import annotations

import ctypes
import os
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtgan.errors import RtganError
from rtgan.memory import Arena, address_of, shared
from rtgan.worker import node, nursery
from rtgan.worker.layout import BUSY, LOAD, PATIENT, SEMAPHORE, Layout
from rtgan.worker.spec import Spec

#: How long a model may take to load and warm up, and to answer one block.
START_S = 120.0
HANG_S = 5.0
_LOOK_S = 0.1
_AGAIN_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
#: A worker that has lived for so long has not failed again.
_STEADY_S = 60.0


class Worker:
    """A model in a process of its own, and the node that plays it [main].

    Parameters
    ----------
    spec : Spec
    choices : dict
        Plain fields of `rtgan.worker.dialects.Choices`.
    arena : Arena
        For the node.
    stride_samples, margin_samples : int
    params : sequence of int
        Addresses of the parameters, in the order of the model's knobs.
    late_is : str
        What is heard where an answer is missing, one of `rtgan.worker.node.FALLBACKS`.

    Raises
    ------
    RtganError
        If the model cannot be played.
    """

    def __init__(
        self, spec: Spec, choices: dict[str, Any], arena: Arena, stride_samples: int, margin_samples: int,
        params: Sequence[int], late_is: str = "dry",
    ) -> None:  # fmt: skip
        layout = Layout(
            choices["channels"], choices["block"], len(params), node.slots_for(choices["block"], margin_samples)
        )
        fd, words = shared(layout.size_bytes)
        found = node.semaphore_functions()
        if found is not None and found[0].sem_init(ctypes.c_void_p(address_of(words) + 8 * SEMAPHORE), 1, 0) != 0:
            found = None
        self.node = node.build(
            arena, layout, address_of(words), stride_samples, margin_samples, params, late_is, choices["rate_hz"],
            found[1] if found else 0,
        )  # fmt: skip
        job = {"do": "play", "spec": spec.plain(), "choices": choices, "layout": asdict(layout)}
        self._life = _Life(job, fd, words, self.node, spec.path)
        self._life.begin()
        weakref.finalize(self, self._life.close)

    def wait(self) -> None:
        """Let the node wait for every answer: a sound file has the time. Before it plays."""
        self._life.words[PATIENT] = 1
        self.node.wait()

    @property
    def pid(self) -> int:
        """Its process; another one after it was started again."""
        return self._life.child.pid

    @property
    def restarts(self) -> int:
        """How often it had to be started again."""
        return self._life.restarts

    @property
    def load(self) -> float:
        """Time its last block took over the time a block lasts."""
        return float(self._life.words.view(np.float64)[LOAD])

    def problems(self) -> list[str]:
        """What went wrong so far, a sentence each; offline the last one ends the render."""
        return self._life.problems()

    @property
    def readings(self) -> dict[str, int]:
        """Addresses of what others may read while it plays."""
        return {**self.node.readings, "load": address_of(self._life.words) + 8 * LOAD}


class _Life:
    """What outlives a `Worker` that nobody holds any more, for as long as it takes to end its process."""

    def __init__(self, job: dict[str, Any], fd: int, words: NDArray[np.int64], side: node.Side, path: str) -> None:
        self.job, self.fd, self.words, self.side, self.path = job, fd, words, side, path
        self.restarts = 0
        self.warnings: list[str] = []
        self.ended = threading.Event()
        self.child: nursery.Child

    def begin(self) -> None:
        try:
            self.child = self._start()
        except BaseException:
            os.close(self.fd)
            raise
        threading.Thread(target=self._watch, name="rtgan-worker", daemon=True).start()

    def _start(self) -> nursery.Child:
        child = nursery.spawn(self.job, self.fd)
        until = time.monotonic() + START_S
        try:
            while time.monotonic() < until and not self.ended.is_set():
                message = child.receive(_LOOK_S)
                if message is None:
                    continue
                if "problem" in message:
                    raise RtganError(message["problem"])
                if "ready" in message:
                    return child
            raise RtganError(f"the model {self.path} was not ready within {START_S:.0f} s")
        except nursery.Gone as gone:
            child.kill()
            raise RtganError(f"the model {self.path} cannot be played: {gone}") from None
        except BaseException:
            child.kill()
            raise

    def _watch(self) -> None:
        """Hear what the worker says, see that it works, start it again when it does not."""
        try:
            self._mind()
        finally:
            self.child.kill()
            os.close(self.fd)

    def _mind(self) -> None:
        since, failures = time.monotonic(), 0
        stuck: tuple[int, float] = (0, since)
        while not self.ended.is_set():
            why = ""
            try:
                message = self.child.receive(_LOOK_S)
                if message and "warning" in message:
                    self._warn(f"{self.path}: {message['warning']}")
                busy = int(self.words[BUSY])
                now = time.monotonic()
                if busy == 0 or busy != stuck[0]:
                    stuck = (busy, now)
                elif now - stuck[1] > HANG_S:
                    why = f"did not answer for {HANG_S:g} s"
            except nursery.Gone:
                why = "died"
            if not why or self.ended.is_set():
                continue
            self.child.kill()  # it may only hang
            self.words[BUSY] = 0
            if self.words[PATIENT]:
                self._warn(f"the worker of {self.path} {why}")
                self.side.give_up()
                return
            failures = 0 if time.monotonic() - since > _STEADY_S else failures
            if not self.ended.wait(_AGAIN_S[min(failures, len(_AGAIN_S) - 1)]):
                failures += 1
                self.restarts += 1
                self._warn(f"the worker of {self.path} {why} and was started again")
                try:
                    self.child = self._start()
                except (RtganError, OSError) as problem:
                    self._warn(str(problem))
                since = time.monotonic()
                stuck = (0, since)

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings = [*self.warnings, text][-20:]

    def problems(self) -> list[str]:
        found, instead = list(self.warnings), node.FALLBACKS[self.side.late_is]
        if self.side.late:
            found.append(f"{self.path} did not answer in time, and {instead} was heard instead: give it more margin")
        if self.side.bad:
            found.append(f"{self.path} gave what is no sound (too loud, no number), and {instead} was heard instead")
        return found

    def close(self) -> None:
        self.ended.set()
