"""Chains, changed: every plugin keeps its name and its values, live without a gap or a click."""

from __future__ import annotations

import time

import numpy as np
import pytest

from rtgan import Host, chain, presets
from rtgan.errors import UsageError
from rtgan.panel.commands import COMMANDS

TEXT = """\
schema: 2
name: Two
chain:
- {plugin: gain, params: {gain_db: -3}}
- {plugin: gain, params: {gain_db: -9}}
- {plugin: highpass, params: {cutoff_hz: 55}}
midi:
- {control: cc 1, target: gain-2.gain_db}
- {control: cc 2, target: [gain.gain_db, highpass.cutoff_hz]}
snapshots:
- name: Soft
  values: {gain.gain_db: -20, highpass.cutoff_hz: 90}
"""


def two() -> presets.Preset:
    return presets.parse(TEXT)


def test_every_plugin_keeps_its_name_and_its_values_wherever_it_goes() -> None:
    start = two()
    moved = chain.change(start, "move", "gain-2", 1)
    assert presets.labels(moved.chain) == ["gain-2", "gain", "highpass"]
    assert moved.values() == start.values()
    assert moved.midi == start.midi
    assert moved.edited
    assert not start.edited
    last = chain.change(moved, "move", "gain")
    assert presets.labels(last.chain) == ["gain-2", "highpass", "gain"]
    # What is written is read back as the same.
    assert presets.parse(presets.dump(last)) == last
    # Names that come by themselves are not written.
    assert "label" not in presets.dump(chain.change(chain.change(start, "move", "highpass", 1), "move", "highpass"))


def test_what_speaks_of_a_plugin_goes_with_it() -> None:
    less = chain.change(two(), "remove", "gain")
    assert presets.labels(less.chain) == ["gain-2", "highpass"]
    assert [b.targets for b in less.midi] == [("gain-2.gain_db",), ("highpass.cutoff_hz",)]
    assert less.snapshots[0].values == {"highpass.cutoff_hz": 90.0}
    none = chain.change(chain.change(less, "remove", "gain-2"), "remove", "highpass")
    assert (none.chain, none.midi) == ((), ())
    assert presets.parse(presets.dump(none)) == none


def test_a_plugin_is_added_where_it_is_to_stand() -> None:
    more = chain.change(chain.change(two(), "add", "eq", 1), "add", "gain")
    assert presets.labels(more.chain) == ["eq", "gain", "gain-2", "highpass", "gain-3"]
    assert more.values()["gain-3.gain_db"] == 0
    again = chain.change(chain.change(more, "remove", "gain"), "add", "gain", 2)
    assert presets.labels(again.chain) == ["eq", "gain", "gain-2", "highpass", "gain-3"]


@pytest.mark.parametrize(
    "what, name, position, words",
    [
        ("swap", "gain", 1, "allowed: add, remove, move"),
        ("add", "/tmp/evil.py", 0, "there is no plugin '/tmp/evil.py'"),
        ("add", "gain", 5, "allowed: 1 to 4, or 0 for the end"),
        ("remove", "eq", 0, "it holds: gain, gain-2, highpass"),
        ("move", "gain", 4, "allowed: 1 to 3"),
        ("move", "gain", -1, "out of range"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(what: str, name: str, position: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        chain.change(two(), what, name, position)


def test_a_chain_has_an_end() -> None:
    full = two()
    while len(full.chain) < presets.MOST_PLUGINS:
        full = chain.change(full, "add", "gain")
    with pytest.raises(UsageError, match="which is the most"):
        chain.change(full, "add", "gain")
    # What pages and the shell may ask for is the same.
    arguments = COMMANDS["chain"].arguments
    assert (arguments["what"].choices, arguments["position"].high) == (chain.CHANGES, presets.MOST_PLUGINS)


def test_a_chain_changes_while_it_sounds_without_a_gap_or_a_click() -> None:
    rate = 48000
    sine = (0.25 * np.sin(2 * np.pi * 440 * np.arange(30 * rate) / rate)).astype(np.float32)
    preset = presets.parse(
        "schema: 2\nname: Plain\nchain: [{plugin: gain}, {plugin: highpass, params: {cutoff_hz: 20}}]"
    )
    with Host(preset, source=sine[None]) as host:
        assert host.wait_first_block()
        host.set("highpass.cutoff_hz", 25)
        for what, name, position in (("move", "highpass", 1), ("add", "gain", 1), ("remove", "gain", 0)):
            adopted = len(host._adopted)
            host.change(lambda p, to=(what, name, position): chain.change(p, *to))  # type: ignore[misc]
            deadline = time.monotonic() + 20
            while len(host._serials) > 1 or len(host._adopted) == adopted:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert [label for label, _, _ in host.strips] == ["gain-2", "highpass"]
        assert host.values["highpass.cutoff_hz"] == 25
        played = len(host.output_so_far()[0])
        while len(host.output_so_far()[0]) < played + rate:
            assert time.monotonic() < deadline + 20
            time.sleep(0.01)
        heard = host.output_so_far()[0][rate // 4 :]
    steepest = 0.25 * 2 * np.pi * 440 / rate
    assert np.abs(np.diff(heard)).max() < 1.1 * steepest
    periods = heard[: len(heard) // 1200 * 1200].reshape(-1, 1200)
    assert np.sqrt((periods**2).mean(axis=1)).min() > 0.9 * 0.25 / np.sqrt(2)
