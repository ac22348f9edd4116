#!/usr/bin/env python3
"""Play: microphone in, clean voice out. The same as ``rtgan live``; see ``--help``."""

import argparse
import sys

from rtgan import live
from rtgan.cli import add_live_arguments, guarded


def main() -> int:
    """Parse, open, play."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_live_arguments(parser)
    args = parser.parse_args()
    return guarded(lambda: live.run(args))


if __name__ == "__main__":
    sys.exit(main())
