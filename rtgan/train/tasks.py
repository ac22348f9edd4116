"""The tasks whose nets are trained by a `Course`: for each, what train, export and eval do with it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from . import (
    codec_eval,
    codec_export,
    codec_loop,
    music_eval,
    music_export,
    music_loop,
    repair_eval,
    repair_export,
    repair_loop,
    tag_eval,
    tag_export,
    tag_loop,
    tone_eval,
    tone_export,
    tone_loop,
)
from .checkpoint import load_checkpoint
from .course import Course, CourseConfig


@dataclass(frozen=True)
class Task:
    """What a task brings.

    Attributes
    ----------
    load : callable
        Reads a config file.
    begin : callable
        From config, ``--data``, ``--cache`` and run folder to a run; prints what it will learn from.
    export : callable
        From run, file to write, name, description and measured figures to a TorchScript file; returns the card.
    measure : callable
        ``rtgan eval TASK``, from its arguments to an exit code.
    add_arguments : callable, optional
        Adds arguments to ``rtgan eval`` that no other task has.
    """

    load: Callable[[Path], CourseConfig]
    begin: Callable[[Any, Path | None, Path | None, Path], Course[Any]]
    export: Callable[[Path, Path, str | None, str | None, Mapping[str, Any] | None], dict[str, Any]]
    measure: Callable[[argparse.Namespace], int]
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None


TASKS: dict[str, Task] = {
    codec_loop.TASK: Task(
        codec_loop.load_codec_config, codec_loop.begin, codec_export.export_codec, codec_eval.eval_command,
        codec_eval.add_arguments,
    ),
    music_loop.TASK: Task(
        music_loop.load_music_config, music_loop.begin, music_export.export_music, music_eval.eval_command
    ),
    tag_loop.TASK: Task(tag_loop.load_tag_config, tag_loop.begin, tag_export.export_tags, tag_eval.eval_command),
    tone_loop.TASK: Task(tone_loop.load_tone_config, tone_loop.begin, tone_export.export_tones, tone_eval.eval_command),
    repair_loop.TASK: Task(
        repair_loop.load_repair_config, repair_loop.begin, repair_export.export_repair, repair_eval.eval_command,
        repair_eval.add_arguments,
    ),
}  # fmt: skip


def task_of_config(path: Path) -> Task | None:
    """The task that a YAML file names; None where it names none of these."""
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    return TASKS.get(str(values.get("task"))) if isinstance(values, dict) else None


def task_of_run(run: Path) -> Task | None:
    """The task of a run folder or checkpoint; None where it is none of these."""
    return TASKS.get(str(load_checkpoint(run)["config"].get("task")))
