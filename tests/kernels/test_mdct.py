"""The lapped transform against its formula, and there and back for every order of blocks."""

from __future__ import annotations

import numpy as np
import pytest

from rtgan.kernels import mdct
from rtgan.kernels.mdct import BLOCKS, FRAME, SHORT

PLAN = mdct.Plan()


def noise(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(FRAME * frames).astype(np.float32)


def formula(x: np.ndarray, length: int, begin: int, left: int, right: int) -> np.ndarray:
    """Coefficients of a block by the direct sum, float64, with overlaps of so many samples to the sides."""

    def rise(overlap: int) -> np.ndarray:
        inner = np.sin(np.pi / 2 * (np.arange(overlap) + 0.5) / overlap) ** 2
        flat = (length - overlap) // 2
        return np.concatenate([np.zeros(flat), np.sin(np.pi / 2 * inner), np.ones(flat)])

    window = np.concatenate([rise(left), rise(right)[::-1]])
    n, k = np.arange(2 * length), np.arange(length)[:, None]
    base = np.cos(np.pi / length * (n + 0.5 - length / 2) * (k + 0.5)) * np.sqrt(2 / length)
    return base @ (window * x[begin - length // 2 : begin + 3 * length // 2].astype(np.float64))


def test_long_and_short_blocks_are_what_the_formula_says() -> None:
    x = noise(7)
    shorts = np.array([0, 0, 0, 1, 0, 0])
    out = np.zeros((4, FRAME), np.float32)
    mdct.analyse(*PLAN.arguments, x[: 6 * FRAME].copy(), shorts, out)
    assert np.abs(out[0] - formula(x, FRAME, FRAME, FRAME, FRAME)).max() < 2e-5
    assert np.abs(out[1] - formula(x, FRAME, 2 * FRAME, FRAME, SHORT)).max() < 2e-5
    for block in range(BLOCKS):
        wanted = formula(x, SHORT, 3 * FRAME + SHORT * block, SHORT, SHORT)
        assert np.abs(out[2, block::BLOCKS] - wanted).max() < 2e-5
    assert np.abs(out[3] - formula(x, FRAME, 4 * FRAME, SHORT, FRAME)).max() < 2e-5


@pytest.mark.parametrize("kinds", ["00000000", "11111111", "01011001", "10010100"])
def test_what_was_taken_apart_comes_back_whole(kinds: str) -> None:
    frames = len(kinds) - 2
    shorts = np.array([int(k) for k in kinds])
    x = noise(len(kinds), 1)
    out = np.zeros((frames, FRAME), np.float32)
    mdct.analyse(*PLAN.arguments, x.copy(), shorts, out)
    back = np.zeros((frames + 1) * FRAME, np.float32)
    mdct.synthesise(*PLAN.arguments, out, shorts[:-1].copy(), back)
    # The first frame lacks the one before it, the last the one behind it.
    inner = slice(FRAME + FRAME // 2, frames * FRAME + FRAME // 2)
    assert np.abs(back[inner] - x[inner]).max() < 5e-6
    piecewise = np.zeros(FRAME, np.float32)
    parts = []
    for k in range(frames):
        work = np.concatenate([piecewise, np.zeros(FRAME, np.float32)])
        mdct.synthesise(*PLAN.arguments, out[k : k + 1], shorts[k : k + 2].copy(), work)
        parts.append(work[:FRAME])
        piecewise = work[FRAME:]
    assert np.array_equal(np.concatenate([*parts, piecewise]), back)


def test_attacks_are_found_and_steady_sounds_have_none() -> None:
    t = np.arange(2 * FRAME) / 48000
    steady = np.sin(2 * np.pi * 1000 * t).astype(np.float32)
    struck = np.where(t > 0.03, noise(2, 3), 1e-3 * noise(2, 4)).astype(np.float32)
    assert not mdct.attacks(steady) and not mdct.attacks(noise(2)) and not mdct.attacks(0 * steady)
    assert mdct.attacks(struck)
