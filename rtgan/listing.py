"""``rtgan devices``, ``rtgan presets`` and ``rtgan info``: what there is."""

from __future__ import annotations

import argparse
from pathlib import Path

from rtgan import presets as preset_files
from rtgan.errors import RtganError, UsageError
from rtgan.plugin import all_params, plugin_class


def devices(args: argparse.Namespace) -> int:
    """Print every audio device."""
    from rtgan.io import devices as io_devices

    found = io_devices.devices()
    if not found:
        print("no audio devices; `rtgan live` plays a built-in recording instead")
    for device in found:
        print(device.describe())
    return 0


def presets(args: argparse.Namespace) -> int:
    """Print every preset with its description."""
    broken = 0
    for name in preset_files.names():
        try:
            preset = preset_files.load(name)
        except RtganError as problem:
            print(f"{name:16} cannot be loaded: {problem}")
            broken += 1
            continue
        chain = " > ".join(e.label or e.plugin for e in preset.chain) or "(nothing)"
        print(f"{name:16} {chain}")
        print(f"{'':16} {preset.description}")
    return 1 if broken else 0


def info(args: argparse.Namespace) -> int:
    """Print the card of a model or a preset, by path or by name."""
    name = str(args.file)
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml") or (not path.exists() and name in preset_files.names()):
        return _preset(name)
    from rtgan.generators import library

    model = library.find(name)
    if model is None:
        known = ", ".join([*preset_files.names(), *library.names()])
        raise UsageError(f"there is no file, preset or model '{name}'; known are: {known}")
    print(library.describe(model))
    return 0


def _preset(name: str) -> int:
    preset = preset_files.load(name)
    print(f"{preset.name}: {preset.description}")
    if preset.author:
        print(f"by {preset.author}")
    if preset.tags:
        print(f"tags: {', '.join(preset.tags)}")
    for entry in preset.chain:
        print(f"\n{entry.label or entry.plugin}: {plugin_class(entry.plugin).description}")
        for key, value in entry.options.items():
            print(f"  {key} = {value}")
        for key, param in all_params(plugin_class(entry.plugin)).items():
            value_now = entry.params.get(key, param.default)
            print(f"  {key} = {param.text(value_now)}   ({param.allowed}; {param.description})")
    return 0
