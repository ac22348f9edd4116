"""The net of the codec's music mode: it says how loud what was told as zero is, by what was told around it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..kernels import music


@dataclass(frozen=True)
class MusicSettings:
    """Size of the net."""

    width: int = 48

    def __post_init__(self) -> None:
        if not 8 <= self.width <= 1024:
            raise UsageError("network: width must lie in 8..1024.")


class MusicNet(nn.Module):
    """Rows of frames in, powers of two of energy out; a recurrent net that starts anew with each packet."""

    def __init__(self, settings: MusicSettings) -> None:
        super().__init__()
        self.width = settings.width
        self.front = nn.Linear(music.ROW, settings.width)
        self.memory = nn.GRU(settings.width, settings.width, batch_first=True)
        self.out = nn.Linear(2 * settings.width, music.BANDS)
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)

    def sequence(self, rows: Tensor) -> Tensor:
        """Rows ``(pieces, frames, ROW)`` to answers ``(pieces, frames, BANDS)``."""
        x = torch.relu(self.front(rows))
        answer: Tensor = self.out(torch.cat((x, self.memory(x)[0]), -1))
        return answer

    def forward(self, row: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One row ``(1, ROW)`` and the state ``(1, width)`` before it to its answer and the state after it."""
        x = torch.relu(self.front(row))
        h = self.memory(x[:, None], state[None])[1][0]
        return self.out(torch.cat((x, h), -1)), h
