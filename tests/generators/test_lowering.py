"""Each operation, in every option that is lowered, against torch on random tensors."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from comparing import worst  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

torch.set_num_threads(1)
S = (2, 5, 7)
W = torch.linspace(-1, 1, 35).reshape(5, 7)
X1 = [(2, 6, 20)]


def assigned(x: torch.Tensor) -> torch.Tensor:
    buffer = torch.zeros(2, 5, 9)
    buffer[:, :, 1:8] = x
    buffer[:, 0] = 0.5
    return buffer * 2


def read_before_written(x: torch.Tensor) -> torch.Tensor:
    buffer = torch.ones(2, 5, 7)
    first = buffer * 3
    buffer[:, 1:3] = x[:, 1:3]
    return first + buffer


def accumulated(x: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(2, 7)
    for k in range(5):
        total += x[:, k] * k
    return total


def normed(module: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1d)):
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    return module.eval()


def lstm(*sizes: Any, **more: Any) -> Any:
    module = nn.LSTM(*sizes, **more)
    return lambda x, h, c: module(x, (h, c))


UNARY = (
    [
        "neg",
        "abs",
        "exp",
        "sigmoid",
        "tanh",
        "relu",
        "erf",
        "sin",
        "cos",
        "atan",
        "sign",
        "floor",
        "ceil",
        "round",
        "trunc",
        "square",
        "reciprocal",
        "expm1",
    ],
    ["log", "sqrt", "rsqrt", "log1p", "log2", "log10"],
    [
        "relu6",
        "selu",
        "silu",
        "mish",
        "softsign",
        "hardswish",
        "hardsigmoid",
        "logsigmoid",
        "gelu",
        "elu",
        "celu",
        "softplus",
        "hardtanh",
        "leaky_relu",
        "tanhshrink",
    ],
)
CASES: dict[str, tuple[Any, list[tuple[int, ...]]]] = {
    **{f: (getattr(torch, f), [S]) for f in UNARY[0]},
    **{f: (lambda x, f=f: getattr(torch, f)(x.abs() + 0.01), [S]) for f in UNARY[1]},
    **{f"F.{f}": (getattr(F, f), [S]) for f in UNARY[2]},
    "gelu tanh": (lambda x: F.gelu(x, approximate="tanh"), [S]),
    "clamp": (lambda x: x.clamp(-0.3, 0.5), [S]),
    "clamp min": (lambda x: x.clamp(min=0.1), [S]),
    "clamp in place": (lambda x: x.clone().clamp_(max=0.1), [S]),
    "power 0.3": (lambda x: x.abs() ** 0.3, [S]),
    "power 3": (lambda x: x**3, [S]),
    "power -1.5": (lambda x: (x.abs() + 0.1) ** -1.5, [S]),
    "power of 2": (lambda x: 2**x, [S]),
    "power of tensors": (lambda x, y: x.abs() ** y, [S, S]),
    "broadcast": (lambda x, y: x * y + y, [S, (5, 1)]),
    "four operations": (lambda x, y: (x - y) / (y.abs() + 1) + torch.maximum(x, y) * torch.minimum(x, y), [S, S]),
    "1 - x": (lambda x: 1 - x, [S]),
    "alpha": (lambda x, y: torch.add(x, y, alpha=2.5) - torch.sub(y, x, alpha=0.5), [S, S]),
    "where": (lambda x, y: torch.where(x > y, x, y * 2), [S, S]),
    "masked fill": (lambda x: x.masked_fill(x < 0, -1.0), [S]),
    "logic": (lambda x, y: torch.where((x > 0) & ~(y > 0) | (x > 1), x, y), [S, S]),
    "lerp": (lambda x, y: torch.lerp(x, y, 0.3), [S, S]),
    "addcmul": (lambda x, y: torch.addcmul(x, y, y, value=0.5), [S, S]),
    "atan2": (torch.atan2, [S, S]),
    "glu": (lambda x: F.glu(x, 1), [(2, 6, 5)]),
    "prelu per channel": (nn.PReLU(5), [S]),
    "prelu": (nn.PReLU(), [S]),
    "cat": (lambda x, y: torch.cat([x, y, x * 2], 2), [S, (2, 5, 3)]),
    "stack": (lambda x, y: torch.stack([x, y], -1), [S, S]),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 3)), [S]),
    "pad negative": (lambda x: F.pad(x, (1, -2), value=3.0), [S]),
    "pad reflect": (lambda x: F.pad(x, (2, 3), mode="reflect"), [S]),
    "pad replicate": (lambda x: F.pad(x, (2, 3), mode="replicate"), [S]),
    "pad circular": (lambda x: F.pad(x, (2, 3), mode="circular"), [S]),
    "pad reflect 2d": (lambda x: F.pad(x, (2, 3, 1, 1), mode="reflect"), [(1, 2, 5, 6)]),
    "permute": (lambda x: x.permute(2, 0, 1).contiguous() * 2, [S]),
    "reshape": (lambda x: (x + 1).transpose(1, 2).reshape(2, 35).tanh(), [S]),
    "repeat": (lambda x: x.repeat(2, 1, 3), [S]),
    "repeat interleave": (lambda x: x.repeat_interleave(3, dim=1), [S]),
    "expand": (lambda x: x[:, :1].expand(2, 5, 7) + x, [S]),
    "flip": (lambda x: x.flip(1, 2), [S]),
    "roll": (lambda x: x.roll(2, 1), [S]),
    "index list": (lambda x: x[:, [0, 2, 4, 1]], [S]),
    "index select": (lambda x: x.index_select(2, torch.tensor([3, 1, 1, 0])), [S]),
    "slice": (lambda x: x[:, ::2, 1:5:3] * 2, [S]),
    "unfold": (lambda x: F.unfold(x, (1, 3), padding=(0, 1)), [(1, 4, 1, 9)]),
    "windows": (lambda x: x.unfold(2, 3, 2).contiguous(), [S]),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"), [S]),
    "in place": (lambda x: x.clone().mul_(2).add_(1).relu_(), [S]),
    "assigned": (assigned, [S]),
    "read before written": (read_before_written, [S]),
    "accumulated": (accumulated, [S]),
    "sum": (lambda x: x.sum(), [S]),
    "sum of one axis": (lambda x: x.sum(1), [S]),
    "mean": (lambda x: x.mean(-1, keepdim=True), [S]),
    "mean of two axes": (lambda x: x.mean((0, 2)), [S]),
    "largest and smallest": (lambda x: x.amax(1) - x.amin(1), [S]),
    "norm": (lambda x: x.norm(dim=-1) + torch.linalg.vector_norm(x, dim=-1), [S]),
    "variance": (lambda x: x.var(-1) + x.std(-1, unbiased=False), [S]),
    "variance and mean": (lambda x: torch.var_mean(x, 1), [S]),
    "mean of many": (lambda x: x.mean(-1), [(3, 1000)]),
    "mean over rows": (lambda x: x.mean(0), [(1000, 3)]),
    "linear": (nn.Linear(7, 11), [S]),
    "linear to one": (nn.Linear(70, 1), [(3, 70)]),
    "linear wide": (nn.Linear(100, 1030), [(1, 100)]),
    "linear of a transpose": (lambda x: F.linear(x.transpose(1, 2), W), [(2, 7, 5)]),
    "matmul": (lambda x, y: x @ y.transpose(1, 2), [S, S]),
    "matmul 4d": (lambda x, y: x @ y, [(2, 3, 5, 9), (2, 3, 9, 17)]),
    "matrix times vector": (lambda x: W @ x, [(7,)]),
    "constant times batch": (lambda x: W @ x, [(2, 7, 3)]),
    "addmm": (lambda x, y: torch.addmm(x, y, W, beta=0.5, alpha=2), [(3, 7), (3, 5)]),
    "addmm with a vector": (lambda y: torch.addmm(W[0], y, W), [(3, 5)]),
    "bmm": (torch.bmm, [(3, 4, 20), (3, 20, 33)]),
    "einsum": (lambda x, y: torch.einsum("bcf,bdf->bcd", x, y), [S, S]),
    "dot": (torch.dot, [(9,), (9,)]),
    "layer norm": (normed(nn.LayerNorm(7)), [S]),
    "layer norm of two axes": (normed(nn.LayerNorm((5, 7))), [S]),
    "layer norm of a transpose": (lambda x: F.layer_norm(x.transpose(1, 2), (5,)), [S]),
    "group norm": (normed(nn.GroupNorm(2, 6)), [(2, 6, 5)]),
    "instance norm": (normed(nn.InstanceNorm1d(5, affine=True)), [S]),
    "softmax": (lambda x: F.softmax(x, 1) + F.log_softmax(x, -1), [S]),
    "attention": (F.scaled_dot_product_attention, [(1, 2, 5, 8), (1, 2, 6, 8), (1, 2, 6, 8)]),
    "average pool": (nn.AvgPool1d(3, 2), [(2, 5, 9)]),
    "average pool 2d": (nn.AvgPool2d((2, 3)), [(2, 5, 8, 9)]),
    "global pool": (nn.AdaptiveAvgPool1d(1), [S]),
    "max pool": (nn.MaxPool2d(2), [(1, 3, 6, 8)]),
    "gru cell": (nn.GRUCell(7, 9), [(2, 7), (2, 9)]),
    "gru two layers, two directions": (
        nn.GRU(7, 9, num_layers=2, bidirectional=True, batch_first=True), [(2, 5, 7), (4, 2, 9)],
    ),
    "gru by time": (nn.GRU(7, 24), [(5, 3, 7), (1, 3, 24)]),
    "gru wide": (nn.GRU(40, 256, batch_first=True), [(1, 1, 40), (1, 1, 256)]),
    "gru without bias": (nn.GRU(4, 130, batch_first=True, bias=False), [(3, 2, 4), (1, 3, 130)]),
    "lstm": (lstm(7, 20, num_layers=2, bidirectional=True), [(5, 2, 7), (4, 2, 20), (4, 2, 20)]),
    "conv": (nn.Conv1d(6, 9, 3), X1),
    "conv padded": (nn.Conv1d(6, 9, 5, padding=2), X1),
    "conv stride 2": (nn.Conv1d(6, 8, 4, stride=2, padding=1), X1),
    "conv stride 3": (nn.Conv1d(6, 8, 5, stride=3, padding=2), X1),
    "conv dilated": (nn.Conv1d(6, 16, 3, dilation=4), X1),
    "conv grouped": (nn.Conv1d(6, 12, 3, groups=3, padding=1), X1),
    "conv depthwise": (nn.Conv1d(6, 6, 3, groups=6, padding=1), X1),
    "conv to one column": (nn.Conv1d(6, 9, 20), X1),
    "conv depthwise to one column": (nn.Conv1d(6, 6, 20, groups=6), X1),
    "conv depthwise multiplied": (nn.Conv1d(6, 12, 20, groups=6), X1),
    "conv same": (nn.Conv1d(6, 9, 3, padding="same", dilation=2), X1),
    "conv as filter bank": (nn.Conv1d(1, 32, 128, stride=64), [(1, 1, 512)]),
    "conv of a cache": (nn.Conv1d(6, 9, 3, dilation=9), [(1, 6, 19)]),
    "conv long": (nn.Conv1d(2, 5, 3), [(1, 2, 300)]),
    "conv without batch": (nn.Conv1d(2, 5, 3), [(2, 30)]),
    "transposed": (nn.ConvTranspose1d(6, 9, 4, stride=2, padding=1), X1),
    "transposed stride 3": (nn.ConvTranspose1d(6, 9, 5, stride=3, output_padding=1), X1),
    "transposed grouped": (nn.ConvTranspose1d(6, 12, 3, groups=3, dilation=2, stride=2), X1),
    "transposed stride 1": (nn.ConvTranspose1d(6, 9, 3, padding=1), X1),
    "transposed with holes": (nn.ConvTranspose1d(6, 4, 1, stride=2), X1),
    "transposed as synthesis": (nn.ConvTranspose1d(32, 1, 128, stride=64), [(1, 32, 3)]),
    "conv 2d strided": (nn.Conv2d(3, 8, (2, 5), stride=(1, 2), padding=(0, 2)), [(1, 3, 2, 65)]),
    "conv 2d": (nn.Conv2d(3, 8, 3, padding=1), [(2, 3, 6, 7)]),
    "conv 2d dilated": (nn.Conv2d(4, 4, 3, dilation=(2, 1), groups=4, padding=(0, 1)), [(1, 4, 5, 33)]),
    "conv 2d pointwise": (nn.Conv2d(16, 16, 1), [(1, 16, 1, 33)]),
    "conv 2d stride 2": (nn.Conv2d(3, 8, 3, stride=2, padding=1), [(2, 3, 9, 11)]),
    "transposed 2d": (nn.ConvTranspose2d(8, 4, (2, 5), stride=(1, 2), padding=(0, 2)), [(1, 8, 1, 33)]),
    "transposed 2d grouped": (nn.ConvTranspose2d(8, 8, (1, 5), (1, 2), (0, 2), groups=2), [(1, 8, 1, 33)]),
    "transposed 2d stride 2": (nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1), [(1, 3, 5, 6)]),
    "conv, norm, slope": (normed(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.PReLU(8))), [(1, 3, 5, 20)]),
    "transposed, norm, leak": (
        normed(nn.Sequential(nn.ConvTranspose1d(6, 9, 4, 2, groups=3), nn.BatchNorm1d(9), nn.LeakyReLU(0.1))), X1,
    ),
    "linear, norm, tanh": (normed(nn.Sequential(nn.Linear(7, 9), nn.BatchNorm1d(9), nn.Tanh())), [(3, 7)]),
    "norm, conv": (normed(nn.Sequential(nn.BatchNorm1d(6), nn.Conv1d(6, 4, 3))), X1),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operation(name: str) -> None:
    function, shapes = CASES[name]
    assert worst(function, shapes) < 4e-6


_ATTENTION = nn.MultiheadAttention(16, 4, batch_first=True)
_F = nn.functional
_MODES = ("nearest", "nearest-exact", "linear", "area")
_SOME = torch.ones(5, 5).tril(1).bool()

#: What no step exists for and is made of other operations when it is recorded.
COMPOSED: dict[str, tuple[Any, Any]] = {
    "largest of all": (lambda x: x / (x.abs().max() + 1e-3) - x.min(), [S]),
    "larger of two": (lambda x, y: torch.max(x, y) - 2 * torch.min(x, y[:1]), [S, S]),
    "running sum": (lambda x: x.cumsum(1), [S]),
    "log of a sum": (lambda x: x.logsumexp(1) + x.logsumexp(1, True)[:, 0], [S]),
    "tangent": (lambda x: torch.tan(0.4 * torch.tanh(x)), [S]),
    "arc sine and cosine": (lambda x: torch.asin(0.9 * torch.tanh(x)) * torch.acos(0.9 * torch.tanh(x)), [S]),
    "hyperbolic": (lambda x: x.sinh() / x.cosh(), [S]),
    "arc hyperbolic": (lambda x: x.asinh() + (x.abs() + 1.1).acosh() + (0.9 * x.tanh()).atanh(), [S]),
    "remainders": (lambda x: torch.fmod(x, 0.75) + torch.remainder(x, 0.75) + x.frac(), [S]),
    "sum of logs": (lambda x, y: torch.logaddexp(x, y), [S, S]),
    "sign": (lambda x: torch.sgn(x) * torch.log1p(255 * x.abs()), [S]),
    "soft and hard shrinking": (lambda x: _F.softshrink(x, 0.3) + _F.hardshrink(x, 0.3), [S]),
    "triangles": (lambda x: x.tril() + 2 * x.triu(1), [S]),
    "pixels": (lambda x: _F.pixel_unshuffle(_F.pixel_shuffle(x, 2).sin(), 2), [(1, 8, 3, 5)]),
    "stretched": (nn.Upsample(scale_factor=2, mode="linear"), [S]),
    "attention": (lambda x: _ATTENTION.eval()(x, x, x)[0], [(1, 6, 16)]),
    "attention to others": (lambda x, y: _ATTENTION.eval()(x, y, y)[0], [(1, 6, 16), (1, 4, 16)]),
    "encoder": (nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval(), [(1, 6, 16)]),
    "encoder, norms first": (
        nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True, activation="gelu").eval(),
        [(1, 6, 16)],
    ),
    "in place": (lambda x: x.clone().asinh_(), [S]),
    "turned in place": (lambda x: (x * 2).transpose_(1, 2) + 1, [S]),
    "powers of any sign": (lambda x, y: ((-2.0) ** x.round(), x ** y.round(), x.abs() ** y, x**-2), [S, S]),
    "rounded": (lambda x: (torch.round(x, decimals=2), torch.rsub(x, 1.0, alpha=2), torch.floor_divide(x, 0.3)), [S]),
    "more functions": (
        lambda x, y: (torch.hypot(x, y), x.exp2(), x.sinc(), x.erfc(), x.sigmoid().logit(), torch.copysign(x, y),
                      torch.xlogy(x.abs(), y.abs()), x.deg2rad(), x.nansum(1), torch.heaviside(x, y), x.fmax(y),
                      x.signbit().float()),
        [S, S],
    ),
    "stretched by any factor": (
        lambda x: (*(_F.interpolate(x, size=n, mode=m) for n in (12, 4) for m in _MODES),
                   _F.interpolate(x, size=19, mode="linear", align_corners=True), _F.interpolate(x, scale_factor=2.7)),
        [S],
    ),
    "stretched planes": (
        lambda x: (_F.interpolate(x, scale_factor=2.0, mode="bilinear"), _F.interpolate(x, size=(9, 5), mode="bicubic"),
                   _F.interpolate(x, scale_factor=(2.0, 1.5))), [(1, 2, 6, 8)],
    ),
    "pools with edges": (
        lambda x: (_F.avg_pool1d(x, 3, 2, 1), _F.avg_pool1d(x, 3, 2, 1, count_include_pad=False),
                   _F.avg_pool1d(x, 3, 2, ceil_mode=True), _F.max_pool1d(x, 3, 2, 1), _F.max_pool1d(x, 3, 1, 0, 2),
                   _F.max_pool1d(x, 3, 2, ceil_mode=True), _F.adaptive_avg_pool1d(x, 3)), [(2, 5, 8)],
    ),
    "pools of planes": (
        lambda x: (_F.max_pool2d(x, 3, 2, 1), _F.avg_pool2d(x, (3, 2), (2, 1), 1), _F.lp_pool2d(x.abs(), 2.0, 2)),
        [(1, 2, 6, 8)],
    ),
    "windows of one": (lambda x: _F.unfold(x, (1, 3)), [(4, 1, 9)]),
    "norms by statistics": (normed(nn.InstanceNorm1d(5, affine=True, track_running_stats=True)), [S]),
    "norms of planes": (
        nn.Sequential(nn.InstanceNorm2d(6, affine=True), nn.GroupNorm(3, 6), nn.RMSNorm(3)), [(2, 6, 5, 3)],
    ),
    "simple recurrence": (nn.RNN(7, 9, 2, bidirectional=True), [(5, 2, 7), (4, 2, 9)]),
    "simple recurrence, cut off": (nn.RNN(7, 9, nonlinearity="relu", batch_first=True), [(2, 5, 7)]),
    "lstm with a projection": (lstm(7, 20, proj_size=6), [(5, 2, 7), (1, 2, 6), (1, 2, 20)]),
    "causal attention": (lambda q: _F.scaled_dot_product_attention(q, q, q, is_causal=True), [(1, 2, 5, 8)]),
    "attention to some": (lambda q: _F.scaled_dot_product_attention(q, q, q, attn_mask=_SOME), [(3, 2, 5, 8)]),
    "attention of layers to some": (lambda x: _ATTENTION.eval()(x, x, x, attn_mask=~_SOME)[0], [(2, 5, 16)]),
    "two sides": (nn.Bilinear(4, 5, 6), [(3, 4), (3, 5)]),
    "shuffled": (lambda x: _F.channel_shuffle(x, 2), [(1, 8, 3, 4)]),
    "across": (lambda x, y: torch.linalg.cross(x, y) + torch.diag_embed(x)[:, 1], [(4, 3), (4, 3)]),
    "without training": (nn.Sequential(nn.RReLU(), nn.AlphaDropout(0.5), nn.Dropout(0.5)).eval(), [S]),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPOSED)
def test_what_is_composed_of_other_operations(name: str) -> None:
    function, shapes = COMPOSED[name]
    assert worst(function, shapes) < 1e-5
