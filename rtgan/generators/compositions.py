"""What an operation that no step exists for is made of. Needs torch.

Each of these takes the arguments of an operation by name and does the same with others, which are recorded in its
place; `NotImplemented` where that does not reach. Complex values become their real and imaginary parts here, so that
programs know float32 alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Tensor = torch.Tensor


def _every(x: Tensor) -> list[int]:
    return list(range(x.dim()))


def _logsumexp(g: dict[str, Any]) -> Tensor:
    top = g["self"].amax(g["dim"], True)
    total = (g["self"] - top).exp().sum(g["dim"], True).log() + top
    kept: Tensor = total if g.get("keepdim") else total.reshape(torch.empty(total.shape).sum(g["dim"]).shape)
    return kept


def _asinh(x: Tensor) -> Tensor:
    a = x.abs()
    return x.sign() * torch.log1p(a + a * a / (1.0 + (1.0 + a * a).sqrt()))


def _shuffle(g: dict[str, Any]) -> Any:
    x, r = g["self"], g["upscale_factor"]
    *lead, c, h, w = x.shape
    parts = x.reshape(-1, c // (r * r), r, r, h, w).permute(0, 1, 4, 2, 5, 3)
    return parts.reshape(*lead, c // (r * r), h * r, w * r)


def _unshuffle(g: dict[str, Any]) -> Any:
    x, r = g["self"], g["downscale_factor"]
    *lead, c, h, w = x.shape
    return x.reshape(-1, c, h // r, r, w // r, r).permute(0, 1, 3, 5, 2, 4).reshape(*lead, c * r * r, h // r, w // r)


def _attention(g: dict[str, Any]) -> Any:
    d, heads = g["embed_dim"], g["num_head"]
    mask = g.get("mask")
    if mask is not None:
        # Of each frame for each other, of each frame of a batch, or whole.
        if mask.dim() not in (2, 4):
            return NotImplemented
        mask = torch.where(mask, -torch.inf, 0.0) if mask.dtype == torch.bool else mask
        mask = mask[:, None, None] if g.get("mask_type") == 1 else mask

    def part(k: int, x: Tensor) -> Tensor:
        rows = slice(k * d, (k + 1) * d)
        y = torch.nn.functional.linear(x, g["qkv_weight"][rows], g["qkv_bias"][rows])
        return y.reshape(*x.shape[:2], heads, d // heads).transpose(1, 2)

    q, k, v = (part(i, g[name]) for i, name in enumerate(("query", "key", "value")))
    scores = torch.matmul(q * (d // heads) ** -0.5, k.transpose(-2, -1))
    weights = (scores if mask is None else scores + mask).softmax(-1)
    y = torch.matmul(weights, v).transpose(1, 2).reshape(g["query"].shape)
    y = torch.nn.functional.linear(y, g["proj_weight"], g["proj_bias"])
    return y, weights.mean(1) if g.get("average_attn_weights", True) else weights


def _encoder(g: dict[str, Any]) -> Any:
    x = g["src"]

    def norm(k: int, y: Tensor) -> Tensor:
        return torch.nn.functional.layer_norm(y, y.shape[-1:], g[f"norm_weight_{k}"], g[f"norm_bias_{k}"], g["eps"])

    def attend(y: Tensor) -> Any:
        return _attention({**g, "num_head": g["num_heads"], "query": y, "key": y, "value": y})[0]

    def feed(y: Tensor) -> Tensor:
        y = torch.nn.functional.linear(y, g["ffn_weight_1"], g["ffn_bias_1"])
        y = torch.nn.functional.gelu(y) if g["use_gelu"] else y.relu()
        return torch.nn.functional.linear(y, g["ffn_weight_2"], g["ffn_bias_2"])

    if g["norm_first"]:
        x = x + attend(norm(1, x))
        return x + feed(norm(2, x))
    x = norm(1, x + attend(x))
    return norm(2, x + feed(x))


def _stretched(name: str) -> Callable[[dict[str, Any]], Any]:
    """Resampling of any mode: along each axis a few neighbours with weights, which the operation itself tells."""

    def compose(g: dict[str, Any]) -> Any:
        x: Any = g.get("self", g.get("input"))
        rank = x.dim() - 2
        kind = name.removesuffix(".vec")
        call = getattr(torch.ops.aten, kind).default
        factors = list(g.get("scale_factors") or [g.get(f"scales{end}") for end in ("_d", "_h", "_w")[3 - rank :]])
        if rank == 1 and not g.get("scale_factors"):
            factors = [g.get("scales")]
        sizes = g.get("output_size")
        sizes = list(sizes) if sizes else [int(n * f) for n, f in zip(x.shape[2:], factors, strict=True)]
        corners = [g["align_corners"]] if "align_corners" in g else []
        nearest = "nearest" in kind
        for axis in range(rank):
            before, after = x.shape[2 + axis], sizes[axis]
            others = [after if k == axis else 1 for k in range(rank)]
            lengths = [before if k == axis else 1 for k in range(rank)]
            scales = [f if k == axis else None for k, f in enumerate(factors)]
            if nearest:
                where = call(torch.arange(before, dtype=torch.float32).reshape(1, 1, *lengths), others, *scales)
                x = x.index_select(2 + axis, where.flatten().long())
                continue
            share = call(torch.eye(before).reshape(1, before, *lengths), others, *corners, *scales)
            share = share.reshape(before, after)
            count = int((share != 0).sum(0).max())
            places = share.abs().topk(count, dim=0).indices
            weights = share.gather(0, places)
            shape = [after if k == 2 + axis else 1 for k in range(x.dim())]
            parts = [x.index_select(2 + axis, p) * w.reshape(shape) for p, w in zip(places, weights, strict=True)]
            x = sum(parts[1:], parts[0])
        return x

    return compose


def _in_parts(g: dict[str, Any]) -> Any:
    """Adaptive averages over parts that are not equally long."""
    x, sizes = g["self"], g["output_size"]
    sizes = [sizes] if isinstance(sizes, int) else list(sizes)
    rank = len(sizes)
    if all(n % m == 0 for n, m in zip(x.shape[-rank:], sizes, strict=True)):
        return NotImplemented
    for axis, size in enumerate(sizes):
        n = x.shape[x.dim() - rank + axis]
        share = torch.ops.aten.adaptive_avg_pool1d(torch.eye(n).reshape(1, n, n), [size])[0]
        x = torch.matmul(x.movedim(axis - rank, -1), share).movedim(-1, axis - rank)
    return x


def _one_hot(g: dict[str, Any]) -> Any:
    if g["num_classes"] < 0:
        return NotImplemented
    return (g["self"].unsqueeze(-1) == torch.arange(g["num_classes"])).to(torch.int64)


def _distance(g: dict[str, Any]) -> Any:
    """Distances of every pair by their differences, of any order but 0."""
    apart = g["x1"].unsqueeze(-2) - g["x2"].unsqueeze(-3)
    return apart.norm(g["p"], -1) if g["p"] else NotImplemented


def _euclidean(g: dict[str, Any]) -> Any:
    x, y = g["x1"], g["x2"]
    squares = x.square().sum(-1, keepdim=True) + y.square().sum(-1).unsqueeze(-2)
    return (squares - 2.0 * torch.matmul(x, y.transpose(-2, -1))).clamp_min(0.0).sqrt()


def _masked(g: dict[str, Any]) -> Any:
    """``x[mask] = value``, which is no matter of places."""
    (mask, *others), values = g["indices"], g["values"]
    x = g["self"]
    if others or not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != x.shape[: mask.dim()]:
        return NotImplemented
    if values.numel() != 1 or g.get("accumulate"):
        return NotImplemented
    return torch.where(mask.reshape(*mask.shape, *[1] * (x.dim() - mask.dim())), values.reshape(()).to(x.dtype), x)


def _float_mask(g: dict[str, Any]) -> Any:
    mask = g.get("attn_mask")
    if mask is None or mask.dtype != torch.bool:
        return NotImplemented
    names = ("query", "key", "value", "dropout_p", "is_causal", "scale", "enable_gqa")
    mask = torch.where(mask, 0.0, -torch.inf)
    return torch.nn.functional.scaled_dot_product_attention(attn_mask=mask, **{n: g[n] for n in names if n in g})


def _searched(values: Tensor, borders: Tensor, right: bool) -> Tensor:
    x = values.unsqueeze(-1)
    return (x >= borders if right else x > borders).sum(-1)


def _roll(g: dict[str, Any]) -> Any:
    if g["dims"]:
        return NotImplemented
    x = g["self"]
    return x.reshape(-1).roll(g["shifts"], [0]).reshape(x.shape)


def _repeated(g: dict[str, Any]) -> Any:
    x, dim, repeats = g.get("self"), g.get("dim"), g["repeats"]
    if x is None:
        return NotImplemented
    if dim is None:
        x, dim = x.reshape(-1), 0
    if isinstance(repeats, int):
        return NotImplemented if g.get("dim") is not None else x.repeat_interleave(repeats, dim)
    return x.index_select(dim, torch.arange(x.shape[dim]).repeat_interleave(repeats))


def _round(g: dict[str, Any]) -> Any:
    if not g.get("decimals"):
        return NotImplemented
    scale = 10.0 ** g["decimals"]
    return (g["self"] * scale).round() / scale


def _aminmax(g: dict[str, Any]) -> tuple[Tensor, Tensor]:
    x = g["self"]
    dims = _every(x) if g.get("dim") is None else [g["dim"]]
    return x.amin(dims, bool(g.get("keepdim"))), x.amax(dims, bool(g.get("keepdim")))


def _whole_remainder(g: dict[str, Any], mode: str) -> Any:
    return g["self"] - torch.div(g["self"], g["other"], rounding_mode=mode) * g["other"]


def _truth(name: str) -> Callable[[dict[str, Any]], Tensor]:
    def compose(g: dict[str, Any]) -> Tensor:
        x = g["self"] != 0
        dims = _every(x) if g.get("dim") is None else g["dim"]
        return getattr(x, name)(dims, bool(g.get("keepdim")))  # type: ignore[no-any-return]

    return compose


def _unrolled_if_projected(g: dict[str, Any]) -> Any:
    """Layers with projections step by step; all others are one step each."""
    per = 4 if g["has_biases"] else 2
    if "params" not in g or len(g["params"]) == per * g["num_layers"] * (2 if g["bidirectional"] else 1):
        return NotImplemented
    return torch.ops.aten.lstm.input.decompose(
        *(g[k] for k in ("input", "hx", "params", "has_biases", "num_layers", "dropout", "train", "bidirectional",
                         "batch_first"))
    )  # fmt: skip


def _largest(g: dict[str, Any], of_one: str, of_two: Any) -> Any:
    """Of all values, or of two tensors; along an axis it is a step of its own."""
    if "other" in g:
        return of_two(g["self"], g["other"])
    return getattr(g["self"], of_one)(_every(g["self"])) if "dim" not in g else NotImplemented


def _turned(x: Tensor, k: int, a: int, b: int) -> Tensor:
    if k == 2:
        return x.flip(a, b)
    return x if not k else x.flip(b).transpose(a, b).clone() if k == 1 else x.transpose(a, b).flip(b)


def _trilinear(g: dict[str, Any]) -> Any:
    """What a bilinear layer asks for."""
    if (g["expand1"], g["expand2"], g["expand3"], g["sumdim"]) != ([1, 3], [0], [1, 2], [2, 3]):
        return NotImplemented
    return torch.einsum("bi,oij,bj->bo", g["i1"], g["i2"], g["i3"])


def _logit(g: dict[str, Any]) -> Any:
    x = g["self"] if g.get("eps") is None else g["self"].clamp(g["eps"], 1.0 - g["eps"])
    return (x / (1.0 - x)).log()


#: Operations that no step exists for, by what others make of them; `NotImplemented` where that does not reach.
COMPOSED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "max": lambda g: _largest(g, "amax", torch.maximum),
    "min": lambda g: _largest(g, "amin", torch.minimum),
    "logsumexp": _logsumexp,
    "tan": lambda g: g["self"].sin() / g["self"].cos(),
    "asin": lambda g: torch.atan2(g["self"], (1.0 - g["self"] * g["self"]).sqrt()),
    "acos": lambda g: torch.atan2((1.0 - g["self"] * g["self"]).sqrt(), g["self"]),
    "sinh": lambda g: 0.5 * (g["self"].expm1() - (-g["self"]).expm1()),
    "cosh": lambda g: 0.5 * (g["self"].exp() + (-g["self"]).exp()),
    "asinh": lambda g: _asinh(g["self"]),
    "acosh": lambda g: (g["self"] + (g["self"] * g["self"] - 1.0).sqrt()).log(),
    "atanh": lambda g: 0.5 * torch.log1p(2.0 * g["self"] / (1.0 - g["self"])),
    "fmod": lambda g: _whole_remainder(g, "trunc"),
    "remainder": lambda g: _whole_remainder(g, "floor"),
    "frac": lambda g: g["self"] - g["self"].trunc(),
    "logaddexp": lambda g: torch.maximum(g["self"], g["other"]) + torch.log1p((-(g["self"] - g["other"]).abs()).exp()),
    "sgn": lambda g: g["self"].sign(),
    "softshrink": lambda g: g["self"].sign() * (g["self"].abs() - g["lambd"]).relu(),
    "hardshrink": lambda g: g["self"] * (g["self"].abs() > g["lambd"]),
    "tril": lambda g: g["self"] * torch.ones(g["self"].shape[-2:]).tril(g.get("diagonal", 0)),
    "triu": lambda g: g["self"] * torch.ones(g["self"].shape[-2:]).triu(g.get("diagonal", 0)),
    "pixel_shuffle": _shuffle,
    "pixel_unshuffle": _unshuffle,
    "_unsafe_index": lambda g: torch.ops.aten.index(g["self"], g["indices"]),
    "_native_multi_head_attention": _attention,
    "_transformer_encoder_layer_fwd": _encoder,
    "floor_divide": lambda g: torch.div(g["self"], g["other"], rounding_mode="floor"),
    "scaled_dot_product_attention": _float_mask,
    "lstm": _unrolled_if_projected,
    "one_hot": _one_hot,
    "_cdist_forward": _distance,
    "_euclidean_dist": _euclidean,
    "logcumsumexp": lambda g: (g["self"] - g["self"].amax(g["dim"], True)).exp().cumsum(g["dim"]).log()
    + g["self"].amax(g["dim"], True),
    "index_put": _masked,
    "_index_put_impl": _masked,
    "roll": _roll,
    "repeat_interleave": _repeated,
    "rot90": lambda g: _turned(g["self"], g["k"] % 4, *g["dims"]),
    "channel_shuffle": lambda g: g["self"].unflatten(1, (g["groups"], -1)).transpose(1, 2).flatten(1, 2),
    "round": _round,
    "aminmax": _aminmax,
    "any": _truth("amax"),
    "all": _truth("amin"),
    "count_nonzero": lambda g: (g["self"] != 0).sum(_every(g["self"]) if g.get("dim") is None else g["dim"]),
    "bucketize": lambda g: _searched(g["self"], g["boundaries"], g["right"]),
    "searchsorted": lambda g: NotImplemented
    if g.get("sorter") is not None or g["sorted_sequence"].dim() != 1
    else _searched(g["self"], g["sorted_sequence"], g["right"] or g.get("side") == "right"),
    "linalg_cross": lambda g: g["self"].roll(-1, g["dim"]) * g["other"].roll(1, g["dim"])
    - g["self"].roll(1, g["dim"]) * g["other"].roll(-1, g["dim"]),
    "_trilinear": lambda g: _trilinear(g),
    "diag_embed": lambda g: g["self"].unsqueeze(-1) * torch.eye(g["self"].shape[-1])
    if (g["offset"], g["dim1"], g["dim2"]) == (0, -2, -1)
    else NotImplemented,
    "hypot": lambda g: (g["self"].square() + g["other"].square()).sqrt(),
    "exp2": lambda g: (g["self"] * math.log(2.0)).exp(),
    "sinc": lambda g: torch.where(g["self"] == 0, 1.0, (g["self"] * math.pi).sin() / (g["self"] * math.pi)),
    "erfc": lambda g: 1.0 - g["self"].erf(),
    "logit": _logit,
    "heaviside": lambda g: torch.where(g["self"] == 0, g["values"], (g["self"] > 0).to(torch.float32)),
    "copysign": lambda g: torch.where(g["other"] < 0, -g["self"].abs(), g["self"].abs()),
    "signbit": lambda g: g["self"] < 0,
    "isnan": lambda g: g["self"] != g["self"],
    "isinf": lambda g: g["self"].abs() == math.inf,
    "isfinite": lambda g: g["self"].abs() < math.inf,
    "isposinf": lambda g: g["self"] == math.inf,
    "isneginf": lambda g: g["self"] == -math.inf,
    "xlogy": lambda g: torch.where(g["self"] == 0, 0.0, g["self"] * g["other"].log()),
    "deg2rad": lambda g: g["self"] * (math.pi / 180),
    "rad2deg": lambda g: g["self"] * (180 / math.pi),
    "fmax": lambda g: torch.maximum(g["self"], g["other"]),
    "fmin": lambda g: torch.minimum(g["self"], g["other"]),
    "nansum": lambda g: torch.where(g["self"] == g["self"], g["self"], 0.0).sum(
        _every(g["self"]) if g.get("dim") is None else g["dim"], g.get("keepdim", False)
    ),
    "ldexp": lambda g: g["self"] * 2.0 ** g["other"],
    "rrelu": lambda g: torch.nn.functional.leaky_relu(g["self"], (g["lower"] + g["upper"]) / 2),
    "adaptive_avg_pool1d": _in_parts,
    "adaptive_avg_pool2d": _in_parts,
    "_adaptive_avg_pool2d": _in_parts,
    **{
        name: _stretched(name)
        for name in (
            "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact1d",
            "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "upsample_linear1d", "upsample_bilinear2d",
            "upsample_trilinear3d", "upsample_bicubic2d",
        )
    },
}  # fmt: skip


# -- complex values ----------------------------------------------------------------------------------------------


def parts(value: Any) -> tuple[Any, Any]:
    """Real and imaginary part, without a copy; 0 as the imaginary part of what is real."""
    if isinstance(value, complex):
        return value.real, value.imag
    if not isinstance(value, Tensor) or not value.is_complex():
        return value, 0.0
    if value.is_conj():
        # The same memory, seen without the flag.
        re, im = torch.view_as_real(torch._conj(value)).unbind(-1)
        return re, -im
    re, im = torch.view_as_real(value).unbind(-1)
    return re, im


def resolved(z: Tensor) -> Tensor:
    """The same values without a flag for their conjugates."""
    return _joined(*parts(z))


def _joined(re: Any, im: Any) -> Tensor:
    if not isinstance(re, Tensor) or not isinstance(im, Tensor) or re.shape != im.shape:
        shape = np.broadcast_shapes(*(t.shape for t in (re, im) if isinstance(t, Tensor)))
        like = torch.zeros(shape)
        re, im = re + like, im + like
    return torch.view_as_complex(torch.stack([re, im], -1))


def _zero(value: Any) -> bool:
    return not isinstance(value, Tensor) and value == 0


def _times(x: Any, y: Any) -> tuple[Any, Any]:
    (a, b), (c, d) = x, y
    if _zero(d):
        return a * c, b * c
    if _zero(b):
        return a * c, a * d
    return a * c - b * d, a * d + b * c


def _inverse(x: Any) -> tuple[Any, Any]:
    a, b = x
    size = a * a + b * b
    return a / size, -b / size


def _size(z: Any) -> Tensor:
    a, b = parts(z)
    return (a * a + b * b).sqrt()  # type: ignore[no-any-return]


def _angle(z: Any) -> Tensor:
    a, b = parts(z)
    if _zero(b):
        return torch.where(a < 0, math.pi, 0.0)
    return torch.atan2(b, a)


def _polar(size: Any, angle: Any) -> Tensor:
    return _joined(size * angle.cos(), size * angle.sin())


def _sum(g: dict[str, Any], sign: float) -> Tensor:
    (a, b), (c, d) = parts(g["self"]), parts(g["other"])
    (e, f) = _times((sign, 0.0), parts(g.get("alpha", 1)))
    c, d = (c, d) if (e, f) == (1.0, 0.0) else _times((c, d), (e, f))
    return _joined(a + c, b if _zero(d) else b + d)


def _quotient(g: dict[str, Any]) -> Any:
    if g.get("rounding_mode") is not None:
        return NotImplemented
    x, (c, d) = parts(g["self"]), parts(g["other"])
    return _joined(x[0] / c, x[1] / c) if _zero(d) else _joined(*_times(x, _inverse((c, d))))


def _power(g: dict[str, Any]) -> Any:
    base, exponent = parts(g["self"]), g["exponent"]
    if isinstance(exponent, (Tensor, complex)):
        return NotImplemented
    if float(exponent).is_integer() and 0 < exponent <= 8:
        result = base
        for _ in range(int(exponent) - 1):
            result = _times(result, base)
        return _joined(*result)
    return _polar(_size(g["self"]) ** exponent, _angle(g["self"]) * exponent)


def _exponential(g: dict[str, Any]) -> Tensor:
    a, b = parts(g["self"])
    return _polar(a.exp(), b)


def _sign(g: dict[str, Any]) -> Tensor:
    (a, b), size = parts(g["self"]), _size(g["self"])
    size = torch.where(size == 0, 1.0, size)
    return _joined(a / size, b / size)


def _products(name: str) -> Callable[[dict[str, Any]], Tensor]:
    """Products of matrices, whichever of the two is complex."""

    def compose(g: dict[str, Any]) -> Tensor:
        x = g.get("self", g.get("input"))
        y = next(g[k] for k in ("other", "mat2", "vec2", "vec", "tensor", "weight") if k in g)
        (a, b), (c, d) = parts(x), parts(y)
        call = torch.matmul if name != "linear" else torch.nn.functional.linear
        if name == "vdot":
            b = -b
        if _zero(b) or _zero(d):
            re, im = call(a, c), call(a, d) if _zero(b) else call(b, c)
        else:
            re, im = call(a, c) - call(b, d), call(a, d) + call(b, c)
        if g.get("bias") is not None:
            shift = parts(g["bias"])
            re, im = re + shift[0], im + shift[1]
        return _joined(re, im)

    return compose


def apart(g: dict[str, Any], call: Callable[[dict[str, Any]], Any]) -> Tensor:
    """What is done to both parts alike."""

    def picked(value: Any, part: int) -> Any:
        if isinstance(value, (list, tuple)):
            return [picked(v, part) for v in value]
        if isinstance(value, complex) or (isinstance(value, Tensor) and value.is_complex()):
            return parts(value)[part]
        if isinstance(value, Tensor) and value.dtype == torch.float32 and part:
            return torch.zeros(value.shape)
        return value

    return _joined(*(call({k: picked(v, part) for k, v in g.items()}) for part in (0, 1)))


def _written(g: dict[str, Any], value: Any) -> Tensor:
    """Parts of ``value`` into the parts of ``self``."""
    target = g["self"]
    pair = parts(value)
    if target.is_complex():
        for into, part in zip(torch.view_as_real(target).unbind(-1), pair, strict=True):
            into.copy_(part) if isinstance(part, Tensor) else into.fill_(part)
    else:
        target.copy_(pair[0])
    return target  # type: ignore[no-any-return]


#: The same for operations on complex values.
COMPLEX: dict[str, Callable[[dict[str, Any]], Any]] = {
    "complex": lambda g: _joined(g["real"], g["imag"]),
    "polar": lambda g: _polar(g["abs"], g["angle"]),
    "abs": lambda g: _size(g["self"]),
    "angle": lambda g: _angle(g["self"]),
    "add": lambda g: _sum(g, 1.0),
    "sub": lambda g: _sum(g, -1.0),
    "rsub": lambda g: _sum({**g, "self": g["other"], "other": g["self"]}, -1.0),
    "mul": lambda g: _joined(*_times(parts(g["self"]), parts(g["other"]))),
    "div": _quotient,
    "neg": lambda g: _joined(*(-p for p in parts(g["self"]))),
    "reciprocal": lambda g: _joined(*_inverse(parts(g["self"]))),
    "square": lambda g: _joined(*_times(parts(g["self"]), parts(g["self"]))),
    "pow": _power,
    "sqrt": lambda g: _polar(_size(g["self"]).sqrt(), _angle(g["self"]) * 0.5),
    "exp": _exponential,
    "log": lambda g: _joined(_size(g["self"]).log(), _angle(g["self"])),
    "sgn": _sign,
    "conj_physical": lambda g: _joined(parts(g["self"])[0], -parts(g["self"])[1]),
    "_conj_physical": lambda g: _joined(parts(g["self"])[0], -parts(g["self"])[1]),
    "copy": lambda g: _written(g, g["src"]),
    "fill": lambda g: _written(g, g["value"]),
    "zero": lambda g: _written(g, 0.0),
    "_to_copy": lambda g: _joined(*parts(g["self"])),
    "to": lambda g: _joined(*parts(g["self"])),
    **{name: _products(name) for name in ("matmul", "mm", "bmm", "mv", "dot", "vdot", "linear")},
}

#: Operations that do the same to both parts of a complex value.
APART = {
    "cat", "stack", "clone", "contiguous", "flip", "roll", "sum", "mean", "constant_pad_nd", "index_select", "index",
    "gather", "cumsum", "repeat", "where", "masked_fill", "tril", "triu", "repeat_interleave", "slice_scatter",
    "select_scatter", "unfold_backward", "_reshape_copy", "_unsafe_view", "dropout", "embedding",
}  # fmt: skip
