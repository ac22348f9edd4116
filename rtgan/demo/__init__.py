"""The built-in recording: what a machine without a microphone plays, and what it shows afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtgan.errors import RtganError
from rtgan.io import files

RATE_HZ = 48000
_RECORDING = Path(__file__).resolve().parent / "noisy_speech.flac"
_FOLDER = Path("rtgan-demo")


def recording(rate_hz: int = RATE_HZ) -> NDArray[np.float32]:
    """The noisy speech, (1, samples). Synthesised; see ``make_recording.py`` beside this file."""
    samples, rate = files.read(_RECORDING)
    if rate == rate_hz:
        return samples
    import soxr

    return np.ascontiguousarray(soxr.resample(samples[0], rate, rate_hz)[None], np.float32)


def show(noisy: NDArray[np.float32], heard: NDArray[np.float32], latency_samples: int, rate_hz: int = RATE_HZ) -> None:
    """Write what went in, what came out and a picture of both to the folder ``rtgan-demo``."""
    length = min(noisy.shape[1], heard.shape[1] - latency_samples)
    if length <= 0:
        return
    clean = np.ascontiguousarray(heard[:1, latency_samples : latency_samples + length])
    noisy = np.ascontiguousarray(noisy[:, :length])
    try:
        _FOLDER.mkdir(exist_ok=True)
    except OSError as problem:
        raise RtganError(f"the folder {_FOLDER} cannot be made here: {problem.strerror}") from None
    files.write(_FOLDER / "before.wav", noisy, rate_hz, "PCM_16")
    files.write(_FOLDER / "after.wav", clean, rate_hz, "PCM_16")
    print(f"wrote {_FOLDER}/before.wav and {_FOLDER}/after.wav")
    picture = _FOLDER / "before-after.png"
    try:
        spectrograms(picture, [("before", noisy[0]), ("after", clean[0])], rate_hz)
    except ImportError:
        print("for a picture of both: pip install 'rtgan[plot]'")
        return
    print(f"wrote {picture}")


def spectrograms(path: Path, sounds: list[tuple[str, NDArray[np.float32]]], sample_rate_hz: int) -> None:
    """Draw spectrograms under each other, same scale, to a PNG. Needs matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.6 * len(sounds)), layout="constrained")
    axes = figure.subplots(len(sounds), 1, sharex=True, squeeze=False)[:, 0]
    image: Any = None
    for axis, (title, sound) in zip(axes, sounds, strict=True):
        _, _, _, image = axis.specgram(
            sound + 1e-9, NFFT=1024, Fs=sample_rate_hz, noverlap=768, vmin=-140, vmax=-40, cmap="magma"
        )
        axis.set_ylim(0, min(12000, sample_rate_hz / 2))
        axis.set_title(title)
        axis.set_ylabel("Hz")
    axes[-1].set_xlabel("seconds")
    figure.colorbar(image, ax=list(axes), label="dB per Hz")
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(str(path))
