"""A module as nn~'s own package exports it."""

from __future__ import annotations

from pathlib import Path

import cached_conv as cc
import nn_tilde
import torch


class Model(nn_tilde.Module):  # type: ignore[misc]
    """Convolutions with caches, two attributes, latents at a 16th of the rate."""

    def __init__(self) -> None:
        super().__init__(48000)
        torch.manual_seed(2)
        self.smooth = cc.Conv1d(1, 1, 9, padding=cc.get_padding(9), bias=False)
        self.register_attribute("gain", 1.0)
        self.register_attribute("flip", False)
        self.register_method("forward", 1, 1, 1, 1)
        self.register_method("encode", 1, 1, 16, 16)
        self.register_method("decode", 16, 16, 1, 1)
        self.finish()

    @torch.jit.export
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.smooth(x) * self.gain[0]
        return -y if self.flip[0] else y

    @torch.jit.export
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], -1, 16).transpose(1, 2)

    @torch.jit.export
    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return z.transpose(1, 2).reshape(z.shape[0], 1, -1)

    @torch.jit.export
    def get_gain(self) -> float:
        return self.gain[0]

    @torch.jit.export
    def set_gain(self, value: float) -> int:
        self.gain = (value,)
        return 0

    @torch.jit.export
    def get_flip(self) -> bool:
        return self.flip[0]

    @torch.jit.export
    def set_flip(self, value: bool) -> int:
        self.flip = (value,)
        return 0


def export(folder: Path) -> Path:
    """The file."""
    cc.use_cached_conv(True)
    path = folder / "real.ts"
    Model().export_to_ts(str(path))
    return path
