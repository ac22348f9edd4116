"""Evaluation: peers and scores are fed, aligned and read as they should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtgan.errors import RtganError, UsageError
from rtgan.train import evaluate
from rtgan.train.peers import System, gtcrn_system, rnnoise_system, run_system
from rtgan.train.scoring import DNSMOS_METRICS, METRICS, Dnsmos, at_16_khz, si_sdr_db

_CACHES = {"conv_cache": [2, 1, 16, 16, 33], "tra_cache": [2, 3, 1, 1, 16], "inter_cache": [2, 1, 33, 16]}


def _onnx(path: Path, nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], values: Any = ()) -> Path:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, real, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, real, shape) for name, shape in outputs.items()],
        [onnx.numpy_helper.from_array(value, name) for name, value in values],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    return path


@pytest.fixture
def late_gtcrn(tmp_path: Path) -> Path:
    """A net of GTCRN's shape that halves what it hears and counts the frames in its first state."""
    onnx = pytest.importorskip("onnx")
    make = onnx.helper.make_node
    nodes = [
        make("Add", ["conv_cache", "one"], ["conv_cache_out"]),
        make("Identity", ["tra_cache"], ["tra_cache_out"]),
        make("Identity", ["inter_cache"], ["inter_cache_out"]),
        make("ReduceMax", ["conv_cache"], ["count"], keepdims=0),
        make("Greater", ["count", "ten"], ["late"]),
        make("Mul", ["mix", "half"], ["softer"]),
        make("Where", ["late", "softer", "mix"], ["enh"]),
    ]
    values = [("one", np.float32([1.0])), ("half", np.float32([0.5])), ("ten", np.float32(10.5))]
    outputs = {"enh": [1, 257, 1, 2]} | {f"{name}_out": shape for name, shape in _CACHES.items()}
    return _onnx(tmp_path / "gtcrn.onnx", nodes, {"mix": [1, 257, 1, 2]} | _CACHES, outputs, values)


def test_gtcrn_is_fed_frame_by_frame_with_its_state_and_aligned(late_gtcrn: Path) -> None:
    noisy = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 5003)).astype(np.float32)
    system = gtcrn_system(late_gtcrn)
    assert (system.sample_rate_hz, system.latency_ms) == (16000, 32.0)
    out = system.enhance(noisy)
    # frames 0 to 10 leave as they came, later ones halved; they overlap by one hop of 256 samples
    assert np.allclose(out[:, : 10 * 256], noisy[:, : 10 * 256], atol=1e-5)
    assert np.allclose(out[:, 11 * 256 :], noisy[:, 11 * 256 :] / 2, atol=1e-5)


def test_models_of_another_shape_are_refused(tmp_path: Path, late_gtcrn: Path) -> None:
    with pytest.raises(UsageError, match="is not DNSMOS"):
        Dnsmos(late_gtcrn)
    with pytest.raises(UsageError, match="There is no model"):
        gtcrn_system(tmp_path / "none.onnx")
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(RtganError, match="cannot be read as ONNX"):
        gtcrn_system(tmp_path / "junk.onnx")


def test_dnsmos_repeats_short_signals_averages_long_ones_and_applies_its_polynomials(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    make = onnx.helper.make_node
    nodes = [
        make("ReduceMean", ["input_1"], ["mean"], axes=[1], keepdims=1),
        make("Add", ["mean", "raw"], ["Identity:0"]),
    ]
    shapes = {"input_1": ["N", Dnsmos.samples]}, {"Identity:0": ["N", 3]}
    path = _onnx(tmp_path / "d.onnx", nodes, *shapes, [("raw", np.float32([[3.0, 4.0, 3.5]]))])
    score = Dnsmos(path)
    # the published polynomials at 3, 4 and 3.5
    wanted = [-0.08397278 * 9 + 1.22083953 * 3 + 0.0052439, -0.13166888 * 16 + 1.60915514 * 4 - 0.39604546]
    wanted.append(-0.06766283 * 12.25 + 1.11546468 * 3.5 + 0.04602535)
    assert score(np.zeros(Dnsmos.samples, np.float32)) == pytest.approx(wanted, abs=1e-4)
    tone = np.float32([1.0, -1.0] * 8000) + np.float32(0.25)
    assert score(tone)[2] == pytest.approx(-0.06766283 * 3.75**2 + 1.11546468 * 3.75 + 0.04602535, abs=1e-3)
    long = np.concatenate((np.zeros(Dnsmos.samples, np.float32), np.ones(16000, np.float32)))
    assert score(long)[0] > score(long[: Dnsmos.samples])[0]


def test_rnnoise_is_aligned_with_its_input(corpus: Any) -> None:
    system = rnnoise_system()
    if system is None:
        pytest.skip("pyrnnoise is not installed")
    clean = np.stack([mix.clean for mix in evaluate.development_mixes(corpus, 2)])
    out = system.enhance(clean)
    assert out.shape == clean.shape
    cross = np.fft.irfft(np.fft.rfft(clean, 2**19) * np.conj(np.fft.rfft(out, 2**19)))
    lags = np.argmax(cross, axis=1)
    assert np.all(np.minimum(lags, 2**19 - lags) <= 48)


def test_a_run_is_measured_with_its_averaged_weights(corpus: Any, run: Path) -> None:
    system = run_system(run)
    noisy = np.stack([mix.noisy[:20000] for mix in evaluate.development_mixes(corpus, 2)])
    out = system.enhance(noisy)
    assert (system.name, system.latency_ms) == ("tiny@4", 4.0) and out.shape == noisy.shape
    assert np.isfinite(out).all() and not np.array_equal(out, noisy)
    assert np.array_equal(run_system(run / "checkpoint.pt").enhance(noisy[1:])[0], out[1])


def test_si_sdr_is_that_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    target = rng.standard_normal(16000)
    error = rng.standard_normal(16000)
    error -= target * (error @ target) / (target @ target)
    estimate = 3 * (target + 0.1 * error * np.linalg.norm(target) / np.linalg.norm(error))
    assert si_sdr_db(estimate, target) == pytest.approx(20.0, abs=0.05)


def test_better_systems_score_better_and_everything_is_written(corpus: Any, tmp_path: Path) -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    pytest.importorskip("matplotlib")
    mixes = evaluate.development_mixes(corpus, 2)
    clean = np.stack([mix.clean for mix in mixes])
    halfway = System("halfway", 5.0, lambda noisy: 0.8 * clean + 0.2 * noisy)
    narrow = System("narrow", 9.0, lambda noisy: 0.9 * at_16_khz(clean, 48000) + 0.1 * noisy, 16000)
    outputs = evaluate.run_systems(mixes, [halfway, narrow], progress=False)
    results = evaluate.score(mixes, outputs, progress=False)
    assert [r.name for r in results] == ["noisy", "halfway", "narrow"]
    for metric in METRICS:
        noisy, half, most = (r.mean()[metric] for r in results)
        assert noisy < half < most
    figures = evaluate.as_json(results, mixes, "generated sounds")
    evaluate.write_json(figures, tmp_path / "f.json")
    assert json.loads((tmp_path / "f.json").read_text())["systems"]["narrow"]["latency_ms"] == 9.0
    assert evaluate.for_card(figures, "halfway")["compared"].keys() == {"noisy", "narrow"}
    assert len(evaluate.table(results).splitlines()) == 4
    evaluate.plot(results, mixes, tmp_path / "f.png")
    evaluate.write_audio(mixes, outputs, tmp_path / "audio", 1)
    names = {"000.png", *(f"000_{name}.wav" for name in ("clean", "noisy", "halfway", "narrow"))}
    assert {p.name for p in (tmp_path / "audio").iterdir()} == names and (tmp_path / "f.png").stat().st_size > 10000
    soundfile = pytest.importorskip("soundfile")
    heard, rate = soundfile.read(tmp_path / "audio" / "000_narrow.wav", dtype="float32")
    assert rate == 16000 and np.allclose(heard, np.clip(outputs[2].signals[0], -1, 1), atol=1e-4)


def test_figures_of_dnsmos_stand_beside_the_others(corpus: Any) -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")

    class Loudness(Dnsmos):
        def __init__(self) -> None:
            pass

        def __call__(self, signal: Any) -> list[float]:
            return [float(np.std(signal))] * 3

    mixes = evaluate.development_mixes(corpus, 1)
    louder = System("louder", 0.0, lambda noisy: 2 * noisy)
    noisy, loud = evaluate.evaluate_systems(mixes, [louder], False, Loudness())
    assert noisy.metrics == METRICS + DNSMOS_METRICS
    assert loud.mean()["dnsmos_ovrl"] == pytest.approx(2 * noisy.mean()["dnsmos_ovrl"], rel=1e-2)
    assert "OVRL" in evaluate.table([noisy, loud])
