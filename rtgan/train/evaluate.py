"""Measuring denoisers against the noisy input and against peers, all in one run on the same mixes.

PESQ-WB (ITU-T P.862.2), STOI (Taal et al. 2011) and SI-SDR (Le Roux et al. 2019) are taken at 16 kHz after the
latency of each system has been undone.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ..errors import RtganError, UsageError
from .data import Array, Corpus
from .export import read_model
from .mixing import PLAIN, Mix, Mixer
from .networks import stream
from .stft import Stft

METRICS = ("pesq_wb", "stoi", "si_sdr_db")
_RATE_HZ = 16000


@dataclass(frozen=True)
class System:
    """Something that takes noisy signals ``(mixes, samples)`` at 48 kHz and returns them enhanced and aligned."""

    name: str
    latency_ms: float
    enhance: Callable[[Array], Array]


@dataclass
class Result:
    """Scores of one system: one row per mix, columns as `METRICS`."""

    name: str
    latency_ms: float
    scores: list[list[float]] = field(default_factory=list)

    def mean(self) -> dict[str, float]:
        """Mean of each metric over all mixes."""
        means = np.mean(np.asarray(self.scores), axis=0)
        return {name: round(float(value), 4) for name, value in zip(METRICS, means, strict=True)}


def si_sdr_db(estimate: NDArray[Any], target: NDArray[Any]) -> float:
    """Scale-invariant signal-to-distortion ratio in decibel of two signals without mean."""
    wanted = np.asarray(target, np.float64) - np.mean(target, dtype=np.float64)
    given = np.asarray(estimate, np.float64) - np.mean(estimate, dtype=np.float64)
    aligned = wanted * (given @ wanted) / max(float(wanted @ wanted), 1e-20)
    error = given - aligned
    return float(10 * np.log10(max(float(aligned @ aligned), 1e-20) / max(float(error @ error), 1e-20)))


def model_system(path: Path) -> System:
    """An exported model, run frame by frame as it plays live."""
    module, card, _ = read_model(path)
    stft = Stft(int(card["n_fft"]), int(card["hop_samples"]), int(card["synthesis_samples"]))
    lookahead, state_size = int(card["lookahead_frames"]), int(card["state_size"])

    def enhance(noisy: Array) -> Array:
        padded = np.pad(noisy, ((0, 0), (0, (lookahead + 1) * stft.hop_samples + (-noisy.shape[1]) % stft.hop_samples)))
        with torch.inference_mode():
            out = stream(module, stft.analyse(torch.from_numpy(padded)), state_size)
            return stft.synthesise(out[:, :, lookahead:])[:, : noisy.shape[1]].numpy()

    return System(str(card["name"]), 1000 * int(card["latency_samples"]) / int(card["sample_rate_hz"]), enhance)


def rnnoise_system() -> System | None:
    """RNNoise from the package pyrnnoise, or None where it is missing.

    What comes out of a call belongs to the frame of 10 ms two calls earlier: 20 ms, the collecting of a frame not
    counted.
    """
    if importlib.util.find_spec("pyrnnoise") is None:
        return None
    try:
        from pyrnnoise import rnnoise
    except (ImportError, OSError):
        return None
    frame = 480
    delay = 2 * frame

    def enhance(noisy: Array) -> Array:
        out = np.zeros_like(noisy)
        for row, signal in enumerate(noisy):
            samples = len(signal)
            padded = np.pad(signal, (0, delay + (-samples) % frame)) * np.float32(32768)
            pieces = np.ascontiguousarray(padded[: len(padded) // frame * frame].reshape(-1, frame), np.float32)
            state = rnnoise.create()
            try:
                for piece in pieces:
                    pointer = piece.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
                    rnnoise.lib.rnnoise_process_frame(state, pointer, pointer)
            finally:
                rnnoise.destroy(state)
            out[row] = pieces.reshape(-1)[delay : delay + samples] * np.float32(1 / 32768)
        return out

    return System("RNNoise", 20.0, enhance)


PEERS: dict[str, Callable[[], System | None]] = {"rnnoise": rnnoise_system}


def _metrics() -> Callable[[Array, Array], list[float] | None]:
    try:
        from pesq import NoUtterancesError, pesq
        from pystoi import stoi
    except ImportError as error:
        raise RtganError(f"Measuring needs the package {error.name!r}: pip install rtgan[eval].") from error

    def measure(estimate: Array, target: Array) -> list[float] | None:
        given = scipy.signal.resample_poly(estimate, 1, 48000 // _RATE_HZ)
        wanted = scipy.signal.resample_poly(target, 1, 48000 // _RATE_HZ)
        try:
            quality = float(pesq(_RATE_HZ, wanted, given, "wb"))
        except NoUtterancesError:
            return None
        return [quality, float(stoi(wanted, given, _RATE_HZ)), si_sdr_db(given, wanted)]

    return measure


def development_mixes(corpus: Corpus, count: int, seed: int = 2024) -> list[Mix]:
    """Mixes of held-out recordings, without the alterations of training."""
    mixer = Mixer(corpus, PLAIN, seed, held_out=True)
    return [mixer(number) for number in range(count)]


def evaluate_systems(mixes: Sequence[Mix], systems: Sequence[System], progress: bool = True) -> list[Result]:
    """Score the noisy input and every system on the same mixes; a mix without speech for PESQ is left out for all."""
    measure = _metrics()
    noisy = np.stack([mix.noisy for mix in mixes])
    outputs = [("noisy", 0.0, noisy)] + [(s.name, s.latency_ms, s.enhance(noisy)) for s in systems]
    results = [Result(name, latency) for name, latency, _ in outputs]
    for number, mix in enumerate(tqdm(mixes, desc="measuring", unit="mix", disable=not progress)):
        rows = [measure(signals[number], mix.clean) for _, _, signals in outputs]
        if all(row is not None for row in rows):
            for result, row in zip(results, rows, strict=True):
                assert row is not None
                result.scores.append(row)
    if not results[0].scores:
        raise RtganError("PESQ found no speech in any mix, so nothing could be measured.")
    return results


def table(results: Sequence[Result]) -> str:
    """The means as text, one system per line."""
    width = max(len(r.name) for r in results)
    lines = [f"{'system':{width}}  latency ms  PESQ-WB   STOI  SI-SDR dB"]
    for result in results:
        mean = result.mean()
        lines.append(
            f"{result.name:{width}}  {result.latency_ms:10.1f}  {mean['pesq_wb']:7.3f}  {mean['stoi']:.3f}  "
            f"{mean['si_sdr_db']:9.2f}"
        )
    return "\n".join(lines)


def as_json(results: Sequence[Result], mixes: Sequence[Mix], data: str) -> dict[str, Any]:
    """Figures for a file or a card."""
    return {
        "data": data,
        "mixes": len(results[0].scores),
        "snr_db": [min(round(m.snr_db, 1) for m in mixes), max(round(m.snr_db, 1) for m in mixes)],
        "sample_rate_hz": _RATE_HZ,
        "systems": {r.name: {"latency_ms": r.latency_ms, **r.mean()} for r in results},
    }


def for_card(figures: dict[str, Any], name: str) -> dict[str, Any]:
    """A model's own scores, and under ``compared`` those of the other systems, out of `as_json`'s figures."""
    try:
        systems = dict(figures["systems"])
        own = systems.pop(name)
        return {**own, **{k: figures[k] for k in ("data", "mixes", "snr_db")}, "compared": systems}
    except (KeyError, TypeError) as error:
        raise UsageError(f"The figures hold no scores of {name!r}.") from error


def write_json(figures: dict[str, Any], path: Path) -> None:
    """Write figures to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


def plot(results: Sequence[Result], mixes: Sequence[Mix], path: Path) -> None:
    """Each metric over the input's SNR, one line per system, means of four equal groups of mixes."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise UsageError("A figure needs the package matplotlib: pip install rtgan[eval].") from error
    snr = np.array([m.snr_db for m in mixes])
    if len(results[0].scores) != len(snr):
        raise RtganError("Some mixes could not be measured, so there is no figure over SNR.")
    groups = [g for g in np.array_split(np.argsort(snr), min(4, len(snr))) if len(g)]
    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.4), constrained_layout=True)
    for column, (axis, label) in enumerate(zip(axes, ("PESQ-WB", "STOI", "SI-SDR (dB)"), strict=True)):
        for result in results:
            scores = np.asarray(result.scores)[:, column]
            axis.plot([snr[g].mean() for g in groups], [scores[g].mean() for g in groups], "o-", label=result.name)
        axis.set_xlabel("SNR of the input (dB)")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
