"""The measurement itself: every kernel has its row, and a peer that is missing is named, not fatal."""

import importlib
import json

import pytest

from rtgan.bench import kernels


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(kernels, "_ROUNDS", 1)
    monkeypatch.setattr(kernels, "_BATCH_US", 1.0)
    real = importlib.import_module

    def without_most(name, *rest):
        if name.partition(".")[0] in ("torch", "libdf", "soxr", "pyfftw", "pedalboard", "pyloudnorm"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(kernels.importlib, "import_module", without_most)


def test_rows(hasty, capsys):
    rows = kernels.run(json=True)
    assert json.loads(capsys.readouterr().out) == rows
    assert len({row["kernel"] for row in rows}) == len(rows) == 16
    assert all(row["ours_us"] > 0 and row["ours_from_python_us"] > 0 for row in rows)
    frame = rows[0]
    assert frame["skipped"] == ["torch", "libdf", "FFTW frame", "FFTW transforms alone"]
    assert frame["best_peer"] == "scipy"
    assert frame["times_faster"] == frame["peers_us"]["scipy"] / frame["ours_us"]


def test_table(hasty, capsys):
    kernels.run()
    text = capsys.readouterr().out
    assert "STFT frame and back, 512" in text and "not installed: soxr" in text
