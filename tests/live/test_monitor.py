"""The monitor on a real JACK server, as programs that are not ours record it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from support import ROOT, Jack

pytestmark = [pytest.mark.jack, pytest.mark.slow]

SCRIPT = """
import sys, time
from rtgan import Host
from rtgan.generators.files import sha256_of
from rtgan.presets import Entry, Preset

burn = sys.argv[1]
chain = (Entry(burn, label="late", hashes={"plugin": sha256_of(burn)}),)
with Host(preset=Preset("x", chain, trusted=True), input="system", output="system", monitor=sys.argv[2]) as host:
    print(host.monitor, flush=True)
    sys.stdin.readline()
    host.set("host.monitor_mix", 100)
    sys.stdin.readline()
    print(host.stats().slips, host.stats().warnings, flush=True)
"""
#: The compiler's cache knows the test's plugin by the name under which other tests import it.
BURNING = f"{ROOT}:{ROOT / 'tests'}"
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def capture(server: Jack, folder: Path, monitor: str, port: str) -> tuple[NDArray[np.float32], list[str]]:
    """Dry, wet and monitor on one clock, (samples, 3), the mix turned from dry to wet meanwhile; what was printed."""
    peers = [subprocess.Popen(["jack_simple_client"], env=server.env, **QUIET)]
    host = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(ROOT / "tests" / "burning.py"), monitor],
        env={**server.env, "PYTHONPATH": BURNING}, cwd=folder, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        server.wait_port("PortAudio:in_0")
        server.wait_port("jack_simple_client:output1")
        server.wait_port(port)
        server.connect("jack_simple_client:output1", "PortAudio:in_0")
        file = folder / "capture.wav"
        ports = ["jack_simple_client:output1", "PortAudio:out_0", port]
        recorder = subprocess.Popen(
            ["jack_rec", "-f", str(file), "-d", "4", "-b", "24", *ports], env=server.env, **QUIET
        )  # fmt: skip
        peers.append(recorder)
        server.wait_port("jackrec:input1")
        assert host.stdin is not None
        try:
            recorder.wait(timeout=2)
        except subprocess.TimeoutExpired:
            host.stdin.write("\n")
            host.stdin.flush()
        recorder.wait(timeout=30)
        output, errors = host.communicate("\n", timeout=30)
        assert host.returncode == 0, errors
    finally:
        for process in (*peers, host):
            process.terminate()
            process.wait()
    return soundfile.read(file, dtype="float32")[0], output.splitlines()


def test_the_singer_hears_the_voice_at_once_and_then_the_chain(jack: Callable[..., Jack], tmp_path: Path) -> None:
    frames, output = capture(jack(256, wait=True, playback=4), tmp_path, "3,4", "PortAudio:out_2")
    assert output == ["system, channels 3,4", "0 ()"]
    begin = int(np.flatnonzero(np.abs(frames[:, 1]) > 0.01)[0]) + 4800
    dry, wet, monitor = frames[begin:-1000].T
    assert np.abs(wet[100:] - dry[:-100] / 2).max() <= 2**-22, "the room: the chain, as late as declared"
    own, chain = np.abs(monitor - dry) <= 2**-22, np.abs(monitor - wet) <= 2**-22
    turn = int(np.flatnonzero(~own)[0])
    assert own[:turn].all() and chain[turn + 960 :].all() and 4800 < turn < len(dry) - 4800
    assert np.abs(np.diff(monitor)).max() <= np.abs(np.diff(dry)).max() + 0.3 / 960, "a click"


def test_the_monitor_may_be_another_device(jack: Callable[..., Jack], tmp_path: Path) -> None:
    server = jack(256, wait=True)
    other = subprocess.Popen(["jack_iodelay"], env=server.env, **QUIET)
    try:
        server.wait_port("jack_delay:in")
        frames, output = capture(server, tmp_path, "jack_delay:1", "PortAudio:out_2")
    finally:
        other.terminate()
        other.wait()
    assert output == ["jack_delay, channel 1", "0 ()"]
    begin = int(np.flatnonzero(np.abs(frames[:, 1]) > 0.01)[0]) + 24000
    dry, _, monitor = frames[begin:-1000].T
    # A sine of 200 samples: what its device plays is a sine too, without a step, of the one level and then the other.
    turn = 2 * np.pi / 200
    left = monitor[2:] + monitor[:-2] - 2 * np.cos(turn) * monitor[1:-1]
    assert np.abs(left).max() <= 1e-3, "a click"
    assert np.abs(monitor[:20000]).max() == pytest.approx(np.abs(dry).max(), rel=0.01)
    assert np.abs(monitor[-20000:]).max() == pytest.approx(np.abs(dry).max() / 2, rel=0.01)


def test_what_cannot_be_a_monitor_is_one_sentence(jack: Callable[..., Jack]) -> None:
    server = jack(256)
    for monitor, said in (
        ("3", "system has no output channel 3; it has 1 to 2"),
        ("2", "channel 2 of system cannot be output and monitor at once"),
        ("nothing", "there is no output device 'nothing'; this machine has: 0 system"),
    ):
        done = subprocess.run(
            [sys.executable, str(ROOT / "run_live.py"), "--preset", "bypass", "--monitor", monitor],
            env=server.env, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
