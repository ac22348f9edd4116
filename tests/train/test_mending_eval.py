"""Damage as `rtgan eval repair --offline` makes it, and what it finds of every system."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from test_repair import voiced

from rtgan.train import mending_eval as eval_


def test_damage_is_what_it_says() -> None:
    sound = voiced(6.0)
    for wanted in eval_.SDRS_DB:
        assert eval_.ratio_db(sound, eval_.clipped(sound, wanted)) == pytest.approx(wanted, abs=0.2)
    spans = eval_.gaps_in(len(sound), 100, 1)
    assert len(spans) > 5 and all(end - begin == 4800 for begin, end in spans)
    assert all(later[0] - end > 0.3 * 48000 for (_, end), later in itertools.pairwise(spans))
    broken, count = eval_.clicked(sound, 1)
    assert count == 60 and 0 < np.count_nonzero(broken != sound) < count * 48


@pytest.mark.slow
def test_systems_are_measured_on_the_same_damage() -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    results = eval_.measure({"speech": [voiced(2.5)], "music": []}, progress=False)
    clicks, clipping, gaps = (results[damage] for damage in ("clicks", "clipping", "gaps"))
    case = "10 a second"
    assert clicks["speech", case, "repair"]["SNR dB"] > clicks["speech", case, "none"]["SNR dB"] + 3
    assert clicks["speech", case, "none"]["false a minute"] == clicks["speech", case, "repair"]["false a minute"] == 0
    assert clipping["speech", "10 dB", "none"]["gain dB"] == 0 < clipping["speech", "10 dB", "repair"]["gain dB"]
    key = "speech", "50 ms"
    assert gaps[*key, "repair, from both sides"]["distance dB"] < gaps[*key, "zeros"]["distance dB"]
    lines = eval_.table(gaps).splitlines()
    assert len(lines) == 2 + len(eval_.GAPS_MS) * len(eval_.FILLERS) and len({line.count("|") for line in lines}) == 1
