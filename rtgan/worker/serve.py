"""What a forked child does: look at a model, measure it, or play it for a node. Ends with its connection."""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import os
import socket
import sys
import threading
import time
from typing import Any

import numpy as np
import torch

from rtgan.errors import RtganError
from rtgan.generators.compile import compile
from rtgan.generators.program import Program
from rtgan.kernels.native import flush_denormals, kernel, load_acquire, store_release
from rtgan.worker import dialects, lowering
from rtgan.worker.dialects import Choices, NetPlayer, Player
from rtgan.worker.frames import FramePlayer
from rtgan.worker.layout import (
    ANSWERED,
    BUSY,
    FAILED,
    GOOD,
    LOAD,
    NEEDED,
    NOT_FINITE,
    PATIENT,
    SEMAPHORE,
    STATUS_BITS,
    TOO_LOUD,
    WRITTEN,
    Layout,
)
from rtgan.worker.spec import Spec

#: An answer louder than this, 18 dB above full scale, is taken for an accident.
LOUDEST = 8.0
_LOOK_AGAIN_S = 0.0005
_WAIT_S = 0.05
_PRIORITY = 20
_MOST_MEMORY = 0.75


@kernel("int64(int64)")
def _load(address: Any) -> Any:
    return load_acquire(address)


@kernel("void(int64, int64)")
def _store(address: Any, value: Any) -> None:
    store_release(address, value)


@kernel("int64()")
def _flush() -> Any:
    return flush_denormals()


def warm() -> None:
    """Compile, or take from the cache, what every child needs; before any is forked."""
    word = np.zeros(1, np.int64)
    _store(int(word.ctypes.data), _load(int(word.ctypes.data)))
    _flush()


class _Line:
    """Messages to the one who gave the job, a line of JSON each."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def say(self, **message: Any) -> None:
        """Send one; who does not listen any more is not waited for."""
        try:
            self._connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            os._exit(0)


def main(connection: socket.socket, memory: int | None) -> None:
    """Do the job that stands in the first line that arrives.

    ``{"do": "look", "path", "sha256"}``, ``{"do": "time", "spec", "choices", "blocks", "limit_s"}``,
    ``{"do": "lower", "spec", "choices", "out"}`` or ``{"do": "play", "spec", "choices", "layout"}``.
    """
    line = _Line(connection)
    line.say(pid=os.getpid())
    job = json.loads(connection.makefile("rb").readline())
    threading.Thread(target=_watch, args=(connection,), daemon=True).start()
    _limit_memory()
    gc.disable()
    try:
        if job["do"] == "look":
            line.say(spec=dialects.look(job["path"], job["sha256"]).plain())
            return
        spec, choices = Spec.of(job["spec"]), Choices(**job["choices"])
        if job["do"] == "time":
            _become_urgent()
            line.say(timing=dialects.timing(_player(spec, choices), job["blocks"], job["limit_s"]))
            return
        if job["do"] == "lower":
            line.say(seconds=lowering.lower(spec, choices, job["out"]))
            return
        assert memory is not None
        _play(line, memory, _player(spec, choices), Layout(**job["layout"]))
    except RtganError as problem:
        line.say(problem=str(problem))
    except MemoryError:
        line.say(problem=f"{job.get('path') or job['spec']['path']} needs more memory than this machine has")
    except Exception as problem:
        said = (str(problem).strip().splitlines() or [type(problem).__name__])[-1]
        line.say(problem=f"{job.get('path') or job['spec']['path']} cannot be played: {said[:300]}")


def _player(spec: Spec, choices: Choices) -> Player:
    if spec.kind == "card":
        return FramePlayer(spec, choices)
    if not choices.program:
        return Player(spec, choices)
    return NetPlayer(spec, choices, compile(Program.load(choices.program)))


def _watch(connection: socket.socket) -> None:
    """End with the other end of the connection: nobody listens, nobody needs the model."""
    try:
        while connection.recv(1024):
            pass
    except OSError:
        pass
    os._exit(0)


def _limit_memory() -> None:
    """A model that asks for more than the machine has is refused it, and not somebody else ended."""
    try:
        import resource

        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        resource.setrlimit(resource.RLIMIT_DATA, (int(_MOST_MEMORY * total), resource.RLIM_INFINITY))
    except (ImportError, ValueError, OSError):
        pass


def _become_urgent() -> None:
    """Real-time priority, below that of audio threads, where the system gives it."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    except (AttributeError, OSError):
        pass


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def _waiter(semaphore: int) -> Any:
    """A function that waits for the next block, at most a moment."""
    if not sys.platform.startswith("linux"):
        return lambda: time.sleep(_LOOK_AGAIN_S)
    libc = ctypes.CDLL(None, use_errno=True)
    address, until = ctypes.c_void_p(semaphore), _Timespec()

    def wait() -> None:
        at = time.time() + _WAIT_S
        until.seconds, until.nanoseconds = int(at), int(at % 1 * 1e9)
        libc.sem_timedwait(address, ctypes.byref(until))

    return wait


def _play(line: _Line, memory: int, player: Player, layout: Layout) -> None:
    words = np.frombuffer(mmap.mmap(memory, 0), np.int64)
    floats = words.view(np.float64)
    start = int(words.ctypes.data)
    wait = _waiter(start + 8 * SEMAPHORE)
    count = layout.channels * layout.block
    requests = words[layout.requests : layout.answers].reshape(layout.slots, -1)
    answers = words[layout.answers :][: layout.slots * layout.answer_words].reshape(layout.slots, -1)
    sound = torch.zeros(layout.channels, layout.block)
    heard = sound.numpy().reshape(-1)
    period_s = layout.block / player.choices.rate_hz
    _flush()
    epoch, told, urgent = 0, 0, False
    # One that was started again begins with what is newest.
    block = _load(start + 8 * WRITTEN)
    gc.freeze()
    line.say(ready=True)
    while True:
        written = _load(start + 8 * WRITTEN)
        if block >= written:
            wait()
            continue
        if not urgent:
            urgent = True
            if not words[PATIENT]:
                _become_urgent()
        # What is too late to be heard is left out: that is how lost time is made up.
        needed = _load(start + 8 * NEEDED)
        if block < needed:
            block = min(needed, written)
            continue
        request = requests[block % layout.slots]
        asked = int(request[0])
        values = request[1:].view(np.float32)[count : count + layout.params].tolist()
        heard[:] = request[1:].view(np.float32)[:count]
        if _load(start + 8 * WRITTEN) - block >= layout.slots:
            block += 1
            continue  # written over meanwhile, and long since too late
        words[BUSY] = block + 1
        begin = time.perf_counter()
        if asked != epoch:
            epoch = asked
            player.reset()
        status = GOOD
        try:
            out = player.play(sound, values)
            peak = float(out.abs().max())
            if not peak <= LOUDEST:
                status = TOO_LOUD if peak > LOUDEST and peak < float("inf") else NOT_FINITE
                if status == NOT_FINITE:
                    player.reset()  # what is no number stays in what it remembers
        except Exception as problem:
            status = FAILED
            if told < 1:
                told += 1
                line.say(warning=f"it failed: {(str(problem).strip().splitlines() or ['?'])[-1][:300]}")
        while player.refused:
            line.say(warning=player.refused.pop())
        answer = answers[block % layout.slots]
        if status == GOOD:
            answer[1:].view(np.float32)[:count] = out.contiguous().numpy().reshape(-1)
        _store(int(answer.ctypes.data), (block + 1) << STATUS_BITS | status)
        floats[LOAD] = (time.perf_counter() - begin) / period_s
        words[ANSWERED] += 1
        words[BUSY] = 0
        block += 1
