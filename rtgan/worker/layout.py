"""The memory that a node and its worker share.

One line of words for each side, then requests and answers in slots by the number of their block. Numbers only grow.
The node writes a request whether or not the slot before it was read: it waits for nobody. A worker that has copied a
slot asks afterwards whether it was still the one it meant.
"""

from __future__ import annotations

from dataclasses import dataclass

# The node's line: blocks written; the first block that can still be heard; whether the node waits (offline).
WRITTEN, NEEDED, PATIENT = 0, 1, 2
# The worker's line: block it works on plus one, 0 for none; blocks answered. As float64: time the last block took over
# the time a block lasts.
BUSY, ANSWERED, LOAD = 8, 9, 10
#: A ``sem_t``, where there is one.
SEMAPHORE = 16
_HEADER = 32

#: How an answer came out, in the low bits of its first word; the others are the number of the block plus one.
GOOD, NOT_FINITE, TOO_LOUD, FAILED = range(4)
STATUS_BITS = 2


@dataclass(frozen=True)
class Layout:
    """Sizes of the shared memory.

    Parameters
    ----------
    channels, block : int
        Of a request and of its answer: (channels, block) float32.
    params : int
        Values that go with each request.
    slots : int
        A power of two.
    """

    channels: int
    block: int
    params: int
    slots: int

    @property
    def request_words(self) -> int:
        """Words of a request: epoch, sound, values."""
        return _words(self.channels * self.block + self.params)

    @property
    def answer_words(self) -> int:
        """Words of an answer: number and status, sound."""
        return _words(self.channels * self.block)

    @property
    def requests(self) -> int:
        """First word of the requests."""
        return _HEADER

    @property
    def answers(self) -> int:
        """First word of the answers."""
        return _HEADER + self.slots * self.request_words

    @property
    def size_bytes(self) -> int:
        """Of everything."""
        return 8 * (self.answers + self.slots * self.answer_words)


def _words(floats: int) -> int:
    return -(-(1 + (floats + 1) // 2) // 8) * 8
