"""``python -m rtgan.worker SOCKET``: the nursery. Imports torch, then forks a child for each byte that arrives."""

from __future__ import annotations

import os
import signal
import socket
import sys


def main(number: int) -> None:
    """Serve until the other end of the socket closes."""
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
                control.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                serve.main(socket.socket(fileno=fds[0]), fds[1] if len(fds) > 1 else None)
            finally:
                os._exit(0)
        for fd in fds:
            os.close(fd)


if __name__ == "__main__":
    main(int(sys.argv[1]))
