"""The command line: one function per command, each importing only what it needs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rtgan import __version__, warm
from rtgan.errors import RtganError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _channels(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of channels such as 1,2") from None


def add_live_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``rtgan live`` and ``run_live.py``."""
    add = parser.add_argument
    add("--preset", default=None, metavar="NAME|PATH", help="what to play through (default: podcast)")
    add("--input", metavar="DEV", help="input device: index, name or unique part of a name")
    add("--output", metavar="DEV", help="output device")
    add("--in-channels", type=_channels, metavar="N[,N]", help="device input channels from 1 (default: 1)")
    add("--out-channels", type=_channels, metavar="N[,N]", help="device output channels from 1 (default: 1,2)")
    add("--rate", type=int, metavar="HZ", help="sample rate (default: the output device's)")
    add("--block", type=int, default=0, metavar="N", help="frames per block; 0 = least latency (default)")
    add("--set", action="append", default=[], metavar="PLUGIN.PARAM=VALUE", help="set a parameter; repeatable")
    add("--record", type=Path, metavar="FILE.wav", help="record wet, dry (FILE.dry.wav) and events")
    add("--seconds", type=float, metavar="S", help="stop after this long")
    add("--telemetry", type=Path, metavar="FILE.jsonl", help="write what the audio thread reports")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="rtgan", description="Live neural audio: a real-time plugin host with its own models.")
    parser.add_argument("--version", action="version", version=f"rtgan {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)

    live = commands.add_parser("live", help="play: microphone in, clean voice out")
    add_live_arguments(live)

    process = commands.add_parser("process", help="send sound files through a preset")
    process.add_argument("inputs", nargs="+", type=Path, metavar="IN")
    process.add_argument("-o", "--output", type=Path, required=True, metavar="OUT|DIR")
    process.add_argument("--preset", default=None, metavar="NAME|PATH", help="default: podcast")
    process.add_argument("--set", action="append", default=[], metavar="PLUGIN.PARAM=VALUE")
    process.add_argument("--keep-latency", action="store_true", help="leave the chain's delay in")
    process.add_argument("--events", type=Path, metavar="FILE.jsonl", help="perform a recorded event log again")

    commands.add_parser("devices", help="list audio devices")
    commands.add_parser("presets", help="list presets")
    info = commands.add_parser("info", help="show the card of a model or a preset")
    info.add_argument("file", metavar="FILE|NAME")
    doctor = commands.add_parser("doctor", help="check this machine for live audio")
    doctor.add_argument("--seconds", type=float, default=5.0, help="length of the jitter measurement")
    bench = commands.add_parser("bench", help="measure against the best peers on this machine")
    bench.add_argument("what", nargs="?", choices=("kernels", "engine", "generators"), help="default: all")
    bench.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to a file")

    train = commands.add_parser("train", help="train a generator (needs rtgan[torch])")
    export = commands.add_parser("export", help="export a trained generator to TorchScript (needs rtgan[torch])")
    evaluate = commands.add_parser("eval", help="measure a generator against peers (needs rtgan[torch,eval])")
    lower = commands.add_parser("lower", help="lower a TorchScript file to a native program (needs rtgan[torch])")
    lower.add_argument("model", type=Path, metavar="FILE.ts")
    lower.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: beside the model")
    if len(sys.argv) > 1 and sys.argv[1] in ("train", "export", "eval"):
        from rtgan.train import commands as training

        training.add_train_arguments(train)
        training.add_export_arguments(export)
        training.add_eval_arguments(evaluate)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    args = _parser().parse_args(argv)
    return guarded(lambda: _dispatch(args))


def guarded(run: Callable[[], int]) -> int:
    """Run a command: one sentence and an exit code instead of a traceback."""
    try:
        return run()
    except RtganError as problem:
        print(f"rtgan: {problem}", file=sys.stderr)
        return problem.exit_code
    except KeyboardInterrupt:
        print("", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1


def play(args: argparse.Namespace) -> int:
    """``rtgan live``."""
    # Importing the engine is what compiles it the first time.
    warm.announce()
    from rtgan import live

    return live.run(args)


def _dispatch(args: argparse.Namespace) -> int:
    if args.command == "live":
        return play(args)
    if args.command == "process":
        warm.announce()
        from rtgan import batch

        code = batch.run(args)
        warm.done()
        return code
    if args.command in ("devices", "presets", "info"):
        from rtgan import listing

        return int(getattr(listing, args.command)(args))
    if args.command == "doctor":
        from rtgan import doctor

        return int(doctor.run(args))
    if args.command == "bench":
        from rtgan import bench

        return int(bench.run(args))
    if args.command == "lower":
        from rtgan.generators import library

        return int(library.lower_command(args.model, args.output))
    from rtgan.train import commands as training

    runs = {"train": training.run_train, "export": training.run_export, "eval": training.run_eval}
    return int(runs[args.command](args))


def entry() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
