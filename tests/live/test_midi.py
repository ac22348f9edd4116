"""MIDI on a real JACK server: peers that are not ours play the real ``rtgan``."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mido
import pytest
from support import ROOT, Jack

from rtgan import bindings
from rtgan.control.ports import Polled

pytestmark = [pytest.mark.jack, pytest.mark.slow]

PRESET = """\
schema: 2
name: Played
chain:
- plugin: gain
midi:
- {control: cc 7, target: gain.gain_db, range: [-20, 0]}
- {control: note 60, target: gain.bypass}
"""
#: Starts the command line beside threads that never let go of the interpreter for long.
BUSY = """
import sys, threading
from rtgan.cli import main
def busy():
    while True:
        sum(range(10000))
for _ in range(2):
    threading.Thread(target=busy, daemon=True).start()
sys.exit(main())
"""
#: Sends messages, given as lines of hex, through mido; a line "wait" is a pause.
MIDO_PEER = """
import sys, time, mido
mido.set_backend("mido.backends.rtmidi/UNIX_JACK")
deadline = time.monotonic() + 20
while not (names := [n for n in mido.get_output_names() if "midi_in" in n and n.startswith("rtgan")]):
    assert time.monotonic() < deadline, mido.get_output_names()
    time.sleep(0.1)
with mido.open_output(names[0]) as port:
    time.sleep(0.3)
    for line in sys.stdin.read().splitlines():
        if line == "wait":
            time.sleep(0.003)
        else:
            port.send(mido.Message.from_hex(line))
    time.sleep(0.5)
"""
#: A motor fader and a lit pad: waits for the place of the fader, moves it, presses the pad, waits for its light.
LIT_PEER = """
import time, mido
mido.set_backend("mido.backends.rtmidi/UNIX_JACK")
found = []
def wait(wanted):
    deadline = time.monotonic() + 30
    while wanted not in found:
        assert time.monotonic() < deadline, (wanted, found)
        found.extend(m.hex() for m in lights.iter_pending())
        time.sleep(0.01)
with mido.open_input("lights", virtual=True) as lights:
    wait("B0 07 7F")
    (name,) = [n for n in mido.get_output_names() if n.startswith("rtgan") and "midi_in" in n]
    with mido.open_output(name) as keys:
        keys.send(mido.Message.from_hex("B0 07 20"))
        time.sleep(0.5)
        keys.send(mido.Message.from_hex("90 3C 40"))
        wait("90 3C 7F")
print(*found, sep="\\n")
"""


def needed(program: str) -> str:
    """Where a peer lies, in the virtual environment or elsewhere; without it skip, in CI fail."""
    found = shutil.which(program, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if found is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{program} is not installed")
    return str(found)


@contextmanager
def playing(jack: Jack, folder: Path, *arguments: str, code: str = "") -> Iterator[subprocess.Popen[str]]:
    """``rtgan live`` with the preset above, until the end of the block."""
    (folder / "played.yaml").write_text(PRESET)
    start = ["-c", code] if code else ["-m", "rtgan"]
    host = subprocess.Popen(
        [sys.executable, *start, "live", "--preset", "played.yaml", "--input", "system", "--output", "system",
         "--midi-in", "peer", *arguments],
        env={**jack.env, "PYTHONPATH": str(ROOT)}, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    try:
        jack.wait_port("PortAudio:out_0", 90)
        jack.wait_port("rtgan:midi_in")
        time.sleep(0.5)
        yield host
    finally:
        host.send_signal(signal.SIGINT)
        output, _ = host.communicate(timeout=60)
    # A server that waits for late clients can stall for good when one of them, a peer, has left just before.
    assert host.returncode == 0 or (jack.wait and "does not answer: left without it" in output), output


def test_on_jack_an_event_takes_effect_one_period_later_to_the_sample(
    jack: Callable[..., Jack], tmp_path: Path
) -> None:
    pytest.importorskip("jack", reason="the peer is JACK-Client")
    server = jack(256, wait=True)
    with playing(server, tmp_path, code=BUSY):
        peer = subprocess.run(
            [sys.executable, str(ROOT / "tests" / "control" / "jack_peer.py"), "30", "1"],
            env=server.env, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    found = json.loads(peer.stdout)
    assert found["complete"], peer.stderr
    late = [b - a for a, b in zip(found["sent"], found["heard"], strict=True)]
    assert len({s % 256 for s in found["sent"]}) > 15, "at offsets all over the period"
    # A machine that stalls may lose a period here and there; nothing else moves an event by a sample.
    assert sum(x == 256 for x in late) >= 28, late


def mixed() -> tuple[list[str], list[str]]:
    """464 messages of every kind, the last 64 of them in one burst; and what arrives of them."""
    lines: list[str] = []
    for k in range(40):
        lines += [
            f"90 {k + 30:02X} 40", f"80 {k + 30:02X} 00", f"B0 07 {3 * k:02X}", f"B0 4A {k:02X}", f"E0 {k:02X} 40",
            f"C1 {k:02X}", "F8", f"D0 {k:02X}", f"A0 3C {k:02X}", f"F0 7D {k:02X} F7",
        ]  # fmt: skip
    burst = [f"B2 10 {k:02X}" for k in range(64)]
    sent = [x for k, line in enumerate(lines) for x in ([line] if k % 4 else [line, "wait"])] + burst
    expected = [bytes.fromhex(x).hex(" ") for x in lines + burst if not x.startswith("F0")]
    assert len(lines) + len(burst) == 464
    return sent, expected


def test_464_mixed_messages_and_a_burst_arrive_complete_and_in_order(jack: Callable[..., Jack], tmp_path: Path) -> None:
    server = jack(256, wait=True)
    sent, expected = mixed()
    with playing(server, tmp_path, "--telemetry", "telemetry.jsonl"):
        subprocess.run([sys.executable, "-c", MIDO_PEER], input="\n".join(sent), env=server.env, text=True, check=True,
                       timeout=60)  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "telemetry.jsonl").read_text().splitlines()]
    assert [line["bytes"] for line in lines if line["kind"] == "midi"] == expected


def test_a_recorded_performance_is_replayed_bit_for_bit(
    jack: Callable[..., Jack], tmp_path: Path, cli: Callable[..., Any]
) -> None:
    server = jack(256)
    sound = subprocess.Popen(
        ["jack_simple_client"], env=server.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with playing(server, tmp_path, "--record", "take"):
            server.wait_port("jack_simple_client:output1")
            server.connect("jack_simple_client:output1", "PortAudio:in_0")
            subprocess.run([sys.executable, "-c", MIDO_PEER], input="\n".join(mixed()[0]), env=server.env, text=True,
                           check=True, timeout=60)  # fmt: skip
    finally:
        sound.terminate()
        sound.wait()
    done = cli("replay", tmp_path / "take")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "identical to what was heard" in done.stdout


def received(ports: Polled, until: Callable[[list[bytes]], bool], seconds: float = 10.0) -> list[bytes]:
    found: list[bytes] = []
    deadline = time.monotonic() + seconds
    while not until(found):
        assert time.monotonic() < deadline, found
        found += [m.data for _, m in ports.poll()]
        time.sleep(0.001)
    return found


def test_polled_ports_with_a_c_sequencer_hot_plug_and_reconnection(
    jack: Callable[..., Jack], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = jack(256)
    monkeypatch.setenv("JACK_DEFAULT_SERVER", server.name)

    def sequencer() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["jack_midiseq", "Sequencer", "24000", "0", "60", "8000", "12000", "63", "8000"],
            env=server.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    ports = Polled(inputs=["sequencer"])
    try:
        assert "ALSA" in ports.failures or os.path.exists("/dev/snd/seq"), "a backend that fails is named"
        assert any(name.endswith("midi_in") for name in server.ports()), "the virtual port"
        assert ports.ports == ["rtgan"]
        for _ in range(2):  # plugged in, out, and in again
            player = sequencer()
            server.wait_port("Sequencer:out")
            deadline = time.monotonic() + 10
            while not ports.scan():
                assert time.monotonic() < deadline
            assert ports.ports[1:] == ["Sequencer:out"], "the same port, by its name"
            assert b"\x90\x3c\x40" in received(ports, lambda f: b"\x90\x3c\x40" in f and b"\x80\x3f\x40" in f)
            player.terminate()
            player.wait()
            while "Sequencer:out" in server.ports():
                time.sleep(0.05)
            assert ports.scan()
    finally:
        ports.close()


def test_the_ports_the_monitor_and_learning(jack: Callable[..., Jack], tmp_path: Path, cli: Callable[..., Any]) -> None:
    server = jack(512)
    env = {**server.env, "RTGAN_CONFIG_DIR": str(tmp_path)}
    listed = cli("midi", "ports", env=env)
    assert listed.returncode == 0, listed.stderr
    assert "our own: rtgan" in listed.stdout
    assert "Traceback" not in listed.stderr

    def beside(*arguments: str) -> str:
        process = subprocess.Popen(
            [sys.executable, "-m", "rtgan", *arguments], env=env, cwd=ROOT, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        server.wait_port("rtgan:midi_in")
        lines = ["F8", "B0 79 00", "B2 15 20", "B2 15 21", "wait", "90 3C 40"]
        subprocess.run([sys.executable, "-c", MIDO_PEER], input="\n".join(lines), env=env, text=True, check=True,
                       timeout=60)  # fmt: skip
        return process.communicate(timeout=60)[0]

    seen = beside("midi", "monitor", "--seconds", "6")
    assert "channel  3  control 21 33" in seen
    assert "channel  1  note on 60 64" in seen
    assert "clock" not in seen
    told = beside("midi", "learn", "host.volume_db", "--mode", "pickup", "--seconds", "20")
    assert "cc 21 on channel 3 moves host.volume_db (pickup)" in told, told
    (learned,) = bindings.load_map(tmp_path / "midi.yaml")
    assert (learned.control.text, learned.control.channel, learned.mode) == ("cc 21", 3, "pickup")


def test_a_motor_fader_and_a_light_are_told_and_nothing_echoes(jack: Callable[..., Jack], tmp_path: Path) -> None:
    server = jack(256)
    with playing(server, tmp_path, "--midi-out", "lights"):
        peer = subprocess.run(
            [sys.executable, "-c", LIT_PEER], env=server.env, text=True, capture_output=True, timeout=60
        )
    assert peer.returncode == 0, peer.stderr
    told = peer.stdout.split("\n")
    assert "90 3C 00" in told[: told.index("90 3C 7F")], "dark before it is pressed"
    assert "B0 07 20" not in told, "what a control sent itself is not sent back"


def test_a_file_player_and_a_clock_that_are_not_ours(jack: Callable[..., Jack], tmp_path: Path) -> None:
    player, clock = needed("mido-play"), needed("jack_midi_clock")
    server = jack(256)
    lines = ["c0 05", "b0 07 40", *(f"{status} {48 + k:02x} 40" for k in range(8) for status in ("90", "80"))]
    file = mido.MidiFile(tracks=[mido.MidiTrack(mido.Message.from_hex(line, time=24) for line in lines)])
    file.save(tmp_path / "scale.mid")

    def heard() -> list[str]:
        # The host may be in the middle of its last line.
        whole = (tmp_path / "telemetry.jsonl").read_text().rpartition("\n")[0].splitlines()
        return [event["bytes"] for event in map(json.loads, whole) if event["kind"] == "midi"]

    def within(seconds: float, holds: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + seconds
        while not (held := holds()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return held

    def arrives() -> bool:
        """Play the file; whether all of it arrives, in order. The player says besides that all notes are off."""
        before = len(heard())
        subprocess.run(
            [player, "-o", "rtgan:midi_in", str(tmp_path / "scale.mid")], check=True, capture_output=True,
            timeout=60, env={**server.env, "MIDO_BACKEND": "mido.backends.rtmidi/UNIX_JACK"},
        )  # fmt: skip
        return within(5, lambda: [x for x in heard()[before:] if x in lines] == lines)

    def beats() -> bool:
        """Let the clock run; whether its start, more than a beat, and its stop arrive."""
        before = len(heard())

        def since() -> str:
            return " ".join(x for x in heard()[before:] if x in ("fa", "f8", "fc"))

        server.transport("play")
        begun = within(5, lambda: since().count("f8") >= 30)
        server.transport("stop")
        return begun and within(5, lambda: re.fullmatch("(f8 )*fa( f8){24,} fc( f8)*", since()) is not None)

    with playing(server, tmp_path, "--telemetry", "telemetry.jsonl"):
        # A server that does not wait for late clients loses what was sent in a period in which the machine stood
        # still; one that waits throws everybody out when the player leaves without a word.
        assert any(arrives() for _ in range(3)), heard()
        master = subprocess.Popen([clock, "-b", "120", "rtgan:midi_in"], env=server.env, stdout=subprocess.DEVNULL)
        try:
            server.wait_port("jack_midi_clock:mclk_out")
            assert any(beats() for _ in range(3)), heard()
        finally:
            master.terminate()
            master.wait()
