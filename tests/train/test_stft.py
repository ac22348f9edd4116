"""The transform: perfect reconstruction, the latency it promises, and one definition everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rtgan.errors import UsageError
from rtgan.train.stft import Stft, dual_windows


@pytest.mark.parametrize(("n_fft", "hop"), [(1024, 192), (512, 64), (384, 192), (256, 48)])
def test_reconstructs_what_it_analysed(n_fft: int, hop: int) -> None:
    stft = Stft(n_fft, hop, 2 * hop)
    signal = torch.randn(2, 40 * hop, generator=torch.Generator().manual_seed(0))
    back = stft.synthesise(stft.analyse(signal))
    assert torch.allclose(back[:, :-hop], signal[:, :-hop], atol=1e-5)


def test_product_of_the_windows_is_a_hann_window() -> None:
    analysis, synthesis = dual_windows(1024, 192, 384)
    product = analysis * synthesis
    assert np.all(product[: 1024 - 384] == 0)
    assert np.allclose(product[-384:], 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(384) / 384), atol=1e-6)


def test_streaming_with_these_windows_delays_by_the_synthesis_window() -> None:
    stft = Stft()
    analysis, synthesis = stft.windows
    signal = np.random.default_rng(0).standard_normal(30 * 192).astype(np.float32)
    history, overlap, out = np.zeros(1024, np.float32), np.zeros(384, np.float32), []
    for start in range(0, len(signal), 192):
        history = np.concatenate((history[192:], signal[start : start + 192]))
        frame = np.fft.irfft(np.fft.rfft(history * analysis.numpy()))[-384:] * synthesis.numpy()[-384:]
        overlap = overlap + frame
        out.append(overlap[:192])
        overlap = np.concatenate((overlap[192:], np.zeros(192)))
    # a hop is played after it has been collected: 192 here and 192 in collecting make 384
    played = np.concatenate([np.zeros(192), *out])
    assert np.allclose(played[384 : len(signal)], signal[: len(signal) - 384], atol=1e-5)


def test_agrees_with_the_windows_that_are_played() -> None:
    played = pytest.importorskip("rtgan.kernels.stft").dual_windows(1024, 192, 384)
    for mine, theirs in zip(dual_windows(1024, 192, 384), played, strict=True):
        theirs = np.asarray(theirs)
        assert np.allclose(mine[-len(theirs) :], theirs, atol=1e-6)


@pytest.mark.parametrize("wrong", [(1024, 192, 380), (300, 192, 384), (1023, 192, 384)])
def test_refuses_impossible_sizes(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError):
        dual_windows(*wrong)
