"""Memory for the audio thread with a forbidden page behind every piece: reading there ends the process too.

Imported before a plugin is activated (``pytest -p fences``), it replaces what `Arena` hands out. Canaries only
notice writes; this notices every access beyond a piece's last cache line, on the spot.
"""

from __future__ import annotations

import ctypes
import mmap

from rtgan.memory import Arena

_PAGE = mmap.PAGESIZE
_mprotect = ctypes.CDLL(None, use_errno=True).mprotect
_mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_FORBIDDEN = 0


def _fenced(self: Arena, size_bytes: int) -> int:
    size = -(-max(size_bytes, 1) // 64) * 64
    room = -(-size // _PAGE) * _PAGE
    pages = mmap.mmap(-1, room + _PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    if _mprotect(start + room, _PAGE, _FORBIDDEN):
        raise OSError(ctypes.get_errno(), "no fence could be put up")
    self.keep.append(pages)
    return start + room - size


Arena.allocate = _fenced  # type: ignore[method-assign]
