"""The command line: one function per command, each importing only what it needs."""

from __future__ import annotations

import argparse
import math
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from rtgan import __version__, listing, warm
from rtgan.errors import RtganError, UsageError

#: What the virtual microphone is called unless somebody calls it otherwise.
VIRTUAL_MIC = "rtgan microphone"


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
    add("--preset", default=None, metavar="NAME|PATH", help="what to play through (default: clean)")
    add("--strip", action="append", default=[], metavar="NAME[:CH[,CH]][=PRESET]",
        help="one of 2 to 8 microphones, through a chain of its own (default: --preset's); repeatable")  # fmt: skip
    add("--model", metavar="FILE", help="play a model of your own: TorchScript, nn~ (.ts) or Neutone (.nm)")
    add("--input", metavar="DEV", help="input device: index, name or unique part of a name")
    add("--output", metavar="DEV", help="output device")
    add("--virtual-mic", nargs="?", const=VIRTUAL_MIC, metavar="NAME",
        help="play into a microphone that other programs can choose")  # fmt: skip
    add("--in-channels", type=_channels, metavar="N[,N]", help="device input channels from 1 (default: 1)")
    add("--out-channels", type=_channels, metavar="N[,N]", help="device output channels from 1 (default: 1,2)")
    add("--monitor", metavar="[DEV:]N[,N]|DEV",
        help="a second output with a mix of its own: channels of the output device, or another device")  # fmt: skip
    add("--monitor-mix", type=float, metavar="PERCENT", help="0: the input without delay (default), 100: the chain")
    add("--rate", type=int, metavar="HZ", help="sample rate (default: the output device's)")
    add("--block", type=int, default=0, metavar="N", help="frames per block; 0 = least latency (default)")
    add("--set", action="append", default=[], metavar="PLUGIN.PARAM=VALUE", help="set a parameter; repeatable")
    add(
        "--record",
        type=Path,
        metavar="FILE.wav",
        help="record wet, dry (FILE.dry.wav) and events; FILE.flac; or a folder",
    )
    add("--stem", action="append", default=[], metavar="PLUGIN",
        help="record the sound behind this plugin too (FILE.PLUGIN.wav); repeatable")  # fmt: skip
    add("--pre-roll", type=float, default=10.0, metavar="S",
        help="what a recording begun by a control holds of the time before (default: 10)")  # fmt: skip
    add("--wait-device", type=float, default=math.inf, metavar="S",
        help="end when a device has been gone for so long (default: wait for it)")  # fmt: skip
    add("--no-shed", action="store_true", help="leave nothing out, even when the machine cannot keep up")
    add("--seconds", type=float, metavar="S", help="stop after this long")
    add("--midi-in", action="append", default=[], metavar="NAME", help="MIDI input, by part of its name; repeatable")
    add("--midi-out", action="append", default=[], metavar="NAME", help="MIDI output for lights and motor faders")
    add("--midi-file", type=Path, metavar="FILE.mid", help="let a MIDI file play along from the first sample on")
    add("--demo", action="store_true", help="play a short built-in phrase, for instruments (default preset: keys)")
    add("--no-midi", action="store_true", help="open no MIDI port")
    add("--osc", metavar="[HOST:]PORT", help="listen for OSC on this UDP port (of this machine alone by default)")
    add("--no-panel", action="store_true", help="serve no panel (a page on this machine that shows and turns it all)")
    add("--panel-port", type=int, metavar="PORT", help="serve the panel on this port (default: 8020 or any free one)")
    add(
        "--panel-host",
        metavar="ADDR",
        help="let other machines reach the panel, with a password: 0.0.0.0 or one address",
    )
    add("--panel-password-file", type=Path, metavar="FILE",
        help="where that password stands (default: $RTGAN_PANEL_PASSWORD, or asked for)")  # fmt: skip
    add("--telemetry", type=Path, metavar="FILE.jsonl", help="write what the audio thread reports")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="rtgan", description="Live neural audio: a real-time plugin host with its own models.")
    parser.add_argument("--version", action="version", version=f"rtgan {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)

    live = commands.add_parser("live", help="play: microphone in, clean voice out")
    add_live_arguments(live)

    process = commands.add_parser("process", help="send sound files through a preset")
    process.add_argument("inputs", nargs="*", type=Path, metavar="IN", help="none: silence under --midi's notes")
    process.add_argument("-o", "--output", type=Path, required=True, metavar="OUT|DIR")
    process.add_argument("--preset", default=None, metavar="NAME|PATH", help="default: clean")
    process.add_argument("--set", action="append", default=[], metavar="PLUGIN.PARAM=VALUE")
    process.add_argument(
        "--mend", metavar="WHAT",
        help="mend first: gaps, clicks, clipping (commas between), or none (default: all with a preset that repairs)",
    )  # fmt: skip
    process.add_argument("--gaps", type=Path, metavar="FILE.csv",
                         help="gaps to fill: lines of begin,end in seconds, or an Audacity label track")  # fmt: skip
    process.add_argument("--keep-latency", action="store_true", help="leave the chain's delay in")
    process.add_argument("--midi", type=Path, metavar="FILE.mid", help="let a MIDI file play along")
    process.add_argument("--events", type=Path, metavar="FILE.jsonl", help="perform a recorded event log again")

    replay = commands.add_parser("replay", help="perform a recording again, bit for bit")
    replay.add_argument("take", type=Path, metavar="FOLDER|TAKE.wav")
    replay.add_argument("-o", "--output", type=Path, metavar="OUT")
    for each in (process, replay):
        each.add_argument("--allow-code", action="store_true",
                          help="let a recorded performance name plugin files, which run, and model files")  # fmt: skip

    encode = commands.add_parser("encode", help="encode speech in 1.5 to 6 kbit/s, music in 8 to 24")
    decode = commands.add_parser("decode", help="decode what 'rtgan encode' made")
    if len(sys.argv) > 1 and sys.argv[1] in ("encode", "decode"):
        from rtgan import coding

        coding.add_arguments(encode, decode)

    tag = commands.add_parser("tag", help="tell what sounds when in files: speech, music, kinds of noise")
    tag.add_argument("inputs", nargs="+", type=Path, metavar="FILE")
    tag.add_argument("-o", "--output", type=Path, metavar="OUT",
                     help="probabilities every 100 ms (.csv, .json), or a label track for Audacity (.txt)")  # fmt: skip
    tag.add_argument("--png", type=Path, metavar="FILE.png", help="also draw a timeline (needs rtgan[plot])")
    tag.add_argument(
        "--mainly",
        action="store_true",
        help="tell one thing at a time: silence, or which of speech, music and noise is the loudest",
    )
    tag.add_argument("--model", default="tags", metavar="NAME|FILE.ts", help="default: tags")
    tag.add_argument("--threshold", type=float, default=0.5, metavar="P",
                     help="probability from which a sound is named, 0.05 to 0.95 (default: 0.5)")  # fmt: skip

    midi = commands.add_parser("midi", help="MIDI ports, what arrives on them, and learning")
    what = midi.add_subparsers(dest="midi_command", metavar="COMMAND", required=True, parser_class=_Parser)
    what.add_parser("ports", help="list MIDI ports, and what keeps a backend from working")
    monitor = what.add_parser("monitor", help="print what arrives")
    monitor.add_argument("--clock", action="store_true", help="clock and active sensing too")
    learn = what.add_parser("learn", help="let the next control that moves control a parameter")
    learn.add_argument("param", metavar="PLUGIN.PARAM|host.NAME")
    learn.add_argument("--preset", metavar="NAME|PATH", help="the preset of your own that the parameter belongs to")
    learn.add_argument("--mode", help="absolute, pickup, relative-twos, relative-offset, relative-signed, toggle, "
                                      "momentary")  # fmt: skip
    for each in (monitor, learn):
        each.add_argument("--midi-in", action="append", default=[], metavar="NAME", help="by part of its name")
        each.add_argument("--seconds", type=float, metavar="S", help="stop after this long")

    control = commands.add_parser("ctl", help="turn what `rtgan live` plays, from the shell")
    if len(sys.argv) > 1 and sys.argv[1] == "ctl":
        from rtgan.panel import ctl

        ctl.add_arguments(control)

    devices = commands.add_parser("devices", help="list audio devices")
    devices.add_argument("--json", action="store_true", help="for other programs")
    listing.add_preset_arguments(commands.add_parser("presets", help="list, show, check, begin and move presets"))
    info = commands.add_parser("info", help="show what a model or a preset is")
    info.add_argument("file", metavar="FILE|NAME")
    doctor = commands.add_parser("doctor", help="check this machine for live audio, or a model before a show")
    doctor.add_argument("model", nargs="?", metavar="MODEL", help="a model file: say whether it holds on this machine")
    doctor.add_argument("--block", type=int, metavar="N", help="of MODEL: the device's block (default: 128)")
    doctor.add_argument("--rate", type=int, metavar="HZ", help="of MODEL: the device's rate (default: 48000)")
    doctor.add_argument("--seconds", type=float, metavar="S",
                        help="without MODEL: length of the jitter measurement; 0: none (default: 5)")  # fmt: skip
    doctor.add_argument("--json", action="store_true", help="for other programs")
    bench = commands.add_parser("bench", help="measure against the best peers on this machine")
    bench.add_argument(
        "what", nargs="?", choices=("kernels", "engine", "load", "generators", "codec", "control", "panel"),
        help="default: all",
    )  # fmt: skip
    bench.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to a file")
    bench.add_argument(
        "--gtcrn", type=Path, metavar="FILE", help="of generators: GTCRN's streaming ONNX file, to compare with"
    )

    train = commands.add_parser("train", help="train a generator (needs rtgan[torch])")
    export = commands.add_parser("export", help="export a trained generator to TorchScript (needs rtgan[torch])")
    evaluate = commands.add_parser("eval", help="measure a generator against peers (needs rtgan[torch,eval])")
    compose = commands.add_parser("compose", help="play a sound font for training: pieces, notes, effects")
    lower = commands.add_parser("lower", help="lower a TorchScript file to a native program (needs rtgan[torch])")
    lower.add_argument("model", type=Path, metavar="FILE.ts")
    lower.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: beside the model")
    lower.add_argument("--weights", choices=["float32", "float16"], default="float32", help="of large matrices")
    if len(sys.argv) > 1 and sys.argv[1] in ("train", "export", "eval"):
        from rtgan.train import commands as training

        training.add_train_arguments(train)
        training.add_export_arguments(export)
        training.add_eval_arguments(evaluate)
    if len(sys.argv) > 1 and sys.argv[1] == "compose":
        from rtgan.train import band

        band.add_arguments(compose)
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


def _look_for_servers() -> None:
    """PortAudio waits for servers when it begins: time in which everything else is loaded."""
    with suppress(Exception):  # told by whoever needs it
        import sounddevice  # noqa: F401


def play(args: argparse.Namespace) -> int:
    """``rtgan live``."""
    threading.Thread(target=_look_for_servers, daemon=True).start()
    # Importing the engine is what compiles it the first time.
    warm.announce()
    from rtgan import live

    return live.run(args)


def _dispatch(args: argparse.Namespace) -> int:
    if args.command == "live":
        return play(args)
    if args.command in ("process", "replay"):
        warm.announce()
        from rtgan import batch

        code = batch.run(args) if args.command == "process" else batch.replay(args)
        warm.done()
        return code
    if args.command in ("encode", "decode"):
        from rtgan import coding

        return coding.encode(args) if args.command == "encode" else coding.decode(args)
    if args.command == "tag":
        warm.announce()
        from rtgan import tagging

        code = tagging.run(args)
        warm.done()
        return code
    if args.command == "midi":
        warm.announce()
        from rtgan.control import commands as midi

        return int(midi.run(args))
    if args.command == "ctl":
        from rtgan.panel import ctl

        return ctl.run(args)
    if args.command in ("devices", "presets", "info"):
        return int(getattr(listing, args.command)(args))
    if args.command == "doctor" and args.model is not None:
        if args.json:
            raise UsageError("--json is for the report on the machine; what is measured of a model lies beside it")
        if args.seconds is not None:
            raise UsageError("--seconds is for the report on the machine; leave it out, or the model")
        warm.announce()
        from rtgan import model_check

        block, rate = (128 if args.block is None else args.block), (48000 if args.rate is None else args.rate)
        return model_check.check(args.model, block, rate)
    if args.command == "doctor":
        from rtgan import doctor

        if args.block is not None or args.rate is not None:
            raise UsageError("--block and --rate are for a model; name one, or leave them out")
        return doctor.run(5.0 if args.seconds is None else args.seconds, args.json)
    if args.command == "bench":
        from rtgan import bench

        return int(bench.run(args))
    if args.command == "lower":
        from rtgan.generators import library

        return int(library.lower_command(args.model, args.output, args.weights))
    if args.command == "compose":
        from rtgan.train import band

        return band.run(args)
    from rtgan.train import commands as training

    runs = {"train": training.run_train, "export": training.run_export, "eval": training.run_eval}
    return int(runs[args.command](args))


def entry() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
