"""What every training run needs of the machine: a polite end, and memory that is not handed back and forth."""

from __future__ import annotations

import ctypes
import signal
import threading
from typing import Any


class Interrupt:
    """Turns Ctrl-C and a polite kill into a flag, so that a step is done or not begun; a second one acts at once."""

    def __init__(self) -> None:
        self.seen = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks: giving them back after each tensor costs a third of a step in page faults."""
    try:
        library = ctypes.CDLL(None)
        library.mallopt(-4, 0)  # M_MMAP_MAX
        library.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):
        pass
