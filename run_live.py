#!/usr/bin/env python3
"""Play: microphone in, clean voice out. The same as ``rtgan live``; see ``--help``."""

import argparse
import sys

from rtgan.cli import add_live_arguments, guarded, play


def main() -> int:
    """Parse, open, play."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_live_arguments(parser)
    args = parser.parse_args()
    return guarded(lambda: play(args))


if __name__ == "__main__":
    sys.exit(main())
