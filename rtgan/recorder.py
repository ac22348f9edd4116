"""Recording a performance: dry and wet sound and the log of events, from before the moment it was asked for."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtgan import events, offline
from rtgan.errors import RtganError
from rtgan.io.files import LIMIT_BYTES, Take, check_take, keep_older
from rtgan.kernels import rings
from rtgan.kernels.rings import Ring
from rtgan.offline import Step
from rtgan.presets import Preset

TAKE = "take.wav"


def take_path(target: Path) -> Path:
    """The sound file of a recording: ``target`` itself, or in the folder that it names.

    Raises
    ------
    RtganError
        If it cannot be written there.
    """
    if target.suffix.lower() not in (".wav", ".flac") and (target.is_dir() or not target.suffix):
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise RtganError(f"the folder {target} cannot be made: {problem.strerror}") from None
        target = target / TAKE
    check_take(target)
    return target


def parts(take: Path) -> list[Path]:
    """The files of a take that grew beyond one: as its event log names them, the first one in any case."""
    try:
        lines = take.with_suffix(".events.jsonl").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return [take]
    try:
        named = [entry["part"] for line in lines if '"part"' in line and "part" in (entry := json.loads(line))]
    except ValueError:
        return [take]  # who reads the log says what is wrong with it
    return [take, *(take.with_name(Path(str(name)).name) for name in named)]


class Heard:
    """What an engine's tape brings, in order, and the last seconds of it [one thread].

    Where the tape had no room there is silence, of the same length: time stays true.

    Parameters
    ----------
    tape : Ring
    keep_frames : int
        How much of the past to keep.
    """

    def __init__(self, tape: Ring, keep_frames: int) -> None:
        self._tape = tape
        self._keep = keep_frames
        self._width = int(tape.memory[rings.WIDTH])
        self._gaps: deque[tuple[int, int]] = deque()
        self._kept: deque[NDArray[np.float32]] = deque()
        self._end: int | None = None

    def begin(self, position: int) -> None:
        """The engine's sample that the next frame is."""
        self._end = position
        self._kept.clear()

    def stop(self) -> None:
        """Let go of what the tape still holds; it runs no more."""
        self._tape.read()
        self._gaps.clear()
        self._kept.clear()
        self._end = None

    @property
    def ready(self) -> int:
        """Frames that wait. Read before the telemetry that tells of gaps before them."""
        return self._tape.ready

    @property
    def begin_kept(self) -> int | None:
        """The engine's sample that `kept` begins with; None before the tape has run."""
        return None if self._end is None else self._end - sum(map(len, self._kept))

    @property
    def kept(self) -> NDArray[np.float32]:
        """The last frames, (frames, dry and wet channels)."""
        return np.concatenate([np.empty((0, self._width), np.float32), *self._kept])

    def lost(self, at: int, frames: int) -> None:
        """Learn of frames that found no room: how many, after how many that did."""
        self._gaps.append((at, frames))

    def read(self, ready: int) -> NDArray[np.float32]:
        """The next frames, as many as were `ready` and those lost between them."""
        begin = int(self._tape.memory[rings.READ])
        frames = self._tape.read(ready)
        pieces, done = [], 0
        while self._gaps and self._gaps[0][0] <= begin + len(frames):
            at, lost = self._gaps.popleft()
            pieces += [frames[done : at - begin], np.zeros((lost, self._width), np.float32)]
            done = at - begin
        frames = np.concatenate([*pieces, frames[done:]]) if pieces else frames
        if len(frames):
            self._end = (self._end or 0) + len(frames)
            self._kept.append(frames)
            surplus = sum(map(len, self._kept)) - self._keep
            while surplus > 0:
                first = self._kept.popleft()
                if len(first) > surplus:
                    self._kept.appendleft(first[surplus:].copy())
                surplus -= len(first)
        return frames


@dataclass(frozen=True)
class Message:
    """A MIDI message that was heard; what it did stands in steps of its own."""

    position: int
    data: bytes
    port: int


class Past:
    """What the chain was, and what has been done to it since: a take that begins a while ago needs both.

    Attributes
    ----------
    number : int
        How many graphs were taken before it.
    deeds : deque of Step or Message
        Since then, in order; their positions and graphs count from the engine's start.
    """

    def __init__(self, preset: Preset, values: Mapping[str, float], defaults: Mapping[str, float]) -> None:
        self.deeds: deque[Step | Message] = deque()
        self._defaults = dict(defaults)
        self._host = dict(defaults)
        self._levels: dict[str, int] = {}
        self.number = 0
        self.restart(preset, values)

    def restart(self, preset: Preset, values: Mapping[str, float]) -> None:
        """The chain is another one, which nothing has been done to."""
        self.preset, self._values = preset, dict(values)
        self._levels.clear()

    @property
    def values(self) -> dict[str, float]:
        """The chain's values, and those of the host that are not its defaults."""
        return self._values | {k: v for k, v in self._host.items() if v != self._defaults[k]}

    @property
    def levels(self) -> list[Step]:
        """What had stepped down by then."""
        return [Step(0, label, level=level) for label, level in self._levels.items() if level != events.FULL]

    def forget(self, position: int) -> None:
        """Bring the chain forward to an engine's sample; what was done before it is no longer kept."""
        while self.deeds and self.deeds[0].position < position:
            deed = self.deeds.popleft()
            if isinstance(deed, Message) or deed.panic:
                continue
            if deed.preset is not None:
                self.number = deed.graph
                self.restart(deed.preset, deed.values or {})
            elif deed.level is not None:
                if deed.graph == self.number:
                    self._levels[deed.param] = deed.level
            elif deed.param in self._host:
                self._host[deed.param] = deed.value
            elif deed.graph == self.number:
                self._values[deed.param] = deed.value


class Recorder:
    """A take: sound files and the log of what was done [one thread].

    ``NAME.wav`` gets the wet sound, ``NAME.dry.wav`` the input, ``NAME.events.jsonl`` what was done. Wet is
    taken before the fades at start and stop, so that ``rtgan process --keep-latency`` of the dry file gives
    the wet file bit for bit; with a model whose delay depends on the device's calls, ``--events`` of the log does.
    ``NAME.STEM.wav`` gets each stem. ``NAME.flac`` holds the same in 24 bits.

    Parameters
    ----------
    path : Path
    sample_rate_hz, channels, limit_bytes : int
    stems : sequence of str
        In the order of the tape.
    mono : collection of str
        Stems whose channels are the same, of which one is kept.
    mics : int
        Inputs of strips, which are the dry sound then.

    Attributes
    ----------
    origin : int
        The engine's sample that is the first of the files.
    """

    def __init__(
        self,
        path: Path,
        sample_rate_hz: int,
        channels: int,
        limit_bytes: int = LIMIT_BYTES,
        stems: Sequence[str] = (),
        mono: Collection[str] = (),
        mics: int = 0,
    ) -> None:
        self.path = path
        self.origin = 0
        self.begun = False
        self._numbers: dict[int, int] = {}
        self._channels, self._rate = channels, sample_rate_hz
        self._markers = 0
        self.wet = Take(path, sample_rate_hz, channels, limit_bytes=limit_bytes)
        self.dry = Take(path, sample_rate_hz, mics or channels, ".dry", limit_bytes)
        self.stems = [
            Take(path, sample_rate_hz, 1 if stem in mono else channels, f".{stem}", limit_bytes) for stem in stems
        ]
        # All go on in another file at the same frame.
        capacity = min(take.capacity_frames for take in self._takes)
        for take in self._takes:
            take.capacity_frames = capacity
        behind = (2 + len(stems)) * channels
        # Where each of them lies on the tape.
        first = [behind if mics else 0, *range(channels, behind, channels)]
        self._columns = [slice(at, at + take.channels) for at, take in zip(first, self._takes, strict=True)]
        self.log_path = path.with_suffix(".events.jsonl")
        keep_older(self.log_path)
        self._log = self.log_path.open("w", encoding="utf-8")

    def begin(self, origin: int, past: Past, calls_samples: int = 0) -> None:
        """Write from the engine's sample ``origin`` on, which nothing in ``past`` lies before.

        ``calls_samples`` as in `Graph.calls_samples`.
        """
        past.forget(origin)
        self.begun = True
        self.origin = origin
        self._numbers = {past.number: 0}
        self._write(offline.log_header(past.preset, self._rate, self._channels, past.values, calls_samples))
        for step in past.levels:
            self._write(offline.log_step(step))
        for deed in past.deeds:
            self.log(deed)

    def log(self, deed: Step | Message) -> None:
        """Append what was done to the event log."""
        position = deed.position - self.origin
        if isinstance(deed, Message):
            self._write(offline.log_midi(position, deed.data, deed.port))
        else:
            known = deed.graph in self._numbers
            if deed.preset is not None:
                # What has run beside since before the take is not in it: it is loaded when it is heard.
                deed = replace(deed, recall=deed.recall and known)
                if not deed.recall:
                    self._numbers[deed.graph] = len(self._numbers)
            elif not (deed.panic or known or deed.param.startswith("host.")):
                return
            self._write(offline.log_step(replace(deed, position=position, graph=self._numbers.get(deed.graph, 0))))

    def mark(self, position: int, name: str = "") -> str:
        """Put a marker at an engine's sample, by default under its number; returns its name."""
        self._markers += 1
        name = name or str(self._markers)
        frame = max(0, position - self.origin) if self.begun else 0
        for take in self._takes:
            take.mark(frame, name)
        self._write(offline.log_marker(frame, name))
        return name

    def _write(self, line: str) -> None:
        if self.problem is None:
            try:
                self._log.write(line + "\n")
                self._log.flush()
            except OSError as problem:
                self.wet.problem = f"the event log {self.log_path} stopped: {problem.strerror}"

    def append(self, frames: NDArray[np.float32]) -> None:
        """Add frames of the tape, (frames, channels of dry, wet, stems and inputs of strips)."""
        known = len(self.wet.parts)
        for take, columns in zip(self._takes, self._columns, strict=True):
            take.append(frames[:, columns])
        for part in self.wet.parts[known:]:
            self._write(offline.log_part(part.name))

    @property
    def problem(self) -> str | None:
        """Why recording stopped, if it did."""
        return self.wet.problem or next((take.problem for take in self._takes if take.problem), None)

    @property
    def _takes(self) -> list[Take]:
        return [self.dry, self.wet, *self.stems]

    def close(self) -> None:
        """Finish the files."""
        for take in self._takes:
            take.close()
        try:
            self._log.close()
        except OSError as problem:
            self.wet.problem = self.wet.problem or f"the event log {self.log_path} stopped: {problem.strerror}"
