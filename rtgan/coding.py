"""``rtgan encode`` and ``rtgan decode``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from rtgan.codec import container, modes
from rtgan.codec import model as codec_model
from rtgan.errors import RtganError, UsageError
from rtgan.io import files

SUFFIX = ".rtg"


def add_arguments(encode: argparse.ArgumentParser, decode: argparse.ArgumentParser) -> None:
    """Arguments of both commands."""
    encode.add_argument("input", type=Path, metavar="IN")
    encode.add_argument("-o", "--output", type=Path, required=True, metavar=f"OUT{SUFFIX}")
    encode.add_argument("--music", action="store_true", help="music at 48 kHz, instead of speech at 16")
    encode.add_argument("--kbit-s", type=float, metavar="K",
                        help="about how much each channel takes: speech 1 to 6.8 (default: 6), music 8 to 24 "
                             "(default: 24)")  # fmt: skip
    decode.add_argument("input", type=Path, metavar=f"IN{SUFFIX}")
    decode.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    decode.add_argument("--start", type=float, default=0.0, metavar="S", help="begin here")
    decode.add_argument("--seconds", type=float, metavar="S", help="so much of it (default: all)")
    for each in (encode, decode):
        each.add_argument("--model", metavar="FILE|NAME", help="default: the one that comes along")


def _model(mode: modes.Mode, name: str | None) -> modes.Model:
    """The model of a mode, by default the one that comes along."""
    return mode.load(mode.name if name is None else name)


def encode(args: argparse.Namespace) -> int:
    """Write a sound file as ``.rtg``; returns the exit code."""
    if args.output.suffix.lower() != SUFFIX:
        raise UsageError(f"{args.output} must end in {SUFFIX}")
    sound, rate = files.read(args.input)
    loaded = _model(modes.MUSIC if args.music else modes.SPEECH, args.model)
    bits_per_s = None if args.kbit_s is None else 1000 * args.kbit_s
    if bits_per_s is not None and isinstance(loaded, codec_model.Model):
        # Nobody has asked for the default, which a small model may fall short of.
        most = codec_model.most_bits_per_s(loaded)
        least = codec_model.LEAST_BITS_PER_S
        if not least <= bits_per_s <= most:
            raise UsageError(f"a bit rate of {bits_per_s:g} bit/s is not possible; allowed are {least} to {most}")
    part = args.output.with_name(f".{args.output.name}.part")
    try:
        from tqdm import tqdm

        with (
            part.open("wb") as stream,
            tqdm(total=sound.shape[1], unit="sample", unit_scale=True, disable=not sys.stderr.isatty()) as bar,
        ):
            container.encode(sound, rate, loaded, bits_per_s, stream, bar.update)
        size = part.stat().st_size
        os.replace(part, args.output)
    except OSError as problem:
        raise RtganError(f"{args.output} cannot be written: {problem.strerror or problem}") from None
    finally:
        part.unlink(missing_ok=True)
    seconds = sound.shape[1] / rate
    print(f"{args.output}: {seconds:.2f} s, {size} bytes, {8e-3 * size / seconds:.2f} kbit/s")
    return 0


def decode(args: argparse.Namespace) -> int:
    """Write an ``.rtg`` file as a sound file; 0, or 1 where something of it is lost."""
    files.check_target(args.output)
    try:
        data = args.input.read_bytes()
    except OSError as problem:
        raise UsageError(f"{args.input} cannot be read: {problem.strerror or problem}") from None
    try:
        reader = container.Reader(data, _model(container.mode_of(data), args.model))
    except RtganError as problem:
        raise RtganError(f"{args.input}: {problem}") from None
    sound = reader.read(args.start, args.seconds)
    files.write(args.output, sound, reader.sample_rate_hz)
    for lost in reader.problems:
        print(f"rtgan: {args.input}: {lost}", file=sys.stderr)
    print(f"{args.output}: {sound.shape[1] / reader.sample_rate_hz:.2f} s")
    return 1 if reader.problems else 0
