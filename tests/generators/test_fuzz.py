"""Random programs of views, copies, in-place writes and state, against torch: what merging steps could get wrong."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from comparing import worst  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402

torch.set_num_threads(1)
SHAPES = [(2, 3, 8), (1, 40)]


def program(seed: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A function of (frame, state) whose course is fixed by the seed."""
    plan = random.Random(seed).getrandbits(64)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(8, 8, generator=generator) * 0.3
    kernel = torch.randn(3, 3, 3, generator=generator) * 0.3

    def run(frame: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        pick = random.Random(plan)
        pool = [frame, state[:, 8:32].reshape(1, 3, 8).expand(2, 3, 8), (frame + state[:, :8]).tanh()]

        def any_of() -> Tensor:
            return pick.choice(pool)

        for _ in range(pick.randint(3, 14)):
            x, y = any_of(), any_of()
            kind = pick.randrange(15)
            if kind == 0:
                z = x + y
            elif kind == 1:
                z = torch.sigmoid(x) * y
            elif kind == 2:
                k = pick.randint(1, 7)
                z = torch.cat([x[..., k:], y[..., :k]], 2)
            elif kind == 3:
                z = x.transpose(0, 2).contiguous().tanh().transpose(0, 2)
            elif kind == 4:
                z = (x.reshape(2, 24) * 0.5).reshape(2, 8, 3).transpose(1, 2)
            elif kind == 5:
                z = x.clone()
                z[:, pick.randrange(3)] = y[:, 0] * 2
            elif kind == 6:
                z = torch.zeros(2, 3, 8)
                z[:, :, 1:6] = x[:, :, 2:7]
                z[:, 1:] += y[:, :2]
            elif kind == 7:
                z = F.linear(x, weight)
            elif kind == 8:
                z = torch.relu(F.conv1d(x, kernel, padding=1))
            elif kind == 9:
                z = F.pad(x, (2, 0))[..., :8] - y
            elif kind == 10:
                z = x - x.mean(-1, keepdim=True)
            elif kind == 11:
                z = torch.stack([x[0], y[1]], 0).flip(1)
            elif kind == 12:
                z = x.clone()
                z.mul_(0.5).add_(y)
                pool.append(z[:, :, :4].repeat(1, 1, 2))
            elif kind == 13:
                a, b, c = x.split(1, 1)
                z = torch.cat([c, a * b, a], 1)
            else:
                z = torch.softmax(x.permute(1, 0, 2).reshape(3, 16), -1).reshape(3, 2, 8).permute(1, 0, 2)
            pool.append(z)
        out = any_of() + pool[-1]
        shifted = state[:, 5:37]
        fresh = pool[-1][0, 0, :8].reshape(1, 8).tanh()

        def moved_up() -> Tensor:
            z = torch.zeros(1, 40)
            z[:, 8:] = state[:, :32]
            z[:, :8] = pool[-1][0, 0, :8].sin()
            return z

        kinds = [
            moved_up,
            lambda: torch.cat([shifted, fresh], 1),
            lambda: torch.cat([fresh, state[:, :32]], 1),
            lambda: torch.cat([state[:, 8:], fresh], 1),
            lambda: torch.cat([fresh, shifted * 0.5], 1),
        ]
        return out.clone() if pick.random() < 0.5 else out, pick.choice(kinds)()

    return run


@pytest.mark.parametrize("seed", range(40))
def test_random_program(seed: int) -> None:
    assert worst(program(seed), SHAPES, 4, [(1, 1)]) < 1e-5
