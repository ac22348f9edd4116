"""Random numbers of lowered programs: as NumPy has them, and as chance has them."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rtgan.errors import RtganError  # noqa: E402
from rtgan.generators import chance  # noqa: E402
from rtgan.generators.compile import Net, compile  # noqa: E402
from rtgan.generators.record import record  # noqa: E402


class Noise(torch.nn.Module):
    """Both kinds of noise, one of them scaled by what goes in."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x + torch.randn_like(x), torch.rand(1, 4096)


def made(seed: int) -> Net:
    return compile(record(Noise().eval(), [torch.zeros(1, 4096)], seed=seed), use_cache=False)


def test_a_program_draws_what_numpy_draws_run_after_run() -> None:
    net, source = made(3), chance.Source(3)
    arena = net.arena()
    for _ in range(3):
        source.again()
        net.run(arena)
        for place, kind in zip(net.outputs, ("normal", "uniform"), strict=True):
            assert np.abs(place.of(arena)[0] - source.draw(kind, 4096)).max() < 2e-6
    again = net.arena()
    net.run(again)
    assert not np.array_equal(net.outputs[0].of(again), net.outputs[0].of(arena))
    other = made(4)
    arena = other.arena()
    other.run(arena)
    assert not np.array_equal(other.outputs[0].of(arena), net.outputs[0].of(again))


def test_the_values_are_as_chance_has_them() -> None:
    source = chance.Source(0)
    runs = []
    for _ in range(64):
        source.again()
        runs.append((source.draw("normal", 1024), source.draw("uniform", 1024)))
    normal, uniform = (np.stack(k).astype(np.float64) for k in zip(*runs, strict=True))
    assert abs(normal.mean()) < 0.02 and abs(normal.var() - 1) < 0.03 and abs((normal**4).mean() - 3) < 0.2
    assert uniform.min() >= 0 and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.01
    for values in (normal, uniform - 0.5):
        along, across = (values[1:] * values[:-1]).mean(), (values[:, 1:] * values[:, :-1]).mean()
        assert max(abs(along), abs(across)) < 0.02


def test_without_a_seed_chance_is_refused() -> None:
    with pytest.raises(RtganError, match="aten::randn_like is random"):
        record(Noise().eval(), [torch.zeros(1, 8)])
