"""A model in its own process: exact delay, the same samples however it is asked, and whatever happens to it."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zoo as models
from playing import Rig, delayed
from support import ROOT, speechlike

from rtgan import events
from rtgan.errors import RtganError
from rtgan.events import Record
from rtgan.worker import worker as workers

TAPS = (0.0, 0.0, 0.0, 1.0, 0.25, -0.125)
QUIET = {"margin_samples": "16384"}  # longer than any machine stalls


def filtered(sound: np.ndarray) -> np.ndarray:
    return np.convolve(sound, TAPS)[: len(sound)].astype(np.float32)


def steady(rig: Rig, sound: np.ndarray) -> None:
    """Play until nothing is late for half a second."""
    for _ in range(40):
        late = rig.late
        rig.live(sound, least=24000)
        if rig.late == late:
            return
    pytest.fail("it is late again and again")


# --- delay ---


@pytest.mark.parametrize(
    "model, rate, block, options",
    [
        ("fir.ts", 48000, 64, {}),
        ("fir.ts", 48000, 1000, {"block_samples": "100", "margin_samples": "333"}),
        ("fir.ts", 44100, 128, {"block_samples": "128"}),
        ("fir.ts", 96000, 480, {}),
        ("latents.ts", 44100, 64, {"method": "latents"}),
        ("latents.ts", 48000, 512, {}),
        ("old.ts", 44100, 256, {}),
        ("hungry.ts", 48000, 2048, {}),
        ("stereo.ts", 48000, 256, {"rate_hz": "32000"}),
        ("widen.ts", 48000, 100, {"margin_samples": "16"}),
        ("old.nm", 44100, 128, {}),
        ("new.nm", 48000, 64, {"margin_samples": "64"}),
    ],
)
def test_the_declared_latency_is_where_an_impulse_comes_out(
    zoo: Path, model: str, rate: int, block: int, options: dict[str, str]
) -> None:
    rig = Rig(zoo / model, rate, **options)
    sound = np.zeros(900 + rig.latency + 3000, np.float32)
    sound[900] = 0.5
    out = rig.run(sound, block)
    assert int(np.abs(out).argmax()) - 900 == rig.latency
    assert not rig.late and not rig.graph.problems


def test_the_latency_is_a_block_a_margin_and_the_models_own(zoo: Path) -> None:
    assert Rig(zoo / "fir.ts").latency == 512 + 512 + 3
    assert Rig(zoo / "fir.ts", block_samples="128", margin_samples="64").latency == 128 + 64 + 3
    assert Rig(zoo / "new.nm", margin_samples="128").latency == 256 + 128 + 7


# --- the same samples ---


def test_no_block_size_shows_in_a_single_bit(zoo: Path) -> None:
    rng = np.random.default_rng(1)
    sound = np.stack([speechlike(0.3, seed=k) for k in (1, 2)], 1)
    outs = []
    for block in (256, 1, 64, 997, 0):
        rig = Rig(zoo / "zoo.ts", channels=2)
        for k, when in enumerate(rng.integers(0, len(sound), 20) if block < 0 else range(500, len(sound), 700)):
            rig.set("gain", (0.2, 0.9)[k % 2], when)
        cuts = np.sort(rng.integers(0, len(sound), 90)) if block == 0 else None
        outs.append(rig.run(sound, block, cuts))
    assert np.abs(outs[0]).max() > 0.01
    for out in outs[1:]:
        assert np.array_equal(out.view(np.int32), outs[0].view(np.int32))


def test_what_comes_out_is_what_the_model_makes_of_each_channel(zoo: Path) -> None:
    sound = np.stack([speechlike(0.2, seed=k) for k in (1, 2)], 1)
    out = Rig(zoo / "fir.ts", channels=2).run(sound)
    wanted = np.stack([filtered(delayed(sound[:, c], 1024)) for c in range(2)], 1)
    assert np.abs(out - wanted).max() < 1e-6
    out = Rig(zoo / "stereo.ts", channels=2).run(sound)
    assert np.array_equal(out, delayed(sound, 1024)[:, ::-1])


def test_live_is_the_same_as_offline_as_long_as_nothing_is_late(zoo: Path) -> None:
    sound = speechlike(1.0)
    offline = Rig(zoo / "fir.ts", **QUIET).run(sound, 128)
    rig = Rig(zoo / "fir.ts", patient=False, **QUIET)
    live = rig.live(sound, 128, least=len(sound) - len(sound) % 128)
    assert rig.late == 0
    assert np.abs(offline).max() > 0.01 and np.array_equal(live, offline[: len(live)])


def test_reset_equals_a_fresh_start_and_the_seed_decides_about_chance(zoo: Path) -> None:
    sound = speechlike(0.2)
    first = Rig(zoo / "chance.ts").run(sound)
    rig = Rig(zoo / "chance.ts")
    rig.run(speechlike(0.1003, seed=4))
    rig.engine.send(Record(events.RESET, events.NOW))
    assert np.array_equal(rig.run(sound), first)
    assert not np.array_equal(Rig(zoo / "chance.ts", seed="7").run(sound), first)


# --- what happens to it ---


def test_a_stall_is_heard_as_the_input_without_a_click_and_is_over_at_once(zoo: Path) -> None:
    # Whole periods in whole blocks: it can be played over and over.
    tone = (0.1 * np.sin(2 * np.pi * 200 * np.arange(48000) / 48000)).astype(np.float32)
    rig = Rig(zoo / "zoo.ts", patient=False, values={"gain": 0.25})
    out = [rig.live(tone, 240, least=24000)]
    late = rig.late
    os.kill(rig.worker.pid, signal.SIGSTOP)
    out.append(rig.live(tone, 240, least=24000))
    os.kill(rig.worker.pid, signal.SIGCONT)
    assert rig.late >= late + 40, "each of 47 blocks is counted"
    assert np.abs(out[1][-4800:]).max() == pytest.approx(0.1, rel=0.01), "the input, not the model's half of it"
    out.append(rig.live(tone, 240, least=48000))
    after = rig.late
    out.append(rig.live(tone, 240, until=lambda: np.abs(out[-1][-480:]).max() < 0.06, least=4800))
    assert after - late < 80, "it does not go on being late"
    assert np.abs(np.diff(np.concatenate(out)[2000:])).max() < 0.006, "a step where it changes over"
    assert "did not answer in time" in rig.graph.problems[0]


@pytest.mark.parametrize("block", [240, 720])
def test_a_stall_can_be_what_was_heard_last_which_dies_away(zoo: Path, block: int) -> None:
    tone = (0.1 * np.sin(2 * np.pi * 200 * np.arange(48000) / 48000)).astype(np.float32)
    rig = Rig(zoo / "zoo.ts", patient=False, values={"gain": 0.25}, late="hold")
    out = [rig.live(tone, block, least=24000)]
    before = rig.late
    os.kill(rig.worker.pid, signal.SIGSTOP)
    out.append(rig.live(tone, block, until=lambda: rig.late > before, least=4800))
    gap = np.concatenate(out)[-2400:]
    assert np.abs(gap).max() == pytest.approx(0.05, rel=0.02), "it goes on as loud as the model was"
    out.append(rig.live(tone, block, least=48000))
    assert np.abs(out[-1][-4800:]).max() < 0.001, "and dies away"
    os.kill(rig.worker.pid, signal.SIGCONT)
    out.append(rig.live(tone, block, least=48000))
    assert np.abs(out[-1][-960:]).max() == pytest.approx(0.05, rel=0.02), "it comes again"
    assert np.abs(np.diff(np.concatenate(out)[2000:])).max() < 0.006, "a step where it changes over"
    assert "what it last played was heard instead" in rig.graph.problems[0]


def test_answers_that_miss_now_and_then_leave_no_step_where_what_was_heard_last_is_held(zoo: Path) -> None:
    tone = (0.1 * np.sin(2 * np.pi * 375 * np.arange(24000) / 48000)).astype(np.float32)
    tone[[3000, 3600, 5000, 5600, 6700, 20000]] = 0.95  # to which the model answers what is no number
    whole = [Rig(zoo / "accident.ts", late="hold").run(tone, block) for block in (256, 61)]
    assert np.array_equal(*whole)
    assert np.abs(np.diff(whole[0][2000:])).max() < 0.006 and np.abs(whole[0][9000:]).max() > 0.09
    assert np.abs(whole[0]).max() < 0.11


def test_a_worker_that_dies_is_started_again_and_the_sound_goes_on(zoo: Path) -> None:
    sound = speechlike(1.0)
    rig = Rig(zoo / "fir.ts", patient=False)
    rig.live(sound, least=4800)
    before = rig.worker.pid
    os.kill(before, signal.SIGKILL)
    out = rig.live(sound, until=lambda: rig.worker.pid != before, least=4800)
    assert np.isfinite(out).all() and np.abs(out).max() > 0.01 and np.abs(np.diff(out)).max() < 0.5
    steady(rig, sound)
    assert rig.worker.restarts == 1
    assert any("died and was started again" in p for p in rig.graph.problems)


def test_a_worker_that_could_not_be_started_again_is_tried_once_more(
    zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = speechlike(1.0)
    rig = Rig(zoo / "fir.ts", patient=False)
    rig.live(sound, least=4800)
    begin, refused = rig.worker._life._start, [RtganError("no room"), OSError("no room")]

    def start() -> Any:
        if refused:
            raise refused.pop()
        return begin()

    monkeypatch.setattr(rig.worker._life, "_start", start)
    monkeypatch.setattr(workers, "_AGAIN_S", (0.05,))
    before = rig.worker.pid
    os.kill(before, signal.SIGKILL)
    rig.live(sound, until=lambda: rig.worker.pid != before, least=4800)
    assert not refused and rig.worker.restarts == 3
    steady(rig, sound)


def test_a_worker_that_hangs_is_started_again(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "HANG_S", 0.3)
    sound = speechlike(1.0)
    rig = Rig(zoo / "slow.ts", patient=False, ranges="work 0 100000000")
    rig.set("work", 1e8)
    rig.live(sound, until=lambda: rig.worker.restarts > 0)
    assert any("did not answer for 0.3 s" in p for p in rig.graph.problems)


def test_offline_a_worker_that_dies_ends_the_render_in_one_sentence(zoo: Path) -> None:
    from rtgan import presets
    from rtgan.offline import Renderer

    renderer = Renderer(presets.of_model(str(zoo / "zoo.ts")), 48000, 1)
    renderer.push(np.zeros((1, 4096), np.float32))
    os.kill(renderer.graph.nodes[0].keep[0].pid, signal.SIGKILL)
    with pytest.raises(RtganError, match=r"the worker of .*zoo\.ts died"):
        for _ in range(100):
            renderer.push(np.zeros((1, 4096), np.float32))


def test_what_is_no_number_is_not_heard_and_does_not_stay(zoo: Path) -> None:
    sound = speechlike(0.5)
    loud = sound.copy()
    loud[6000] = 0.95
    rig = Rig(zoo / "accident.ts")
    out = rig.run(loud)
    assert np.isfinite(out).all() and rig.worker.node.bad == 1 and rig.graph.faults["it"] == 0
    assert np.array_equal(out[16000:], delayed(loud, rig.latency)[16000:])


@pytest.mark.parametrize("level, bad", [(0.79, 0), (0.81, 1)])
def test_louder_than_18_db_is_an_accident_that_is_counted_and_not_heard(tmp_path: Path, level: float, bad: int) -> None:
    rig = Rig(models.save(models.Loud(), tmp_path / "loud.ts"), late="silence")
    sound = np.full(8192, 0.05, np.float32)
    sound[2300] = level  # in the fifth block of 512
    out = rig.run(sound)
    assert rig.worker.node.bad == bad and bool(rig.graph.problems) == bool(bad)
    heard = out[rig.latency :][2048 + 64 : 2560 - 64]
    assert heard.any() if not bad else not heard.any()
    after = out[rig.latency :][2624:4000]  # the limiter still comes back from a peak of 7.9
    assert after.min() > 0.01 and after.max() < 0.51, "it plays on"


def test_a_model_too_slow_for_its_block_is_the_input(zoo: Path) -> None:
    sound = speechlike(1.0)
    rig = Rig(zoo / "slow.ts", patient=False, ranges="work 0 1000", values={"work": 1000})
    out = rig.live(sound, least=len(sound) - len(sound) % 256)
    assert rig.late > 10
    assert np.abs(out[-9600:] - delayed(sound, 1024)[: len(out)][-9600:]).max() < 1e-6 or rig.worker.load < 1


def test_its_process_goes_with_the_graph(zoo: Path) -> None:
    rig = Rig(zoo / "fir.ts")
    pid = rig.worker.pid
    assert Path(f"/proc/{pid}").exists()
    del rig
    gc.collect()
    until = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_nothing_is_left_of_a_host_that_was_killed(zoo: Path, tmp_path: Path) -> None:
    def left() -> int:
        mark, found = f"RTGAN_TEST_MARK={tmp_path}".encode(), 0
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                found += mark in environment.read_bytes().split(b"\0")
        return found

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, left()
            time.sleep(0.05)

    host = subprocess.Popen(
        [sys.executable, "-m", "rtgan", "info", str(zoo / "stuck.ts")], cwd=ROOT,
        env={**os.environ, "RTGAN_TEST_MARK": str(tmp_path)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait(lambda: left() == 3)
    host.kill()
    host.wait()
    wait(lambda: left() == 0)
