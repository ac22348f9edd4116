"""Whether a model becomes machine code: lowered once, in a process of its own, and kept under the user's cache.

What came out, a program or the reason why there is none, is kept by the hash of the file, of what is played of it and
of the code that records.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtgan import kernel_cache
from rtgan.errors import RtganError
from rtgan.generators import library
from rtgan.generators.files import write_atomically
from rtgan.generators.program import SUFFIX, Program
from rtgan.worker import nursery
from rtgan.worker.spec import Spec

#: How long lowering may take.
LOWER_S = 120.0
#: Samples that a native model gets at a time, where any number will do: the delay is as long.
_BLOCK = 64
#: Samples of a device's call where these are not known.
_PERIOD = 128
#: Share of the time of such a call that a model may take on the audio thread.
MOST_SHARE = 0.5
_SOURCES = ("dialects.py", "lowering.py")


def block_for(spec: Spec, wanted: int) -> int:
    """The block of a native model: the smallest from 64 samples on, or the one wanted."""
    if spec.blocks and not wanted:
        return min(spec.blocks)
    if wanted or spec.blocks:
        return spec.block_for(wanted)
    return -(-_BLOCK // spec.ratio) * spec.ratio


@dataclass(frozen=True)
class Lowered:
    """A model that lowers.

    Parameters
    ----------
    program : Program
    path : Path
        Where it is kept.
    seconds : float
        What a block of it takes on this machine.
    """

    program: Program
    path: Path
    seconds: float

    def too_slow(self, block: int, rate_hz: int, period_samples: int) -> str:
        """Why it cannot run on the audio thread itself; empty if it can.

        It works once in a block, and then within one call of the device.
        """
        within = min(block, period_samples or _PERIOD)
        if self.seconds <= MOST_SHARE * within / rate_hz:
            return ""
        return f"it takes {1e3 * self.seconds:.2f} ms at once, more than half of {within} samples"


def lower(spec: Spec, choices: dict[str, Any]) -> Lowered | str:
    """The program of a model, or why there is none [main].

    Parameters
    ----------
    spec : Spec
    choices : dict
        Plain fields of `rtgan.worker.dialects.Choices`.
    """
    knobs = spec.knobs(choices["method"], choices["ranges"], choices["fixed"])
    if any(knob.what == "attribute" for knob in knobs):
        return "its attributes may move while it plays (run: native holds them fast)"
    path = _kept(spec, choices)
    about = path.with_suffix(".json")
    try:
        found = json.loads(about.read_text("utf-8"))
        return str(found["problem"]) or Lowered(Program.load(path), path, float(found["seconds"]))
    except (OSError, ValueError, KeyError, TypeError, RtganError):
        pass
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / f"model{SUFFIX}"
        try:
            answer = nursery.ask({"do": "lower", "spec": spec.plain(), "choices": choices, "out": str(made)}, LOWER_S)
        except nursery.Gone as gone:
            answer = {"problem": f"it cannot be lowered: {gone}"}
        found = {"problem": str(answer.get("problem", "")), "seconds": float(answer.get("seconds", 0.0))}
        try:
            if not found["problem"]:
                write_atomically(path, made.read_bytes())
            write_atomically(about, json.dumps(found).encode())
        except OSError as problem:
            return f"its program cannot be kept: {problem.strerror}"
    return str(found["problem"]) or Lowered(Program.load(path), path, float(found["seconds"]))


def _kept(spec: Spec, choices: dict[str, Any]) -> Path:
    own = ("method", "ranges", "attributes", "block", "rate_hz", "fixed", *(("seed",) if spec.random else ()),
           *(("weights",) if choices.get("weights", "float32") != "float32" else ()))  # fmt: skip
    digest = hashlib.sha256(json.dumps([spec.sha256, [choices[k] for k in own]]).encode())
    recording = (Path(library.__file__).with_name(f"{name}.py") for name in library.RECORDING)
    for source in (*recording, *(Path(__file__).parent / n for n in _SOURCES)):
        digest.update(source.read_bytes())
    return kernel_cache.user_cache() / "models" / f"{spec.sha256[:16]}-{digest.hexdigest()[:16]}{SUFFIX}"
