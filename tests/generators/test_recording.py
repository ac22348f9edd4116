"""What is recorded, what is refused and how, and whole nets against TorchScript with their state carried over."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numba import types

torch = pytest.importorskip("torch")

from comparing import difference, of_width, worst  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from rtgan.errors import RtganError  # noqa: E402
from rtgan.generators.compile import HALF, compile, intermediate  # noqa: E402
from rtgan.generators.record import record  # noqa: E402
from rtgan.kernels import nn_jit  # noqa: E402
from rtgan.kernels.native import call_net, kernel  # noqa: E402

torch.set_num_threads(1)
CARRY = [(1, 1)]


def scripted(module: nn.Module) -> Any:
    """A module as it comes out of a TorchScript file."""
    torch.manual_seed(5)
    for p in module.parameters():
        if p.dim() > 1:
            nn.init.normal_(p, std=p[0].numel() ** -0.5)
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(module.eval()), file)
    file.seek(0)
    return torch.jit.load(file).eval()


class Denoiser(nn.Module):
    """Features, a gated recurrent core, a mask."""

    def __init__(self, bins: int = 129, width: int = 96) -> None:
        super().__init__()
        self.enter = nn.Linear(bins, width)
        self.first = nn.GRU(width, width, batch_first=True)
        self.second = nn.GRU(width, width, batch_first=True)
        self.leave = nn.Linear(width, bins)
        self.width = width

    def forward(self, frame: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        level = torch.log(torch.sqrt(frame[:, 0] ** 2 + frame[:, 1] ** 2) + 1e-4)
        x = torch.tanh(self.enter(level)).unsqueeze(1)
        h1 = state[:, : self.width].unsqueeze(0).contiguous()
        h2 = state[:, self.width :].unsqueeze(0).contiguous()
        x, h1 = self.first(x, h1)
        x, h2 = self.second(x, h2)
        mask = torch.sigmoid(self.leave(x.squeeze(1))).unsqueeze(1)
        return frame * mask, torch.cat([h1[0], h2[0]], 1)


class Gated(nn.Module):
    """Convolutions over frequency, a grouped recurrent bottleneck, a transposed decoder with skips."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(2, 8, (1, 5), (1, 2), (0, 2))
        self.b1, self.p1 = nn.BatchNorm2d(8), nn.PReLU(8)
        self.c2 = nn.Conv2d(8, 16, (3, 3), padding=(0, 1), groups=2)
        self.g = nn.GRU(16, 16, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.d = nn.ConvTranspose2d(16, 2, (1, 5), (1, 2), (0, 2))

    def forward(self, frame: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        x = self.p1(self.b1(self.c1(frame.unsqueeze(2))))
        past = state[:, : 8 * 2 * 33].view(1, 8, 2, 33)
        h = state[:, 8 * 2 * 33 :].view(1, 33, 16)
        window = torch.cat([past, x], 2)
        y = torch.relu(self.c2(window))
        z, h = self.g(y.permute(0, 2, 3, 1).reshape(33, 1, 16), h)
        y = y + self.norm(z).reshape(1, 1, 33, 16).permute(0, 3, 1, 2)
        mask = torch.tanh(self.d(y)).squeeze(2)
        out = torch.stack(
            [
                frame[:, 0] * mask[:, 0] - frame[:, 1] * mask[:, 1],
                frame[:, 1] * mask[:, 0] + frame[:, 0] * mask[:, 1],
            ],
            1,
        )
        return out, torch.cat([window[:, :, 1:].reshape(1, -1), h.reshape(1, -1)], 1)


class Dilated(nn.Module):
    """A causal stack of dilated convolutions with gates; the caches lie in the state."""

    def __init__(self, channels: int = 24) -> None:
        super().__init__()
        self.enter = nn.Conv1d(2 * 33, channels, 1)
        self.layers = nn.ModuleList([nn.Conv1d(channels, 2 * channels, 3, dilation=2**k) for k in range(3)])
        self.deep = nn.ModuleList([nn.Conv1d(channels, channels, 5, groups=channels) for _ in range(3)])
        self.leave = nn.Conv1d(channels, 2 * 33, 1)
        self.channels = channels

    def forward(self, frame: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        x = self.enter(frame.reshape(1, 66, 1))
        start, kept = 0, []
        for k, (layer, deep) in enumerate(zip(self.layers, self.deep)):
            for module, length in ((layer, 2 ** (k + 1)), (deep, 4)):
                size = length * self.channels
                window = torch.cat([state[:, start : start + size].view(1, self.channels, length), x], 2)
                kept.append(window[:, :, 1:].reshape(1, size))
                start += size
                if length == 4 and module is deep:
                    x = x + module(window)
                else:
                    x = F.glu(module(window), 1)
        return frame * torch.sigmoid(self.leave(x)).reshape(1, 2, 33), torch.cat(kept, 1)


class Attending(nn.Module):
    """Attention over a memory of past frames, layer norms and a gated feed-forward part."""

    def __init__(self, bins: int = 33, width: int = 32, length: int = 6) -> None:
        super().__init__()
        self.enter, self.qkv = nn.Linear(2 * bins, width), nn.Linear(width, 3 * width)
        self.mix, self.up, self.down = (
            nn.Linear(width, width),
            nn.Linear(width, 4 * width),
            nn.Linear(4 * width, width),
        )
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.leave = nn.Linear(width, 2 * bins)
        self.width, self.length = width, length

    def forward(self, frame: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        x = self.enter(frame.reshape(1, 66))
        q, k, v = self.qkv(self.n1(x)).chunk(3, 1)
        memory = torch.cat([state.view(2, self.length, self.width), torch.stack([k, v], 0)], 1)
        keys, values = memory[0].view(-1, 4, 8).transpose(0, 1), memory[1].view(-1, 4, 8).transpose(0, 1)
        scores = torch.softmax(q.view(1, 4, 8).transpose(0, 1) @ keys.transpose(1, 2) / 8**0.5, -1)
        x = x + self.mix((scores @ values).transpose(0, 1).reshape(1, self.width))
        x = x + self.down(F.gelu(self.up(self.n2(x))))
        return frame + self.leave(x).reshape(1, 2, 33), memory[:, 1:].reshape(1, -1)


NETS: dict[str, tuple[type[nn.Module], list[tuple[int, ...]]]] = {
    "denoiser": (Denoiser, [(1, 2, 129), (1, 192)]),
    "gated": (Gated, [(1, 2, 65), (1, 8 * 2 * 33 + 33 * 16)]),
    "attending": (Attending, [(1, 2, 33), (1, 2 * 6 * 32)]),
}


@pytest.mark.parametrize("name", NETS)
def test_scripted_net_equals_torchscript_over_300_frames(name: str) -> None:
    kind, shapes = NETS[name]
    assert worst(scripted(kind()), shapes, 300, CARRY) < 1e-5


@pytest.mark.parametrize(("lanes", "registers"), [(4, 16), (4, 32), (8, 16), (16, 32)])
@pytest.mark.parametrize("name", NETS)
def test_nets_are_the_same_at_every_vector_width(name: str, lanes: int, registers: int) -> None:
    kind, shapes = NETS[name]
    assert worst(kind().eval(), shapes, 10, CARRY, of_width(lanes, registers)) < 1e-5


def test_traced_net_equals_torchscript_over_300_frames() -> None:
    shapes = [(1, 2, 33), (1, 24 * (2 + 4 + 8 + 12))]
    module = torch.jit.trace(Dilated().eval(), tuple(torch.randn(s) for s in shapes))
    assert worst(module, shapes, 300, CARRY) < 1e-5


def test_plain_and_scripted_and_frozen_modules_record_alike() -> None:
    module = scripted(Denoiser())
    examples = [torch.zeros(s) for s in NETS["denoiser"][1]]
    frozen = torch.jit.freeze(scripted(Denoiser()))
    plain = Denoiser()
    plain.load_state_dict(module.state_dict())
    programs = [record(m, examples) for m in (module, frozen, plain.eval())]
    assert [[o["op"] for o in p.ops] for p in programs[1:]] == [[o["op"] for o in programs[0].ops]] * 2


class Buffered(nn.Module):
    """Keeps its past in buffers: one written in place, one replaced, one read before it is written."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3)
        self.register_buffer("cache", torch.ones(1, 4, 2))
        self.register_buffer("mean", torch.full((1, 4), 0.5))
        self.register_buffer("last", torch.zeros(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        window = torch.cat([self.cache, x.unsqueeze(2)], 2)
        y = self.conv(window).squeeze(2) + self.last
        self.cache.copy_(window[:, :, 1:])
        self.mean = 0.9 * self.mean + 0.1 * x
        self.last[:, 1:] = y[:, :-1]
        return y - self.mean


def test_buffers_become_state_of_the_net() -> None:
    module = scripted(Buffered())
    net = compile(record(module, [torch.zeros(1, 4)]), use_cache=False)
    # Recording has left the module as it was.
    assert float(module.mean.min()) == 0.5 and float(module.cache.min()) == 1.0
    arena = net.arena()
    for k in range(50):
        x = torch.randn(1, 4, generator=torch.Generator().manual_seed(k))
        with torch.no_grad():
            expected = module(x)
        net.inputs[0].of(arena)[...] = x.numpy()
        net.run(arena)
        assert np.abs(net.outputs[0].of(arena) - expected.numpy()).max() < 1e-5


class Changed(Denoiser):
    """The denoiser with another function in one place."""

    def forward(self, frame: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        level = torch.log(torch.sqrt(frame[:, 0] ** 2 + frame[:, 1] ** 2) + 1e-4)
        x = torch.relu(self.enter(level)).unsqueeze(1)
        h1 = state[:, : self.width].unsqueeze(0).contiguous()
        h2 = state[:, self.width :].unsqueeze(0).contiguous()
        x, h1 = self.first(x, h1)
        x, h2 = self.second(x, h2)
        mask = torch.sigmoid(self.leave(x.squeeze(1))).unsqueeze(1)
        return frame * mask, torch.cat([h1[0], h2[0]], 1)


def test_one_changed_operation_changes_the_lowered_output_accordingly() -> None:
    before, after = scripted(Denoiser()), scripted(Changed())
    after.load_state_dict(before.state_dict())
    shapes = NETS["denoiser"][1]
    net = compile(record(after, [torch.zeros(s) for s in shapes]), CARRY, use_cache=False)
    assert difference(after, net, shapes, 20, CARRY) < 1e-5
    assert difference(before, net, shapes, 20, CARRY) > 1e-3


# -- refusals


class Unknown(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        return torch.lgamma(y)


class Deciding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if bool(x.sum() > 0):
            return x * 2
        return x


class Counting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        n = int(torch.sum(x.abs()).item()) % 9
        return x[:, :n]


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class Hidden(nn.Module):
    """State outside buffers."""

    kept: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.kept = torch.zeros(1, 9)

    def forward(self, x: Tensor) -> Tensor:
        self.kept = self.kept + x
        return self.kept * 1.0


class Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x.double() * 2).float()


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Unknown(), ["aten::lgamma", "is not known", "forward", "line", "torch.lgamma"]),
        (Deciding(), ["depends on the data", "line"]),
        (Counting(), ["depends on the data"]),
        (Noisy(), ["aten::randn_like", "random"]),
        (Double(), ["float64"]),
    ],
)
def test_what_cannot_be_lowered_is_refused_by_name(module: nn.Module, words: list[str]) -> None:
    with pytest.raises(RtganError) as refused:
        record(scripted(module), [torch.zeros(1, 9)])
    message = str(refused.value)
    assert "\n" not in message
    for word in words[:2]:
        assert word in message
    if "line" in words:
        assert "line " in message


def test_hidden_state_is_refused() -> None:
    with pytest.raises(RtganError, match="hidden state"):
        record(Hidden().eval(), [torch.zeros(1, 9)])


def test_training_mode_and_other_types_are_refused() -> None:
    with pytest.raises(RtganError, match="training mode"):
        record(nn.Linear(3, 3), [torch.zeros(1, 3)])
    with pytest.raises(RtganError, match="float32"):
        record(nn.Linear(3, 3).eval(), [torch.zeros(1, 3, dtype=torch.float64)])


def test_state_of_another_shape_is_refused() -> None:
    program = record(lambda x, s: (x, s[:, 1:]), [torch.zeros(1, 3), torch.zeros(1, 4)])
    with pytest.raises(RtganError, match="carried"):
        compile(program, [(1, 1)], use_cache=False)
    with pytest.raises(RtganError, match="no output 2"):
        compile(program, [(2, 1)], use_cache=False)


# -- the code


@pytest.mark.parametrize("name", NETS)
def test_code_calls_nothing_outside_itself(name: str) -> None:
    kind, shapes = NETS[name]
    ir = intermediate(record(kind().eval(), [torch.zeros(s) for s in shapes]), CARRY)
    called = nn_jit.calls_of(ir)
    assert called and all(c.startswith(("llvm.fmuladd.", "llvm.sqrt.", "llvm.fabs.")) for c in called)
    assert "alloca" not in ir


@pytest.mark.parametrize(("lanes", "registers"), [(4, 16), (8, 16), (16, 32)])
@pytest.mark.parametrize("converts", [True, False])
def test_weights_of_half_precision(lanes: int, registers: int, converts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = of_width(lanes, registers)
    if not converts:
        machine = replace(machine, features=machine.features.replace("+f16c", "-f16c"))
    kind, shapes = NETS["denoiser"]
    program = record(kind().eval(), [torch.zeros(s) for s in shapes])
    program.meta["weights"] = HALF
    monkeypatch.setattr("rtgan.generators.compile.LARGE", 1)
    net = compile(program, CARRY, use_cache=False, machine=machine)
    assert net.report["halved_weights"] > 100_000 and not nn_jit.calls_of(intermediate(program, CARRY, machine)) - {
        f"llvm.{name}.{suffix}"
        for name in ("fmuladd", "sqrt", "fabs")
        for suffix in ("f32", "v2f32", "v4f32", "v8f32", "v16f32")
    }
    # What half precision makes of the weights, and nothing beyond.
    rounded = replace(program, meta={}, weights=program.weights.astype(np.float16).astype(np.float32))
    other = compile(rounded, CARRY, use_cache=False, machine=machine)
    one, two = net.arena(), other.arena()
    for k in range(20):
        for made, arena in ((net, one), (other, two)):
            made.inputs[0].of(arena)[...] = np.random.default_rng(k).standard_normal(shapes[0])
            made.run(arena)
    gap = np.abs(net.outputs[0].of(one) - other.outputs[0].of(two)).max()
    assert gap < 2e-3 * np.abs(other.outputs[0].of(two)).max()


def test_channels_share_weights_and_not_arenas() -> None:
    kind, shapes = NETS["denoiser"]
    net = compile(record(kind().eval(), [torch.zeros(s) for s in shapes]), CARRY, use_cache=False)
    one, two = net.arena(), net.arena()
    frame = np.random.default_rng(3).standard_normal(shapes[0]).astype(np.float32)
    for k in range(5):
        net.inputs[0].of(one)[...] = frame
        net.inputs[0].of(two)[...] = frame * (k % 2)
        net.run(one)
        net.run(two)
    fresh = net.arena()
    for _ in range(5):
        net.inputs[0].of(fresh)[...] = frame
        net.run(fresh)
    np.testing.assert_array_equal(net.outputs[0].of(one), net.outputs[0].of(fresh))
    assert not np.array_equal(net.outputs[0].of(one), net.outputs[0].of(two))
    assert net.weights.ctypes.data % 64 == 0 and one.ctypes.data % 64 == 0


def test_nothing_is_written_outside_the_arena() -> None:
    for kind, shapes in NETS.values():
        net = compile(record(kind().eval(), [torch.zeros(s) for s in shapes]), CARRY, use_cache=False)
        room = np.full(net.arena_floats + 128, 12345.0, np.float32)
        start = (-room.ctypes.data % 64) // 4 + 32
        arena = room[start : start + net.arena_floats]
        arena[:] = net.initial_arena
        before = net.weights.copy()
        net.inputs[0].of(arena)[...] = 0.5
        net.run(arena)
        np.testing.assert_array_equal(net.weights, before)
        assert (room[:start] == 12345.0).all() and (room[start + net.arena_floats :] == 12345.0).all()


@kernel(types.void(types.int64, types.int64, types.int64, types.int64))
def call_many(times: int, function: int, arena: int, weights: int) -> None:
    for _ in range(times):
        call_net(function, arena, weights)


def test_a_compiled_function_calls_the_net_through_its_address() -> None:
    kind, shapes = NETS["denoiser"]
    net = compile(record(kind().eval(), [torch.zeros(s) for s in shapes]), CARRY, use_cache=False)
    one, two = net.arena(), net.arena()
    for arena in (one, two):
        net.inputs[0].of(arena)[...] = 0.3
    for _ in range(7):
        net.run(one)
    call_many(7, net.address, two.ctypes.data, net.weights.ctypes.data)
    np.testing.assert_array_equal(one, two)


class Unnamed(nn.Module):
    """Keeps what it has heard in a tensor that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.line: torch.Tensor = torch.ones(1, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x + self.line
        self.line[:] = 0.5 * y
        return y


def test_what_is_written_in_place_under_no_name_is_state() -> None:
    module = scripted(Unnamed())
    net = compile(record(module, [torch.zeros(1, 4)]), use_cache=False)
    arena = net.arena()
    for _ in range(5):
        x = torch.randn(1, 4)
        net.inputs[0].of(arena)[...] = x.numpy()
        net.run(arena)
        np.testing.assert_allclose(net.outputs[0].of(arena), module(x).numpy(), rtol=1e-6)
