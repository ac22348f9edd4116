"""A ring of float32 records between two threads: one writes, one reads, neither ever waits.

Lock free with one writer and one reader (Lamport, "Proving the correctness of multiprocess programs", 1977):
each side owns one counter and reads the other's. The counters only grow; they and what each side counts lie
on cache lines of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from .fft import Allocate, aligned
from .native import f32p, i64p, inline, kernel, load_acquire, smaller, store_release

# Words of a ring. The writer's line: records written, records lost for want of room.
WRITTEN, OVERRUNS = 0, 1
# The reader's line: records read, records asked for that were not there.
READ, UNDERRUNS = 8, 9
# Constants: records that fit (a power of two), float32 in a record; the records lie behind.
CAPACITY, WIDTH = 16, 17
HEADER = 24


@inline
def ring_free(ring: int) -> int:
    """Count the records that can be written; writer's side."""
    r = i64p(ring)
    return r[CAPACITY] - (r[WRITTEN] - load_acquire(ring + 8 * READ))  # type: ignore[no-any-return]


@inline
def ring_ready(ring: int) -> int:
    """Count the records that can be read; reader's side."""
    return load_acquire(ring + 8 * WRITTEN) - i64p(ring)[READ]  # type: ignore[no-any-return]


@inline
def ring_write(ring: int, source: int, n: int) -> int:
    """Write the first of ``n`` records for which there is room; count and drop the rest; returns how many went in."""
    r = i64p(ring)
    count = smaller(n, ring_free(ring))
    written, width, mask = r[WRITTEN], r[WIDTH], r[CAPACITY] - 1
    data = f32p(ring + 8 * HEADER)
    x = f32p(source)
    for i in range(count):
        at = ((written + i) & mask) * width
        for k in range(width):
            data[at + k] = x[i * width + k]
    r[OVERRUNS] += n - count
    store_release(ring + 8 * WRITTEN, written + count)
    return count  # type: ignore[no-any-return]


@inline
def ring_show(ring: int, source: int, n: int) -> None:
    """Write ``n`` records, over the oldest where there is no room.

    For a reader that takes the newest and owns no counter: what it has copied holds if `WRITTEN` has not come within
    ``n`` of a whole round since.
    """
    r = i64p(ring)
    written, width, mask = r[WRITTEN], r[WIDTH], r[CAPACITY] - 1
    data = f32p(ring + 8 * HEADER)
    x = f32p(source)
    for i in range(n):
        at = ((written + i) & mask) * width
        for k in range(width):
            data[at + k] = x[i * width + k]
    store_release(ring + 8 * WRITTEN, written + n)


@inline
def ring_read(ring: int, target: int, n: int) -> int:
    """Read up to ``n`` records; returns how many were there. The missing ones are counted, not written."""
    r = i64p(ring)
    count = smaller(n, ring_ready(ring))
    read, width, mask = r[READ], r[WIDTH], r[CAPACITY] - 1
    data = f32p(ring + 8 * HEADER)
    y = f32p(target)
    for i in range(count):
        at = ((read + i) & mask) * width
        for k in range(width):
            y[i * width + k] = data[at + k]
    r[UNDERRUNS] += n - count
    store_release(ring + 8 * READ, read + count)
    return count  # type: ignore[no-any-return]


@inline
def ring_skip(ring: int, count: Any, length: Any) -> None:
    """Leave out ``count`` records, by a fade over ``length`` from them to those behind them; reader's side.

    ``count + length`` records must be there.
    """
    r = i64p(ring)
    read, width, mask = r[READ], r[WIDTH], r[CAPACITY] - 1
    data = f32p(ring + 8 * HEADER)
    # From behind: what is written here is read for a later place of the fade, where that is longer than what goes.
    for back in range(length):
        i = length - 1 - back
        share = np.float32((i + 1) / (length + 1))
        old = ((read + i) & mask) * width
        new = ((read + count + i) & mask) * width
        for k in range(width):
            data[new + k] = data[old + k] + (data[new + k] - data[old + k]) * share
    store_release(ring + 8 * READ, read + count)


@kernel(types.int64(types.int64[::1], types.float32[:, ::1]))
def _write(memory: Any, records: Any) -> int:
    return ring_write(memory.ctypes.data, records.ctypes.data, records.shape[0])


@kernel(types.void(types.int64[::1], types.float32[:, ::1]))
def _show(memory: Any, records: Any) -> None:
    ring_show(memory.ctypes.data, records.ctypes.data, records.shape[0])


@kernel(types.int64(types.int64[::1], types.float32[:, ::1]))
def _read(memory: Any, records: Any) -> int:
    return ring_read(memory.ctypes.data, records.ctypes.data, records.shape[0])


@kernel(types.int64(types.int64[::1]))
def _ready(memory: Any) -> int:
    return ring_ready(memory.ctypes.data)


@dataclass(frozen=True)
class Ring:
    """One end of a ring, for Python; the other end may be a node that has `address`.

    Attributes
    ----------
    memory
        Counters and records, an int64 block; keep it alive as long as its address is used.
    """

    memory: NDArray[np.int64]

    @property
    def address(self) -> int:
        """What `ring_write` and `ring_read` take."""
        return int(self.memory.ctypes.data)

    @property
    def ready(self) -> int:
        """Records that can be read; reader's thread."""
        return int(_ready(self.memory))

    @property
    def overruns(self) -> int:
        """Records lost for want of room; any thread."""
        return int(self.memory[OVERRUNS])

    @property
    def underruns(self) -> int:
        """Records asked for that were not there; any thread."""
        return int(self.memory[UNDERRUNS])

    def write(self, records: NDArray[np.float32]) -> int:
        """Write records (n, width); returns how many there was room for; writer's thread."""
        return int(_write(self.memory, self._fitting(records)))

    def show(self, records: NDArray[np.float32]) -> None:
        """Write records (n, width) over the oldest ones; writer's thread."""
        _show(self.memory, self._fitting(records))

    def _fitting(self, records: NDArray[np.float32]) -> NDArray[np.float32]:
        if records.ndim != 2 or records.shape[1] != self.memory[WIDTH]:
            raise ValueError(f"records have shape {records.shape} but must have (n, {self.memory[WIDTH]})")
        return np.ascontiguousarray(records, np.float32)

    def read(self, n: int | None = None) -> NDArray[np.float32]:
        """Read up to ``n`` records (everything by default), (n, width); reader's thread."""
        records = np.empty((self.ready if n is None else n, int(self.memory[WIDTH])), np.float32)
        return records[: _read(self.memory, records)]


def build(records: int, width: int, *, allocate: Allocate = aligned) -> Ring:
    """Make an empty ring for at least ``records`` records of ``width`` float32.

    Raises
    ------
    ValueError
        For a number below 1.
    """
    if records < 1 or width < 1:
        raise ValueError(f"a ring of {records} records of {width} numbers is not possible")
    capacity = 1 << (records - 1).bit_length()
    memory = allocate(HEADER + (capacity * width + 1) // 2)
    memory[CAPACITY], memory[WIDTH] = capacity, width
    return Ring(memory)
