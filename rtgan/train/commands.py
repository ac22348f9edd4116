"""What ``rtgan train``, ``rtgan export`` and ``rtgan eval`` do."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import torch

from ..errors import UsageError
from . import evaluate, export
from .data import Corpus, describe, generated_corpus, load_corpus
from .loop import CHECKPOINT, Trainer, keep_freed_memory, load_checkpoint, load_config

_CONFIGS = Path(__file__).parent / "configs"


def _data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="recordings in speech*/, noise/, music/, rir/; generated sounds without it",
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where decoded recordings are kept")


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``rtgan train``."""
    names = ", ".join(sorted(p.stem for p in _CONFIGS.glob("*.yaml")))
    parser.add_argument("config", metavar="CONFIG.yaml", help=f"a file, or one that comes along: {names}")
    _data_arguments(parser)
    parser.add_argument("--out", type=Path, metavar="RUN_DIR", help="run folder (default: runs/NAME)")
    parser.add_argument("--budget-minutes", type=float, metavar="M", help="stop after this time, ready to resume")
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads of a step (default: 1)")
    parser.add_argument("--resume", action="store_true", help="go on from the run folder's checkpoint")
    parser.add_argument("--start-from", type=Path, metavar="RUN_DIR", help="take the weights of another run")
    parser.add_argument("--steps", type=int, metavar="N", help="instead of the config's steps")


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``rtgan export``."""
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.ts")
    parser.add_argument("--lookahead", type=int, metavar="FRAMES", help="which head (default: the config's)")
    parser.add_argument("--name", help="name on the card (default: the config's)")
    parser.add_argument("--description", help="sentence on the card (default: the config's)")
    parser.add_argument("--metrics", type=Path, metavar="FILE.json", help="figures of 'rtgan eval' for the card")


def add_eval_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``rtgan eval``."""
    parser.add_argument("task", choices=("denoise",))
    _data_arguments(parser)
    parser.add_argument("--model", type=Path, nargs="+", metavar="FILE.ts", help="default: the models that come along")
    parser.add_argument("--peers", nargs="*", default=["rnnoise"], metavar="NAME", help="default: rnnoise")
    parser.add_argument("--count", type=int, default=60, metavar="N", help="mixes to measure (default: 60)")
    parser.add_argument("--seed", type=int, default=2024, help="names the series of mixes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures")
    parser.add_argument("--png", type=Path, metavar="FILE", help="also draw the scores over SNR")


def _corpus(args: argparse.Namespace) -> Corpus:
    if args.data is None:
        return generated_corpus()
    return load_corpus(args.data, args.cache)


def run_train(args: argparse.Namespace) -> int:
    """Train by a config; returns the exit code."""
    path = Path(args.config)
    if not path.is_file() and (_CONFIGS / f"{path.stem}.yaml").is_file() and path.parent == Path("."):
        path = _CONFIGS / f"{path.stem}.yaml"
    config = load_config(path)
    if args.steps is not None:
        config = dataclasses.replace(config, steps=args.steps)
    if args.budget_minutes is not None and args.budget_minutes <= 0:
        raise UsageError(f"--budget-minutes is {args.budget_minutes:g} but must be above 0.")
    out = args.out or Path("runs") / config.name
    existing = (out / CHECKPOINT).is_file()
    if existing and not args.resume:
        raise UsageError(f"{str(out)!r} has a checkpoint: add --resume to go on, or choose another --out.")
    if args.resume and not existing:
        raise UsageError(f"{str(out)!r} has no checkpoint to resume from.")
    torch.set_num_threads(max(1, args.threads))
    keep_freed_memory()
    corpus = _corpus(args)
    print(describe(corpus))
    trainer = Trainer(config, corpus, out, args.device)
    if args.resume:
        trainer.restore()
    elif args.start_from is not None:
        trainer.start_from(args.start_from)
    steps = trainer.run(args.budget_minutes)
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
        name = args.name or load_checkpoint(args.run)["config"]["name"]
        metrics = evaluate.for_card(metrics, name)
    card = export.export_run(args.run, args.output, args.lookahead, args.name, args.description, metrics)
    latency_ms = 1000 * card["latency_samples"] / card["sample_rate_hz"]
    print(f"{args.output}: {card['name']}, {card['parameters']} parameters, latency {latency_ms:g} ms.")
    return 0


def run_eval(args: argparse.Namespace) -> int:
    """Measure models and peers on the same mixes; returns the exit code."""
    if args.count < 1:
        raise UsageError(f"--count is {args.count} but must be at least 1.")
    paths = args.model or sorted((Path(__file__).parents[1] / "weights").glob("denoise-*.ts"))
    if not paths:
        raise UsageError("There is no model to measure: name one with --model.")
    systems = [evaluate.model_system(path) for path in paths]
    for name in args.peers:
        if name not in evaluate.PEERS:
            raise UsageError(f"The peer {name!r} is not known; there are {', '.join(evaluate.PEERS)}.")
        peer = evaluate.PEERS[name]()
        if peer is None:
            print(f"{name} is skipped: its package is not installed.")
        else:
            systems.append(peer)
    corpus = _corpus(args)
    mixes = evaluate.development_mixes(corpus, args.count, args.seed)
    results = evaluate.evaluate_systems(mixes, systems)
    print(evaluate.table(results))
    if args.json is not None:
        kind = "held-out recordings" if args.data is not None else "generated sounds"
        evaluate.write_json(evaluate.as_json(results, mixes, kind), args.json)
    if args.png is not None:
        evaluate.plot(results, mixes, args.png)
    return 0
