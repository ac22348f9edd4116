"""The ring between two threads."""

import threading
import time

import numpy as np
import pytest

import rtgan  # noqa: F401
from rtgan.kernels import rings


def test_order_room_and_counters():
    ring = rings.build(5, 3)
    records = np.arange(30, dtype=np.float32).reshape(10, 3)
    assert ring.write(records[:6]) == 6 and ring.ready == 6
    assert ring.write(records[6:]) == 2 and ring.overruns == 2
    assert np.array_equal(ring.read(3), records[:3])
    assert np.array_equal(ring.read(), records[3:8])
    assert ring.read(4).shape == (0, 3) and ring.underruns == 4
    # Round and round across the end.
    for i in range(50):
        assert ring.write(records[: 1 + i % 7]) == 1 + i % 7
        assert np.array_equal(ring.read(), records[: 1 + i % 7])


def test_two_threads_lose_and_repeat_nothing():
    ring = rings.build(64, 2)
    total = 20_000
    numbers = np.arange(total, dtype=np.float32)
    records = np.stack([numbers, -numbers], axis=1)

    def write():
        done = 0
        rng = np.random.default_rng(0)
        while done < total:
            done += ring.write(records[done : done + int(rng.integers(1, 50))])
            time.sleep(0)

    writer = threading.Thread(target=write)
    writer.start()
    parts, got = [], 0
    while got < total:
        parts.append(ring.read(97))
        got += len(parts[-1])
        time.sleep(0)
    writer.join()
    assert np.array_equal(np.concatenate(parts), records)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="shape"):
        rings.build(4, 2).write(np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match="not possible"):
        rings.build(0, 1)


def test_what_is_shown_goes_over_the_oldest():
    ring = rings.build(8, 2)
    records = np.arange(60, dtype=np.float32).reshape(30, 2)
    for begin, end in ((0, 5), (5, 6), (6, 13), (13, 30)):
        ring.show(records[begin:end])
        assert ring.memory[rings.WRITTEN] == end
        kept = ring.memory[rings.HEADER :].view(np.float32)[:16].reshape(8, 2)
        newest = range(max(0, end - 8), end)
        assert [kept[k % 8].tolist() for k in newest] == records[newest.start : end].tolist()
    assert ring.overruns == 0
