"""What is left of speech behind the codec, beside other codecs in the same run: `rtgan eval codec`.

Pieces of held-out speakers at 16 kHz go through each system; bit rates are what the codes really took, without files or
networks around them. Every system is played natively, as `rtgan encode` and `rtgan decode` do.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray
from tqdm import tqdm

from ..errors import UsageError
from ..kernels import spectra
from .data import Corpus, generated_corpus, load_corpus
from .opus import Opus
from .scoring import Dnsmos, intrusive_scores

Array = NDArray[np.float32]
RATE_HZ = spectra.RATE_HZ
SECONDS = 6.0
_RATES = (1600.0, 3000.0, 6000.0)
_SHIFT = 0.06
#: What the names of our systems begin with.
OURS = "rtgan, "


@dataclass(frozen=True)
class System:
    """A codec: from a piece to what comes out of it, and the bits that it took."""

    name: str
    run: Callable[[Array], tuple[Array, int]]


def ours(which: str | Path, bits_per_s: float, among: int = 1) -> System:
    """A model of ours at a bit rate; among several it is called by its file too."""
    from ..codec import bits, model

    loaded = model.load(which)
    stages = model.stages_of(loaded, bits_per_s)

    def run(sound: Array) -> tuple[Array, int]:
        encoder, decoder = model.Encoder(loaded), model.Decoder(loaded)
        codes = np.concatenate([encoder.push(sound, stages), encoder.end(stages)])
        told = bits.pack(loaded, codes, stages)
        out = np.concatenate([decoder.push(bits.unpack(loaded, told, len(codes), stages), stages), decoder.end()])
        return out[decoder.DELAY :][: len(sound)], 8 * len(told)

    name = f"{which}, " if among > 1 else ""
    return System(f"{OURS}{name}{stages} stages", run)


def opus(bits_per_s: int) -> System | None:
    """Opus; None without libopus."""
    try:
        peer = Opus(RATE_HZ, bits_per_s)
    except OSError:
        return None
    return System(peer.name, peer)


def codec2(bits_per_s: int) -> System | None:
    """Codec2 through its programs, at 8 kHz; None where they are missing."""
    if shutil.which("c2enc") is None or shutil.which("c2dec") is None:
        return None

    def run(sound: Array) -> tuple[Array, int]:
        slow = soxr.resample(sound, RATE_HZ, 8000)
        with tempfile.TemporaryDirectory() as folder:
            raw, told, back = (str(Path(folder) / name) for name in ("in.raw", "c2.bit", "out.raw"))
            np.pad((slow * 32767).astype(np.int16), (0, 800)).tofile(raw)
            for words in (["c2enc", str(bits_per_s), raw, told], ["c2dec", str(bits_per_s), told, back]):
                subprocess.run(words, check=True, capture_output=True, timeout=120)
            size = 8 * Path(told).stat().st_size * len(slow) // (len(slow) + 800)
            out = np.fromfile(back, np.int16).astype(np.float32) / 32768
        return aligned(soxr.resample(out, 8000, RATE_HZ), sound), size

    return System(f"Codec2 {bits_per_s / 1000:g} kbit/s", run)


def aligned(estimate: Array, target: Array) -> Array:
    """The estimate, earlier by what its envelope lies behind the target's, at most 60 ms; as long as the target."""
    hop = 40

    def envelope(sound: Array) -> NDArray[np.float64]:
        whole = sound[: len(sound) // hop * hop].reshape(-1, hop).astype(np.float64)
        return np.asarray(np.log(np.square(whole).mean(1) + 1e-6))

    given, wanted = envelope(estimate), envelope(target)
    most = round(_SHIFT * RATE_HZ / hop)
    count = min(len(wanted), len(given) - most)
    likeness = [float(np.corrcoef(given[k : k + count], wanted[:count])[0, 1]) for k in range(most)]
    shift = hop * int(np.argmax(likeness))
    return np.pad(estimate[shift : shift + len(target)], (0, max(0, len(target) - len(estimate) + shift)))


PEERS: dict[str, tuple[Callable[[int], System | None], tuple[int, ...]]] = {
    "opus": (opus, (6000, 9000, 12000)),
    "codec2": (codec2, (3200, 1200)),
}


def pieces(corpus: Corpus, count: int, seed: int) -> list[Array]:
    """Pieces of held-out speech, each of another clip as long as there are any."""
    clips = [c for c in corpus.pool("speech", True) if c.samples > 2 * SECONDS * c.sample_rate_hz]
    if not clips:
        clips = corpus.pool("speech", True)
    rng = np.random.default_rng(seed)
    out = []
    for number in range(count):
        if number % len(clips) == 0:
            order = rng.permutation(len(clips))
        clip = clips[int(order[number % len(clips)])]
        wanted = min(clip.samples, round(SECONDS * clip.sample_rate_hz))
        sound = corpus.read(clip, int(rng.integers(clip.samples - wanted + 1)), wanted)
        slow = soxr.resample(sound, clip.sample_rate_hz, RATE_HZ) if clip.sample_rate_hz != RATE_HZ else sound
        out.append(np.asarray(slow, np.float32))
    return out


def measure(
    sounds: Sequence[Array], systems: Sequence[System], dnsmos: Dnsmos | None, audio: Path | None = None
) -> dict[str, dict[str, float]]:
    """Means over the pieces, by system."""
    score = intrusive_scores()
    results: dict[str, dict[str, float]] = {}
    with tqdm(total=len(sounds) * (1 + len(systems)), unit="piece") as bar:
        for system in [System("as recorded", lambda sound: (sound, 0)), *systems]:
            rows, taken, spent = [], 0, 0.0
            for number, sound in enumerate(sounds):
                begun = time.process_time()
                heard, size = system.run(sound)
                spent += time.process_time() - begun
                taken += size
                told = score(heard, sound)
                if told is not None:
                    rows.append(told[:2] + (dnsmos(heard) if dnsmos is not None else []))
                if audio is not None and number < 6:
                    write(audio / f"{number}-{system.name.replace('/', ' per ')}.wav", heard, RATE_HZ)
                bar.update()
            seconds = sum(len(s) for s in sounds) / RATE_HZ
            names = ["pesq_wb", "stoi", "sig", "bak", "ovrl"]
            figures = dict(zip(names, np.mean(rows, 0).round(4).tolist(), strict=False)) if rows else {}
            results[system.name] = {"bit_s": round(taken / seconds), "load": round(spent / seconds, 4)} | figures
    return results


def write(path: Path, sound: Array, sample_rate_hz: int) -> None:
    """A piece as a sound file."""
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, sample_rate_hz)


def table(results: dict[str, dict[str, float]]) -> str:
    """Markdown."""
    last = next(iter(results.values()))
    names = [n for n in ("pesq_wb", "stoi", "sig", "bak", "ovrl") if n in last]
    titles = {"pesq_wb": "PESQ-WB", "stoi": "STOI", "sig": "SIG", "bak": "BAK", "ovrl": "OVRL"}
    lines = ["| system | bit/s | " + " | ".join(titles[n] for n in names) + " |", "|---" * (2 + len(names)) + "|"]
    for name, row in results.items():
        lines.append(f"| {name} | {row['bit_s']:.0f} | " + " | ".join(f"{row[n]:.3f}" for n in names) + " |")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``rtgan eval codec`` alone."""
    parser.add_argument("--music", action="store_true", help="codec: its music mode, beside Opus on music")


def eval_command(args: argparse.Namespace) -> int:
    """``rtgan eval codec``."""
    if args.music:
        from . import music_eval

        return music_eval.eval_command(args)
    if args.count < 1:
        raise UsageError(f"--count is {args.count} but must be at least 1.")
    models = args.model or ["codec"]
    systems = [ours(which, rate, len(models)) for which in models for rate in _RATES]
    wanted = [name for text in args.peers or () for name in text.split(",") if name]
    for name in PEERS if args.peers is None else wanted:
        if name not in PEERS:
            raise UsageError(f"The peer {name!r} is not known; for the codec there are {', '.join(PEERS)}.")
        make, rates = PEERS[name]
        found = [make(rate) for rate in rates]
        if None in found:
            print(f"{name} is skipped: it is not installed.")
        systems += [system for system in found if system is not None]
    corpus = load_corpus(args.data, args.cache) if args.data is not None else generated_corpus()
    dnsmos = Dnsmos(args.dnsmos) if args.dnsmos is not None else None
    results = measure(pieces(corpus, args.count, args.seed), systems, dnsmos, args.audio)
    print(table(results))
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0
