"""The look at held-out recordings while training: the same few mixes each time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UsageError
from .config import METRICS, DevelopSettings
from .data import Corpus
from .losses import LossSum, level_scale
from .mixing import PLAIN, Mixer
from .stft import Stft

_SEED = 4711  # not that of `evaluate.development_mixes`: what chose the weights does not measure them
_TOGETHER = 8


def enhance(net: nn.Module, stft: Stft, noisy: Tensor) -> Tensor:
    """Signals ``(batch, samples)`` through the net, aligned with the input."""
    hop = stft.hop_samples
    padded = nn.functional.pad(noisy, (0, hop + (-noisy.shape[-1]) % hop))
    out, _ = net(stft.analyse(padded))
    return stft.synthesise(out)[..., : noisy.shape[-1]]


class Development:
    """Held-out mixes and what is measured on them.

    Parameters
    ----------
    corpus : Corpus
        Its held-out side is used.
    settings : DevelopSettings
        How many mixes and which metric decides.
    device : torch.device
        Where the net is.
    """

    def __init__(self, corpus: Corpus, settings: DevelopSettings, device: torch.device) -> None:
        self.settings = settings
        try:
            from . import scoring

            self._scores: Any = scoring.intrusive_scores()
        except Exception as error:
            if settings.metric == "pesq_wb":
                raise UsageError("develop.metric pesq_wb needs the package 'pesq': pip install rtgan[eval].") from error
            self._scores = None
        mixer = Mixer(corpus, PLAIN, _SEED, held_out=True)
        mixes = [mixer(number) for number in range(settings.mixes)]
        self.noisy = torch.stack([torch.from_numpy(mix.noisy) for mix in mixes]).to(device)
        self.clean = torch.stack([torch.from_numpy(mix.clean) for mix in mixes]).to(device)

    @torch.no_grad()
    def measure(self, net: nn.Module, stft: Stft, loss: LossSum) -> tuple[dict[str, float], Tensor]:
        """Figures by name, as in `config.METRICS`, and the enhanced mixes; the net is in evaluation mode."""
        pieces, total = [], 0.0
        for start in range(0, len(self.noisy), _TOGETHER):
            noisy, clean = self.noisy[start : start + _TOGETHER], self.clean[start : start + _TOGETHER]
            pieces.append(enhance(net, stft, noisy))
            scale = level_scale(noisy)
            total += float(loss.total(loss(pieces[-1] * scale, clean * scale))) * len(noisy)
        enhanced = torch.cat(pieces)
        figures = {"loss": total / len(enhanced)}
        from . import scoring

        given, wanted = enhanced.cpu().numpy(), self.clean.cpu().numpy()
        figures["si_sdr_db"] = float(np.mean([scoring.si_sdr_db(a, b) for a, b in zip(given, wanted, strict=True)]))
        if self._scores is not None:
            rows = [
                self._scores(scoring.at_16_khz(a, 48000), scoring.at_16_khz(b, 48000))
                for a, b in zip(given, wanted, strict=True)
            ]
            qualities = [row[0] for row in rows if row is not None]
            if qualities:
                figures["pesq_wb"] = float(np.mean(qualities))
        return figures, enhanced

    def better(self, figures: dict[str, float], than: dict[str, float] | None) -> bool:
        """Whether these figures are a new best by the metric that decides."""
        metric = self.settings.metric
        if metric not in figures:
            return False
        if than is None or metric not in than:
            return True
        return figures[metric] > than[metric] if METRICS[metric] else figures[metric] < than[metric]
