"""How well gaps are filled: `rtgan eval repair`.

Packets of 20 ms of held-out speech are lost, by chance or in bursts (Gilbert, "Capacity of a Burst-Noise Channel",
1960: a burst is three packets long on average), and every system fills the same gaps. Opus codes the same speech and
conceals by itself what its decoder is not given.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ..errors import RtganError, UsageError
from . import mending_eval
from .checkpoint import load_checkpoint
from .data import Array, generated_corpus, load_corpus
from .evaluate import pyplot_of, write_json
from .export import read_model
from .mixing import PLAIN, SAMPLE_RATE_HZ, Mixer
from .opus import Opus
from .repair import Answers, Playing, Rehearsal, plain, repaired
from .repair_export import net_of
from .repair_loop import TASK
from .scoring import LABELS, RATE_HZ, Plcmos, at_16_khz, intrusive_scores

PACKET = SAMPLE_RATE_HZ // 50
RATES = (0.1, 0.2, 0.3)
KINDS = ("random", "bursts")
_SECONDS = 6.0
_BURST = 3.0
#: Packets at the beginning that always arrive.
_SAFE = 10
_OPUS_BITS = 32000
Lost = NDArray[np.bool_]


@dataclass(frozen=True)
class System:
    """Something that fills gaps: ``fill(speech, packets that are lost)``, both whole; it must not look at those."""

    name: str
    latency_ms: float
    fill: Callable[[Array, Lost], Array]


def packets_lost(count: int, rate: float, kind: str, seed: int) -> Lost:
    """Which of so many packets are lost."""
    rng = np.random.default_rng((seed, round(100 * rate), KINDS.index(kind)))
    lost = np.zeros(count, bool)
    bad = False
    for k in range(count):
        if kind == "random":
            bad = bool(rng.random() < rate)
        else:
            bad = bool(rng.random() >= 1 / _BURST) if bad else bool(rng.random() < rate / (1 - rate) / _BURST)
        lost[k] = bad
    lost[:_SAFE] = False
    return lost


def samples_lost(speech: Array, lost: Lost) -> Lost:
    """Which samples lost packets held."""
    return np.repeat(lost, PACKET)[: len(speech)]


def zeros(speech: Array, lost: Lost) -> Array:
    """Silence for every packet that is lost."""
    return np.where(samples_lost(speech, lost), np.float32(0), speech)


def repeats(speech: Array, lost: Lost) -> Array:
    """The last packet once more for each that is lost, gone after 60 ms."""
    out = zeros(speech, lost)
    run = 0
    for k in range(1, -(-len(speech) // PACKET)):
        run = run + 1 if lost[k] else 0
        if 0 < run <= 3:
            here = out[k * PACKET : (k + 1) * PACKET]
            before = out[(k - run) * PACKET : (k - run + 1) * PACKET][: len(here)]
            fade = 1 - (run - 1 + np.arange(len(here), dtype=np.float32) / PACKET) / 3
            here[:] = before * fade
    return out


def filler(name: str, answers: Answers) -> System:
    """The plugin's way to fill gaps, with a net."""
    rehearsal = Rehearsal(SAMPLE_RATE_HZ)

    def fill(speech: Array, lost: Lost) -> Array:
        return repaired(speech, samples_lost(speech, lost), answers, rehearsal=rehearsal)

    return System(name, 1000 * rehearsal.hop / SAMPLE_RATE_HZ, fill)


def system_of(path: Path) -> System:
    """An exported model, or the averaged weights of a run, one row after the other."""
    if path.suffix == ".ts":
        module, card, _ = read_model(path)
        if card.get("task") != TASK:
            raise UsageError(f"The model {str(path)!r} fills no gaps.")
        return filler(str(card["name"]), stepped(module, int(card["state_size"])))
    content = load_checkpoint(path)
    if content["config"].get("task") != TASK:
        raise UsageError(f"The run {str(path)!r} fills no gaps.")
    config, net = net_of(content)
    return filler(f"{config.name}@{content['step']}", stepped(Playing(net).eval(), net.width))


def stepped(module: torch.nn.Module, width: int) -> Answers:
    """What a module says of the rows of a gap, one after the other."""

    def answers(rows: Array) -> Array:
        state = torch.zeros(1, width)
        said = []
        with torch.inference_mode():
            for row in torch.from_numpy(rows):
                answer, state = module(row[None], state)
                said.append(answer)
        return np.asarray(torch.cat(said).numpy())

    return answers


def opus_system() -> System | None:
    """Opus' own concealment; None where libopus is missing."""
    try:
        opus = Opus(SAMPLE_RATE_HZ, _OPUS_BITS)
    except OSError:
        return None
    return System(opus.name, opus.LATENCY_MS, lambda speech, lost: opus(speech, lost)[0])


PEERS: dict[str, Callable[[], System | None]] = {"opus": opus_system}


@dataclass
class Scores:
    """Of one system: by kind of loss and rate, a row of figures for each piece of speech."""

    system: System
    rows: dict[tuple[str, float], list[list[float]]]

    def mean(self, kind: str, rate: float) -> list[float]:
        """Over all pieces."""
        return [float(v) for v in np.mean(self.rows[kind, rate], axis=0)]


def speech_of(data: Path | None, cache: Path | None, count: int, seed: int) -> list[Array]:
    """Held-out speech without noise, 48 kHz."""
    corpus = generated_corpus(seconds=_SECONDS) if data is None else load_corpus(data, cache)
    settings = dataclasses.replace(PLAIN, seconds=_SECONDS, pause_chance=0.0, reverb_chance=0.0)
    mixer = Mixer(corpus, settings, seed, held_out=True)
    return [mixer(number).clean for number in range(count)]


def measure(
    speech: Sequence[Array], systems: Sequence[System], plcmos: Plcmos | None = None, progress: bool = True
) -> tuple[tuple[str, ...], list[Scores]]:
    """Names of the figures, and those of every system; speech in which PESQ finds none is left out for all."""
    metrics = (("plcmos",) if plcmos is not None else ()) + ("pesq_wb", "stoi")
    scores = intrusive_scores()
    results = [Scores(system, {(k, r): [] for k in KINDS for r in RATES}) for system in systems]
    cases = [(number, kind, rate) for number in range(len(speech)) for kind in KINDS for rate in RATES]
    for number, kind, rate in tqdm(cases, desc="measuring", unit="case", disable=not progress):
        sound = speech[number]
        lost = packets_lost(-(-len(sound) // PACKET), rate, kind, number)
        target = at_16_khz(sound, SAMPLE_RATE_HZ)
        rows = []
        for system in systems:
            made = at_16_khz(system.fill(sound, lost), SAMPLE_RATE_HZ)
            figures = scores(made, target)
            if figures is None:
                break
            rows.append(([plcmos(made)] if plcmos is not None else []) + figures[:2])
        else:
            for result, row in zip(results, rows, strict=True):
                result.rows[kind, rate].append(row)
    if not all(results[0].rows.values()):
        raise RtganError("PESQ found no speech in any piece, so nothing could be measured.")
    return metrics, results


def table(metrics: Sequence[str], results: Sequence[Scores]) -> str:
    """The means as a Markdown table, one line per system and kind of loss."""
    labels = " | ".join(f"{LABELS[m]} at {100 * r:.0f} %" for m in metrics for r in RATES)
    lines = [f"| loss | system | latency ms | {labels} |", "|---" * (3 + len(metrics) * len(RATES)) + "|"]
    for kind in KINDS:
        for result in results:
            means = [result.mean(kind, rate) for rate in RATES]
            cells = " | ".join(f"{means[r][m]:.3f}" for m in range(len(metrics)) for r in range(len(RATES)))
            lines.append(f"| {kind} | {result.system.name} | {result.system.latency_ms:.1f} | {cells} |")
    return "\n".join(lines)


def as_json(metrics: Sequence[str], results: Sequence[Scores], data: str) -> dict[str, Any]:
    """Figures for a file or a card."""
    return {
        "data": data,
        "pieces": len(results[0].rows[KINDS[0], RATES[0]]),
        "packet_ms": 1000 * PACKET / SAMPLE_RATE_HZ,
        "sample_rate_hz": RATE_HZ,
        "machine": platform.machine(),
        "systems": {
            r.system.name: {
                "latency_ms": r.system.latency_ms,
                **{
                    f"{kind} {100 * rate:.0f} %": {
                        m: round(v, 4) for m, v in zip(metrics, r.mean(kind, rate), strict=True)
                    }
                    for kind in KINDS
                    for rate in RATES
                },
            }
            for r in results
        },
    }


def plot(metrics: Sequence[str], results: Sequence[Scores], path: Path) -> None:
    """Each figure over the share of packets that is lost; bursts are broken lines."""
    pyplot = pyplot_of()
    figure, axes = pyplot.subplots(1, len(metrics), figsize=(4 * len(metrics), 3.6), constrained_layout=True)
    for column, (axis, metric) in enumerate(zip(np.atleast_1d(axes), metrics, strict=True)):
        for number, result in enumerate(results):
            for kind, line in zip(KINDS, ("o-", "s--"), strict=True):
                shown = [result.mean(kind, rate)[column] for rate in RATES]
                label = f"{result.system.name}, {kind}"
                axis.plot([100 * r for r in RATES], shown, line, color=f"C{number}", label=label)
        axis.set_xlabel("packets lost (%)")
        axis.set_ylabel(LABELS[metric])
        axis.grid(alpha=0.3)
    np.atleast_1d(axes)[0].legend(fontsize=6)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def write_audio(speech: Sequence[Array], systems: Sequence[System], folder: Path, count: int = 4) -> None:
    """The first pieces at a fifth lost in bursts, as each system fills them."""
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    for number, sound in enumerate(speech[:count]):
        lost = packets_lost(-(-len(sound) // PACKET), 0.2, "bursts", number)
        soundfile.write(folder / f"{number:02d}_whole.wav", sound, SAMPLE_RATE_HZ)
        for system in systems:
            name = system.name.split(" ")[0].lower()
            soundfile.write(folder / f"{number:02d}_{name}.wav", system.fill(sound, lost), SAMPLE_RATE_HZ)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``rtgan eval repair`` that no other task has."""
    parser.add_argument("--plcmos", type=Path, metavar="FILE.onnx", help="repair: also score by this PLCMOS v2 model")
    parser.add_argument("--offline", action="store_true", help="repair: measure what 'rtgan process' mends instead")


def _eval_offline(args: argparse.Namespace) -> int:
    if args.model or args.png or args.audio:
        raise UsageError("--offline measures what is shipped, in figures alone; leave --model, --png and --audio out.")
    plcmos = Plcmos(args.plcmos) if args.plcmos is not None else None
    pieces = {
        "speech": speech_of(args.data, args.cache, args.count, args.seed),
        "music": mending_eval.music_of(args.data, args.cache, args.count, args.seed),
    }
    results = mending_eval.measure(pieces, plcmos)
    for damage, rows in results.items():
        print(f"{damage}\n\n{mending_eval.table(rows)}\n")
    if args.json is not None:
        content = {damage: {" / ".join(key): row for key, row in rows.items()} for damage, rows in results.items()}
        write_json(content, args.json)
    return 0


def eval_command(args: argparse.Namespace) -> int:
    """``rtgan eval repair``."""
    if args.count < 1:
        raise UsageError(f"--count is {args.count} but must be at least 1.")
    if args.offline:
        return _eval_offline(args)
    shipped = sorted((Path(__file__).parents[1] / "weights").glob("*.ts"))
    paths = args.model or [path for path in shipped if read_model(path)[1].get("task") == TASK]
    systems = [System("zeros", 0.0, zeros), System("repeat and fade", 0.0, repeats)]
    for name in PEERS if args.peers is None else args.peers:
        if name not in PEERS:
            raise UsageError(f"The peer {name!r} is not known; there are {', '.join(PEERS)}.")
        peer = PEERS[name]()
        if peer is None:
            print(f"{name} is skipped: its library is not installed.")
        else:
            systems.append(peer)
    systems += [filler("extension alone", plain), *(system_of(path) for path in paths)]
    plcmos = Plcmos(args.plcmos) if args.plcmos is not None else None
    speech = speech_of(args.data, args.cache, args.count, args.seed)
    if args.audio is not None:
        write_audio(speech, systems, args.audio)
    metrics, results = measure(speech, systems, plcmos)
    print(table(metrics, results))
    if args.json is not None:
        kind = "held-out recordings" if args.data is not None else "generated sounds"
        write_json(as_json(metrics, results, kind), args.json)
    if args.png is not None:
        plot(metrics, results, args.png)
    return 0
