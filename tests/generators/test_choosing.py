"""What values decide, against torch: order, extremes, running sums, indices, whole numbers and truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from comparing import of_width, worst  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from rtgan.errors import NotLowered  # noqa: E402
from rtgan.generators.compile import compile, intermediate  # noqa: E402
from rtgan.generators.record import record  # noqa: E402
from rtgan.kernels import nn_jit  # noqa: E402

torch.set_num_threads(1)
S = (2, 5, 7)
TABLE = torch.linspace(-1, 1, 66).reshape(11, 6).sin()
BORDERS = torch.linspace(-1, 1, 9)


def ties(x: Tensor) -> Tensor:
    return (x * 2).round()


def assigned(x: Tensor, *where: Any, value: Any) -> Tensor:
    out = x.clone()
    out[where] = value
    return out


class Codes(nn.Module):
    """A vector quantiser: the nearest of 32 vectors, twice, the second time as residual."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.register_buffer("codes", torch.randn(32, 6))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = torch.cdist(x, self.codes).argmin(-1)
        quantised = F.embedding(first, self.codes)
        rest = (x - quantised).reshape(-1, 6)
        far = rest.pow(2).sum(1, keepdim=True) - 2 * rest @ self.codes.t() + self.codes.pow(2).sum(1)
        again = (-far).max(dim=-1)[1].view(x.shape[:-1])
        hot = F.one_hot(again, 32).float() @ self.codes
        return x + (quantised + hot - x).detach(), first.float()


class Line(nn.Module):
    """A delay line with a place of its own, a whole number that goes round."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("line", torch.zeros(3, 16))
        self.register_buffer("place", torch.zeros(1, dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        ahead = torch.arange(5)
        self.line[:, (self.place + ahead) % 16] = x
        self.place.copy_((self.place + 5) % 16)
        return torch.cat([self.line, self.line[:, (self.place - 1 - 3 * ahead) % 16]], 1)


CASES: dict[str, tuple[Any, list[tuple[int, ...]]]] = {
    "sort": (lambda x: (*torch.sort(x), *torch.sort(x, 1, descending=True)), [S]),
    "sort many": (lambda x: (torch.sort(ties(x), stable=True), torch.argsort(x, 0)), [(70, 3)]),
    "top": (lambda x: (*torch.topk(x, 3), torch.topk(x, 2, 1, largest=False)[0]), [S]),
    "in the middle": (lambda x: (*x.median(-1), x.median(), *x.kthvalue(2, 1, keepdim=True)), [S]),
    "extremes": (lambda x: (*x.max(1), *x.min(-1, keepdim=True), x.argmax(), x.argmin(1), torch.aminmax(x)), [S]),
    "first of equals": (lambda x: (ties(x).argmax(-1), ties(x).min(-1)[1]), [(3, 40)]),
    "running": (lambda x: (x.cumsum(1), x.cumprod(-1), x.cummax(1), x.cummin(0), x.logcumsumexp(2)), [S]),
    "running along rows": (lambda x: (x.cumsum(-1), x.cumsum(0)), [(3, 100)]),
    "gather": (lambda x: (x.gather(1, x.argsort(1)), torch.take_along_dim(x, x.argmax(2, True), 2)), [S]),
    "gather fewer": (lambda x: x.gather(1, x[:1, :2, :3].abs().long().clamp(max=4)), [S]),
    "index": (lambda x: (x[:, x[0, :, 0].argsort()], x[torch.arange(2), x[:, :, 0].argmax(1)]), [S]),
    "index far apart": (lambda x: (x[:, [[1, 4], [0, 2]]], x[[0, 1], :, [3, 5]], x[:, [0, 2], [1, 1]]), [S]),
    "index from the end": (lambda x: (x[:, x[0, :, 0].argsort() - 5], x[..., [-1, -3]]), [S]),
    "index by truth": (lambda x: x[:, torch.tensor([True, False, True, True, False])], [S]),
    "select": (lambda x: (x.index_select(1, x[0, :, 0].argsort()), x.take(torch.tensor([[3, 69], [0, 1]]))), [S]),
    "many runs": (lambda x: x[:, torch.arange(40) ** 2 % 37], [(2, 37)]),
    "embedding": (lambda x: F.embedding((x * 3).long().abs(), TABLE), [S]),
    "scatter": (lambda x: torch.zeros(2, 5, 7).scatter(2, x.argsort(2), x), [S]),
    "scatter a value": (lambda x: torch.zeros(2, 5, 7).scatter_(2, x.argmax(2, keepdim=True), 1.0) + x, [S]),
    "scatter fewer": (lambda x: x.scatter(1, x[:, :2, :3].argsort(1), 2 * x), [S]),
    "scatter and add": (lambda x: torch.ones(2, 5, 7).scatter_add(1, x.argsort(1) // 2, x), [S]),
    "put": (lambda x: assigned(x, slice(None), x[0, :, 0].argsort(), value=x * 2), [S]),
    "put at known places": (lambda x: assigned(x, slice(None), [0, 2], value=x[:, 1:3] + 1), [S]),
    "put and add": (lambda x: x.clone().index_put_((torch.tensor([1, 1]),), x, accumulate=True), [S]),
    "put where": (lambda x: (assigned(x, x < 0, value=0.5), assigned(x, x[..., 0] < 0, value=0.5)), [S]),
    "add by index": (lambda x: torch.zeros(2, 3, 7).index_add(1, torch.tensor([0, 1, 2, 0, 1]), x), [S]),
    "copy by index": (lambda x: x.index_copy(1, torch.tensor([4, 0]), x[:, 1:3]).index_fill(2, TEN, 3.0), [S]),
    "roll": (lambda x: (x.roll((2, -1), (1, 2)), x.roll(3), x.roll(-2, -1)), [S]),
    "turn": (lambda x: (x.rot90(1, (1, 2)), x.rot90(2, (1, 2)), x.rot90(3, (1, 2)), x.flip(0, 2)), [S]),
    "repeat": (lambda x: (x.repeat_interleave(torch.tensor([1, 2, 0, 3, 1]), 1), x.repeat_interleave(2)), [S]),
    "whole numbers": (lambda x: ((x * 30).long() % 7 + (x * 10).int() // 3, torch.fmod((x * 9).long(), 4)), [S]),
    "truth": (lambda x: (ties(x).bool().float(), (x > 0).sum(1), (x > 0).any(1), (x > -1).all(), x.isnan()), [S]),
    "steps": (lambda x: (torch.bucketize(x, BORDERS), torch.searchsorted(BORDERS, x, right=True)), [S]),
    "product": (lambda x: (x.prod(1), x[0].prod(), torch.linalg.vector_norm(x, 3, 1), x.norm(torch.inf, 2)), [S]),
    "distances": (lambda x, y: (torch.cdist(x, y), torch.cdist(x, y, 1.0)), [S, (2, 6, 7)]),
    "codes": (Codes(), [(2, 5, 6)]),
    "codes of many": (Codes(), [(1, 40, 6)]),
    "line": (Line(), [(3, 5)]),
}  # fmt: skip
TEN = torch.tensor([1, 4])


class Floats(nn.Module):
    """Whole numbers and truth as the only type that leaves a program."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *x: Tensor) -> Any:
        def flat(result: Any) -> Any:
            return result.float() if isinstance(result, Tensor) else tuple(flat(r) for r in result)

        return flat(self.function(*x))


@pytest.mark.parametrize("name", CASES)
def test_operation(name: str) -> None:
    function, shapes = CASES[name]
    assert worst(Floats(function), shapes, 5) < 4e-6


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_a_scripted_quantiser_of_every_batch(batch: int) -> None:
    assert worst(torch.jit.script(Codes().eval()), [(batch, 4, 6)]) < 1e-6


@pytest.mark.parametrize(("lanes", "registers"), [(4, 16), (16, 32)])
def test_every_vector_width(lanes: int, registers: int) -> None:
    def all_of(x: Tensor) -> Any:
        return torch.sort(x, 1)[0], x.cumsum(2), x.gather(1, x.argsort(1)), x.scatter(1, x.argsort(1), x)

    assert worst(all_of, [(2, 21, 7)], machine=of_width(lanes, registers)) < 1e-6
    called = nn_jit.calls_of(intermediate(record(all_of, [torch.zeros(2, 21, 7)])))
    assert all(name.startswith(("llvm.fmuladd.", "llvm.sqrt.", "llvm.fabs.")) for name in called)


def test_a_long_running_sum_keeps_a_phase() -> None:
    def phase(x: Tensor) -> Tensor:
        return torch.sin(torch.cumsum(0.3 + 0.1 * x, -1))

    assert worst(phase, [(1, 2048)]) < 7e-5


def test_no_index_leaves_its_table() -> None:
    net = compile(record(lambda x: F.embedding(x.square().long(), TABLE), [torch.zeros(6)]), use_cache=False)
    arena = net.arena()
    net.inputs[0].of(arena)[...] = [0.5, 2, 1e9, np.inf, np.nan, -3.2]
    net.run(arena)
    np.testing.assert_array_equal(net.outputs[0].of(arena), TABLE.numpy()[[0, 4, 10, 10, 0, 10]])


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x: x[x > 0].sum(), "depends on the data"),
        (lambda x: x.view(torch.int32).float(), "another type"),
        (lambda x: ((x * 10).long() & 3).float(), "aten::bitwise_and is known for truth only"),
        (lambda x: F.one_hot((x * 3).long().clamp(0, 3)).float(), "depends on the data"),
        (lambda x: torch.lgamma(x), "aten::lgamma is not known"),
    ],
)
def test_what_stays_refused(function: Any, why: str) -> None:
    with pytest.raises(NotLowered, match=why):
        record(function, [torch.zeros(9)])
