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
        "lookahead_frames": 2,
        "network": {
            "n_fft": 256,
            "hop_samples": 48,
            "low_bins": 16,
            "bands": 12,
            "hidden": 16,
            "taps": [0, 2, 3],
            "lookaheads": [0, 2],
        },
        "mixing": {"seconds": 0.3, "reverb_chance": 0.5, "speechless_chance": 0.2},
        "losses": {"compressed": {"weight": 1.0, "n_fft": [256]}, "si_sdr": {"weight": 0.01}},
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
