"""The real transform against numpy in double precision."""

import numpy as np
import pytest

import rtgan  # noqa: F401
from rtgan.kernels import fft

SIZES = [32, 48, 64, 80, 96, 128, 160, 192, 240, 256, 320, 384, 400, 480, 512, 640, 720, 768, 960, 1024, 1536, 1920]
SIZES += [2048, 3840, 4096, 8192, 16384, 65536]


def _transform(n, x):
    plan = fft.plan(n)
    guard = 32
    re, im = np.full((2, n // 2 + 1 + guard), 7, np.float32)
    back = np.full(n + guard, 7, np.float32)
    # What lies in the scratch must not matter.
    scratch = np.full(fft.scratch_floats(n), np.nan, np.float32)
    fft.rfft(plan, x, re, im, scratch)
    fft.irfft(plan, re, im, back, scratch)
    for array, length in ((re, n // 2 + 1), (im, n // 2 + 1), (back, n)):
        assert (array[length:] == 7).all(), "written past the end"
    return re[: n // 2 + 1] + 1j * im[: n // 2 + 1], back[:n]


@pytest.mark.parametrize("n", SIZES)
def test_agrees_with_numpy_and_comes_back(n):
    x = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    spectrum, back = _transform(n, x)
    reference = np.fft.rfft(x.astype(np.float64))
    assert np.abs(spectrum - reference).max() < 4e-7 * np.abs(reference).max()
    assert np.abs(back - x).max() < 2e-6


@pytest.mark.parametrize("n", [32, 240, 512])
def test_inverse_of_any_spectrum_agrees_with_numpy(n):
    # The imaginary parts of the two ends count for nothing, as in numpy.
    rng = np.random.default_rng(1)
    re, im = rng.standard_normal((2, n // 2 + 1)).astype(np.float32)
    x, scratch = np.empty(n, np.float32), np.empty(fft.scratch_floats(n), np.float32)
    fft.irfft(fft.plan(n), re, im, x, scratch)
    reference = np.fft.irfft(re.astype(np.float64) + 1j * im, n)
    assert np.abs(x - reference).max() < 1e-6 * np.abs(reference).max()


def test_one_bin_and_one_sample():
    n = 512
    spectrum, _ = _transform(n, np.ones(n, np.float32))
    assert spectrum[0] == n and np.abs(spectrum[1:]).max() < 1e-4
    impulse = np.zeros(n, np.float32)
    impulse[3] = 1
    spectrum, _ = _transform(n, impulse)
    assert np.abs(np.abs(spectrum) - 1).max() < 1e-6


@pytest.mark.parametrize("n", [0, 16, 24, 112, 511, 131072])
def test_impossible_sizes_are_refused(n):
    with pytest.raises(ValueError, match=f"transform of {n} samples"):
        fft.plan(n)


def test_short_arrays_are_refused():
    plan = fft.plan(64)
    x = np.zeros(64, np.float32)
    with pytest.raises(ValueError, match="shorter"):
        fft.rfft(plan, x, x, x[:32].copy(), np.zeros(fft.scratch_floats(64), np.float32))
