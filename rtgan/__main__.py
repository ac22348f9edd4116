"""``python -m rtgan``."""

from rtgan.cli import entry

entry()
