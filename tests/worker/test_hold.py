"""What is heard where answers are missing and the sound before is held: the node alone, and a model that sleeps."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo as models
from numpy.typing import NDArray
from playing import Rig
from support import speechlike

from rtgan.errors import UsageError
from rtgan.memory import Arena, address_of
from rtgan.worker import node
from rtgan.worker.layout import GOOD, STATUS_BITS, Layout

RATE, BLOCK, MARGIN = 48000, 256, 128
Frames = NDArray[np.float32]


def played(answers: Frames, missing: range, cuts: list[int], instead: str = "hold") -> tuple[Frames, int]:
    """What is heard of answers (channels, samples) whose blocks in a range never come; and how many were counted."""
    channels, length = answers.shape
    blocks = length // BLOCK
    layout = Layout(channels, BLOCK, 0, 1 << blocks.bit_length())
    arena = Arena(8 << 20)
    shared = arena.int64(layout.size_bytes // 8)
    slots = shared[layout.answers :][: layout.slots * layout.answer_words].reshape(layout.slots, -1)
    for k in range(blocks):
        if k not in missing:
            sound = np.ascontiguousarray(answers[:, k * BLOCK :][:, :BLOCK])
            slots[k, 1:].view(np.float32)[: sound.size] = sound.ravel()
            slots[k, 0] = (k + 1) << STATUS_BITS | GOOD
    side = node.build(arena, layout, address_of(shared), length, MARGIN, [], instead, RATE)
    process, reset = (ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(f.address) for f in (node.process, node.reset))
    reset(side.address, 0, 0)
    io = np.full((channels, length), 0.5, np.float32)  # what goes in is never heard
    for start, end in zip([0, *cuts], [*cuts, length], strict=True):
        process(side.address, address_of(io) + 4 * start, end - start)
    return io[:, side.latency_samples :], side.late


def cuts(size: int, length: int) -> list[int]:
    return list(range(size, length, size))


def noise(seconds: float) -> Frames:
    rng = np.random.default_rng(1)
    return (0.1 * rng.standard_normal((2, int(seconds * RATE) // BLOCK * BLOCK))).astype(np.float32)


def voice(seconds: float) -> Frames:
    """A chord of harmonic tones, in two channels."""
    t = np.arange(int(seconds * RATE) // BLOCK * BLOCK) / RATE
    made = sum(np.sin(2 * np.pi * f * t + f) / (1 + f / 400) for f in (147, 294, 441, 588, 882))
    return np.stack([0.08 * made, 0.04 * made]).astype(np.float32)


def levels(sound: Frames, samples: int = 960) -> NDArray[np.float64]:
    parts = sound[: len(sound) // samples * samples].reshape(-1, samples).astype(np.float64)
    return 10 * np.log10((parts**2).mean(1) + 1e-12)


def test_a_held_tone_goes_on_without_a_step_or_a_beat_and_fades_out() -> None:
    sound = voice(2.5)
    missing = range(150, 400)
    out, late = played(sound, missing, cuts(128, sound.shape[1]))
    assert late == len(missing)
    begin = missing.start * BLOCK
    assert np.array_equal(out[:, : begin - 64], sound[:, : begin - 64])
    assert np.abs(np.diff(out)).max() < 1.4 * np.abs(np.diff(sound)).max(), "a step"
    own = levels(sound[0]).mean()
    assert np.abs(levels(out[0, begin:][:11520]) - own).max() < 2.5, "a beat"
    power = np.abs(np.fft.rfft(out[0, begin:][:9600] * np.hanning(9600))) ** 2
    partials = sum(power[round(f / 5) - 2 :][:5].sum() for f in (147, 294, 441, 588, 882))
    assert partials > 0.95 * power.sum(), "it is another sound"
    assert levels(out[0, begin + RATE // 2 :][:4800]).max() < own - 2
    assert not out[:, begin + RATE : missing.stop * BLOCK].any(), "it has gone"
    after = missing.stop * BLOCK
    assert np.array_equal(out[:, after + 64 :], sound[:, after + 64 : out.shape[1]])


def test_held_noise_neither_flutters_nor_buzzes() -> None:
    sound = noise(1.5)
    out, _ = played(sound, range(150, 250), cuts(480, sound.shape[1]))
    held = out[0, 150 * BLOCK :][: RATE // 4]
    assert np.abs(levels(held, 480) - levels(sound[0], 480).mean()).max() < 2.0
    power = np.abs(np.fft.rfft(held, 2 * len(held))) ** 2
    alike = np.fft.irfft(power)[: len(held)]
    repeats = np.abs(alike[int(0.004 * RATE) : int(0.05 * RATE)]).max() / alike[0]
    assert repeats < 0.35, "what comes again within 50 ms is a buzz"


@pytest.mark.parametrize("instead", ["hold", "keep"])
def test_how_calls_are_cut_is_not_heard(instead: str) -> None:
    sound = voice(0.8) + noise(0.8)
    lost = range(60, 70)
    wanted, _ = played(sound, lost, cuts(256, sound.shape[1]), instead)
    rng = np.random.default_rng(2)
    for points in (cuts(1, sound.shape[1]), cuts(997, sound.shape[1]), sorted(rng.choice(30000, 400, False).tolist())):
        assert np.array_equal(played(sound, lost, [p for p in points if p], instead)[0], wanted)


def test_single_answers_that_are_missing_again_and_again_do_not_step() -> None:
    sound = voice(1.0)
    blocks = sound.shape[1] // BLOCK
    for missing in (range(60, blocks, 2), range(1, blocks, 3)):
        out, late = played(sound, missing, cuts(64, sound.shape[1]))
        assert late >= len(missing) - 2
        assert np.abs(np.diff(out[:, 2000:])).max() < 1.4 * np.abs(np.diff(sound)).max()


def test_what_is_missing_from_the_first_block_on_is_silence() -> None:
    sound = voice(0.5)
    out, _ = played(sound, range(20), cuts(128, sound.shape[1]))
    assert not out[:, : 20 * BLOCK].any() and np.array_equal(out[:, 21 * BLOCK :], sound[:, 21 * BLOCK : out.shape[1]])


def test_a_control_signal_keeps_its_last_value() -> None:
    steps = np.repeat(np.linspace(0, 1, 200, dtype=np.float32), BLOCK)[None]
    out, _ = played(steps, range(50, 180), cuts(64, steps.shape[1]), "keep")
    assert (out[0, 50 * BLOCK : 180 * BLOCK] == steps[0, 50 * BLOCK - 1]).all()
    assert np.array_equal(out[0, 181 * BLOCK :], steps[0, 181 * BLOCK : out.shape[1]])


# --- a model that sleeps ---


@pytest.fixture(scope="module")
def sleeper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.save(models.Sleeper(), tmp_path_factory.mktemp("sleeper") / "sleeper.ts")


@pytest.fixture(scope="module")
def half_a_second(sleeper: Path) -> int:
    """Work that takes that long on this machine, or longer."""
    module = torch.jit.load(str(sleeper))
    spent = []
    for _ in range(3):
        module.set_sleep(2000)
        begin = time.perf_counter()
        module(torch.zeros(1, 1, 64))
        spent.append(time.perf_counter() - begin)
    return int(2000 * 0.5 / min(spent))


@pytest.mark.parametrize("late, after", [("hold", 0.05), ("dry", 0.1), ("silence", 0.0)])
def test_half_a_second_of_sleep_is_counted_bridged_and_over(
    sleeper: Path, half_a_second: int, late: str, after: float
) -> None:
    tone = (0.1 * np.sin(2 * np.pi * 200 * np.arange(48000) / 48000)).astype(np.float32)
    rig = Rig(sleeper, patient=False, late=late, margin_samples="4096", ranges="sleep 0 1000000000")
    latency = rig.latency
    out = [rig.live(tone, 240, least=24000)]
    before = rig.late
    rig.set("sleep", half_a_second)
    out.append(rig.live(tone, 240, until=lambda: rig.late >= before + 15))
    heard = out[-1][-2400:]
    assert np.abs(heard).max() == pytest.approx(after, rel=0.15, abs=1e-3), "held is the model's half, not the input"
    # Within a second behind the stall it answers in time again, as late as ever.
    rig.live(tone, 240, until=lambda: rig.worker.load < 1.0, least=240)
    rig.live(tone, 240, least=48000)
    again = rig.late
    out.append(rig.live(tone, 240, least=9600))
    assert rig.late == again or rig.worker.load > 0.5, "still late"
    assert rig.latency == latency
    assert np.abs(np.diff(np.concatenate(out[:2])[4800 + latency :])).max() < 0.006, "a step"
    words = node.FALLBACKS[late]
    assert any(f"{words} was heard instead" in problem for problem in rig.graph.problems)


def test_hold_is_an_option_and_of_a_control_signal_its_last_value(zoo: Path) -> None:
    assert Rig(zoo / "old.ts", 44100, method="envelope", late="hold").graph.chain[0].plugin._late == "keep"
    assert np.abs(Rig(zoo / "fir.ts", late="hold").run(speechlike(0.1))).max() > 0
    with pytest.raises(UsageError, match="late is 'loop'; allowed: dry or silence or hold"):
        Rig(zoo / "fir.ts", late="loop")
