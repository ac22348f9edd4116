"""What several tests share: a private cache, sounds, and a real JACK server."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from support import ROOT, Jack


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded randomness."""
    return np.random.default_rng(12345)


@pytest.fixture(autouse=True)
def _own_config(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the presets of the person who runs it."""
    monkeypatch.setenv("RTGAN_CONFIG_DIR", str(tmp_path_factory.mktemp("config")))


@pytest.fixture
def cli() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``rtgan`` in a process of its own."""

    def run(*args: object, timeout: float = 120, **more: object) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **more.pop("env", {})}  # type: ignore[dict-item]
        return subprocess.run(
            [sys.executable, "-m", "rtgan", *map(str, args)],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=env,
            cwd=more.pop("cwd", ROOT),  # type: ignore[call-overload]
            **more,
        )

    return run


@pytest.fixture
def jack() -> Iterator[Callable[..., Jack]]:
    """Start real JACK servers; where there is none the test is skipped, in CI that is a failure."""
    if shutil.which("jackd") is None or shutil.which("jack-play") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("jackd2 and jack-tools must be installed in CI")
        pytest.skip("jackd2 or jack-tools is not installed")
    with contextlib.ExitStack() as servers:

        def start(period: int, *more: int, **others: int) -> Jack:
            server = Jack(period, *more, **others)
            servers.callback(server.close)
            servers.callback(server.end_clients)
            return server

        yield start
