"""How long the kernels take, each beside the best peer, measured in turns within one run.

Our time is that of a compiled loop of calls, divided by their number, as on the audio thread; what one call
from Python costs is given beside it. A peer is called as its users call it, once per frame or block, with
everything that can be prepared prepared. Peers that are not installed are skipped by name.
"""

from __future__ import annotations

import ctypes
import importlib
import json as json_module
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types

from rtgan.kernels import channels, dynamics, fft, filters, howl, loudness, resample, stft, truepeak
from rtgan.kernels.native import call_node, f32p, f64p, i64p, kernel, node

_Run = Callable[[], object]
_ROUNDS = 60
_BATCH_US = 300.0
_NODE = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


@kernel(types.void(types.int64, types.int64, types.int64, types.int64, types.int64))
def _repeat(times: int, function: int, state: int, io: int, n: int) -> None:
    for _ in range(times):
        call_node(function, state, io, n)


@node
def _rfft_node(state: int, io: int, n: int) -> None:
    s = i64p(state)
    fft.forward(s[0], io, 0, s[1], s[2], s[3])


@node
def _biquad_node(state: int, io: int, n: int) -> None:
    for channel in range(2):
        filters.cascade(state, 2, state + 80 + 32 * channel, io + 4 * channel * n, n)


@node
def _resample_node(state: int, io: int, n: int) -> None:
    resample.push(state, io, n, n)
    resample.pull(state, io + 4 * n, 2 * n, 2 * n)


@node
def _deinterleave_node(state: int, io: int, n: int) -> None:
    channels.deinterleave(io, 2, state, io + 8 * n, 2, n, n)


@node
def _compress_node(state: int, io: int, n: int) -> None:
    dynamics.compress(state, io, 2, n, n, io + 8 * n)


@node
def _deess_node(state: int, io: int, n: int) -> None:
    dynamics.deess(state, io, 2, n, n)


@node
def _lookahead_node(state: int, io: int, n: int) -> None:
    for i in range(n):
        f32p(io)[n + i] = dynamics.lookahead_gain(state, np.float64(f32p(io)[i]))


@node
def _design_node(state: int, io: int, n: int) -> None:
    for k in range(n):
        filters.design(filters.PEAK, state + 40 * k, 1000.0 + k, 48000.0, 1.0, 6.0)


@node
def _notch_node(state: int, io: int, n: int) -> None:
    filters.take_away(state, state + 40, io, n, 1.0)


@node
def _loudness_node(state: int, io: int, n: int) -> None:
    loudness.measure(state, io, n, n)


@node
def _truepeak_node(state: int, io: int, n: int) -> None:
    truepeak.peaks(state, io, n, io + 4 * n)


@node
def _howl_node(state: int, io: int, n: int) -> None:
    f64p(state)[0] = howl.find(io, io + 4 * n, n, 9, 1e-6)


class _Case:
    """One kernel and its peers."""

    def __init__(self, name: str, function: Any, state: int, io: int, n: int, from_python: _Run, keep: Any) -> None:
        self.name = name
        self.keep = keep
        self.from_python = from_python
        self.compiled: Callable[[int], object] = lambda times: _repeat(times, function.address, state, io, n)
        self.peers: dict[str, tuple[_Run, int]] = {}
        self.skipped: list[str] = []

    def peer(self, name: str, make: Callable[[], _Run], frames: int = 1) -> None:
        """Add a peer; ``make`` imports and prepares it, one call does ``frames`` frames."""
        try:
            self.peers[name] = make(), frames
        except ImportError:
            self.skipped.append(name)


def _loop(run: _Run) -> Callable[[int], object]:
    def repeated(times: int) -> None:
        for _ in range(times):
            run()

    return repeated


def _measure(case: _Case) -> dict[str, Any]:
    entries: dict[str, tuple[Callable[[int], object], int]] = {
        "ours": (case.compiled, 1),
        "ours from Python": (_loop(case.from_python), 1),
        **{name: (_loop(run), frames) for name, (run, frames) in case.peers.items()},
    }
    counts = {}
    for name, (repeated, _) in entries.items():
        repeated(3)
        start = time.perf_counter()
        repeated(10)
        once_us = (time.perf_counter() - start) * 1e5
        counts[name] = max(1, int(_BATCH_US / max(once_us, 1e-3)))
    taken: dict[str, list[float]] = {name: [] for name in entries}
    for _ in range(_ROUNDS):
        for name, (repeated, frames) in entries.items():
            start = time.perf_counter()
            repeated(counts[name])
            taken[name].append((time.perf_counter() - start) * 1e6 / counts[name] / frames)
    medians = {name: float(np.median(times)) for name, times in taken.items()}
    ours, from_python = medians.pop("ours"), medians.pop("ours from Python")
    best = min(medians, key=lambda name: medians[name]) if medians else None
    return {
        "kernel": case.name,
        "ours_us": ours,
        "ours_from_python_us": from_python,
        "peers_us": medians,
        "skipped": case.skipped,
        "best_peer": best,
        "times_faster": medians[best] / ours if best else None,
    }


# --- Cases -----------------------------------------------------------------------------------------------------


def _one_thread() -> Any:
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    return torch


def _stft_case(n_fft: int) -> _Case:
    hop = n_fft // 4
    analysis, synthesis = stft.wola_windows(n_fft, hop)
    ours = stft.build(n_fft, hop, n_fft, 1, hop, windows=(analysis, synthesis))
    x = np.random.default_rng(0).standard_normal(hop).astype(np.float32)
    block = x.copy()
    call = _NODE(stft.stft_process.address)
    address = int(block.ctypes.data)
    case = _Case(
        f"STFT frame and back, {n_fft}", stft.stft_process, ours.address, address, hop,
        lambda: call(ours.address, address, hop), (ours, block),
    )  # fmt: skip

    def streaming(transform: Callable[[Any], Any], inverse: Callable[[Any], Any]) -> _Run:
        history, output = np.zeros((2, n_fft), np.float32)

        def frame() -> Any:
            history[:-hop] = history[hop:]
            history[-hop:] = x
            samples = inverse(transform(history * analysis)) * synthesis
            output[:-hop] = output[hop:]
            output[-hop:] = 0
            np.add(output, samples, out=output)
            return output[:hop]

        return frame

    def scipy() -> _Run:
        module = importlib.import_module("scipy.fft")
        return streaming(module.rfft, lambda spectrum: module.irfft(spectrum, n_fft))

    def fftw() -> _Run:
        module = importlib.import_module("pyfftw")
        samples, spectrum = module.empty_aligned(n_fft, "float32"), module.empty_aligned(n_fft // 2 + 1, "complex64")
        forth = module.FFTW(samples, spectrum, flags=("FFTW_MEASURE",))
        back = module.FFTW(spectrum, samples, direction="FFTW_BACKWARD", flags=("FFTW_MEASURE",))
        return streaming(lambda given: forth(given), lambda given: back(given))

    def fftw_pair() -> _Run:
        module = importlib.import_module("pyfftw")
        samples, spectrum = module.empty_aligned(n_fft, "float32"), module.empty_aligned(n_fft // 2 + 1, "complex64")
        forth = module.FFTW(samples, spectrum, flags=("FFTW_MEASURE",)).execute
        back = module.FFTW(spectrum, samples, direction="FFTW_BACKWARD", flags=("FFTW_MEASURE",)).execute
        return lambda: (forth(), back())

    def torch() -> _Run:
        module = _one_thread()
        window, back = module.from_numpy(analysis), module.from_numpy(synthesis)
        new, silence = module.from_numpy(x), module.zeros(hop)
        state = [module.zeros(n_fft), module.zeros(n_fft)]

        @module.inference_mode()  # type: ignore[untyped-decorator]
        def frame() -> object:
            state[0] = module.cat((state[0][hop:], new))
            samples = module.fft.irfft(module.fft.rfft(state[0] * window), n_fft) * back
            state[1] = module.cat((state[1][hop:], silence)) + samples
            return state[1][:hop]

        return frame  # type: ignore[no-any-return]

    def libdf() -> _Run:
        module = importlib.import_module("libdf")
        transform = module.DF(sr=48000, fft_size=n_fft, hop_size=hop, nb_bands=32)
        long = np.tile(x, (1, 50))
        return lambda: transform.synthesis(transform.analysis(long, False), False)

    case.peer("scipy", scipy)
    case.peer("torch", torch)
    case.peer("libdf", libdf, frames=50)
    case.peer("FFTW frame", fftw)
    case.peer("FFTW transforms alone", fftw_pair)
    return case


def _rfft_case(n: int) -> _Case:
    x = np.random.default_rng(0).standard_normal(n).astype(np.float32)
    re, im = np.empty((2, n // 2 + 1), np.float32)
    scratch = np.empty(fft.scratch_floats(n), np.float32)
    plan = fft.plan(n)
    words = np.array([array.ctypes.data for array in (plan, re, im, scratch)], np.int64)
    case = _Case(
        f"real FFT, {n}", _rfft_node, words.ctypes.data, x.ctypes.data, n,
        lambda: fft.rfft(plan, x, re, im, scratch), (words, plan, x, re, im, scratch),
    )  # fmt: skip

    def fftw() -> _Run:
        module = importlib.import_module("pyfftw")
        samples, spectrum = module.empty_aligned(n, "float32"), module.empty_aligned(n // 2 + 1, "complex64")
        execute: _Run = module.FFTW(samples, spectrum, flags=("FFTW_MEASURE",)).execute
        return execute

    def torch() -> _Run:
        module = _one_thread()
        tensor = module.from_numpy(x)
        return lambda: module.fft.rfft(tensor)

    def scipy() -> _Run:
        module = importlib.import_module("scipy.fft")
        return lambda: module.rfft(x)

    case.peer("numpy", lambda: lambda: np.fft.rfft(x))
    case.peer("scipy", scipy)
    case.peer("torch", torch)
    case.peer("FFTW", fftw)
    return case


def _biquad_case(block: int) -> _Case:
    sections = np.stack([filters.high_pass(80, 48000), filters.peak(3000, 48000, 4)])
    words = np.concatenate([sections.ravel(), np.zeros(8)])
    state = np.zeros((2, 2, 2))
    x = np.random.default_rng(0).standard_normal((2, block)).astype(np.float32)
    case = _Case(
        f"2 biquads, stereo block of {block}", _biquad_node, words.ctypes.data, x.ctypes.data, block,
        lambda: filters.cascade_array(sections, state, x), (words, x),
    )  # fmt: skip

    def scipy() -> _Run:
        sosfilt = importlib.import_module("scipy.signal").sosfilt
        sos = np.insert(sections, 3, 1.0, axis=1)
        given = np.random.default_rng(0).standard_normal((2, block)).astype(np.float32)
        memory = [np.zeros((2, 2, 2))]

        def filtered() -> Any:
            y, memory[0] = sosfilt(sos, given, zi=memory[0])
            return y

        return filtered

    case.peer("scipy", scipy)
    return case


def _compressor_case(block: int) -> _Case:
    state = np.zeros(dynamics.COMPRESSOR_WORDS)
    state[:5] = -24, 6, 0.75, dynamics.smoothing(8, 48000), dynamics.smoothing(120, 48000)
    io = np.zeros((3, block), np.float32)
    io[:2] = 0.2 * np.random.default_rng(0).standard_normal((2, block))
    case = _Case(
        f"compressor, stereo block of {block}", _compress_node, state.ctypes.data, io.ctypes.data, block,
        lambda: dynamics.compress_array(state, io[:2], io[2]), (state, io),
    )  # fmt: skip
    case.peer("pedalboard", _pedalboard(lambda module: module.Compressor(-24, 4, 8, 120), io[:2]))
    return case


def _deesser_case(block: int) -> _Case:
    state = np.zeros(dynamics.D_FILTERS + 4)
    state[:7] = 0.34, -9, 8, *(dynamics.smoothing(t, 48000) for t in (4, 1, 50, 1000))
    x = (0.2 * np.random.default_rng(0).standard_normal((2, block))).astype(np.float32)
    return _Case(
        f"de-esser, stereo block of {block}", _deess_node, state.ctypes.data, x.ctypes.data, block,
        lambda: dynamics.deess_array(state, x), (state, x),
    )  # fmt: skip


def _limiter_case(block: int) -> _Case:
    state = dynamics.lookahead(72, 8)
    state.view(np.float64)[dynamics.L_RELEASE] = 1e-3
    io = np.ones((2, block), np.float32)
    io[0, ::7] = 0.5
    wanted = io[0].astype(np.float64)
    sound = np.ascontiguousarray(io[:1])
    case = _Case(
        f"limiter's gain, block of {block}", _lookahead_node, state.ctypes.data, io.ctypes.data, block,
        lambda: dynamics.lookahead_gain_array(state, wanted), (state, io),
    )  # fmt: skip
    case.peer("pedalboard", _pedalboard(lambda module: module.Limiter(-6, 100), sound))
    return case


def _design_case(count: int) -> _Case:
    words = np.zeros((count, 5))
    return _Case(
        f"{count} designs of a bell", _design_node, words.ctypes.data, 0, count,
        lambda: [filters.design_array(filters.PEAK, own, 1000.0, 48000.0, 1.0, 6.0) for own in words], words,
    )  # fmt: skip


def _notch_case(block: int) -> _Case:
    words = np.concatenate([filters.notch(50, 48000), np.zeros(2)])
    x = np.random.default_rng(0).standard_normal(block).astype(np.float32)
    case = _Case(
        f"notch of moving depth, block of {block}", _notch_node, words.ctypes.data, x.ctypes.data, block,
        lambda: filters.take_away_array(words[:5], words[5:], x, 1.0), (words, x),
    )  # fmt: skip

    def scipy() -> _Run:
        sosfilt = importlib.import_module("scipy.signal").sosfilt
        sos, given = np.insert(filters.notch(50, 48000), 3, 1.0)[None], x.copy()
        memory = [np.zeros((1, 2))]

        def filtered() -> Any:
            y, memory[0] = sosfilt(sos, given, zi=memory[0])
            return y

        return filtered

    case.peer("scipy", scipy)
    return case


def _loudness_case(seconds: int) -> _Case:
    rate = 48000
    meter, again = (loudness.build(rate, 2) for _ in range(2))
    x = (0.1 * np.random.default_rng(0).standard_normal((2, seconds * rate))).astype(np.float32)
    case = _Case(
        f"loudness of {seconds} s in stereo", _loudness_node, meter.ctypes.data, x.ctypes.data, seconds * rate,
        lambda: loudness.measure_array(again, x), (meter, again, x),
    )  # fmt: skip

    def pyloudnorm() -> _Run:
        given = x.T.astype(np.float64)
        measure = importlib.import_module("pyloudnorm").Meter(rate).integrated_loudness
        return lambda: measure(given)

    case.peer("pyloudnorm", pyloudnorm)
    return case


def _truepeak_case(block: int) -> _Case:
    state = truepeak.build(1)
    io = np.zeros((2, block), np.float32)
    io[0] = 0.1 * np.random.default_rng(0).standard_normal(block)
    case = _Case(
        f"true peaks, block of {block}", _truepeak_node, state.ctypes.data, io.ctypes.data, block,
        lambda: truepeak.peaks_array(state, io[0], io[1]), (state, io),
    )  # fmt: skip

    def scipy() -> _Run:
        resample_poly = importlib.import_module("scipy.signal").resample_poly
        return lambda: np.abs(resample_poly(io[0], 4, 1)).max()

    case.peer("scipy", scipy)
    return case


def _howl_case(n_fft: int) -> _Case:
    t = np.arange(n_fft) / 48000
    spectrum = np.fft.rfft(np.sin(2 * np.pi * 1234.5 * t) * np.hanning(n_fft))
    io = np.stack([spectrum.real, spectrum.imag]).astype(np.float32)
    found = np.zeros(1)
    return _Case(
        f"search for a howl, {n_fft}", _howl_node, found.ctypes.data, io.ctypes.data, io.shape[1],
        lambda: howl.find_array(io[0], io[1], 9, 1e-6), (found, io),
    )  # fmt: skip


def _pedalboard(make: Callable[[Any], Any], x: Any) -> Callable[[], _Run]:
    """An effect of pedalboard's, called block by block as a stream."""

    def prepared() -> _Run:
        effect = make(importlib.import_module("pedalboard"))
        return lambda: effect.process(x, 48000, buffer_size=x.shape[1], reset=False)

    return prepared


def _resample_case(given_hz: int, wanted_hz: int, block: int) -> _Case:
    resampler = resample.build(given_hz, wanted_hz, 1, block)
    io = np.zeros(3 * block, np.float32)
    x = np.random.default_rng(0).standard_normal((1, block)).astype(np.float32)
    io[:block] = x
    again = resample.build(given_hz, wanted_hz, 1, block)
    case = _Case(
        f"{given_hz} to {wanted_hz} Hz, block of {block}", _resample_node, resampler.address, io.ctypes.data, block,
        lambda: again.process(x), (resampler, io),
    )  # fmt: skip

    def soxr() -> _Run:
        stream = importlib.import_module("soxr").ResampleStream(given_hz, wanted_hz, 1, "float32", "HQ")
        return lambda: stream.resample_chunk(x[0])

    def scipy() -> _Run:
        resample_poly = importlib.import_module("scipy.signal").resample_poly
        common = int(np.gcd(given_hz, wanted_hz))
        return lambda: resample_poly(x[0], wanted_hz // common, given_hz // common)

    case.peer("soxr", soxr)
    case.peer("scipy", scipy)
    return case


def _deinterleave_case(block: int) -> _Case:
    io = np.zeros(4 * block, np.float32)
    columns = np.arange(2)
    frames = np.random.default_rng(0).standard_normal((block, 2)).astype(np.float32)
    planar = np.zeros((2, block), np.float32)
    case = _Case(
        f"deinterleave, stereo block of {block}", _deinterleave_node, columns.ctypes.data, io.ctypes.data, block,
        lambda: channels.deinterleave_array(frames, columns, planar), (columns, io),
    )  # fmt: skip
    case.peer("numpy", lambda: lambda: np.copyto(planar, frames.T))
    return case


def run(json: bool = False) -> list[dict[str, Any]]:
    """Measure every kernel beside its peers and print a table.

    Parameters
    ----------
    json
        Print the rows as JSON instead.

    Returns
    -------
    list of dict
        One row per kernel: ``kernel``, ``ours_us`` (per call in a compiled loop), ``ours_from_python_us``,
        ``peers_us`` by name, ``skipped`` names, ``best_peer`` and ``times_faster`` (its time over ours). All
        times are medians in microseconds per frame or block.
    """
    cases = [_stft_case(512), _stft_case(1024), _rfft_case(512), _rfft_case(1024), _biquad_case(128)]
    cases += [_resample_case(44100, 48000, 441), _resample_case(48000, 16000, 480), _deinterleave_case(128)]
    cases += [_compressor_case(128), _deesser_case(128), _limiter_case(128), _design_case(16), _notch_case(128)]
    cases += [_loudness_case(1), _truepeak_case(128), _howl_case(4096)]
    rows = [_measure(case) for case in cases]
    if json:
        print(json_module.dumps(rows, indent=2))
        return rows
    for row in rows:
        ranked = sorted(row["peers_us"].items(), key=lambda item: item[1])
        peers = ", ".join(f"{name} {us:.2f}" for name, us in ranked)
        beside = f"; {peers} us" if peers else ""
        print(f"{row['kernel']}: {row['ours_us']:.2f} us ({row['ours_from_python_us']:.2f} from Python){beside}")
        if row["skipped"]:
            print(f"  not installed: {', '.join(row['skipped'])}")
    return rows


if __name__ == "__main__":
    import sys

    run(json="--json" in sys.argv[1:])
