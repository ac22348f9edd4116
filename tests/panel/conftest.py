"""A host on the built-in device with its real panel process; ``rtgan live`` on a server, and a browser."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stage import CHROMIUM, FLAGS, Inside, Stage, speech
from stage import playing as live
from support import Jack, speechlike

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


def absent(what: str) -> None:
    """In CI a test that cannot run has failed."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} must be installed in CI")
    pytest.skip(f"{what} is not installed")


@pytest.fixture(scope="module")
def chromium(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A browser; a module's FLAGS replace those of the others."""
    if not Path(CHROMIUM).exists():
        absent("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        absent("playwright")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=getattr(request.module, "FLAGS", FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def stage(jack: Callable[..., Jack], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """The clean preset, somebody speaking into it; on a server that waits for late clients unless told otherwise."""
    server = jack(512, wait=getattr(request, "param", True))
    with live(server, tmp_path) as found, speech(server, tmp_path):
        yield found


@pytest.fixture
def open_page(chromium: Any, stage: Stage) -> Iterator[Callable[..., Any]]:
    """Open the panel; whatever a page asks of another machine, or complains of, fails the test."""
    wrong: list[str] = []
    contexts = []

    def open_it(url: str = "", **options: Any) -> Any:
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: wrong.append(r.url) if not r.url.startswith(stage.base) else None)
        page.goto(url or stage.url)
        page.wait_for_selector("#strips .control", state="attached")
        return page

    yield open_it
    for context in contexts:
        context.close()
    # A host that was ended on purpose refuses connections, or drops them.
    assert [w for w in wrong if "net::ERR_CONNECTION_" not in w] == []
