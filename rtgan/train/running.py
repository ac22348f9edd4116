"""What every training run goes through, whatever is learned: its steps one after the other, a polite end."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from .diary import Diary

_LOG_EVERY = 20


class _Plan(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def steps(self) -> int: ...

    @property
    def decay_share(self) -> float: ...

    @property
    def ema(self) -> float: ...

    @property
    def checkpoint_every(self) -> int: ...


class _Run(Protocol):
    """A run: where it stands, and what its config plans."""

    out: Path
    step: int
    seconds: float

    @property
    def config(self) -> _Plan: ...

    def learning_rate(self, step: int) -> float: ...

    def save(self) -> Path: ...


def rate_shape(plan: _Plan, step: int, rise_steps: int) -> float:
    """Share of the learning rates that a step takes: a rise, a plateau, a fall to zero."""
    fall = max(1.0, plan.steps * plan.decay_share)
    return min(1.0, (step + 1) / max(1, rise_steps), max(0.0, (plan.steps - step) / fall))


@torch.no_grad()
def keep_average(averaged: Mapping[str, Tensor], weights: Mapping[str, Tensor], plan: _Plan, step: int) -> None:
    """Draw the running averages towards the weights of a step, at the beginning by more; whole numbers are copied."""
    decay = min(plan.ema, (1 + step) / (10 + step))
    for name, now in weights.items():
        kept = averaged[name]
        kept.lerp_(now, 1 - decay) if now.is_floating_point() else kept.copy_(now)


def go_on(
    run: _Run, results: Iterable[Mapping[str, float]], *, look_every: int = 0,
    look: Callable[[Diary | None], str] | None = None, worn_out: Callable[[], str | None] | None = None,
    budget_minutes: float | None = None, progress: bool = True, tensorboard: bool = False, first: bool = True,
    agreed: Callable[[bool], bool] = bool,
) -> int:  # fmt: skip
    """Take steps until the plan's are done or something ends them, then write the checkpoint.

    Parameters
    ----------
    run
    results : iterable of mapping
        Each makes a step of the run and gives its figures.
    look_every, look : int, callable
        So often, and behind the last step, held-out recordings are looked at; what comes back is said. 0 for never.
    worn_out : callable, optional
        Why to stop after this step, or None.
    budget_minutes : float, optional
        Wall-clock time after which a step is the last one.
    progress, tensorboard : bool
        Show a bar with the time left; also write TensorBoard's files.
    first : bool
        Whether this is the process that writes and talks.
    agreed : callable
        Of several processes, whether any of them means to stop.

    Returns
    -------
    int
        Steps done in all.
    """
    plan = run.config
    begun, earlier = time.monotonic(), run.seconds
    smooth: dict[str, float] = {}
    talks = progress and first
    with contextlib.ExitStack() as stack:
        interrupt = stack.enter_context(Interrupt())
        diary = stack.enter_context(Diary(run.out, tensorboard)) if first else None
        bar = stack.enter_context(
            tqdm(total=plan.steps, initial=run.step, desc=plan.name, unit="step", disable=not talks)
        )
        for figures in results:
            for name, value in figures.items():
                smooth[name] = value if name not in smooth else 0.98 * smooth[name] + 0.02 * value
            run.seconds = earlier + time.monotonic() - begun
            bar.update()
            if diary is not None and (run.step % _LOG_EVERY == 0 or run.step == plan.steps):
                bar.set_postfix({name: f"{value:.4g}" for name, value in smooth.items()})
                row = {"seconds": round(run.seconds, 1), "rate": run.learning_rate(run.step)}
                diary.figures(run.step, row | smooth)
            if look is not None and look_every and (run.step % look_every == 0 or run.step == plan.steps):
                seen = look(diary)
                if talks:
                    tqdm.write(f"step {run.step}, held out: {seen}")
            if run.step % plan.checkpoint_every == 0:
                run.save()
            over = budget_minutes is not None and time.monotonic() - begun > budget_minutes * 60
            ending = "--resume goes on from here" if agreed(interrupt.seen or over) else None
            if ending is None and worn_out is not None:
                ending = worn_out()
            if ending is not None:
                if talks:
                    tqdm.write(f"Stopped after step {run.step}: {ending}.")
                break
    run.save()
    return run.step


class Interrupt:
    """Turns Ctrl-C and a polite kill into a flag, so that a step is done or not begun; a second one acts at once."""

    def __init__(self) -> None:
        self.seen = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks: giving them back after each tensor costs a third of a step in page faults."""
    try:
        library = ctypes.CDLL(None)
        library.mallopt(-4, 0)  # M_MMAP_MAX
        library.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):
        pass
