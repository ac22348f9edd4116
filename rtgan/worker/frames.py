"""A generator with a card that cannot be lowered, played frame by frame in TorchScript. Runs in workers.

It does what `rtgan.plugins.denoise` does on the audio thread, with the same transform and the same parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rtgan.generators.card import read_card
from rtgan.kernels.stft import dual_windows
from rtgan.worker.dialects import Choices, Player, open_file
from rtgan.worker.spec import Spec

Spectra = NDArray[np.complex64]
_TINY = 1e-20


class FramePlayer(Player):
    """Streams of spectra; the values are amount in dB, sensitivity, link and level behind it in dB."""

    DEFAULTS = (100.0, 0.0, 1.0, 0.0)

    def __init__(self, spec: Spec, choices: Choices) -> None:
        torch.set_num_threads(choices.threads)
        self.spec, self.choices = spec, choices
        self._card = card = read_card(spec.path)
        self._module = open_file(spec.path)[0]
        self._windows = dual_windows(card.n_fft, card.hop_samples, card.synthesis_samples)
        self._begin()

    def _begin(self) -> None:
        self._values = list(self.DEFAULTS)
        self.refused = []
        self._warm_up()

    def reset(self) -> None:
        """Back to how it was after loading."""
        torch.manual_seed(self.choices.seed)
        card, channels = self._card, self.choices.channels
        self._states = [[torch.zeros(s) for s in card.shapes[1:]] for _ in range(channels)]
        self._heard = np.zeros((channels, card.n_fft), np.float32)
        self._sums = np.zeros((channels, card.synthesis_samples), np.float32)
        self._old = [np.zeros((channels, card.bins), np.complex64) for _ in range(card.lookahead_frames)]

    @torch.inference_mode()
    def play(self, sound: torch.Tensor, values: Sequence[float]) -> torch.Tensor:
        """The next block, (channels, block), with the values that hold at its end."""
        hop = self._card.hop_samples
        parts = [self._hop(part, values) for part in np.split(sound.numpy(), sound.shape[1] // hop, 1)]
        return torch.from_numpy(np.concatenate(parts, 1) * np.float32(10.0 ** (values[3] / 20.0)))

    def _hop(self, sound: NDArray[np.float32], values: Sequence[float]) -> NDArray[Any]:
        analysis, synthesis = self._windows
        hop, last = self._card.hop_samples, self._card.synthesis_samples
        self._heard = np.concatenate([self._heard[:, hop:], sound], 1)
        spectra = np.fft.rfft(self._heard * analysis).astype(np.complex64)
        made = np.stack([self._answer(c, x) for c, x in enumerate(spectra)])
        # It answers for the frame that many hops ago: what stays of the input is of that frame.
        self._old.append(spectra)
        given = self._old.pop(0)
        amount, sensitivity, link, _ = values
        if link > 0 and len(made) > 1:
            power = (np.abs(given) ** 2).sum(0) + _TINY
            made = made * (1 - link) + link * given * (made * given.conj()).sum(0) / power
        if sensitivity:
            ratio = (np.abs(made) ** 2 + _TINY) / (np.abs(given) ** 2 + _TINY)
            made = made * np.minimum(ratio, 1.0) ** (0.5 * (2.0 ** (sensitivity / 50.0) - 1.0))
        keep = 10.0 ** (-amount / 20.0)
        frames = np.fft.irfft(given * keep + made * (1 - keep), self._card.n_fft).astype(np.float32) * synthesis
        self._sums += frames[:, -last:]
        out = self._sums[:, :hop].copy()
        self._sums = np.concatenate([self._sums[:, hop:], np.zeros((len(out), hop), np.float32)], 1)
        return out

    def _answer(self, channel: int, spectrum: Spectra) -> Spectra:
        frame = torch.from_numpy(np.stack([spectrum.real, spectrum.imag])[None])
        answer, *states = self._module(frame, *self._states[channel])
        self._states[channel] = states[: len(self._states[channel])]
        real, imaginary = answer[0].numpy()
        return np.asarray(real + 1j * imaginary, np.complex64)
