"""A real ``rtgan live`` with its panel on a private JACK server, and a browser to look at it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from support import ROOT, Jack

from rtgan import Host
from rtgan.panel.link import Panel

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@dataclass
class Asking:
    """A panel by its address."""

    url: str

    @property
    def base(self) -> str:
        return self.url.partition("/#")[0]

    @property
    def token(self) -> str:
        return self.url.partition("#")[2]

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        """One HTTP request with the token; status and answer. Headers with ``_`` for ``-``; empty ones are left out."""
        sent = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.base + path, body, {k: v for k, v in sent.items() if v})
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as problem:
            text = problem.read()
            return problem.code, json.loads(text) if text.startswith(b"{") else text

    def do(self, command: str, **given: object) -> None:
        """Ask for a command that is not refused."""
        status, answer = self.ask(f"/api/{command}", json.dumps(given).encode())
        assert status == 200, answer

    def refused(self, command: str, **given: object) -> str:
        """Ask for a command that is refused; why."""
        status, answer = self.ask(f"/api/{command}", json.dumps(given).encode())
        assert status == 400, answer
        return str(answer["error"])

    def wait(self, path: str, holds: Any, seconds: float = 20.0) -> Any:
        """Wait until what a topic tells holds; returns it."""
        deadline = time.monotonic() + seconds
        while True:
            status, answer = self.ask(path)
            if status == 200 and holds(answer):
                return answer
            assert time.monotonic() < deadline, answer
            time.sleep(0.03)


@dataclass
class Inside(Asking):
    """A host of this process and its panel."""

    host: Host
    panel: Panel


@dataclass
class Stage(Asking):
    """What plays on a server."""

    host: subprocess.Popen[str]
    jack: Jack
    folder: Path


@contextmanager
def playing(jack: Jack, folder: Path, *arguments: str, preset: str = "clean") -> Iterator[Stage]:
    """``rtgan live`` from its first line to its last."""
    host = subprocess.Popen(
        [sys.executable, "-m", "rtgan", "live", "--preset", preset, "--input", "system", "--output", "system",
         "--midi-in", "peer", *arguments],
        env={**jack.env, "PYTHONPATH": str(ROOT)}, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert host.stdout is not None
        # A server that hangs holds its clients for ever, and this loop with them.
        patience = threading.Timer(120, host.kill)
        patience.daemon = True
        patience.start()
        url = next((m[1] for line in host.stdout if (m := re.fullmatch(r"panel: (\S+)\n", line))), "")
        patience.cancel()
        assert url, "the host told no address of its panel"
        stage = Stage(url, host, jack, folder)
        jack.wait_port("PortAudio:out_0", 90)
        stage.wait("/api/stats", lambda stats: stats.get("running"), 60)
        yield stage
    finally:
        if host.poll() is None:
            host.send_signal(signal.SIGINT)
        try:
            output, errors = host.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            host.kill()
            raise
    assert "Traceback" not in output + errors, output + errors


@contextmanager
def speech(jack: Jack, folder: Path) -> Iterator[None]:
    """Somebody speaks into the host, beside a noise."""
    file = folder / "voice.wav"
    samples, rate = soundfile.read(ROOT / "rtgan" / "demo" / "noisy_speech.flac", dtype="float32")
    soundfile.write(file, np.tile(samples, 10), rate, "PCM_16")
    player = subprocess.Popen(
        ["jack-play", "-u", "-n", "mic", str(file)], env={**jack.env, "JACK_PLAY_CONNECT_TO": ""},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        jack.wait_port("mic:out_1")
        jack.connect("mic:out_1", "PortAudio:in_0")
        yield
    finally:
        player.terminate()
        player.wait()


def control(page: Any, name: str, kind: str) -> Any:
    # The pad may hold another one of the same parameter.
    return page.locator(f":is(#strips, #volume) [data-name='{name}'] input[type={kind}]")


def shown(page: Any, selector: str) -> Any:
    """What the page will show, within a while; the page's policy forbids to evaluate text, for a test as well."""
    from playwright.sync_api import expect

    expect.set_options(timeout=20_000)  # machines stall
    return expect(page.locator(selector))
