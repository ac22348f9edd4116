"""``rtgan process``: sound files through a preset."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rtgan import offline, presets
from rtgan.errors import UsageError
from rtgan.io import files


def run(args: argparse.Namespace) -> int:
    """Process every input; the first problem ends the run with one sentence."""
    steps: list[offline.Step] = []
    settings: dict[str, object] = {}
    rate_of_log = 0
    if args.events:
        if args.preset:
            raise UsageError("--events brings its own preset; leave --preset out")
        preset, values, steps, rate_of_log = offline.read_log(args.events)
        settings.update(values)
    else:
        preset = presets.load(args.preset or "podcast")
    settings.update(offline.parse_settings(args.set))
    targets = _targets(args.inputs, args.output)
    for source, target in zip(args.inputs, targets, strict=True):
        samples, rate = files.read(source)
        if rate_of_log and rate != rate_of_log:
            raise UsageError(f"{source} has {rate} Hz, but {args.events} was recorded at {rate_of_log} Hz")
        from tqdm import tqdm

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
                **{name.replace(".", "__", 1): value for name, value in settings.items()},
            )
        files.write(target, out, rate)
        print(f"{source} -> {target}  ({samples.shape[1] / rate:.1f} s, {preset.name})")
    return 0


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
