"""Where workers come from: a process that has imported torch and forks one child for each job.

It is started when the first model is asked for, and ends with this process, however that ends: its socket closes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from rtgan.errors import RtganError

_ROOT = Path(__file__).resolve().parent.parent.parent
_START_S = 120.0


class Gone(Exception):
    """A child's process has ended, or was ended because it did not answer; the text says which."""


class Child:
    """A forked process with a job [one thread at a time].

    Attributes
    ----------
    pid : int
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""
        self.pid = 0

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        """Its next message; None after so long without one; `Gone` when there will be none."""
        while b"\n" not in self._buffer:
            try:
                self._connection.settimeout(timeout_s)
                data = self._connection.recv(1 << 16)
            except TimeoutError:
                return None
            except OSError:
                data = b""
            if not data:
                raise Gone("its process ended")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        self.pid = message.pop("pid", self.pid)
        return message

    def kill(self) -> None:
        """End it, whatever it does."""
        # Its end of the connection closes with the process: as long as that is open the number is its own.
        if self._connection.fileno() >= 0 and self.pid and not self._ended():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._connection.close()

    def _ended(self) -> bool:
        self._connection.setblocking(False)
        try:
            return self._connection.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


class _Nursery:
    def __init__(self) -> None:
        if importlib.util.find_spec("torch") is None:
            raise RtganError("a model of your own needs torch, which is not installed: pip install 'rtgan[torch]'")
        ours, theirs = socket.socketpair()
        env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        env["PYTHONPATH"] = os.pathsep.join(p for p in (str(_ROOT), os.environ.get("PYTHONPATH")) if p)
        with theirs:
            # A session of its own: Ctrl-C at the terminal is for us, and we end it.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rtgan.worker", str(theirs.fileno())],
                env=env, pass_fds=[theirs.fileno()], start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        self._socket = ours
        ours.settimeout(_START_S)
        try:
            said = ours.recv(4096)
        except TimeoutError:
            self._process.kill()
            raise RtganError(f"torch did not start within {_START_S:.0f} s") from None
        if said != b"ready":
            raise RtganError(f"torch cannot be imported: {said.decode(errors='replace') or 'no reason given'}")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def fork(self, memory: int | None) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            given = [theirs.fileno(), *([memory] if memory is not None else [])]
            socket.send_fds(self._socket, [b"f"], given)
        return ours


_lock = threading.Lock()
_nursery: _Nursery | None = None


def spawn(job: dict[str, Any], memory: int | None = None) -> Child:
    """Give a job to a new child. Any thread.

    Parameters
    ----------
    job : dict
        Plain JSON; see `rtgan.worker.serve.main`.
    memory : int, optional
        File descriptor of the shared memory.

    Raises
    ------
    RtganError
        If torch is missing or does not start.
    """
    global _nursery
    with _lock:
        for attempt in range(2):
            if _nursery is None or not _nursery.alive:
                _nursery = _Nursery()
            try:
                connection = _nursery.fork(memory)
                connection.sendall(json.dumps(job).encode() + b"\n")
                return Child(connection)
            except OSError:
                _nursery = None
                if attempt:
                    raise RtganError("the process that starts models has ended twice in a row") from None
    raise AssertionError("unreachable")


def ask(job: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """The answer to a job that ends with one; `Gone` without one in that time. Any thread."""
    child = spawn(job)
    try:
        until = time.monotonic() + timeout_s
        while (left := until - time.monotonic()) > 0:
            if answer := child.receive(left):
                return answer
        raise Gone(f"it did not answer within {timeout_s:g} s")
    finally:
        child.kill()
