"""``rtgan info MODEL`` and ``rtgan doctor MODEL``: what a model is, and whether it holds on a stage."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rtgan import offline, presets
from rtgan.errors import NotLowered, RtganError, UsageError
from rtgan.generators import card, library
from rtgan.generators.compile import compile
from rtgan.generators.files import write_atomically
from rtgan.worker import lowered, nursery, spec
from rtgan.worker.delay import delay_of
from rtgan.worker.lowered import Lowered
from rtgan.worker.spec import Spec

#: Share of a block's time that its slowest answers may take.
SAFE = 0.8
_BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_ROUNDS, _ROUNDS_S = 400, 4.0
_FADE = 64


def describe(name: str | Path) -> str:
    """A model as text for people: its card, or its methods, parameters, rates, delay and hash [main].

    Raises
    ------
    RtganError
        If it cannot be loaded or played.
    """
    path = library.find(name)
    if path is None:
        raise UsageError(f"there is no model file '{name}'")
    if card.has_card(path):
        why = _unlowered(path)
        return library.describe(path) + (f"\n  {'runs':12} in a worker: {why}" if why else "")
    found = spec.look(path)
    rows = found.facts()
    block = found.block_for(0)
    first = found.method("")
    native, why = _lowered(found, 0)
    whole = max(0, first.delay_samples) + (lowered.block_for(found, 0) if native is not None else 2 * block)
    parts = (
        "a block, less where a device's calls are of one length" if native is not None else "a block, a margin as long"
    )
    rows.append(("latency", f"{whole} samples at its rate: {parts}, its own {first.delay}"))
    rows += [(f"parameter {k.param.id}", f"{k.param.text(k.param.default)} ({k.param.allowed})") for k in found.knobs()]
    here = f"on the audio thread, in blocks of {lowered.block_for(found, 0)}" if native is not None else ""
    rows.append(("runs", here or f"in a worker: {why}"))
    rows.append(("sha256", found.sha256))
    return "\n".join([found.title, *(f"  {label:20} {text}" for label, text in rows)])


def _choices(block: int, rate_hz: int, fixed: bool = False) -> dict[str, Any]:
    return {
        "method": "", "ranges": "", "attributes": "", "block": block, "seed": 0, "threads": 1, "rate_hz": rate_hz,
        "channels": 1, "fixed": fixed,
    }  # fmt: skip


def _lowered(found: Spec, device_block: int, fixed: bool = False) -> tuple[Lowered | None, str]:
    """What runs on the audio thread itself, or why nothing does; ``fixed`` with its attributes held fast."""
    block, rate = lowered.block_for(found, 0), found.rate_hz or 48000
    made = lowered.lower(found, _choices(block, rate, fixed))
    if isinstance(made, str):
        return None, made
    why = made.too_slow(block, rate, device_block)
    return (None, why) if why else (made, "")


# --- before the show ---


def check(name: str, device_block: int, rate_hz: int) -> int:
    """Measure a model on this machine and print whether it holds; 0 if it does [main].

    Parameters
    ----------
    name : str
        Path.
    device_block, rate_hz : int
        What the device will run at.
    """
    if not 1 <= device_block <= 16384:
        raise UsageError(f"--block must be from 1 to 16384, not {device_block}")
    rate_hz = offline.engine_rate(rate_hz)
    path = library.find(name)
    if path is None:
        raise UsageError(f"there is no model file '{name}'")
    if card.has_card(path):
        print(library.describe(path))
        why = _unlowered(path)
        if not why:
            print("It runs on the audio thread itself; `rtgan bench generators` measures it.")
            return 0
        return _check_frames(spec.of_card(path, card.read_card(path)), path, why, rate_hz, device_block)
    found = spec.look(path)
    own_hz = rate_hz if rate_hz in found.rates_hz else found.rate_hz or rate_hz
    print(f"{path}, sha256 {found.sha256}")
    print(f"  device: blocks of {device_block} at {rate_hz} Hz; the model runs at {own_hz} Hz")
    # The device's block at the model's rate: answers are due in its callbacks.
    step = math.ceil(device_block * own_hz / rate_hz)
    native, why = _lowered(found, step)
    if native is not None:
        return _check_native(found, path, native, own_hz, rate_hz, device_block)
    print(f"  it runs in a worker: {why}")
    if found.attributes:
        held, why = _lowered(found, step, fixed=True)
        if held is not None:
            spent = 100 * held.seconds * own_hz / lowered.block_for(found, 0)
            why = f"on the audio thread, for {spent:.0f} % of a block's time"
        print(f"  with `run: native` {why if held is not None else f'in a worker too: {why}'}")
    print()
    sizes = found.blocks or tuple(b for b in _BLOCKS if b % found.ratio == 0) or (found.ratio, 2 * found.ratio)
    default = found.block_for(0)
    sizes = tuple(sorted({*sizes, default}))
    print("   block   budget      p50      p99      max   share")
    safe: tuple[int, int] | None = None
    timings: dict[int, dict[str, float]] = {}
    for block in sizes:
        timings[block] = measured = _timing(found, block, own_hz)
        share = _row(block, own_hz, measured)
        if share <= SAFE and safe is None:
            safe = block, step + _FADE + math.ceil(measured["p99_ms"] * 1e-3 * own_hz / SAFE)
    for note in _notes(found, timings):
        print(f"  !   {note}")
    if safe is None:
        print(f"  NO  it takes longer than {100 * SAFE:.0f} % of every block: it will not hold on this machine")
        return 1
    block, margin = safe
    print(f"  ok  smallest safe block: {block}, with a margin of {margin} samples")
    print(f"      block_samples: {block}")
    print(f"      margin_samples: {margin}")
    options = {"run": "worker", "block_samples": str(block), "margin_samples": str(margin)}
    return _latency(found, path, options, rate_hz, device_block, timings)


def _unlowered(path: Path) -> str:
    """Why a generator with a card does not run on the audio thread; empty if it does."""
    try:
        loaded = library.load(path)
        compile(loaded.program, library.CARRY)
    except NotLowered as why:
        return str(why)
    return ""


def _check_frames(found: Spec, path: Path, why: str, rate_hz: int, device_block: int) -> int:
    print(f"  it runs in a worker: {why}\n")
    print("   block   budget      p50      p99      max   share")
    block = found.block_for(0)
    measured = _timing(found, block, found.rate_hz)
    share = _row(block, found.rate_hz, measured)
    for note in _notes(found, {block: measured}):
        print(f"  !   {note}")
    if share > SAFE:
        print(f"  NO  it takes longer than {100 * SAFE:.0f} % of every block: it will not hold on this machine")
        return 1
    return _latency(found, path, {}, rate_hz, device_block, {block: measured})


def _row(block: int, rate_hz: int, measured: dict[str, float]) -> float:
    """Print a line of the table; the share of a block's time that its slowest answers take."""
    budget_ms = 1e3 * block / rate_hz
    share = measured["p99_ms"] / budget_ms
    figures = "".join(f"{measured[k]:7.2f}ms" for k in ("p50_ms", "p99_ms", "max_ms"))
    print(f"  {block:6}{budget_ms:7.2f}ms{figures}{100 * share:7.0f}%", flush=True)
    return share


def _notes(found: Spec, timings: dict[int, dict[str, float]]) -> list[str]:
    notes = list(found.findings)
    if not all(t["finite"] for t in timings.values()):
        notes.append("full scale, noise or silence make it put out what is no number")
    if (peak := max(t["peak"] for t in timings.values())) > 1.0:
        notes.append(f"it puts out up to {20 * math.log10(peak):.1f} dBFS: the limiter will hold that down")
    if found.state:
        notes.append(f"it remembers what it has heard ({'caches' if found.state == 'buffers' else 'attributes'})")
    return notes


def _check_native(found: Spec, path: Path, native: Lowered, own_hz: int, rate_hz: int, device_block: int) -> int:
    net = compile(native.program)
    arena, block = net.arena(), lowered.block_for(found, 0)
    rng = np.random.default_rng(0)
    spent, peak, finite = [], 0.0, True
    for _ in range(_ROUNDS):
        net.inputs[0].of(arena)[:] = 0.1 * rng.standard_normal(net.inputs[0].shape)
        begin = time.perf_counter()
        net.run(arena)
        spent.append(1e3 * (time.perf_counter() - begin))
        loudest = float(np.abs(net.outputs[0].of(arena)).max())
        peak, finite = max(peak, loudest), finite and math.isfinite(loudest)
    p50, p99 = np.percentile(spent, [50, 99])
    figures = {"p50_ms": float(p50), "p99_ms": float(p99), "max_ms": max(spent), "peak": peak, "finite": float(finite)}
    print("  it runs on the audio thread itself\n")
    print("   block   budget      p50      p99      max   share")
    share = _row(block, own_hz, figures)
    for note in _notes(found, {block: figures}):
        print(f"  !   {note}")
    if share > SAFE:
        print(
            f"  NO  it takes longer than {100 * SAFE:.0f} % of a block: say run: worker in the preset, and look again"
        )
        return 1
    return _latency(found, path, {}, rate_hz, device_block, {block: figures})


def _latency(
    found: Spec, path: Path, options: dict[str, str], rate_hz: int, device_block: int, timings: dict[int, Any]
) -> int:
    """Print and keep declared and measured latency; 0 if they are the same."""
    declared, measured = _measure(found, options, rate_hz, device_block)
    said = f"{declared} samples, {1e3 * declared / rate_hz:.1f} ms at {rate_hz} Hz"
    if measured is None:
        print(f"  ok  latency {said} as declared; what comes out is too unlike what goes in to measure it")
    else:
        print(f"  {'ok' if measured == declared else 'NO'}  latency {said}; measured {measured}")
    side = path.with_name(f"{path.name}.latency.json")
    data = {
        "sha256": found.sha256, "rate_hz": rate_hz, "options": options, "declared_samples": declared,
        "measured_samples": measured, "methods": {n: m.delay_samples for n, m in found.methods.items()},
        "timing": {str(b): t for b, t in timings.items()},
    }  # fmt: skip
    try:
        write_atomically(side, json.dumps(data, indent=1).encode() + b"\n")
        print(f"      written to {side}")
    except OSError as problem:
        print(f"      not written to {side}: {problem.strerror}")
    return int(measured is not None and measured != declared)


def _timing(found: Spec, block: int, rate_hz: int) -> dict[str, float]:
    choices = _choices(block, rate_hz)
    made = "frames" if found.kind == "card" else lowered.lower(found, choices)
    if not isinstance(made, str):
        choices["program"] = str(made.path)
    job = {"do": "time", "spec": found.plain(), "choices": choices, "blocks": _ROUNDS, "limit_s": _ROUNDS_S}
    try:
        answer = nursery.ask(job, spec.LOAD_S)
    except nursery.Gone as gone:
        raise RtganError(f"{found.path} cannot be measured with blocks of {block}: {gone}") from None
    if "problem" in answer:
        raise RtganError(str(answer["problem"]))
    timing: dict[str, float] = answer["timing"]
    return timing


def _measure(found: Spec, options: dict[str, str], rate_hz: int, device_block: int) -> tuple[int, int | None]:
    """Declared and measured latency of the plugin in an engine; None where nothing can be recognised."""
    preset = presets.of_model(found.path)
    entry = replace(preset.chain[0], options={**preset.chain[0].options, **options})
    renderer = offline.Renderer(replace(preset, chain=(entry,)), rate_hz, 1, period_samples=device_block)
    declared = renderer.latency_samples
    calls = -(-(rate_hz + declared) // device_block)
    sound = (0.1 * np.random.default_rng(0).standard_normal(calls * device_block)).astype(np.float32)
    out = np.concatenate([renderer.push(part[None])[0] for part in np.split(sound, calls)])
    lag, alike = delay_of(sound, out)
    return declared, lag if alike > 0.5 else None
