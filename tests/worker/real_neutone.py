# ruff: noqa: UP006, UP035 (what TorchScript wants)
"""A model as Neutone's own package exports it."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List

import torch
from neutone_sdk import NeutoneParameter, WaveformToWaveformBase
from neutone_sdk.utils import save_neutone_model

try:
    from neutone_sdk import ContinuousNeutoneParameter as Continuous
except ImportError:  # before 1.5
    Continuous = NeutoneParameter


class Quiet(torch.nn.Module):
    """Turns down."""

    def forward(self, x: torch.Tensor, cut: torch.Tensor) -> torch.Tensor:
        return x * (1.0 - cut)


class Wrapper(WaveformToWaveformBase):  # type: ignore[misc]
    """What the package wants to be told."""

    def get_model_name(self) -> str:
        return "fixture"

    def get_model_authors(self) -> List[str]:
        return ["Nobody"]

    def get_model_short_description(self) -> str:
        return "Turns down."

    def get_model_long_description(self) -> str:
        return "Turns down."

    def get_technical_description(self) -> str:
        return "A gain."

    def get_technical_links(self) -> Dict[str, str]:
        return {}

    def get_tags(self) -> List[str]:
        return ["gain"]

    def get_model_version(self) -> str:
        return "1.0.0"

    def is_experimental(self) -> bool:
        return False

    def get_neutone_parameters(self) -> List[NeutoneParameter]:
        return [Continuous("cut", "how much", default_value=0.5)]

    @torch.jit.export
    def is_input_mono(self) -> bool:
        return True

    @torch.jit.export
    def is_output_mono(self) -> bool:
        return True

    @torch.jit.export
    def get_native_sample_rates(self) -> List[int]:
        return [48000]

    @torch.jit.export
    def get_native_buffer_sizes(self) -> List[int]:
        return [512]

    def do_forward_pass(self, x: torch.Tensor, params: Dict[str, torch.Tensor]) -> torch.Tensor:
        return self.model(x, params["cut"])


def export(folder: Path) -> Path:
    """The file."""
    save_neutone_model(Wrapper(Quiet()), folder, dump_samples=False, submission=False)
    return folder / "model.nm"
