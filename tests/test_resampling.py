"""A plugin at its own rate inside a host at another: exact delay, same bits for every block size."""

from __future__ import annotations

import numpy as np
import pytest
from planted import FixedRate
from support import speechlike

from rtgan.engine import Engine
from rtgan.errors import UsageError
from rtgan.graph import ChainItem, Graph


@pytest.mark.parametrize("rate", [44100, 88200, 96000])
def test_the_declared_delay_is_the_measured_one_and_no_block_size_shows(rate: int) -> None:
    sound = speechlike(0.6, rate)
    # What lies above the inner rate's pass band cannot come through: measure below it.
    spectrum = np.fft.rfft(sound)
    spectrum[int(18000 * len(sound) / rate) :] = 0
    sound = np.fft.irfft(spectrum, len(sound)).astype(np.float32)
    outs = []
    for block in (1, 64, 997, len(sound)):
        engine = Engine(rate, 1)
        graph = Graph([ChainItem(FixedRate())], rate, 1024, 1)
        engine.publish(graph)
        pieces = [engine.render(np.ascontiguousarray(sound[k : k + block, None])) for k in range(0, len(sound), block)]
        outs.append(np.concatenate(pieces)[:, 0])
        assert engine.memory_intact
    for out in outs[1:]:
        assert np.array_equal(out, outs[0])
    delay = graph.latency_samples
    assert delay > 384 * rate / 48000
    # The band limit above wraps around: the first samples jump in, which no band-limited filter can follow.
    error = (outs[0][delay:] - sound[:-delay])[2000:]
    assert 10 * np.log10(np.mean(error**2) / np.mean(sound**2)) < -80


def test_a_rate_without_a_small_ratio_is_refused() -> None:
    with pytest.raises(UsageError, match="fixed-rate runs at 48000 Hz and cannot be used at 44101 Hz"):
        Graph([ChainItem(FixedRate())], 44101, 1024, 1)
