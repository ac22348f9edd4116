"""Compile everything that playing needs, once, so that the first show starts as fast as every other."""

from __future__ import annotations

import sys
import time

from rtgan import kernel_cache


def announce() -> None:
    """Say that native code is about to be compiled, if it is."""
    if not kernel_cache.warm_marker().exists():
        print("compiling native code for this machine, once (under a minute) ...", file=sys.stderr, flush=True)


def done() -> None:
    """Note that what playing needs has been compiled."""
    if not kernel_cache.warm_marker().exists():
        kernel_cache.warm_marker().touch()


def main() -> int:
    """Build and run every factory preset."""
    if kernel_cache.warm_marker().exists():
        return 0
    announce()
    begin = time.monotonic()
    import numpy as np

    from rtgan import offline, presets

    for name in sorted(p.stem for p in presets.FACTORY.glob("*.yaml")):
        for rate in (48000, 44100):
            offline.Renderer(presets.load(name), rate, 1).push(np.zeros((1, 4096), np.float32))
    done()
    print(f"compiled in {time.monotonic() - begin:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
