"""The engine as a user relies on it: exact, continuous, and never silent for long."""

from __future__ import annotations

import ctypes
import threading

import numpy as np
import pytest
from numpy.typing import NDArray
from planted import Delay, Overrun, Poison
from support import speechlike

from rtgan import events
from rtgan.engine import HOST_PARAMS, Engine
from rtgan.events import Record
from rtgan.graph import ChainItem, Graph
from rtgan.plugin import Plugin, plugin_class
from rtgan.switchboard import NOTE, TRIGGER, Route

RATE = 48000
Frames = NDArray[np.float32]


def chain(*plugins: str | Plugin, **values: dict[str, float]) -> list[ChainItem]:
    items = []
    for p in plugins:
        plugin = plugin_class(p)() if isinstance(p, str) else p
        items.append(ChainItem(plugin, values.get(plugin.id, {})))
    return items


def engine_with(
    items: list[ChainItem], channels: int = 1, max_block: int = 1024, **more: object
) -> tuple[Engine, Graph]:
    engine = Engine(RATE, channels, max_block=max_block, **more)  # type: ignore[arg-type]
    graph = Graph(items, RATE, max_block, channels)
    engine.publish(graph)
    return engine, graph


def run(engine: Engine, frames: Frames, block: int = 256) -> Frames:
    pieces = []
    for start in range(0, len(frames), block):
        pieces.append(engine.render(np.ascontiguousarray(frames[start : start + block])))
    return np.concatenate(pieces)


def column(samples: Frames) -> Frames:
    return np.ascontiguousarray(samples[:, None])


BLOCKS = [1, 64, 65, 128, 997, 0]


@pytest.mark.parametrize("max_block", [64, 1024])
def test_no_block_size_shows_in_a_single_bit(rng: np.random.Generator, max_block: int) -> None:
    sound = np.stack([speechlike(0.5, seed=1), speechlike(0.5, seed=2)], 1)
    outs = []
    for block in BLOCKS:
        engine, graph = engine_with(chain("gain", "highpass", "gate", "limiter"), 2, max_block)
        for name, value, when in (
            ("gain.gain_db", 20, 3001),
            ("highpass.cutoff_hz", 700, 4444),
            ("gate.threshold_db", -20, 6000),
            ("limiter.bypass", 1, 9001),
            ("gate.mix", 30, 12345),
        ):
            index, _ = graph.find(name)
            assert engine.set_param(graph, index, value, when)
        if block:
            outs.append(run(engine, sound, block))
        else:
            cuts = np.sort(rng.integers(0, len(sound), 60))
            outs.append(
                np.concatenate([engine.render(np.ascontiguousarray(p)) for p in np.split(sound, cuts) if len(p)])
            )
        assert engine.memory_intact
    assert np.abs(outs[0]).max() > 0.05
    for out in outs[1:]:
        assert np.array_equal(out.view(np.int32), outs[0].view(np.int32))


def test_an_empty_chain_passes_every_bit() -> None:
    sound = column(speechlike(0.3))
    engine, _ = engine_with([])
    assert np.array_equal(run(engine, sound), sound)


def test_without_a_graph_there_is_silence() -> None:
    engine = Engine(RATE, 1)
    assert not run(engine, column(speechlike(0.1))).any()


def test_an_event_takes_effect_at_its_very_sample() -> None:
    engine, graph = engine_with(chain("gain"))
    graph._slots[:, 4] = 0  # no ramp: the change is a step
    index, _ = graph.find("gain.gain_db")
    engine.set_param(graph, index, -20.0, 777)
    out = run(engine, np.full((2000, 1), 0.5, np.float32), 500)
    assert np.all(out[:777] == 0.5)
    assert np.allclose(out[777:], 0.05)
    applied = [r for r in engine.poll() if r.kind == events.APPLIED]
    assert [(r.when, r.a, r.x) for r in applied] == [(777, index, -20.0)]


def test_bypass_and_mix_use_the_delayed_input() -> None:
    sound = column(speechlike(0.5))
    engine, graph = engine_with(chain(Delay()))
    engine.set_param(graph, graph.find("delay.bypass")[0], 1.0, 5000)
    engine.set_param(graph, graph.find("delay.mix")[0], 50.0, 12000)
    out = run(engine, sound)
    # Whatever the ramps do, wet and dry are the same delayed sound: nothing changes but rounding.
    assert np.array_equal(out[:100], np.zeros_like(out[:100]))
    assert np.abs(out[100:] - sound[:-100]).max() < 1e-7


def test_values_that_are_not_numbers_silence_and_bypass_the_guilty_node_which_recovers() -> None:
    poison = Poison()
    items = [*chain("gain"), ChainItem(poison), *chain("highpass")]
    engine, graph = engine_with(items)
    sound = np.full((RATE * 3, 1), 0.25, np.float32) * np.sin(np.arange(RATE * 3) * 0.05, dtype=np.float32)[:, None]
    on, _ = graph.find("poison.on")
    engine.set_param(graph, on, 1.0, 10000)
    engine.set_param(graph, on, 0.0, 10100)
    out = run(engine, sound, 128)
    assert np.isfinite(out).all()
    assert np.abs(np.diff(out[:, 0])).max() < 0.26, "one step to silence at most, nothing louder"
    records = engine.poll()
    kinds = [r.kind for r in records if r.kind in (events.FAULT, events.RECOVERED)]
    assert kinds == [events.FAULT, events.RECOVERED]
    assert graph.faults == {"gain": 0, "poison": 1, "highpass": 0}
    assert poison.words[4] == 1, "the node was reset"
    # Held: the input passes around it. Afterwards it runs again.
    assert np.abs(out[20000:40000]).max() > 0.2
    assert np.abs(out[-4000:]).max() > 0.2
    calls_while_held = poison.words[3]
    assert 0 < calls_while_held < len(sound) // 128


def test_a_node_that_keeps_failing_is_left_out_ever_longer() -> None:
    engine, _ = engine_with([ChainItem(Poison(), {"on": 1.0})])
    out = run(engine, np.full((RATE * 8, 1), 0.1, np.float32), 480)
    assert np.isfinite(out).all()
    faults = [r.when for r in engine.poll() if r.kind == events.FAULT]
    gaps = np.diff(faults)
    assert len(faults) == 4
    assert (gaps[1:] > 1.8 * gaps[:-1]).all()


def test_input_that_is_not_a_number_becomes_silence_and_is_counted() -> None:
    engine, graph = engine_with(chain("highpass"))
    sound = column(speechlike(0.2))
    sound[1000:1003] = np.nan
    sound[2000] = np.inf
    sound[3000:3002] = [[3e38], [-3e38]]
    out = run(engine, sound)
    assert np.isfinite(out).all()
    assert engine.counters.bad_input_samples == 6
    assert graph.faults == {"highpass": 0}


def test_nothing_louder_than_full_scale_ever_leaves() -> None:
    engine, _ = engine_with(chain("gain", gain={"gain_db": 24.0}))
    out = run(engine, column(speechlike(1.0) * 4))
    assert np.abs(out).max() <= 10 ** (-0.1 / 20) + 1e-6
    assert engine.counters.limited_samples > 0


def test_swapping_to_an_identical_settled_graph_nulls() -> None:
    sound = column(speechlike(4.0))
    still, _ = engine_with(chain("highpass", "gate", "limiter"))
    expected = run(still, sound)
    engine, _ = engine_with(chain("highpass", "gate", "limiter"))
    first = run(engine, sound[:RATE])
    engine.publish(Graph(chain("highpass", "gate", "limiter"), RATE, 1024, 1))
    out = np.concatenate([first, run(engine, sound[RATE:])])
    residual = np.abs(out - expected).max() / np.abs(expected).max()
    assert 20 * np.log10(residual + 1e-12) < -80
    kinds = [r.kind for r in engine.poll()]
    assert kinds.count(events.SWAP_DONE) == 2


def test_only_what_is_new_in_a_chain_is_waited_for() -> None:
    """Without the limiter the gate sounds at once; a limiter in front makes it hear something else, later."""
    for before, after, at_once in (
        (("gate", "limiter"), ("gate",), True),
        (("gate",), ("gate", "gain"), True),
        (("gate",), ("limiter", "gate"), False),
        (("limiter", "gate"), ("gate",), False),
        (("gate", "gate"), ("gate", "gate"), True),
        (("gate",), ("gate", "gate"), False),
    ):
        engine, _ = engine_with(chain(*before))
        run(engine, column(speechlike(0.5)))
        engine.poll()
        engine.publish(Graph(chain(*after), RATE, 1024, 1))
        run(engine, column(speechlike(0.1)))
        assert (events.SWAP_DONE in [r.kind for r in engine.poll()]) == at_once, (before, after)


def test_a_swap_has_no_step_larger_than_the_signals_own_and_frees_the_old_graph() -> None:
    t = np.arange(RATE * 2)
    sound = column((0.4 * np.sin(2 * np.pi * 220 * t / RATE)).astype(np.float32))
    engine, first = engine_with(chain("gain", gain={"gain_db": 0.0}))
    outs = []
    for k in range(8):
        outs.append(run(engine, sound[k * 12000 : (k + 1) * 12000], 128))
        engine.publish(Graph(chain("gain", gain={"gain_db": -12.0 * (k % 2)}), RATE, 1024, 1))
        engine.poll()
    out = np.concatenate(outs)[:, 0]
    assert np.abs(np.diff(out)).max() <= np.abs(np.diff(sound[:, 0])).max() * 1.01
    engine.render(np.zeros((RATE, 1), np.float32))
    engine.poll()
    assert len(engine._graphs) == 1
    assert first.serial not in engine._graphs


def test_a_graph_published_twice_before_it_is_taken_is_replaced() -> None:
    engine, _ = engine_with(chain("gain"))
    engine.publish(Graph(chain("gain", gain={"gain_db": -60.0}), RATE, 1024, 1))
    engine.publish(Graph(chain("gain", gain={"gain_db": -20.0}), RATE, 1024, 1))
    out = run(engine, np.full((RATE, 1), 0.5, np.float32))
    assert np.isclose(out[-1, 0], 0.05, atol=1e-4)


def test_fades_at_start_and_stop() -> None:
    engine, _ = engine_with([])
    engine.start_silent()
    sound = np.full((9600, 1), 0.5, np.float32)
    out = run(engine, sound)
    assert out[0, 0] < 0.001
    assert np.abs(np.diff(out[:, 0])).max() < 0.001
    assert out[-1, 0] == 0.5
    engine.send(Record(events.FADE_OUT, events.NOW))
    out = run(engine, sound)
    assert np.abs(np.diff(out[:, 0])).max() < 0.001
    assert not out[-1, 0]
    assert [r.kind for r in engine.poll()].count(events.STOPPED) == 1


def test_it_fades_in_whatever_came_while_no_device_called() -> None:
    engine, _ = engine_with([])
    while engine.send(Record(events.RESET, events.NOW)):
        pass
    engine.start_silent()
    out = run(engine, np.full((9600, 1), 0.5, np.float32))
    assert out[0, 0] < 0.001 and np.abs(np.diff(out[:, 0])).max() < 0.001 and out[-1, 0] == 0.5


def test_any_channels_of_a_device_in_and_out() -> None:
    sound = np.stack([np.full(500, 0.1 * (k + 1)) for k in range(5)], 1).astype(np.float32)
    engine = Engine(RATE, 1, device_in=5, device_out=4, in_map=(2,), out_map=(0, 3))
    engine.publish(Graph([], RATE, 1024, 1))
    out = engine.render(sound)
    assert np.allclose(out[-1], [0.3, 0, 0, 0.3])
    engine = Engine(RATE, 2, device_in=5, device_out=1, in_map=(4, 0), out_map=(0,))
    engine.publish(Graph([], RATE, 1024, 2))
    assert np.allclose(engine.render(sound)[-1], [0.3])
    with pytest.raises(ValueError, match="channel maps"):
        Engine(RATE, 1, device_in=2, device_out=2, in_map=(2,), out_map=(0,))


def test_the_tape_holds_dry_and_wet_from_the_first_sample() -> None:
    engine, _ = engine_with(chain("gain", gain={"gain_db": -6.0}), tape_frames=1 << 14)
    engine.start_silent()
    sound = column(speechlike(1.0))
    takes = []
    outs = []
    for start in range(0, len(sound), 5000):
        outs.append(run(engine, sound[start : start + 5000]))
        assert engine.tape is not None
        takes.append(engine.tape.read())
    tape = np.concatenate(takes)
    assert np.array_equal(tape[:, 0], sound[:, 0])
    plain, _ = engine_with(chain("gain", gain={"gain_db": -6.0}))
    assert np.array_equal(tape[:, 1], run(plain, sound)[:, 0]), "the fade is not on the tape"
    assert engine.counters.tape_dropped_frames == 0


def test_a_tape_put_down_and_begun_again_while_no_device_calls_is_told_of_again() -> None:
    engine, _ = engine_with([], tape_frames=1 << 14)
    run(engine, np.zeros((1000, 1), np.float32))
    engine.stop_tape(called=False)
    engine.run_tape(1 << 14)
    run(engine, np.zeros((1000, 1), np.float32))
    assert [r.when for r in engine.poll() if r.kind == events.TAPING] == [0, 1000]


def test_a_tape_nobody_drains_counts_what_it_loses_and_the_sound_goes_on() -> None:
    engine, _ = engine_with([], tape_frames=1 << 12)
    sound = column(speechlike(0.5))
    assert np.array_equal(run(engine, sound), sound)
    assert engine.counters.tape_dropped_frames == pytest.approx(len(sound) - 4096, abs=256)


def test_writing_outside_ones_memory_is_noticed() -> None:
    engine, _ = engine_with([ChainItem(Overrun())])
    assert engine.memory_intact
    run(engine, np.zeros((256, 1), np.float32))
    assert not engine.memory_intact


def test_a_full_inbox_refuses_and_loses_nothing_already_taken() -> None:
    engine, graph = engine_with(chain("gain"))
    index, _ = graph.find("gain.gain_db")
    accepted = 0
    while engine.set_param(graph, index, -float(accepted % 50), 100 + accepted):
        accepted += 1
    assert accepted == 4096
    run(engine, np.zeros((8000, 1), np.float32))
    assert len([r for r in engine.poll() if r.kind == events.APPLIED]) == accepted


def test_events_for_a_graph_that_has_gone_are_let_go() -> None:
    engine, graph = engine_with(chain("gain"))
    other = Graph(chain("gain"), RATE, 1024, 1)
    engine.set_param(other, 2, -40.0)
    out = run(engine, np.full((4000, 1), 0.5, np.float32))
    assert np.all(out == 0.5)
    assert graph.value("gain.gain_db") == 0


def test_what_was_asked_for_just_before_a_graph_ended_is_still_known() -> None:
    engine, graph = engine_with(chain("gain"))
    engine.route(graph, [Route(NOTE, 60, -1, TRIGGER, np.linspace(0, 1, 128), action="next")])
    engine.midi(b"\x90\x3c\x40")
    run(engine, np.zeros((64, 1), np.float32))
    engine.publish(Graph(chain("gain"), RATE, 1024, 1))
    run(engine, np.zeros((RATE, 1), np.float32))
    records = engine.poll()
    assert any(r.kind == events.SWAP_DONE for r in records)
    assert [engine.action(r) for r in records if r.kind == events.ACTION] == ["next"]


def test_meters_and_load_are_reported() -> None:
    engine, _ = engine_with(chain("gain", gain={"gain_db": -20.0}))
    run(engine, column(0.5 * np.sin(np.arange(9600) * 0.1, dtype=np.float32)))
    meters = [r for r in engine.poll() if r.kind == events.METER]
    assert len(meters) >= 8
    assert meters[-1].x == pytest.approx(0.5, rel=0.01)
    assert meters[-1].y == pytest.approx(0.05, rel=0.01)
    assert meters[-1].z == pytest.approx(0.125, rel=0.05)
    counters = engine.counters
    assert counters.callbacks == 38
    assert counters.position_samples == 9600
    assert 0 < counters.busy_max_ticks <= counters.busy_ticks


def test_denormals_are_flushed_in_the_callback_and_the_callers_mode_comes_back() -> None:
    engine, _ = engine_with([])
    tiny = np.full((64, 1), 1e-40, np.float32)
    engine.render(tiny)
    assert float(np.float32(1e-40) * np.float32(0.5)) != 0.0


def test_reset_equals_a_fresh_activation() -> None:
    sound = column(speechlike(0.7))
    names = ("gain", "highpass", "gate", "limiter")
    fresh, _ = engine_with(chain(*names))
    expected = run(fresh, sound)
    engine, _ = engine_with(chain(*names))
    run(engine, column(speechlike(0.5, seed=9)) * 3)
    engine._limiter[0] = 1.0  # the safety limiter is the engine's own, not a node
    engine.send(Record(events.RESET, events.NOW))
    assert np.array_equal(run(engine, sound), expected)


def test_events_pushed_out_of_order_are_applied_in_order_and_none_waits_behind_a_later_one() -> None:
    engine, graph = engine_with(chain("gain"))
    index, _ = graph.find("gain.gain_db")
    for when in (9000, 300, 5000, 300, 7000):
        engine.set_param(graph, index, -when / 1000, when)
    engine.set_param(graph, index, -1.0)
    run(engine, np.zeros((10000, 1), np.float32), 997)
    applied = [(r.when, r.x) for r in engine.poll() if r.kind == events.APPLIED]
    assert applied == [(0, -1.0), (300, -0.3), (300, -0.3), (5000, -5.0), (7000, -7.0), (9000, -9.0)]


def test_mute_volume_and_bypass_of_the_host_ramp_and_survive_a_change_of_graph() -> None:
    sound = column((0.4 * np.sin(np.arange(RATE * 2) * 0.03)).astype(np.float32))
    step = np.abs(np.diff(sound[:, 0])).max() * 1.05
    names = list(HOST_PARAMS)

    def play(name: str, value: float, *graphs: Graph) -> Frames:
        engine, _ = engine_with([ChainItem(Delay()), *chain("gain", gain={"gain_db": -12.0})])
        engine.set_param(None, names.index(name), value, 4000)
        out = [run(engine, sound[:8000], 128)]
        for graph in graphs:
            engine.publish(graph)
        out.append(run(engine, sound[8000:], 128))
        whole = np.concatenate(out)
        assert np.abs(np.diff(whole[:, 0])).max() <= step
        assert engine.memory_intact
        return whole

    def other() -> Graph:
        return Graph([ChainItem(Delay()), *chain("gain", gain={"gain_db": -12.0})], RATE, 1024, 1)

    assert not play("mute", 1.0, other())[5000:].any()
    assert not play("volume_db", -60.0, other())[6000:].any()
    quiet = play("volume_db", -6.0, other())
    assert np.allclose(quiet[6000:], sound[5900:-100] * 10 ** (-18 / 20), atol=1e-6)
    bypassed = play("bypass", 1.0, other())
    assert np.allclose(bypassed[5000:], sound[4900:-100], atol=1e-6), "as late as the chain, and nothing else"


@pytest.mark.parametrize("way", ["event", "whatever else is wrong"])
def test_panic_fades_resets_and_comes_back(way: str) -> None:
    sound = column((0.4 * np.sin(np.arange(RATE) * 0.03)).astype(np.float32))
    engine, graph = engine_with(chain("limiter"))
    index, _ = graph.find("limiter.mix")
    run(engine, sound[:4800])
    if way == "event":
        engine.send(Record(events.PANIC, 4800))
    else:
        while engine.set_param(graph, index, 100.0, 40000):
            pass
        engine.panic()
    out = run(engine, sound[4800:], 64)[:, 0]
    fade = round(engine.PANIC_MS * RATE / 1000)
    assert np.abs(np.diff(out)).max() <= np.abs(np.diff(sound[:, 0])).max() * 1.05
    assert np.abs(out[fade : fade + 48]).max() == 0, "reset: its delay line is empty"
    assert np.allclose(out[4000:], sound[4800 + 4000 - 48 : -48, 0], atol=1e-6)
    assert [r.when for r in engine.poll() if r.kind == events.PANICKED] == [4800]


def test_a_clock_is_left_before_its_client_may_go() -> None:
    engine = Engine(RATE, 1)
    inside, go = threading.Event(), threading.Event()
    order: list[object] = []

    @ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_int64)
    def clock(client: int) -> int:
        inside.set()
        go.wait(10)
        order.append(client)
        return 5

    def leave() -> None:
        order.append(engine.follow_clock(0, 0))

    assert engine.follow_clock(ctypes.cast(clock, ctypes.c_void_p).value or 0, 77)
    audio = threading.Thread(target=run, args=(engine, np.zeros((64, 1), np.float32)))
    audio.start()
    assert inside.wait(10)
    closer = threading.Thread(target=leave)
    closer.start()
    closer.join(0.1)
    go.set()
    audio.join()
    closer.join()
    assert order == [77, True]
    run(engine, np.zeros((64, 1), np.float32))
    assert order == [77, True], "and never again"
    assert engine.follow_clock(0, 0), "also while nothing plays"
