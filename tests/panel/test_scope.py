"""What the panel draws, from sound in shared memory."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

from rtgan import memory
from rtgan.engine import Engine
from rtgan.kernels import rings
from rtgan.panel.scope import BANDS, COLUMNS, Scope, edges_hz

RATE = 48000


@pytest.fixture
def shown() -> Iterator[tuple[Engine, rings.Ring, Scope]]:
    """An engine without a chain that shows its sound, and the other process's view of it."""
    fds = []

    def allocate(words: int) -> np.ndarray:
        fd, found = memory.shared(8 * words)
        fds.append(fd)
        return found

    engine = Engine(RATE, 2)
    ring = rings.build(RATE // 4, 4, allocate=allocate)
    engine.show(ring)
    layout = {"frames": int(ring.memory[rings.CAPACITY]), "channels": 2, "written_word": rings.WRITTEN,
              "first_word": rings.HEADER}  # fmt: skip
    yield engine, ring, Scope(fds[0], layout, RATE)
    os.close(fds[0])


def read(frame: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Levels (side, channel, peak and level) and spectra (side, column, band)."""
    levels = np.frombuffer(frame, "<f4", 8).reshape(2, 2, 2)
    return levels, np.frombuffer(frame, np.uint8, offset=32).reshape(2, COLUMNS, BANDS)


def test_a_sine_is_drawn_at_its_level_and_in_its_band(shown: tuple[Engine, rings.Ring, Scope]) -> None:
    engine, _, scope = shown
    t = np.arange(RATE) / RATE
    wave = np.stack([0.5 * np.sin(2 * np.pi * 1000 * t), 0.25 * np.sin(2 * np.pi * 1000 * t)], 1).astype(np.float32)
    for k in range(0, RATE, 1600):
        engine.render(np.ascontiguousarray(wave[k : k + 1600]))
        levels, spectra = read(scope.frame())
    # The engine plays no graph: its output is silence.
    assert levels[0, :, 0] == pytest.approx([-6.02, -12.04], abs=0.1)
    assert levels[0, :, 1] == pytest.approx([-9.03, -15.05], abs=0.5)
    assert (levels[1] <= -119).all()
    loudest = spectra[0].argmax(axis=1)
    assert edges_hz(RATE)[loudest] == pytest.approx(1000, rel=0.03)
    # The mean of both channels is a sine of 0.375, -8.5 dBFS.
    assert (spectra[0].max(axis=1) / 255 - 1) * 95 == pytest.approx(-8.5, abs=1.0)
    assert spectra[1].max() == 0


def test_peaks_between_two_pictures_are_not_missed(shown: tuple[Engine, rings.Ring, Scope]) -> None:
    engine, _, scope = shown
    engine.render(np.zeros((8192, 2), np.float32))
    scope.frame()
    click = np.zeros((3000, 2), np.float32)
    click[7, 1] = -0.9
    engine.render(click)
    levels, _ = read(scope.frame())
    assert levels[0, :, 0] == pytest.approx([-120.0, 20 * np.log10(0.9)], abs=0.01)


def test_nothing_new_is_silence_and_a_reader_that_sleeps_goes_on(shown: tuple[Engine, rings.Ring, Scope]) -> None:
    engine, ring, scope = shown
    assert (read(scope.frame())[0] == -120).all()
    noise = (0.1 * np.random.default_rng(0).standard_normal((2 * RATE, 2))).astype(np.float32)
    engine.render(noise)
    assert ring.memory[rings.WRITTEN] == 2 * RATE
    levels, spectra = read(scope.frame())
    assert (levels[0, :, 0] > -20).all()
    assert spectra[0].min() > 0
    assert (read(scope.frame())[0] == -120).all()


def test_showing_changes_nothing_that_is_heard_or_recorded() -> None:
    noise = (0.1 * np.random.default_rng(1).standard_normal((5000, 1))).astype(np.float32)
    plain = Engine(RATE, tape_frames=1 << 14)
    watched = Engine(RATE, tape_frames=1 << 14)
    watched.show(rings.build(1 << 13, 2))
    heard = [engine.render(noise) for engine in (plain, watched)]
    assert np.array_equal(*heard)
    tapes = [engine.tape.read() for engine in (plain, watched) if engine.tape is not None]
    assert np.array_equal(*tapes)
    with pytest.raises(ValueError, match="already"):
        watched.show(rings.build(64, 2))
