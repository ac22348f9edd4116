"""Every layer against float64 NumPy, on sizes that fit no register."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

from rtgan.kernels import nn, nn_functions, nn_jit
from rtgan.kernels.nn_code import Code, Machine, pieces

Array = NDArray[np.float32]
HOST = Machine.host()


def f32(values: object) -> Array:
    return np.ascontiguousarray(values, np.float32)


def close(actual: Array, expected: NDArray[np.float64], tolerance: float = 2e-6) -> None:
    scale = max(1.0, float(np.abs(expected).max()))
    assert np.abs(actual - expected).max() <= tolerance * scale


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return special.expit(x)


# -- elementwise


EXACT: dict[str, tuple[Callable[..., NDArray[np.float64]], NDArray[np.float64], float, bool]] = {
    # name: (reference, arguments, tolerance, relative)
    "exp": (np.exp, np.linspace(-87, 88, 20011), 2e-7, True),
    "log": (np.log, np.concatenate([np.geomspace(1e-38, 1e38, 9999), np.geomspace(1e-42, 1e-39, 9)]), 2e-7, True),
    "log1p": (np.log1p, np.geomspace(1e-9, 1e6, 9999), 3e-7, True),
    "expm1": (np.expm1, np.linspace(-10, 10, 9999), 6e-7, True),
    "tanh": (np.tanh, np.linspace(-20, 20, 20011), 3e-7, False),
    "sigmoid": (sigmoid, np.linspace(-40, 40, 20011), 2e-7, False),
    "erf": (special.erf, np.linspace(-6, 6, 9999), 4e-7, False),
    "sin": (np.sin, np.linspace(-1000, 1000, 20011), 4e-7, False),
    "cos": (np.cos, np.linspace(-1000, 1000, 20011), 4e-7, False),
    "atan": (np.arctan, np.linspace(-50, 50, 9999), 4e-7, False),
    "sqrt": (np.sqrt, np.geomspace(1e-30, 1e30, 999), 1e-7, True),
    "rsqrt": (lambda x: 1 / np.sqrt(x), np.geomspace(1e-30, 1e30, 999), 2e-7, True),
    "softplus": (lambda x: np.logaddexp(0, x), np.linspace(-30, 30, 999), 4e-7, True),
    "silu": (lambda x: x * sigmoid(x), np.linspace(-20, 20, 999), 3e-6, False),
    "gelu": (lambda x: x * special.ndtr(x), np.linspace(-8, 8, 999), 2e-6, False),
    "floor": (np.floor, np.linspace(-9.75, 9.75, 313), 0, False),
    "ceil": (np.ceil, np.linspace(-9.75, 9.75, 313), 0, False),
    "round": (np.round, np.linspace(-9.75, 9.75, 313), 0, False),
    "trunc": (np.trunc, np.linspace(-9.75, 9.75, 313), 0, False),
    "relu": (lambda x: np.maximum(x, 0), np.linspace(-3, 3, 99), 0, False),
    "hardswish": (lambda x: x * np.clip(x / 6 + 0.5, 0, 1), np.linspace(-5, 5, 99), 1e-6, False),
    "sign": (np.sign, np.linspace(-3, 3, 99), 0, False),
}


#: How many literal parameters a function takes after its values.
LITERALS = {"wrap": 1, "leaky_relu": 1, "elu": 3, "softplus": 2, "power": 1, "threshold": 2, "finite": 3}


def apply(name: str, *values: Array, literals: tuple[float, ...] = ()) -> Array:
    out = np.zeros_like(values[0])
    code = tuple(("in", k) for k in range(len(values)))
    expression = (*code, (name, *range(len(values)), *(("lit", x) for x in literals)))

    def emit(e: Code) -> None:
        inputs = [(p, [1]) for p in e.pointers[1:]]
        nn.elementwise(
            e, [out.size], (e.pointers[0], [1]), inputs, lambda v, n: nn_functions.evaluate(e, expression, v, n)
        )

    nn.compile_layer(emit, 1 + len(values))(out, *values)
    return out


@pytest.mark.parametrize("name", EXACT)
def test_function(name: str) -> None:
    reference, where, tolerance, relative = EXACT[name]
    x = f32(where)
    expected = reference(x.astype(np.float64))
    literals = {"softplus": (1.0, 20.0)}.get(name, ())
    error = np.abs(apply(name, x, literals=literals) - expected)
    assert (error <= tolerance * (np.maximum(np.abs(expected), 1e-37) if relative else 1.0)).all()


@pytest.mark.parametrize("exponent", [0.3, 2.0, 3.0, -1.0, 0.5, -0.7, 5.0])
def test_power(exponent: float) -> None:
    x = f32(np.geomspace(1e-6, 1e4, 999))
    expected = x.astype(np.float64) ** exponent
    assert (np.abs(apply("power", x, literals=(exponent,)) - expected) <= 3e-6 * expected).all()


def test_atan2_finds_all_quadrants(rng: np.random.Generator) -> None:
    y, x = f32(rng.standard_normal(999)), f32(rng.standard_normal(999))
    close(apply("atan2", y, x), np.arctan2(y.astype(np.float64), x), 2e-7)
    zero = f32(np.zeros(3))
    assert not apply("atan2", zero, zero).any()


def test_borders_of_exp_and_log() -> None:
    x = f32([-np.inf, -200, 0, 88.9, np.inf, np.nan])
    np.testing.assert_array_equal(apply("exp", x), f32([0, 0, 1, np.inf, np.inf, np.nan]))
    x = f32([0, 1, np.inf, -1, np.nan])
    np.testing.assert_array_equal(apply("log", x), f32([-np.inf, 0, np.inf, np.nan, np.nan]))


def test_what_is_not_a_number_stays_so() -> None:
    x = f32([np.nan] * 9)
    for name in ("relu", "tanh", "sigmoid", "elu", "silu", "hardswish", "erf", "sin"):
        literals = (1.0, 1.0, 1.0) if name == "elu" else ()
        assert np.isnan(apply(name, x, literals=literals)).all(), name


@pytest.mark.parametrize(
    ("shape", "order", "offset"),
    [((5, 7), (0, 1), 0), ((5, 7), (1, 0), 0), ((3, 4, 33), (2, 0, 1), 0), ((2, 9), (0, 1), 3), ((1, 1), (0, 1), 0)],
)
def test_elementwise_reads_any_strides(
    shape: tuple[int, ...], order: tuple[int, ...], offset: int, rng: np.random.Generator
) -> None:
    whole = f32(rng.standard_normal(shape))
    x = whole.transpose(order)[..., offset::2]
    y = f32(rng.standard_normal(x.shape[-1]))
    out = np.full(x.shape, 9, np.float32)

    def steps(a: Array) -> list[int]:
        return [s // 4 for s in a.strides]

    def emit(e: Code) -> None:
        inputs = [
            (e.at(e.pointers[1], steps(x)[-1] // 2 * offset), steps(x)),
            (e.pointers[2], [0] * (x.ndim - 1) + [1]),
        ]
        nn.elementwise(e, x.shape, (e.pointers[0], steps(out)), inputs, lambda v, _: e.add(v[0], v[1]))

    nn.compile_layer(emit, 3)(out, whole, y)
    np.testing.assert_array_equal(out, x + y)


def test_a_delay_line_moves_down_in_place(rng: np.random.Generator) -> None:
    line = f32(rng.standard_normal((3, 41)))
    expected = line.copy()
    expected[:, :-2] = line[:, 2:]

    def emit(e: Code) -> None:
        p = e.pointers[0]
        nn.elementwise(e, (3, 39), (p, (41, 1)), [(e.at(p, 2), (41, 1))], lambda v, _: v[0])

    nn.compile_layer(emit, 1)(line)
    np.testing.assert_array_equal(line, expected)


# -- products


@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [
        (1, 5, 3),
        (1, 256, 768),
        (1, 257, 1024),
        (3, 17, 33),
        (33, 16, 8),
        (7, 64, 100),
        (1, 300, 1025),
        (2, 3, 1),
        (1, 1, 16),
    ],
)
def test_linear(rows: int, inputs: int, outputs: int, rng: np.random.Generator) -> None:
    w, b = f32(rng.standard_normal((outputs, inputs))), f32(rng.standard_normal(outputs))
    x, out = f32(rng.standard_normal((rows, inputs))), np.full((rows, outputs + 1), 7, np.float32)
    slope = f32(rng.uniform(0, 1, outputs))

    def emit(e: Code) -> None:
        p = e.pointers
        nn.linear(
            e, [(rows, inputs, outputs + 1)], [(inputs, 1)], outputs, p[0], 1, p[1], p[2], p[3],
            lambda c, v, channel: nn_functions.FUNCTIONS["prelu"](c, v, channel(0)), [p[4]],
        )  # fmt: skip

    packed = nn.pack_linear(HOST, rows, w), nn.pack_vector(HOST, b), nn.pack_vector(HOST, slope)
    nn.compile_layer(emit, 5)(out, x, *packed)
    expected = x.astype(np.float64) @ w.T + b
    close(out[:, :-1], np.where(expected > 0, expected, expected * slope))
    assert (out[:, -1] == 7).all()


@pytest.mark.parametrize(("inputs", "outputs"), [(100, 1), (33, 2), (8, 1), (3, 2)])
def test_dot(inputs: int, outputs: int, rng: np.random.Generator) -> None:
    w, b = f32(rng.standard_normal((outputs, inputs))), f32(rng.standard_normal(outputs))
    x, out = f32(rng.standard_normal((4, inputs))), np.zeros((4, outputs), np.float32)

    def emit(e: Code) -> None:
        p = e.pointers
        nn.dot(e, [(4, inputs, outputs)], inputs, outputs, p[0], 1, p[1], p[2], p[3])

    nn.compile_layer(emit, 4)(out, x, nn.pack_dot(HOST, w), nn.pack_vector(HOST, b))
    close(out, x.astype(np.float64) @ w.T + b)


@pytest.mark.parametrize(("m", "k", "n"), [(5, 9, 17), (1, 30, 7), (6, 8, 8), (3, 1, 1)])
def test_matmul(m: int, k: int, n: int, rng: np.random.Generator) -> None:
    x, y, out = (
        f32(rng.standard_normal((3, m, k))),
        f32(rng.standard_normal((3, k, n))),
        np.zeros((3, m, n), np.float32),
    )

    def emit(e: Code) -> None:
        p = e.pointers
        nn.matmul(e, [(3, m * n, m * k, k * n)], (m, k, n), (p[0], n, 1), (p[1], k, 1), (p[2], n))

    nn.compile_layer(emit, 3)(out, x, y)
    close(out, x.astype(np.float64) @ y)


# -- recurrent


def cell(gates: int, x: NDArray, h: NDArray, c: NDArray, w: list[NDArray]) -> tuple[NDArray, NDArray]:
    """One step of torch's GRU (gates 3) or LSTM (4), in float64."""
    wi, wh, bi, bh = (a.astype(np.float64) for a in w)
    a, b = np.split(x @ wi.T + bi, gates, -1), np.split(h @ wh.T + bh, gates, -1)
    if gates == 3:
        r, z = sigmoid(a[0] + b[0]), sigmoid(a[1] + b[1])
        n = np.tanh(a[2] + r * b[2])
        return (1 - z) * n + z * h, c
    i, f, g, o = (p + q for p, q in zip(a, b, strict=True))
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


@pytest.mark.parametrize("gates", [3, 4])
@pytest.mark.parametrize(
    ("batch", "steps", "inputs", "hidden", "reverse"),
    [(1, 1, 256, 256, False), (2, 3, 5, 7, False), (1, 9, 8, 4, True), (33, 1, 8, 8, False), (3, 4, 20, 130, True),
     (1, 1, 40, 1, False)],
)  # fmt: skip
def test_recurrent(
    gates: int, batch: int, steps: int, inputs: int, hidden: int, reverse: bool, rng: np.random.Generator
) -> None:
    bound = hidden**-0.5
    shapes = [(gates * hidden, inputs), (gates * hidden, hidden), (gates * hidden,), (gates * hidden,)]
    weights = [f32(rng.uniform(-bound, bound, s)) for s in shapes]
    x, h0, c0 = (f32(rng.standard_normal(s)) for s in ((batch, steps, inputs), (batch, hidden), (batch, hidden)))
    y = np.full((batch, steps, hidden), 9, np.float32)
    hn, cn = np.zeros((batch, hidden), np.float32), np.zeros((batch, hidden), np.float32)
    packed, biases = nn.pack_recurrent(HOST, gates, *weights)

    def emit(e: Code) -> None:
        p = e.pointers
        nn.recurrent(
            e, gates, batch, steps, inputs, hidden, (p[0], steps * inputs, inputs, 1), (p[1], steps * hidden, hidden),
            (p[2], hidden), (p[3], hidden), p[4], p[5], reverse, (p[6], hidden), (p[7], hidden),
        )  # fmt: skip

    nn.compile_layer(emit, 8)(x, y, h0, hn, packed, biases, c0, cn)
    h, c = h0.astype(np.float64), c0.astype(np.float64)
    for t in range(steps - 1, -1, -1) if reverse else range(steps):
        h, c = cell(gates, x[:, t].astype(np.float64), h, c, weights)
        close(y[:, t], h)
    close(hn, h)
    if gates == 4:
        close(cn, c)


# -- convolution


@pytest.mark.parametrize(
    ("channels", "outputs", "groups", "kernel", "rows", "columns", "row_stride"),
    [(3, 8, 1, (2, 5), 3, 40, 1), (6, 6, 6, (1, 3), 1, 33, 1), (4, 12, 2, (3, 3), 5, 7, 2),
     (5, 13, 1, (1, 1), 1, 100, 1), (2, 3, 1, (1, 40), 1, 60, 1)],
)  # fmt: skip
def test_planes(
    channels: int, outputs: int, groups: int, kernel: tuple[int, int], rows: int, columns: int, row_stride: int,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    kh, kw = kernel
    x = f32(rng.standard_normal((2, channels, rows * row_stride + kh, columns + kw - 1)))
    w, b = f32(rng.standard_normal((outputs, channels // groups, kh, kw))), f32(rng.standard_normal(outputs))
    out = np.zeros((2, outputs, rows, columns), np.float32)
    width = x.shape[3]
    taps = [r * width + c for r in range(kh) for c in range(kw)]

    def emit(e: Code) -> None:
        p = e.pointers
        strides = (x[0].size, x[0, 0].size, width * row_stride)
        out_strides = (out[0].size, out[0, 0].size, columns, 1)
        nn.planes(e, out.shape, channels // groups, groups, taps, (p[1], *strides), (p[0], out_strides), p[2], p[3])

    packed = nn.pack_planes(HOST, groups, columns, w.reshape(outputs, channels // groups, -1))
    nn.compile_layer(emit, 4)(out, x, packed, b)
    expected = np.zeros(out.shape)
    per, inputs = outputs // groups, channels // groups
    for o in range(outputs):
        for i in range(inputs):
            for r in range(kh):
                for c in range(kw):
                    plane = x[:, o // per * inputs + i, r : r + rows * row_stride : row_stride, c : c + columns]
                    expected[:, o] += w[o, i, r, c].astype(np.float64) * plane[:, :rows]
        expected[:, o] += b[o]
    close(out, expected)


# -- reductions and normalisation


@pytest.mark.parametrize("how", ["add", "max", "min"])
@pytest.mark.parametrize(("shape", "axis"), [((3, 100), 1), ((100, 5), 0), ((4, 7), 1), ((2, 3, 9), 1), ((11,), 0)])
def test_reduce(how: str, shape: tuple[int, ...], axis: int, rng: np.random.Generator) -> None:
    x = f32(rng.standard_normal(shape))
    kept = [k for k in range(len(shape)) if k != axis]
    out = np.zeros([shape[k] for k in kept], np.float32)
    steps = [s // 4 for s in x.strides]

    def emit(e: Code) -> None:
        rows = [(shape[k], s // 4, steps[k]) for k, s in zip(kept, out.strides, strict=True)]
        nn.reduce(e, how, rows, [(shape[axis], steps[axis])], e.pointers[0], e.pointers[1], 0.5)

    nn.compile_layer(emit, 2)(out, x)
    function = {"add": np.sum, "max": np.max, "min": np.min}[how]
    close(out, 0.5 * function(x.astype(np.float64), axis=axis))


@pytest.mark.parametrize("n", [1, 5, 8, 33, 300])
def test_normalise(n: int, rng: np.random.Generator) -> None:
    x, w, b = f32(rng.standard_normal((3, n)) + 50), f32(rng.standard_normal(n)), f32(rng.standard_normal(n))
    out = np.zeros_like(x)

    def emit(e: Code) -> None:
        p = e.pointers
        nn.normalise(e, [(3, n, n, 0)], n, p[0], p[1], 1e-5, p[2], p[3])

    nn.compile_layer(emit, 4)(out, x, w, b)
    y = x.astype(np.float64)
    close(out, (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + 1e-5) * w + b, 2e-5)


@pytest.mark.parametrize("n", [1, 6, 8, 50])
@pytest.mark.parametrize("log", [False, True])
def test_softmax(n: int, log: bool, rng: np.random.Generator) -> None:
    x = f32(rng.standard_normal((4, n)) * 20)
    out = np.zeros_like(x)
    nn.compile_layer(lambda e: nn.softmax(e, [(4, n, n)], n, e.pointers[0], e.pointers[1], log), 2)(out, x)
    reference = special.log_softmax if log else special.softmax
    close(out, reference(x.astype(np.float64), axis=1), 1e-6)


# -- the code itself


def a_layer_of_everything(e: Code) -> None:
    p = e.pointers
    nn.linear(e, [(1, 0, 0)], [(37, 1)], 45, p[0], 1, p[1], p[2], p[3])
    nn.recurrent(e, 3, 1, 2, 5, 21, (p[1], 0, 5, 1), (p[0], 0, 21), (p[4], 21), (p[5], 21), p[2], p[3])
    nn.softmax(e, [(2, 9, 9)], 9, p[0], p[1])
    nn.normalise(e, [(2, 9, 9, 0)], 9, p[0], p[1], 1e-5, None, None)
    for name, function in nn_functions.FUNCTIONS.items():
        count = function.__code__.co_argcount - 1
        literals = LITERALS.get(name, 0)
        nn.elementwise(
            e, [19], (p[0], [1]), [(p[1], [1])] * (count - literals),
            lambda v, _, f=function, k=literals: f(e, *v, *([0.25] * k)),  # type: ignore[misc]
        )  # fmt: skip


TARGETS = {
    "avx512": Machine.of(
        "x86_64-unknown-linux-gnu", "skylake-avx512", {"avx512f": True, "avx512vl": True, "fma": True}
    ),
    "avx2": Machine.of("x86_64-unknown-linux-gnu", "haswell", {"avx2": True, "fma": True}),
    "sse2": Machine.of("x86_64-unknown-linux-gnu", "x86-64", {}),
    "neon": Machine.of("aarch64-unknown-linux-gnu", "generic", {"neon": True}),
    "apple": Machine.of("arm64-apple-darwin", "apple-m1", {"neon": True}),
}


def test_vector_width_follows_the_machine() -> None:
    widths = {name: (m.lanes, m.registers) for name, m in TARGETS.items()}
    assert widths == {"avx512": (16, 32), "avx2": (8, 16), "sse2": (4, 16), "neon": (4, 32), "apple": (4, 32)}


@pytest.mark.parametrize("target", [t for t in TARGETS if t != "apple"])
def test_code_for_other_machines_needs_no_library(target: str) -> None:
    import llvmlite.binding as llvm

    machine = TARGETS[target]
    code = Code(machine, 6)
    a_layer_of_everything(code)
    functions = nn_jit.Functions()
    name = functions.add(code)
    arguments = ", ".join(f"ptr {p}" for p in code.pointers)
    ir = nn_jit.module_text(functions, "layer", code.pointers, [f"call void @{name}({arguments})"])
    assert all(f.startswith("llvm.") for f in nn_jit.calls_of(ir))
    # The assembler's own view: every call goes to the layer in this module.
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target_machine = llvm.Target.from_triple(machine.triple).create_target_machine(
        cpu=machine.cpu, features=machine.features, opt=2, reloc="pic", codemodel="small"
    )
    module = llvm.parse_assembly(ir)
    module.triple = machine.triple
    text = target_machine.emit_assembly(module)
    calls = [
        line.split() for line in text.splitlines() if line.split()[:1] in (["call"], ["callq"], ["bl"], ["jmp"], ["b"])
    ]
    outside = [c for c in calls if not any(local in c[1] for local in ("layer0", ".L", "LBB"))]
    assert not outside


def test_equal_layers_share_their_code() -> None:
    functions = nn_jit.Functions()
    for _ in range(3):
        code = Code(HOST, 2)
        nn.softmax(code, [(4, 9, 9)], 9, code.pointers[0], code.pointers[1])
        functions.add(code)
    assert len(functions) == 1


@pytest.mark.parametrize("count", range(1, 40))
def test_pieces_cover_each_lane_once(count: int) -> None:
    covered = [lane for start, width in pieces(count, 16) for lane in range(start, start + width)]
    assert covered == list(range(count))


def test_a_layer_refuses_other_types() -> None:
    layer = nn.compile_layer(lambda e: nn.softmax(e, [], 9, e.pointers[0], e.pointers[1]), 2)
    with pytest.raises(TypeError, match="float32"):
        layer(np.zeros(9), np.zeros(9))
