"""Whether a model can run natively: lowered once, in a process of its own, and kept under the user's cache.

What came out, a program or the reason why there is none, is kept by the hash of the file, of what is played of it and
of the code that records.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
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


def block_for(spec: Spec, wanted: int) -> int:
    """The block of a native model: the smallest from 64 samples on, or the one wanted."""
    if wanted or spec.blocks:
        return spec.block_for(wanted)
    return -(-_BLOCK // spec.ratio) * spec.ratio


def lower(spec: Spec, choices: dict[str, Any]) -> tuple[Program | None, str]:
    """The program of a model, or None and why there is none [main].

    Parameters
    ----------
    spec : Spec
    choices : dict
        Plain fields of `rtgan.worker.dialects.Choices`.
    """
    if any(knob.what == "attribute" for knob in spec.knobs(choices["method"], choices["ranges"])):
        return None, "its attributes may move while it plays"
    if spec.kind == "neutone":
        return None, "a Neutone file is played as it is"
    if spec.random:
        return None, "chance plays a part in it"
    path = _kept(spec, choices)
    try:
        return (Program.load(path), "") if path.is_file() else (None, path.with_suffix(".txt").read_text("utf-8"))
    except (OSError, RtganError):
        pass
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / f"model{SUFFIX}"
        try:
            answer = nursery.ask({"do": "lower", "spec": spec.plain(), "choices": choices, "out": str(made)}, LOWER_S)
            problem = str(answer.get("problem", ""))
        except nursery.Gone as gone:
            problem = f"it cannot be lowered: {gone}"
        program = None if problem else Program.load(made)
        try:
            if program is None:
                write_atomically(path.with_suffix(".txt"), problem.encode())
            else:
                write_atomically(path, made.read_bytes())
        except OSError:
            pass  # without a cache it is lowered again next time
    return program, problem


def _kept(spec: Spec, choices: dict[str, Any]) -> Path:
    own = ("method", "attributes", "block", "rate_hz")
    digest = hashlib.sha256(json.dumps([spec.sha256, [choices[k] for k in own]]).encode())
    for source in (Path(library.__file__).parent / "record.py", Path(__file__).parent / "dialects.py"):
        digest.update(source.read_bytes())
    return kernel_cache.user_cache() / "models" / f"{spec.sha256[:16]}-{digest.hexdigest()[:16]}{SUFFIX}"
