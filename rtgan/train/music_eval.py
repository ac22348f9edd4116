"""What is left of music behind the codec, beside Opus in the same run: `rtgan eval codec --music`.

Scored by the multi-resolution mel distance of Kumar et al., "High-Fidelity Audio Compression with Improved RVQGAN"
(DAC, 2023): magnitudes of short-time spectra with Hann windows of 32 to 2048 samples, a quarter of that from one to
the next, in 5 to 320 mel bands (Slaney's, of equal area) up to 24 kHz; mean absolute difference of their decimal
logarithms, nothing below 1e-5; here the mean over all seven sizes, not their sum. And by the ratio of the sound to
its difference from what came back, in decibel, which noise in place of noise is bound to lose.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..errors import UsageError
from ..kernels import music
from .codec_eval import System, write
from .data import Array, Corpus, load_corpus
from .music_data import read, recordings
from .music_export import OURS
from .opus import Opus

#: Windows in samples, and mel bands of each.
RESOLUTIONS = ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))
SECONDS = 6.0
_RATES = (12000, 16000, 24000)
_FLOOR = 1e-5
#: Where the mel scale turns from linear to logarithmic, in hertz and mel, and how steep it is then.
_BREAK_HZ, _BREAK, _STEP = 1000.0, 15.0, np.log(6.4) / 27


@cache
def _bank(window: int, bands: int) -> Array:
    """Weights (bands, bins)."""
    top = _BREAK + np.log(music.RATE_HZ / 2 / _BREAK_HZ) / _STEP
    mel = np.linspace(0, top, bands + 2)
    edges = np.where(mel < _BREAK, mel * _BREAK_HZ / _BREAK, _BREAK_HZ * np.exp((mel - _BREAK) * _STEP))
    hertz = np.arange(window // 2 + 1) * (music.RATE_HZ / window)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle))
    return np.asarray(np.maximum(0, triangles) * 2 / (high - low), np.float32)


def _mel(sound: Array, window: int, bands: int) -> Array:
    """Logarithms of mel magnitudes (frames, bands)."""
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)
    whole = np.pad(sound, window // 2, mode="reflect" if len(sound) > window else "constant")
    whole = np.pad(whole, (0, max(0, window - len(whole))))
    frames = np.lib.stride_tricks.sliding_window_view(whole, window)[:: window // 4]
    magnitudes = np.abs(np.fft.rfft(frames * hann)).astype(np.float32)
    return np.asarray(np.log10(np.maximum(magnitudes @ _bank(window, bands).T, _FLOOR)))


def mel_distance(heard: Array, target: Array) -> float:
    """See the module; both at 48 kHz and of one length."""
    pairs = ((_mel(heard, *size), _mel(target, *size)) for size in RESOLUTIONS)
    return float(np.mean([np.abs(a - b).mean() for a, b in pairs]))


def signal_to_difference(heard: Array, target: Array) -> float:
    """In decibel."""
    both = [float(np.square(x.astype(np.float64)).sum()) for x in (target, heard - target)]
    return 10 * float(np.log10((both[0] + 1e-12) / (both[1] + 1e-12)))


def ours(which: str | Path, bits_per_s: int, among: int = 1) -> System:
    """A model of ours at a bit rate; among several it is called by its file too. All bytes of packets count."""
    from ..codec import music as player

    loaded = player.load(which)

    def run(sound: Array) -> tuple[Array, int]:
        sender, decoder = player.Sender(loaded, bits_per_s), player.Decoder(loaded)
        packets = [*sender.push(sound), *sender.end()]
        parts = [decoder.push(player.unpack(loaded, packet)) for packet in packets]
        out = np.concatenate([*parts, decoder.end()])[decoder.DELAY :]
        return out[: len(sound)], 8 * sum(map(len, packets))

    name = f"{which}, " if among > 1 else ""
    return System(f"{OURS}{name}{bits_per_s / 1000:g} kbit/s", run)


def opus(bits_per_s: int) -> System | None:
    """Opus, told that it is given music; None without libopus."""
    try:
        peer = Opus(music.RATE_HZ, bits_per_s, music=True)
    except OSError:
        return None
    return System(peer.name, peer)


def pieces(corpus: Corpus, count: int, seed: int) -> list[tuple[str, Array]]:
    """Beginnings of held-out recordings with the name of their folder, from every source in turn until all are used."""
    rng = np.random.default_rng(seed)
    clips = recordings(corpus, True)
    waiting: dict[str, list[Any]] = {}
    for number in rng.permutation(len(clips)).tolist():
        waiting.setdefault(clips[number].source, []).append(clips[number])
    out: list[tuple[str, Array]] = []
    while waiting and len(out) < count:
        for source in sorted(waiting):
            if len(out) < count:
                clip = waiting[source].pop()
                out.append((clip.file.split("/")[-2], read(corpus, clip, 0, SECONDS)))
            if not waiting[source]:
                del waiting[source]
    return out


def measure(
    sounds: Sequence[tuple[str, Array]], systems: Sequence[System], audio: Path | None = None
) -> dict[str, dict[str, Any]]:
    """Means over the pieces, by system; mel distances also by folder."""
    results: dict[str, dict[str, Any]] = {}
    folders = np.array([folder for folder, _ in sounds])
    with tqdm(total=len(sounds) * len(systems), unit="piece") as bar:
        for system in systems:
            rows: list[NDArray[np.float64]] = []
            taken = 0
            for number, (_, sound) in enumerate(sounds):
                heard, size = system.run(sound)
                taken += size
                rows.append(np.array([mel_distance(heard, sound), signal_to_difference(heard, sound)]))
                if audio is not None and number < 6:
                    write(audio / f"{number}-{system.name.replace('/', ' per ')}.wav", heard, music.RATE_HZ)
                bar.update()
            mel, ratio = np.mean(rows, 0).round(4).tolist()
            seconds = sum(len(sound) for _, sound in sounds) / music.RATE_HZ
            every, names = np.array(rows)[:, 0], sorted(set(folders.tolist()))
            results[system.name] = {
                "bit_s": round(taken / seconds), "mel": mel, "sdr_db": ratio,
                "mel_by_folder": {name: round(float(every[folders == name].mean()), 4) for name in names},
            }  # fmt: skip
    return results


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| system | bit/s | mel distance | SDR dB |", "|---|---|---|---|"]
    for name, row in results.items():
        lines.append(f"| {name} | {row['bit_s']:.0f} | {row['mel']:.4f} | {row['sdr_db']:.2f} |")
    folders = list(next(iter(results.values()))["mel_by_folder"])
    lines += ["", f"| mel distance | {' | '.join(folders)} |", "|---" * (1 + len(folders)) + "|"]
    for name, row in results.items():
        lines.append(f"| {name} | {' | '.join(f'{value:.4f}' for value in row['mel_by_folder'].values())} |")
    return "\n".join(lines)


def eval_command(args: argparse.Namespace) -> int:
    """``rtgan eval codec --music`` and ``rtgan eval music``."""
    if args.count < 1:
        raise UsageError(f"--count is {args.count} but must be at least 1.")
    if args.data is None:
        raise UsageError("Music is measured with recordings: say where they are with --data DIR.")
    models = args.model or ["music"]
    systems = [ours(which, rate, len(models)) for which in models for rate in _RATES]
    wanted = [name for text in args.peers or () for name in text.split(",") if name]
    for name in ["opus"] if args.peers is None else wanted:
        if name != "opus":
            raise UsageError(f"The peer {name!r} is not known; for music there is opus.")
        found = [opus(rate) for rate in _RATES]
        if None in found:
            print(f"{name} is skipped: it is not installed.")
        systems += [system for system in found if system is not None]
    results = measure(pieces(load_corpus(args.data, args.cache), args.count, args.seed), systems, args.audio)
    print(table(results))
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0
