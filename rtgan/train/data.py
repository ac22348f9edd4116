"""Recordings: found in a folder, decoded once into a memory-mapped cache, split into training and development.

The folder holds ``speech*/``, ``singing/``, ``noise/``, ``music/`` and ``rir/`` with audio files in any layout
below. An optional ``manifest.json`` (a list of ``{"file", "licence", "source", ...}``) names the origin of each
file, which ends up in the model card. Without a folder, generated sounds take the place of recordings.

A pack is a subset of such a folder in one file, for machines that have no room for all of it: a zip archive of the
compressed recordings with their origin and their side of the split, see `pack`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from .. import kernel_cache
from ..errors import UsageError

Array = NDArray[np.float32]
ROLES = ("speech", "noise", "music", "rir")
_SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"}
_CACHE_FORMAT = 2
_HELD_OUT_FRACTION = {"speech": 0.12, "noise": 0.15, "music": 0.12, "rir": 0.0}


@dataclass(frozen=True)
class Clip:
    """One recording inside the cache. `group` is what must not be split: a speaker, a take, an instrument."""

    file: str
    role: str
    group: str
    source: str
    licence: str
    sample_rate_hz: int
    start: int
    samples: int
    weight: float
    held_out: bool


def _role(path: Path) -> str | None:
    top = path.parts[0].lower()
    if top.startswith(("speech", "singing", "voice")):
        return "speech"
    for role in ROLES:
        if top.startswith(role):
            return role
    return None


def _weight(role: str, entry: dict[str, Any]) -> float:
    # A tier grades how clean a target is; a noisy target teaches the net to leave noise in.
    return {"B": 0.3}.get(str(entry.get("tier")), 1.0) if role == "speech" else 1.0


def _group(path: Path, role: str, entry: dict[str, Any]) -> str:
    if "recording" in entry:
        return str(entry["recording"])
    if role == "music":
        return path.parent.as_posix() if len(path.parts) > 2 else path.stem
    if path.parts[0] in ("speech48", "singing"):
        return str(entry.get("source", path.parent.as_posix()))
    return re.sub(r"(_raw)?_?\d$", "", path.stem) if role == "noise" else path.stem


def _fraction(text: str) -> float:
    return int(hashlib.sha1(text.encode()).hexdigest()[:8], 16) / 2**32


def only_for_training(entry: Mapping[str, Any]) -> bool:
    """Whether a line of the manifest says that nothing is to be measured by the recording."""
    if entry.get("only", "train") != "train":
        raise UsageError(f"manifest.json: {entry['file']}: 'only' is {entry['only']!r} but can only be 'train'.")
    return "only" in entry


def scan(folder: Path) -> list[dict[str, Any]]:
    """List the recordings of a data folder: ``file, role, group, source, licence, weight, held_out``."""
    if not folder.is_dir():
        raise UsageError(f"The data folder {str(folder)!r} does not exist.")
    manifest: dict[str, dict[str, Any]] = {}
    index = folder / "manifest.json"
    if index.is_file():
        try:
            manifest = {entry["file"]: entry for entry in json.loads(index.read_text("utf-8"))}
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{index.name} in the data folder is not a JSON list of objects with a 'file' key."
            ) from error
    found: list[dict[str, Any]] = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.suffix.lower() not in _SUFFIXES or len(relative.parts) < 2:
            continue
        role = _role(relative)
        if role is None:
            continue
        entry = manifest.get(relative.as_posix(), {})
        found.append(
            {
                "file": relative.as_posix(),
                "role": role,
                "group": _group(relative, role, entry),
                "source": str(entry.get("source", relative.parts[0])),
                "licence": str(entry.get("licence", "not stated")),
                "weight": _weight(role, entry),
            }
        )
    if not any(item["role"] == "speech" for item in found):
        raise UsageError(f"The data folder {str(folder)!r} has no audio files under 'speech*/'.")
    groups: dict[tuple[str, str], set[str]] = {}
    for item in found:
        groups.setdefault((item["role"], item["source"]), set()).add(item["group"])
    for item in found:
        # A source that is one group (a single voice) would be lost to training if it were held out.
        alone = len(groups[item["role"], item["source"]]) < 4 and item["role"] != "noise"
        kept = alone or only_for_training(manifest.get(item["file"], {}))
        item["held_out"] = not kept and _fraction(item["group"]) < _HELD_OUT_FRACTION[item["role"]]
    return found


class Corpus:
    """Decoded recordings, memory-mapped; safe to share between processes that only read."""

    def __init__(self, clips: list[Clip], audio: NDArray[np.int16]) -> None:
        self.clips = clips
        self._audio = audio
        self._pools: dict[tuple[str, bool], tuple[list[Clip], NDArray[np.float64]]] = {}
        for role in ROLES:
            for held_out in (False, True):
                pool = [c for c in clips if c.role == role and c.held_out is held_out]
                self._pools[role, held_out] = (pool, self._probabilities(pool))

    @staticmethod
    def _probabilities(pool: list[Clip]) -> NDArray[np.float64]:
        """Chance of each clip: weight times the square root of length, balanced over groups.

        The square root keeps one long file from drowning the short ones and the other way round.
        """
        if not pool:
            return np.zeros(0)
        size: dict[str, float] = {}
        for clip in pool:
            size[clip.group] = size.get(clip.group, 0.0) + clip.samples / clip.sample_rate_hz
        raw = np.array([c.weight * c.samples / c.sample_rate_hz / size[c.group] ** 0.5 for c in pool])
        return np.asarray(raw / raw.sum())

    def pool(self, role: str, held_out: bool) -> list[Clip]:
        """Clips of a role on one side of the split."""
        return self._pools[role, held_out][0]

    def draw(self, rng: np.random.Generator, role: str, held_out: bool) -> Clip | None:
        """One clip by chance, or None where the corpus has no such clips."""
        pool, chance = self._pools[role, held_out]
        return pool[int(rng.choice(len(pool), p=chance))] if pool else None

    def read(self, clip: Clip, offset: int, samples: int, wrap: bool = False) -> Array:
        """Samples of a clip as float32 in -1..1; past its end silence follows, or its beginning with `wrap`."""
        out = np.zeros(samples, np.float32)
        done = 0
        while done < samples:
            begin = offset % clip.samples if wrap else offset
            part = self._audio[clip.start + begin : clip.start + min(clip.samples, begin + samples - done)]
            if len(part) == 0:
                break
            out[done : done + len(part)] = part
            done, offset = done + len(part), offset + len(part)
        out *= np.float32(1 / 32768)
        return out

    def sources(self) -> list[dict[str, Any]]:
        """What the corpus is made of: name, licence, roles, hours; for the model card."""
        hours: dict[tuple[str, str], float] = {}
        roles: dict[tuple[str, str], set[str]] = {}
        for clip in self.clips:
            key = (clip.source, clip.licence)
            hours[key] = hours.get(key, 0.0) + clip.samples / clip.sample_rate_hz / 3600
            roles.setdefault(key, set()).add(clip.role)
        return [
            {"name": key[0], "licence": key[1], "roles": sorted(roles[key]), "hours": round(hours[key], 3)}
            for key in sorted(hours)
        ]


def default_cache() -> Path:
    """Where decoded recordings go unless told otherwise."""
    return kernel_cache.user_cache() / "train-data"


def _decode(path: Path | io.BytesIO, name: str) -> tuple[NDArray[np.int16], int]:
    """First channel of a recording and its rate; pieces that cannot be decoded are left out."""
    import soundfile

    blocks: list[NDArray[np.int16]] = []
    rate, lost = 1, 0
    try:
        with soundfile.SoundFile(path) as sound:
            rate = int(sound.samplerate)
            piece = max(1, rate // 10)
            for start in range(0, sound.frames, piece):
                try:
                    if lost and sound.tell() != start:
                        sound.seek(start)
                    blocks.append(np.ascontiguousarray(sound.read(piece, "int16", always_2d=True)[:, 0]))
                except soundfile.LibsndfileError:
                    lost += 1
    except (soundfile.LibsndfileError, OSError) as error:
        tqdm.write(f"{name} is left out: {error}", file=sys.stderr)
    if lost:
        tqdm.write(f"{name} is damaged: {lost / 10:.1f} s of it are left out.", file=sys.stderr)
    return (np.concatenate(blocks) if blocks else np.zeros(0, np.int16)), rate


_CLIPS = "clips.json"
_NOTICE = "LICENCES.txt"
_PACK_SHARES = {"rir": 0.02, "noise": 0.36, "music": 0.1, "speech": 1.0}  # of what is left, in this order
_HELD_OUT_SHARE = 0.08


def _packed(path: Path, name: str) -> tuple[str, bytes]:
    """Name and bytes of a recording as a pack keeps it: as it is where it is compressed, or else as FLAC."""
    if path.suffix.lower() in (".opus", ".ogg", ".flac", ".mp3"):
        return name, path.read_bytes()
    import soundfile

    audio, rate = _decode(path, name)
    stream = io.BytesIO()
    soundfile.write(stream, audio, rate, "PCM_16", format="FLAC")
    return f"{name}.flac", stream.getvalue()


def _pack_order(items: list[dict[str, Any]], sizes: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Recordings so that any beginning of the series has a bit of every source, the better ones first."""
    waiting: dict[str, list[dict[str, Any]]] = {}
    for item in sorted(items, key=lambda item: (_fraction(item["file"]) / item["weight"], item["file"]), reverse=True):
        waiting.setdefault(item["source"], []).append(item)
    whole = {source: sum(sizes[item["file"]] for item in queue) ** 0.5 for source, queue in waiting.items()}
    taken = dict.fromkeys(waiting, 0.0)
    while waiting:
        source = min(waiting, key=lambda source: (taken[source] / whole[source], source))
        item = waiting[source].pop()
        taken[source] += sizes[item["file"]]
        if not waiting[source]:
            del waiting[source]
        yield item


def pack(folder: Path, path: Path, megabytes: float = 60.0, progress: bool = True) -> list[dict[str, Any]]:
    """Write a subset of a data folder into one file that `load_corpus` reads.

    All rooms, then noise, music and speech get a share; within each every source has its part. Recordings keep their
    side of the split. The archive holds ``clips.json`` with role, source and licence of each, and ``LICENCES.txt``.

    Parameters
    ----------
    folder : Path
        Data folder.
    path : Path
        File to write, atomically.
    megabytes : float
        Size not to exceed, in 10^6 bytes.

    Returns
    -------
    list of dict
        What was packed, as `scan` gives it.
    """
    if megabytes <= 0:
        raise UsageError(f"The size of a pack is {megabytes:g} MB but must be above 0.")
    found = scan(folder)
    sizes = {item["file"]: max(1, (folder / item["file"]).stat().st_size) for item in found}
    chosen: list[dict[str, Any]] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".tmp")
    left = megabytes * 1e6 - 4096
    with (
        zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive,
        tqdm(total=int(left), desc="packing", unit="B", unit_scale=True, disable=not progress) as bar,
    ):
        for role, share in _PACK_SHARES.items():
            for held_out, side in ((True, _HELD_OUT_SHARE), (False, 1.0)):
                room = left * share * side
                for item in _pack_order([i for i in found if (i["role"], i["held_out"]) == (role, held_out)], sizes):
                    name, content = _packed(folder / item["file"], item["file"])
                    # the archive's two headers, and the recording's lines in the lists
                    cost = len(content) + 2 * len(name) + 128 + 2 * len(json.dumps(item))
                    if cost > room:
                        continue
                    archive.writestr(zipfile.ZipInfo(name), content)
                    chosen.append(item | {"file": name})
                    room, left = room - cost, left - cost
                    bar.update(cost)
        if not any(item["role"] == "speech" and not item["held_out"] for item in chosen):
            archive.close()
            partial.unlink()
            raise UsageError(f"{megabytes:g} MB are too few: no speech for training fits.")
        archive.writestr(zipfile.ZipInfo(_CLIPS), json.dumps(chosen))
        origins = sorted({(item["source"], item["licence"]) for item in chosen})
        notice = "".join(f"{source}: {licence}\n" for source, licence in origins)
        archive.writestr(zipfile.ZipInfo(_NOTICE), notice)
    os.replace(partial, path)
    return chosen


def _open_pack(path: Path) -> tuple[zipfile.ZipFile, list[dict[str, Any]]]:
    try:
        archive = zipfile.ZipFile(path)
        found: list[dict[str, Any]] = json.loads(archive.read(_CLIPS))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise UsageError(f"The file {str(path)!r} is not a pack of recordings.") from error
    return archive, found


@contextmanager
def filled(target: Path, *names: str) -> Iterator[Path]:
    """A folder to write a cache's files into, which come into ``target`` in this order once all are whole.

    Another run may be at the same: neither reads what the other has not finished.
    """
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target) as folder:
        yield Path(folder)
        for name in names:
            os.replace(Path(folder) / name, target / name)


def load_corpus(data: Path, cache: Path | None = None, progress: bool = True) -> Corpus:
    """Open the cache of a data folder or pack and build it first where it is missing or the data have changed."""
    archive: zipfile.ZipFile | None = None
    digest = hashlib.sha256(f"format {_CACHE_FORMAT}\n".encode())
    if data.is_file():
        archive, found = _open_pack(data)
        for info in archive.infolist():
            digest.update(f"{info.filename} {info.file_size} {info.CRC}\n".encode())
    else:
        found = scan(data)
        for item in found:
            stat = (data / item["file"]).stat()
            digest.update(f"{item['file']} {stat.st_size} {int(stat.st_mtime)}\n".encode())
    target = (cache or default_cache()) / digest.hexdigest()[:16]
    spans_path, audio_path = target / "spans.json", target / "audio.i16"

    def decoded(name: str) -> tuple[NDArray[np.int16], int]:
        return _decode(data / name if archive is None else io.BytesIO(archive.read(name)), name)

    if not spans_path.is_file():
        spans: dict[str, tuple[int, int, int]] = {}
        position = 0
        names = [item["file"] for item in found]
        with filled(target, audio_path.name, spans_path.name) as folder:
            # decoders let go of the interpreter: threads are enough to use all cores; a few at a time bound the memory
            with (folder / audio_path.name).open("wb") as stream, ThreadPoolExecutor(os.cpu_count()) as pool:
                bar = tqdm(total=len(names), desc="decoding", unit="file", disable=not progress, smoothing=0.05)
                for begin in range(0, len(names), 64):
                    some = names[begin : begin + 64]
                    for name, (mono, rate) in zip(some, pool.map(decoded, some), strict=True):
                        stream.write(mono.tobytes())
                        spans[name] = (int(rate), position, len(mono))
                        position += len(mono)
                        bar.update()
                bar.close()
            (folder / spans_path.name).write_text(json.dumps(spans), "utf-8")
    if archive is not None:
        archive.close()
    spans = {file: tuple(span) for file, span in json.loads(spans_path.read_text("utf-8")).items()}
    clips = [
        Clip(
            **item,
            sample_rate_hz=spans[item["file"]][0],
            start=spans[item["file"]][1],
            samples=spans[item["file"]][2],
        )
        for item in found
        if spans[item["file"]][2] > 0
    ]
    return Corpus(clips, np.memmap(audio_path, np.int16, "r"))


def generated_corpus(seed: int = 0, seconds: float = 4.0, voices: int = 12) -> Corpus:
    """Speech-like and noise-like sounds from a formula, so that everything runs without any recording.

    Voices are pulse trains with gliding pitch through three wandering resonances, cut into syllables.
    """
    from .mixing import generated_noise, generated_voice

    rate = 48000
    samples = int(seconds * rate)
    clips: list[Clip] = []
    parts: list[NDArray[np.int16]] = []
    position = 0
    for number in range(2 * voices):
        voice = number < voices
        rng = np.random.default_rng((seed, number))
        audio = generated_voice(rng, samples, rate) if voice else generated_noise(rng, samples, rate)
        audio = audio * np.float32(0.5 / max(float(np.max(np.abs(audio))), 1e-6))
        parts.append((audio * 32767).astype(np.int16))
        role, name = ("speech", f"voice-{number}") if voice else ("noise", f"noise-{number - voices}")
        held_out = number % voices >= voices - max(1, voices // 6)
        clips.append(Clip(name, role, name, "generated", "MIT", rate, position, samples, 1.0, held_out))
        position += samples
    return Corpus(clips, np.concatenate(parts))


def describe(corpus: Corpus) -> str:
    """One line per role: clips and hours for training and held out."""
    lines = []
    for role in ROLES:
        texts = []
        for held_out in (False, True):
            pool = corpus.pool(role, held_out)
            texts.append(f"{len(pool)} files {sum(c.samples / c.sample_rate_hz for c in pool) / 3600:.2f} h")
        lines.append(f"{role}: training {texts[0]}, held out {texts[1]}")
    return "\n".join(lines)
