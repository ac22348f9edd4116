"""Measurements of speed, each against the best that others offer, in one run."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

from rtgan.errors import RtganError, UsageError

_ALL = ("kernels", "engine", "load", "generators", "codec", "control", "panel")


def cpu_name() -> str:
    """The processor as its maker calls it, or the architecture where the system does not say."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """What the figures were measured on: processor, versions, and how busy it was."""
    try:
        busy: float | None = round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        busy = None
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numba": version("numba"),
        "system": f"{platform.system()} {platform.release()}",
        "load_average": busy,
    }


def run(args: argparse.Namespace) -> int:
    """``rtgan bench``: measure what was asked for, print tables, write the figures to ``--json``."""
    if args.json is not None and (args.json.is_dir() or not args.json.resolve().parent.is_dir()):
        raise UsageError(f"the figures cannot be written to {args.json}: it is a folder, or its folder is missing")
    if args.gtcrn is not None and (args.what != "generators" or not args.gtcrn.is_file()):
        raise UsageError("--gtcrn takes the ONNX file of GTCRN, for `rtgan bench generators`")
    about = machine()
    print(
        f"{about['cpu']}, {about['cores']} cores, Python {about['python']}, numba {about['numba']}, "
        f"{about['system']}, load average {about['load_average']}",
        flush=True,
    )
    figures: dict[str, Any] = {"machine": about}
    with _ended_cleanly():
        for name in [args.what] if args.what else _ALL:
            print(f"\n{name}", flush=True)
            try:
                module = importlib.import_module(f"rtgan.bench.{name}")
                figures[name] = module.run(**({"gtcrn": args.gtcrn} if args.gtcrn is not None else {}))
            except ImportError as problem:
                figures[name] = {"skipped": f"{problem.name} is not installed"}
                print(f"skipped: {problem.name} is not installed")
    if args.json is not None:
        try:
            args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        except OSError as problem:
            raise RtganError(f"the figures cannot be written to {args.json}: {problem.strerror}") from None
    return 0


@contextmanager
def _ended_cleanly() -> Iterator[None]:
    """SIGTERM ends like Ctrl-C, so that every server and peer that was started is stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
