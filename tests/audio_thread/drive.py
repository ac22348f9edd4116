"""Engines on a native thread that dies on every allocation, lock, system call and step into the interpreter.

Run under ``LD_PRELOAD=shim.so`` as ``drive.py SHIM BLOCKS CASE...`` (``all`` for every case, ``planted`` for the
violations): each case plays that many blocks of random size on a guarded thread, compares what comes out with
the same engine played from Python, and prints a line of JSON about it.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import violations
from numpy.typing import NDArray
from planted import Halved, Poison, Unattended

from rtgan import events
from rtgan import switchboard as sb
from rtgan.engine import E_PAUSE, HOST, HOST_PARAMS, Engine
from rtgan.events import Record
from rtgan.graph import ChainItem, Graph
from rtgan.io.bridge import Bridge
from rtgan.memory import address_of
from rtgan.plugin import plugin_class, whole_plugin_ids

MAX_BLOCK = 256
SEGMENTS = 10
CEILING = 10 ** (-0.1 / 20) + 1e-6
Frames = NDArray[np.float32]


def nothing(engine: Engine, segment: int, frames: int) -> None:
    """What a case without a script does between segments."""


@dataclass
class Case:
    """An engine to play: what it starts with, what happens before each segment, what must have been reported."""

    chain: tuple[str, ...] = ()
    channels: int = 1
    rate: int = 48000
    tape_frames: int = 0
    script: Callable[[Engine, int, int], None] = nothing
    expected: frozenset[int] = frozenset()
    more: list[ChainItem] = field(default_factory=list)
    stems: tuple[str, ...] = ()
    monitor: tuple[int, ...] = ()
    mics: int = 0

    def items(self) -> list[ChainItem]:
        return [*(ChainItem(plugin_class(name)()) for name in self.chain), *self.more]

    def engine(self) -> Engine:
        engine = Engine(
            self.rate, self.channels, max_block=MAX_BLOCK, tape_frames=self.tape_frames, stems=len(self.stems),
            monitor_map=self.monitor, mics=self.mics,
        )  # fmt: skip
        engine.publish(Graph(self.items(), self.rate, MAX_BLOCK, self.channels, stems=self.stems, mics=self.mics))
        return engine


def sweep(engine: Engine, segment: int, frames: int) -> None:
    """Parameters of every graph change at seeded times of the segment."""
    rng = np.random.default_rng(segment)
    position = engine.counters.position_samples
    for when in np.sort(rng.integers(position, position + frames, 100)).tolist():
        graph = list(engine._graphs.values())[-1]
        index = int(rng.integers(len(graph.declared)))
        engine.set_param(graph, index, graph.declared[index].plain(float(rng.random())), when)


def swap(engine: Engine, segment: int, frames: int) -> None:
    """Another graph arrives, or one that ran on beside it, with events for all, resets and fades; they are weighed."""
    old = next(iter(engine._graphs.values()))
    engine.weigh()
    names = [n for n in ("highpass", "denoise", "gate", "limiter") if n in whole_plugin_ids()]
    items = [ChainItem(plugin_class(name)()) for name in names[: 1 + segment % len(names)]]
    if segment % 4 == 2:
        engine.publish(old, keep=True)
    else:
        engine.publish(Graph(items, engine.sample_rate_hz, MAX_BLOCK, engine.channels), keep=segment % 4 == 1)
    if segment % 4 == 0:
        engine.let_go(old.serial)
    position = engine.counters.position_samples
    engine.set_param(old, 0, 1.0, position)
    engine.set_param(old, len(old.declared), -1.0 - segment, position)
    engine.send(Record(events.FADE_OUT, position))
    engine.send(Record(events.RESET, position + frames // 6))
    sweep(engine, segment, frames // 4)
    engine.send(Record(events.FADE_IN, position + 1500))


#: What JACK's clock says at position 0.
FRAME = 1000
#: Messages for every kind of control the routes below listen to, and much they do not.
PLAYED = (
    "b0 07 {v:02x}", "b0 27 {v:02x}", "b1 10 {v:02x}", "b0 63 00", "b0 62 05", "b0 06 {v:02x}", "b0 60 00",
    "90 3c {v:02x}", "80 3c 00", "e0 00 {v:02x}", "d0 {v:02x}", "a0 3c {v:02x}", "c0 {v:02x}", "f8", "b0 0e {v:02x}",
    "b0 0f {v:02x}",
)  # fmt: skip


def keys(engine: Engine, segment: int, frames: int) -> None:
    """MIDI of every kind at seeded times, from both rings: that of Python, and that of the native JACK client."""
    graph = next(iter(engine._graphs.values()))
    if segment == 0:
        gain, switch = graph.find("gain.gain_db")[0], graph.find("gain.bypass")[0]
        line, sides, host = np.linspace(-40.0, 6.0, 128), np.linspace(0.0, 1.0, 128), engine.host_slot("volume_db")
        heard = [
            (sb.CC, 7, sb.ABSOLUTE), (sb.CC14, 7, sb.PICKUP), (sb.CC, 16, sb.TWOS), (sb.NRPN, 5, sb.ABSOLUTE),
            (sb.BEND, 0, sb.ABSOLUTE), (sb.PRESSURE, 0, sb.OFFSET), (sb.POLY, 60, sb.SIGNED),
        ]  # fmt: skip
        routes = [
            sb.Route(kind, number, -1, mode, line, graph.serial, gain, graph.slot(gain)) for kind, number, mode in heard
        ]
        routes += [
            sb.Route(sb.NOTE, 60, -1, mode, sides, graph.serial, switch, graph.slot(switch))
            for mode in (sb.TOGGLE, sb.MOMENTARY)
        ]
        routes += [
            sb.Route(sb.CC, 7, -1, sb.ABSOLUTE, line, HOST, HOST_PARAMS.index("volume_db"), host),
            sb.Route(sb.CC, 14, -1, sb.TRIGGER, sides, action="next"),
            sb.Route(sb.CC, 15, -1, sb.TRIGGER, sides, action="panic"),
        ]
        engine.route(graph, routes)
        # A clock that stands still, read by the audio thread as it reads JACK's: of the frame at position 0.
        engine.follow_clock(ctypes.cast(ctypes.CDLL(None).abs, ctypes.c_void_p).value or 0, FRAME)
    rng = np.random.default_rng(segment)
    position = engine.counters.position_samples
    for k, when in enumerate(np.sort(rng.integers(position, position + frames, 300)).tolist()):
        message = bytes.fromhex(PLAYED[int(rng.integers(len(PLAYED)))].format(v=int(rng.integers(128))))
        if k % 2:
            engine.midi(message, when, int(rng.integers(sb.PORTS)))
        else:
            frame = (FRAME + when) & 0xFFFFFFFF
            engine.native.push(Record(events.MIDI, frame, int.from_bytes(message, "little"), int(rng.integers(8))))


#: Plugins that hear MIDI themselves.
PLAYS_NOTES = {"synth"}


def played(engine: Engine, segment: int, frames: int) -> None:
    """Notes, pedals, bends, zones and what ends notes, among moving parameters."""
    sweep(engine, segment, frames)
    rng = np.random.default_rng(segment)
    position = engine.counters.position_samples
    for when in np.sort(rng.integers(position, position + frames, 200)).tolist():
        channel, one, two = (int(x) for x in rng.integers((3, 128, 128)))
        status = int(rng.choice([0x90, 0x90, 0x90, 0x80, 0xA0, 0xB0, 0xD0, 0xE0]))
        if status == 0xB0:
            one = int(rng.choice([64, 66, 74, 100, 101, 6, 38, 120, 121, 123]))
        engine.midi(bytes((status | channel, one, two)), when, int(rng.integers(2)))
    if segment % 3 == 2:
        engine.end_notes()


def poison(engine: Engine, segment: int, frames: int) -> None:
    """Break the node early in every segment and mend it soon after."""
    graph = next(iter(engine._graphs.values()))
    on, _ = graph.find("poison.on")
    position = engine.counters.position_samples
    engine.set_param(graph, on, 1.0, position + frames // 10)
    engine.set_param(graph, on, 0.0, position + frames // 10 + 5)


def overload(engine: Engine, segment: int, frames: int) -> None:
    """Every callback is late, or nobody minds and nodes are told to go and come; a monitor is turned meanwhile."""
    engine.mind_load(1.0 if segment % 2 == 0 else 0.0)
    engine._words[E_PAUSE] = 0
    graph = list(engine._graphs.values())[-1]
    position = engine.counters.position_samples
    if segment % 2:
        for k, level in enumerate((events.FULL, events.LEAN, events.OUT, events.FULL)):
            engine.send(Record(events.STEP, position + k * frames // 5, 0, graph.serial, level))
    names = list(HOST_PARAMS)
    engine.set_param(None, names.index("monitor_mix"), 100.0 * (segment % 3) / 2, position + frames // 3)
    engine.set_param(None, names.index("monitor_db"), -12.0 + segment % 24, position + frames // 2)
    drain(engine, segment, frames)


def drain(engine: Engine, segment: int, frames: int) -> None:
    """Empty the tape now and then, so that it both runs and overflows."""
    if engine.tape is not None and segment % 3 == 0:
        engine.tape.read()
    sweep(engine, segment, frames)


def cases() -> dict[str, Case]:
    made: dict[str, Case] = {}
    for name in whole_plugin_ids():
        script = played if name in PLAYS_NOTES else sweep
        for channels in (1, 2):
            made[f"{name}-{channels}"] = Case((name,), channels, script=script)
        if plugin_class(name)().rates_hz:
            made[f"{name}-44100"] = Case((name,), 2, 44100, script=sweep)
    done = frozenset({events.SWAP_DONE})
    made["chain"] = Case(tuple(whole_plugin_ids()), 2, tape_frames=1 << 15, script=drain)
    made["overload"] = Case(
        ("denoise", "limiter"), 2, tape_frames=1 << 15, script=overload, expected=frozenset({events.STEPPED}),
        stems=("denoise", "gain"), monitor=(2,),
    )  # fmt: skip
    made["empty"] = Case((), 2)
    fader, mixer = plugin_class("fader"), plugin_class("mixer")
    strips = [ChainItem(plugin_class("denoise")(), strip="a"), ChainItem(fader("2"), label="a", strip="a")]
    strips += [ChainItem(fader("3,1"), {"duck_db": 20, "priority": 1}, "b", strip="b"), ChainItem(mixer())]
    made["strips"] = Case((), 2, tape_frames=1 << 15, script=drain, more=strips, stems=("a",), mics=3)
    made["swap"] = Case(
        ("gain", "limiter"), 2, script=swap, expected=done | {events.SWAP_BEGUN, events.STOPPED, events.LOUDNESS}
    )
    made["midi"] = Case(
        ("gain", "limiter"), 2, script=keys,
        expected=frozenset({events.HEARD, events.APPLIED, events.ACTION, events.PANICKED}),
    )  # fmt: skip
    # Every other block of it is answered, the others never are.
    made["worker"] = Case((), 2, script=sweep, more=[ChainItem(Unattended())])
    made["lowered"] = Case((), 2, script=sweep, more=[ChainItem(Halved())])
    made["poison"] = Case(
        ("highpass",), 1, script=poison, expected=frozenset({events.FAULT, events.RECOVERED}),
        more=[ChainItem(Poison())],
    )  # fmt: skip
    return made


def block_sizes(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Mostly small, now and then larger than the engine takes at once."""
    kind = rng.random(count)
    small, middle = rng.integers(1, 65, count), rng.integers(1, MAX_BLOCK + 1, count)
    large = rng.integers(MAX_BLOCK, 2 * MAX_BLOCK + 1, count)
    return np.where(kind < 0.8, small, np.where(kind < 0.95, middle, large)).astype(np.int64)


def nasty(rng: np.random.Generator, frames: int, channels: int) -> Frames:
    """Noise, full scale, silence, numbers too small to be normal, and what is no number."""
    sound = (0.2 * rng.standard_normal((frames, channels))).astype(np.float32)
    length = frames // 10
    for k in range(5):
        part = sound[2 * k * length :][:length]
        match k:
            case 0:
                part[:] = np.sign(part)
            case 1:
                part[:] = 0
            case 2:
                part[:] = 1e-40 * part
            case 3:
                part[rng.integers(0, length, 20)] = rng.choice([np.nan, np.inf, -np.inf, 3e38, 1e-45], (20, channels))
            case _:
                part[:] = 1.0
    return sound


class Shim:
    """The preloaded library, called with the interpreter lock held."""

    def __init__(self, path: str) -> None:
        self._drive = ctypes.PyDLL(path).drive
        i, p = ctypes.c_int64, ctypes.c_void_p
        self._drive.argtypes = [p, i, p, p, i, i, p, i]
        self.without_seccomp = False

    def call(self, callback: int, state: int, sound: Frames, sizes: NDArray[np.int64], out_width: int) -> Frames:
        """Hand the sound to a stream callback in blocks of these sizes, on the guarded thread."""
        assert len(sound) == sizes.sum()
        out = np.full((len(sound), out_width), np.nan, np.float32)
        answer = self._drive(
            callback, state, address_of(sound), address_of(out), sound.shape[1], out_width,
            address_of(sizes), len(sizes),
        )  # fmt: skip
        assert answer in (0, 1)
        self.without_seccomp = answer == 1
        return out

    def drive(self, engine: Engine, sound: Frames, sizes: NDArray[np.int64]) -> Frames:
        """Play the sound through an engine."""
        return self.call(engine.callback_address, engine.address, sound, sizes, engine.device_out)


def play(case: Case, shim: Shim, blocks: int) -> dict[str, Any]:
    """Play one case; what it reports."""
    rng = np.random.default_rng(7)
    guarded, plain = case.engine(), case.engine()
    seen: set[int] = set()
    total = 0
    for segment in range(SEGMENTS):
        sizes = block_sizes(rng, blocks // SEGMENTS)
        sound = nasty(rng, int(sizes.sum()), guarded.device_in)
        case.script(guarded, segment, len(sound))
        case.script(plain, segment, len(sound))
        out = shim.drive(guarded, sound, sizes)
        assert np.isfinite(out).all() and np.abs(out).max() <= CEILING
        again = np.concatenate([plain.render(part) for part in np.split(sound, np.cumsum(sizes)[:-1])])
        assert np.array_equal(out.view(np.int32), again.view(np.int32)), "the thread shows in the sound"
        seen |= {record.kind for record in guarded.poll()}
        plain.poll()
        total += len(sound)
    assert guarded.memory_intact
    assert guarded.counters.callbacks == blocks
    assert guarded.counters.position_samples == total
    assert guarded.counters.bad_input_samples > 0
    # Graphs are weighed only while nothing fades for half a second, which takes a long run.
    expected = case.expected if blocks >= 3000 else case.expected - {events.LOUDNESS}
    assert seen >= expected, f"reported {sorted(seen)}, expected {sorted(expected)}"
    return {"blocks": blocks, "frames": total, "seccomp": not shim.without_seccomp}


def bridge(shim: Shim, blocks: int) -> dict[str, Any]:
    """Play through two devices of different clocks; what it reports."""
    rng = np.random.default_rng(7)
    engine = Case(("highpass",)).engine()
    between = Bridge(engine.callback_address, engine.address, 1, 1, 48000, fill=512)
    total = 0
    for _ in range(blocks // 50):
        sizes = block_sizes(rng, 50)
        sound = nasty(rng, int(sizes.sum()), 1)
        shim.call(between.take_address, between.address, sound, sizes, 1)
        # The output's clock is now slower, now faster.
        sizes = np.concatenate([rng.permutation(sizes), rng.integers(1, 600, 1)])[rng.integers(0, 2) :].copy()
        out = shim.call(between.give_address, between.address, np.zeros((int(sizes.sum()), 1), np.float32), sizes, 1)
        assert np.isfinite(out).all() and np.abs(out).max() <= CEILING
        engine.poll()
        total += len(out)
    assert between.slips > 0 and between.arena.intact() and engine.memory_intact
    assert engine.counters.position_samples == total
    return {"blocks": blocks, "frames": total, "seccomp": not shim.without_seccomp}


def plant(function: Any, shim: Shim) -> tuple[int, str]:
    """How a child process with a violating node ends: its exit code and last words."""
    engine = Engine(48000, 1, max_block=MAX_BLOCK)
    engine.publish(Graph([ChainItem(violations.Plant(function))], 48000, MAX_BLOCK, 1))
    sizes = np.full(4, 64, np.int64)
    sound = np.zeros((256, 1), np.float32)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write, 2)
        shim.drive(engine, sound, sizes)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as words:
        said = words.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said.strip()


def main(path: str, blocks: int, wanted: list[str]) -> None:
    Graph.HOLD_MS = 20.0  # so that a silenced node comes back within a short run
    shim = Shim(path)
    if "planted" in wanted:
        for name in ("allocates", "raises", "prints", "calls_the_system", "locks", "stray"):
            print(json.dumps({"planted": name, "end": plant(getattr(violations, name), shim)}), flush=True)
    known = cases()
    for name in [*known, "bridge"] if "all" in wanted else [w for w in wanted if w != "planted"]:
        report = bridge(shim, blocks) if name == "bridge" else play(known[name], shim, blocks)
        print(json.dumps({"case": name, **report}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
