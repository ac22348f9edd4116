"""Recording a performance: dry and wet sound and the log of events, from the engine's first sample."""

from __future__ import annotations

from pathlib import Path

from rtgan.errors import RtganError
from rtgan.io.files import Take, check_take, keep_older
from rtgan.kernels.rings import Ring

TAKE = "take.wav"


def take_path(target: Path) -> Path:
    """The WAV file of a recording: ``target`` itself, or in the folder that it names.

    Raises
    ------
    RtganError
        If it cannot be written there.
    """
    if target.suffix.lower() != ".wav" and (target.is_dir() or not target.suffix):
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise RtganError(f"the folder {target} cannot be made: {problem.strerror}") from None
        target = target / TAKE
    check_take(target)
    return target


class Recorder:
    """Drains an engine's tape into files [one thread].

    ``NAME.wav`` gets the wet sound, ``NAME.dry.wav`` the input, ``NAME.events.jsonl`` what was done. Wet is
    taken before the fades at start and stop, so that ``rtgan process --keep-latency`` of the dry file gives
    the wet file bit for bit.

    Attributes
    ----------
    origin : int
        The engine's sample that is the first of the files.
    """

    def __init__(self, path: Path, tape: Ring, sample_rate_hz: int, channels: int) -> None:
        self.path = path
        self._tape = tape
        self.origin = 0
        self.graphs_before = 0
        self.begun = False
        self._channels = channels
        self.wet = Take(path, sample_rate_hz, channels)
        self.dry = Take(path.with_suffix(".dry.wav"), sample_rate_hz, channels)
        self.log_path = path.with_suffix(".events.jsonl")
        keep_older(self.log_path)
        self._log = self.log_path.open("w", encoding="utf-8")

    def log(self, line: str) -> None:
        """Append to the event log."""
        if self.problem is None:
            try:
                self._log.write(line + "\n")
                self._log.flush()
            except OSError as problem:
                self.wet.problem = f"the event log {self.log_path} stopped: {problem.strerror}"

    def drain(self) -> None:
        """Move what has arrived to the files."""
        frames = self._tape.read()
        self.dry.append(frames[:, : self._channels])
        self.wet.append(frames[:, self._channels :])

    @property
    def problem(self) -> str | None:
        """Why recording stopped, if it did."""
        return self.wet.problem or self.dry.problem

    def close(self) -> None:
        """Take the rest and finish the files."""
        self.drain()
        self.wet.close()
        self.dry.close()
        try:
            self._log.close()
        except OSError as problem:
            self.wet.problem = self.wet.problem or f"the event log {self.log_path} stopped: {problem.strerror}"
