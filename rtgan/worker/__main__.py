"""``python -m rtgan.worker SOCKET``: the nursery. Imports torch, then forks a child for each byte that arrives."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys

#: Linux: ``prctl(PR_SET_PDEATHSIG, signal)``.
_DIES_WITH_PARENT = 1


def _die_with(parent: int) -> None:
    """End with this process, where the system does that: a model that hangs in C hears nothing of its connection."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(0)


def main(number: int) -> None:
    """Serve until the other end of the socket closes."""
    nursery = os.getpid()
    control = socket.socket(fileno=number)
    try:
        from rtgan.worker import serve

        serve.warm()
    except Exception as problem:
        control.sendall((str(problem).strip().splitlines() or [type(problem).__name__])[-1].encode()[:2000])
        return
    # Nobody waits for children: the system does away with them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    control.sendall(b"ready")
    while True:
        data, fds, _, _ = socket.recv_fds(control, 1, 2)
        if not data:
            return
        if os.fork() == 0:
            try:
                _die_with(nursery)
                control.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                serve.main(socket.socket(fileno=fds[0]), fds[1] if len(fds) > 1 else None)
            finally:
                os._exit(0)
        for fd in fds:
            os.close(fd)


if __name__ == "__main__":
    main(int(sys.argv[1]))
