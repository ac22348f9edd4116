"""Memory for the audio thread: page-aligned, touched, locked, guarded by canaries.

Everything a graph or an engine lets the audio thread read or write comes from an `Arena`, so that no page is
first touched, swapped in or moved while sound is playing.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 18
_ALIGN = 64
_CANARY = np.uint64(0x5AFE_0F_CA_4A_21_E5_77 & 0xFFFF_FFFF_FFFF_FFFF)


def _libc() -> Any:
    if sys.platform == "win32":
        return None
    try:
        return ctypes.CDLL(None, use_errno=True)
    except OSError:
        return None


class Arena:
    """A growing set of locked pages, handed out in 64-byte aligned, zeroed pieces.

    Parameters
    ----------
    lock : bool
        Ask the system to keep the pages in memory. Where that is refused the arena works all the same and
        `locked` is False.

    Notes
    -----
    [main-thread] only. Pieces live as long as the arena; the arena must outlive every native user.
    """

    def __init__(self, lock: bool = True) -> None:
        self._chunks: list[tuple[mmap.mmap, int, int]] = []
        self._used = 0
        self._canaries: list[NDArray[np.uint64]] = []
        self._lock = lock
        self.locked = lock
        #: Address and bytes of every piece handed out, in order, and whether it is one that nobody writes.
        self.pieces: list[tuple[int, int, bool]] = []
        self.keep: list[Any] = []

    def _chunk(self, size: int) -> None:
        size = -(-max(size, _CHUNK) // mmap.PAGESIZE) * mmap.PAGESIZE
        pages = mmap.mmap(-1, size)
        address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
        pages[::] = bytes(size)
        if self._lock:
            libc = _libc()
            ok = libc is not None and libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(size)) == 0
            self.locked = self.locked and ok
        self._chunks.append((pages, address, size))
        self._used = 0

    def allocate(self, size_bytes: int) -> int:
        """Address of a zeroed piece of at least this many bytes."""
        size = -(-max(size_bytes, 1) // _ALIGN) * _ALIGN
        if not self._chunks or self._used + size + 2 * _ALIGN > self._chunks[-1][2]:
            self._chunk(size + 2 * _ALIGN)
        address = self._chunks[-1][1] + self._used + _ALIGN
        for guard in (address - _ALIGN, address + size):
            view = _view(guard, np.uint64, _ALIGN // 8)
            view[:] = _CANARY
            self._canaries.append(view)
        self._used += size + _ALIGN
        return address

    def _piece(self, size_bytes: int, constant: bool = False) -> int:
        address = self.allocate(size_bytes)
        self.pieces.append((address, -(-max(size_bytes, 1) // _ALIGN) * _ALIGN, constant))
        return address

    def int64(self, count: int) -> NDArray[np.int64]:
        """A zeroed int64 array."""
        return _view(self._piece(8 * count), np.int64, count)

    def float64(self, count: int) -> NDArray[np.float64]:
        """A zeroed float64 array."""
        return _view(self._piece(8 * count), np.float64, count)

    def float32(self, *shape: int) -> NDArray[np.float32]:
        """A zeroed float32 array of the given shape."""
        count = int(np.prod(shape))
        return _view(self._piece(4 * count), np.float32, count).reshape(shape)

    def put(self, values: NDArray[Any]) -> int:
        """Copy an array that stays as it is into the arena; returns its address."""
        source = np.ascontiguousarray(values)
        address = self._piece(source.nbytes, constant=True)
        ctypes.memmove(address, source.ctypes.data, source.nbytes)
        return address

    def words(self, address: int, size_bytes: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """A piece as int64, and which of its words are addresses within pieces of this arena."""
        words = _view(address, np.int64, size_bytes // 8)
        pieces = np.array(sorted(self.pieces), np.int64)
        first, last = pieces[:, 0], pieces[:, 0] + pieces[:, 1]
        inside = (words >= first[0]) & (words <= last.max())
        near = words[inside]
        inside[inside] = near <= last[np.searchsorted(first, near, "right") - 1]
        return words, inside

    @property
    def size_bytes(self) -> int:
        """Bytes of memory held."""
        return sum(size for _, _, size in self._chunks)

    def intact(self) -> bool:
        """Whether every canary between the pieces still stands."""
        return all(bool((view == _CANARY).all()) for view in self._canaries)


def shared(size_bytes: int) -> tuple[int, NDArray[np.int64]]:
    """Zeroed pages that another process can map by their file descriptor; touched, and locked where allowed.

    Returns
    -------
    fd : int
        To be handed on and closed by the caller.
    words : ndarray of int64
        The pages; they live as long as the array.
    """
    if sys.platform == "linux":
        fd = os.memfd_create("rtgan-scope")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    size = -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
    os.ftruncate(fd, size)
    words = np.frombuffer(mmap.mmap(fd, size), np.int64)
    words[:] = 0
    libc = _libc()
    if libc is not None:
        libc.mlock(ctypes.c_void_p(address_of(words)), ctypes.c_size_t(size))
    return fd, words


def _view(address: int, dtype: Any, count: int) -> NDArray[Any]:
    item = np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * (item * count)).from_address(address), dtype=dtype)


def address_of(array: NDArray[Any]) -> int:
    """Address of an array's first element."""
    return int(array.ctypes.data)
