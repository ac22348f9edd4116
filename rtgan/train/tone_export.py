"""From a run of the note-playing net to a TorchScript file with its card, its timbres and a test vector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..kernels.partials import HARMONICS
from .checkpoint import load_averaged, load_checkpoint
from .export import TEST_VECTOR, course_card, save_model
from .networks import count_parameters
from .notes import HOP, RATE_HZ
from .tone_loop import ToneConfig, parse_tone_config
from .tones import FIRST, OUTPUTS, Playing, ToneNet, one_hot, rows_of

_VECTOR_ROWS = 64
_LEVEL_DB, _SPAN_DB, _SOFTEST = -17.0, 26.0, 0.15


def net_of(content: Mapping[str, Any]) -> tuple[ToneConfig, ToneNet]:
    """The averaged net of a checkpoint, and its config."""
    config = parse_tone_config(content["config"], "checkpoint")
    net = ToneNet(config.network, len(config.timbres))
    load_averaged(net, content)
    return config, net.eval()


def export_tones(
    run: Path,
    path: Path,
    name: str | None = None,
    description: str | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Export the averaged weights of a run; returns the card."""
    content = load_checkpoint(run)
    config, net = net_of(content)
    playing = Playing(net).eval()
    inputs = FIRST + len(config.timbres) + config.network.latents
    ranges = content["ranges"]
    # A run that was ended by force has not measured them: what it plays does not waver.
    wavers = content.get("wavers") or [{}] * len(ranges)
    timbres = [
        {
            "name": timbre,
            "sustains": settings.sustains,
            "release_ms": float(settings.release_ms),
            "lowest": round(low),
            "highest": round(high),
            **wavers[number],
            **_levels(net, number, len(config.timbres), config.network.latents, round(low), round(high)),
        }
        for number, ((timbre, settings), (low, high)) in enumerate(zip(config.timbres.items(), ranges, strict=True))
    ]
    card = course_card(content, config, run, name, description, metrics) | {
        "sample_rate_hz": RATE_HZ,
        "hop_samples": HOP,
        "state_size": 0,
        "inputs": inputs,
        "outputs": OUTPUTS,
        "latents": config.network.latents,
        "timbres": timbres,
        "parameters": count_parameters(net),
        "macs_per_frame": net.known.numel() + sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Linear)),
        "test_vector": {"file": TEST_VECTOR, "rows": _VECTOR_ROWS, "encoding": "base64 of npz: input, output"},
    }
    rows = example_rows(len(config.timbres), config.network.latents)
    with torch.no_grad():
        module = torch.jit.trace(playing, rows[:1])  # type: ignore[no-untyped-call]
        answers = torch.cat([module(row[None]) for row in rows])
    save_model(module, card, rows.numpy(), answers.numpy(), path)
    return card


def _levels(net: ToneNet, number: int, timbres: int, latents: int, lowest: int, highest: int) -> dict[str, float]:
    """What brings a timbre to `_LEVEL_DB` where it is struck hardest, and its softest to `_SPAN_DB` below."""
    notes = torch.arange(lowest, highest + 1, dtype=torch.float32)
    seconds = torch.linspace(0.01, 0.6, 24)
    pitch, moment = notes.repeat_interleave(len(seconds)), seconds.repeat(len(notes))
    share = one_hot([number] * len(pitch), timbres)
    loud = []
    for velocity in (1.0, _SOFTEST):
        rows = rows_of(pitch, torch.full_like(pitch, velocity), moment, share, torch.zeros(len(pitch), latents))
        with torch.no_grad():
            heard = Playing(net)(rows)
        audible = (notes_hz(pitch)[:, None] * torch.arange(1, HARMONICS + 1)) < 20000
        power = (heard[:, :HARMONICS].square() * audible).sum(1) / 2 + heard[:, HARMONICS:-1].square().sum(1)
        loudest = 10 * torch.log10(power.view(len(notes), -1).amax(1) + 1e-12)
        loud.append(loudest)
    level = float(loud[0].quantile(0.9))
    span = float((loud[0] - loud[1]).mean())
    return {
        "level_db": round(min(12.0, max(-12.0, _LEVEL_DB - level)), 1),
        "dynamics_db": round(min(_SPAN_DB, max(0.0, _SPAN_DB - span)), 1),
    }


def notes_hz(pitch: torch.Tensor) -> torch.Tensor:
    """Fundamentals of MIDI notes."""
    return 440 * 2 ** ((pitch - 69) / 12)


def example_rows(timbres: int, latents: int, rows: int = _VECTOR_ROWS) -> torch.Tensor:
    """Reproducible rows for the net: notes of all timbres, at all moments."""
    rng = np.random.default_rng(3)
    shares = rng.dirichlet(np.full(timbres, 0.3), rows)
    columns = (rng.uniform(24, 104, rows), rng.uniform(0.1, 1, rows), rng.exponential(0.8, rows))
    whole = np.concatenate([np.stack(columns, 1), shares, rng.normal(0, 0.5, (rows, latents))], 1)
    return torch.from_numpy(whole.astype(np.float32))
