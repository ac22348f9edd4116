"""What the panel costs: its process, its first paint, and whether the audio callback notices it.

A host plays on a private JACK server, its callbacks stamped as in `rtgan.bench.jack`: without a panel, with one real
browser that looks at it, with four, and with four beside a client that floods the socket.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rtgan.bench import jack as rigs
from rtgan.errors import RtganError

PERIOD = 128
SECONDS = 20.0
#: Panel or not, browsers, whether somebody floods the socket.
CASES = ((False, 0, False), (True, 1, False), (True, 4, False), (True, 4, True))
_START_S = 60.0
_SETTLE_S = 2.0
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
#: Counts the pictures that a page gets.
_COUNT = """
const Plain = WebSocket;
window.pictures = 0;
window.WebSocket = class extends Plain {
  constructor(...given) {
    super(...given);
    this.addEventListener("message", ({ data }) => (window.pictures += typeof data !== "string"));
  }
};
"""


def run() -> list[dict[str, Any]]:
    """Measure, print a line for each case, return the rows."""
    import playwright  # noqa: F401  where the browser is missing this room is skipped by name
    import websockets  # noqa: F401

    try:
        with rigs.Rig() as rig:
            rows = measure(rig)
    except rigs.Unavailable as problem:
        print(f"skipped: {problem}")
        return [{"measure": "panel", "skipped": str(problem)}]
    for row in rows:
        print(describe(row), flush=True)
    return rows


def measure(
    rig: rigs.Rig, seconds: float = SECONDS, cases: Sequence[tuple[bool, int, bool]] = CASES, preset: str = "clean"
) -> list[dict[str, Any]]:
    """Every case, so long each.

    Returns
    -------
    list of dict
        What `rtgan.bench.jack.summary` says of the callbacks (``load_percent``, ``lost_own``), and ``panel``,
        ``browsers``, ``flood``, ``panel_cpu_percent`` of one core, ``pictures_per_s`` of the slowest browser,
        ``first_paint_ms`` (median of the browsers).
    """
    rows = []
    with rigs.server(rig, PERIOD) as env:
        env["RTGAN_CONFIG_DIR"] = str(rig.folder)
        for panel, browsers, flood in cases:
            target = rig.folder / "stamps"
            stalls = rigs.Stalls(rig)
            try:
                report = _run(rig, env, preset, seconds, target, panel, browsers, flood)
            finally:
                found, _ = stalls.close()
            summary = rigs.summary(rigs.HOST, PERIOD, 0, [(rigs.Session.read(target), found, report)])
            rows.append({**summary, **report, "measure": "panel", "panel": panel, "browsers": browsers, "flood": flood})
    return rows


def describe(row: dict[str, Any]) -> str:
    """A row as a person reads it."""
    load = row["load_percent"]
    text = f"callback p99.9 {load['p99.9']:.1f} % max {load['max']:.1f} % of the period, {row['lost_own']} blocks lost"
    text += f" ({row['lost_in_stalls']} more while the machine stood still)"
    if not row["panel"]:
        return f"no panel: {text}"
    who = f"{row['browsers']} browser{'s' if row['browsers'] > 1 else ''}{' and a flood' if row['flood'] else ''}"
    return (
        f"{who}: {text}; panel process {row['panel_cpu_percent']:.1f} % of a core, {row['pictures_per_s']:.1f} "
        f"pictures/s, first paint {row['first_paint_ms']:.0f} ms"
    )


def _run(
    rig: rigs.Rig, env: dict[str, str], preset: str, seconds: float, target: Path, panel: bool, browsers: int,
    flood: bool,
) -> dict[str, Any]:  # fmt: skip
    """One case: the host's report, and what the browsers saw."""
    host = rigs.child(env, "panel", "host_session", str(rig.shared), str(target), preset, seconds, panel)
    flooding: subprocess.Popen[str] | None = None
    try:
        assert host.stdin is not None
        url = rigs.next_line(host, _START_S)
        if not url:
            raise RtganError(f"the host failed: {rigs.last_words(host)}")
        with _browsers(url if panel else "", browsers) as pages:
            if flood:
                flooding = rigs.child(env, "panel", "flood_session", url)
            time.sleep(_SETTLE_S)
            before = [page.evaluate("window.pictures") for page in pages]
            begin = time.monotonic()
            host.stdin.write("go\n")
            host.stdin.flush()
            line = rigs.next_line(host, seconds + _START_S)
            took = time.monotonic() - begin
            if not line:
                raise RtganError(f"the host failed: {rigs.last_words(host)}")
            report: dict[str, Any] = json.loads(line)
            seen = [page.evaluate("window.pictures") for page in pages]
            paints = [
                page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") for page in pages
            ]
        if pages:
            report["pictures_per_s"] = min((b - a) / took for a, b in zip(before, seen, strict=True))
            report["first_paint_ms"] = float(np.median(paints))
        return report
    finally:
        for process in (flooding, host):
            if process is not None:
                rigs.end(process)


@contextmanager
def _browsers(url: str, count: int) -> Iterator[list[Any]]:
    """So many browsers that look at the panel, each a process of its own."""
    from playwright.sync_api import Error, sync_playwright

    if not count:
        yield []
        return
    with sync_playwright() as play:
        try:
            opened = [play.chromium.launch(executable_path=shutil.which("chromium"), args=_FLAGS) for _ in range(count)]
        except Error as problem:
            raise rigs.Unavailable(f"there is no browser ({str(problem).splitlines()[0]})") from None
        pages = []
        for browser in opened:
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.add_init_script(_COUNT)
            page.goto(url)
            page.wait_for_selector("#strips .control", state="attached")
            pages.append(page)
        yield pages
        for browser in opened:
            browser.close()


def _cpu_s(process: int) -> float:
    """Processor time that a process has used [Linux]."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def host_session(library: str, target: str, preset: str, seconds: float, with_panel: bool) -> None:
    """Be a host on the JACK server of the environment: say where the panel is, measure once somebody says so."""
    from contextlib import ExitStack

    from rtgan.control.desk import Desk
    from rtgan.host import Host
    from rtgan.panel.link import Panel

    host = Host(preset, input="system", output="system", in_channels=(1,))
    stamped = rigs.Stamped(library, host, seconds + 120)
    with ExitStack() as stack:
        desk = stack.enter_context(Desk(host, inputs=["nobody"]))
        panel = stack.enter_context(Panel(host, desk)) if with_panel else None
        stack.enter_context(host)
        if not host.wait_first_block(_START_S):
            raise RtganError("the audio server does not call back")
        print(panel.url if panel is not None else "none", flush=True)
        sys.stdin.readline()
        process = panel.process if panel is not None else None
        used = _cpu_s(process) if process is not None else 0.0
        report = stamped.measure(seconds, target)
        if process is not None:
            report["panel_cpu_percent"] = 100 * (_cpu_s(process) - used) / seconds
        print(json.dumps(report), flush=True)


def flood_session(url: str) -> None:
    """Send as much to a panel as it takes, and come back whenever it hangs up."""
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect
    from websockets.typing import Origin, Subprotocol

    base, _, token = url.partition("/#")
    while True:
        try:
            with connect(
                base.replace("http", "ws") + "/live",
                subprotocols=[Subprotocol("rtgan"), Subprotocol(f"token.{token}")],
                origin=Origin(base),
            ) as page:
                for k in range(1_000_000_000):
                    page.send(json.dumps({"do": "set", "name": "host.volume_db", "value": -(k % 7)}))
        except (WebSocketException, OSError):
            time.sleep(0.05)
