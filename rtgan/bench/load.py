"""What whole chains take of one core on a real JACK server, and what becomes of one beside hogs of others.

The load is that of the audio thread, at the pace of a sound card and with a noisy voice at the input: with everything
playing, with the denoisers doing half of their work, and with the denoisers left out. `watch` is the recogniser alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import Any

from rtgan import presets
from rtgan.bench import jack as rigs
from rtgan.errors import RtganError
from rtgan.events import FULL, LEAN, OUT

PERIOD = 128
SECONDS = 10.0
#: Strips of the third and the last chain, each a whole ``clean``.
SOME, MANY = 4, 8
LEVELS = {"everything": FULL, "denoisers at half rate": LEAN, "denoisers left out": OUT}
#: Beside hogs nobody has priority: a period that such a machine can keep while it is calm.
_SHARED_PERIOD = 1024
_HOGS_PER_CORE = 6
_HOG_S = 5.0
_PATIENCE_S = 60.0
_SETTLE_S = 1.5


def chain(name: str) -> presets.Preset:
    """A factory preset by name; ``N x NAME`` is so many strips of it, all of which hear the first input."""
    count, times, single = name.rpartition(" x ")
    if not times:
        return presets.load(name)
    preset = presets.load(single)
    quiet = tuple(replace(e, params={**e.params, "amount_db": 0.0} if e.plugin == "denoise" else e.params)
                  for e in preset.chain)  # fmt: skip
    made = presets.with_strips(preset, {f"s{k + 1}": ((1,), replace(preset, chain=quiet)) for k in range(int(count))})
    return made.with_values({f"s{k + 1}.level_db": -24.0 for k in range(int(count))})


def run() -> list[dict[str, Any]]:
    """Measure, print a line for each row, return the rows."""
    rows: list[dict[str, Any]] = []
    try:
        with rigs.Rig() as rig:
            for name in ("clean", "podcast", "watch", f"{SOME} x clean"):
                rows += _told(loads(rig, name))
            rows += _told([beside(rig)])
    except rigs.Unavailable as problem:
        rows += _told([{"measure": "load", "skipped": str(problem)}])
    return rows


def _told(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for row in rows:
        print(describe(row), flush=True)
    return rows


def describe(row: dict[str, Any]) -> str:
    """A row as a person reads it."""
    if "skipped" in row:
        return f"skipped: {row['skipped']}"
    if row["measure"] == "load":
        return (
            f"{row['chain']}, {row['plays']}: {row['core_percent']:.1f} % of one core (period {row['period_samples']})"
        )
    after = "never" if row["back_s"] is None else f"{row['back_s']:.1f} s after they had gone"
    delays = ", ".join(f"{when} {row[key]}" for when, key in (
        ("before", "delay_before"), ("within a second after", "delay_after_second"), ("later", "delay_later")
    ))  # fmt: skip
    return (
        f"{row['chain']} beside {row['hogs']} hogs for {_HOG_S:g} s without any priority: {row['most_shed']} plugins "
        f"stepped down, {row['late']} callbacks late; everything played again {after}; delay in samples: {delays}"
    )


def loads(rig: rigs.Rig, name: str, seconds: float = SECONDS) -> list[dict[str, Any]]:
    """A chain's load with everything and, where it has denoisers, with less and without them, so long each."""
    longest_s = len(LEVELS) * seconds + 180
    with rigs.server(rig, PERIOD) as env:
        found = json.loads(_child(env, longest_s, "play", str(rig.shared), name, str(seconds)).splitlines()[-1])
    return [
        {"measure": "load", "chain": name, "plays": plays, "core_percent": percent, "period_samples": PERIOD}
        for plays, percent in found.items()
    ]  # fmt: skip


def play(library: str, name: str, seconds: str) -> None:
    """In a process of its own: print what a chain takes at each of `LEVELS`, or at the first without denoisers."""
    from rtgan.host import Host

    host = Host(chain(name), input="system", output="system", shed=False)
    # Owns what the callbacks hear.
    stamped = rigs.Stamped(library, host, len(LEVELS) * (float(seconds) + _SETTLE_S) + 30)
    denoisers = [item.label for item in host._graph.chain if item.plugin.id == "denoise"]
    found = {}
    with host:
        if not host.wait_first_block():
            raise RtganError("the audio server does not call back")
        for plays, level in list(LEVELS.items())[: None if denoisers else 1]:
            for label in denoisers:
                host.engine.step(host._graph, label, level)
            time.sleep(_SETTLE_S)
            host.stats()
            stamped.measure(float(seconds), os.devnull)
            found[plays] = 100 * host.stats().load
    print(json.dumps(found), flush=True)


def beside(rig: rigs.Rig, name: str = f"{MANY} x clean", seconds: float = _HOG_S) -> dict[str, Any]:
    """A heavy chain beside processes that compute and nothing else, and the delay that `jack_iodelay` finds.

    Returns
    -------
    dict
        ``most_shed`` plugins that had stepped down at a time, ``late`` callbacks, ``back_s`` from the hogs' end until
        everything played again, and the delay through server and host in samples: ``delay_before``,
        ``delay_after_second`` (one second after the hogs' end) and ``delay_later``.
    """
    if shutil.which("jack_iodelay") is None or shutil.which("jack_connect") is None:
        raise rigs.Unavailable("there is no jack_iodelay (Debian: apt-get install jack-tools)")
    hogs: list[subprocess.Popen[Any]] = []
    count = _HOGS_PER_CORE * (os.cpu_count() or 1)
    with rigs.server(rig, _SHARED_PERIOD, real_time=False) as env:
        host = subprocess.Popen(
            [sys.executable, "-c", _CODE, "watch", name], env=env, stdout=subprocess.PIPE, text=True
        )
        meter = subprocess.Popen(
            ["stdbuf", "-oL", "jack_iodelay"], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        seen, delays = _Lines(host), _Lines(meter)
        try:
            seen.until(lambda lines: bool(lines))
            for source, target in (("jack_delay:out", "PortAudio:in_0"), ("PortAudio:out_0", "jack_delay:in")):
                try:
                    subprocess.run(
                        ["jack_connect", source, target], env=env, check=True, capture_output=True, timeout=_PATIENCE_S
                    )
                except subprocess.SubprocessError:
                    raise RtganError(f"{source} cannot be connected to {target}") from None
            delays.until(lambda lines: _delay(lines) is not None)
            seen.until(lambda lines: json.loads(lines[-1][1])["shed"] == 0)
            before = _delay(delays.lines)
            late = json.loads(seen.lines[-1][1])["late"]
            began = time.monotonic()
            hogs += [subprocess.Popen(["sh", "-c", "ulimit -t 60; while :; do :; done"]) for _ in range(count)]
            time.sleep(seconds)
            for hog in hogs:
                hog.kill()
            gone = time.monotonic()
            time.sleep(1.0)
            second = _delay(delays.lines, gone)
            during = [json.loads(text)["shed"] for at, text in seen.lines if at >= began]
            seen.until(lambda lines: json.loads(lines[-1][1])["shed"] == 0, patient=False)
            back = next((at for at, text in seen.lines if at > gone and json.loads(text)["shed"] == 0), None)
            whole = time.monotonic()
            time.sleep(1.0)
            return {
                "measure": "beside",
                "chain": name,
                "hogs": count,
                "most_shed": max(during),
                "late": json.loads(seen.lines[-1][1])["late"] - late,
                "back_s": None if back is None else back - gone,
                "delay_before": before,
                "delay_after_second": second,
                "delay_later": _delay(delays.lines, whole),
            }
        finally:
            for process in (*hogs, meter, host):
                rigs.end(process)


def watch(name: str) -> None:
    """In a process of its own: play a chain and print how it goes, until the end."""
    from rtgan.host import Host

    with Host(chain(name), input="system", output="system") as host:
        if not host.wait_first_block():
            raise RtganError("the audio server does not call back")
        while True:
            stats = host.stats()
            print(json.dumps({"shed": len(stats.shed), "late": stats.late}), flush=True)
            time.sleep(0.05)


class _Lines:
    """What a child prints, line by line, with the time at which it came."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.lines: list[tuple[float, str]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append((time.monotonic(), line))

    def until(self, condition: Any, patient: bool = True) -> None:
        """Wait for what has been printed to be so."""
        deadline = time.monotonic() + _PATIENCE_S
        while not condition(self.lines):
            if time.monotonic() > deadline or self._process.poll() is not None:
                if not patient:
                    return
                raise RtganError("a process of the measurement has ended, or does not come to what is waited for")
            time.sleep(0.02)


def _delay(lines: list[tuple[float, str]], since: float = 0.0) -> int | None:
    """The last delay that was measured after a time, in whole samples; None if none was."""
    for at, text in reversed(lines):
        if at > since and (found := re.match(r"\s*(\d+\.\d+) frames", text)):
            return round(float(found[1]))
    return None


_CODE = "import sys; from rtgan.bench import load; getattr(load, sys.argv[1])(*sys.argv[2:])"


def _child(env: dict[str, str], longest_s: float, *arguments: str) -> str:
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CODE, *arguments], env=env, capture_output=True, text=True, timeout=longest_s
        )
    except subprocess.TimeoutExpired:
        raise RtganError("the host did not come to an end") from None
    if done.returncode:
        raise RtganError(f"the host failed: {rigs.reason(done.stderr)}")
    return done.stdout
