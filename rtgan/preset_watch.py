"""Hot reload: a preset is heard as soon as its file is saved.

The file's stamp is looked at five times a second: one system call, which works on every platform and file
system, network folders and editors that replace the file included. Notification libraries were left out: they
save microseconds and need a fallback to this where they do not work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from rtgan import presets
from rtgan.errors import RtganError
from rtgan.presets import Code, Preset

PERIOD_S = 0.2
_Stamp = tuple[str, int, int, int]


class PresetWatch:
    """Looks after the file of one preset.

    Parameters
    ----------
    name : str
        Name or path, as `rtgan.presets.load` takes it.
    on_preset : callable
        Given the new preset whenever the file says something else than before. What it raises as
        `RtganError` goes to ``on_problem``.
    on_problem : callable
        Given one sentence whenever a saved file cannot be used; what plays goes on playing.
    code : {"run", "pinned", "never"}, optional
        As `rtgan.presets.load` takes it.
    """

    def __init__(
        self,
        name: str,
        on_preset: Callable[[Preset], None],
        on_problem: Callable[[str], None],
        code: Code | None = None,
    ) -> None:
        self.name = name
        self._code = code
        self._on_preset = on_preset
        self._on_problem = on_problem
        self._seen = self._candidate = self._stamp()
        try:
            self._current: Preset | None = presets.load(name, code)
        except RtganError:
            self._current = None

    def poll(self) -> None:
        """One look at the file; calls back from here.

        A file counts as saved when two looks in a row find it the same, so that no editor is caught in the middle
        of writing.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            self._candidate = stamp
            return
        if stamp != self._candidate:
            self._candidate = stamp
            return
        self._seen = stamp
        try:
            preset = presets.load(self.name, self._code)
            if preset != self._current:
                # Only what could be used counts as current: going back to it after a mistake plays it again.
                self._on_preset(preset)
                self._current = preset
        except RtganError as problem:
            self._on_problem(str(problem))
        except Exception as problem:
            # A plugin of somebody else's that fails while it is built.
            self._on_problem(f"{self.name} cannot be played: {problem!r}")

    def _stamp(self) -> _Stamp | None:
        try:
            path = presets.find(self.name)
            found = path.stat()
        except (RtganError, OSError):
            return None
        return str(path), found.st_mtime_ns, found.st_size, found.st_ino


class Player(Protocol):
    """What is kept up to date: `rtgan.host.Host` is one."""

    preset: Preset

    def load(self, preset: str | Preset) -> None:
        """Fade over to another preset."""


class HotReload:
    """Loads the preset that plays anew whenever its file is saved, in a thread of its own.

    It follows the player from preset to preset. A preset that is called by name is watched by name: one of the
    user's that comes to stand in front of the factory's is heard at once.

    Parameters
    ----------
    player : Player
    on_reload : callable
        Given every preset that was loaded anew.
    on_problem : callable
        Given one sentence for every saved file that cannot be used; the sound goes on as it was.
    """

    def __init__(self, player: Player, on_reload: Callable[[Preset], None], on_problem: Callable[[str], None]) -> None:
        self._player = player
        self._on_reload = on_reload
        self._on_problem = on_problem
        self._name = ""
        self._watch: PresetWatch | None = None
        self._halt = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> HotReload:
        self.poll()
        self._thread = threading.Thread(target=self._run, name="rtgan-reload", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._halt.set()
        if self._thread is not None:
            self._thread.join()

    def poll(self) -> None:
        """One look at what plays and at its file."""
        try:
            self._look()
        except Exception as problem:
            # The watch must live as long as the show.
            self._on_problem(f"the preset's file cannot be watched: {problem!r}")

    def _look(self) -> None:
        preset = self._player.preset
        if preset.path is None:
            return
        named = preset.path.parent in presets.folders() and not preset.trusted
        name = preset.path.stem if named else str(preset.path)
        if self._watch is None or name != self._name:
            self._name = name
            self._watch = PresetWatch(name, self._reload, self._on_problem, "run" if preset.trusted else "pinned")
        self._watch.poll()

    def _reload(self, preset: Preset) -> None:
        if preset == self._player.preset and preset.path == self._player.preset.path:
            return  # the player wrote it
        self._player.load(preset)
        self._on_reload(preset)

    def _run(self) -> None:
        while not self._halt.wait(PERIOD_S):
            self.poll()
