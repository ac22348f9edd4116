from __future__ import annotations

import random
from pathlib import Path

import pytest

from rtgan import bindings
from rtgan.bindings import HOST_TARGETS, KINDS, LAST_NUMBER, MODES, Binding, Control
from rtgan.errors import RtganError, UsageError

GOOD = """\
schema: 1
midi:
- {control: cc 7, channel: 1, port: nano, target: host.volume_db, mode: pickup, range: [-40, 6], curve: 2,
  smoothing_ms: 20}
- {control: note 60, target: [host.bypass, host.mute]}
- {control: cc14 1, target: host.morph, invert: true}
- {control: nrpn 16383, target: host.snapshot, range: [1, 4]}
- {control: bend, target: host.morph}
- {control: program 127, target: host.panic}
- {control: cc 22, target: host.volume_db, mode: relative-twos}
"""


def test_a_map_is_read_and_written_byte_for_byte() -> None:
    found = bindings.parse_map(GOOD)
    assert found[0] == Binding(
        Control("cc", 7, 1, "nano"), ("host.volume_db",), "pickup", -40.0, 6.0, 2.0, smoothing_ms=20.0
    )
    assert found[1] == Binding(Control("note", 60), ("host.bypass", "host.mute"), "toggle")
    assert found[2].invert and found[2].mode == "absolute" and found[2].control.channel is None
    assert found[4].control == Control("bend")
    assert found[5].mode == "toggle"
    assert bindings.dump_map(found) == GOOD


def test_the_global_map_lies_in_the_configuration_folder() -> None:
    assert bindings.load_map() == (), "no file, no bindings"
    found = bindings.parse_map(GOOD)
    bindings.save_map(found)
    assert bindings.map_path().read_text(encoding="utf-8") == GOOD
    assert bindings.load_map() == found
    with pytest.raises(UsageError, match=r"there is no target 'gain.gain_db'; known are: host.bypass"):
        bindings.save_map([Binding(Control("cc", 1), ("gain.gain_db",))])
    assert bindings.load_map() == found, "a save that fails leaves the old file"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{target: host.mute}", "a binding lacks the key 'control'"),
        ("{control: cc 1}", "a binding lacks the key 'target'"),
        ("{control: cc 1, target: host.mute, speed: 1}", "a binding has no key 'speed'; allowed: control, channel"),
        ("{control: cc, target: host.mute}", "the control 'cc' needs a number: cc 0 to cc 119"),
        ("{control: cc 120, target: host.mute}", "the control 'cc 120' needs a number: cc 0 to cc 119"),
        ("{control: cc -1, target: host.mute}", "the control 'cc -1' needs a number"),
        ("{control: cc14 32, target: host.mute}", "cc14 0 to cc14 31"),
        ("{control: rpn 16383, target: host.mute}", "rpn 0 to rpn 16382"),
        ("{control: bend 3, target: host.mute}", "the control 'bend 3' takes no number; write bend"),
        ("{control: knob 3, target: host.mute}", "there is no control 'knob 3'; allowed: cc N, cc14 N, nrpn N"),
        ("{control: 74, target: host.mute}", "control must be a text"),
        ("{control: cc 1, channel: 0, target: host.mute}", "channel is 0; allowed: 1 to 16"),
        ("{control: cc 1, channel: all, target: host.mute}", "channel is 'all'; allowed: 1 to 16"),
        ("{control: cc 1, target: []}", "target is empty"),
        ("{control: cc 1, target: host.loud}", "there is no target 'host.loud'; known are: host.bypass"),
        ("{control: cc 1, target: [host.mute, host.mute]}", "the target 'host.mute' stands twice"),
        ("{control: cc 1, target: host.mute, mode: soft}", "mode has no value 'soft'; allowed: absolute, pickup"),
        ("{control: bend, target: host.morph, mode: relative-twos}", "the mode relative-twos is for cc only"),
        ("{control: note 1, target: host.morph, mode: pickup}", "a note cannot be picked up"),
        ("{control: program 1, target: host.morph, mode: absolute}", "a program change is a press"),
        ("{control: cc 1, target: host.volume_db, range: [0]}", "range holds two values"),
        ("{control: cc 1, target: host.volume_db, range: [6, 0]}", "range goes from 6 to 0; use invert"),
        ("{control: cc 1, target: host.volume_db, range: [0, 60]}", "range of host.volume_db: 60 is out of range"),
        ("{control: cc 1, target: host.volume_db, curve: 0}", "curve is 0; allowed: 0.1 to 10"),
        ("{control: cc 1, target: host.volume_db, invert: 1}", "invert must be true or false"),
        ("{control: cc 1, target: host.volume_db, smoothing_ms: -1}", "smoothing_ms is -1; allowed: 0 to 10000"),
        ("{control: cc 1, target: host.next, curve: 2}", "host.next is a trigger and takes no curve"),
        ("cc 1", "a binding must be a mapping"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(entry: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        bindings.parse_map(f"schema: 1\nmidi:\n- {entry}\n", "m.yaml")
    assert str(caught.value).startswith("m.yaml:3: ") and message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_one_control_moves_a_target_once_and_several_controls_may() -> None:
    twice = "- {control: cc 1, target: host.volume_db}\n- {control: cc 1, target: [host.mute, host.volume_db]}\n"
    with pytest.raises(UsageError, match=r"m.yaml:4: cc 1 moves host.volume_db twice"):
        bindings.parse_map(f"schema: 1\nmidi:\n{twice}", "m.yaml")
    other = "- {control: cc 1, target: host.volume_db}\n- {control: cc 1, channel: 2, target: host.volume_db}\n"
    assert len(bindings.parse_map(f"schema: 1\nmidi:\n{other}")) == 2


def test_every_binding_that_can_be_made_comes_back_as_it_was(tmp_path: Path) -> None:
    source = random.Random(3)
    made = []
    for number in range(400):
        kind = source.choice(KINDS)
        last = LAST_NUMBER[kind]
        control = Control(
            kind,
            source.randint(0, last) if last else 0,
            source.choice([None, 1, 16]),
            source.choice(["", f"p {number}"]),
        )
        target = source.choice(["host.volume_db", "host.morph", "host.mute"])
        param = HOST_TARGETS[target]
        mode = source.choice(MODES)
        low, high = source.choice([(None, None), (param.minimum, (param.minimum + param.maximum) / 3)])
        if param.scale == "switch":
            low, high = None, None
        curve, smoothing = source.choice([1.0, 0.35]), source.choice([0.0, 12.5])
        binding = Binding(control, (target,), mode, low, high, curve, source.random() < 0.5, smoothing)
        try:
            bindings.parse_map(bindings.dump_map([binding]))
        except RtganError:
            assert mode.startswith("relative") or kind in ("note", "program"), binding
            continue
        made.append(binding)
    path = tmp_path / "midi.yaml"
    unique = list({(b.control, b.targets): b for b in made}.values())
    assert len(unique) > 200
    bindings.save_map(unique, path)
    assert bindings.load_map(path) == tuple(unique)
