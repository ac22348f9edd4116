"""The measurement of the host: its arithmetic on made-up sessions, its rows, and a short run on a real server."""

import json
import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

from rtgan import offline, presets
from rtgan.bench import engine, jack
from rtgan.bench.jack import Session
from rtgan.errors import RtganError

PERIOD = 64
PERIOD_NS = PERIOD / 48000 * 1e9


def session(slots, first=0, late_ns=None, until=None):
    """A client whose callbacks came in these periods of the server."""
    slots = np.asarray(slots)
    late = np.zeros(len(slots)) if late_ns is None else np.asarray(late_ns)
    begin = (1e12 + slots * PERIOD_NS + late).astype(np.int64)
    end = begin + 20_000
    until_ns = int(begin[-1] + PERIOD_NS / 2 if until is None else 1e12 + until * PERIOD_NS)
    return Session(begin, end, np.full(len(slots), PERIOD), first, until_ns)


def test_nothing_is_lost_by_being_late():
    late = np.random.default_rng(1).uniform(0, 2e4, 2000)
    late[500:510] = PERIOD_NS * np.linspace(7, 0.2, 10)  # one long delay, made up for block by block
    assert session(range(2000), late_ns=late).lost(PERIOD_NS).sum() == 0


def test_every_gap_is_counted_where_it_is():
    slots = [k for k in range(2000) if k not in (300, 301, 302, 1500)]
    late = np.random.default_rng(1).uniform(0, 2e4, len(slots))
    lost = session(slots, late_ns=late).lost(PERIOD_NS)
    assert len(lost) == len(slots)
    assert dict(enumerate(lost[lost > 0])) == {0: 3, 1: 1}
    assert list(np.flatnonzero(lost)) == [299, 1496]


def test_what_comes_before_the_measurement_does_not_count():
    slots = [*range(10), *range(50, 1000)]
    assert session(slots, first=10).lost(PERIOD_NS).sum() == 0
    assert session(slots, first=9).lost(PERIOD_NS).sum() == 40


def test_a_client_that_is_called_no_more_loses_the_rest():
    assert session(range(100), until=130.5).lost(PERIOD_NS).sum() == 30
    with pytest.raises(RtganError):
        session(range(100), first=100).lost(PERIOD_NS)


def test_callbacks_during_a_stall_are_known():
    client = session(range(100))
    begin = client.begin_ns
    stalls = np.array([[begin[10] + 5_000, begin[10] + 6_000], [begin[50] + 30_000, begin[52] + 1]])
    assert list(np.flatnonzero(client.stalled(stalls))) == [10, 51, 52]
    assert not client.stalled(np.empty((0, 2), np.int64)).any()


def test_losses_beside_stalls_are_told_apart():
    slots = [k for k in range(2000) if k not in (300, 301, 1500)]
    played = session(slots)

    def stall(begin, end):
        return np.array([[1e12 + begin * PERIOD_NS, 1e12 + end * PERIOD_NS]]).astype(np.int64)

    def near(stalls):
        return sum(loss.blocks for loss in played.losses(stalls, PERIOD_NS) if loss.in_stall)

    assert near(stall(296, 297)) == 2
    assert near(stall(1500.2, 1500.8)) == 1
    assert near(stall(200, 201)) == 0
    assert near(stall(303, 310)) == 0
    assert near(np.empty((0, 2), np.int64)) == 0
    assert near(np.concatenate([stall(299, 301), stall(1490, 1510)])) == 3
    row = jack.summary("rtgan", PERIOD, 192, [(played, stall(299, 301), {"flagged": 2, "faults": 0})])
    assert (row["lost"], row["lost_in_stalls"], row["lost_own"], row["blocks"]) == (3, 2, 1, 2000)
    assert row["stalls"] == 1 and row["flagged"] == 2
    (own,) = row["own"]
    assert (own["run"], own["blocks"]) == (0, 1) and own["at_s"] == pytest.approx(1499 * PERIOD_NS / 1e9)
    assert own["load"] == pytest.approx(20_000 / PERIOD_NS)
    assert "own: 1 in run 1 after 2.0 s" in engine.describe({**row, "preset": "x", "detector_real_time": True})
    assert row["load_percent"]["mean"] == pytest.approx(20_000 / PERIOD_NS * 100)


def test_callbacks_that_compute_a_frame():
    played = session(range(9), first=1)
    assert list(played.computes_frame(192)) == [False, True, False, False, True, False, False, True]
    assert played.computes_frame(64).all()
    row = jack.summary("rtgan", PERIOD, 192, [(played, np.empty((0, 2), np.int64), {})])
    assert {"load_percent_with_frame", "load_percent_without_frame"} <= set(row)


def test_sessions_are_read_as_they_are_written(tmp_path):
    words = [1, 3, 999, 10, 12, 64, 20, 22, 64, 30, 33, 64]
    np.array(words, np.int64).tofile(tmp_path / "stamps")
    read = Session.read(tmp_path / "stamps")
    assert (read.first, read.until_ns) == (1, 999)
    assert list(read.begin_ns) == [10, 20, 30] and list(read.end_ns) == [12, 22, 33] and list(read.frames) == [64] * 3


def test_rows_of_the_host_itself(monkeypatch):
    monkeypatch.setattr(engine, "_PASSES", 1)
    sound = np.zeros((4800, 1), np.float32)
    monkeypatch.setattr(engine, "_sound", lambda: sound)
    rows = [*engine.offline_speed(), *engine.table_cost()]
    names = {row["preset"] for row in rows if row["measure"] == "offline"}
    assert {"bypass", "voice-basic"} <= names
    played = [row for row in rows if row["measure"] == "offline" and "skipped" not in row]
    assert all(row["times_real_time"] > 0 and row["block_64_us"]["p50"] > 0 for row in played)
    table = [row for row in rows if row["measure"] == "table"]
    assert table[0]["call_ns"] > 0 and [row["block"] for row in table[1:]] == [64, 128]
    assert all(engine.describe(row) for row in rows)


def test_each_callback_is_timed():
    renderer = offline.Renderer(presets.load("voice-basic"), 48000, 1)
    spent = engine.durations_us(renderer.engine, np.zeros((64 * 100, 1), np.float32), 64)
    assert spent.shape == (100,) and (spent > 0).all()


def test_settings(monkeypatch):
    monkeypatch.setenv("RTGAN_BENCH_SECONDS", "2.5")
    assert engine._setting("RTGAN_BENCH_SECONDS", 10.0) == 2.5
    for wrong in ("0", "-1", "soon"):
        monkeypatch.setenv("RTGAN_BENCH_SECONDS", wrong)
        with pytest.raises(RtganError, match="RTGAN_BENCH_SECONDS"):
            engine._setting("RTGAN_BENCH_SECONDS", 10.0)


def test_without_compiler_or_server_the_rest_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(engine, "offline_speed", list)
    monkeypatch.setattr(engine, "table_cost", list)
    monkeypatch.setattr(jack.shutil, "which", lambda name: None)
    rows = engine.run(json=True)
    assert json.loads(capsys.readouterr().out) == rows
    assert rows[0]["measure"] == "jack" and "C compiler" in rows[0]["skipped"]
    assert "C compiler" in engine.describe(rows[0])


def needed(program):
    """Skip without a program; in CI that is a failure."""
    if shutil.which(program) is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{program} is not installed")


@pytest.fixture
def rig():
    needed("cc")
    with jack.Rig() as made:
        yield made


def test_the_stall_detector_sees_a_stopped_machine_only(rig):
    """Held up itself, the detector notes one stall per core of about that length."""
    stalls = jack.Stalls(rig)
    process = stalls._process
    time.sleep(0.3)
    process.send_signal(signal.SIGSTOP)
    begin = time.monotonic_ns()
    time.sleep(0.25)
    end = time.monotonic_ns()
    process.send_signal(signal.SIGCONT)
    time.sleep(0.2)
    found, _ = stalls.close()
    long = found[(found[:, 1] - found[:, 0]) > 0.2e9]
    assert len(long) == os.cpu_count()
    assert (long[:, 0] < begin + 0.02e9).all() and (long[:, 1] >= end).all()


@pytest.mark.jack
@pytest.mark.slow
def test_on_a_real_server(rig):
    needed("jackd")
    rows = jack.proof(rig, "clean", 480, 1.0, 1, periods=(256,))
    assert [row["client"] for row in rows] == [jack.HOST, jack.IDLE, jack.ALIKE]
    for row in rows:
        assert 180 <= row["blocks"] <= 300
        assert row["lost_own"] + row["lost_in_stalls"] == row["lost"]
        assert 0 < row["load_percent"]["p50"] < 100
        assert engine.describe(row)
    host, idle, alike = rows
    assert host["faults"] == 0
    # The third one computes when the host does, and as long.
    medians = [row["load_percent_with_frame"]["p50"] for row in (host, alike)]
    assert medians[1] > 3 * idle["load_percent"]["p50"]
    assert medians[1] == pytest.approx(medians[0], rel=0.5)
    start = jack.start_up(rig, "voice-basic", 1)
    assert not start["torch"]
    assert start["first_block_s"] > 0 and start["resident_mb"] > 50
    assert "torch not imported" in engine.describe(start)
    assert (
        f"rtgan-bench-{os.getpid()}-"
        not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    )
