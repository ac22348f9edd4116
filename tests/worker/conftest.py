"""The zoo as files, exported once; what is found out about them is kept in a folder of the tests' own."""

from __future__ import annotations

from pathlib import Path

import pytest

NAMES = (
    "Fir", "Latents", "Old", "Zoo", "Chance", "Hungry", "Accident", "Slow", "Stuck", "Giant", "Cuda", "Double", "Exact",
    "Stereo", "Widen", "Rave",
)  # fmt: skip


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models: ``fir.ts`` and so on, ``old.nm`` and ``new.nm``."""
    pytest.importorskip("torch")
    import zoo as models

    folder = tmp_path_factory.mktemp("zoo")
    for name in NAMES:
        models.save(getattr(models, name)(), folder / f"{name.lower()}.ts")
    models.save(models.Neutone(256), folder / "old.nm", models.OLD_DIALECT)
    models.save(models.Neutone(256), folder / "new.nm", models.NEW_DIALECT)
    return folder


@pytest.fixture(autouse=True)
def _own_model_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    from rtgan.worker import lowered, spec

    kept = _kept_in(tmp_path_factory)
    name = lowered._kept
    monkeypatch.setattr(spec, "_kept", lambda sha256: kept / f"{sha256}.json")
    monkeypatch.setattr(lowered, "_kept", lambda *key: kept / name(*key).name)


def _kept_in(factory: pytest.TempPathFactory) -> Path:
    folder = factory.getbasetemp() / "known-models"
    folder.mkdir(exist_ok=True)
    return folder
