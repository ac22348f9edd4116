"""Looking for devices while a JACK server goes, and another comes in its place."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from support import ROOT, Jack

_LOOK = """
import sys
from rtgan.io import devices
for _ in sys.stdin:
    devices.refresh()
    print(next((int(d.rate_hz) for d in devices.devices() if d.name == "system"), 0), flush=True)
"""


@pytest.mark.jack
def test_a_server_that_another_has_replaced_is_not_taken_for_it(jack: Callable[..., Jack]) -> None:
    server = jack(256, 32000)
    environment = {**server.env, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    looking = subprocess.Popen(
        [sys.executable, "-c", _LOOK], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert looking.stdin is not None and looking.stdout is not None

    def look() -> str:
        assert looking.stdin is not None and looking.stdout is not None
        looking.stdin.write("\n")
        looking.stdin.flush()
        return looking.stdout.readline().strip()

    assert look() == "32000"
    server.close()
    server.rate = 48000
    server.start()
    assert look() == "48000"
    assert look() == "48000"
    # PortAudio is not ended on a server that has gone: that would abort the process.
    server.close()
    looking.stdin.close()
    assert looking.wait(30) == 0
    looking.stdout.close()
    server.start()
