"""Scores of one enhanced signal: PESQ-WB, STOI, SI-SDR against the target, DNSMOS P.835 and PLCMOS without one.

All are taken at 16 kHz. PESQ-WB: ITU-T P.862.2. STOI: Taal et al. 2011. SI-SDR: Le Roux et al. 2019.
DNSMOS P.835: Reddy, Gopal and Cutler 2022. PLCMOS: Diener et al. 2023.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal
from numpy.typing import NDArray

from ..errors import RtganError, UsageError
from .data import Array

RATE_HZ = 16000
METRICS = ("pesq_wb", "stoi", "si_sdr_db")
DNSMOS_METRICS = ("dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl")
LABELS = {
    "pesq_wb": "PESQ-WB",
    "stoi": "STOI",
    "si_sdr_db": "SI-SDR dB",
    "dnsmos_sig": "SIG",
    "dnsmos_bak": "BAK",
    "dnsmos_ovrl": "OVRL",
    "plcmos": "PLCMOS",
}


def at_16_khz(signal: Array, sample_rate_hz: int) -> Array:
    """Signal ``(..., samples)`` brought to the rate of the scores."""
    if sample_rate_hz == RATE_HZ:
        return signal
    common = int(np.gcd(sample_rate_hz, RATE_HZ))
    return np.asarray(
        scipy.signal.resample_poly(signal, RATE_HZ // common, sample_rate_hz // common, axis=-1), np.float32
    )


def si_sdr_db(estimate: NDArray[Any], target: NDArray[Any]) -> float:
    """Scale-invariant signal-to-distortion ratio in decibel of two signals without mean."""
    wanted = np.asarray(target, np.float64) - np.mean(target, dtype=np.float64)
    given = np.asarray(estimate, np.float64) - np.mean(estimate, dtype=np.float64)
    aligned = wanted * (given @ wanted) / max(float(wanted @ wanted), 1e-20)
    error = given - aligned
    return float(10 * np.log10(max(float(aligned @ aligned), 1e-20) / max(float(error @ error), 1e-20)))


def intrusive_scores() -> Callable[[Array, Array], list[float] | None]:
    """A function of estimate and target, both at 16 kHz, that gives `METRICS`, or None where PESQ finds no speech."""
    try:
        from pesq import NoUtterancesError, pesq
        from pystoi import stoi
    except ImportError as error:
        raise RtganError(f"Measuring needs the package {error.name!r}: pip install rtgan[eval].") from error

    def measure(estimate: Array, target: Array) -> list[float] | None:
        try:
            quality = float(pesq(RATE_HZ, target, estimate, "wb"))
        except NoUtterancesError:
            return None
        return [quality, float(stoi(target, estimate, RATE_HZ)), si_sdr_db(estimate, target)]

    return measure


def open_onnx(path: Path, inputs: dict[str, tuple[int, ...]], what: str) -> Any:
    """An ONNX Runtime session on one thread whose inputs have these names and shapes (0: any length)."""
    try:
        import onnxruntime
    except ImportError as error:
        raise RtganError(f"{what} needs the package 'onnxruntime': pip install rtgan[eval].") from error
    if not path.is_file():
        raise UsageError(f"There is no model at {str(path)!r}.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has exception classes of its own for each cause
        raise RtganError(f"The file {str(path)!r} cannot be read as ONNX: {str(error).splitlines()[0]}") from error
    found = {i.name: tuple(n if isinstance(n, int) else 0 for n in i.shape) for i in session.get_inputs()}
    if found != inputs:
        raise UsageError(f"The file {str(path)!r} is not {what}: its inputs are {found}, wanted are {inputs}.")
    return session


class Dnsmos:
    """DNSMOS P.835: what listeners would say of the speech, of the background and over all, 1..5, without a target.

    The net hears 9.01 s at 16 kHz; its raw answers go through the polynomials that its authors published. Shorter
    signals are repeated, longer ones heard every second and averaged, as in the authors' script.
    """

    samples = 144160
    _SIG = (-0.08397278, 1.22083953, 0.0052439)
    _BAK = (-0.13166888, 1.60915514, -0.39604546)
    _OVRL = (-0.06766283, 1.11546468, 0.04602535)

    def __init__(self, path: Path) -> None:
        self._session = open_onnx(path, {"input_1": (0, self.samples)}, "DNSMOS P.835")

    def __call__(self, signal: Array) -> list[float]:
        """`DNSMOS_METRICS` of one signal at 16 kHz."""
        repeated = np.tile(np.asarray(signal, np.float32), -(-self.samples // max(1, len(signal))))
        heard = repeated[: self.samples] if len(signal) < self.samples else np.asarray(signal, np.float32)
        scores = []
        for start in range(0, len(heard) - self.samples + 1, RATE_HZ):
            piece = np.ascontiguousarray(heard[None, start : start + self.samples])
            raw = self._session.run(None, {"input_1": piece})[0][0]
            scores.append([np.polyval(p, v) for p, v in zip((self._SIG, self._BAK, self._OVRL), raw, strict=True)])
        return [float(value) for value in np.mean(scores, axis=0)]


class Plcmos:
    """PLCMOS v2: what listeners would say, 1..5, of speech in which gaps were filled, without a target.

    The net hears the logarithm of the power of short-time spectra (512 points, half overlap, Hamming window), and is
    asked as several listeners, whose tastes are drawn by chance, the same ones each time.
    """

    _BINS, _TASTE, _LISTENERS, _SEED = 257, 64, 15, 23

    def __init__(self, path: Path) -> None:
        inputs = {"degraded_audio": (0, 1, 0, self._BINS), "rater_embed": (0, self._TASTE)}
        self._session = open_onnx(path, inputs, "PLCMOS v2")
        self._tastes = np.random.RandomState(self._SEED).normal(size=(self._LISTENERS, self._TASTE)).astype(np.float32)
        self._window = np.hamming(513)[:-1]

    def __call__(self, signal: Array) -> float:
        """The mean of all listeners about one signal at 16 kHz."""
        frames = -(-(len(signal) + 256) // 256)
        padded = np.zeros((frames + 1) * 256)
        padded[256 : 256 + len(signal)] = signal
        pieces = np.lib.stride_tricks.sliding_window_view(padded, 512)[::256] * self._window
        power = np.abs(np.fft.rfft(pieces)) ** 2
        heard = power > 0
        # Silence lies 120 dB below the faintest that is heard.
        lowest = np.log(power[heard].min()) - 12 * np.log(10) if heard.any() else -8 * np.log(10)
        logs = np.log(np.where(heard, power, 1.0))
        given = np.where(heard, logs, lowest).astype(np.float32)[None, None] / np.float32(20)
        said = [self._session.run(None, {"degraded_audio": given, "rater_embed": t[None]})[0] for t in self._tastes]
        return float(np.mean(said))
