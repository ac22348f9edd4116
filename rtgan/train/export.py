"""From a checkpoint to a TorchScript file that carries its own card and test vector."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import RtganError, UsageError
from ..version import VERSION
from .checkpoint import load_averaged, load_checkpoint
from .config import TrainConfig, parse_config
from .course import CourseConfig
from .data import generated_corpus
from .diary import curve
from .mixing import Mixer, MixSettings
from .networks import Denoiser, StreamingDenoiser, count_parameters, macs_per_frame, stream

CARD = "card.json"
TEST_VECTOR = "test_vector.npz.b64"
LICENCE = "MIT"
_VECTOR_FRAMES = 32


def _commit() -> str:
    """Commit of the source tree, marked where training differs from it, or the version of an installed package."""
    folder = str(Path(__file__).parent)

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return f"{commit} with changes" if git("status", "--porcelain", "--", folder) else commit
    except (OSError, subprocess.SubprocessError):
        return f"version {VERSION}"


def test_spectrum(config: TrainConfig, frames: int = _VECTOR_FRAMES) -> Tensor:
    """A reproducible noisy spectrum ``(1, 2, frames, bins)`` made without recordings."""
    stft = config.stft
    seconds = max(0.5, (frames + 8) * stft.hop_samples / config.network.sample_rate_hz)
    corpus = generated_corpus(seed=7, seconds=1.0, voices=6)
    mix = Mixer(corpus, MixSettings(seconds=seconds, speechless_chance=0.0, pause_chance=0.0), seed=7)(0)
    return stft.analyse(torch.from_numpy(mix.noisy)[None])[:, :, -frames:]


test_spectrum.__test__ = False  # type: ignore[attr-defined]


def scripted(net: Denoiser) -> torch.jit.ScriptModule:
    """The streaming form of a net as TorchScript."""
    module: torch.jit.ScriptModule = torch.jit.script(StreamingDenoiser(net.cpu().eval()).eval())
    return module


def build_card(
    config: TrainConfig,
    net: Denoiser,
    training: Mapping[str, Any],
    metrics: Mapping[str, Any] | None = None,
    name: str | None = None,
    description: str | None = None,
) -> dict[str, Any]:
    """The card of an export: what it is, what it hears and says, where it comes from."""
    stft = config.stft
    return {
        "schema": 1,
        "name": name or config.name,
        "task": "denoise",
        "version": config.version,
        "licence": LICENCE,
        "sample_rate_hz": config.network.sample_rate_hz,
        "n_fft": stft.n_fft,
        "hop_samples": stft.hop_samples,
        "synthesis_samples": stft.synthesis_samples,
        "lookahead_frames": 0,
        "latency_samples": stft.synthesis_samples,
        "channels": 1,
        "state_size": StreamingDenoiser(net).state_size,
        "parameters": count_parameters(net),
        "macs_per_frame": macs_per_frame(config.network),
        "description": description or config.description,
        "training": dict(training),
        "metrics": dict(metrics or {}),
        "test_vector": {"file": TEST_VECTOR, "frames": _VECTOR_FRAMES, "encoding": "base64 of npz: input, output"},
    }


def training_record(content: Mapping[str, Any], config: Mapping[str, Any], run: Path, hours: float) -> dict[str, Any]:
    """What a card says of the training: its data, commit, steps, losses and config.

    Parameters
    ----------
    content : mapping
        The checkpoint.
    config : mapping
        The run's config, plain.
    run : Path
        Run folder or checkpoint file.
    hours : float
        Of audio that was learned from.
    """
    return {
        "sources": content["sources"],
        "commit": _commit(),
        "steps": content["step"],
        "hours_of_audio": round(hours, 2),
        "curve": curve((run if run.is_dir() else run.parent) / "log.jsonl"),
        "config": dict(config),
        "started_from": content.get("lineage", []),
    }


def own_figures(results: Mapping[str, Any] | None, ours: str, kind: str, command: str) -> dict[str, Any]:
    """What a codec's card says of the figures that an evaluation wrote: those of the model, by what follows `ours`.

    Parameters
    ----------
    results : mapping, optional
        Figures by the names of systems; without them the card says nothing.
    ours : str
        What names of our systems begin with.
    kind : str
        Regular expression of what follows, where one model was measured.
    command : str
        That wrote them, for messages.
    """
    if results is None:
        return {}
    try:
        found = {name.removeprefix(ours): dict(row) for name, row in results.items() if name.startswith(ours)}
    except (AttributeError, TypeError, ValueError):
        found = {}
    if not all(re.fullmatch(kind, name) for name in found):
        raise UsageError("The figures are of several models; measure the one that is exported by itself.")
    if not found:
        raise UsageError(f"The figures are not those of '{command}'.")
    # What it takes depends on the machine.
    return {"data": "held-out recordings"} | {
        name: {figure: value for figure, value in row.items() if figure != "load"} for name, row in found.items()
    }


def course_card(
    content: Mapping[str, Any], config: CourseConfig, run: Path, name: str | None, description: str | None,
    metrics: Mapping[str, Any] | None,
) -> dict[str, Any]:  # fmt: skip
    """What the card of every task that is a `Course` says; its own facts come on top.

    Parameters
    ----------
    content : mapping
        The checkpoint.
    config : CourseConfig
    run : Path
        Run folder or checkpoint file.
    name, description : str, optional
        Instead of the config's.
    metrics : mapping, optional
        Measured figures.
    """
    return {
        "schema": 1,
        "name": name or config.name,
        "task": config.task,
        "version": config.version,
        "licence": LICENCE,
        "description": description or config.description,
        "latency_samples": 0,
        "channels": 1,
        "training": training_record(content, config.as_dict(), run, content["seconds_of_audio"] / 3600),
        "metrics": dict(metrics or {}),
    }


def traced(module: nn.Module, rows: Tensor, state: Tensor) -> tuple[torch.jit.ScriptModule, Tensor]:
    """A net that takes a row and its state, as TorchScript, and what it answers to rows, one after the other."""
    answers = []
    with torch.no_grad():
        made: torch.jit.ScriptModule = torch.jit.trace(module, (rows[:1], state))  # type: ignore[no-untyped-call]
        for row in rows:
            answer, state = made(row[None], state)
            answers.append(answer)
    return made, torch.cat(answers)


def save_model(
    module: torch.jit.ScriptModule, card: Mapping[str, Any], given: NDArray[Any], answers: NDArray[Any], path: Path,
    beside: Mapping[str, Mapping[str, NDArray[Any]]] | None = None,
) -> None:  # fmt: skip
    """Save a module with its card, the answers it gives, frame by frame, to what it is given, and arrays; atomically.

    Parameters
    ----------
    module, card
        What is saved.
    given, answers : ndarray
        The test vector.
    path : Path
    beside : mapping of str to mapping of str to ndarray, optional
        More arrays, by the name of the file in the archive and their own.
    """
    if not np.isfinite(answers).all():
        raise RtganError("The net gives values that are not finite on the test vector; it was not exported.")
    arrays = {TEST_VECTOR: {"input": given, "output": answers}, **(beside or {})}
    extra = {name: _packed(held) for name, held in arrays.items()}
    extra[CARD] = json.dumps(dict(card), indent=1, sort_keys=True, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".tmp")
    torch.jit.save(module, str(partial), _extra_files=extra)
    _without_places(partial)
    os.replace(partial, path)


def _without_places(path: Path) -> None:
    """Take out of a TorchScript file what names the source files that it was made of, by their paths here."""
    whole = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(whole)) as given, zipfile.ZipFile(path, "w") as kept:
        for entry in given.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                kept.writestr(entry, given.read(entry))


def _packed(arrays: Mapping[str, NDArray[Any]]) -> str:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    return base64.b64encode(stream.getvalue()).decode("ascii")


def write_model(module: torch.jit.ScriptModule, card: Mapping[str, Any], spectrum: Tensor, path: Path) -> None:
    """Save a scripted module with its card and the answer it gives to `spectrum`, atomically."""
    with torch.no_grad():
        answer, _ = stream(module, spectrum, int(card["state_size"]))
    frames_in = spectrum[0].transpose(0, 1).contiguous().numpy()
    save_model(module, card, frames_in, answer[0].transpose(0, 1).contiguous().numpy(), path)


def read_model(path: Path) -> tuple[torch.jit.ScriptModule, dict[str, Any], dict[str, NDArray[np.float32]]]:
    """Load an export: module, card, test vector (``input`` and ``output``, each ``(frames, 2, bins)``)."""
    if not path.is_file():
        raise UsageError(f"There is no model at {str(path)!r}.")
    extra: dict[str, Any] = {CARD: "", TEST_VECTOR: ""}
    try:
        module = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)  # type: ignore[no-untyped-call]
        card = json.loads(extra[CARD])
        with np.load(io.BytesIO(base64.b64decode(extra[TEST_VECTOR]))) as vector:
            arrays = {name: vector[name] for name in ("input", "output")}
    except (RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RtganError(f"The file {str(path)!r} is not a model with a card: {reason}.") from error
    return module.eval(), card, arrays


def export_run(
    run: Path,
    path: Path,
    name: str | None = None,
    description: str | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Export the averaged weights of a run.

    Parameters
    ----------
    run : Path
        Run folder or checkpoint file.
    path : Path
        File to write.
    name, description : str, optional
        Instead of the config's.
    metrics : mapping, optional
        Measured figures for the card.

    Returns
    -------
    dict
        The card.
    """
    content = load_checkpoint(run)
    config = parse_config(content["config"], "checkpoint")
    net = Denoiser(config.network)
    load_averaged(net, content)
    net.eval()
    module = scripted(net)
    hours = content["step"] * config.batch * int(content.get("processes", 1)) * config.mixing.seconds / 3600
    training = training_record(content, config.as_dict(), run, hours)
    card = build_card(config, net, training, metrics, name, description)
    write_model(module, card, test_spectrum(config), path)
    return card
