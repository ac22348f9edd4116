"""The measurement itself: a row for each net, ours and its peers, and a peer that is missing is named, not fatal."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("torch")

from rtgan.bench import generators


def test_rows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing(*_: Any) -> Any:
        raise ImportError("onnxruntime")

    monkeypatch.setattr(generators, "_ROUNDS", 1)
    monkeypatch.setattr(generators, "_ROUND_US", 1.0)
    monkeypatch.setattr(generators, "_PACED_FRAMES", 2)
    monkeypatch.setattr(generators, "_onnx", missing)
    monkeypatch.setattr(generators.library, "names", lambda: [])
    rows = generators.run(json=True)
    assert json.loads(capsys.readouterr().out) == rows
    assert [row["net"] for row in rows] == ["two GRUs of 256", "many small layers"]
    for row in rows:
        assert row["skipped"] == ["ONNX Runtime"] and list(row["peers_us"]) == ["TorchScript"]
        assert row["times_faster"]["TorchScript"] == row["peers_us"]["TorchScript"] / row["ours_us"]
        assert row["deviation_of_peak"] < 1e-5 and row["finite"]
        assert row["paced"]["ours"]["p999_us"] >= row["paced"]["ours"]["p50_us"] > 0
    generators._table(rows)
    text = capsys.readouterr().out
    assert "many small layers" in text and "not measured: ONNX Runtime" in text
