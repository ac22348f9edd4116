"""From a run of the net that fills gaps to a TorchScript file with its card and a test vector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import UsageError
from ..kernels.conceal import ANSWER, BANDS, PAST, ROW, hop_of
from .checkpoint import load_averaged, load_checkpoint
from .export import TEST_VECTOR, course_card, save_model, traced
from .mixing import SAMPLE_RATE_HZ
from .networks import count_parameters
from .repair import Playing, RepairNet
from .repair_loop import RepairConfig, parse_repair_config

_VECTOR_ROWS = 48


def net_of(content: Mapping[str, Any]) -> tuple[RepairConfig, RepairNet]:
    """The averaged net of a checkpoint, and its config."""
    config = parse_repair_config(content["config"], "checkpoint")
    net = RepairNet(config.network)
    load_averaged(net, content)
    return config, net.eval()


def example_rows() -> torch.Tensor:
    """Reproducible rows for the net: frames before a gap, then frames of it."""
    rng = np.random.default_rng(4)
    rows = rng.uniform(-1, 1.5, (_VECTOR_ROWS, ROW)).astype(np.float32)
    rows[:, BANDS:] = np.clip(rows[:, BANDS:], 0, 1)
    rows[:PAST, BANDS:] = 0
    return torch.from_numpy(rows)


def for_card(figures: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A model's own scores by kind and share of loss, out of the figures of ``rtgan eval repair``."""
    try:
        own = {case: value for case, value in figures["systems"][name].items() if case != "latency_ms"}
        return {"data": figures["data"], "pieces": figures["pieces"], **own}
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"The figures hold no scores of {name!r}.") from error


def export_repair(
    run: Path,
    path: Path,
    name: str | None = None,
    description: str | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Export the averaged weights of a run; returns the card."""
    content = load_checkpoint(run)
    config, net = net_of(content)
    figures = for_card(metrics, name or config.name) if metrics else {}
    card = course_card(content, config, run, name, description, figures) | {
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "hop_samples": hop_of(SAMPLE_RATE_HZ),
        "state_size": net.width,
        "inputs": ROW,
        "outputs": ANSWER,
        "parameters": count_parameters(net),
        "macs_per_frame": sum(p.numel() for p in net.parameters() if p.ndim == 2),
        "test_vector": {"file": TEST_VECTOR, "rows": _VECTOR_ROWS, "encoding": "base64 of npz: input, output"},
    }
    rows = example_rows()
    module, answers = traced(Playing(net).eval(), rows, torch.zeros(1, net.width))
    save_model(module, card, rows.numpy(), answers.numpy(), path)
    return card
