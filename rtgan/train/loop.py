"""The training loop: one config in, a run folder with checkpoints and a log out.

A step is a pure function of weights, optimiser state and step number: example numbers follow from the step,
so that a run that was stopped and resumed gives the bits of one that was not.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from ..errors import RtganError, UsageError
from .data import Corpus
from .losses import LossSum, level_scale
from .mixing import Mixer, MixSettings
from .networks import Denoiser, DenoiserSettings
from .stft import Stft

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class TrainConfig:
    """A training run, as written in YAML.

    `lookahead_frames` is the head that an export takes; `network.lookaheads` may train further heads on the same
    trunk, each on its share of the batch. The learning rate rises over `warmup_steps`, stays, and falls to zero
    over the last `decay_share` of `steps`.
    """

    name: str
    description: str = ""
    version: int = 1
    seed: int = 0
    lookahead_frames: int = 0
    steps: int = 4000
    batch: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup_steps: int = 200
    decay_share: float = 0.3
    gradient_clip: float = 1.0
    ema: float = 0.998
    checkpoint_every: int = 200
    workers: int = 1
    network: DenoiserSettings = field(default_factory=DenoiserSettings)
    mixing: MixSettings = field(default_factory=MixSettings)
    losses: dict[str, dict[str, Any]] = field(default_factory=lambda: {"compressed": {"weight": 1.0}})

    def __post_init__(self) -> None:
        if self.batch < len(self.network.lookaheads):
            raise UsageError(f"batch is {self.batch} but must be at least the number of network.lookaheads.")
        if self.steps < 1 or self.learning_rate <= 0 or not 0 <= self.ema < 1 or not 0 <= self.decay_share <= 1:
            raise UsageError("steps and learning_rate must be positive, ema and decay_share between 0 and 1.")
        if self.lookahead_frames not in self.network.lookaheads:
            raise UsageError(
                f"lookahead_frames is {self.lookahead_frames}, not one of {list(self.network.lookaheads)}."
            )

    @property
    def stft(self) -> Stft:
        """The transform that belongs to the net."""
        return Stft(self.network.n_fft, self.network.hop_samples, 2 * self.network.hop_samples)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as in YAML."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


def parse_config(values: Any, where: str) -> TrainConfig:
    """Check plain values and make a config of them; unknown keys are refused."""
    if not isinstance(values, dict) or "name" not in values:
        raise UsageError(f"{where} is not a training config: it must be a mapping with a 'name'.")

    def build(kind: type, given: dict[str, Any], prefix: str) -> Any:
        known = {f.name: f for f in dataclasses.fields(kind)}
        for key in given:
            if key not in known:
                raise UsageError(f"{where}: {prefix}{key} is not known; allowed are {', '.join(sorted(known))}.")
        ready = dict(given)
        for key, inner in (("network", DenoiserSettings), ("mixing", MixSettings)):
            if key in ready and kind is TrainConfig:
                if not isinstance(ready[key], dict):
                    raise UsageError(f"{where}: {key} must be a mapping.")
                ready[key] = build(inner, ready[key], f"{key}.")
        for key, value in ready.items():
            default = known[key].default
            if isinstance(default, int | float) and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise UsageError(f"{where}: {prefix}{key} is {value!r} but must be a number.")
            if isinstance(default, int) and not isinstance(value, int):
                raise UsageError(f"{where}: {prefix}{key} is {value!r} but must be a whole number.")
        return kind(**ready)

    config: TrainConfig = build(TrainConfig, values, "")
    LossSum(config.losses)
    return config


def load_config(path: Path) -> TrainConfig:
    """Read a config from YAML."""
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"The config {str(path)!r} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise UsageError(f"The config {str(path)!r} is not YAML: {' '.join(str(error).split())}.") from error
    return parse_config(values, path.name)


class _Examples(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, mixer: Mixer) -> None:
        self.mixer = mixer

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        mix = self.mixer(number)
        return torch.from_numpy(mix.noisy), torch.from_numpy(mix.clean)


class _Onward(Sampler[int]):
    """Example numbers of the steps still to do."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.last))

    def __len__(self) -> int:
        return self.last - self.first


class _Interrupt:
    """Turns Ctrl-C into a flag, so that a step is done or not begun; a second Ctrl-C acts at once."""

    def __init__(self) -> None:
        self.seen = False
        self._before: Any = None

    def __enter__(self) -> _Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True


def _ignore_interrupts(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks: giving them back after each tensor costs a third of a step in page faults."""
    try:
        library = ctypes.CDLL(None)
        library.mallopt(-4, 0)  # M_MMAP_MAX
        library.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):
        pass


def save_atomically(content: Any, path: Path) -> None:
    """Write next to `path`, flush to disk, then rename: a reader sees the old file or the new one."""
    partial = path.with_name(path.name + ".tmp")
    with partial.open("wb") as stream:
        torch.save(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)


def load_checkpoint(run: Path) -> dict[str, Any]:
    """The last checkpoint of a run folder."""
    path = run / CHECKPOINT if run.is_dir() else run
    if not path.is_file():
        raise UsageError(f"There is no checkpoint at {str(path)!r}.")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise RtganError(f"The checkpoint {str(path)!r} cannot be read: {error}.") from error
    if "config" not in content or "ema" not in content:
        raise RtganError(f"The file {str(path)!r} is not a checkpoint of this program.")
    return content


def enhance(net: Denoiser, stft: Stft, noisy: Tensor, head: int) -> Tensor:
    """Signals ``(batch, samples)`` through one head, aligned with the input: look-ahead and windows undone."""
    lookahead = net.settings.lookaheads[head]
    hop = stft.hop_samples
    padded = torch.nn.functional.pad(noisy, (0, (lookahead + 1) * hop + (-noisy.shape[-1]) % hop))
    out: Tensor = net(stft.analyse(padded), head)
    return stft.synthesise(out[:, :, lookahead:])[..., : noisy.shape[-1]]


class Trainer:
    """Weights, optimiser and position of a run.

    Parameters
    ----------
    config : TrainConfig
        What to train.
    corpus : Corpus
        Recordings or generated sounds.
    out : Path
        Run folder, made where missing.
    device : str
        ``"cpu"`` or a torch device.
    """

    def __init__(self, config: TrainConfig, corpus: Corpus, out: Path, device: str = "cpu") -> None:
        self.config, self.corpus, self.out = config, corpus, out
        try:
            self.device = torch.device(device)
            torch.zeros(1, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"The device {device!r} cannot be used here.") from error
        torch.manual_seed(config.seed)
        self.net = Denoiser(config.network).to(self.device)
        self.averaged = {name: value.detach().clone() for name, value in self.net.state_dict().items()}
        self.loss = LossSum(config.losses).to(self.device)
        self.optimiser = torch.optim.AdamW(
            self.net.parameters(), config.learning_rate, betas=(0.9, 0.98), weight_decay=config.weight_decay
        )
        self.mixer = Mixer(corpus, config.mixing, config.seed)
        self.step = 0
        self.seconds = 0.0
        self.lineage: list[dict[str, Any]] = []
        out.mkdir(parents=True, exist_ok=True)

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step: rise, plateau, linear fall."""
        config = self.config
        fall = max(1.0, config.steps * config.decay_share)
        shape = min(1.0, (step + 1) / max(1, config.warmup_steps), max(0.0, (config.steps - step) / fall))
        return config.learning_rate * shape

    def save(self) -> Path:
        """Write the checkpoint."""
        path = self.out / CHECKPOINT
        save_atomically(
            {
                "schema": 1,
                "config": self.config.as_dict(),
                "step": self.step,
                "seconds": self.seconds,
                "net": self.net.state_dict(),
                "ema": self.averaged,
                "optimiser": self.optimiser.state_dict(),
                "rng": torch.get_rng_state(),
                "sources": self.corpus.sources(),
                "lineage": self.lineage,
            },
            path,
        )
        return path

    def restore(self) -> None:
        """Go on where the run's checkpoint stopped."""
        content = load_checkpoint(self.out)
        saved, wanted = content["config"]["network"], self.config.as_dict()["network"]
        if saved != wanted:
            raise UsageError("The checkpoint's network differs from the config's; choose another --out for a new run.")
        self.net.load_state_dict(content["net"])
        self.averaged = {name: value.to(self.device) for name, value in content["ema"].items()}
        self.optimiser.load_state_dict(content["optimiser"])
        torch.set_rng_state(content["rng"])
        self.step, self.seconds = int(content["step"]), float(content["seconds"])
        self.lineage = list(content.get("lineage", []))

    def start_from(self, run: Path) -> None:
        """Take averaged weights of another run, head by head of equal look-ahead."""
        content = load_checkpoint(run)
        theirs = list(content["config"]["network"]["lookaheads"])
        weights = {k: v for k, v in content["ema"].items() if not k.startswith("heads.")}
        for mine, lookahead in enumerate(self.config.network.lookaheads):
            if lookahead in theirs:
                prefix = f"heads.{theirs.index(lookahead)}."
                weights |= {
                    f"heads.{mine}.{k[len(prefix) :]}": v for k, v in content["ema"].items() if k.startswith(prefix)
                }
        try:
            missing = self.net.load_state_dict(weights, strict=False)
        except RuntimeError as error:
            raise UsageError(f"The weights of {str(run)!r} do not fit the config's network.") from error
        if missing.unexpected_keys:
            raise UsageError(f"The weights of {str(run)!r} do not fit the config's network.")
        earlier = {key: content["config"][key] for key in ("name", "batch", "seed")} | {"steps": content["step"]}
        self.lineage = [*content.get("lineage", []), earlier]
        self.averaged = {name: value.detach().clone() for name, value in self.net.state_dict().items()}

    def objective(self, noisy: Tensor, clean: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one batch; the batch is shared out among the heads."""
        net, stft, lookaheads = self.net, self.config.stft, self.config.network.lookaheads
        scale = level_scale(noisy)
        spectrum = stft.analyse(noisy)
        code = net.trunk(net.features(spectrum))
        frames = spectrum.shape[2] - max(lookaheads)
        parts = []
        for head, lookahead in enumerate(lookaheads):
            share = slice(len(noisy) * head // len(lookaheads), len(noisy) * (head + 1) // len(lookaheads))
            parts.append(net.apply_head(head, code[share], spectrum[share])[:, :, lookahead : lookahead + frames])
        whole = (frames - 1) * stft.hop_samples
        estimate = stft.synthesise(torch.cat(parts))[:, :whole]
        loss: tuple[Tensor, dict[str, Tensor]] = self.loss(estimate * scale, clean[:, :whole] * scale)
        return loss

    def train_step(self, noisy: Tensor, clean: Tensor) -> dict[str, float]:
        """One update of the weights and of their running average."""
        config = self.config
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate(self.step)
        total, parts = self.objective(noisy.to(self.device), clean.to(self.device))
        value = float(total.detach())
        if not math.isfinite(value):
            last = self.out / CHECKPOINT
            kept = f"the last good checkpoint is {last}" if last.is_file() else "there is no checkpoint yet"
            raise RtganError(f"The loss is not finite at step {self.step}: training stopped, {kept}.")
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), config.gradient_clip)
        if torch.isfinite(norm):
            self.optimiser.step()
        decay = min(config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, now in self.net.state_dict().items():
                self.averaged[name].lerp_(now, 1 - decay)
        self.step += 1
        return {"loss": value, "norm": float(norm), **{name: float(part) for name, part in parts.items()}}

    def run(self, budget_minutes: float | None = None, progress: bool = True) -> int:
        """Train until the config's steps or the time budget are used up, then write the checkpoint.

        Returns
        -------
        int
            Steps done in all.
        """
        config = self.config
        begun = time.monotonic()
        earlier = self.seconds
        # forked workers share the memory-mapped recordings; other ways to start one would copy them
        workers = config.workers if sys.platform == "linux" else 0
        loader = DataLoader(
            _Examples(self.mixer),
            config.batch,
            sampler=_Onward(self.step * config.batch, config.steps * config.batch),
            num_workers=workers,
            multiprocessing_context="fork" if workers else None,
            worker_init_fn=_ignore_interrupts,
            prefetch_factor=4 if workers else None,
            generator=torch.Generator().manual_seed(config.seed),
        )
        smooth: dict[str, float] = {}
        with (
            _Interrupt() as interrupt,
            (self.out / "log.jsonl").open("a", encoding="utf-8") as log,
            tqdm(total=config.steps, initial=self.step, desc=config.name, unit="step", disable=not progress) as bar,
        ):
            for noisy, clean in loader:
                for name, value in self.train_step(noisy, clean).items():
                    smooth[name] = value if name not in smooth else 0.98 * smooth[name] + 0.02 * value
                self.seconds = earlier + time.monotonic() - begun
                bar.update()
                if self.step % 20 == 0:
                    bar.set_postfix({name: f"{value:.4g}" for name, value in smooth.items()})
                    row = {
                        "step": self.step,
                        "seconds": round(self.seconds, 1),
                        "rate": self.learning_rate(self.step),
                    }
                    log.write(json.dumps(row | {k: round(v, 6) for k, v in smooth.items()}) + "\n")
                    log.flush()
                if self.step % config.checkpoint_every == 0:
                    self.save()
                if interrupt.seen:
                    tqdm.write(f"Stopped after step {self.step}; --resume goes on from here.")
                    break
                if budget_minutes is not None and time.monotonic() - begun > budget_minutes * 60:
                    break
        self.save()
        return self.step
