"""The net that fills gaps: its sound, its training, its export, and how it is measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from test_contract import Rig
from test_repair import lost, power_db, voiced

from rtgan.errors import UsageError
from rtgan.generators import library
from rtgan.kernels import conceal
from rtgan.train import repair_eval
from rtgan.train.data import generated_corpus
from rtgan.train.mixing import PLAIN
from rtgan.train.repair import Rehearsal, RepairNet, RepairSettings, gaps_of, plain, repaired
from rtgan.train.repair_eval import packets_lost
from rtgan.train.repair_export import export_repair
from rtgan.train.repair_loop import RepairConfig, RepairTrainer, parse_repair_config

CONFIG = RepairConfig(
    "tiny", steps=6, mixes=1, gaps=4, checkpoint_every=3, network=RepairSettings(16),
    mixing=dataclasses.replace(PLAIN, seconds=1.5), losses={"stft": {"weight": 1.0, "n_fft": [512]}},
)  # fmt: skip


def test_the_extension_goes_on_without_a_step() -> None:
    sound, rehearsal = voiced(0.5), Rehearsal()
    begin = rehearsal.history + 333
    rows, re, im, power, first = rehearsal(sound[begin - rehearsal.history : begin], 6)
    assert rows.shape == (conceal.PAST + 7, conceal.ROW) and np.isfinite(rows).all()
    said = torch.from_numpy(plain(rows)[conceal.PAST + 1 :])[None]
    parts = [torch.from_numpy(part)[None] for part in (re, im, power, first)]
    made = rehearsal.shaped(said, *parts, noise=torch.zeros_like(parts[0], dtype=torch.complex64))[0].numpy()
    wanted = sound[begin : begin + len(made)]
    assert power_db(made - wanted) < power_db(wanted) - 12


def test_a_row_at_a_time_is_what_a_whole_gap_is() -> None:
    torch.manual_seed(0)
    net, rows = RepairNet(RepairSettings(16)).eval(), torch.randn(20, conceal.ROW)
    with torch.no_grad():
        whole = net.sequence(rows[None])[0]
        state, steps = torch.zeros(1, 16), []
        for row in rows:
            answer, state = net(row[None], state)
            steps.append(answer)
    assert torch.allclose(torch.cat(steps), whole, atol=1e-6)


def test_training_goes_on_where_it_stopped_and_what_it_exports_plays_live(tmp_path: Path) -> None:
    corpus = generated_corpus(seconds=3.0, voices=6)
    whole = RepairTrainer(CONFIG, corpus, tmp_path / "whole")
    first = whole.develop()["distance"]
    whole.run(progress=False)
    assert np.isfinite(first) and whole.develop()["distance"] < first
    half = RepairTrainer(dataclasses.replace(CONFIG), corpus, tmp_path / "halves")
    while half.step < 3:
        half.train_step()
    half.save()
    rest = RepairTrainer(CONFIG, corpus, tmp_path / "halves")
    rest.restore()
    rest.run(progress=False)
    for name, value in whole.averaged.items():
        assert torch.equal(rest.averaged[name], value)

    card = export_repair(tmp_path / "whole", tmp_path / "tiny.ts")
    loaded = library.load(tmp_path / "tiny.ts")
    assert library.deviation(loaded) <= library.TOLERANCE
    assert card["task"] == "repair" and card["training"]["sources"][0]["licence"] == "MIT"


def test_the_plugin_fills_gaps_as_measured() -> None:
    sound = voiced(0.8)
    rig = Rig("repair")
    system = repair_eval.system_of(library.find("repair"))
    gone = np.zeros(-(-len(sound) // repair_eval.PACKET), bool)
    gone[[12, 20, 21, 22, 30]] = True
    expected = system.fill(sound, gone)
    out = rig.run(repair_eval.zeros(sound, gone))[rig.latency :]
    # They differ in the noise that each draws for itself.
    assert power_db(out - expected[: len(out)]) < power_db(sound) - 25
    assert rig.latency == pytest.approx(system.latency_ms * 48)
    assert power_db(lost(sound, 0, 1) - repaired(sound, np.zeros(len(sound), bool), plain)) < -60


def test_losses_have_the_share_and_the_bursts_that_they_say() -> None:
    random, bursts = (packets_lost(20000, 0.3, kind, 1) for kind in repair_eval.KINDS)
    assert random.mean() == pytest.approx(0.3, abs=0.02) and bursts.mean() == pytest.approx(0.3, abs=0.02)
    lengths = [end - begin for begin, end in gaps_of(bursts)]
    assert np.mean(lengths) == pytest.approx(3, abs=0.3)
    assert np.mean([end - begin for begin, end in gaps_of(random)]) == pytest.approx(1 / 0.7, abs=0.1)


def test_opus_conceals_by_itself() -> None:
    opus = repair_eval.opus_system()
    if opus is None:
        pytest.skip("libopus is not installed")
    sound, gone = voiced(1.0), np.zeros(50, bool)
    whole = opus.fill(sound, gone)
    assert whole.shape == sound.shape and power_db(whole[9600:]) == pytest.approx(power_db(sound[9600:]), abs=3)
    gone[25] = True
    some = opus.fill(sound, gone)
    gap = slice(25 * 960, 26 * 960)
    assert np.array_equal(some[: 24 * 960], whole[: 24 * 960]) and not np.array_equal(some[gap], whole[gap])
    assert power_db(some[gap]) > power_db(sound) - 15


@pytest.mark.parametrize("wrong", [{"gaps": 0}, {"shortest_ms": 200}, {"mixing": {"seconds": 0.5}}, {"colour": 1}])
def test_a_wrong_config_is_refused_in_one_sentence(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_repair_config({"name": "x", "losses": {"stft": {}}, **wrong}, "x.yaml")
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_systems_are_measured_on_the_same_gaps(tmp_path: Path) -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    speech = repair_eval.speech_of(None, None, 1, 3)
    systems = [
        repair_eval.System("zeros", 0.0, repair_eval.zeros),
        repair_eval.System("repeats", 0.0, repair_eval.repeats),
        repair_eval.system_of(library.find("repair")),
    ]
    metrics, results = repair_eval.measure(speech, systems, progress=False)
    figures = repair_eval.as_json(metrics, results, "generated sounds")["systems"]
    for case in ("random 10 %", "bursts 30 %"):
        assert figures["repair"][case]["stoi"] > figures["zeros"][case]["stoi"]
    assert figures["zeros"]["random 10 %"]["stoi"] > figures["zeros"]["random 30 %"]["stoi"]
    lines = repair_eval.table(metrics, results).splitlines()
    assert len(lines) == 2 + 2 * len(systems) and len({line.count("|") for line in lines}) == 1
    pytest.importorskip("matplotlib")
    repair_eval.plot(metrics, results, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000
