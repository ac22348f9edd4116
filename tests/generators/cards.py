"""The card of the small model."""

from __future__ import annotations

from typing import Any

CARD: dict[str, Any] = {
    "schema": 1, "name": "small", "task": "denoise", "version": 1, "licence": "MIT", "description": "A net for tests.",
    "sample_rate_hz": 48000, "n_fft": 128, "hop_samples": 64, "synthesis_samples": 128, "lookahead_frames": 0,
    "latency_samples": 128, "channels": 1, "state_size": 24, "parameters": 10, "macs_per_frame": 10,
    "training": {"sources": ["nothing"], "commit": "none", "steps": 0}, "metrics": {"si_sdr_db": 1.5},
    "test_vector": {"file": "vector.b64", "frames": 8},
}  # fmt: skip
