"""From a run of the recogniser to a TorchScript file with its card, its labels and a test vector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import UsageError
from .checkpoint import load_averaged, load_checkpoint
from .export import TEST_VECTOR, course_card, save_model, traced
from .networks import count_parameters
from .tag_data import BINS, GROUPS, HOP_S, MELS, WINDOW_S
from .tag_loop import LOUDEST, TagConfig, parse_tag_config
from .tags import Listening, TagNet

#: What the shipped form listens to; other rates get the same frequencies by frames of another length.
RATE_HZ = 48000
_HOP, _N_FFT = round(HOP_S * RATE_HZ), round(WINDOW_S * RATE_HZ)
_VECTOR_FRAMES = 40


def net_of(content: Mapping[str, Any]) -> tuple[TagConfig, TagNet]:
    """The averaged net of a checkpoint, and its config."""
    config = parse_tag_config(content["config"], "checkpoint")
    if content.get("groups") != list(GROUPS):
        raise UsageError("The checkpoint is of an earlier form of the net; train it anew.")
    net = TagNet(config.network, len(content["labels"]), len(GROUPS), len(config.delays_ms))
    load_averaged(net, content)
    return config, net.eval()


def export_tags(
    run: Path,
    path: Path,
    name: str | None = None,
    description: str | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Export the averaged weights of a run; returns the card."""
    content = load_checkpoint(run)
    config, net = net_of(content)
    told = [k for k, label in enumerate(content["labels"]) if label in config.tell]
    groups = [k for k, label in enumerate(LOUDEST) if label in config.tell]
    apart = config.delays_frames[-1] - config.delays_frames[0]
    module = Listening(net, content["calibration"], content["sharpness"], told, groups, _N_FFT, apart).eval()
    products = (module.gather, module.judge, module.out, module.compare, module.first, *module.moments)
    macs = BINS * MELS + sum(m.weight.numel() for m in products)
    if net.memory is not None:
        macs += sum(p.numel() for name, p in net.memory.named_parameters() if name.startswith("weight"))
    bands = MELS
    for filter in module.filters:
        assert isinstance(filter, torch.nn.Conv2d)
        bands //= filter.stride[1]
        macs += filter.weight.numel() * bands
    card = course_card(content, config, run, name, description, card_figures(metrics or {})) | {
        "sample_rate_hz": RATE_HZ,
        "n_fft": _N_FFT,
        "hop_samples": _HOP,
        "synthesis_samples": _HOP,
        "lookahead_frames": config.delays_frames[0],
        "state_size": module.state_size,
        "labels": [*(content["labels"][k] for k in told), *(LOUDEST[k] for k in groups)],
        "parameters": count_parameters(net),
        "macs_per_frame": macs,
        "test_vector": {
            "file": TEST_VECTOR,
            "frames": _VECTOR_FRAMES,
            "encoding": "base64 of npz: input, output",
        },
    }
    if len(config.delays_frames) > 1:
        card["late_frames"] = config.delays_frames[1]
    spectra = example_spectra()
    made, answers = traced(module, spectra, torch.zeros(1, module.state_size))
    save_model(made, card, spectra.numpy(), answers.numpy(), path)
    return card


def card_figures(results: Mapping[str, Any]) -> dict[str, float]:
    """What a card says of the figures that ``rtgan eval tags --json`` writes, those of its first model."""
    figures = next(iter(results.values()), None)
    if figures is None:
        return {}
    try:
        found: dict[str, float] = {}
        for name, answer in figures["answers"].items():
            found[f"speech_music_noise_accuracy_{name}"] = answer["speech_music_noise"]["accuracy"]
            found[f"calibration_error_{name}"] = answer["calibration_error"]
        return found | ({"clips_accuracy": figures["clips"]["accuracy"]} if figures["clips"] else {})
    except (KeyError, TypeError):
        raise UsageError("The figures are not those of 'rtgan eval tags --json'.") from None


def example_spectra(frames: int = _VECTOR_FRAMES) -> torch.Tensor:
    """Reproducible spectra ``(frames, 2, bins)``: noise whose level and colour change."""
    rng = np.random.default_rng(4)
    level = 10 ** rng.uniform(-3, 1.5, (frames, 1, 1)) * np.exp(-rng.uniform(0, 3) * np.linspace(0, 1, _N_FFT // 2 + 1))
    return torch.from_numpy((rng.normal(0, 1, (frames, 2, _N_FFT // 2 + 1)) * level).astype(np.float32))
