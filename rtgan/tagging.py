"""``rtgan tag``: what sounds when in a file, by the plugin `tags` as it plays live."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtgan import offline
from rtgan.errors import RtganError, UsageError
from rtgan.generators import library
from rtgan.generators.card import ANSWERS, MAINLY
from rtgan.generators.files import write_atomically
from rtgan.io import files
from rtgan.plugins.tags import STEP_S
from rtgan.presets import Entry, Preset

#: How a result can be written, by file name ending.
WRITABLE = (".csv", ".json", ".txt")
THRESHOLD = 0.5
#: Labels that hold where a more exact one may hold as well.
GENERAL = ("noise", "music")
_LABEL = "tags"
_QUIET = "silence"


@dataclass(frozen=True)
class Span:
    """A label that holds from one moment to another, with its mean probability meanwhile."""

    start_s: float
    end_s: float
    label: str
    probability: float


@dataclass(frozen=True)
class Recognised:
    """What sounds in a piece of audio, every 100 ms.

    Attributes
    ----------
    labels : tuple of str
    probabilities : ndarray of float32, (steps, labels)
        Row ``k`` means the 100 ms before `STEP_S` times ``k + 1`` seconds; live it is known `delay_s` later.
    named : ndarray of int64, (steps,)
        The one label that is named, by its place; -1 for none.
    seconds : float
        Length of the audio.
    delay_s : float
        By how much the answer comes later.
    """

    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]
    named: NDArray[np.int64]
    seconds: float
    delay_s: float = 0.0

    def spans(self, threshold: float = THRESHOLD, mainly: bool = False) -> list[Span]:
        """Where each label holds, in the order of beginnings; different labels may overlap.

        With ``mainly`` where each of `foremost` does instead, one after the other.
        """
        columns = {label: k for k, label in enumerate(self.labels) if not label.startswith(MAINLY)}
        if mainly:
            columns = self._candidates()
            foremost = np.array(self.foremost(threshold))
        found = []
        for label, k in columns.items():
            column = self.probabilities[:, k]
            holds = foremost == label if mainly else column >= threshold
            edges = np.flatnonzero(np.diff(np.concatenate(([0], holds, [0]))))
            for start, end in edges.reshape(-1, 2):
                until = min(float(end) * STEP_S, self.seconds)
                found.append(Span(float(start) * STEP_S, until, label, float(column[start:end].mean())))
        return sorted(found, key=lambda s: (s.start_s, columns[s.label]))

    def _candidates(self) -> dict[str, int]:
        """What `foremost` may be, and where its probability stands."""
        own = {label: k for k, label in enumerate(self.labels) if label == _QUIET}
        return own | {n.removeprefix(MAINLY): k for k, n in enumerate(self.labels) if n.startswith(MAINLY)}

    def tags(self, threshold: float = THRESHOLD, mainly: bool = False) -> list[str]:
        """The one label of every step, "" for none: what is named or, with ``mainly``, what is `foremost`."""
        return self.foremost(threshold) if mainly else [self.labels[k] if k >= 0 else "" for k in self.named]

    def foremost(self, threshold: float = THRESHOLD) -> list[str]:
        """Of every step what is mainly heard: silence or the kind that is probably the loudest; "" for neither."""
        candidates = self._candidates()
        names, rows = list(candidates), self.probabilities[:, list(candidates.values())]
        return [names[int(row.argmax())] if row.size and row.max() >= threshold else "" for row in rows]

    def means(self) -> dict[str, float]:
        """Mean probability of each label, silent steps left out where there are others."""
        rows = self.probabilities
        if _QUIET in self.labels:
            loud = rows[:, self.labels.index(_QUIET)] < THRESHOLD
            rows = rows[loud] if loud.any() else rows
        return {label: float(m) for label, m in zip(self.labels, rows.mean(0), strict=True)}

    def mostly(self, threshold: float = THRESHOLD, mainly: bool = False) -> str:
        """The label of the whole: the most probable one, a general one only where no exact one comes near it.

        With ``mainly`` what is `foremost` in most steps, silence only where nothing else is in any.
        """
        if mainly:
            said = [tag for tag in self.foremost(threshold) if tag]
            counts = Counter([tag for tag in said if tag != _QUIET] or said)
            return counts.most_common(1)[0][0] if counts else ""
        means = self.means()
        if _QUIET in means and means[_QUIET] >= THRESHOLD:
            return _QUIET
        there = [n for n in means if not n.startswith(MAINLY)]
        exact = max((n for n in there if n not in (*GENERAL, _QUIET)), key=lambda n: means[n], default="")
        general = max((n for n in means if n in GENERAL), key=lambda n: means[n], default="")
        if not exact or (general and means[exact] < 0.5 * means[general]):
            return general
        return exact


def recognise(
    samples: NDArray[np.float32],
    sample_rate_hz: int,
    model: str = "tags",
    threshold: float = THRESHOLD,
    progress: Callable[[int], Any] = lambda count: None,
    answer: str = "",
) -> Recognised:
    """Listen to audio as the live plugin does, faster than real time.

    Parameters
    ----------
    samples : ndarray of float32, (channels, samples)
    sample_rate_hz : int
        Any; rates that the engine does not run at are converted.
    model : str
        Name of a shipped model, or path of a file.
    threshold : float
        Probability from which a label is named.
    progress : callable
        Told how many of the samples, as converted, are done.
    answer : str
        Which of the model's answers, as the plugin's option says; by default the latest one that it has.

    Raises
    ------
    RtganError
        With one sentence.
    """
    seconds = samples.shape[1] / sample_rate_hz
    rate = sample_rate_hz
    if rate not in offline.ENGINE_RATES_HZ:
        rate = 48000
        samples = offline.convert(samples, sample_rate_hz, rate)
    card = library.card_of(model)
    answer = answer or ANSWERS[bool(card.late_frames)]
    preset = Preset("tags", (Entry("tags", {"threshold": threshold}, {"model": model, "answer": answer}),))
    renderer = offline.Renderer(preset, rate, samples.shape[0])
    step = round(STEP_S * rate)
    labels = tuple(name.partition(".")[2] for name in renderer.graph.readings)[:-1]
    rows = np.zeros((max(1, -(-samples.shape[1] // step)), len(labels)), np.float32)
    named = np.full(len(rows), -1, np.int64)
    frames = card.late_frames if answer == ANSWERS[1] else card.lookahead_frames
    delay = round(frames * card.hop_samples / card.sample_rate_hz / STEP_S)
    for k in range(len(rows) + delay):
        piece = samples[:, k * step : (k + 1) * step]
        # The last step is filled up with silence, and silence follows for as long as answers come late.
        renderer.push(np.pad(piece, ((0, 0), (0, step - piece.shape[1]))))
        if k >= delay:
            values = renderer.graph.readings
            rows[k - delay] = [values[f"{_LABEL}.{label}"] for label in labels]
            named[k - delay] = round(values[f"{_LABEL}.tag"])
        progress(piece.shape[1])
    return Recognised(labels, rows, named, seconds, delay * STEP_S)


def as_csv(results: Sequence[tuple[str, Recognised]], threshold: float = THRESHOLD, mainly: bool = False) -> str:
    """A line for every 100 ms: file, end of the step, the named label, every probability."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "time_s", "tag", *results[0][1].labels))
    for name, found in results:
        for k, (row, tag) in enumerate(zip(found.probabilities, found.tags(threshold, mainly), strict=True)):
            writer.writerow((name, f"{(k + 1) * STEP_S:.1f}", tag, *(f"{p:.4f}" for p in row)))
    return text.getvalue()


def as_json(
    results: Sequence[tuple[str, Recognised]], model: str, threshold: float = THRESHOLD, mainly: bool = False
) -> str:
    """One object a file, in a list."""
    listed = []
    for name, found in results:
        listed.append({
            "file": name,
            "seconds": round(found.seconds, 4),
            "model": model,
            "step_s": STEP_S,
            "labels": list(found.labels),
            "mostly": found.mostly(threshold, mainly),
            "means": {label: round(mean, 4) for label, mean in found.means().items()},
            "spans": [
                {"start_s": round(s.start_s, 1), "end_s": round(s.end_s, 4), "label": s.label,
                 "probability": round(s.probability, 4)}
                for s in found.spans(threshold, mainly)
            ],
            "tags": [tag or None for tag in found.tags(threshold, mainly)],
            "probabilities": [[round(float(p), 4) for p in row] for row in found.probabilities],
        })  # fmt: skip
    return json.dumps(listed, indent=1, ensure_ascii=False) + "\n"


def as_labels(found: Recognised, threshold: float = THRESHOLD, mainly: bool = False) -> str:
    """A label track for Audacity: start, end, name; seconds, with tabs between."""
    spans = found.spans(threshold, mainly)
    return "".join(f"{s.start_s:.6f}\t{s.end_s:.6f}\t{s.label} {s.probability:.2f}\n" for s in spans)


def draw(name: str, found: Recognised, path: Path) -> None:
    """A picture of the probabilities over time, a row for each label. Needs matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("a timeline needs the package matplotlib: pip install 'rtgan[plot]'") from None
    figure = Figure(figsize=(12, 0.6 + 0.28 * len(found.labels)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    extent = (0.0, len(found.probabilities) * STEP_S, len(found.labels) - 0.5, -0.5)
    image = axes.imshow(
        found.probabilities.T, aspect="auto", extent=extent, vmin=0, vmax=1, cmap="magma", interpolation="nearest"
    )
    axes.set_yticks(range(len(found.labels)), [label.replace("_", " ") for label in found.labels])
    axes.set_xlabel("seconds")
    axes.set_title(name, loc="left", fontsize=9)
    figure.colorbar(image, label="probability", pad=0.01)
    try:
        figure.savefig(path, dpi=110)
    except OSError as problem:
        raise RtganError(f"{path} cannot be written: {problem.strerror or problem}") from None


def _check(path: Path | None, endings: Sequence[str]) -> None:
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"the output {path} is a folder; give a file name")
    if path.suffix.lower() not in endings:
        raise UsageError(f"the output {path} must end in {', '.join(endings)}")
    if not path.parent.is_dir():
        raise UsageError(f"the folder {path.parent} of the output does not exist")
    if not os.access(path.parent, os.W_OK):
        raise RtganError(f"the folder {path.parent} cannot be written: permission denied")


def run(args: argparse.Namespace) -> int:
    """Recognise what sounds in every file; the first problem ends the run with one sentence."""
    _check(args.output, WRITABLE)
    _check(args.png, (".png",))
    if not 0.05 <= args.threshold <= 0.95:
        raise UsageError(f"--threshold is {args.threshold:g}; allowed: 0.05 to 0.95")
    if len(args.inputs) > 1 and (args.png or (args.output and args.output.suffix.lower() == ".txt")):
        raise UsageError("a label track and a timeline are of one file; name one, or write .csv or .json")
    labels = library.card_of(args.model).labels
    if args.mainly and labels and not any(label.startswith(MAINLY) for label in labels):
        raise UsageError(f"the model {args.model} does not tell what is mainly heard: leave --mainly out")
    results = []
    for source in args.inputs:
        samples, rate = files.read(source)
        found = recognise(samples, rate, args.model, args.threshold)
        results.append((str(source), found))
        if args.output is None:
            for span in found.spans(args.threshold, args.mainly):
                print(f"{span.start_s:8.1f} s  {span.end_s:8.1f} s  {span.probability:4.0%}  {span.label}")
        print(f"{source}: {found.seconds:.1f} s, mostly {found.mostly(args.threshold, args.mainly) or 'nothing known'}")
    if args.output is not None:
        suffix = args.output.suffix.lower()
        text = (
            as_csv(results, args.threshold, args.mainly) if suffix == ".csv"
            else as_json(results, args.model, args.threshold, args.mainly) if suffix == ".json"
            else as_labels(results[0][1], args.threshold, args.mainly)
        )  # fmt: skip
        try:
            write_atomically(args.output, text.encode())
        except OSError as problem:
            raise RtganError(f"{args.output} cannot be written: {problem.strerror or problem}") from None
    if args.png is not None:
        draw(Path(results[0][0]).name, results[0][1], args.png)
    return 0
