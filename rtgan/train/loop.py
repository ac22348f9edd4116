"""The training loop: one config in, a run folder with checkpoints and a log out.

A step is a pure function of weights, optimisers, running figures and step number: example numbers follow from the
step, so that a run that was stopped and resumed gives the bits of one that was not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..errors import RtganError, UsageError
from .adversary import TERMS, Adversary
from .checkpoint import BEST, CHECKPOINT, fitting, lineage, load_checkpoint, save_atomically
from .config import TrainConfig, load_config, parse_config
from .data import Corpus
from .develop import Development, enhance
from .diary import Diary
from .export import read_model
from .losses import Balancer, LossSum, level_scale
from .mixing import Mixer
from .networks import Block, Denoiser, unfolded
from .parallel import Processes
from .running import go_on, keep_average, rate_shape

__all__ = [
    "BEST", "CHECKPOINT", "TrainConfig", "Trainer", "enhance", "load_checkpoint", "load_config", "parse_config",
]  # fmt: skip

_CALIBRATION_MIXES = 8
_OPENING_STEPS = 50
_LOST_STEPS = 20


class _Examples(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, mixer: Mixer) -> None:
        self.mixer = mixer

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        mix = self.mixer(number)
        return torch.from_numpy(mix.noisy), torch.from_numpy(mix.clean)


class _Onward(Sampler[int]):
    """Example numbers of the steps still to do: of each step's `world` batches the one of this process."""

    def __init__(self, step: int, steps: int, batch: int, rank: int, world: int) -> None:
        self.step, self.steps, self.batch, self.rank, self.world = step, steps, batch, rank, world

    def __iter__(self) -> Iterator[int]:
        for step in range(self.step, self.steps):
            first = (step * self.world + self.rank) * self.batch
            yield from range(first, first + self.batch)

    def __len__(self) -> int:
        return max(0, self.steps - self.step) * self.batch


def _start_worker(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)


def _precision(wanted: str, device: torch.device) -> torch.dtype | None:
    """Type that the generator and the discriminators compute in, or None for float32 throughout."""
    if wanted == "fp32" or (wanted == "auto" and device.type != "cuda"):
        return None
    if device.type != "cuda":
        raise UsageError(f"precision {wanted} is for CUDA devices; on {device.type} it must be auto or fp32.")
    if wanted == "auto":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if wanted == "bf16" else torch.float16


class _Watch:
    """Notices a run that diverges: its losses, without the adversary's, far above those of its first steps."""

    def __init__(self) -> None:
        self.count, self.opening, self.size, self.mean, self.lost = 0, 0.0, 0.0, 0.0, 0

    def state(self) -> dict[str, float]:
        return dict(vars(self))

    def restore(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def trouble(self, total: float, size: float, norm: float) -> str | None:
        """What is wrong after a step whose terms sum up to `total`, and without their signs to `size`."""
        if not math.isfinite(total):
            return "The loss is not finite"
        self.lost = 0 if math.isfinite(norm) else self.lost + 1
        if self.lost >= _LOST_STEPS:
            return f"The gradient was not finite for {_LOST_STEPS} steps"
        self.count += 1
        if self.count <= _OPENING_STEPS:
            self.opening += (total - self.opening) / self.count
            self.size += (size - self.size) / self.count
            self.mean = self.opening
            return None
        # one wild batch is no divergence: none counts for more than twice the limit
        self.mean += 0.05 * (min(total, self.opening + 4 * self.size) - self.mean)
        if self.mean > self.opening + 2 * self.size:
            return f"The loss diverges ({self.mean:.3g} after {self.opening:.3g} at the beginning)"
        return None


class Trainer:
    """Weights, optimisers and position of a run.

    Parameters
    ----------
    config : TrainConfig
        What to train.
    corpus : Corpus
        Recordings or generated sounds.
    out : Path
        Run folder, made where missing.
    device : str
        ``"cpu"`` or a torch device; ``"cuda"`` is the GPU of the local rank under torchrun.
    """

    def __init__(self, config: TrainConfig, corpus: Corpus, out: Path, device: str = "cpu") -> None:
        self.config, self.corpus, self.out = config, corpus, out
        self.processes = Processes(device)
        self.device = self.processes.device
        self.dtype = _precision(config.precision, self.device)
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True
        torch.manual_seed(config.seed)
        # fused where there is a kernel for it: one launch for all weights
        fused = {"fused": True} if self.device.type == "cuda" else {}
        self.net = self.processes.prepared(Denoiser(config.network))
        self.averaged = {name: value.detach().clone() for name, value in self.net.state_dict().items()}
        self.loss = LossSum(config.losses).to(self.device)
        self.balancer = Balancer() if config.balance else None
        self.optimiser = torch.optim.AdamW(
            self.net.parameters(), config.learning_rate, betas=(0.9, 0.98), weight_decay=config.weight_decay, **fused
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)
        self.adversary: Adversary | None = None
        if config.adversary is not None:
            rate = config.network.sample_rate_hz
            self.adversary = Adversary(config.adversary, rate, self.device, config.gradient_clip)
        self.mixer = Mixer(corpus, config.mixing, config.seed)
        self.watch = _Watch()
        self.step = 0
        self.seconds = 0.0
        self.lineage: list[dict[str, Any]] = []
        self.best: dict[str, float] | None = None
        self.without_best = 0
        self._development: Development | None = None
        out.mkdir(parents=True, exist_ok=True)

    def rate_shape(self, step: int) -> float:
        """Share of the learning rates that a step takes: rise, plateau, linear fall."""
        return rate_shape(self.config, step, self.config.warmup_steps)

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step of the generator."""
        return self.config.learning_rate * self.rate_shape(step)

    def _weights_to_keep(self) -> dict[str, Any]:
        return {
            "schema": 2,
            "config": self.config.as_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "ema": self.averaged,
            "processes": self.processes.world,
            "sources": self.corpus.sources(),
            "lineage": self.lineage,
            "develop": self.best,
        }

    def save(self) -> Path:
        """Write the checkpoint; only the first of several processes does."""
        path = self.out / CHECKPOINT
        if self.processes.first:
            rng = {"cpu": torch.get_rng_state()}
            if self.device.type == "cuda":
                rng["cuda"] = torch.cuda.get_rng_state(self.device)
            content = self._weights_to_keep() | {
                "net": self.net.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "scaler": self.scaler.state_dict(),
                "balancer": self.balancer.state() if self.balancer is not None else None,
                "adversary": self.adversary.state() if self.adversary is not None else None,
                "watch": self.watch.state(),
                "without_best": self.without_best,
                "rng": rng,
            }
            save_atomically(content, path)
        return path

    def restore(self) -> None:
        """Go on where the run's checkpoint stopped."""
        content = load_checkpoint(self.out)
        if "net" not in content or content.get("schema") != 2:
            raise UsageError(f"The checkpoint of {str(self.out)!r} is of an earlier version or not made to be resumed.")
        wanted = self.config.as_dict()
        for part in ("network", "adversary", "losses", "balance"):
            saved, now = content["config"][part], wanted[part]
            if part == "adversary" and saved is not None and now is not None:
                saved, now = saved["discriminators"], now["discriminators"]
            if part in ("losses", "balance") and not self.config.balance and not content["config"]["balance"]:
                continue
            if saved != now:
                raise UsageError(
                    f"The checkpoint's {part} differs from the config's; choose another --out and --start-from for a "
                    "new run."
                )
        self.net.load_state_dict(content["net"])
        for name, value in content["ema"].items():
            self.averaged[name].copy_(value)
        self.optimiser.load_state_dict(content["optimiser"])
        self.scaler.load_state_dict(content["scaler"])
        if self.balancer is not None:
            self.balancer.restore(content["balancer"])
        if self.adversary is not None:
            self.adversary.restore(content["adversary"])
        self.watch.restore(content["watch"])
        torch.set_rng_state(content["rng"]["cpu"])
        if self.device.type == "cuda" and "cuda" in content["rng"]:
            torch.cuda.set_rng_state(content["rng"]["cuda"], self.device)
        self.step, self.seconds = int(content["step"]), float(content["seconds"])
        self.best, self.without_best = content["develop"], int(content["without_best"])
        self.lineage = list(content["lineage"])

    def start_from(self, run: Path) -> tuple[int, int]:
        """Take the averaged weights of another run as far as names and shapes fit, or those of an exported model.

        Blocks that the other has not begin by doing nothing, so that a deeper net goes on from what a shallower one
        has learned.

        Returns
        -------
        tuple of int
            How many of this net's tensors were taken, and how many it has.
        """
        if run.suffix == ".ts":
            return self._start_from_model(run)
        content = load_checkpoint(run)
        if int(content["config"]["network"]["blocks"]) > self.config.network.blocks:
            raise UsageError(f"The run {str(run)!r} has more blocks than the config's network.")
        mine = self.net.state_dict()
        taken = fitting(mine, content["ema"])
        if not any(v.is_floating_point() for v in taken.values()):
            raise UsageError(f"No weight of {str(run)!r} fits the config's network.")
        theirs = content.get("adversary")
        if self.adversary is not None and theirs is not None:
            self.adversary.take_over(theirs)
        self._begin_with(taken, lineage(content.get("lineage", []), content["config"], content["step"]))
        return len(taken), len(mine)

    def _start_from_model(self, path: Path) -> tuple[int, int]:
        module, card, _ = read_model(path)
        if card.get("task") != "denoise" or "config" not in card.get("training", {}):
            raise UsageError(f"The model {str(path)!r} is not one that `rtgan export` has made of a denoiser.")
        mixes = [Mixer(self.corpus, self.config.mixing, self.config.seed)(k).noisy for k in range(_CALIBRATION_MIXES)]
        example = self.config.stft.analyse(torch.from_numpy(np.stack(mixes)))
        training = card["training"]
        blocks = min(self.config.network.blocks, int(training["config"]["network"]["blocks"]))
        shape = dataclasses.replace(self.config.network, blocks=blocks)
        weights = unfolded(module.state_dict(), shape, example).state_dict()
        self._begin_with(weights, lineage(training.get("started_from", []), training["config"], training["steps"]))
        return len(weights), len(self.net.state_dict())

    def _begin_with(self, weights: Mapping[str, Tensor], earlier: list[dict[str, Any]]) -> None:
        self.net.load_state_dict(weights, strict=False)
        for name, module in self.net.named_modules():
            if isinstance(module, Block) and f"{name}.time_norm.weight" not in weights:
                module.begin_as_identity()
        self.lineage = earlier
        self.averaged = {name: value.detach().clone() for name, value in self.net.state_dict().items()}

    def _computing(self) -> contextlib.AbstractContextManager[Any]:
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def estimate(self, noisy: Tensor, clean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Enhanced signals, targets, both ``(batch, samples)`` at the noisy input's unit level, and voice logits.

        The last hop is left out: no frame has completed it.
        """
        stft = self.config.stft
        scale = level_scale(noisy)
        spectrum = stft.analyse(noisy)
        with self._computing():
            out, voice = self.net(spectrum)
        frames = spectrum.shape[2] - 1
        whole = frames * stft.hop_samples
        estimate = stft.synthesise(out.float())[:, :whole] * scale
        return estimate, clean[:, :whole] * scale, voice.float()[:, :frames]

    def train_step(self, noisy: Tensor, clean: Tensor) -> dict[str, float]:
        """One update of the generator, of its running average, and of the discriminators where there are any."""
        config, processes, adversary = self.config, self.processes, self.adversary
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate(self.step)
        noisy = noisy.to(self.device, non_blocking=True)
        clean = clean.to(self.device, non_blocking=True)
        estimate, target, voice = self.estimate(noisy, clean)
        parts = self.loss(estimate, target, voice)
        weights = dict(self.loss.weights)
        if adversary is not None and adversary.speaks(self.step):
            piece = adversary.piece(estimate.shape[1], self.step)
            with self._computing():
                parts |= adversary.terms(estimate[:, piece], target[:, piece])
            weights |= adversary.weights()

        self.optimiser.zero_grad(set_to_none=True)
        if self.balancer is None:
            total = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
            self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        else:
            heard = {name: value for name, value in parts.items() if name != "voice"}
            push = self.balancer.gradient(estimate, heard, weights, processes.mean)
            roots, slopes = [estimate], [push * self.scaler.get_scale()]
            if "voice" in parts:
                roots.append(parts["voice"] * weights["voice"])
                slopes.append(torch.full_like(roots[-1], self.scaler.get_scale()))
            torch.autograd.backward(roots, slopes)
        processes.average([p.grad for p in self.net.parameters() if p.grad is not None])
        self.scaler.unscale_(self.optimiser)
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), config.gradient_clip)

        names = list(parts)
        figures = processes.mean(torch.stack([parts[name].detach().float() for name in names]))
        *values, size = [*figures.tolist(), float(norm)]
        own = [weights[n] * v for n, v in zip(names, values, strict=True) if n not in TERMS]
        trouble = self.watch.trouble(sum(own), sum(map(abs, own)), size)
        if trouble is None and not all(map(math.isfinite, values)):
            trouble = "The adversarial loss is not finite"
        if trouble is not None:
            self._give_up(trouble)
        if math.isfinite(size) or self.dtype is torch.float16:
            self.scaler.step(self.optimiser)
        self.scaler.update()
        keep_average(self.averaged, self.net.state_dict(), config, self.step)
        result = {"loss": sum(own), "norm": size, **dict(zip(names, values, strict=True))}

        if adversary is not None and adversary.learns(self.step):
            piece = adversary.piece(estimate.shape[1], self.step)
            with self._computing():
                lost = adversary.step(
                    estimate[:, piece], target[:, piece], self.rate_shape(self.step), processes.average
                )
            result["discriminators"] = float(processes.mean(lost))
        self.step += 1
        return result

    def _give_up(self, trouble: str) -> None:
        last, best = self.out / CHECKPOINT, self.out / BEST
        kept = f"the last good checkpoint is {last}" if last.is_file() else "there is no checkpoint yet"
        kept += f", the best one {best}" if best.is_file() else ""
        raise RtganError(f"{trouble} at step {self.step}: training stopped, {kept}.")

    def develop(self, diary: Diary | None = None) -> dict[str, float]:
        """Measure the averaged weights on the development set, and keep them as the best where they are.

        Only the first of several processes measures; all learn the figures.
        """
        figures: dict[str, float] | None = None
        if self.processes.first:
            if self._development is None:
                self._development = Development(self.corpus, self.config.develop, self.device)
            net = Denoiser(self.config.network).to(self.device)
            net.load_state_dict(self.averaged)
            figures, enhanced = self._development.measure(net.eval(), self.config.stft, self.loss)
            if diary is not None:
                diary.figures(self.step, figures, "develop")
                for number in range(min(3, len(enhanced))):
                    sounds = {"enhanced": enhanced[number]}
                    if self.best is None:
                        sounds |= {
                            "noisy": self._development.noisy[number],
                            "clean": self._development.clean[number],
                        }
                    rate = self.config.network.sample_rate_hz
                    diary.sounds(self.step, rate, {f"{name}/{number}": s for name, s in sounds.items()})
            better = self._development.better(figures, self.best)
            figures = figures | {"new_best": float(better)}
        figures = self.processes.from_first(figures)
        if figures.pop("new_best"):
            self.best, self.without_best = dict(figures), 0
            if self.processes.first:
                save_atomically(self._weights_to_keep(), self.out / BEST)
        else:
            self.without_best += 1
        return figures

    def _loader(self, workers: int) -> DataLoader[tuple[Tensor, Tensor]]:
        config = self.config
        # forked workers share the memory-mapped recordings; other ways to start one would copy them
        count = workers if sys.platform == "linux" else 0
        return DataLoader(
            _Examples(self.mixer),
            config.batch,
            sampler=_Onward(self.step, config.steps, config.batch, self.processes.rank, self.processes.world),
            num_workers=count,
            multiprocessing_context="fork" if count else None,
            worker_init_fn=_start_worker,
            prefetch_factor=4 if count else None,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator().manual_seed(config.seed),
        )

    def _look(self, diary: Diary | None) -> str:
        text = ", ".join(f"{name} {value:.4g}" for name, value in self.develop(diary).items())
        return f"{text}{'' if self.without_best else ' (best)'}"

    def _worn_out(self) -> str | None:
        develop = self.config.develop
        if not 0 < develop.patience <= self.without_best:
            return None
        return (
            f"no better {develop.metric} on held-out recordings in {self.without_best} looks; the best weights are in "
            f"{BEST}"
        )

    def run(
        self,
        budget_minutes: float | None = None,
        progress: bool = True,
        workers: int | None = None,
        tensorboard: bool = False,
    ) -> int:
        """Train until the steps, the time budget or the patience are used up, then write the checkpoint.

        Parameters
        ----------
        budget_minutes : float, optional
            Wall-clock time after which a step is the last one.
        progress : bool
            Show a bar with the time left.
        workers : int, optional
            Processes that mix examples, instead of the config's.
        tensorboard : bool
            Also write TensorBoard's files, if it is installed.

        Returns
        -------
        int
            Steps done in all.
        """
        config, processes = self.config, self.processes
        batches = self._loader(config.workers if workers is None else workers) if self._worn_out() is None else ()
        return go_on(
            self, (self.train_step(noisy, clean) for noisy, clean in batches), look_every=config.develop.every_steps,
            look=self._look, worn_out=self._worn_out, budget_minutes=budget_minutes, progress=progress,
            tensorboard=tensorboard, first=processes.first, agreed=processes.any,
        )  # fmt: skip
