"""The panel's process; `rtgan.panel.link` starts it and hands it its file descriptors."""

import sys

from rtgan.panel.server import main

if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
