"""A host on the built-in device with its real panel process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stage import Inside
from support import speechlike

from rtgan import Host
from rtgan.control.desk import Desk
from rtgan.panel.link import Panel


@contextmanager
def inside(folder: Path) -> Iterator[Inside]:
    """Voice-basic, played by the built-in device for long enough."""
    host = Host(preset="voice-basic", source=np.tile(speechlike(20.0), 12)[None])
    with Desk(host, ports=False, takes=folder / "takes") as desk, Panel(host, desk) as panel, host:
        stage = Inside(panel.url, host, panel)
        stage.wait("/api/values", lambda values: "host.mute" in values, 60)
        yield stage


@pytest.fixture
def playing(tmp_path: Path) -> Iterator[Inside]:
    """A host and its panel."""
    with inside(tmp_path) as stage:
        yield stage


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    """A host and its panel for tests that leave nothing behind."""
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RTGAN_CONFIG_DIR", str(folder / "config"))
        with inside(folder) as stage:
            yield stage


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait until something is so."""

    def wait(holds: Callable[[], Any], seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, "it never came true"
            time.sleep(0.02)

    return wait
