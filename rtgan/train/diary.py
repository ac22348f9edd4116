"""What a run leaves to read: ``log.jsonl``, and TensorBoard's files where that package is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def spectrogram(signal: Tensor, n_fft: int = 1024) -> Tensor:
    """Picture ``(1, bins, frames)`` in 0..1 of a signal ``(samples,)``, high frequencies above, -100..0 dB."""
    window = torch.hann_window(n_fft, device=signal.device)
    pieces = signal.unfold(-1, n_fft, n_fft // 4) * (2 * window / window.sum())
    decibel = 20 * torch.log10(torch.fft.rfft(pieces).abs().clamp_min(1e-7))
    return (1 + decibel / 100).clamp(0, 1).t().flip(0)[None]


#: What a line of the log holds beside losses.
_NO_LOSS = ("step", "seconds", "rate", "norm")


class Diary:
    """Writer of a run's figures and sounds.

    Parameters
    ----------
    folder : Path
        Run folder.
    tensorboard : bool
        Also write ``folder/tensorboard``, if the package is there.
    """

    def __init__(self, folder: Path, tensorboard: bool = True) -> None:
        self._log = (folder / "log.jsonl").open("a", encoding="utf-8")
        self._board: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return
            self._board = SummaryWriter(str(folder / "tensorboard"))

    def __enter__(self) -> Diary:
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()
        if self._board is not None:
            self._board.close()

    def figures(self, step: int, values: dict[str, Any], group: str = "train") -> None:
        """One line of the log; numbers also to TensorBoard under ``group/``."""
        rounded = {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}
        row = {"step": step} | (rounded if group == "train" else {group: rounded})
        self._log.write(json.dumps(row) + "\n")
        self._log.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{group}/{name}", value, step)

    def sounds(self, step: int, sample_rate_hz: int, sounds: dict[str, Tensor]) -> None:
        """Sounds ``(samples,)`` by name and their pictures, to TensorBoard only."""
        if self._board is None:
            return
        for name, signal in sounds.items():
            signal = signal.detach().float().cpu()
            self._board.add_audio(name, signal.clamp(-1, 1)[None], step, sample_rate_hz)
            self._board.add_image(name, spectrogram(signal), step)
        self._board.flush()


def curve(log: Path, points: int = 24) -> dict[str, list[float]]:
    """How a run's losses went: steps and means over as many stretches; empty where there is no log.

    A run that was resumed has some steps twice; the later ones count.
    """
    rows: dict[int, dict[str, float]] = {}
    for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else ():
        row = json.loads(line)
        numbers = {k: v for k, v in row.items() if isinstance(v, int | float) and k not in _NO_LOSS}
        if numbers:
            rows[int(row["step"])] = numbers
    steps = sorted(rows)
    stretches = [
        part for k in range(points) if (part := steps[k * len(steps) // points : (k + 1) * len(steps) // points])
    ]
    names = dict.fromkeys(name for step in steps for name in rows[step])
    found: dict[str, list[float]] = {"step": [float(part[-1]) for part in stretches]} if stretches else {}
    for name in names:
        # A loss that begins later is not known before.
        known = [[rows[step][name] for step in part if name in rows[step]] for part in stretches]
        if all(known):
            found[name] = [round(sum(part) / len(part), 5) for part in known]
    return found
