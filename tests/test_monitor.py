"""A second output with a mix of its own: dry for the singer, wet for the room."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from planted import Delay
from support import speechlike

from rtgan import Host, events
from rtgan.engine import HOST_PARAMS, Engine
from rtgan.errors import UsageError
from rtgan.events import Record
from rtgan.graph import ChainItem, Graph
from rtgan.host import _monitor_parts
from rtgan.plugin import plugin_class

RATE = 48000
SOUND = (0.2 * np.sin(np.arange(RATE) * 0.02)).astype(np.float32)
Frames = NDArray[np.float32]


def play(*moves: tuple[int, str, float], sound: Frames = SOUND, block: int = 128, drive_db: float = 0.0) -> Frames:
    """Output in the columns 0 and 1, monitor in 3, of a chain that is 100 samples late and 6 dB softer."""
    engine = Engine(RATE, 1, device_out=4, out_map=(0, 1), monitor_map=(3,))
    gain = ChainItem(plugin_class("gain")(), {"gain_db": -6.0 + drive_db})
    engine.publish(Graph([ChainItem(Delay()), gain], RATE, 1024, 1))
    for when, name, value in moves:
        if name == "panic":
            engine.send(Record(events.PANIC, when))
        else:
            engine.set_param(None, HOST_PARAMS.index(name), value, when)
    out = [engine.render(sound[k : k + block, None]) for k in range(0, len(sound), block)]
    assert engine.memory_intact
    whole = np.concatenate(out)
    assert not whole[:, 2].any() and np.array_equal(whole[:, 0], whole[:, 1])
    return whole


WET = np.concatenate([np.zeros(100, np.float32), SOUND[:-100]]) * np.float32(10 ** (-6 / 20))


def test_the_monitor_hears_the_input_without_delay_or_the_chain_or_both() -> None:
    out = play()
    assert np.array_equal(out[:, 3], SOUND), "every bit, at once"
    assert np.allclose(out[:, 0], WET, atol=1e-6)
    assert np.allclose(play((0, "monitor_mix", 100.0))[2000:, 3], WET[2000:], atol=1e-6)
    both = play((0, "monitor_mix", 25.0), (0, "monitor_db", -20.0))[2000:, 3]
    assert np.allclose(both, (0.075 * SOUND + 0.025 * WET)[2000:], atol=1e-6)


def test_volume_and_mute_are_the_rooms_panic_is_everybodys_and_nothing_clicks() -> None:
    out = play((5000, "mute", 1.0), (9000, "monitor_mix", 60.0), (12000, "monitor_db", -60.0),
               (16000, "monitor_db", 0.0), (20000, "volume_db", -60.0), (30000, "panic", 1.0))  # fmt: skip
    assert not out[6000:, 0].any()
    assert np.array_equal(out[:9000, 3], SOUND[:9000])
    assert not out[13200:16000, 3].any() and np.abs(out[30236:30244, 3]).max() < 1e-3
    assert np.abs(out[19000:30000, 3]).max() > 0.05
    assert np.abs(np.diff(out[:30000, 3])).max() <= 0.2 * 0.02 * 1.3
    # Panic cuts within 5 ms.
    assert np.abs(np.diff(out[:, 3])).max() <= 0.2 * 0.02 + 0.2 / 240


def test_the_ears_of_the_singer_are_guarded_on_their_own() -> None:
    out = play((0, "monitor_mix", 100.0), (0, "monitor_db", 12.0), drive_db=24.0)
    assert 0.9 < np.abs(out[:, 3]).max() <= 10 ** (-0.1 / 20)
    loud = play((0, "monitor_db", 12.0), sound=4 * SOUND)
    assert np.abs(loud[:, 3]).max() <= 10 ** (-0.1 / 20)
    assert np.abs(loud[:, 0]).max() < 0.5, "and nobody else is turned down for them"


def test_no_block_size_shows_in_a_single_bit() -> None:
    moves = ((777, "monitor_mix", 60.0), (5000, "monitor_db", 6.0), (9001, "mute", 1.0), (20000, "panic", 1.0))
    first = play(*moves, block=1)
    for block in (64, 997, 1024):
        assert np.array_equal(play(*moves, block=block).view(np.int32), first.view(np.int32))


def test_two_channels_for_one_ear_are_averaged() -> None:
    engine = Engine(RATE, 2, device_out=2, out_map=(0,), monitor_map=(1,))
    engine.publish(Graph([], RATE, 1024, 2))
    stereo = np.stack([SOUND, -0.5 * SOUND], 1)[:1024]
    assert np.allclose(engine.render(np.ascontiguousarray(stereo)), stereo.mean(axis=1, keepdims=True), atol=1e-7)


def test_what_a_monitor_may_be_called() -> None:
    assert _monitor_parts("3,4") == ("", (3, 4))
    assert _monitor_parts("USB phones") == ("USB phones", ())
    assert _monitor_parts("USB: phones:2") == ("USB: phones", (2,))
    assert _monitor_parts("HDA Intel (hw:0,0)") == ("HDA Intel (hw:0,0)", ())
    for wrong in ("", ":1", " :1,2"):
        with pytest.raises(UsageError, match="is no monitor; write channels such as 3,4, a device, or DEVICE:1,2"):
            _monitor_parts(wrong)


def test_without_a_device_or_a_monitor_it_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="a monitor needs an audio device, and there is none"):
        Host(preset="bypass", source=speechlike(1.0)[None], monitor="3,4")
    host = Host(preset="bypass", source=speechlike(1.0)[None])
    with pytest.raises(UsageError, match=r"host.monitor_mix needs a monitor, and there is none; begin with --monitor"):
        host.set("host.monitor_mix", 50)
    assert "host.monitor_db" not in host.values and "host.monitor_db" not in host.params
