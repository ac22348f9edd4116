"""The resampler of variable speed against exact sines in float64."""

from __future__ import annotations

import numpy as np
import pytest

from rtgan.kernels import varispeed


def run(x: np.ndarray, speeds: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Outputs, and the input positions (float64) that they stand for."""
    state = varispeed.build(x.shape[1], block)
    taken, at, out, where = 0, 0.0, [], []
    for speed in speeds:
        before = int(state.memory[varispeed.WRITTEN])
        out.append(state.process(x[taken:], float(speed), block))
        taken += int(state.memory[varispeed.WRITTEN]) - before
        where.append(at + speed * np.arange(block))
        at += speed * block
    return np.concatenate(out), np.concatenate(where)


@pytest.mark.parametrize("frequency_hz", [100.0, 997.0, 7003.0, 17011.0, 19500.0])
def test_a_changing_speed_gives_the_sound_at_those_positions(frequency_hz: float, rng: np.random.Generator) -> None:
    turn = 2 * np.pi * frequency_hz / 48000
    x = np.sin(turn * np.arange(60000))[:, None].astype(np.float32)
    out, where = run(x, 1 + rng.uniform(-5e-4, 5e-4, 200), 256)
    error = (out[:, 0] - np.sin(turn * where))[200:]
    assert np.abs(error).max() < 10 ** (-85 / 20)


def test_speed_one_passes_every_bit_and_channels_stay_apart(rng: np.random.Generator) -> None:
    x = rng.standard_normal((20000, 2)).astype(np.float32)
    out, _ = run(x, np.ones(60), 256)
    assert np.array_equal(out, x[: len(out)])


def test_blocks_do_not_matter(rng: np.random.Generator) -> None:
    x = rng.standard_normal((20000, 1)).astype(np.float32)
    speed = 1 + 2.0**-12  # exact in binary, however it is summed
    assert np.array_equal(run(x, np.full(64, speed), 256)[0], run(x, np.full(256, speed), 64)[0])


def test_what_is_not_possible_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        varispeed.build(0, 64)
    state = varispeed.build(1, 64)
    with pytest.raises(ValueError, match="need more inputs"):
        state.process(np.zeros((10, 1), np.float32), 1.0, 64)
    with pytest.raises(ValueError, match="at most 64 frames of 1 channels"):
        state.process(np.zeros((100, 2), np.float32), 1.0, 64)
