"""Measuring denoisers against the noisy input and against peers, all in one run on the same mixes.

Latencies have been undone before signals are compared; every score is taken at 16 kHz (`scoring`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..errors import RtganError, UsageError
from .data import Array, Corpus
from .mixing import PLAIN, SAMPLE_RATE_HZ, Mix, Mixer
from .peers import System
from .scoring import DNSMOS_METRICS, LABELS, METRICS, RATE_HZ, Dnsmos, at_16_khz, intrusive_scores


@dataclass
class Result:
    """Scores of one system: one row per mix, one column per metric."""

    name: str
    latency_ms: float
    metrics: tuple[str, ...] = METRICS
    scores: list[list[float]] = field(default_factory=list)

    def mean(self) -> dict[str, float]:
        """Mean of each metric over all mixes."""
        means = np.mean(np.asarray(self.scores), axis=0)
        return {name: round(float(value), 4) for name, value in zip(self.metrics, means, strict=True)}


@dataclass(frozen=True)
class Output:
    """What a system made of all mixes, ``(mixes, samples)`` at its own rate."""

    name: str
    latency_ms: float
    sample_rate_hz: int
    signals: Array


def development_mixes(corpus: Corpus, count: int, seed: int = 2024) -> list[Mix]:
    """Mixes of held-out recordings, without the alterations of training."""
    mixer = Mixer(corpus, PLAIN, seed, held_out=True)
    return [mixer(number) for number in range(count)]


def run_systems(mixes: Sequence[Mix], systems: Sequence[System], progress: bool = True) -> list[Output]:
    """The noisy input, then what every system makes of it; a system at 16 kHz is given the mixes at 16 kHz."""
    noisy = np.stack([mix.noisy for mix in mixes])
    narrow: Array | None = None
    outputs = [Output("noisy", 0.0, SAMPLE_RATE_HZ, noisy)]
    for system in tqdm(systems, desc="enhancing", unit="system", disable=not progress):
        given = noisy
        if system.sample_rate_hz == RATE_HZ:
            narrow = at_16_khz(noisy, SAMPLE_RATE_HZ) if narrow is None else narrow
            given = narrow
        outputs.append(Output(system.name, system.latency_ms, system.sample_rate_hz, system.enhance(given)))
    return outputs


def score(
    mixes: Sequence[Mix], outputs: Sequence[Output], dnsmos: Dnsmos | None = None, progress: bool = True
) -> list[Result]:
    """Score all outputs; a mix in which PESQ finds no speech is left out for all."""
    measure = intrusive_scores()
    metrics = METRICS + (DNSMOS_METRICS if dnsmos is not None else ())
    results = [Result(output.name, output.latency_ms, metrics) for output in outputs]
    for number, mix in enumerate(tqdm(mixes, desc="measuring", unit="mix", disable=not progress)):
        target = at_16_khz(mix.clean, SAMPLE_RATE_HZ)
        rows = []
        for output in outputs:
            signal = at_16_khz(output.signals[number], output.sample_rate_hz)[: len(target)]
            row = measure(signal, target)
            if row is None:
                break
            rows.append(row + (dnsmos(signal) if dnsmos is not None else []))
        else:
            for result, row in zip(results, rows, strict=True):
                result.scores.append(row)
    if not results[0].scores:
        raise RtganError("PESQ found no speech in any mix, so nothing could be measured.")
    return results


def evaluate_systems(
    mixes: Sequence[Mix], systems: Sequence[System], progress: bool = True, dnsmos: Dnsmos | None = None
) -> list[Result]:
    """Score the noisy input and every system on the same mixes."""
    return score(mixes, run_systems(mixes, systems, progress), dnsmos, progress)


def table(results: Sequence[Result]) -> str:
    """The means as text, one system per line."""
    width = max(len(r.name) for r in results)
    metrics = results[0].metrics
    lines = [f"{'system':{width}}  latency ms  " + "  ".join(f"{LABELS[m]:>9}" for m in metrics)]
    for result in results:
        mean = result.mean()
        figures = "  ".join(f"{mean[m]:9.2f}" if m == "si_sdr_db" else f"{mean[m]:9.3f}" for m in metrics)
        lines.append(f"{result.name:{width}}  {result.latency_ms:10.1f}  {figures}")
    return "\n".join(lines)


def as_json(results: Sequence[Result], mixes: Sequence[Mix], data: str) -> dict[str, Any]:
    """Figures for a file or a card."""
    return {
        "data": data,
        "mixes": len(results[0].scores),
        "snr_db": [min(round(m.snr_db, 1) for m in mixes), max(round(m.snr_db, 1) for m in mixes)],
        "sample_rate_hz": RATE_HZ,
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


def pyplot_of() -> Any:
    """Pyplot of matplotlib, drawing into files."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise UsageError("A figure needs the package matplotlib: pip install rtgan[plot].") from error
    return pyplot


def plot(results: Sequence[Result], mixes: Sequence[Mix], path: Path) -> None:
    """Each metric over the input's SNR, one line per system, means of four equal groups of mixes."""
    pyplot = pyplot_of()
    snr = np.array([m.snr_db for m in mixes])
    if len(results[0].scores) != len(snr):
        raise RtganError("Some mixes could not be measured, so there is no figure over SNR.")
    groups = [g for g in np.array_split(np.argsort(snr), min(4, len(snr))) if len(g)]
    metrics = results[0].metrics
    rows = -(-len(metrics) // 3)
    figure, axes = pyplot.subplots(rows, 3, figsize=(11, 3.4 * rows), constrained_layout=True, squeeze=False)
    for column, (axis, metric) in enumerate(zip(axes.flat, metrics, strict=True)):
        for result in results:
            scores = np.asarray(result.scores)[:, column]
            axis.plot([snr[g].mean() for g in groups], [scores[g].mean() for g in groups], "o-", label=result.name)
        axis.set_xlabel("SNR of the input (dB)")
        axis.set_ylabel(LABELS[metric])
        axis.grid(alpha=0.3)
    axes.flat[0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def write_audio(mixes: Sequence[Mix], outputs: Sequence[Output], folder: Path, count: int = 12) -> None:
    """The first `count` mixes to listen to and to look at.

    ``NNN_clean.wav``, ``NNN_noisy.wav`` and ``NNN_<system>.wav``, each at the rate of its system, and ``NNN.png``
    with a spectrogram of each. The PNGs are left out where matplotlib is missing.
    """
    import soundfile

    try:
        pyplot = pyplot_of()
    except UsageError:
        pyplot = None
    folder.mkdir(parents=True, exist_ok=True)
    for number, mix in enumerate(mixes[:count]):
        shown = [("clean", SAMPLE_RATE_HZ, mix.clean)]
        shown += [(output.name, output.sample_rate_hz, output.signals[number]) for output in outputs]
        for name, rate, signal in shown:
            soundfile.write(folder / f"{number:03d}_{name}.wav", np.clip(signal, -1, 1), rate, "PCM_16")
        if pyplot is None:
            continue
        figure, axes = pyplot.subplots(len(shown), 1, figsize=(9, 1.9 * len(shown)), sharex=True, sharey=True)
        for axis, (name, rate, signal) in zip(axes, shown, strict=True):
            size = 1024 * rate // SAMPLE_RATE_HZ // 2 * 2
            dithered = signal + np.float32(1e-6) * np.random.default_rng(0).standard_normal(len(signal), np.float32)
            axis.specgram(dithered, NFFT=size, Fs=rate, noverlap=size * 3 // 4, vmin=-140, vmax=-40, cmap="magma")
            axis.set_ylabel("Hz")
            axis.set_title(name, fontsize=8, loc="left")
        axes[-1].set_xlabel(f"seconds ({mix.kind}, {mix.snr_db:.1f} dB)")
        figure.tight_layout()
        figure.savefig(folder / f"{number:03d}.png", dpi=100)
        pyplot.close(figure)
