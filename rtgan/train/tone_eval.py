"""How near notes come to recordings that were held out: `rtgan eval synth`.

Every note whose pitch was kept from training is played by each system at the recording's pitch and velocity, and
compared with it: a multi-resolution spectral distance note by note, and the Fréchet distance (Heusel et al., NeurIPS
2017, there of features of pictures) between the log-mel frames of all recordings and of all that a system played. What
a system leaves to chance (phases, noise, how levels waver) is drawn `DRAWS` times.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UsageError
from ..kernels.partials import HARMONICS, TABLE_ROWS, Waver, noise_table
from .checkpoint import load_checkpoint
from .export import read_model
from .losses import MultiResolutionStft, level_scale
from .notes import FLOOR, HOP, RATE_HZ, Note, NoteCorpus
from .stft import mel_triangles
from .tone_export import net_of
from .tone_loop import PLAIN_VELOCITY, TASK, ToneConfig, notes_of, parse_tone_config
from .tones import Playing, one_hot, rendered, rows_of, stretched

Array = NDArray[np.float32]
SECONDS = 1.5
DRAWS = 6
"""How often what is left to chance is drawn; figures are means over these."""
_MELS = 64
_FLOOR_DB = -80.0


@dataclass(frozen=True)
class System:
    """Something that plays a note: ``play(note, samples, draw)``, of `draws` different ones."""

    name: str
    play: Callable[[Note, int, int], Array]
    draws: int = 1


def sampler(corpus: NoteCorpus) -> System:
    """The nearest recorded note of the timbre, in velocity first, its pitch shifted by resampling."""
    import soxr

    known = corpus.side(held_out=False)

    def play(note: Note, samples: int, draw: int) -> Array:
        near = min(
            (n for n in known if n.timbre == note.timbre),
            key=lambda n: (round(abs(n.velocity - note.velocity), 3), abs(n.pitch - note.pitch)),
        )
        sound = soxr.resample(corpus.sound(near), 48000.0, 48000.0 * near.hertz / note.hertz, "HQ")
        return np.pad(sound, (0, samples))[:samples].astype(np.float32)

    return System("nearest-note sampler", play)


@functools.cache
def _noise() -> Tensor:
    return torch.from_numpy(noise_table(RATE_HZ))


def _seed(note: Note, draw: int) -> int:
    return round(100 * note.pitch) + 100003 * draw


def _played(note: Note, levels: Tensor, stiffness: Tensor, samples: int, draw: int) -> Array:
    """The sound of a note whose levels are known frame by frame; phases and noise are drawn by its pitch."""
    generator = torch.Generator().manual_seed(_seed(note, draw))
    hertz = stretched(torch.tensor([note.hertz]), stiffness)
    phases = 2 * math.pi * torch.rand(1, HARMONICS, generator=generator)
    row = int(torch.randint(TABLE_ROWS, (), generator=generator))
    places = (row + torch.arange((len(levels) - 1) * HOP)) % TABLE_ROWS
    sound = rendered(levels[None], hertz, phases, _noise()[places][None], HOP, RATE_HZ)[0].numpy()
    sound[:HOP] *= np.arange(HOP, dtype=np.float32) / HOP
    return np.ascontiguousarray(sound[:samples])


def taken_apart(corpus: NoteCorpus) -> System:
    """What the synthesis makes of a recording's own partials and noise: as near as a net could come."""

    def play(note: Note, samples: int, draw: int) -> Array:
        own = slice(note.first, note.first + note.frames)
        levels = np.exp(np.concatenate([corpus.partials[own], corpus.noise[own]], 1).astype(np.float32))
        levels[levels < 2 * FLOOR] = 0
        moments = np.arange(samples // HOP + 2) * (HOP / RATE_HZ)
        between = np.stack([np.interp(moments, corpus.times[own], column) for column in levels.T], 1)
        return _played(
            note, torch.from_numpy(between.astype(np.float32)), torch.tensor([note.stiffness]), samples, draw
        )

    return System("resynthesis of its own partials and noise", play, DRAWS)


def _wavering(levels: Array, waver: Mapping[str, float], seed: int) -> Array:
    """Levels of frames that waver as those of a voice of the plugin do."""
    partials, noise = (float(waver.get(k, 0.0)) * math.log(10) / 20 for k in ("waver_db", "noise_waver_db"))
    keep = math.exp(-1000 * HOP / RATE_HZ / float(waver.get("waver_ms", 300.0)))
    one, out = Waver(seed), np.array(levels, np.float32, order="C")
    for row in out:
        one.go(row, partials, noise, keep)
    return out


def player(
    name: str, config: ToneConfig, net: Callable[[Tensor], Tensor], wavers: Sequence[Mapping[str, float]]
) -> System:
    """A net in its exported form; `wavers` has an entry for each timbre, as on a card."""
    count, latents = len(config.timbres), config.network.latents

    def play(note: Note, samples: int, draw: int) -> Array:
        frames = samples // HOP + 2
        velocity = note.velocity if note.velocity >= 0 else PLAIN_VELOCITY
        rows = rows_of(
            torch.full((frames,), note.pitch),
            torch.full((frames,), velocity),
            torch.arange(frames) * (HOP / RATE_HZ),
            one_hot([note.timbre], count).expand(frames, -1),
            torch.zeros(frames, latents),
        )
        with torch.no_grad():
            answers = net(rows)
        levels = _wavering(answers[:, :-1].numpy(), wavers[note.timbre], _seed(note, draw))
        return _played(note, torch.from_numpy(levels), answers[:1, -1], samples, draw)

    return System(name, play, DRAWS)


def system_of(path: Path) -> tuple[System, ToneConfig]:
    """An exported model (.ts), or a run folder."""
    if path.suffix == ".ts":
        module, card, _ = read_model(path)
        if card.get("task") != TASK:
            raise UsageError(f"The model {str(path)!r} plays no notes.")
        config = parse_tone_config(card["training"]["config"], str(path))
        # The table of a card knows no order, and a timbre's number is its place.
        config = dataclasses.replace(config, timbres={t["name"]: config.timbres[t["name"]] for t in card["timbres"]})
        return player(f"{path.stem} (exported)", config, module, card["timbres"]), config
    content = load_checkpoint(path)
    if content["config"].get("task") != TASK:
        raise UsageError(f"The run {str(path)!r} plays no notes.")
    config, net = net_of(content)
    kind = "adversarial" if config.adversary is not None else "without adversary"
    name = f"{path.name} ({kind}, {content['step']} steps)"
    return player(name, config, Playing(net).eval(), content.get("wavers") or [{}] * len(config.timbres)), config


def log_mel(sound: Array) -> NDArray[np.float64]:
    """``(frames, 64)`` in dB, frames of 2048 samples every 512, held at a floor."""
    window = np.hanning(2048).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(sound, (1024, 1024)), 2048)[::512] * window
    power = np.abs(np.fft.rfft(frames)) ** 2 / np.sum(window) ** 2
    bank = mel_triangles(power.shape[1], 2048, RATE_HZ, _MELS, 0.0, 16000.0)
    return np.asarray(10 * np.log10(power @ bank + 10 ** (_FLOOR_DB / 10)))


def frechet(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Distance of two clouds of frames, each taken for a normal distribution."""
    import scipy.linalg

    means = one.mean(0) - other.mean(0)
    # A trace of noise keeps the covariance of few frames from being singular.
    a, b = (np.cov(x.T) + 1e-6 * np.eye(x.shape[1]) for x in (one, other))
    root = scipy.linalg.sqrtm(a @ b).real
    return float(means @ means + np.trace(a + b - 2 * root))


def measure(corpus: NoteCorpus, systems: Sequence[System], audio: Path | None = None) -> dict[str, dict[str, Any]]:
    """Figures of every system, in all and by timbre."""
    distance = MultiResolutionStft((512, 1024, 2048), -60.0)
    names = list(corpus.timbres)
    held = corpus.side(held_out=True)
    if not held:
        raise UsageError("No note is held out: there is nothing to measure by.")
    results: dict[str, dict[str, Any]] = {}
    for system in systems:
        spectral: dict[str, list[float]] = {}
        real: list[NDArray[np.float64]] = []
        made: list[list[NDArray[np.float64]]] = [[] for _ in range(system.draws)]
        for note in held:
            samples = min(note.samples, int(SECONDS * RATE_HZ))
            target = corpus.sound(note)[:samples]
            for draw in range(system.draws):
                sound = system.play(note, samples, draw)
                both = torch.from_numpy(np.stack((sound, target)))
                both = both * level_scale(both[1:])
                spectral.setdefault(names[note.timbre], []).append(float(distance(both[:1], both[1:])))
                made[draw].append(log_mel(sound))
            real.append(log_mel(target))
            if audio is not None:
                import soundfile

                audio.mkdir(parents=True, exist_ok=True)
                stem = f"{names[note.timbre]}-{note.pitch:.0f}-{Path(note.file).stem}"
                soundfile.write(audio / f"{stem}-recorded.wav", target, RATE_HZ)
                soundfile.write(audio / f"{stem}-{system.name.split()[0]}.wav", sound, RATE_HZ)
        crowds = [frechet(np.concatenate(real), np.concatenate(m)) for m in made]
        every = [value for values in spectral.values() for value in values]
        results[system.name] = {
            "notes": len(held),
            "spectral": round(float(np.mean(every)), 4),
            "frechet": round(float(np.mean(crowds)), 2),
            "frechet_draws": [round(c, 1) for c in crowds],
            "spectral_by_timbre": {name: round(float(np.mean(v)), 4) for name, v in sorted(spectral.items())},
        }
    return results


def table(results: dict[str, dict[str, Any]]) -> str:
    """The figures as a Markdown table; less is nearer."""
    lines = ["| system | notes | spectral distance | Fréchet, log-mel |", "|---|---|---|---|"]
    for name, r in results.items():
        draws = r["frechet_draws"]
        span = f" ({min(draws):.0f} to {max(draws):.0f} in {len(draws)} draws)" if len(draws) > 1 else ""
        lines.append(f"| {name} | {r['notes']} | {r['spectral']:.3f} | {r['frechet']:.1f}{span} |")
    timbres = list(next(iter(results.values()))["spectral_by_timbre"])
    lines += ["", f"| spectral distance | {' | '.join(timbres)} |", "|---" * (1 + len(timbres)) + "|"]
    for name, result in results.items():
        cells = " | ".join(f"{result['spectral_by_timbre'][t]:.2f}" for t in timbres)
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def eval_command(args: argparse.Namespace) -> int:
    """``rtgan eval synth``."""
    shipped = Path(__file__).parents[1] / "weights"
    paths = args.model or [p for p in sorted(shipped.glob("*.ts")) if read_model(p)[1].get("task") == TASK]
    found = [system_of(path) for path in paths]
    config = found[0][1]
    for path, (_, other) in zip(paths, found, strict=True):
        if (other.timbres, other.held_out) != (config.timbres, config.held_out):
            raise UsageError(f"The model {str(path)!r} was trained on other notes than the first one.")
    corpus = notes_of(config, args.data, args.cache)
    results = measure(corpus, [*(system for system, _ in found), sampler(corpus), taken_apart(corpus)], args.audio)
    print(table(results))
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0
