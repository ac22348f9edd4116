"""Generators: TorchScript in, machine code out.

`load` makes a model playable by path or shipped name: a C function for the audio thread and what it needs.
Nothing here imports torch unless a model has to be lowered (`lower`, or the first `load` of a file that is not
shipped).
"""

from __future__ import annotations

from rtgan.generators.card import Card, read_card
from rtgan.generators.compile import Net, Place
from rtgan.generators.library import Loaded, describe, find, load, lower, names
from rtgan.generators.program import Program

__all__ = ["Card", "Loaded", "Net", "Place", "Program", "describe", "find", "load", "lower", "names", "read_card"]
