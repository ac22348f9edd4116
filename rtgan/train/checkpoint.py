"""Checkpoints: written so that a kill at any moment leaves a whole one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import RtganError, UsageError

CHECKPOINT = "checkpoint.pt"
BEST = "best.pt"


def save_atomically(content: Any, path: Path) -> None:
    """Write next to `path`, flush to disk, then rename: a reader sees the old file or the new one."""
    partial = path.with_name(path.name + ".tmp")
    with partial.open("wb") as stream:
        torch.save(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)


def load_checkpoint(run: Path) -> dict[str, Any]:
    """The last checkpoint of a run folder, or the one in a file."""
    path = run / CHECKPOINT if run.is_dir() else run
    if not path.is_file():
        raise UsageError(f"There is no checkpoint at {str(path)!r}.")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RtganError(f"The checkpoint {str(path)!r} cannot be read: {reason}.") from error
    if not isinstance(content, dict) or "config" not in content or "ema" not in content:
        raise RtganError(f"The file {str(path)!r} is not a checkpoint of this program.")
    return content


def lineage(before: Sequence[Mapping[str, Any]], config: Mapping[str, Any], steps: int) -> list[dict[str, Any]]:
    """What a run that goes on from another says of it and, the first one first, of those that it went on from."""
    last = {key: config[key] for key in ("name", "batch", "seed") if key in config} | {"steps": steps}
    return [*map(dict, before), last]


def fitting(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What of a given state has a name and a shape of our own."""
    return {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}


def load_averaged(net: nn.Module, content: Mapping[str, Any]) -> None:
    """Give a net the averaged weights of a checkpoint; `UsageError` where they are of another form."""
    try:
        net.load_state_dict(content["ema"])
    except RuntimeError:
        raise UsageError("The checkpoint is of an earlier form of the net; train it anew.") from None
