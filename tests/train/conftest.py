"""Tiny nets and generated sounds for the tests of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def corpus() -> Any:
    from rtgan.train.data import generated_corpus

    return generated_corpus(seed=3, seconds=1.0, voices=6)


@pytest.fixture
def tiny() -> dict[str, Any]:
    """Plain values of a config that trains in milliseconds."""
    return {
        "name": "tiny",
        "steps": 4,
        "batch": 4,
        "warmup_steps": 1,
        "workers": 0,
        "checkpoint_every": 1000,
        "network": {
            "n_fft": 256,
            "hop_samples": 96,
            "rows": [[8, 2], [4, 4], [4, 24]],
            "narrow": 4,
            "wide": 8,
            "blocks": 1,
        },
        "mixing": {"seconds": 0.3, "reverb_chance": 0.5, "speechless_chance": 0.2},
        "losses": {"compressed": {"weight": 1.0, "n_fft": [256]}, "si_sdr": {"weight": 0.01}},
        "develop": {"every_steps": 0, "mixes": 2},
    }


@pytest.fixture
def adversary() -> dict[str, Any]:
    """The section of a config that adds small discriminators."""
    return {
        "start_step": 1,
        "lead_steps": 1,
        "segment_seconds": 0.1,
        "discriminators": [
            {"kind": "stft", "n_fft": 256, "channels": 4, "norm": "spectral"},
            {"kind": "period", "period": 3, "channels": 4},
            {"kind": "scale", "factor": 2, "channels": 4},
        ],
    }


@pytest.fixture
def config(tiny: dict[str, Any]) -> Any:
    from rtgan.train.loop import parse_config

    return parse_config(tiny, "tiny.yaml")


@pytest.fixture
def run(config: Any, corpus: Any, tmp_path: Path) -> Path:
    """A finished run of a few steps."""
    from rtgan.train.loop import Trainer

    Trainer(config, corpus, tmp_path / "run").run(progress=False)
    return tmp_path / "run"
