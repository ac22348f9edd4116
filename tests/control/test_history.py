"""Undo and redo: of what is turned, whoever turned it, of what is loaded, and of files."""

from __future__ import annotations

import numpy as np
import pytest

from rtgan import Host, preset_files, presets
from rtgan.control.comparison import Comparison
from rtgan.control.history import MOST, History
from rtgan.errors import UsageError
from rtgan.presets import Entry, Preset

RATE = 48000
CLUB = Preset("Club", (Entry("highpass", {"cutoff_hz": 50}), Entry("gain", {"gain_db": -14})))
OTHER = Preset("Other", (Entry("gain", {"gain_db": 3}),))


class Rig:
    """A host that is fed by hand, and what remembers."""

    def __init__(self) -> None:
        self.host = Host(preset=CLUB, source=np.zeros((1, 1), np.float32))
        self.compare = Comparison(self.host)
        self.history = History(self.host, self.compare)
        for listener in (self.compare.heard, self.history.heard):
            self.host.listen(listener)
        self.run(0.1)

    def run(self, seconds: float = 1.0) -> None:
        for _ in range(round(seconds * 100)):
            self.host.engine.render(np.zeros((RATE // 100, 1), np.float32))
            self.host._poll()

    def set(self, name: str, value: float, seconds: float = 1.0) -> None:
        self.host.set(name, value)
        self.run(seconds)

    def undo(self) -> str:
        what = self.history.undo()
        self.run(0.2)
        return what

    def redo(self) -> str:
        what = self.history.redo()
        self.run(0.2)
        return what

    @property
    def now(self) -> tuple[float, float]:
        return self.host.values["highpass.cutoff_hz"], self.host.values["gain.gain_db"]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_what_is_turned_without_a_pause_is_one_edit(rig: Rig) -> None:
    for value in np.linspace(-13, 0, 40):
        rig.set("gain.gain_db", float(value), 0.02)
    rig.run()
    rig.set("highpass.cutoff_hz", 200)
    rig.host.set("host.volume_db", -6)
    rig.run()
    assert rig.history.state == {"undo": "change highpass.cutoff_hz", "redo": ""}
    assert rig.undo() == "change highpass.cutoff_hz"
    assert rig.now == (50, 0)
    assert rig.undo() == "change gain.gain_db"
    assert rig.now == (50, -14)
    assert rig.host.values["host.volume_db"] == -6, "volume belongs to the performance"
    with pytest.raises(UsageError, match="nothing to undo"):
        rig.history.undo()
    rig.redo()
    assert rig.now == (50, 0)
    rig.redo()
    assert rig.now == (200, 0)
    with pytest.raises(UsageError, match="nothing to do again"):
        rig.history.redo()
    rig.undo()
    rig.set("gain.gain_db", -3)
    assert rig.history.state == {"undo": "change gain.gain_db", "redo": ""}, "another way was taken"


def test_what_moves_at_once_is_one_edit_and_what_comes_back_is_none(rig: Rig) -> None:
    rig.host.set("gain.gain_db", 1)
    rig.host.set("highpass.cutoff_hz", 99)
    rig.run()
    assert rig.undo() == "change 2 parameters"
    assert rig.now == (50, -14)
    rig.set("gain.gain_db", 5, 0.1)
    rig.set("gain.gain_db", -14)
    assert rig.history.state["undo"] == ""


def test_a_preset_that_was_loaded_over_edits_can_be_taken_back(rig: Rig) -> None:
    rig.set("gain.gain_db", -1)
    rig.host.load(OTHER)
    rig.run()
    rig.set("gain.gain_db", 7)
    assert rig.undo() == "change gain.gain_db"
    assert rig.undo() == "load Other"
    assert (rig.host.preset.name, rig.now) == ("Club", (50, -1))
    assert rig.host.preset.values()["gain.gain_db"] == -14, "what is saved is what it was"
    rig.redo()
    rig.redo()
    assert (rig.host.preset.name, rig.host.values["gain.gain_db"]) == ("Other", 7)


def test_a_hand_that_undoes_faster_than_the_host_takes_it_loses_nothing(rig: Rig) -> None:
    rig.set("gain.gain_db", -1)
    rig.host.load(OTHER)
    rig.run()
    # The chain that comes back has not been taken when the next one is asked for.
    rig.history.undo()
    rig.history.undo()
    assert rig.history.state == {"undo": "", "redo": "change gain.gain_db"}
    rig.run()
    assert rig.now == (50, -14) and rig.history.state["redo"] == "change gain.gain_db"
    rig.history.redo()
    rig.history.redo()
    rig.run()
    assert (rig.host.preset.name, rig.host.values["gain.gain_db"]) == ("Other", 3)


def test_an_edit_is_undone_on_the_side_that_it_was_made_on(rig: Rig) -> None:
    rig.set("gain.gain_db", -1)
    rig.compare.play(1)
    rig.run()
    rig.set("gain.gain_db", 9)
    rig.compare.play(0)
    rig.run()
    assert rig.history.state["undo"] == "change gain.gain_db", "to change sides is no edit"
    rig.undo()
    assert (rig.compare.side, rig.now[1]) == (1, -1)
    rig.undo()
    assert (rig.compare.side, rig.now[1]) == (0, -14)
    rig.compare.play(1)
    rig.run()
    assert rig.now[1] == -1, "the other side keeps what it had"


def test_edits_made_before_a_save_are_undone_behind_it(rig: Rig) -> None:
    path = presets.own_path("Mine")
    rig.set("gain.gain_db", 2)
    before = rig.host.preset
    mine = Preset("Mine", before.with_values({"gain.gain_db": 2}).chain, path=path)
    change = preset_files.save(mine, path)
    rig.host.adopt(mine)
    rig.history.did(change, before, mine)
    rig.set("highpass.cutoff_hz", 400)
    rig.undo()
    assert (rig.host.preset.name, rig.now) == ("Mine", (50, 2))
    assert rig.undo() == "save Mine"
    assert not path.exists() and rig.host.preset is before and rig.now == (50, 2)
    rig.undo()
    assert rig.now == (50, -14)
    rig.redo()
    rig.redo()
    assert presets.load("mine").values()["gain.gain_db"] == 2 and rig.host.preset is mine
    path.write_text(path.read_text() + "# somebody else's\n")
    with pytest.raises(UsageError, match=r"mine.yaml has been changed since"):
        rig.history.undo()
    assert path.exists() and rig.history.state["undo"] == "change gain.gain_db"


def test_only_so_much_is_remembered(rig: Rig) -> None:
    for k in range(MOST + 20):
        rig.history.did(preset_files.Change(str(k), {}), CLUB, CLUB)
    for k in reversed(range(20, MOST + 20)):
        assert rig.history.undo() == str(k)
    with pytest.raises(UsageError):
        rig.history.undo()
