"""The one door, on a host that plays to the built-in clocked device."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import speechlike

from rtgan import Host, bindings, setlist
from rtgan.bindings import Binding, parse_control
from rtgan.control.desk import Clock, Desk
from rtgan.control.feedback import Feedback
from rtgan.presets import Preset
from rtgan.setlist import SetList, Slot

PRESET = """\
schema: 2
name: {name}
chain:
- plugin: gain
midi:
- {{control: cc 7, target: gain.gain_db}}
snapshots:
- name: Quiet
  values: {{gain.gain_db: -20}}
"""


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    folder = Path(os.environ["RTGAN_CONFIG_DIR"]) / "presets"
    folder.mkdir(parents=True)
    for name in ("one", "two", "three"):
        (folder / f"{name}.yaml").write_text(PRESET.format(name=name.title()))
    setlist.save(SetList((Slot("one", 0), Slot("two", 1), Slot("three", 1, 2 * 128 + 3))))
    keys = {"panic": "note 1", "next": "note 2", "previous": "note 3", "record": "note 4", "mute": "note 5",
            "volume_db": "cc 8", "snapshot": "cc 9", "marker": "note 6"}  # fmt: skip
    bindings.save_map([Binding(parse_control(c), (f"host.{t}",), "toggle" if c.startswith("note") else "absolute")
                       for t, c in keys.items()])  # fmt: skip
    host = Host(preset="one", source=speechlike(30.0)[None])
    with Desk(host, ports=False, takes=tmp_path / "takes") as made, host:
        assert host.wait_first_block()
        yield made


def press(desk: Desk, number: int) -> None:
    for velocity in (127, 0):
        assert desk.host.engine.midi(bytes([0x90, number, velocity]))


def test_program_changes_with_banks_and_the_set_list(desk: Desk) -> None:
    host = desk.host
    host.engine.midi(b"\xc0\x01")
    wait_for(lambda: host.preset.name == "Two")
    for message in (b"\xb0\x00\x02", b"\xb0\x20\x03", b"\xc0\x01"):
        host.engine.midi(message)
    wait_for(lambda: host.preset.name == "Three")
    press(desk, 2)
    wait_for(lambda: host.preset.name == "One")
    press(desk, 3)
    wait_for(lambda: host.preset.name == "Three")
    host.engine.midi(b"\xc0\x63")
    assert host.stats().warnings == (), "a program that calls nothing changes nothing"


def test_the_global_map_survives_a_change_of_preset_and_the_presets_own_map_works_in_each(desk: Desk) -> None:
    host = desk.host
    press(desk, 5)
    host.engine.midi(b"\xb0\x08\x00")
    host.engine.midi(b"\xb0\x07\x7f")
    wait_for(lambda: (host.values["host.mute"], host.values["gain.gain_db"]) == (1, 24))
    desk.act("load two")
    wait_for(lambda: host.preset.name == "Two")
    assert (host.values["host.mute"], host.values["host.volume_db"], host.values["gain.gain_db"]) == (1, -60, 0)
    wait_for(lambda: not host._waiting and len(host._adopted) == 2)
    host.engine.midi(b"\xb0\x07\x00")
    press(desk, 5)
    wait_for(lambda: (host.values["host.mute"], host.values["gain.gain_db"]) == (0, -60))


def test_snapshots_panic_and_recording(desk: Desk, tmp_path: Path) -> None:
    host = desk.host
    desk.act("snapshot", 1)
    wait_for(lambda: host.values["gain.gain_db"] == -20)
    press(desk, 4)
    wait_for(lambda: host.recording is not None)
    time.sleep(0.3)
    press(desk, 1)
    time.sleep(0.3)
    press(desk, 4)
    wait_for(lambda: host.recording is None)
    (take,) = (tmp_path / "takes").glob("take-*.events.jsonl")
    assert '"panic": true' in take.read_text()
    desk.act("load nothing")
    wait_for(lambda: "there is no preset 'nothing'" in " ".join(host.stats().warnings))
    assert host.running


def test_a_preset_is_heard_as_soon_as_it_is_saved_and_a_broken_one_is_not(desk: Desk) -> None:
    host = desk.host
    desk.act("load two")
    wait_for(lambda: host.preset.name == "Two")
    time.sleep(0.6)  # until the watch has found the file
    file = host.preset.path
    assert file is not None
    text = file.read_text()
    file.write_text(text.replace("plugin: gain", "plugin: gain\n  params: {gain_db: -7}"))
    wait_for(lambda: host.values["gain.gain_db"] == -7)
    file.write_text(text.replace("plugin: gain", "plugin: gone"))
    wait_for(lambda: "two.yaml:4" in " ".join(host.stats().warnings))
    assert host.values["gain.gain_db"] == -7
    desk.act("load one")
    wait_for(lambda: host.preset.name == "One")
    file.write_text(text)
    time.sleep(1.0)
    assert host.preset.name == "One", "only what plays is watched"


def test_a_storm_of_program_changes_ends_with_the_last(desk: Desk) -> None:
    for k in range(200):
        desk.host.engine.midi(bytes([0xC0, k % 2]))
    desk.host.engine.midi(b"\xc0\x01")
    wait_for(lambda: desk.host.preset.name == "Two" and desk._work.empty())
    assert desk.host.stats().faults == {"gain": 0}


def test_what_a_key_of_a_preset_holds_is_let_go_with_the_preset(desk: Desk) -> None:
    host, folder = desk.host, Path(os.environ["RTGAN_CONFIG_DIR"]) / "presets"
    held = PRESET.format(name="Held").replace(
        "- {control: cc 7", "- {control: note 60, target: host.mute, mode: momentary}\n- {control: cc 7"
    )
    (folder / "held.yaml").write_text(held)
    host.load("held")
    time.sleep(0.1)
    assert host.engine.midi(b"\x90\x3c\x40")
    wait_for(lambda: host.values["host.mute"] == 1)
    host.load("held")
    time.sleep(0.2)
    assert host.values["host.mute"] == 1, "the same key of the same preset is still held"
    host.load("two")
    wait_for(lambda: host.values["host.mute"] == 0)


def test_a_bad_map_on_reload_keeps_the_one_in_force(desk: Desk) -> None:
    bindings.map_path().write_text("schema: 1\nmidi: [{control: cc 900, target: host.mute}]\n")
    with pytest.raises(Exception, match=r"midi\.yaml:2"):
        desk.reload()
    press(desk, 5)
    wait_for(lambda: desk.host.values["host.mute"] == 1)


def test_nothing_that_fails_ends_midi(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    host = desk.host

    def broken(*anything: object) -> bool:
        raise ValueError("a driver went mad")

    def failures() -> int:
        return sum("a driver went mad" in w for w in host.stats().warnings)

    with monkeypatch.context() as patch:
        patch.setattr(desk._feedback, "_send", broken)
        patch.setattr(desk.clock, "feed", broken)
        patch.setattr(desk, "_on_message", broken)
        desk.on_change(broken)
        host.engine.midi(b"\xfa")
        desk._feedback.queue(b"\xb0\x01\x01")
        host.set("host.volume_db", -3)
        wait_for(lambda: failures() == 2)
        patch.setattr(desk, "_scan", broken)
        desk._guarded("the search for MIDI ports", desk._rescan)
        assert failures() == 3
        for _ in range(3):
            desk._guarded("the search for MIDI ports", desk._rescan)
        assert failures() == 3, "said once"
    desk.on_change(lambda name, value: None)
    sent: list[bytes] = []
    monkeypatch.setattr(desk._feedback, "_send", lambda message, port: sent.append(message))
    desk._feedback.queue(b"\xb0\x02\x02")
    host.engine.midi(b"\xc0\x01")
    wait_for(lambda: host.preset.name == "Two" and b"\xb0\x02\x02" in sent)
    assert host.stats().problems == ()


def test_a_new_port_keeps_nobody_waiting_for_a_preset(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[str] = []
    begun, go = threading.Event(), threading.Event()

    def slowly(preset: Preset) -> Preset:
        begun.set()
        assert go.wait(60)
        return preset

    building = threading.Thread(target=desk.host.change, args=(slowly,))
    building.start()
    try:
        assert begun.wait(20)
        with monkeypatch.context() as patch:
            patch.setattr(desk, "_scan", lambda: True)
            looking = threading.Thread(target=desk._rescan)
            looking.start()
            looking.join(20)
            assert not looking.is_alive(), "it waits"
    finally:
        go.set()
        building.join()
    monkeypatch.setattr(desk.host, "prepare", lambda engine, graph, preset: prepared.append(preset.name))
    monkeypatch.setattr(desk, "_scan", lambda: False)
    for _ in range(3):
        desk._rescan()
    assert prepared == ["One"], "made up for once"


def test_one_message_that_fails_keeps_no_other_back(desk: Desk) -> None:
    sent: list[bytes] = []

    def send(message: bytes, port: str) -> None:
        if not sent:
            sent.append(b"")
            raise OSError("gone")
        sent.append(message)

    feedback = Feedback(send)
    for number in (1, 2, 3):
        feedback.queue(bytes([0xB0, number, 0]))
    with pytest.raises(OSError, match="gone"):
        feedback.flush()
    assert sent[1:] == [b"\xb0\x02\x00", b"\xb0\x03\x00"]


def test_a_program_that_calls_a_broken_preset_is_a_warning(desk: Desk) -> None:
    (Path(os.environ["RTGAN_CONFIG_DIR"]) / "presets" / "two.yaml").write_text("schema: 2\nname: Two\nchain: 7\n")
    desk.host.engine.midi(b"\xc0\x01")
    wait_for(lambda: "two.yaml:3" in " ".join(desk.host.stats().warnings))
    assert desk.host.preset.name == "One" and desk.host.stats().problems == ()


def test_a_button_for_recording_goes_by_whether_a_recording_is_on(desk: Desk) -> None:
    host = desk.host
    press(desk, 4)
    wait_for(lambda: host.recording is not None)
    press(desk, 6)
    desk.act("marker")
    log = host.recording.with_suffix(".events.jsonl")  # type: ignore[union-attr]
    wait_for(lambda: log.read_text().count('"marker"') == 2)
    host.stop_recording()
    press(desk, 6)
    wait_for(lambda: "a marker needs a recording, and none runs" in host.stats().warnings)
    time.sleep(1.1)  # the names of takes have seconds
    press(desk, 4)
    wait_for(lambda: host.recording is not None)
    press(desk, 4)
    wait_for(lambda: host.recording is None)


def test_the_clock_of_a_master() -> None:
    clock = Clock(48000)
    clock.feed(0xFA, 0)
    for k in range(49):
        clock.feed(0xF8, k * 1000)
    assert (clock.running, clock.bpm, clock.beats) == (True, pytest.approx(120), pytest.approx(49 / 24))
    clock.feed(0xFC, 49000)
    assert not clock.running
