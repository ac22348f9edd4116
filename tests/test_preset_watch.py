from __future__ import annotations

import os
import queue
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import speechlike

from rtgan import Host, presets
from rtgan.errors import RtganError
from rtgan.preset_watch import HotReload, PresetWatch
from rtgan.presets import Entry, Preset


def gain(db: float) -> Preset:
    return Preset("x", (Entry("gain", {"gain_db": db}),))


class Seen:
    """A watch that is polled by hand, and what it told."""

    def __init__(self, path: Path) -> None:
        self.presets: list[Preset] = []
        self.problems: list[str] = []
        self.watch = PresetWatch(str(path), self.presets.append, self.problems.append)

    def look(self, times: int = 2) -> tuple[int, int]:
        for _ in range(times):
            self.watch.poll()
        return len(self.presets), len(self.problems)


def test_a_saved_change_is_given_once_and_a_broken_one_is_said_once(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    presets.save(gain(0), path)
    seen = Seen(path)
    assert seen.look() == (0, 0)
    presets.save(gain(-3), path)
    assert seen.look(1) == (0, 0), "it may still be on its way to the disk"
    assert seen.look(5) == (1, 0)
    assert seen.presets[0] == gain(-3)
    path.write_text(path.read_text().replace("gain_db: -3", "gain_db: -300"))
    assert seen.look(5) == (1, 1)
    assert seen.problems[0].startswith(f"{path}:5: gain.gain_db: -300 is out of range")
    presets.save(gain(-3), path)
    assert seen.look(5) == (1, 1), "back to what plays: nothing to load"
    path.write_text("# a comment\n" + path.read_text())
    assert seen.look(5) == (1, 1), "it says the same"


def test_an_editor_that_writes_in_pieces_or_replaces_the_file_is_never_caught_in_between(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    presets.save(gain(0), path)
    seen = Seen(path)
    whole = presets.dump(gain(-6))
    with path.open("w") as stream:
        for piece in (whole[:20], whole[20:40], whole[40:]):
            stream.write(piece)
            stream.flush()
            assert seen.look(1) == (0, 0)
    assert seen.look(2) == (1, 0)
    path.unlink()
    assert seen.look(1) == (1, 0)
    presets.save(gain(-9), path)
    assert seen.look(2) == (2, 0)
    os.remove(path)
    assert seen.look(4) == (2, 1)
    assert seen.problems == [f"there is no preset file {path}"]


def test_what_the_host_cannot_load_is_said_and_tried_again_after_the_next_save(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    presets.save(gain(0), path)
    problems: list[str] = []
    refuse = True
    loaded: list[Preset] = []

    def load(preset: Preset) -> None:
        if refuse:
            raise RtganError("no memory for it")
        loaded.append(preset)

    watch = PresetWatch(str(path), load, problems.append)
    presets.save(gain(-1), path)
    for _ in range(3):
        watch.poll()
    assert problems == ["no memory for it"]
    refuse = False
    presets.save(gain(-1), path)
    for _ in range(3):
        watch.poll()
    assert loaded == [gain(-1)]


def test_whatever_goes_wrong_is_said_and_the_watch_lives(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    presets.save(gain(0), path)
    problems: list[str] = []

    def load(preset: str | Preset) -> None:
        raise ValueError("a plugin fell over")

    player = SimpleNamespace(preset=presets.load(str(path)), load=load)
    reload = HotReload(player, lambda preset: None, problems.append)
    reload.poll()
    presets.save(gain(-1), path)
    for _ in range(3):
        reload.poll()
    assert problems == [f"{path} cannot be played: ValueError('a plugin fell over')"]
    player.preset = None  # type: ignore[assignment]
    reload.poll()
    assert "cannot be watched" in problems[1]


def test_saving_never_runs_code_that_the_preset_could_not_run_before(tmp_path: Path) -> None:
    path, ran = tmp_path / "p.yaml", tmp_path / "ran"
    presets.save(gain(0), path)
    for code, expected in (("pinned", False), ("run", True)):
        problems: list[str] = []
        path.write_text(presets.dump(gain(0)))
        player = SimpleNamespace(preset=presets.load(str(path), code), load=lambda preset: None)  # type: ignore[arg-type]
        reload = HotReload(player, lambda preset: None, problems.append)
        reload.poll()
        (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n")
        path.write_text("schema: 2\nname: x\nchain:\n- plugin: evil.py\n")
        for _ in range(3):
            reload.poll()
        assert ran.exists() == expected, code
        assert ("is code" in problems[0]) != expected


def test_a_users_preset_that_comes_to_stand_before_the_factorys_is_heard() -> None:
    found: list[Preset] = []
    watch = PresetWatch("bypass", found.append, lambda problem: pytest.fail(problem))
    presets.save(gain(-6), presets.user_folder() / "bypass.yaml")
    for _ in range(3):
        watch.poll()
    assert found == [gain(-6)]


def test_a_host_plays_what_is_saved_and_goes_on_playing_what_is_broken(tmp_path: Path) -> None:
    """In a thread of its own, from preset to preset."""
    path, other = tmp_path / "p.yaml", tmp_path / "q.yaml"
    presets.save(gain(-6), path)
    presets.save(gain(-12), other)
    reloaded: queue.Queue[Preset] = queue.Queue()
    problems: queue.Queue[str] = queue.Queue()
    with (
        Host(preset=str(path), source=speechlike(30.0)[None]) as host,
        HotReload(host, reloaded.put, problems.put),
    ):
        assert host.wait_first_block()
        presets.save(gain(-3), path)
        assert reloaded.get(timeout=20) == gain(-3)
        assert host.preset == gain(-3) and host.values["gain.gain_db"] == -3
        path.write_text("schema: 2\nname: x\nchain: [gain]\n")
        assert problems.get(timeout=20) == f"{path}:3: a plugin of the chain must be a mapping (key: value)"
        assert host.running and host.preset == gain(-3)
        host.load(str(other))
        deadline = time.monotonic() + 20
        while reloaded.empty() and time.monotonic() < deadline:
            # The watch may take up to one period to follow.
            presets.save(gain(-host.stats().seconds), other)
            time.sleep(0.7)
        assert host.preset.path == other and reloaded.get().chain[0].plugin == "gain"
    assert host.stats().xruns == 0
