"""The measurement of whole chains: what it plays, what it says, and a short run on a real server."""

import shutil

import pytest

from rtgan import presets
from rtgan.bench import jack, load


def test_many_strips_of_one_preset_are_as_loud_as_it_may_be() -> None:
    made = load.chain("4 x clean")
    assert made.strips == {f"s{k}": (1,) for k in (1, 2, 3, 4)}
    assert made.values()["s2.level_db"] == -24 and made.values()["s3-denoise.amount_db"] == 0
    assert load.chain("podcast") == presets.load("podcast")


def test_the_last_delay_is_read_and_none_from_before() -> None:
    lines = [
        (1.0, "  960.123 frames     20.0 ms total\n"),
        (2.0, "Signal below threshold...\n"),
        (3.0, " 961.9 frames\n"),
    ]
    assert load._delay(lines) == 962 and load._delay(lines[:2]) == 960 and load._delay(lines[:2], 1.5) is None


@pytest.mark.jack
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("jackd") is None or shutil.which("cc") is None, reason="no jackd or no compiler")
def test_a_chain_without_its_denoisers_takes_less() -> None:
    with jack.Rig() as rig:
        rows = load.loads(rig, "2 x clean", 1.0)
    assert [row["plays"] for row in rows] == list(load.LEVELS)
    assert rows[0]["core_percent"] > rows[2]["core_percent"] > 0
    assert "2 x clean, everything: " in load.describe(rows[0])
