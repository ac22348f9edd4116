"""How ``noisy_speech.flac`` was made: speech from espeak-ng's formant synthesiser, a room and noise from numpy.

Run ``python -m rtgan.demo.make_recording OUT.flac`` with espeak-ng and scipy installed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtgan.demo import RATE_HZ
from rtgan.io import files
from rtgan.offline import convert

_LINES = (
    ("en-gb", "Good evening, and thank you for having me. Can you hear me over all that noise?"),
    ("en-us+f3", "Yes, we can. The fan, the hum and the street go, and the voices stay."),
)
_SNR_DB = 6.0


def _speech() -> NDArray[np.float32]:
    parts = [np.zeros(RATE_HZ // 2, np.float32)]
    with tempfile.TemporaryDirectory() as folder:
        for number, (speaker, text) in enumerate(_LINES):
            path = Path(folder) / f"{number}.wav"
            subprocess.run(["espeak-ng", "-v", speaker, "-s", "145", "-w", str(path), text], check=True)
            samples, rate = files.read(path)
            parts += [convert(samples, rate, RATE_HZ)[0], np.zeros(RATE_HZ // 2, np.float32)]
    voice = np.concatenate(parts)
    return np.asarray(voice / np.abs(voice).max(), np.float32)


def _noise(length: int, rng: np.random.Generator) -> NDArray[np.float64]:
    t = np.arange(length) / RATE_HZ
    hz = np.fft.rfftfreq(length, 1 / RATE_HZ)
    white = np.fft.rfft(rng.standard_normal(length))
    fan = np.fft.irfft(white / np.sqrt(1 + (hz / 300) ** 2), length) * (1 + 0.2 * np.sin(2 * np.pi * 0.7 * t))
    hiss = np.fft.irfft(np.fft.rfft(rng.standard_normal(length)) * (hz > 2000), length)
    hum = np.sum([np.sin(2 * np.pi * 50 * k * t + k) / k for k in range(1, 9)], axis=0)
    street = np.fft.irfft(np.fft.rfft(rng.standard_normal(length)) * np.exp(-(((hz - 500) / 350) ** 2)), length)
    street *= 0.5 + 0.5 * np.sin(2 * np.pi * 0.13 * t + 2) ** 2

    def even(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(x / np.sqrt(np.mean(x**2)))

    return np.asarray(even(fan) + 0.25 * even(hiss) + 0.3 * even(hum) + 0.6 * even(street))


def main() -> None:
    """Write the recording."""
    from scipy.signal import fftconvolve

    rng = np.random.default_rng(20)
    voice = _speech()
    tail = int(0.18 * RATE_HZ)
    room = rng.standard_normal(tail) * np.exp(-6.9 * np.arange(tail) / tail) * 0.04
    room[0] = 1.0
    wet = fftconvolve(voice, room)[: len(voice)]
    noise = _noise(len(wet), rng)
    level = np.sqrt(np.mean(wet[np.abs(wet) > 0.02] ** 2))
    mix = wet + noise / np.sqrt(np.mean(noise**2)) * level * 10 ** (-_SNR_DB / 20)
    files.write(Path(sys.argv[1]), (0.6 * mix / np.abs(mix).max()).astype(np.float32)[None], RATE_HZ, "PCM_16")


if __name__ == "__main__":
    main()
