"""Every way in which people get the project gives the whole of it: wheel, sdist, checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support import ROOT, speechlike

pytestmark = pytest.mark.slow

_LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "__pycache__", "*.egg-info", "build", "dist", "runs", "data", ".mypy_cache", ".ruff_cache"
)


def run(*command: str, cwd: Path, **env: str) -> str:
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, so that building leaves nothing in it."""
    target = tmp_path_factory.mktemp("tree") / "rtgan"
    shutil.copytree(ROOT, target, symlinks=True, ignore=_LEFT_OUT)
    return target


@pytest.fixture(scope="module")
def wheel(tree: Path) -> Path:
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "out", cwd=tree)
    return next((tree / "out").glob("*.whl"))


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {n for n in archive.namelist() if ".dist-info/" not in n}


def test_the_wheel_holds_everything_and_only_under_one_name(wheel: Path) -> None:
    names = contents(wheel)
    assert {n.split("/")[0] for n in names} == {"rtgan"}
    for folder, pattern, inside in (
        ("rtgan", "**/*.py", "rtgan"),
        ("kernels", "*.py", "rtgan/kernels"),
        ("presets", "*.yaml", "rtgan/factory"),
        ("models", "*.ts", "rtgan/weights"),
        ("models", "*.rtgp", "rtgan/weights"),
        ("rtgan/demo", "*.flac", "rtgan/demo"),
        ("rtgan/panel/static", "*", "rtgan/panel/static"),
        ("rtgan/train/configs", "*.yaml", "rtgan/train/configs"),
    ):
        found = sorted((ROOT / folder).glob(pattern))
        assert found, f"nothing in {folder} fits {pattern}"
        for path in found:
            if "__pycache__" not in path.parts:
                assert f"{inside}/{path.relative_to(ROOT / folder).as_posix()}" in names, path
    assert "rtgan/py.typed" in names


def test_an_installed_wheel_plays_every_preset_without_torch(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    # A torch that breaks on import stands for one that is not installed.
    (place / "torch.py").write_text("raise ImportError('torch must not be imported')\n")
    sound = tmp_path / "in.wav"
    soundfile.write(sound, speechlike(1.0), 48000)
    listed = run(sys.executable, "-P", "-m", "rtgan", "presets", cwd=tmp_path, PYTHONPATH=str(place))
    names = [line.split()[0] for line in listed.splitlines() if line and not line.startswith(" ")]
    assert {"clean", "stage", "bypass"} <= set(names)
    for name in names:
        run(
            sys.executable, "-P", "-m", "rtgan", "process", "in.wav", "-o", f"{name}.wav", "--preset", name,
            cwd=tmp_path, PYTHONPATH=str(place),
        )  # fmt: skip
        samples, _ = soundfile.read(tmp_path / f"{name}.wav")
        assert np.isfinite(samples).all()
        assert len(samples) == 48000
    where = run(
        sys.executable, "-P", "-c", "import rtgan.host, sys; print(rtgan.__file__, 'torch' in sys.modules)",
        cwd=tmp_path, PYTHONPATH=str(place),
    )  # fmt: skip
    assert where.split() == [str(place / "rtgan" / "__init__.py"), "False"]


def test_the_sdist_builds_the_same_wheel(tree: Path, wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", "out", cwd=tree)
    # Our own archive: no filter, which Python 3.11 knows only from 3.11.4 on, and Debian 12 has 3.11.2.
    shutil.unpack_archive(next((tree / "out").glob("*.tar.gz")), tmp_path)
    source = next(tmp_path.iterdir())
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "out", cwd=source)
    assert contents(next((source / "out").glob("*.whl"))) == contents(wheel)


def test_a_bare_checkout_runs(tree: Path) -> None:
    assert "--preset" in run(sys.executable, "run_live.py", "--help", cwd=tree)
    where = run(sys.executable, "-c", "import rtgan.kernels as k; print(k.__file__)", cwd=tree)
    assert where.strip() == str(tree / "rtgan" / "kernels" / "__init__.py")
