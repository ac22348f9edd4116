"""What the host itself costs: per block, per node, offline, at the start, and on a real audio server.

The figures of the compiled loop are those of a hot cache: what a block costs at best. What it costs at the pace
of a sound card, beside hostile Python threads, is in the part on JACK.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from rtgan import demo, offline, presets
from rtgan.bench import jack
from rtgan.engine import Engine, TickRate
from rtgan.errors import RtganError
from rtgan.graph import ChainItem, Graph
from rtgan.kernels.native import call_node, kernel, node
from rtgan.plugin import Activation, NativeNode, Plugin

RATE_HZ = 48000
_BLOCKS = (64, 128)
_PASSES = 5
_NODES = 16


@node
def _nothing(state: int, io: int, n: int) -> None:
    pass


@kernel(types.void(types.int64, types.int64))
def _call_through_table(times: int, function: int) -> None:
    for _ in range(times):
        call_node(function, 0, 0, 0)


class _Nothing(Plugin):
    id = "nothing"
    name = "Nothing"

    def activate(self, activation: Activation) -> NativeNode:
        return NativeNode(int(_nothing.address), 0)


def playable(names: tuple[str, ...] = ("clean", "stage", "voice-basic")) -> str:
    """The first of these presets that can be built on this machine."""
    problem: RtganError | None = None
    for name in names:
        try:
            offline.build(presets.load(name), RATE_HZ, 1024, 1)
            return name
        except RtganError as found:
            problem = problem or found
    raise problem or RtganError("there is no preset")


def hop_samples(graph: Graph) -> int:
    """The hop of the spectral generator in a graph; 0 without one."""
    for item in graph.chain:
        card = getattr(getattr(item.plugin, "model", None), "card", None)
        if card is not None:
            return int(card.hop_samples)
    return 0


def _sound() -> NDArray[np.float32]:
    return np.ascontiguousarray(demo.recording()[0][:, None])


def durations_us(engine: Engine, sound: NDArray[np.float32], block: int) -> NDArray[np.float64]:
    """What each callback took by the engine's own count, sound being given in blocks, (blocks,)."""
    rate = TickRate()
    count = len(sound) // block
    out = np.empty((block, engine.device_out), np.float32)
    engine.render(sound[:block], out)
    ticks = engine.trace(1 << (count + 1).bit_length())
    begin = engine.counters.callbacks
    for k in range(count):
        engine.render(sound[k * block : (k + 1) * block], out)
        if k % 64 == 0:
            engine.poll()
    order = (begin + np.arange(count)) & (len(ticks) - 1)
    spent: NDArray[np.float64] = ticks[order] / rate.per_second() * 1e6
    return spent


def offline_speed() -> list[dict[str, Any]]:
    """Times real time of every factory preset, median of several passes over the built-in recording."""
    sound = _sound()
    rows = []
    for name in sorted(p.stem for p in presets.FACTORY.glob("*.yaml")):
        try:
            renderer = offline.Renderer(presets.load(name), RATE_HZ, 1)
        except RtganError as problem:
            rows.append({"measure": "offline", "preset": name, "skipped": str(problem)})
            continue
        taken = []
        for _ in range(_PASSES + 1):
            begin = time.perf_counter()
            renderer.perform(sound.T)
            taken.append(time.perf_counter() - begin)
        row: dict[str, Any] = {"measure": "offline", "preset": name, "nodes": len(renderer.graph.chain)}
        row["times_real_time"] = float(len(sound) / RATE_HZ / np.median(taken[1:]))
        for block in _BLOCKS:
            spent = durations_us(renderer.engine, sound, block)
            row[f"block_{block}_us"] = jack.spread(spent)
            row[f"block_{block}_percent"] = float(spent.mean() / (block / RATE_HZ * 1e6) * 100)
        rows.append(row)
    return rows


def table_cost() -> list[dict[str, Any]]:
    """What a call through a pointer costs, and what the walker adds to every node (dry path, guard)."""
    times = 100_000
    address = int(_nothing.address)
    _call_through_table(times, address)
    calls = []
    for _ in range(20):
        begin = time.perf_counter()
        _call_through_table(times, address)
        calls.append((time.perf_counter() - begin) / times * 1e9)
    rows: list[dict[str, Any]] = [{"measure": "table", "call_ns": float(np.median(calls))}]
    sound = _sound()
    for block in _BLOCKS:
        spent: dict[int, list[float]] = {0: [], _NODES: []}
        engines = {}
        for count in spent:
            engines[count] = Engine(RATE_HZ)
            chain = [ChainItem(_Nothing()) for _ in range(count)]
            engines[count].publish(Graph(chain, RATE_HZ, engines[count].max_block, 1))
        for _ in range(_PASSES):
            for count, engine in engines.items():
                spent[count].append(float(np.median(durations_us(engine, sound[: RATE_HZ * 2], block))))
        empty, full = (float(np.median(spent[count])) for count in (0, _NODES))
        rows.append(
            {"measure": "table", "block": block, "callback_us": empty, "node_us": (full - empty) / _NODES}
        )  # fmt: skip
    return rows


def _setting(name: str, default: float, convert: Callable[[str], float] = float) -> float:
    text = os.environ.get(name)
    try:
        value = default if text is None else convert(text)
    except ValueError:
        value = -1.0
    if not value > 0:
        raise RtganError(f"{name}={text} is not a number above 0")
    return value


def run(json: bool = False) -> list[dict[str, Any]]:
    """Measure everything and print it.

    Parameters
    ----------
    json : bool
        Print the rows as JSON instead.

    Returns
    -------
    list of dict
        Rows by ``measure``: ``offline``, ``table``, ``start``, ``jack``; or ``skipped`` with a reason.

    Notes
    -----
    ``RTGAN_BENCH_SECONDS`` (default 10) is the length of one run on JACK, ``RTGAN_BENCH_ROUNDS`` (3) how often
    each client runs at each period.
    """
    seconds = _setting("RTGAN_BENCH_SECONDS", 10.0)
    rounds = int(_setting("RTGAN_BENCH_ROUNDS", 3, int))
    rows: list[dict[str, Any]] = []

    def add(found: list[dict[str, Any]]) -> None:
        rows.extend(found)
        if not json:
            for row in found:
                print(describe(row), flush=True)

    add(offline_speed())
    add(table_cost())
    try:
        with jack.Rig() as rig:
            name = playable()
            hop = hop_samples(offline.build(presets.load(name), RATE_HZ, 1024, 1))
            add([jack.start_up(rig, name)])
            if not json:
                length = 6 * rounds * (seconds + 3)
                print(f"host and C client in turns on JACK, about {length:.0f} s ...", flush=True)
            add(jack.proof(rig, name, hop, seconds, rounds))
    except jack.Unavailable as problem:
        add([{"measure": "jack", "skipped": str(problem)}])
    if json:
        import json as json_module

        print(json_module.dumps(rows, indent=2))
    return rows


def _spread(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.1f}" for name, value in figures.items())


def describe(row: dict[str, Any]) -> str:
    """One row as text."""
    kind = row["measure"]
    if "skipped" in row:
        return f"{kind} {row.get('preset', '')}: skipped, {row['skipped']}"
    if kind == "offline":
        blocks = "; ".join(
            f"{b} samples {row[f'block_{b}_us']['mean']:.1f} us (p50 {row[f'block_{b}_us']['p50']:.1f}, "
            f"p99 {row[f'block_{b}_us']['p99']:.1f}; {row[f'block_{b}_percent']:.1f}% of the period)"
            for b in _BLOCKS
        )
        return f"{row['preset']}: {row['times_real_time']:.0f} times real time offline; a hot block of {blocks}"
    if kind == "table" and "call_ns" in row:
        return f"a call through the node table: {row['call_ns']:.1f} ns"
    if kind == "table":
        return (
            f"block of {row['block']}: the callback without nodes {row['callback_us']:.2f} us, "
            f"each node's dry path and guard {row['node_us']:.3f} us"
        )
    if kind == "start":
        return (
            f"`rtgan live --preset {row['preset']}` to its first block on JACK: {row['first_block_s']:.2f} s "
            f"({', '.join(f'{s:.2f}' for s in row['first_block_s_all'])}; {row['cpu_s']:.2f} s of processor time), "
            f"{row['resident_mb']:.0f} MB resident, torch {'imported' if row['torch'] else 'not imported'}"
        )
    lines = [
        f"JACK, period {row['period_samples']}, {row['client']}{' ' + row['preset'] if row['preset'] else ''}: "
        f"{row['blocks']} blocks, lost {row['lost']}: {row['lost_in_stalls']} in stalls of the machine, "
        f"{row['lost_own']} own; {row['stalls']} stalls"
        + (f"; the device flagged {row['flagged']}, faults {row['faults']}" if "flagged" in row else "")
        + ("" if row["detector_real_time"] else "; the stall detector had no real-time priority")
    ]
    for loss in row["own"]:
        lines.append(
            f"  own: {loss['blocks']} in run {loss['run'] + 1} after {loss['at_s']:.1f} s, "
            f"behind a callback that took {loss['load'] * 100:.0f}% of the period"
        )
    for name, text in (
        ("load_percent", "callback, % of the period"),
        ("load_percent_with_frame", "  that compute a frame"),
        ("load_percent_with_frame_outside_stalls", "  that compute a frame, outside stalls"),
        ("load_percent_without_frame", "  that do not"),
    ):
        if name in row:
            lines.append(f"  {text}: {_spread(row[name])}")
    return "\n".join(lines)


if __name__ == "__main__":
    import sys

    run(json="--json" in sys.argv[1:])
