"""Sound files: reading with one clear sentence for everything that can be wrong, and writing safely."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtgan.errors import RtganError, UsageError

#: Largest WAV file: its sizes have 32 bits.
LIMIT_BYTES = (1 << 32) - 1
#: Formats that can be written, by file name ending.
WRITABLE = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG"}


def read(path: Path) -> tuple[NDArray[np.float32], int]:
    """Read a sound file.

    Returns
    -------
    samples : ndarray of float32, (channels, samples)
    sample_rate_hz : int

    Raises
    ------
    UsageError
        The file does not exist or is a folder.
    RtganError
        It is unreadable, not a sound file, holds no sound, or holds values that are not numbers.
    """
    import soundfile

    if path.is_dir():
        raise UsageError(f"{path} is a folder, not a sound file")
    if not path.exists():
        raise UsageError(f"there is no file {path}")
    if not os.access(path, os.R_OK):
        raise RtganError(f"{path} cannot be read: permission denied")
    if path.stat().st_size == 0:
        raise RtganError(f"{path} is empty")
    try:
        frames, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, RuntimeError) as problem:
        reason = str(problem).rsplit(":", 1)[-1].strip().rstrip(".")
        raise RtganError(f"{path} is not a readable sound file: {reason}") from None
    if len(frames) == 0:
        raise RtganError(f"{path} holds no sound: its length is zero")
    bad = int((~np.isfinite(frames)).sum())
    if bad:
        raise RtganError(f"{path} holds {bad} values that are not finite numbers; rtgan does not guess at them")
    return np.ascontiguousarray(frames.T), int(rate)


def read_parts(paths: Sequence[Path]) -> tuple[NDArray[np.float32], int]:
    """Read files that follow each other as one; see `read`."""
    found = [read(path) for path in paths]
    if len({(samples.shape[0], rate) for samples, rate in found}) > 1:
        raise RtganError(f"{paths[0]} and what follows it differ in rate or channels")
    return np.concatenate([samples for samples, _ in found], axis=1), found[0][1]


def check_target(path: Path) -> None:
    """Refuse an output path that cannot be written, before any work is done."""
    if path.is_dir():
        raise UsageError(f"the output {path} is a folder; give a file name")
    if path.suffix.lower() not in WRITABLE:
        raise UsageError(f"the output {path} must end in {', '.join(WRITABLE)}")
    parent = path.parent if str(path.parent) else Path(".")
    if not parent.is_dir():
        raise UsageError(f"the folder {parent} of the output does not exist")
    if not os.access(parent, os.W_OK):
        raise RtganError(f"the folder {parent} cannot be written: permission denied")


def write(path: Path, samples: NDArray[np.float32], sample_rate_hz: int, subtype: str | None = None) -> None:
    """Write a whole sound file; on failure nothing that stood there before is lost.

    Parameters
    ----------
    path : Path
        Ends in .wav, .flac or .ogg.
    samples : ndarray of float32, (channels, samples)
    sample_rate_hz : int
    subtype : str, optional
        soundfile's name of the sample format; by default float32 in WAV, 24 bit in FLAC.
    """
    import soundfile

    check_target(path)
    kind = WRITABLE[path.suffix.lower()]
    if subtype is None:
        subtype = {"WAV": "FLOAT", "FLAC": "PCM_24", "OGG": "VORBIS"}[kind]
    part = path.with_name(f".{path.name}.part")
    try:
        # libsndfile's Vorbis encoder overflows its stack on one huge write: feed it in pieces.
        with soundfile.SoundFile(part, "w", sample_rate_hz, len(samples), subtype, format=kind) as target:
            for start in range(0, samples.shape[1], 1 << 16):
                target.write(samples[:, start : start + (1 << 16)].T)
        os.replace(part, path)
    except (soundfile.SoundFileError, OSError, RuntimeError) as problem:
        part.unlink(missing_ok=True)
        raise RtganError(f"{path} cannot be written: {_reason(problem)}") from None
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _reason(problem: BaseException) -> str:
    if isinstance(problem, OSError) and problem.strerror:
        return str(problem.strerror)
    return str(problem).rsplit(":", 1)[-1].strip().rstrip(".") or type(problem).__name__


def keep_older(path: Path) -> None:
    """Move a file that stands where a recording is to go out of the way: ``take.wav`` to ``take.1.wav``."""
    if not path.exists():
        return
    number = 1
    while (older := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    try:
        os.rename(path, older)
    except OSError as problem:
        raise RtganError(f"the older recording {path} cannot be moved aside: {_reason(problem)}") from None


def check_take(path: Path) -> None:
    """Refuse a path that cannot be recorded to, before the devices are opened."""
    check_target(path)
    if path.suffix.lower() not in (".wav", ".flac"):
        raise UsageError(f"the recording {path} must end in .wav or .flac")


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


class _Wav:
    """A WAV file of float32 that is whole after every write; markers lie before the samples.

    Everything before the first sample has a fixed size; what markers leave of it is a chunk that readers pass over.
    The sizes are 32 bits wide ("Multimedia Programming Interface and Data Specifications 1.0", 1991).
    """

    HEAD_BYTES = 16384
    _SIZES = (4, 46, HEAD_BYTES - 4)  # of the file, in frames, of the samples

    def __init__(self, path: Path, sample_rate_hz: int, channels: int) -> None:
        self._rate, self._channels = sample_rate_hz, channels
        self._bytes = 0
        self._file = path.open("wb", buffering=0)
        self.mark([])

    @classmethod
    def capacity_frames(cls, limit_bytes: int, channels: int) -> int:
        return (limit_bytes - cls.HEAD_BYTES) // (4 * channels)

    def _sizes(self) -> tuple[int, int, int]:
        frames = self._bytes // (4 * self._channels)
        samples = frames * 4 * self._channels
        return self.HEAD_BYTES - 8 + samples, frames, samples

    def write(self, frames: NDArray[np.float32]) -> None:
        left = memoryview(np.ascontiguousarray(frames, "<f4").tobytes())
        try:
            while left:
                count = self._file.write(left)
                self._bytes += count
                left = left[count:]
        finally:
            # Of what a full disk took the whole frames count.
            for place, size in zip(self._SIZES, self._sizes(), strict=True):
                self._file.seek(place)
                self._file.write(struct.pack("<I", size))
            self._file.seek(0, os.SEEK_END)

    def mark(self, markers: Sequence[tuple[int, str]]) -> None:
        """Write the head with these markers (frame, name), as many as find room."""
        size, frames, samples = self._sizes()
        block = 4 * self._channels
        wave = struct.pack("<HHIIHHH", 3, self._channels, self._rate, self._rate * block, block, 32, 0)
        head = (
            b"RIFF"
            + struct.pack("<I", size)
            + b"WAVE"
            + _chunk(b"fmt ", wave)
            + _chunk(b"fact", struct.pack("<I", frames))
        )
        points = labels = b""
        for number, (frame, name) in enumerate(markers, 1):
            point = struct.pack("<II4sIII", number, frame, b"data", 0, 0, frame)
            label = _chunk(b"labl", struct.pack("<I", number) + name.encode() + b"\0")
            if len(head) + len(points + point) + len(labels + label) + 48 > self.HEAD_BYTES:
                break
            points, labels = points + point, labels + label
        if points:
            head += _chunk(b"cue ", struct.pack("<I", len(points) // 24) + points) + _chunk(b"LIST", b"adtl" + labels)
        head += _chunk(b"JUNK", bytes(self.HEAD_BYTES - len(head) - 16)) + b"data" + struct.pack("<I", samples)
        self._file.seek(0)
        self._file.write(head)
        self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        self._file.close()


class _Flac:
    """A FLAC file of 24 bits, brought to the disk about once a second. It has no place for markers.

    The encoder enters the length only at the end, and many readers refuse a file without one: until then it is
    entered here (RFC 9639, section 8.2: the last 36 bits of the eight bytes at 18).
    """

    _LENGTH = 18
    #: What the encoder may still hold back: two of its largest frames.
    _HELD = 2 * 4608

    def __init__(self, path: Path, sample_rate_hz: int, channels: int) -> None:
        import soundfile

        self._rate, self._unsaved = sample_rate_hz, 0
        self._path, self._frames = path, 0
        self._file: Any = soundfile.SoundFile(path, "w", sample_rate_hz, channels, "PCM_24", format="FLAC")

    @classmethod
    def capacity_frames(cls, limit_bytes: int, channels: int) -> int:
        return 1 << 36  # what its header can count

    def write(self, frames: NDArray[np.float32]) -> None:
        self._file.write(frames)
        self._frames += len(frames)
        self._unsaved += len(frames)
        if self._unsaved >= self._rate:
            self._unsaved = 0
            self._file.flush()
            with self._path.open("r+b", buffering=0) as head:
                head.seek(self._LENGTH)
                fields = int.from_bytes(head.read(8), "big") >> 36 << 36
                head.seek(self._LENGTH)
                head.write((fields | max(0, self._frames - self._HELD)).to_bytes(8, "big"))

    def mark(self, markers: Sequence[tuple[int, str]]) -> None:
        pass

    def close(self) -> None:
        self._file.close()


class Take:
    """A sound file that grows while it is recorded and can be played at any moment.

    Its header is kept current, so that a killed process or a full disk leaves a playable file with everything up
    to then. A file that has reached the limit is followed by another one, ``NAME-2`` and so on, without a gap.

    Parameters
    ----------
    path : Path
        Ends in .wav (float32) or .flac (24 bits, no markers).
    sample_rate_hz, channels : int
    infix : str
        Put between name and ending: ``.dry`` makes ``NAME.dry.wav`` and ``NAME-2.dry.wav``.
    limit_bytes : int
        Largest size of a WAV file.

    Attributes
    ----------
    channels : int
    capacity_frames : int
        What one file holds; may be lowered before anything is written.
    parts : list of Path
        The files so far.
    problem : str or None
        Why nothing is written any more.

    Raises
    ------
    RtganError
        If the first file cannot be made.
    """

    def __init__(
        self, path: Path, sample_rate_hz: int, channels: int, infix: str = "", limit_bytes: int = LIMIT_BYTES
    ) -> None:
        import soundfile

        check_take(path)
        self._path, self._infix = path, infix
        self._kind = _Wav if path.suffix.lower() == ".wav" else _Flac
        self._errors: tuple[type[BaseException], ...] = (soundfile.SoundFileError, OSError, RuntimeError)
        self._rate, self.channels = sample_rate_hz, channels
        self.capacity_frames = self._kind.capacity_frames(limit_bytes, channels)
        self.problem: str | None = None
        self.frames = 0
        self.parts: list[Path] = []
        self._begin = 0
        self._markers: list[tuple[int, str]] = []
        try:
            self._file = self._open()
        except self._errors as problem:
            raise RtganError(f"{self.parts[-1]} cannot be written: {_reason(problem)}") from None

    def _open(self) -> _Wav | _Flac:
        number = f"-{len(self.parts) + 1}" if self.parts else ""
        self.parts.append(self._path.with_name(f"{self._path.stem}{number}{self._infix}{self._path.suffix}"))
        keep_older(self.parts[-1])
        return self._kind(self.parts[-1], self._rate, self.channels)

    def append(self, frames: NDArray[np.float32]) -> None:
        """Add frames, (frames, channels). After a failure (`problem`) the rest is let go."""
        while len(frames) and self.problem is None:
            room = self.capacity_frames - (self.frames - self._begin)
            piece, frames = frames[:room], frames[room:]
            self._try(lambda piece=piece: self._file.write(piece))  # type: ignore[misc]
            self.frames += len(piece)
            if len(frames):
                self._try(self._follow)

    def _follow(self) -> None:
        self._file.close()
        self._begin = self.frames
        self._file = self._open()
        self._mark()

    def mark(self, frame: int, name: str) -> None:
        """Put a marker at a frame counted from the first one; it may still be to come.

        One that lies in a file that is finished comes to the beginning of the present one.
        """
        self._markers.append((max(frame, self._begin), name))
        self._try(self._mark)

    def _mark(self) -> None:
        own = [(frame - self._begin, name) for frame, name in sorted(self._markers)]
        own = [(frame, name) for frame, name in own if 0 <= frame < self.capacity_frames]
        if own:
            self._file.mark(own)

    def _try(self, run: Callable[[], None]) -> None:
        if self.problem is not None:
            return
        try:
            run()
        except self._errors as problem:
            after = self.frames / self._rate
            self.problem = f"recording to {self.parts[-1]} stopped after {after:.1f} s: {_reason(problem)}"

    def close(self) -> None:
        """Finish the file."""
        try:
            self._file.close()
        except self._errors as problem:
            if self.problem is None:
                self.problem = f"{self.parts[-1]} could not be finished: {_reason(problem)}"
