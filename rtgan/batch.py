"""``rtgan process`` and ``rtgan replay``: sound files through a preset, and performances again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rtgan import bindings, mending, offline, presets, setlist
from rtgan.control import mapping, midifile
from rtgan.errors import RtganError, UsageError
from rtgan.io import files
from rtgan.mending import gaps
from rtgan.recorder import TAKE, parts

_RATE_HZ = 48000
_ENDING_S = 4.0
#: A key that the file never lets go would sound to its end, and be cut off there.
_LET_GO = 0xFF


def run(args: argparse.Namespace) -> int:
    """Process every input; the first problem ends the run with one sentence."""
    steps: list[offline.Step] = []
    settings: dict[str, object] = {}
    rate_of_log = calls = 0
    if args.events:
        if args.midi:
            raise UsageError("--events brings what MIDI did; leave --midi out")
        if args.preset:
            raise UsageError("--events brings its own preset; leave --preset out")
        preset, values, steps, rate_of_log, calls = offline.read_log(args.events, args.allow_code)
        settings.update(values)
    else:
        preset = presets.load(args.preset or "clean")
    settings.update(offline.parse_settings(args.set))
    what, marked = _damage(args, preset, settings)
    prepare = mapping.preparing(bindings.load_map()) if args.midi else None
    if not args.inputs:
        return _perform(args, preset, settings)
    targets = _targets(args.inputs, args.output)
    for source, target in zip(args.inputs, targets, strict=True):
        samples, rate = files.read(source)
        if rate_of_log and rate != rate_of_log:
            raise UsageError(f"{source} has {rate} Hz, but {args.events} was recorded at {rate_of_log} Hz")
        messages: list[midifile.Timed] = []
        if args.midi:
            if rate not in offline.ENGINE_RATES_HZ:
                allowed = ", ".join(str(r) for r in offline.ENGINE_RATES_HZ)
                raise UsageError(f"{source} has {rate} Hz; with --midi it must be one of {allowed} Hz")
            messages = midifile.read(args.midi, rate)
            steps = midifile.preset_steps(messages, setlist.load())
        from tqdm import tqdm

        mended = None
        if what or marked:
            samples, mended = mending.mend(samples, rate, what, marked, _told(source.name))
        keywords: dict[str, Any] = {name.replace(".", "__", 1): value for name, value in settings.items()}
        with tqdm(
            total=samples.shape[1],
            unit="sample",
            unit_scale=True,
            desc=source.name,
            disable=not sys.stderr.isatty(),
            leave=False,
        ) as bar:
            out = offline.process(
                samples,
                rate,
                preset,
                keep_latency=args.keep_latency,
                steps=steps,
                progress=bar.update,
                midi=messages,
                port=mapping.FILE_PORT,
                prepare=prepare,
                calls_samples=calls,
                **keywords,
            )
        files.write(target, out, rate)
        said = f"; mended: {mended}" if mended is not None else ""
        print(f"{source} -> {target}  ({samples.shape[1] / rate:.1f} s, {preset.name}{said})")
    return 0


def _told(name: str) -> Callable[[str], None]:
    """Say what is looked for, to who watches."""
    return lambda task: print(f"{name}: {task} ...", file=sys.stderr) if sys.stderr.isatty() else None


def _damage(
    args: argparse.Namespace, preset: presets.Preset, settings: Mapping[str, object]
) -> tuple[Sequence[str], list[tuple[float, float, str]]]:
    """What is mended before the chain hears it, and gaps that somebody marked."""
    if args.events and (args.mend or args.gaps):
        raise UsageError("--events performs what was recorded, as it was; leave --mend and --gaps out")
    if not args.inputs and (args.mend or args.gaps):
        raise UsageError("there is no sound file to mend; name one, or leave --mend and --gaps out")
    if args.gaps and len(args.inputs) > 1:
        raise UsageError("--gaps is the list of one recording, and there are several")
    marked = gaps.read_list(args.gaps) if args.gaps else []
    if args.mend:
        return mending.parse(args.mend), marked
    chain = zip(presets.labels(preset.chain), preset.chain, strict=True)
    bypasses = [f"{label}.bypass" for label, entry in chain if entry.plugin == "repair"]
    values, declared = {**preset.values(), **settings}, preset.declared()
    repairs = any(not declared[name].check(values[name], name) for name in bypasses)
    return mending.DAMAGE if repairs and not args.events else (), marked


def _perform(args: argparse.Namespace, preset: presets.Preset, settings: dict[str, object]) -> int:
    """Render a MIDI file without any sound beneath it, until what it began has died away."""
    if not args.midi:
        raise UsageError("there is nothing to process: name a sound file, or --midi FILE.mid for an instrument")
    files.check_target(args.output)
    messages = midifile.read(args.midi, _RATE_HZ)
    steps = midifile.preset_steps(messages, setlist.load())
    end = max((at for at, _ in messages), default=0)
    keywords: dict[str, Any] = {name.replace(".", "__", 1): value for name, value in settings.items()}
    out = offline.process(
        np.zeros((1, end + round(_ENDING_S * _RATE_HZ)), np.float32),
        _RATE_HZ,
        preset,
        steps=steps,
        midi=[*messages, (end, bytes([_LET_GO]))],
        port=mapping.FILE_PORT,
        prepare=mapping.preparing(bindings.load_map()),
        **keywords,
    )
    files.write(args.output, out, _RATE_HZ)
    print(f"{args.midi} -> {args.output}  ({out.shape[1] / _RATE_HZ:.1f} s, {preset.name})")
    return 0


def replay(args: argparse.Namespace) -> int:
    """Render a recorded performance again and compare it with what was heard; exit code 1 if it differs."""
    take = args.take / TAKE if args.take.is_dir() else args.take
    dry, log = take.with_suffix(".dry.wav"), take.with_suffix(".events.jsonl")
    if take.suffix.lower() == ".flac":
        raise UsageError(f"{take} was rounded to 24 bits; only a .wav take is performed again bit for bit")
    for needed in (dry, log):
        if not needed.is_file():
            raise UsageError(f"{args.take} is no recorded performance: there is no {needed.name}")
    preset, values, steps, logged_hz, calls = offline.read_log(log, args.allow_code)
    whole = parts(take)
    samples, rate = files.read_parts([part.with_suffix(".dry.wav") for part in whole])
    if rate != logged_hz:
        raise UsageError(f"{dry} has {rate} Hz, but its events were recorded at {logged_hz} Hz")
    settings: dict[str, Any] = {name.replace(".", "__", 1): value for name, value in values.items()}
    out = offline.process(
        samples, rate, preset, keep_latency=True, steps=steps, calls_samples=calls, **settings
    )  # fmt: skip
    if args.output is not None:
        files.check_target(args.output)
        files.write(args.output, out, rate)
        print(f"{take} -> {args.output}  ({samples.shape[1] / rate:.1f} s, {len(steps)} events)")
    if not take.is_file():
        return 0
    heard, _ = files.read_parts(whole)
    if heard.shape == out.shape and np.array_equal(heard.view(np.int32), out.view(np.int32)):
        print(f"identical to what was heard: {samples.shape[1]} samples, {len(steps)} events")
        return 0
    length = min(heard.shape[1], out.shape[1])
    if heard.shape[0] != out.shape[0] or length == 0:
        raise RtganError(f"{take} and {dry} do not belong together")
    different = np.flatnonzero((heard[:, :length] != out[:, :length]).any(axis=0))
    first = int(different[0]) if len(different) else length
    most = float(np.abs(heard[:, :length] - out[:, :length]).max())
    print(
        f"differs from what was heard from sample {first} on ({first / rate:.3f} s), by {most:.2g} at most. "
        "A take that began while it was playing, or plugins and models that have changed since, do that."
    )
    return 1


def _targets(inputs: list[Path], output: Path) -> list[Path]:
    if output.is_dir():
        targets = []
        for source in inputs:
            suffix = source.suffix.lower() if source.suffix.lower() in files.WRITABLE else ".wav"
            targets.append(output / f"{source.stem}{suffix}")
    elif len(inputs) > 1:
        raise UsageError(f"several inputs need a folder as output, and {output} is none")
    else:
        targets = [output]
    for source, target in zip(inputs, targets, strict=True):
        files.check_target(target)
        if target.exists() and source.exists() and target.samefile(source):
            raise UsageError(f"the output {target} is the input; give another name or folder")
    if len(set(targets)) != len(targets):
        raise UsageError("two inputs of the same name cannot go to one folder")
    return targets
