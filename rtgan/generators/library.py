"""Models by path or by name: find them, read their cards, and make them playable.

A shipped model lies in the package with its lowered program beside it and plays without torch. Any other
TorchScript file with a card is lowered with torch once; the program is then kept under the user's cache by the
hash of the file, so that the next start needs no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtgan import kernel_cache
from rtgan.errors import RtganError
from rtgan.generators.card import Card, read_card, read_test_vector
from rtgan.generators.compile import HALF, LARGE, Net, compile
from rtgan.generators.files import write_atomically
from rtgan.generators.program import SUFFIX, Program

MODEL_SUFFIX = ".ts"
#: What a file must end in to be taken for a model by a preset.
MODEL_SUFFIXES = (MODEL_SUFFIX, ".nm", ".pt")
#: ``forward(frame, state) -> (frame, state[, voice])``: output 1 is input 1 of the next frame.
CARRY = ((1, 1),)
#: Largest allowed difference from the test vector, relative to its peak.
TOLERANCE = 1e-4
#: The same with large matrices in half precision.
HALF_TOLERANCE = 1e-3
#: A third output, where there is one: the chance that somebody speaks.
VOICE_SHAPE = (1, 1)
#: What decides which program a file becomes.
RECORDING = ("record", "compositions", "program")
_BARS = "▁▂▃▄▅▆▇█"
_SHIPPED = Path(__file__).resolve().parent.parent / "weights"


def names() -> list[str]:
    """Names of the shipped models."""
    return sorted(p.stem for p in _SHIPPED.glob(f"*{MODEL_SUFFIX}"))


def find(name: str | Path) -> Path | None:
    """The TorchScript file of a path or of a shipped model's name; None when there is neither."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if isinstance(name, str) and name in names():
        return _SHIPPED / f"{name}{MODEL_SUFFIX}"
    return None


@dataclass(frozen=True)
class Loaded:
    """A model that can be played.

    Attributes
    ----------
    path : Path
    card : Card
    program : Program
    net : Net
        Compiled on first use, with the state carried from run to run (`CARRY`). ``net.inputs[0]`` is the frame
        (1, 2, bins), ``net.outputs[0]`` the answer.
    """

    path: Path
    card: Card
    program: Program

    @cached_property
    def net(self) -> Net:
        """Machine code for this computer [main thread]."""
        return compile(self.program, () if self.card.timbres else CARRY)


def _resolve(name: str | Path) -> Path:
    path = find(name)
    if path is None:
        known = ", ".join(names()) or "none"
        raise RtganError(f"there is no model file '{name}', and the shipped models are: {known}")
    return path


def card_of(name: str | Path) -> Card:
    """The card of a model by path or shipped name; `RtganError` where there is none."""
    return read_card(_resolve(name))


def load(name: str | Path) -> Loaded:
    """Load a model by path or shipped name [main thread].

    Raises
    ------
    RtganError
        When it is missing, damaged, has no valid card, cannot be lowered, or torch is needed and missing.
    """
    path = _resolve(name)
    card = read_card(path)
    beside = path.with_suffix(SUFFIX)
    for candidate in (beside, _cached(card.sha256)):
        if candidate.is_file():
            try:
                program = Program.load(candidate)
            except RtganError:
                if candidate == beside:
                    raise
                continue
            if program.source == card.sha256:
                _check_shapes(program, card, candidate)
                return Loaded(path, card, program)
    program = record_file(path, card)
    try:
        write_atomically(_cached(card.sha256), program.bytes())
    except OSError:
        # Without a writable cache the model is lowered again next time; it plays all the same.
        pass
    return Loaded(path, card, program)


def _cached(sha256: str) -> Path:
    """Where the program of a file is kept; recording differently makes another name."""
    here = Path(__file__).resolve().parent
    sources = b"".join((here / f"{name}.py").read_bytes() for name in RECORDING)
    recorder = hashlib.sha256(sources).hexdigest()
    return kernel_cache.user_cache() / "generators" / f"{sha256[:32]}-{recorder[:8]}{SUFFIX}"


def _check_shapes(program: Program, card: Card, path: Path) -> None:
    found = [[v.shape for v in views] for views in (program.inputs, program.outputs)]
    if found not in ([card.shapes, card.answers], [card.shapes, [*card.shapes, VOICE_SHAPE]]):
        raise RtganError(f"{path} takes and gives other shapes than the card of its model says")


def record_file(path: str | Path, card: Card | None = None) -> Program:
    """Lower a TorchScript file to a program [main thread; needs torch]."""
    card = card or read_card(path)
    try:
        import torch

        from rtgan.generators.record import record
    except ImportError as error:
        raise RtganError(
            f"'{path}' is not lowered yet, and lowering needs torch once: pip install 'rtgan[torch]'"
        ) from error
    try:
        module = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or ["unknown reason"])[0]
        raise RtganError(f"{path} cannot be loaded as TorchScript: {reason}") from error
    examples = [torch.zeros(shape) for shape in card.shapes]
    meta = {"name": card.name, "sample_rate_hz": card.sample_rate_hz, "hop_samples": card.hop_samples}
    program = record(module, examples, card.sha256, meta)
    _check_shapes(program, card, Path(path))
    return program


def play(net: Net, frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run frames (frames, 2, bins), or rows, through a net from its initial state [main thread]."""
    arena = net.arena()
    into, out = net.inputs[0].of(arena), net.outputs[0].of(arena)
    answer = np.empty((len(frames), *out.shape[1:]), np.float32)
    for k, frame in enumerate(frames):
        into[0] = frame
        net.run(arena)
        answer[k] = out[0]
    return answer


def deviation(loaded: Loaded) -> float | None:
    """Largest difference from the model's own test vector, relative to its peak; None without one."""
    vector = read_test_vector(loaded.path, loaded.card)
    if vector is None:
        return None
    peak = float(np.abs(vector["output"]).max()) or 1.0
    return float(np.abs(play(loaded.net, vector["input"]) - vector["output"]).max()) / peak


def lower(path: str | Path, out: str | Path | None = None, weights: str = "float32") -> Path:
    """Lower a model and write its program, checked against the model's test vector [main thread; needs torch].

    Parameters
    ----------
    path : str or Path
        TorchScript file, or a shipped name.
    out : str or Path, optional
        Program file; beside the model by default.
    weights : {"float32", "float16"}
        Whether large matrices are kept in half precision: half as much to read in each frame.

    Returns
    -------
    Path
        The program file.
    """
    source = _resolve(path)
    card = read_card(source)
    program = record_file(source, card)
    if weights == HALF:
        program.meta["weights"] = HALF
    made = Loaded(source, card, program)
    error = deviation(made)
    if weights == HALF:
        _check_halved(made, error)
    elif error is not None and not error <= TOLERANCE:
        raise RtganError(f"{source} lowers to something else: {error:.1e} of the peak off its test vector")
    target = Path(out) if out is not None else source.with_suffix(SUFFIX)
    try:
        program.save(target)
    except OSError as problem:
        raise RtganError(f"{target} cannot be written: {problem.strerror or problem}") from problem
    return target


def _check_halved(made: Loaded, error: float | None) -> None:
    """Refuse weights of half precision that are heard, that cannot be judged or that change nothing."""
    if not made.net.report["halved_weights"]:
        raise RtganError(f"{made.path} has no matrix of {LARGE} weights or more, which are all that float16 is for")
    if error is None:
        raise RtganError(f"{made.path} has no test vector to measure weights of float16 by")
    if not error <= HALF_TOLERANCE:
        raise RtganError(
            f"{made.path} with weights of float16 is {error:.1e} of the peak off its test vector, "
            f"and {HALF_TOLERANCE:.0e} is allowed"
        )


def lower_command(model: str, output: str | None, weights: str = "float32") -> int:
    """``rtgan lower``: write the program of a model and say what became of it."""
    target = lower(model, output, weights)
    loaded = Loaded(_resolve(model), read_card(_resolve(model)), Program.load(target))
    report, error = loaded.net.report, deviation(loaded)
    print(
        f"{target}: {report['operations']} operations in {report['steps']} steps, {report['code_bytes']} bytes of code"
    )
    if report["halved_weights"]:
        print(f"{report['halved_weights']} weights in half precision")
    if error is not None:
        print(f"largest difference from the test vector: {error:.1e} of the peak")
    return 0


def describe(name: str | Path) -> str:
    """A model's card as text for people."""
    path = _resolve(name)
    card = read_card(path)
    rows = [f"  {label:12} {value}" for label, value in facts(path, card)]
    return "\n".join([f"{card.name}: {card.description}", *rows])


def facts(path: Path, card: Card) -> list[tuple[str, str]]:
    """What a model's card says, for people: what and how much of it, in the order in which to read it."""
    hop_ms = 1e3 * card.hop_samples / card.sample_rate_hz
    latency_ms = 1e3 * card.latency_samples / card.sample_rate_hz
    rows: list[tuple[str, str]] = [
        ("task", card.task),
        ("version", str(card.version)),
        ("licence", card.licence),
        ("sample rate", f"{card.sample_rate_hz} Hz"),
    ]
    if card.timbres:
        rows.append(("frame", f"{card.hop_samples} samples ({hop_ms:.2f} ms), {card.latents} latents"))
        held = {True: "held", False: "dying away"}
        rows += [("timbre", f"{t.name} ({held[t.sustains]}), notes {t.lowest} to {t.highest}") for t in card.timbres]
    elif card.n_fft:
        frame = f"{card.n_fft} samples, hop {card.hop_samples} ({hop_ms:.2f} ms), synthesis {card.synthesis_samples}"
        latency = f"{card.latency_samples} samples ({latency_ms:.2f} ms), look-ahead {card.lookahead_frames} frames"
        rows += [("frame", frame), ("latency", latency), ("state", f"{card.state_size} values")]
        if card.labels:
            late = [f"{hop_ms * frames:g} ms" for frames in (card.lookahead_frames, card.late_frames) if frames]
            rows += [("labels", ", ".join(card.labels)), ("answers", f"{' or '.join(late) or '0 ms'} late")]
    more: list[tuple[str, str, Callable[[object], str]]] = [
        ("parameters", "parameters", lambda v: f"{v:,}"),
        ("macs_per_frame", "work", lambda v: f"{v:,} multiply-adds a frame"),
    ]
    rows += [(label, shown(card.fields[key])) for key, label, shown in more if isinstance(card.fields.get(key), int)]
    training = card.fields.get("training", {})
    rows += [(key, str(training[key])) for key in ("commit", "steps", "hours_of_audio") if key in training]
    # Beyond what playing needs a card may say what it likes: what is not as `rtgan export` writes it is not shown.
    curve = training.get("curve")
    rows += [
        (str(key), _course(values))
        for key, values in (curve.items() if isinstance(curve, dict) else ())
        if key != "step" and isinstance(values, list) and values and all(isinstance(v, int | float) for v in values)
    ]
    named: dict[str, None] = {}
    sources, metrics = training.get("sources"), card.fields.get("metrics")
    for source in sources if isinstance(sources, list) else ():
        licence = f" ({source['licence']})" if isinstance(source, dict) and source.get("licence") else ""
        named[(source if isinstance(source, str) else str(source.get("name", source))) + licence] = None
    rows += [("trained on", text) for text in named]
    if isinstance(metrics, dict):
        rows += [(str(key), _figure(value)) for key, value in metrics.items()]
    beside = path.with_suffix(SUFFIX)
    rows.append(("lowered", str(beside) if beside.is_file() else "on first use, with torch"))
    rows.append(("sha256", card.sha256))
    return rows


def _figure(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _course(values: Sequence[float]) -> str:
    """How a loss went in training, as a line of bars from its lowest to its highest."""
    low, high = min(values), max(values)
    bars = "".join(_BARS[round((v - low) / (high - low or 1.0) * (len(_BARS) - 1))] for v in values)
    return f"{bars}  {values[0]:.4g} to {values[-1]:.4g}"
