"""A generator with a card that cannot be lowered: the same sound from a worker, and the reason why."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from playing import Rig
from support import speechlike

from rtgan import cli as command_line
from rtgan import model_check

CARD = {
    "schema": 1, "name": "small", "task": "denoise", "version": 1, "licence": "MIT", "description": "A net for tests.",
    "sample_rate_hz": 48000, "n_fft": 128, "hop_samples": 64, "synthesis_samples": 128, "lookahead_frames": 1,
    "latency_samples": 192, "channels": 1, "state_size": 24, "parameters": 10, "macs_per_frame": 10,
    "training": {"sources": ["nothing"], "commit": "none", "steps": 0}, "metrics": {},
}  # fmt: skip
VALUES = {"amount_db": 30.0, "sensitivity": 20.0, "link": 1.0, "post_gain_db": 3.0}


class Plain(torch.nn.Module):
    """A small denoiser of the frame before."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.enter, self.leave = torch.nn.Linear(65, 24), torch.nn.Linear(24, 65)
        self.core = torch.nn.GRUCell(24, 24)

    def work(self, frame: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        old = state[:, 24:].view(1, 2, 65)
        x = torch.log(frame[:, 0] ** 2 + frame[:, 1] ** 2 + 1e-6)
        held = self.core(torch.tanh(self.enter(x)), state[:, :24])
        return old * torch.sigmoid(self.leave(held)).unsqueeze(1), torch.cat([held, frame.reshape(1, 130)], 1)

    def forward(self, frame: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.work(frame, state)


class Choosy(Plain):
    """The same, in a way that depends on the sound."""

    def forward(self, frame: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if bool(frame.abs().max() > 1e6):
            return frame, state
        return self.work(frame, state)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards")
    for made in (Plain(), Choosy()):
        extra = {"card.json": json.dumps({**CARD, "state_size": 24 + 130})}
        path = folder / f"{type(made).__name__.lower()}.ts"
        torch.jit.save(torch.jit.script(made.eval()), str(path), _extra_files=extra)
    return folder


def rig(path: Path) -> Rig:
    from rtgan.plugin import plugin_class

    options = {"model": str(path)}
    made = plugin_class("model").variant(options, load=True)
    assert made is not None
    return Rig.of(made(**options), 48000, 2, VALUES)


def test_it_sounds_from_a_worker_as_it_would_on_the_audio_thread(models: Path) -> None:
    sound = np.stack([speechlike(0.2, seed=1), speechlike(0.2, seed=2)], 1)
    native, worker = rig(models / "plain.ts"), rig(models / "choosy.ts")
    notice = worker.graph.chain[0].plugin.notice
    assert "in a worker: the generator cannot be lowered" in notice and "test_frames.py, line" in notice
    shift = worker.latency - native.latency
    assert native.latency == 192 and shift == 512 + 512 - 64
    a, b = native.run(sound), worker.run(sound)
    assert not worker.graph.problems
    # Two Fourier transforms, and logarithms of what is nearly silence.
    assert np.abs(a[:-shift] - b[shift:]).max() < 1e-3 * np.abs(a).max()


def test_info_and_doctor_say_where_it_runs(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_check, "SAFE", 1e3)  # whatever else this machine does
    assert command_line.main(["info", str(models / "choosy.ts")]) == 0
    told = capsys.readouterr().out
    assert "in a worker: the generator cannot be lowered" in told and "test_frames.py, line" in told
    assert command_line.main(["info", str(models / "plain.ts")]) == 0
    assert "in a worker" not in capsys.readouterr().out
    assert command_line.main(["doctor", str(models / "choosy.ts")]) == 0
    told = capsys.readouterr().out
    assert "it runs in a worker" in told and "1216 samples" in told and "measured 1216" in told
