"""A machine that cannot keep up: nodes step down before sound breaks and come back; the delay never changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from burning import LATENCY, Burn
from numpy.typing import NDArray

import rtgan
from rtgan import events, offline, presets
from rtgan.engine import Engine
from rtgan.errors import UsageError
from rtgan.events import FULL, LEAN, OUT, Record
from rtgan.generators.files import sha256_of
from rtgan.graph import ChainItem, Graph

RATE = 48000
BURNING = Path(__file__).with_name("burning.py")
Frames = NDArray[np.float32]


class Stage:
    """An engine whose time is what the plugins say they take: deterministic, and as long as the test likes."""

    def __init__(self, *chain: tuple[str, int, float], leans: Sequence[str] = (), minds: bool = True) -> None:
        self.clock = np.zeros(1, np.int64)
        self.engine = Engine(RATE, 1)
        items = []
        for label, shed, load in chain:
            plugin = Burn()
            plugin.clock, plugin.ticks_per_second, plugin.leans = self.clock.ctypes.data, 1e9, label in leans
            items.append(ChainItem(plugin, {"load": load}, label, shed))
        self.graph = Graph(items, RATE, 1024, 1)
        self.engine.publish(self.graph)
        if minds:
            self.engine.mind_load(1e9, self.clock.ctypes.data)
        self.position = 0
        self.records: list[Record] = []

    def load(self, label: str, percent: float) -> None:
        self.engine.set_param(self.graph, self.graph.find(f"{label}.load")[0], percent)

    def play(self, seconds: float, block: int = 128) -> Frames:
        """A sine of 100 Hz for so long, in whole blocks; what comes out."""
        out = []
        for _ in range(round(seconds * RATE / block)):
            out.append(self.engine.render(sine(self.position, block)))
            self.position += block
            self.records += self.engine.poll()
        return np.concatenate(out)[:, 0]

    @property
    def steps(self) -> list[tuple[int, str, int]]:
        """When who was told to do how much."""
        return [(r.when, self.graph.chain[r.a].label, int(r.x)) for r in self.records if r.kind == events.STEPPED]

    @property
    def back(self) -> list[int]:
        return [r.when for r in self.records if r.kind == events.RECOVERED]


def sine(start: int, count: int) -> Frames:
    return np.sin(2 * np.pi * 100 / RATE * np.arange(start, start + count)).astype(np.float32)[:, None]


#: The largest step of the sine, and of a fade between it and its half.
STEP = 2 * np.pi * 100 / RATE + 0.5 / (Graph.FADE_MS / 1000 * RATE)


@pytest.mark.parametrize("block", [32, 128, 1024])
def test_the_costly_node_is_left_out_within_three_callbacks_and_comes_back(block: int) -> None:
    stage = Stage(("heavy", 1, 40), ("light", 2, 1), ("safe", 0, 5))
    before = stage.play(1.0, block)
    assert not stage.steps and stage.graph.shed == {}
    stage.load("safe", 70)
    begin = stage.position
    during = stage.play(1.0, block)
    assert stage.steps == [(begin + 3 * block, "heavy", OUT)]
    assert stage.graph.shed == {"heavy": "out"}
    stage.load("safe", 5)
    after = stage.play(3.0, block)
    assert stage.steps[1][1:] == ("heavy", FULL) and stage.graph.shed == {}
    assert stage.back == [stage.steps[1][0] + LATENCY + 4000]
    assert stage.engine.counters.steps_down == 1 and stage.engine.counters.callbacks_late >= 3

    whole = np.concatenate([before, during, after])
    assert np.abs(np.diff(whole[1000:])).max() <= STEP, "a click"
    # As late as declared, whoever plays: the sine, and what is left of it.
    late = sine(-3 * LATENCY, len(whole))[:, 0]
    fade = round(Graph.FADE_MS / 1000 * RATE)
    behind = 2 * LATENCY + fade  # what the plugins behind it delay, too
    out = slice(stage.steps[0][0] + behind, stage.back[0])
    assert np.allclose(whole[out], late[out] / 4, atol=1e-6)
    for heard in (slice(400, stage.steps[0][0]), slice(stage.back[0] + behind, None)):
        assert np.allclose(whole[heard], late[heard] / 8, atol=1e-6)


def test_who_can_do_with_less_does_so_first_then_the_others_go_in_the_order_of_the_preset() -> None:
    stage = Stage(("first", 1, 30), ("second", 2, 50), ("lean", 3, 40), ("never", 0, 5), leans=["lean"])
    stage.play(2.0)
    assert [step[1:] for step in stage.steps] == [("lean", LEAN), ("first", OUT)]
    stage.load("never", 60)
    stage.play(2.0)
    assert [step[1:] for step in stage.steps[2:]] == [("second", OUT)]
    assert stage.graph.shed == {"first": "out", "second": "out", "lean": "reduced"}
    stage.load("first", 1), stage.load("second", 1), stage.load("never", 1)
    stage.load("lean", 1)
    stage.play(200.0, 1024)
    assert [step[1:] for step in stage.steps[3:]] == [("second", FULL), ("first", FULL), ("lean", FULL)]
    assert stage.graph.shed == {}


def test_what_does_not_fit_is_tried_ever_more_rarely_and_nobody_hears_it() -> None:
    stage = Stage(("heavy", 1, 60), ("safe", 0, 50))
    stage.play(1.0)
    out = stage.play(300.0, 1024)
    downs = [when for when, _, level in stage.steps if level == OUT]
    assert 3 <= len(downs) <= 6 and np.diff(downs).min() > 60 * RATE
    assert not stage.back
    late = sine(-2 * LATENCY, stage.position)[-len(out) :, 0]
    assert np.allclose(out, late / 2, atol=1e-6)


def test_stalls_now_and_then_leave_nothing_out() -> None:
    stage = Stage(("heavy", 1, 40), ("safe", 0, 1))
    for _ in range(20):
        stage.load("safe", 5000)
        stage.play(128 / RATE)
        stage.load("safe", 1)
        stage.play(0.25)
    assert stage.engine.counters.callbacks_late == 20
    assert not stage.steps


def test_what_somebody_else_s_load_made_slow_is_back_a_second_after_that_has_gone() -> None:
    stage = Stage(("heavy", 1, 25), ("safe", 0, 1))
    stage.play(2.0, 1024)
    # Interrupted in its midst again and again, by whoever shares the processor.
    stage.load("heavy", 2000)
    stage.play(0.2, 1024)
    assert [step[1:] for step in stage.steps] == [("heavy", OUT)]
    stage.load("heavy", 25)
    gone = stage.position
    stage.play(2.0, 1024)
    assert [step[1:] for step in stage.steps[1:]] == [("heavy", FULL)]
    assert stage.back[0] - gone < 1.5 * RATE


def test_a_device_that_loses_blocks_counts_only_where_the_load_is_ours() -> None:
    for load, steps in ((40.0, 1), (5.0, 0)):
        stage = Stage(("heavy", 1, load))
        stage.play(1.0)
        for _ in range(5):
            frames = sine(stage.position, 128)
            out = np.empty((128, 1), np.float32)
            stage.engine._call(frames.ctypes.data, out.ctypes.data, 128, 0, 4, stage.engine.address)
        stage.records += stage.engine.poll()
        assert len(stage.steps) == steps


def test_offline_nothing_is_ever_left_out() -> None:
    stage = Stage(("heavy", 1, 4000), minds=False)
    stage.play(5.0)
    assert not stage.steps and stage.engine.counters.callbacks_late == 0


def test_a_node_steps_at_its_very_sample_whatever_the_blocks() -> None:
    outs = []
    for block in (1, 64, 997, 1024):
        stage = Stage(("one", 1, 0), ("two", 1, 0), minds=False)
        for when, label, level in ((700, "one", OUT), (3003, "two", OUT), (3100, "one", FULL), (9000, "two", FULL)):
            index = [item.label for item in stage.graph.chain].index(label)
            stage.engine.send(Record(events.STEP, when, index, stage.graph.serial, level))
        outs.append(stage.play(0.3, block)[:13000])
        assert [step[0] for step in stage.steps] == [700, 3003, 3100, 9000]
    assert np.abs(outs[0]).max() > 0.9
    for out in outs[1:]:
        assert np.array_equal(out.view(np.int32), outs[0].view(np.int32))


def test_a_log_brings_every_step_back(tmp_path: Path) -> None:
    preset = presets.Preset(
        "x", (presets.Entry(str(BURNING), label="heavy", hashes={"plugin": sha256_of(str(BURNING))}),), trusted=True
    )
    steps = [offline.Step(5000, "heavy", level=OUT), offline.Step(20000, "heavy", level=FULL)]
    log = tmp_path / "log.jsonl"
    lines = [offline.log_header(preset, RATE, 1, {}), *map(offline.log_step, steps)]
    log.write_text("\n".join(lines) + "\n")
    _, _, read, *_ = offline.read_log(log, allow_code=True)
    assert read == steps
    sound = 0.5 * sine(0, 40000)[:, 0]
    out = rtgan.process(sound, RATE, preset, keep_latency=True, steps=read)
    assert np.allclose(out[6000:20000], sound[5900:19900], atol=1e-6)
    assert np.allclose(out[30000:], sound[29900:39900] / 2, atol=1e-6)
    log.write_text("\n".join([*lines, '{"position": 1, "plugin": "heavy", "level": 7, "graph": 0}']) + "\n")
    with pytest.raises(UsageError, match="there is no level 7"):
        offline.read_log(log, allow_code=True)
    with pytest.raises(UsageError, match="there is no 'light' in this chain; it holds: heavy"):
        rtgan.process(sound, RATE, preset, steps=[offline.Step(5, "light", level=OUT)])


def test_a_new_chain_goes_on_where_its_twin_steps_aside() -> None:
    stage = Stage(("heavy", 1, 40), ("safe", 0, 60))
    stage.play(1.0)
    assert stage.graph.shed == {"heavy": "out"}
    for shed, heard in ((2, {"heavy": "out"}), (0, {})):
        items = [ChainItem(item.plugin, item.values, item.label, item.shed and shed) for item in stage.graph.chain]
        stage.graph = Graph(items, RATE, 1024, 1)
        stage.engine.publish(stage.graph)
        stage.records.clear()
        begin = stage.position
        out = stage.play(0.5)
        assert stage.graph.shed == heard
        assert stage.steps == ([(begin, "heavy", OUT)] if heard else [])
        level = np.abs(out[-4800:]).max()
        assert level == pytest.approx(0.5 if heard else 0.25, rel=1e-3)


def test_a_preset_says_who_goes_first() -> None:
    text = (
        "schema: 2\nname: x\nchain:\n- {plugin: gain, shed: 3}\n- {plugin: denoise, shed: never}\n- plugin: denoise\n"
    )
    preset = presets.parse(text)
    assert [entry.shed for entry in preset.chain] == [3, 0, None]
    assert presets.parse(presets.dump(preset)) == preset
    for wrong in ("0", "10", "often", "1.5", "true"):
        with pytest.raises(UsageError, match="shed is 'never' or a place from 1, which goes first, to 9"):
            presets.parse(text.replace("never", wrong))


def test_what_runs_unheard_beside_a_comparison_goes_before_anything_that_is_heard() -> None:
    stage = Stage(("heavy", 1, 30), ("safe", 0, 1))
    first = stage.graph
    stage.play(1.0)
    burn = Burn()
    burn.clock, burn.ticks_per_second = stage.clock.ctypes.data, 1e9
    stage.graph = Graph([ChainItem(burn, {"load": 30}, "other", 1)], RATE, 1024, 1)
    stage.engine.publish(stage.graph, keep=True)
    stage.play(1.0)
    assert stage.engine.holds(first.serial) and not stage.steps, "there is time for both"
    stage.load("other", 60)
    stage.play(1.0)
    assert not stage.engine.holds(first.serial) and not stage.steps
    stage.load("other", 95)
    stage.play(1.0)
    assert [step[1:] for step in stage.steps][:1] == [("other", OUT)]
