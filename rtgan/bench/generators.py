"""How long one frame of a generator takes, beside TorchScript and ONNX Runtime with the same weights.

All are measured in turns within one run, one thread each, with their state carried from frame to frame. Our time
is that of a compiled loop of calls through the function pointer, as on the audio thread; a peer is called as its
users call it. ``paced`` rows sleep between frames, so that caches and clocks are as cold as in a live host, with
real-time priority where the system gives it. Peers that are not installed are skipped by name.
"""

from __future__ import annotations

import contextlib
import io
import json as json_module
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numba import types

from rtgan.errors import RtganError
from rtgan.generators import compile as compiler
from rtgan.generators import library
from rtgan.generators.compile import Net, compile
from rtgan.generators.program import Program
from rtgan.kernels.native import call_net, kernel

_Frame = Callable[[], object]
_ROUNDS = 40
_ROUND_US = 3000.0
_PACED_FRAMES = 1500
_PACED_S = 20.0
_PERIOD_S = 2.7e-3
#: Of what nets draw.
_SEED = 0
#: A period of 128 samples at 44.1 kHz, in which the answer of a model of sound has to be there.
_BLOCK_US = 1e6 * 128 / 44100
#: Share of that, and of a model's own block in a worker, in which an answer holds.
_HOLDS = 0.8
#: As audio servers have it for their clients.
_PRIORITY = 20


@kernel(types.void(types.int64, types.int64, types.int64, types.int64))
def _repeat(times: int, function: int, arena: int, weights: int) -> None:
    for _ in range(times):
        call_net(function, arena, weights)


def _wide_net() -> tuple[Any, list[tuple[int, ...]]]:
    """Two GRUs of 256 between linear layers, on 257 bins: what is bound by the weights' way from the cache."""
    import torch
    from torch import Tensor, nn

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.leave = nn.Linear(257, 256), nn.Linear(256, 257)
            self.first, self.second = nn.GRU(256, 256, batch_first=True), nn.GRU(256, 256, batch_first=True)

        def forward(self, frame: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            level = torch.log(frame[:, 0] * frame[:, 0] + frame[:, 1] * frame[:, 1] + 1e-6)
            x = torch.relu(self.enter(level)).unsqueeze(1)
            x, h1 = self.first(x, state[:, :256].unsqueeze(0))
            x, h2 = self.second(x, state[:, 256:].unsqueeze(0))
            mask = torch.sigmoid(self.leave(x.squeeze(1))).unsqueeze(1)
            return frame * mask, torch.cat([h1[0], h2[0]], 1)

    torch.manual_seed(1)
    return Wide().eval(), [(1, 2, 257), (1, 512)]


def _many_layer_net() -> tuple[Any, list[tuple[int, ...]]]:
    """A convolutional-recurrent net of some 200 small operations: what is bound by the cost of an operation."""
    import torch
    from torch import Tensor, nn

    width = 16

    class Block(nn.Module):
        """Pointwise, dilated depthwise over time and frequency, pointwise, a recurrent gate, channels shuffled."""

        def __init__(self, dilation: int) -> None:
            super().__init__()
            half = width // 2
            self.p1, self.b1, self.a1 = nn.Conv2d(3 * half, width, 1), nn.BatchNorm2d(width), nn.PReLU()
            self.d = nn.Conv2d(width, width, 3, padding=(0, 1), dilation=(dilation, 1), groups=width)
            self.b2, self.a2 = nn.BatchNorm2d(width), nn.PReLU()
            self.p2, self.b3 = nn.Conv2d(width, half, 1), nn.BatchNorm2d(half)
            self.gate, self.out = nn.GRU(half, width, batch_first=True), nn.Linear(width, half)

        def forward(self, x: Tensor, past: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            a, b = x[:, :8], x[:, 8:]
            near = torch.cat(
                [nn.functional.pad(a, [1, 0])[:, :, :, :33], a, nn.functional.pad(a, [0, 1])[:, :, :, 1:]], 1
            )
            y = self.a1(self.b1(self.p1(near)))
            window = torch.cat([past, y], 2)
            y = self.b3(self.p2(self.a2(self.b2(self.d(window)))))
            energy = torch.mean(y * y, 3).transpose(1, 2)
            g, h = self.gate(energy, h)
            y = y * torch.sigmoid(self.out(g)).transpose(1, 2).unsqueeze(3)
            return torch.stack([y, b], 2).reshape(1, width, 1, 33), window[:, :, 1:], h

    class Dual(nn.Module):
        """Two recurrent nets: along the frequencies in both directions, and along time for each frequency."""

        def __init__(self) -> None:
            super().__init__()
            self.along = nn.GRU(width, 8, batch_first=True, bidirectional=True)
            self.f1, self.n1 = nn.Linear(width, width), nn.LayerNorm([33, width])
            self.time = nn.GRU(width, width, batch_first=True)
            self.f2, self.n2 = nn.Linear(width, width), nn.LayerNorm([33, width])

        def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            x = x.permute(0, 2, 3, 1)[0]
            y, _ = self.along(x, torch.zeros(2, 1, 8))
            x = x + self.n1(self.f1(y))
            z, h = self.time(x.transpose(0, 1), h)
            x = x + self.n2(self.f2(z.transpose(0, 1)))
            return x.unsqueeze(0).permute(0, 3, 1, 2), h

    class Many(nn.Module):
        """Encoder, two dual-path blocks, decoder with skips; 129 bands in, a complex mask out."""

        def __init__(self) -> None:
            super().__init__()
            self.c1, self.b1, self.a1 = nn.Conv2d(9, width, (1, 5), (1, 2), (0, 2)), nn.BatchNorm2d(width), nn.PReLU()
            self.c2 = nn.Conv2d(width, width, (1, 5), (1, 2), (0, 2), groups=2)
            self.b2, self.a2 = nn.BatchNorm2d(width), nn.PReLU()
            self.down = nn.ModuleList([Block(d) for d in (1, 2, 5)])
            self.dual = nn.ModuleList([Dual(), Dual()])
            self.up = nn.ModuleList([Block(d) for d in (5, 2, 1)])
            self.d2 = nn.ConvTranspose2d(width, width, (1, 5), (1, 2), (0, 2), groups=2)
            self.b3, self.a3 = nn.BatchNorm2d(width), nn.PReLU()
            self.d1, self.b4 = nn.ConvTranspose2d(width, 2, (1, 5), (1, 2), (0, 2)), nn.BatchNorm2d(2)

        def forward(self, frame: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            re, im = frame[:, 0], frame[:, 1]
            x = torch.stack([torch.sqrt(re * re + im * im + 1e-12), re, im], 1).unsqueeze(2)
            x = nn.functional.pad(x, [1, 1])
            x = torch.cat([x[:, :, :, :129], x[:, :, :, 1:130], x[:, :, :, 2:]], 1)
            e1 = self.a1(self.b1(self.c1(x)))
            x = self.a2(self.b2(self.c2(e1)))
            at, skips = 0, [x]
            kept: list[Tensor] = []
            for dilation, block in zip((1, 2, 5), self.down):
                size = width * 2 * dilation * 33
                past = state[:, at : at + size].view(1, width, 2 * dilation, 33)
                h = state[:, at + size : at + size + width]
                x, past, h = block(x, past, h.unsqueeze(0))
                kept += [past.reshape(1, size), h[0]]
                at += size + width
                skips.append(x)
            for dual in self.dual:
                x, h = dual(x, state[:, at : at + 33 * width].view(1, 33, width))
                kept.append(h.reshape(1, 33 * width))
                at += 33 * width
            for k, (dilation, block) in enumerate(zip((5, 2, 1), self.up)):
                size = width * 2 * dilation * 33
                past = state[:, at : at + size].view(1, width, 2 * dilation, 33)
                h = state[:, at + size : at + size + width]
                x, past, h = block(x + skips[3 - k], past, h.unsqueeze(0))
                kept += [past.reshape(1, size), h[0]]
                at += size + width
            x = self.a3(self.b3(self.d2(x + skips[0])))
            mask = torch.tanh(self.b4(self.d1(x + e1))).squeeze(2)
            out = torch.stack([re * mask[:, 0] - im * mask[:, 1], im * mask[:, 0] + re * mask[:, 1]], 1)
            return out, torch.cat(kept, 1)

    torch.manual_seed(2)
    state = 2 * sum(width * 2 * d * 33 + width for d in (1, 2, 5)) + 2 * 33 * width
    return Many().eval(), [(1, 2, 129), (1, state)]


def _torchscript(module: Any, shapes: list[tuple[int, ...]]) -> _Frame:
    """A call of the module in TorchScript: traced, frozen or optimised for inference, whichever is fastest here."""
    import torch

    jit: Any = torch.jit
    example, calls = torch.full(shapes[0], 0.1), []
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = jit.trace(module, (example, *map(torch.zeros, shapes[1:])), check_trace=False)
        forms = [traced]
        if len(shapes) > 1:
            # What keeps its past in buffers would lose it when frozen.
            frozen = jit.freeze(traced)
            forms += [frozen, jit.optimize_for_inference(frozen)]
        calls = [_torch_frame(m, example, shapes[1:]) for m in forms]

    def seconds(frame: _Frame) -> float:
        start = time.perf_counter()
        for _ in range(10):
            frame()
        return time.perf_counter() - start

    return min(calls, key=seconds)


def _torch_frame(module: Any, example: Any, state_shapes: Sequence[tuple[int, ...]]) -> _Frame:
    import torch

    state = [torch.zeros(shape) for shape in state_shapes]

    def frame() -> object:
        with torch.inference_mode():
            out = module(example, *state)
            if state:
                out, *state[:] = out[: 1 + len(state)]
        return out

    for _ in range(5):
        frame()
    return frame


def _onnx(module: Any, shapes: list[tuple[int, ...]]) -> _Frame:
    """The module in ONNX Runtime on one thread, and a call of it."""
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import torch

    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        examples = tuple(torch.zeros(s) for s in shapes)
        export: Any = torch.onnx.export
        export(
            module, examples, file, input_names=["frame", "state"], output_names=["out", "next"], dynamo=False
        )  # fmt: skip
    return _Session(file.getvalue()).frame


class _Session:
    """A net in ONNX Runtime on one thread; its outputs but the first are its inputs but the first of the next frame."""

    def __init__(self, data: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self._feed = {i.name: np.zeros(i.shape, np.float32) for i in self._session.get_inputs()}
        self._names = list(self._feed)
        self._feed[self._names[0]] += np.float32(0.1)

    def frame(self, values: Any = None) -> Any:
        """Run once; ``values`` take the place of what goes in."""
        if values is not None:
            self._feed[self._names[0]] = values
        out, *state = self._session.run(None, self._feed)
        self._feed.update(zip(self._names[1:], state, strict=True))
        return out


def _ours(net: Net) -> tuple[Callable[[int], object], np.ndarray[Any, Any]]:
    arena = net.arena()
    net.inputs[0].of(arena)[...] = 0.1
    return (lambda times: _repeat(times, net.address, arena.ctypes.data, net.weights.ctypes.data)), arena


def _loop(frame: _Frame) -> Callable[[int], object]:
    def repeated(times: int) -> None:
        for _ in range(times):
            frame()

    return repeated


def _medians(runs: dict[str, Callable[[int], object]]) -> dict[str, float]:
    """Median time of a frame in microseconds, the contestants taking turns."""
    counts, times = {}, {name: [] for name in runs}  # type: dict[str, int], dict[str, list[float]]
    for name, run in runs.items():
        run(3)
        start = time.perf_counter()
        run(3)
        counts[name] = max(1, int(_ROUND_US / ((time.perf_counter() - start) / 3 * 1e6)))
    for _ in range(_ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            run(counts[name])
            times[name].append((time.perf_counter() - start) / counts[name] * 1e6)
    return {name: float(np.median(t)) for name, t in times.items()}


@contextlib.contextmanager
def _urgent() -> Iterator[bool]:
    """Real-time priority for this thread, where the system gives it; whether it does."""
    try:
        before = os.sched_getscheduler(0), os.sched_getparam(0)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    except (AttributeError, OSError):
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, *before)


def _paced(runs: dict[str, Callable[[int], object]]) -> tuple[dict[str, dict[str, float]], bool]:
    """Percentiles in microseconds, with a pause before each frame, the contestants taking turns; how urgently."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    begin = time.perf_counter()
    with _urgent() as urgent:
        for k in range(_PACED_FRAMES):
            if k > 1 and time.perf_counter() - begin > _PACED_S:
                break
            for name, run in runs.items():
                time.sleep(_PERIOD_S / len(runs))
                start = time.perf_counter_ns()
                run(1)
                times[name].append((time.perf_counter_ns() - start) / 1e3)
    points = {"p50_us": 50.0, "p99_us": 99.0, "p999_us": 99.9}
    return {name: {p: float(np.percentile(t, q)) for p, q in points.items()} for name, t in times.items()}, urgent


def _row(title: str, net: Net, peers: dict[str, _Frame], skipped: list[str], deviation: float) -> dict[str, Any]:
    ours, arena = _ours(net)
    runs = {"ours": ours, **{name: _loop(frame) for name, frame in peers.items()}}
    hot = _medians(runs)
    paced, urgent = _paced(runs)
    times = {name: us / hot["ours"] for name, us in hot.items() if name != "ours"}
    return {
        "net": title, "ours_us": hot["ours"], "peers_us": {n: us for n, us in hot.items() if n != "ours"},
        "times_faster": times, "paced": paced, "real_time": urgent,
        "paced_tail_ratio": paced["ours"]["p999_us"] / paced["ours"]["p50_us"],
        "deviation_of_peak": deviation, "skipped": skipped, **net.report,
        "finite": all(bool(np.isfinite(place.of(arena)).all()) for place in net.outputs),
    }  # fmt: skip


def _compiled(
    module: Any, shapes: list[tuple[int, ...]], carry: tuple[tuple[int, int], ...]
) -> tuple[Net, dict[str, float]]:
    """A net, and the seconds it takes to be recorded and compiled, and to be had from the cache."""
    import torch

    from rtgan.generators.record import record

    begin = time.perf_counter()
    program = record(module, [torch.zeros(s) for s in shapes], seed=_SEED)
    compile(program, carry, use_cache=False)
    cold = time.perf_counter() - begin
    net = compile(program, carry)
    return net, {"compile_s": cold, "cached_ms": 1e3 * _from_cache(program, carry)}


def _from_cache(program: Program, carry: tuple[tuple[int, int], ...]) -> float:
    path = compiler.cache_path(program, carry)
    begin = time.perf_counter()
    found = compiler.read_cache(path)
    spent = time.perf_counter() - begin
    return spent if found is not None else float("nan")


def _off(net: Net, shapes: list[tuple[int, ...]], expected: Callable[[Any], Any]) -> float:
    """Largest distance from what is expected over 100 frames of noise, of the expected peak."""
    rng, arena, found = np.random.default_rng(5), net.arena(), 0.0
    for _ in range(100):
        frame = rng.standard_normal(shapes[0]).astype(np.float32)
        wanted = expected(frame)
        net.inputs[0].of(arena)[...] = frame
        net.run(arena)
        found = max(found, float(np.abs(net.outputs[0].of(arena) - wanted).max() / np.abs(wanted).max()))
    return found


def _torch_answers(module: Any, shapes: list[tuple[int, ...]]) -> Callable[[Any], Any]:
    import torch

    from rtgan.generators.record import Drawn

    state = [torch.zeros(s) for s in shapes[1:]]
    drawn = Drawn(_SEED)

    def answer(frame: Any) -> Any:
        drawn.source.again()
        with torch.inference_mode(), drawn:
            out = module(torch.from_numpy(frame), *state)
            if state:
                out, *state[:] = out
        return out.numpy()

    return answer


def _carry(shapes: list[tuple[int, ...]]) -> tuple[tuple[int, int], ...]:
    return tuple((k, k) for k in range(1, len(shapes)))


def _net_row(title: str, make: Callable[[], tuple[Any, list[tuple[int, ...]]]]) -> dict[str, Any]:
    """A net of tensors in and out, beside TorchScript and, where it has no state of its own, ONNX Runtime."""
    module, shapes = make()
    net, times = _compiled(module, shapes, _carry(shapes))
    peers: dict[str, _Frame] = {"TorchScript": _torchscript(module, shapes)}
    skipped: list[str] = []
    if len(shapes) > 1:
        try:
            peers["ONNX Runtime"] = _onnx(module, shapes)
        except ImportError:
            skipped.append("ONNX Runtime")
    off = _off(net, shapes, _torch_answers(make()[0], shapes))
    row = {**_row(title, net, peers, skipped, off), **times}
    if len(shapes) == 1:
        share = row["paced"]["ours"]["p99_us"] / _BLOCK_US
        # What does not fit into a call of the device has the time of its own block in a worker.
        row |= {"share_of_128": share, "block_samples": shapes[0][-1], "share_of_block": share * 128 / shapes[0][-1]}
    return row


def _half_row(title: str, make: Callable[[], tuple[Any, list[tuple[int, ...]]]]) -> dict[str, Any]:
    """A net with its large matrices in half precision, beside itself in float32."""
    import torch

    from rtgan.generators.record import record

    module, shapes = make()
    program = record(module, [torch.zeros(s) for s in shapes], seed=_SEED)
    whole = compile(program, _carry(shapes))
    program.meta["weights"] = compiler.HALF
    arena = whole.arena()
    whole.inputs[0].of(arena)[...] = 0.1

    def in_float32() -> None:
        _repeat(1, whole.address, arena.ctypes.data, whole.weights.ctypes.data)

    net = compile(program, _carry(shapes))
    off = _off(net, shapes, _torch_answers(make()[0], shapes))
    return _row(f"{title}, float16", net, {"float32": in_float32}, [], off)


def _gtcrn_row(file: Path) -> dict[str, Any]:
    """GTCRN with the weights of a file, beside that file in ONNX Runtime, whose answers it has to give."""
    from rtgan.bench import gtcrn

    module = gtcrn.load(file)
    net, times = _compiled(module, gtcrn.SHAPES, _carry(gtcrn.SHAPES))
    data = file.read_bytes()
    peers = {
        "TorchScript": _torchscript(module, gtcrn.SHAPES),
        "ONNX Runtime": _Session(data).frame,
    }
    return {**_row("GTCRN", net, peers, [], _off(net, gtcrn.SHAPES, _Session(data).frame)), **times}


def _shipped_row(name: str) -> dict[str, Any]:
    loaded = library.load(name)
    peers: dict[str, _Frame] = {}
    skipped = ["ONNX Runtime"]
    try:
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = torch.jit.load(str(loaded.path)).eval()  # type: ignore[no-untyped-call]
        torch.set_num_threads(1)
        peers["TorchScript"] = _torch_frame(module, torch.full(loaded.card.shapes[0], 0.1), loaded.card.shapes[1:])
    except ImportError:
        skipped.append("TorchScript")
    return _row(f"shipped: {name}", loaded.net, peers, skipped, library.deviation(loaded) or 0.0)


def run(json: bool = False, gtcrn: Path | None = None) -> list[dict[str, Any]]:
    """Measure, print a table (or JSON), and return the rows.

    Parameters
    ----------
    json : bool
    gtcrn : Path, optional
        The published streaming ONNX file of GTCRN, to be compared with.

    Returns
    -------
    list of dict
        ``net``, ``ours_us`` and ``peers_us`` (median of a frame, hot), ``times_faster``, ``paced`` (percentiles
        with a pause before each frame), ``deviation_of_peak`` from TorchScript (GTCRN: from ONNX Runtime),
        ``compile_s`` from the module and ``cached_ms`` from the cache, ``share_of_128`` (p99 of a paced frame in
        periods of 128 samples at 44.1 kHz) and ``share_of_block`` (in those of its own block), ``real_time`` (whether
        paced frames had that priority), ``skipped`` peers, and what the compiler says of the net.
    """
    rows = []
    try:
        import torch
    except ImportError:
        if gtcrn is not None:
            raise RtganError("--gtcrn needs torch and onnxruntime: pip install 'rtgan[torch,eval]'") from None
    else:
        from rtgan.bench import autoencoders

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            if gtcrn is not None:
                rows.append(_gtcrn_row(gtcrn))
            for title, make in (
                ("two GRUs of 256", _wide_net), ("many small layers", _many_layer_net),
                ("BRAVE's size, 128", autoencoders.brave), ("small RAVE's size, 2048", autoencoders.small_rave),
                ("RAVE v1's size, 2048", autoencoders.noisy_rave), ("RAVE v2's size, 2048", autoencoders.rave),
            ):  # fmt: skip
                rows.append(_net_row(title, make))
            for title, make in (("two GRUs of 256", _wide_net), ("BRAVE's size, 128", autoencoders.brave)):
                rows.append(_half_row(title, make))
        finally:
            torch.set_num_threads(threads)
    rows += [_shipped_row(name) for name in library.names()]
    if json:
        print(json_module.dumps(rows))
    else:
        _table(rows)
    return rows


def _table(rows: list[dict[str, Any]]) -> None:
    urgent = ", with real-time priority" if all(row["real_time"] for row in rows) else ""
    print(f"one frame, us (median; paced: after a pause of 2.7 ms{urgent})")
    for row in rows:
        paced, ours = row["paced"], row["paced"]["ours"]
        hot = [f"{n} {us:.0f} ({row['times_faster'][n]:.1f}x)" for n, us in row["peers_us"].items()]
        cold = [f"{n} {paced[n]['p50_us']:.0f} ({paced[n]['p50_us'] / ours['p50_us']:.1f}x)" for n in row["peers_us"]]
        lines = [
            f"{row['net']:26} ours {row['ours_us']:7.1f}   {', '.join(hot)}",
            f"paced {ours['p50_us']:.1f}, p99 {ours['p99_us']:.1f}, p99.9 {ours['p999_us']:.1f}   {', '.join(cold)}",
            f"{row['operations']} operations in {row['steps']} steps, off by {row['deviation_of_peak']:.1e}",
        ]
        if "compile_s" in row:
            lines.append(f"recorded and compiled in {row['compile_s']:.1f} s, from the cache {row['cached_ms']:.0f} ms")
        if "share_of_128" in row:
            fits = row["share_of_128"] <= _HOLDS
            held = (
                "in the device's call" if fits else "in a worker" if row["share_of_block"] <= _HOLDS else "nowhere here"
            )
            own = f", {100 * row['share_of_block']:.0f} % of its own {row['block_samples']}" if not fits else ""
            lines.append(f"p99 is {100 * row['share_of_128']:.0f} % of 128 samples at 44.1 kHz{own}: it holds {held}")
        if row["skipped"]:
            lines.append(f"not measured: {', '.join(row['skipped'])}")
        print(f"\n{'':27}".join(lines))
