"""From a peer's MIDI event to what it does to the sound, on a private JACK server.

The peer plays a constant sound to the host, moves a fader that the host listens to, and hears what comes back; JACK
says at which frame both happened. Measured for the native path (a JACK client of our own) and for the polled one
(python-rtmidi), each alone and beside two threads of the host's process that never let go of the interpreter for
long. The peer is JACK-Client, which shares nothing with the host.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rtgan.bench import jack as rigs
from rtgan.errors import RtganError

PERIOD = 256
EVENTS = 300
#: What a polled event may take: two periods and this.
ALLOWED_MORE_MS = 2.0
_PRESET = """\
schema: 2
name: Measured
chain:
- plugin: gain
midi:
- {control: cc 7, target: gain.gain_db, range: [-20, 0]}
"""
_FEWEST_BETWEEN, _MOST_BETWEEN = 4, 12
_START_S = 60.0
_LOST_PERIODS = 100


def run() -> list[dict[str, Any]]:
    """Measure, print a line for each case, return the rows."""
    import jack  # noqa: F401  what the peer needs; where it is missing this room is skipped by name

    try:
        with rigs.Rig() as rig:
            rows = measure(rig)
    except rigs.Unavailable as problem:
        print(f"skipped: {problem}")
        return [{"measure": "control", "skipped": str(problem)}]
    for row in rows:
        print(describe(row), flush=True)
    return rows


def measure(rig: rigs.Rig, events: int = EVENTS, period: int = PERIOD) -> list[dict[str, Any]]:
    """Both paths, idle and busy, so many events each.

    Returns
    -------
    list of dict
        ``path`` ("native", "polled"), ``hogs``, ``events``, ``lost``, ``p50_ms``, ``p99_ms``, ``max_ms``, what is
        ``allowed_ms``; of the native path ``exact`` (share of events that take effect one period later to the sample)
        and ``worst_samples`` (the largest distance from that).
    """
    preset = rig.folder / "measured.yaml"
    preset.write_text(_PRESET, encoding="utf-8")
    rows = []
    with rigs.server(rig, period) as env:
        # The global map and the presets of whoever measures stay out of it.
        env["RTGAN_CONFIG_DIR"] = str(rig.folder)
        for path in ("native", "polled"):
            for hogs in (0, 2):
                stalls = rigs.Stalls(rig)
                try:
                    sent, heard = _run(env, preset, path, hogs, events)
                finally:
                    found, _ = stalls.close()
                rows.append({**summary(path, hogs, period, sent, heard), "stalls": len(found)})
    return rows


def summary(path: str, hogs: int, period: int, sent: Sequence[int], heard: Sequence[int]) -> dict[str, Any]:
    """One row, from the frames at which events were sent and heard; heard at -1: never."""
    late = np.array([b - a for a, b in zip(sent, heard, strict=True) if b >= 0])
    if len(late) == 0:
        raise RtganError("the host has heard no event")
    p50, p99 = np.percentile(late, [50, 99]) / rigs.RATE_HZ * 1000
    row = {
        "measure": "control", "path": path, "hogs": hogs, "period_samples": period, "events": len(sent),
        "lost": len(sent) - len(late), "p50_ms": float(p50), "p99_ms": float(p99),
        "max_ms": float(late.max() / rigs.RATE_HZ * 1000),
        "allowed_ms": 2000 * period / rigs.RATE_HZ + ALLOWED_MORE_MS,
    }  # fmt: skip
    if path == "native":
        row["exact"] = float((late == period).sum() / len(sent))
        row["worst_samples"] = int(np.abs(late - period).max())
    return row


def describe(row: dict[str, Any]) -> str:
    """A row as a person reads it."""
    busy = f"beside {row['hogs']} busy threads" if row["hogs"] else "idle"
    text = f"{row['path']}, {busy}: {row['events']} events, {row['lost']} lost, "
    if "exact" in row:
        text += f"{100 * row['exact']:.1f} % exactly one period late, worst {row['worst_samples']} samples off; "
    return (
        text + f"p50 {row['p50_ms']:.2f} p99 {row['p99_ms']:.2f} max {row['max_ms']:.2f} ms "
        f"(two periods + 2 ms: {row['allowed_ms']:.2f}); {row['stalls']} stalls of the machine"
    )


def _run(env: dict[str, str], preset: Path, path: str, hogs: int, events: int) -> tuple[list[int], list[int]]:
    """Start a host, let the peer play it, end it; frames at which events were sent and heard."""
    peer: subprocess.Popen[str] | None = None
    host = rigs.child(env, "control", "host_session", str(preset), path, hogs)
    try:
        if rigs.next_line(host, _START_S) != "ready":
            raise RtganError(f"the host failed: {rigs.last_words(host)}")
        peer = rigs.child(env, "control", "peer_session", events)
        try:
            out, errors = peer.communicate(timeout=60 + events)
        except subprocess.TimeoutExpired:
            raise RtganError("the peer did not come to an end") from None
        if peer.returncode:
            raise RtganError(f"the peer failed: {rigs.reason(errors)}")
        found = json.loads(out.splitlines()[-1])
        try:
            host.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            raise RtganError("the host did not come to an end") from None
        return found["sent"], found["heard"]
    finally:
        for process in (peer, host):
            if process is not None:
                rigs.end(process)


def host_session(preset: str, path: str, hogs: int) -> None:
    """Be a host on the JACK server of the environment, until standard input ends.

    It has to leave the server in order: for every client that dies the server waits until its time limit, and meanwhile
    nobody new is let in.
    """
    from rtgan.control.desk import Desk
    from rtgan.control.jack import NO_LIBRARY
    from rtgan.host import Host

    class PolledDesk(Desk):
        def _open_jack(self) -> None:
            # As on a machine without JACK's library, where rtmidi brings a copy of its own.
            self.failures["JACK"] = NO_LIBRARY

    def compute() -> None:
        while True:
            sum(range(10000))

    host = Host(preset, input="system", output="system")
    with (PolledDesk if path == "polled" else Desk)(host, inputs=["nobody"]), host:
        if not host.wait_first_block():
            raise RtganError("the audio server does not call back")
        for _ in range(hogs):
            threading.Thread(target=compute, daemon=True).start()
        print("ready", flush=True)
        sys.stdin.read()


def peer_session(events: int, seed: int = 1) -> None:
    """Play the host from outside, and print at which frames events were sent and heard.

    Three clients, so that JACK sees no loop, into which it would put a period of its own.
    """
    import jack

    source, keys, ear = jack.Client("source"), jack.Client("keys"), jack.Client("ear")
    sound, midi = source.outports.register("out"), keys.midi_outports.register("midi_out")
    listens = ear.inports.register("in")
    rng = np.random.default_rng(seed)
    sent: list[int] = []
    heard: list[int] = []
    level, still, wanted = np.float32(np.nan), 0, _MOST_BETWEEN
    silent = 0
    done = threading.Event()

    @source.set_process_callback  # type: ignore[untyped-decorator]
    def play(frames: int) -> None:
        sound.get_array()[:] = 0.25

    @ear.set_process_callback  # type: ignore[untyped-decorator]
    def listen(frames: int) -> None:
        nonlocal level, still, silent, wanted
        block = listens.get_array()
        if len(sent) > len(heard):
            changed = np.flatnonzero(block != level)
            silent += 1
            if len(changed) or silent > _LOST_PERIODS:
                heard.append(ear.last_frame_time + int(changed[0]) if len(changed) else -1)
                still, silent = 0, 0
                wanted = int(rng.integers(_FEWEST_BETWEEN, _MOST_BETWEEN))
        elif len(heard) == events:
            done.set()
        # The ramp of the change before has come to rest.
        rests = bool((block == block[0]).all())
        still = still + 1 if rests else 0
        if rests and len(sent) == len(heard):
            level = block[0]

    @keys.set_process_callback  # type: ignore[untyped-decorator]
    def send(frames: int) -> None:
        nonlocal still
        midi.clear_buffer()
        if still >= wanted and len(sent) == len(heard) < events:
            offset = int(rng.integers(frames))
            midi.write_midi_event(offset, (0xB0, 7, 100 if len(sent) % 2 else 50))
            still = 0
            sent.append(keys.last_frame_time + offset)

    with source, keys, ear:
        ports = [p.name for p in keys.get_ports(is_midi=True, is_input=True)]
        target = next(n for n in ports if n.startswith("rtgan") and n.endswith("midi_in"))
        sound.connect("PortAudio:in_0")
        listens.connect("PortAudio:out_0")
        midi.connect(target)
        complete = done.wait(30 + events)
    if not complete:
        raise RtganError(f"only {len(heard)} of {events} events came to an end")
    print(json.dumps({"sent": sent, "heard": heard}))
