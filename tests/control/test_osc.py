"""OSC, spoken by python-osc's own client."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pythonosc.osc_message import OscMessage
from pythonosc.udp_client import SimpleUDPClient
from support import speechlike

from rtgan import Host, presets
from rtgan.control.desk import Desk
from rtgan.control.osc import Osc, parse_where
from rtgan.errors import RtganError, UsageError


class Client:
    """Sends with python-osc, and receives on the same socket."""

    def __init__(self, osc: Osc) -> None:
        self._client = SimpleUDPClient(*osc.where)
        self._socket: socket.socket = self._client._sock
        self._socket.settimeout(5)

    def send(self, address: str, *values: Any) -> None:
        self._client.send_message(address, list(values))

    def receive(self) -> tuple[str, list[Any]]:
        message = OscMessage(self._socket.recv(65535))
        return message.address, list(message.params)

    def until(self, address: str) -> list[tuple[str, list[Any]]]:
        found = [self.receive()]
        while found[-1][0] != address:
            found.append(self.receive())
        return found


@pytest.fixture
def osc() -> Iterator[Osc]:
    host = Host(preset="voice-basic", source=speechlike(30.0)[None])
    with Desk(host, ports=False) as desk, host:
        assert host.wait_first_block()
        made = Osc(desk, ("127.0.0.1", 0))
        made.start()
        yield made
        made.close()


def test_discovery_values_changes_and_no_echo(osc: Osc) -> None:
    one, other = Client(osc), Client(osc)
    one.send("/rtgan")
    found = one.until("/rtgan/end")
    assert found[0] == ("/rtgan/preset", ["Voice without a model"])
    params = {values[0]: values[1:] for address, values in found if address == "/rtgan/param"}
    assert params["/gate/threshold_db"][0] == -90
    assert params["/host/mute"] == [0, 1, 0, ""]
    assert {v[0] for a, v in found if a == "/rtgan/action"} >= {"/host/panic", "/host/next", "/host/record"}
    other.send("/highpass/cutoff_hz", 200.0)
    assert one.until("/highpass/cutoff_hz")[-1][1] == [200]
    one.send("/highpass/cutoff_hz", 300.0)
    one.send("/host/mute", 1)
    time.sleep(0.2)
    one.send("/highpass/cutoff_hz")
    assert one.receive() == ("/highpass/cutoff_hz", [300]), "asked for, not told of its own change"
    assert osc._host.values["host.mute"] == 1
    assert osc.refused == 0


def test_actions(osc: Osc) -> None:
    client = Client(osc)
    client.send("/rtgan")
    client.until("/rtgan/end")
    client.send("/host/load", "bypass")
    deadline = time.monotonic() + 20
    while osc._host.preset.name != "Bypass":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    client.send("/host/panic")
    client.send("/host/panic", 1.0)
    time.sleep(0.2)
    assert osc._host.running
    assert osc.refused == 0


def test_presets_are_loaded_by_name_only_and_no_code_runs(osc: Osc, tmp_path: Path) -> None:
    client = Client(osc)
    ran = tmp_path / "ran"
    folder = presets.user_folder()
    folder.mkdir(parents=True)
    for where in (tmp_path, folder):
        (where / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n")
        (where / "evil.yaml").write_text("schema: 2\nname: Evil\nchain:\n- plugin: evil.py\n")
    for path in (str(tmp_path / "evil.yaml"), "evil.yaml", "../evil"):
        client.send("/host/load", path)
        address, said = client.receive()
        assert address == "/rtgan/error" and "takes the name of a preset, not a path" in said[0]
    client.send("/host/load", "evil")
    deadline = time.monotonic() + 20
    while "is code, and runs only for a preset that is given by its path" not in " ".join(osc._host.stats().warnings):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert osc._host.preset.name == "Voice without a model"
    assert not ran.exists()


@pytest.mark.parametrize(
    "address, values, why",
    [
        ("/highpass/cutoff_hz", ["loud"], "is not a value for cutoff_hz"),
        ("/highpass/cutoff_hz", [1e9], "out of range"),
        ("/highpass/cutoff_hz", [float("nan")], "is not a value"),
        ("/highpass/cutoff_hz", [1.0, 2.0], "takes one value"),
        ("/nothing/at_all", [1.0], "there is no 'nothing'"),
        ("/host/volume", [1.0], "the host has no parameter 'volume'"),
        ("/host/snapshot", [99.0], "out of range"),
        ("/host/chain", ["add", "gain", float("inf")], "/host/chain takes add, move or remove"),
        ("/host/chain", ["add", "gain", float("nan")], "/host/chain takes add, move or remove"),
    ],
)
def test_nonsense_is_answered_with_one_sentence(osc: Osc, address: str, values: list[Any], why: str) -> None:
    client = Client(osc)
    client.send(address, *values)
    said = client.receive()
    assert said[0] == "/rtgan/error"
    assert why in said[1][0]


def test_ten_thousand_random_packets(osc: Osc, rng: np.random.Generator) -> None:
    before = dict(osc._host.values)
    seeds = [b"/highpass/cutoff_hz\0,f\0\0", b"#bundle\0", b"/rtgan\0\0,\0\0\0", b"/host/mute\0\0,i\0\0", b"/", b""]
    for k in range(10_000):
        packet = bytearray(seeds[k % len(seeds)] + rng.integers(0, 256, rng.integers(0, 40), np.uint8).tobytes())
        if len(packet) > 4 and k % 3 == 0:
            packet[rng.integers(len(packet))] = rng.integers(256)
        osc.take(bytes(packet), ("127.0.0.1", 9))
    assert osc.refused > 1000
    assert osc._host.running
    for name, param in osc._host.params.items():
        assert param.minimum <= osc._host.values[name] <= param.maximum
    assert set(osc._host.values) == set(before)
    client = Client(osc)
    client.send("/gate/threshold_db")
    assert client.receive()[0] == "/gate/threshold_db", "it still answers"


def test_where_it_listens() -> None:
    assert parse_where("9010") == ("127.0.0.1", 9010)
    assert parse_where("0.0.0.0:9010") == ("0.0.0.0", 9010)
    for wrong in ("", "x", "99999", "host:", "-1"):
        with pytest.raises(UsageError, match="is not an OSC port"):
            parse_where(wrong)
    with pytest.raises(RtganError, match=r"OSC cannot listen on 203\.0\.113\.1:9010"):
        Osc(None, ("203.0.113.1", 9010))  # type: ignore[arg-type]
    for name in ("a..b", "x" * 100):
        with pytest.raises(RtganError, match="OSC cannot listen on"):
            Osc(None, (name, 9010))  # type: ignore[arg-type]
