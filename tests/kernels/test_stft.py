"""The streaming transform: windows, reconstruction, latency, blocks, callbacks."""

import ctypes

import numpy as np
import pytest

import rtgan  # noqa: F401
from rtgan.kernels import stft
from rtgan.kernels.native import f32p, i64p, node

_NODE = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
_process = _NODE(stft.stft_process.address)
_reset = _NODE(stft.stft_reset.address)

SHAPES = [(512, 128, 256), (1024, 128, 256), (960, 120, 240), (512, 64, 256), (256, 128, 256), (320, 33, 66)]


@node
def _halve_channel_one(state, spectrum, channel):
    """Count the calls, note the last frame, and halve the spectrum of channel 1."""
    words = i64p(state)
    words[0] += 1
    words[1] = stft.frame_index(spectrum)
    if channel == 1:
        for k in range(words[2]):
            f32p(spectrum)[k] *= np.float32(0.5)
            f32p(spectrum + 4 * words[3])[k] *= np.float32(0.5)


def _run(transform, x, sizes):
    y = x.copy()
    done = 0
    while done < x.shape[1]:
        n = min(int(next(sizes)), x.shape[1] - done)
        _process(transform.address, y.ctypes.data + 4 * done, n)
        done += n
    return y


def _always(n):
    while True:
        yield n


def _random(rng):
    while True:
        yield rng.integers(1, 400)


def _signal(samples=4000, channels=2):
    return np.random.default_rng(0).standard_normal((channels, samples)).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_reconstructs_after_exactly_the_synthesis_length(shape):
    x = _signal()
    transform = stft.build(*shape, 2, x.shape[1])
    y = _run(transform, x, _always(100))
    latency = transform.latency_samples
    assert latency == shape[2]
    assert np.abs(y[:, latency:] - x[:, :-latency]).max() < 1e-5
    assert np.abs(y[:, :latency]).max() < 1e-5


@pytest.mark.parametrize("at", [0, 1, 127, 128, 300])
def test_an_impulse_arrives_at_the_latency(at):
    x = np.zeros((1, 1500), np.float32)
    x[0, at] = 1
    y = _run(stft.build(512, 128, 256, 1, 1500), x, _always(64))
    assert np.abs(y[0]).argmax() == at + 256
    assert abs(y[0, at + 256] - 1) < 1e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_the_block_size_changes_no_bit(shape):
    x = _signal()
    rng = np.random.default_rng(2)
    results = []
    for sizes in (_always(4000), _always(1), _always(64), _always(65), _always(128), _always(997), _random(rng)):
        transform = stft.build(*shape, 2, x.shape[1])
        results.append(_run(transform, x, sizes))
    for result in results[1:]:
        assert np.array_equal(result, results[0])


def test_reset_equals_a_fresh_state():
    x = _signal()
    transform = stft.build(512, 128, 256, 2, x.shape[1])
    first = _run(transform, x, _always(77))
    _reset(transform.address, 0, 0)
    assert np.array_equal(_run(transform, x, _always(77)), first)


def test_the_callback_gets_every_channel_of_every_frame():
    x = _signal(1280)
    words = np.zeros(4, np.int64)
    transform = stft.build(512, 128, 256, 2, 1280, callback=_halve_channel_one.address, user_state=words.ctypes.data)
    words[2:] = transform.bins, transform.bins_stride
    y = _run(transform, x, _always(128))
    assert words[0] == 20 and words[1] == 9
    assert np.abs(y[0, 256:] - x[0, :-256]).max() < 1e-5
    assert np.abs(y[1, 256:] - 0.5 * x[1, :-256]).max() < 1e-5


def test_what_is_not_a_number_leaves_again():
    x = _signal(6000)
    dirty = x.copy()
    dirty[0, 1000] = np.nan
    dirty[1, 1500] = np.inf
    transform = stft.build(512, 128, 256, 2, 6000)
    with np.errstate(invalid="ignore"):
        y = _run(transform, dirty, _always(128))
    assert not np.isfinite(y).all()
    assert np.abs(y[:, 3000:] - x[:, 3000 - 256 : -256]).max() < 1e-5


@pytest.mark.parametrize("n_fft, hop", [(512, 128), (512, 256), (480, 96), (500, 170), (64, 1)])
def test_wola_windows_add_to_one(n_fft, hop):
    analysis, synthesis = stft.wola_windows(n_fft, hop)
    total = np.zeros(n_fft + 40 * hop)
    for frame in range(40):
        total[frame * hop : frame * hop + n_fft] += analysis.astype(np.float64) * synthesis
    if n_fft < 40 * hop:
        assert np.abs(total[n_fft : 40 * hop] - 1).max() < 1e-6
    else:
        assert 0 < total.max() <= 1 + 1e-6


def test_sqrt_hann():
    window = stft.sqrt_hann(8)
    assert window.dtype == np.float32
    assert np.allclose(window**2, [0, 0.1464466, 0.5, 0.8535534, 1, 0.8535534, 0.5, 0.1464466], atol=1e-6)


def test_given_windows_are_used():
    x = _signal(3000, 1)
    transform = stft.build(480, 96, 480, 1, 3000, windows=stft.wola_windows(480, 96))
    y = _run(transform, x, _always(50))
    # The first frames lack the neighbours before the start.
    assert np.abs(y[:, 960:] - x[:, 480:-480]).max() < 1e-5


@pytest.mark.parametrize(
    "shape", [(512, 128, 300), (512, 128, 128), (512, 300, 600), (500, 125, 250), (512, 0, 0), (512, 33, 99)]
)
def test_lengths_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError):
        stft.build(*shape, 1, 128)


def test_windows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="shapes"):
        stft.build(512, 128, 256, 1, 128, windows=stft.wola_windows(256, 128))
    with pytest.raises(ValueError, match="zero before"):
        stft.build(512, 128, 256, 1, 128, windows=stft.wola_windows(512, 128))
    with pytest.raises(ValueError, match="uncovered"):
        stft.wola_windows(512, 512)
