"""A JACK client of our own: what goes wrong leaves the others playing."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

import pytest
from numpy._core import _multiarray_umath
from support import Jack

from rtgan.control import jack as client
from rtgan.engine import Engine
from rtgan.errors import RtganError


def test_a_library_that_lacks_what_is_needed_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    other = ctypes.CDLL(_multiarray_umath.__file__)
    engine = Engine(48000)
    monkeypatch.setattr(client.ctypes, "CDLL", lambda name: other)
    with pytest.raises(RtganError, match=client.NO_LIBRARY):
        client.JackMidi(engine, exact=False)


def test_a_source_that_gets_no_port_is_named_and_tried_again(
    jack: Callable[..., Jack], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = jack(256)
    monkeypatch.setenv("JACK_DEFAULT_SERVER", server.env["JACK_DEFAULT_SERVER"])
    first = client.JackMidi(Engine(48000), exact=False)
    second = client.JackMidi(Engine(48000), exact=False)
    try:
        source = f"{first.name}:midi_out"
        # The name that the next port would have is taken: the server refuses it.
        taken = second._register("midi_in_2", 1)
        assert not second.connect(["midi_out"], [])
        assert list(second.failures) == [source]
        second._library.jack_port_unregister(ctypes.c_void_p(second._client), ctypes.c_void_p(taken))
        assert second.connect(["midi_out"], [])
        assert second.ports == [second.name, source]
        assert second.failures == {}
    finally:
        first.close()
        second.close()


def test_each_output_gets_what_is_meant_for_it(jack: Callable[..., Jack], monkeypatch: pytest.MonkeyPatch) -> None:
    server = jack(256)
    monkeypatch.setenv("JACK_DEFAULT_SERVER", server.env["JACK_DEFAULT_SERVER"])
    engines = [Engine(48000) for _ in range(3)]
    sender, first, second = clients = [client.JackMidi(engine, exact=False) for engine in engines]
    try:
        names = [f"{c.name}:midi_in" for c in (first, second)]
        assert sender.connect([], names), "each gets a port"
        assert not sender.connect([], names), "and keeps it"
        for message, port in ((b"\x90\x01\x40", names[0]), (b"\x90\x02\x40", names[1]), (b"\x90\x03\x40", "")):
            assert sender.send(message, port)
        heard: list[list[int]] = [[], []]
        deadline = time.monotonic() + 10
        while [len(h) for h in heard] != [2, 2] and time.monotonic() < deadline:
            time.sleep(0.01)
            for notes, engine in zip(heard, engines[1:], strict=True):
                notes += [record.a >> 8 & 0x7F for record in engine.native.drain()]
        assert heard == [[1, 3], [2, 3]]
    finally:
        for each in clients:
            each.close()
