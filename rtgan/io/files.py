"""Sound files: reading with one clear sentence for everything that can be wrong, and writing safely."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtgan.errors import RtganError, UsageError

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
    if path.suffix.lower() != ".wav":
        raise UsageError(f"the recording {path} must end in .wav")


class Take:
    """A sound file that grows while it is recorded and can be played at any moment.

    The header is brought up to date about once a second, so that a killed process or a full disk leaves a
    playable file with everything up to then.
    """

    def __init__(self, path: Path, sample_rate_hz: int, channels: int) -> None:
        import soundfile

        check_take(path)
        keep_older(path)
        self.path = path
        self._errors: tuple[type[BaseException], ...] = (soundfile.SoundFileError, OSError, RuntimeError)
        self.problem: str | None = None
        self.frames = 0
        self._unsaved = 0
        self._rate = sample_rate_hz
        try:
            self._file: Any = soundfile.SoundFile(path, "w", sample_rate_hz, channels, "FLOAT", format="WAV")
        except self._errors as problem:
            raise RtganError(f"{path} cannot be written: {_reason(problem)}") from None
        self._update_header()

    def append(self, frames: NDArray[np.float32]) -> None:
        """Add frames, (frames, channels). After a failure (`problem`) the rest is let go."""
        if self.problem is not None or len(frames) == 0:
            return
        try:
            self._file.write(frames)
            self.frames += len(frames)
            self._unsaved += len(frames)
            if self._unsaved >= self._rate:
                self._update_header()
                self._unsaved = 0
        except self._errors as problem:
            after = self.frames / self._rate
            self.problem = f"recording to {self.path} stopped after {after:.1f} s: {_reason(problem)}"

    def _update_header(self) -> None:
        # soundfile has no method for this; libsndfile's command 0x1060 is SFC_UPDATE_HEADER_NOW.
        import soundfile

        soundfile._snd.sf_command(self._file._file, 0x1060, soundfile._ffi.NULL, 0)
        self._file.flush()

    def close(self) -> None:
        """Finish the file."""
        try:
            self._file.close()
        except self._errors as problem:
            if self.problem is None:
                self.problem = f"{self.path} could not be finished: {_reason(problem)}"
