"""A small model with a card, as an export would write it."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from cards import CARD


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TorchScript file ``forward((1, 2, 65), (1, 24))`` with card and test vector."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    torch.manual_seed(11)

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.leave = torch.nn.Linear(65, 24), torch.nn.Linear(24, 65)
            self.core = torch.nn.GRUCell(24, 24)

        def forward(self, frame, state):  # type: ignore[no-untyped-def]
            x = torch.log(frame[:, 0] ** 2 + frame[:, 1] ** 2 + 1e-6)
            state = self.core(torch.tanh(self.enter(x)), state)
            return frame * torch.sigmoid(self.leave(state)).unsqueeze(1), state

    module = torch.jit.script(Small().eval())
    frames, state, answers = torch.randn(8, 2, 65), torch.zeros(1, 24), []
    with torch.no_grad():
        for frame in frames:
            answer, state = module(frame[None], state)
            answers.append(answer[0])
    packed = io.BytesIO()
    np.savez(packed, input=frames.numpy(), output=torch.stack(answers).numpy())
    path = tmp_path_factory.mktemp("models") / "small.ts"
    extra = {"card.json": json.dumps(CARD), "vector.b64": base64.b64encode(packed.getvalue()).decode()}
    torch.jit.save(module, str(path), _extra_files=extra)
    return path


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    path = tmp_path / "cache"
    monkeypatch.setenv("RTGAN_CACHE_DIR", str(path))
    return path
