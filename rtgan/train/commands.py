"""What ``rtgan train``, ``rtgan export`` and ``rtgan eval`` do."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import torch

from ..errors import UsageError
from . import evaluate, export, peers, scoring
from .checkpoint import CHECKPOINT, load_checkpoint
from .course import Course
from .data import ROLES, Corpus, describe, generated_corpus, load_corpus, pack
from .loop import Trainer, load_config
from .running import keep_freed_memory
from .tasks import TASKS, Task, task_of_config, task_of_run

_CONFIGS = Path(__file__).parent / "configs"


def _data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR|FILE",
        help="recordings in speech*/, noise/, music/, rir/, or a pack of them; the denoiser and repair can do without",
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where decoded recordings are kept")


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``rtgan train``."""
    names = ", ".join(sorted(p.stem for p in _CONFIGS.glob("*.yaml")))
    parser.add_argument("config", nargs="?", metavar="CONFIG.yaml", help=f"a file, or one that comes along: {names}")
    _data_arguments(parser)
    parser.add_argument("--out", type=Path, metavar="RUN_DIR", help="run folder (default: runs/NAME)")
    parser.add_argument("--budget-minutes", type=float, metavar="M", help="stop after this time, ready to resume")
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads of a step (default: 1)")
    parser.add_argument("--resume", action="store_true", help="go on from the run folder's checkpoint")
    parser.add_argument(
        "--start-from",
        type=Path,
        metavar="RUN|MODEL.ts",
        help="take what fits of another run's weights (folder or .pt file), or those of an exported model (.ts)",
    )
    parser.add_argument("--steps", type=int, metavar="N", help="instead of the config's steps")
    parser.add_argument("--batch", type=int, metavar="N", help="examples of a process, instead of the config's")
    parser.add_argument("--workers", type=int, metavar="N", help="mixing processes, instead of the config's")
    parser.add_argument(
        "--pack", type=Path, metavar="FILE", help="only write a subset of --data into one file that --data takes"
    )
    parser.add_argument("--pack-mb", type=float, default=60.0, metavar="MB", help="size of the pack (default: 60)")


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``rtgan export``."""
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.ts")
    parser.add_argument("--name", help="name on the card (default: the config's)")
    parser.add_argument("--description", help="sentence on the card (default: the config's)")
    parser.add_argument("--metrics", type=Path, metavar="FILE.json", help="figures of 'rtgan eval' for the card")


def add_eval_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``rtgan eval``."""
    parser.add_argument("task", choices=("denoise", *TASKS), help="what to measure")
    _data_arguments(parser)
    parser.add_argument(
        "--model",
        type=Path,
        nargs="+",
        metavar="FILE.ts|RUN",
        help="exported models, run folders or checkpoints (default: the models that come along)",
    )
    parser.add_argument("--peers", nargs="*", metavar="NAME", help="default: all there are")
    parser.add_argument("--count", type=int, default=60, metavar="N", help="mixes to measure (default: 60)")
    parser.add_argument("--seed", type=int, default=2024, help="names the series of mixes")
    parser.add_argument("--gtcrn", type=Path, metavar="FILE.onnx", help="the peer GTCRN, its streaming model")
    parser.add_argument("--dnsmos", type=Path, metavar="FILE.onnx", help="also score by this DNSMOS P.835 model")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures")
    parser.add_argument("--png", type=Path, metavar="FILE", help="also draw the scores over SNR")
    parser.add_argument("--audio", type=Path, metavar="DIR", help="also write before, after and spectrograms here")
    for task in TASKS.values():
        if task.add_arguments is not None:
            task.add_arguments(parser)


def _corpus(args: argparse.Namespace) -> Corpus:
    if args.data is None:
        return generated_corpus()
    return load_corpus(args.data, args.cache)


def _pack(args: argparse.Namespace) -> int:
    if args.data is None:
        raise UsageError("--pack needs --data DIR to take recordings from.")
    chosen = pack(args.data, args.pack, args.pack_mb)
    counts = {role: sum(item["role"] == role for item in chosen) for role in ROLES}
    listed = ", ".join(f"{count} {role}" for role, count in counts.items())
    print(f"{args.pack}: {args.pack.stat().st_size / 1e6:.1f} MB, {listed} files with their licences.")
    return 0


def _run_folder(args: argparse.Namespace, name: str) -> Path:
    """Where a run is kept; whether it begins or goes on must be said."""
    if args.budget_minutes is not None and args.budget_minutes <= 0:
        raise UsageError(f"--budget-minutes is {args.budget_minutes:g} but must be above 0.")
    out: Path = args.out or Path("runs") / name
    existing = (out / CHECKPOINT).is_file()
    if existing and not args.resume:
        raise UsageError(f"{str(out)!r} has a checkpoint: add --resume to go on, or choose another --out.")
    if args.resume and not existing:
        raise UsageError(f"{str(out)!r} has no checkpoint to resume from.")
    return out


def _take_up(run: Trainer | Course[Any], args: argparse.Namespace) -> None:
    if args.resume:
        run.restore()
    elif args.start_from is not None:
        taken, whole = run.start_from(args.start_from)
        print(f"{taken} of {whole} tensors are taken from {args.start_from}.")


def _take_course(args: argparse.Namespace, task: Task, path: Path) -> int:
    if args.batch is not None or args.workers is not None or args.device != "cpu":
        raise UsageError("Such a net is trained by one process on the CPU; leave --batch, --workers and --device out.")
    config = task.load(path)
    if args.steps is not None:
        config = dataclasses.replace(config, steps=args.steps)
    out = _run_folder(args, config.name)
    torch.set_num_threads(max(1, args.threads))
    keep_freed_memory()
    course = task.begin(config, args.data, args.cache, out)
    _take_up(course, args)
    steps = course.run(args.budget_minutes, tensorboard=True)
    print(f"{steps} of {config.steps} steps done; checkpoint in {out}.")
    return 0


def run_train(args: argparse.Namespace) -> int:
    """Train by a config; returns the exit code."""
    if args.pack is not None:
        return _pack(args)
    if args.config is None:
        raise UsageError("A config is needed: a file, or the name of one that comes along (see rtgan train --help).")
    path = Path(args.config)
    if not path.is_file() and (_CONFIGS / f"{path.stem}.yaml").is_file() and path.parent == Path("."):
        path = _CONFIGS / f"{path.stem}.yaml"
    task = task_of_config(path)
    if task is not None:
        return _take_course(args, task, path)
    config = load_config(path)
    changes = {key: value for key in ("steps", "batch", "workers") if (value := getattr(args, key)) is not None}
    config = dataclasses.replace(config, **changes)
    out = _run_folder(args, config.name)
    torch.set_num_threads(max(1, args.threads))
    keep_freed_memory()
    corpus = _corpus(args)
    if os.environ.get("RANK", "0") == "0":
        print(describe(corpus))
    trainer = Trainer(config, corpus, out, args.device)
    _take_up(trainer, args)
    try:
        steps = trainer.run(args.budget_minutes, tensorboard=True)
    finally:
        trainer.processes.close()
    if trainer.processes.first:
        print(f"{steps} of {config.steps} steps done; checkpoint in {out}.")
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Export a run to TorchScript; returns the exit code."""
    metrics = None
    if args.metrics is not None:
        try:
            metrics = json.loads(args.metrics.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"The figures {str(args.metrics)!r} cannot be read as JSON.") from error
    task = task_of_run(args.run)
    if task is not None:
        card = task.export(args.run, args.output, args.name, args.description, metrics)
        print(f"{args.output}: {card['name']}, {card['parameters']} parameters.")
        return 0
    if metrics is not None:
        name = args.name or load_checkpoint(args.run)["config"]["name"]
        metrics = evaluate.for_card(metrics, name)
    card = export.export_run(args.run, args.output, args.name, args.description, metrics)
    latency_ms = 1000 * card["latency_samples"] / card["sample_rate_hz"]
    print(f"{args.output}: {card['name']}, {card['parameters']} parameters, latency {latency_ms:g} ms.")
    return 0


def run_eval(args: argparse.Namespace) -> int:
    """Measure models and peers on the same mixes; returns the exit code."""
    if args.task in TASKS:
        return TASKS[args.task].measure(args)
    if args.count < 1:
        raise UsageError(f"--count is {args.count} but must be at least 1.")
    shipped = sorted((Path(__file__).parents[1] / "weights").glob("*.ts"))
    paths = args.model or [path for path in shipped if export.read_model(path)[1].get("task") == args.task]
    if not paths:
        raise UsageError("There is no model to measure: name one with --model.")
    systems = [peers.model_system(path) if path.suffix == ".ts" else peers.run_system(path) for path in paths]
    for name in peers.PEERS if args.peers is None else args.peers:
        if name not in peers.PEERS:
            raise UsageError(f"The peer {name!r} is not known; there are {', '.join(peers.PEERS)}.")
        peer = peers.PEERS[name]()
        if peer is None:
            print(f"{name} is skipped: its package is not installed.")
        else:
            systems.append(peer)
    if args.gtcrn is not None:
        systems.append(peers.gtcrn_system(args.gtcrn))
    dnsmos = scoring.Dnsmos(args.dnsmos) if args.dnsmos is not None else None
    mixes = evaluate.development_mixes(_corpus(args), args.count, args.seed)
    outputs = evaluate.run_systems(mixes, systems)
    if args.audio is not None:
        evaluate.write_audio(mixes, outputs, args.audio)
    results = evaluate.score(mixes, outputs, dnsmos)
    print(evaluate.table(results))
    if args.json is not None:
        kind = "held-out recordings" if args.data is not None else "generated sounds"
        evaluate.write_json(evaluate.as_json(results, mixes, kind), args.json)
    if args.png is not None:
        evaluate.plot(results, mixes, args.png)
    return 0
