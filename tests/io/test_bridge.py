"""Two devices with clocks of their own: what is lost is counted, nothing breaks, the delay stays bounded."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from support import ROOT, Jack

from rtgan.engine import Engine
from rtgan.graph import Graph
from rtgan.io.bridge import Bridge


def transport(
    in_block: int, out_block: int, drift: float, seconds: float = 4.0
) -> tuple[np.ndarray, np.ndarray, Bridge]:
    """Run both callbacks as two devices would, the input's clock faster by ``drift``."""
    engine = Engine(48000, 1)
    engine.publish(Graph([], 48000, 1024, 1))
    bridge = Bridge(engine.callback_address, engine.address, 1, 1, fill=2 * max(in_block, out_block))
    kind = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_int64] * 6)
    take, give = kind(bridge.take_address), kind(bridge.give_address)
    sound = np.random.default_rng(3).standard_normal(int((seconds + 0.5) * 48000)).astype(np.float32) * 0.1
    out = np.zeros(int(seconds * 48000), np.float32)
    read = written = 0
    while written + out_block <= len(out):
        # Whichever device's next block is due first calls.
        if (read + in_block) / (48000 * (1 + drift)) <= (written + out_block) / 48000:
            take(sound.ctypes.data + 4 * read, 0, in_block, 0, 0, bridge.address)
            read += in_block
        else:
            give(0, out.ctypes.data + 4 * written, out_block, 0, 0, bridge.address)
            written += out_block
    return sound, out, bridge


@pytest.mark.parametrize(("in_block", "out_block"), [(128, 128), (441, 256), (64, 997)])
def test_without_drift_every_sample_comes_through_in_order(in_block: int, out_block: int) -> None:
    sound, out, bridge = transport(in_block, out_block, 0.0)
    assert bridge.slips == 0
    start = int(np.flatnonzero(out)[0])
    length = len(out) - start - 2000
    assert np.array_equal(out[start : start + length], sound[:length])
    assert start <= 4 * max(in_block, out_block)


@pytest.mark.parametrize("drift", [0.01, -0.01])
def test_drift_is_counted_and_the_delay_stays_bounded(drift: float) -> None:
    sound, out, bridge = transport(128, 128, drift, seconds=6.0)
    assert 1 <= bridge.slips <= 12
    tail = out[-8192:].astype(np.float64)
    size = 1 << 20
    product = np.fft.irfft(np.conj(np.fft.rfft(tail, size)) * np.fft.rfft(sound[: int(6.1 * 48000)], size), size)
    place = int(np.argmax(product))
    behind = (len(out) - 8192) * (1 + drift) - place
    assert -256 <= behind <= 5 * 256, "the newest input is never far away"


@pytest.mark.jack
@pytest.mark.slow
def test_two_real_streams_carry_sound(jack: Callable[..., Jack]) -> None:
    script = """
import time
from rtgan.engine import Engine
from rtgan.graph import Graph
from rtgan.io import devices
system = devices.choose("system", "input")
engine = Engine(48000, 1, device_in=1, device_out=2, out_map=(0, 1))
engine.publish(Graph([], 48000, 1024, 1))
stream = devices.Stream(system, system, 48000, 0, 1, 2, engine.callback_address, engine.address, split=True)
stream.start()
time.sleep(1.5)
assert stream.active and stream.ring_ms > 0
assert engine.counters.position_samples > 24000
assert stream.close()
print("carried")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env={**jack(256).env, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "carried" in done.stdout
