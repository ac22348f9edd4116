"""`rtgan bench control`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from rtgan.bench import control, jack
from rtgan.errors import RtganError


def test_a_row_counts_what_is_late_and_what_is_lost() -> None:
    row = control.summary("native", 2, 256, [0, 1000, 2000, 3000], [256, 1256, 2260, -1])
    assert (row["events"], row["lost"], row["exact"], row["worst_samples"]) == (4, 1, 0.5, 4)
    assert row["p50_ms"] == pytest.approx(256 / 48)
    assert row["allowed_ms"] == pytest.approx(512 / 48 + 2)
    assert "50.0 % exactly" in control.describe({**row, "stalls": 0})
    with pytest.raises(RtganError, match="no event"):
        control.summary("polled", 0, 256, [0], [-1])


def test_a_child_that_says_nothing_in_time_is_ended_and_has_said_nothing() -> None:
    script = "import time; print('ready', flush=True); time.sleep(600)"
    silent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert jack.next_line(silent, 60) == "ready"
        assert jack.next_line(silent, 0.2) == ""
        assert silent.wait(30) != 0
    finally:
        silent.kill()
        silent.communicate()


@pytest.mark.jack
@pytest.mark.slow
def test_on_a_real_server() -> None:
    pytest.importorskip("jack", reason="the peer is JACK-Client")
    for program in ("jackd", "cc"):
        if shutil.which(program) is None:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{program} is not installed")
    with jack.Rig() as rig:
        rows = control.measure(rig, 20)
    assert [(row["path"], row["hogs"]) for row in rows] == [
        ("native", 0), ("native", 2), ("polled", 0), ("polled", 2),
    ]  # fmt: skip
    for row in rows:
        # Where the machine stalls periods are lost, and events with them; nothing else moves one by a sample.
        assert row["events"] == 20 and 0 <= row["lost"] < 20
        assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]
        assert control.describe(row)
        assert row["path"] == "polled" or row["exact"] >= 0.5
