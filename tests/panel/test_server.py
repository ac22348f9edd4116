"""What the panel refuses, and to whom; over real sockets, against the real process."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from stage import Inside
from support import ROOT
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as open_socket

from rtgan.panel import commands
from rtgan.panel.server import BURST, RATE

STATIC = ROOT / "rtgan" / "panel" / "static"


def connect(served: Inside, token: str | None = None, protocols: list[str] | None = None, **more: Any) -> Any:
    wanted = protocols if protocols is not None else ["rtgan", f"token.{token or served.token}"]
    address = served.base.replace("http", "ws") + "/live"
    return open_socket(address, subprotocols=wanted or None, max_size=None, **more)  # type: ignore[arg-type]


def told(page: ClientConnection, *topics: str) -> dict[str, Any]:
    """Read until these topics have been told."""
    found: dict[str, Any] = {}
    while not set(topics) <= set(found):
        message = page.recv(timeout=10)
        if isinstance(message, str):
            read = json.loads(message)
            found[read.get("topic", "error")] = read.get("data", read.get("error"))
    return found


def raw(served: Inside, text: str) -> bytes:
    """What comes back for bytes put on the wire as they are."""
    host, port = served.base.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as wire:
        wire.sendall(text.replace("\n", "\r\n").encode())
        wire.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: wire.recv(65536), b""))


@pytest.mark.parametrize("path", ["/api/values", "/api/openapi.json"])
@pytest.mark.parametrize("token", ["", "Bearer wrong", "Bearer ", "Basic dXNlcjpwYXNz"])
def test_without_the_token_there_is_nothing_to_read(served: Inside, path: str, token: str) -> None:
    assert served.ask(path)[0] == 200
    assert served.ask(path, Authorization=token)[0] == 401


def test_without_the_token_nothing_can_be_done(served: Inside) -> None:
    body = b'{"name": "host.mute", "value": 1}'
    assert served.ask("/api/set", body, Authorization="Bearer wrong")[0] == 401
    assert served.ask("/api/set", body, Authorization="Bearer sch\u00f6n")[0] == 401
    for protocols in ([], ["rtgan"], ["rtgan", "token.wrong"], [f"token.{served.token}"], ["rtgan", "token."]):
        with pytest.raises(InvalidStatus, match="403"):
            connect(served, protocols=protocols)
    assert served.host.values["host.mute"] == 0


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.:{port}"],
)  # fmt: skip
def test_a_page_that_was_rebound_to_this_machine_is_refused(served: Inside, host: str) -> None:
    port = served.base.rpartition(":")[2]
    for path in ("/", "/api/values"):
        status, answer = served.ask(path, Host=host.format(port=port))
        assert (status, "own address" in answer["error"]) == (403, True)


def test_hosts_that_are_missing_or_double_are_refused(served: Inside) -> None:
    port = served.base.rpartition(":")[2]
    assert raw(served, f"GET / HTTP/1.1\nHost: localhost:{port}\nConnection: close\n\n").startswith(b"HTTP/1.1 200")
    assert raw(served, "GET / HTTP/1.0\n\n").startswith(b"HTTP/1.1 403")
    double = f"GET / HTTP/1.1\nHost: 127.0.0.1:{port}\nHost: evil.example\nConnection: close\n\n"
    assert re.match(rb"HTTP/1.1 40[03]", raw(served, double))


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1"])
def test_other_pages_are_refused_even_with_the_token(served: Inside, origin: str) -> None:
    port = served.base.rpartition(":")[2]
    other = origin.format(port=port)
    assert served.ask("/api/values", Origin=other)[0] == 403
    assert served.ask("/api/panic", b"{}", Origin=other)[0] == 403
    with pytest.raises(InvalidStatus, match="403"):
        connect(served, origin=other)
    assert served.ask("/api/values", Origin=served.base)[0] == 200
    with connect(served, origin=served.base) as page:
        assert told(page, "about")


def test_every_answer_carries_the_headers_that_keep_others_out(served: Inside) -> None:
    port = served.base.rpartition(":")[2]
    for request in ("GET / HTTP/1.1", "GET /nothing HTTP/1.1", "GET /api/values HTTP/1.1", "PUT / HTTP/1.1"):
        answer = raw(served, f"{request}\nHost: 127.0.0.1:{port}\nConnection: close\n\n").decode().lower()
        for header in ("content-security-policy: default-src 'none'", "x-content-type-options: nosniff",
                       "referrer-policy: no-referrer", "cache-control: no-store", "x-frame-options: deny"):  # fmt: skip
            assert header in answer, (request, header)
        assert "unsafe" not in answer
        assert "access-control" not in answer


def test_pages_ask_no_other_machine_for_anything() -> None:
    files = sorted(STATIC.iterdir())
    assert {f.name for f in files} >= {"index.html", "app.css", "app.js", "icon.svg"}
    for file in files:
        text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|style=|\bon[a-z]+=\"|eval\(|innerHTML", text), file


@pytest.mark.parametrize(
    "path", ["/../pyproject.toml", "/static/../link.py", "/%2e%2e/link.py", "/..%2flink.py", "//etc/passwd", "/link.py"]
)  # fmt: skip
def test_no_path_leads_out(served: Inside, path: str) -> None:
    port = served.base.rpartition(":")[2]
    answer = raw(served, f"GET {path} HTTP/1.1\nHost: 127.0.0.1:{port}\nConnection: close\n\n")
    assert answer.startswith(b"HTTP/1.1 404"), answer[:200]


@pytest.mark.parametrize(
    "body, status, words",
    [
        (b"no json", 400, "not JSON"),
        (b"[" * 9000, 400, "not JSON"),
        (b"[]", 400, "an object"),
        (b'{"name": "host.mute"}', 400, "value is missing"),
        (b'{"name": "host.mute", "value": NaN}', 400, "allowed: on or off"),
        (b'{"name": "host.volume_db", "value": 1e999}', 400, "is not a value"),
        (b'{"name": "host.volume_db", "value": 13}', 400, "allowed: -60 to 12 dB"),
        (b'{"name": "host.volume_db", "value": [1]}', 400, "not a number or boolean or string"),
        (b'{"name": "host.volume_db", "value": 1, "more": 2}', 400, "'more' is not known"),
        (b'{"name": "gate.nothing", "value": 1}', 400, "has no parameter"),
        (b'{"name": "' + b"x" * 300 + b'", "value": 1}', 400, "longer than"),
        (b'{"name": "' + b"x" * commands.MOST_BYTES + b'", "value": 1}', 413, "may have"),
        (b'{"do": "panic", "name": "host.mute", "value": 1}', 400, "arguments"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_one_sentence(served: Inside, body: bytes, status: int, words: str) -> None:
    before = dict(served.host.values)
    found, answer = served.ask("/api/set", body)
    assert found == status, answer
    assert words in answer["error"]
    assert served.host.values == before


def test_other_ways_of_asking_are_refused(served: Inside) -> None:
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    assert served.ask("/api/set", b"name=host.mute&value=1", **form)[0] == 415
    assert served.ask("/api/nothing", b"{}")[0] == 400
    assert served.ask("/api/nothing")[0] == 404


def test_messages_that_are_too_long_or_no_text_end_the_connection(served: Inside) -> None:
    for message, code in (("x" * (commands.MOST_BYTES + 1), "1009"), (b"\x00\x01", "1008")):
        with connect(served) as page:
            page.send(message)
            with pytest.raises(ConnectionClosed, match=code):
                while True:
                    page.recv(timeout=10)
    # The others are served as before.
    with connect(served) as page:
        assert told(page, "values")["values"]
        page.send('{"do": "nothing"}')
        assert "there is no command" in told(page, "error")["error"]


def test_who_sends_too_much_waits_and_the_others_do_not(served: Inside, until: Callable[..., None]) -> None:
    count = int(BURST) * 20
    volume = served.host.values["host.volume_db"]

    def flood(page: Any) -> None:
        with contextlib.suppress(ConnectionClosed):
            for k in range(count):
                page.send(json.dumps({"do": "set", "name": "host.volume_db", "value": -50 * k / count}))

    try:
        with connect(served) as page, connect(served) as other:
            begun = time.monotonic()
            thread = threading.Thread(target=flood, args=(page,))
            thread.start()
            until(lambda: served.host.values["host.volume_db"] <= -50 * BURST / count)
            other.send(json.dumps({"do": "set", "name": "host.bypass", "value": 1}))
            until(lambda: served.host.values["host.bypass"] == 1)
            most = BURST + RATE * (time.monotonic() - begun + 1)
            assert served.host.values["host.volume_db"] >= -50 * most / count
            page.close()
            thread.join(20)
    finally:
        served.do("set", name="host.bypass", value=0)
        served.do("set", name="host.volume_db", value=volume)


def test_a_flood_of_requests_is_held_back_and_the_sound_goes_on(served: Inside, until: Callable[..., None]) -> None:
    statuses = {served.ask("/api/reset", b"{}")[0] for _ in range(int(BURST) + 300)}
    assert statuses <= {200, 429}
    assert served.host.running
    assert served.host.stats().faults == {"highpass": 0, "gate": 0, "limiter": 0}
    until(lambda: served.ask("/api/reset", b"{}")[0] == 200)
