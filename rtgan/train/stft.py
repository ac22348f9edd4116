"""The short-time Fourier transform that nets are trained in and played in.

A long analysis window gives frequency resolution, a short synthesis window sets the latency (Mauler and
Martin, "A low delay, variable resolution, perfect reconstruction spectral analysis-synthesis system for
speech enhancement", EUSIPCO 2007). Streaming latency is exactly the length of the synthesis window.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import UsageError


def mel_triangles(
    bins: int, n_fft: int, sample_rate_hz: int, bands: int, lowest_hz: float, highest_hz: float
) -> NDArray[np.float64]:
    """Triangles ``(bins, bands)`` over the bins of a transform, evenly spaced in mel (O'Shaughnessy 1987)."""
    low, high = (2595 * np.log10(1 + hertz / 700) for hertz in (lowest_hz, highest_hz))
    edges = 700 * (10 ** (np.linspace(low, high, bands + 2) / 2595) - 1) * n_fft / sample_rate_hz
    k = np.arange(bins)[:, None]
    rise = (k - edges[:-2]) / np.diff(edges)[:-1]
    fall = (edges[2:] - k) / np.diff(edges)[1:]
    return np.asarray(np.clip(np.minimum(rise, fall), 0, None), np.float64)


def dual_windows(
    n_fft: int, hop_samples: int, synthesis_samples: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Analysis and synthesis window, both of ``n_fft`` samples, whose product overlap-adds to one.

    Parameters
    ----------
    n_fft : int
        Length of a frame in samples, even.
    hop_samples : int
        Samples between frames.
    synthesis_samples : int
        Length of the synthesis window, ``2 * hop_samples``; it lies on the last samples of the frame.

    Returns
    -------
    tuple of ndarray
        ``(analysis, synthesis)``, float32.
    """
    if synthesis_samples != 2 * hop_samples:
        raise UsageError(f"synthesis_samples is {synthesis_samples} but must be twice hop_samples ({hop_samples}).")
    if n_fft < synthesis_samples or n_fft % 2:
        raise UsageError(f"n_fft is {n_fft} but must be even and at least synthesis_samples ({synthesis_samples}).")
    hop = hop_samples

    def hann(length: int) -> NDArray[np.float64]:
        return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length))

    analysis = np.zeros(n_fft)
    analysis[: n_fft - hop] = np.sqrt(hann(2 * (n_fft - hop))[: n_fft - hop])
    analysis[n_fft - hop :] = np.sqrt(hann(2 * hop)[hop:])
    synthesis = np.zeros(n_fft)
    synthesis[n_fft - 2 * hop :] = hann(2 * hop)
    tail = slice(n_fft - 2 * hop, n_fft)
    synthesis[tail] /= np.maximum(analysis[tail], 1e-12)
    return analysis.astype(np.float32), synthesis.astype(np.float32)


@dataclass(frozen=True)
class Stft:
    """An STFT with dual windows: analysis and resynthesis of whole signals, and the streaming constants.

    Frame ``t`` covers the samples ``[(t + 1) * hop - n_fft, (t + 1) * hop)`` with silence before the start,
    which is what a streaming host sees once it has received ``t + 1`` hops.
    """

    n_fft: int = 1024
    hop_samples: int = 192
    synthesis_samples: int = 384

    @property
    def bins(self) -> int:
        """Number of frequency bins."""
        return self.n_fft // 2 + 1

    @cached_property
    def windows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Analysis and synthesis window as float32 tensors."""
        analysis, synthesis = dual_windows(self.n_fft, self.hop_samples, self.synthesis_samples)
        return torch.from_numpy(analysis), torch.from_numpy(synthesis)

    def analyse(self, signal: torch.Tensor) -> torch.Tensor:
        """``(batch, samples)`` to ``(batch, 2, frames, bins)``: real and imaginary part, unnormalised.

        ``samples`` is cut to a whole number of hops.
        """
        hop, n_fft = self.hop_samples, self.n_fft
        frames = signal.shape[-1] // hop
        padded = torch.nn.functional.pad(signal[..., : frames * hop], (n_fft - hop, 0))
        spectrum = torch.fft.rfft(padded.unfold(-1, n_fft, hop) * self.windows[0].to(signal.device))
        return torch.stack((spectrum.real, spectrum.imag), 1)

    def synthesise(self, spectrum: torch.Tensor) -> torch.Tensor:
        """``(batch, 2, frames, bins)`` to ``(batch, frames * hop)``, aligned with the signal analysed.

        The streaming output is this one delayed by ``synthesis_samples``. The last hop of the result is not
        complete: its second overlapping frame has not come yet.
        """
        hop, frames = self.hop_samples, spectrum.shape[2]
        full = torch.complex(spectrum[:, 0].contiguous(), spectrum[:, 1].contiguous())
        window = self.windows[1][-self.synthesis_samples :].to(spectrum.device)
        tail = torch.fft.irfft(full, self.n_fft)[..., -self.synthesis_samples :] * window
        first, second = tail[..., :hop], tail[..., hop:]
        # frame t ends at (t + 1) hops: its second half lies on hop t, its first half on hop t - 1
        signal: torch.Tensor = second + torch.nn.functional.pad(first[:, 1:], (0, 0, 0, 1))
        return signal.reshape(signal.shape[0], frames * hop)
