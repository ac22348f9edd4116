"""Peers on a JACK server, in a process of their own and with a client library that is not ours.

``jack_peer.py COUNT SEED``: plays a constant sound to the host, sends it controllers at random offsets, listens to
what it puts out, and prints for each one the JACK frame it was sent at and the one at which the sound changed.
Three clients, so that JACK sees no loop, into which it would put a period of its own.
"""

from __future__ import annotations

import json
import sys
import threading

import jack
import numpy as np

COUNT, SEED = int(sys.argv[1]), int(sys.argv[2])
PERIODS_BETWEEN = 12

source, keys, ear = jack.Client("source"), jack.Client("keys"), jack.Client("ear")
sound = source.outports.register("out")
midi = keys.midi_outports.register("midi_out")
listens = ear.inports.register("in")
rng = np.random.default_rng(SEED)
sent: list[int] = []
heard: list[int] = []
rest = {"level": np.float32(np.nan), "periods": 0}
done = threading.Event()


@source.set_process_callback
def play(frames: int) -> None:
    sound.get_array()[:] = 0.25


@ear.set_process_callback
def listen(frames: int) -> None:
    block = listens.get_array()
    if len(sent) > len(heard):
        changed = np.flatnonzero(block != rest["level"])
        if len(changed):
            heard.append(ear.last_frame_time + int(changed[0]))
            rest["periods"] = 0
    elif len(heard) == COUNT:
        done.set()
    # The ramp of the change before has come to rest.
    still = bool((block == block[0]).all())
    rest["periods"] = rest["periods"] + 1 if still else 0
    if still and len(sent) == len(heard):
        rest["level"] = block[0]


@keys.set_process_callback
def send(frames: int) -> None:
    midi.clear_buffer()
    if rest["periods"] >= PERIODS_BETWEEN and len(sent) == len(heard) < COUNT:
        offset = int(rng.integers(frames))
        midi.write_midi_event(offset, (0xB0, 7, 100 if len(sent) % 2 else 50))
        rest["periods"] = 0
        sent.append(keys.last_frame_time + offset)


with source, keys, ear:
    sound.connect("PortAudio:in_0")
    listens.connect("PortAudio:out_0")
    midi.connect("rtgan:midi_in")
    period = ear.blocksize
    complete = done.wait(60)
json.dump({"period": period, "sent": sent, "heard": heard, "complete": complete}, sys.stdout)
