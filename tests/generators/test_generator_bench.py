"""The measurement itself: a row for each net, ours and its peers, and a peer that is missing is named, not fatal."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rtgan.bench import autoencoders, generators, gtcrn  # noqa: E402
from rtgan.errors import RtganError  # noqa: E402
from rtgan.generators import library  # noqa: E402
from rtgan.generators.compile import compile  # noqa: E402
from rtgan.generators.record import record  # noqa: E402


def _tiny(**more: Any) -> Any:
    net = autoencoders._made(capacity=2, ratios=[2], stacks=[3], dilations=[[3]], taps=33, repeats=2, **more)
    return net, [(1, 1, 64)]


def test_rows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing(*_: Any) -> Any:
        raise ImportError("onnxruntime")

    monkeypatch.setattr(generators, "_ROUNDS", 1)
    monkeypatch.setattr(generators, "_ROUND_US", 1.0)
    monkeypatch.setattr(generators, "_PACED_FRAMES", 2)
    monkeypatch.setattr(generators, "_onnx", missing)
    monkeypatch.setattr(library, "names", lambda: [])
    for name in ("brave", "small_rave", "rave"):
        monkeypatch.setattr(autoencoders, name, _tiny)
    monkeypatch.setattr(autoencoders, "noisy_rave", lambda: (_tiny(noise=[2, 2])[0], [(1, 1, 128)]))
    rows = generators.run(json=True)
    assert json.loads(capsys.readouterr().out) == rows
    assert [row["net"] for row in rows[:2]] == ["two GRUs of 256", "many small layers"] and len(rows) == 8
    for row in rows[6:]:
        assert row["net"].endswith("float16") and list(row["peers_us"]) == ["float32"]
    assert rows[6]["halved_weights"] > 900_000 and rows[6]["deviation_of_peak"] < 1e-4 and not rows[7]["halved_weights"]
    for row in rows[:6]:
        frames = row["net"] in ("two GRUs of 256", "many small layers")
        assert row["skipped"] == (["ONNX Runtime"] if frames else []) and list(row["peers_us"]) == ["TorchScript"]
        assert row["times_faster"]["TorchScript"] == row["peers_us"]["TorchScript"] / row["ours_us"]
        assert row["deviation_of_peak"] < 1e-5 and row["finite"]
        assert row["paced"]["ours"]["p999_us"] >= row["paced"]["ours"]["p99_us"] >= row["paced"]["ours"]["p50_us"] > 0
        assert row["compile_s"] > 1e-3 * row["cached_ms"] > 0
        assert frames != ("share_of_128" in row)
    generators._table(rows)
    text = capsys.readouterr().out
    assert "many small layers" in text and "not measured: ONNX Runtime" in text and "% of 128 samples" in text


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[gtcrn.Gtcrn, Path]:
    """GTCRN with weights of chance, and an ONNX file of it, made as the published one was."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    torch.manual_seed(4)
    net = gtcrn.Gtcrn().eval()
    net.requires_grad_(False)
    for name, values in [*net.named_parameters(), *net.named_buffers()]:
        if "norm" in name and values.is_floating_point():
            values.uniform_(0.3, 1.0)
        elif "slope" in name:
            values.uniform_(0.1, 0.4)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = ["mix", "lines", "gates", "paths"]
        outs = [f"{name}_out" for name in names]
        examples = tuple(map(torch.zeros, gtcrn.SHAPES))
        torch.onnx.export(
            net, examples, file, input_names=names, output_names=outs, opset_version=11, dynamo=False
        )  # fmt: skip
    path = tmp_path_factory.mktemp("gtcrn") / "gtcrn.onnx"
    path.write_bytes(file.getvalue())
    return net, path


def test_weights_of_an_onnx_file_give_its_answers(published: tuple[gtcrn.Gtcrn, Path]) -> None:
    net, path = published
    loaded = gtcrn.load(path)
    native = compile(record(loaded, [torch.zeros(s) for s in gtcrn.SHAPES]), generators._carry(gtcrn.SHAPES))
    session = generators._Session(path.read_bytes())
    assert generators._off(native, gtcrn.SHAPES, session.frame) < 1e-4
    x = np.random.default_rng(1).standard_normal(gtcrn.SHAPES[0]).astype(np.float32)
    state = [torch.zeros(s) for s in gtcrn.SHAPES[1:]]
    with torch.inference_mode():
        assert (net(torch.from_numpy(x), *state)[0] - loaded(torch.from_numpy(x), *state)[0]).abs().max() < 1e-5


def test_another_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    (tmp_path / "noise.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(RtganError, match=r"noise\.onnx (cannot be read as ONNX|is not the ONNX file of GTCRN)"):
        gtcrn.load(tmp_path / "noise.onnx")
