"""From a run of the codec's music mode to a TorchScript file with its card, tables and a test vector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import UsageError
from ..kernels import entropy, music
from .checkpoint import load_averaged, load_checkpoint
from .export import TEST_VECTOR, course_card, own_figures, save_model, traced
from .music_loop import MusicConfig, parse_music_config
from .music_net import MusicNet
from .networks import count_parameters

#: Tables in the file.
TABLES = "music.npz.b64"
#: What the names of our systems in measurements begin with.
OURS = "rtgan, music, "
_VECTOR_ROWS = 40
_BELIEF = 20.0
"""So many symbols count as much as what holds for all rows of a kind."""
_STILL = 1000.0


def net_of(content: Mapping[str, Any]) -> tuple[MusicConfig, MusicNet]:
    """The averaged net of a checkpoint, and its config."""
    config = parse_music_config(content["config"], "checkpoint")
    net = MusicNet(config.network)
    load_averaged(net, content)
    return config, net.eval()


def tables_of(counts: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Tables of counts (rows, symbols), where few were seen after what holds for all rows of a kind."""
    believed = counts + 1e-3
    kinds = (
        (music.FIRST_ROWS, music.ENERGY_ROWS),
        (music.ENERGY_ROWS, music.GAIN_ROWS),
        (music.GAIN_ROWS, music.VALUE_ROWS),
        (music.VALUE_ROWS, music.LENGTH_ROW),
    )
    for first, end in kinds:
        whole = counts[first:end].sum(0) + 1e-3
        believed[first:end] += _BELIEF * whole / whole.sum()
    # Recordings were cut where they fall silent, so that they hardly say that silence lasts.
    believed[music.KIND_ROWS + music.SILENT, music.SILENT] += _STILL
    # Kinds of frames that were never seen, signs and the bits of large numbers: as likely as each other.
    believed[music.KIND_ROWS : music.FIRST_ROWS, : music.SHORT + 1] += 1
    believed[music.LENGTH_ROW, : music.LARGE] += 1
    believed[music.EVEN_ROW] = 1e-6
    believed[music.EVEN_ROW, :2] = 1
    return entropy.cumulated(believed)


def export_music(
    run: Path,
    path: Path,
    name: str | None = None,
    description: str | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Export the averaged weights of a run; returns the card."""
    content = load_checkpoint(run)
    config, net = net_of(content)
    if content["counts"] is None:
        raise UsageError("The run was cut off before its symbols were counted: go on with 'rtgan train --resume'.")
    figures = own_figures(metrics, OURS, r"[\d.]+ kbit/s", "rtgan eval codec --music --json")
    card = course_card(content, config, run, name, description, figures) | {
        "sample_rate_hz": music.RATE_HZ,
        "hop_samples": music.FRAME,
        "latency_samples": 3 * music.FRAME,
        "state_size": net.width,
        "inputs": music.ROW,
        "outputs": music.BANDS,
        "parameters": count_parameters(net),
        "macs_per_frame": sum(p.numel() for p in net.parameters() if p.ndim == 2),
        "test_vector": {"file": TEST_VECTOR, "rows": _VECTOR_ROWS, "encoding": "base64 of npz: input, output"},
    }
    rows = torch.from_numpy(np.random.default_rng(5).normal(0, 1, (_VECTOR_ROWS, music.ROW)).astype(np.float32))
    module, answers = traced(net, rows, torch.zeros(1, net.width))
    beside: dict[str, dict[str, NDArray[Any]]] = {
        TABLES: {"tables": tables_of(content["counts"].numpy()), "tilt": config.tilts}
    }
    save_model(module, card, rows.numpy(), answers.numpy(), path, beside)
    return card
