"""`rtgan bench panel`."""

from __future__ import annotations

import os
import shutil

import pytest

from rtgan.bench import jack, panel


@pytest.mark.jack
@pytest.mark.slow
def test_beside_a_real_browser_and_a_flood() -> None:
    pytest.importorskip("playwright")
    for program in ("jackd", "cc", "chromium"):
        if shutil.which(program) is None:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{program} is not installed")
    with jack.Rig() as rig:
        (row,) = panel.measure(rig, 2.0, [(True, 1, True)], "voice-basic")
    assert row["faults"] == 0
    assert row["blocks"] > 100
    assert 0 < row["panel_cpu_percent"] < 100
    assert row["pictures_per_s"] > 1
    assert row["first_paint_ms"] > 0
    assert "1 browser and a flood" in panel.describe(row)
    assert panel.describe({**row, "panel": False}).startswith("no panel: callback p99.9")
