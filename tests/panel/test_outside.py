"""A panel that other machines reach: what it asks for, whom it refuses, and what it never shows."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stage import Asking, Inside
from support import speechlike
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from rtgan import Host
from rtgan.control.desk import Desk
from rtgan.errors import UsageError
from rtgan.panel import link, password

PASSWORD = "correct horse"
#: Another address of this machine than its own name, as a neighbour's machine would use.
OTHER = "127.0.0.2"


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Inside]:
    """A host whose panel listens to every address."""
    host = Host(preset="voice-basic", source=np.tile(speechlike(20.0), 6)[None])
    with Desk(host, ports=False) as desk, link.Panel(host, desk, address="0.0.0.0", password=PASSWORD) as panel, host:
        stage = Inside(panel.url, host, panel)
        stage.wait("/api/values", lambda values: "host.mute" in values, 60)
        yield stage


def neighbour(opened: Inside) -> Asking:
    """The same panel, seen from outside, without the token."""
    return Asking(f"http://{OTHER}:{opened.base.rpartition(':')[2]}/#none")


def login(asking: Asking, given: object) -> tuple[int, Any]:
    return asking.ask("/api/login", json.dumps({"password": given}).encode(), Authorization="")


def test_the_password_opens_it_from_outside_and_nothing_else_does(opened: Inside) -> None:
    outside = neighbour(opened)
    status, answer = outside.ask("/api/values")
    assert (status, answer["password"]) == (401, True)
    assert login(outside, "wrong horse") == (401, {"error": "the password is wrong"})
    status, answer = login(outside, PASSWORD)
    assert status == 200
    inside = Asking(f"{outside.base}/#{answer['token']}")
    assert "host.mute" in inside.ask("/api/values")[1]
    where = outside.base.replace("http", "ws") + "/live"
    with connect(where, subprotocols=["rtgan", f"token.{inside.token}"], origin=outside.base) as page:  # type: ignore[list-item,arg-type]
        assert page.recv(timeout=10)
    # Names are as good as strangers: whoever can make one lead here must not get in by it.
    port = outside.base.rpartition(":")[2]
    for name in (f"evil.example:{port}", f"192.0.2.7:{port}", OTHER):
        assert inside.ask("/api/values", Host=name)[0] == 403
    for origin in ("http://evil.example", f"http://127.0.0.3:{port}", f"https://{OTHER}:{port}"):
        assert inside.ask("/api/values", Origin=origin)[0] == 403
        with pytest.raises(InvalidStatus, match="403"):
            connect(where, subprotocols=["rtgan", f"token.{inside.token}"], origin=origin)  # type: ignore[list-item,arg-type]
    assert opened.panel.opens.startswith("panel for others: http://")
    assert "not encrypted" in opened.panel.opens


def test_who_guesses_has_to_wait_and_others_need_not(opened: Inside) -> None:
    outside = neighbour(opened)
    statuses = [login(outside, f"guess {k}")[0] for k in range(password.TRIES + 3)]
    assert statuses == [401] * password.TRIES + [429] * 3
    status, answer = login(outside, PASSWORD)
    assert (status, "try again in" in answer["error"]) == (429, True)
    port = int(outside.base.rpartition(":")[2])
    elsewhere = http.client.HTTPConnection(OTHER, port, timeout=20, source_address=("127.0.0.3", 0))
    elsewhere.request("POST", "/api/login", json.dumps({"password": PASSWORD}), {"Content-Type": "application/json"})
    assert elsewhere.getresponse().status == 200
    elsewhere.close()
    for body in (b"", b"[]", b"{}", b'{"password": 7}', b'{"password": "' + b"x" * 999 + b'"}', b"[" * 9000):
        assert outside.ask("/api/login", body, Authorization="")[0] == 400
    assert outside.ask("/api/login", b"x", Content_Type="text/plain")[0] == 415


def test_everybody_together_may_not_guess_much_either(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    tries = password.Tries()
    for k in range(password.ALL_TRIES):
        assert tries.wait_s(f"10.0.0.{k}") == 0
        tries.spend(f"10.0.0.{k}")
    assert tries.wait_s("10.0.1.1") > 0
    now[0] += password.AGAIN_S
    assert tries.wait_s("10.0.1.1") == 0
    for k in range(10_000):
        tries.spend(str(k))
    assert len(tries._spent) <= 1024


def test_a_password_is_kept_by_nobody(opened: Inside, tmp_path: Path) -> None:
    process = opened.panel._process
    assert process is not None
    for pid in (process.pid, os.getpid()):
        for file in ("cmdline", "environ"):
            assert PASSWORD.encode() not in Path(f"/proc/{pid}/{file}").read_bytes()
    config = Path(os.environ["RTGAN_CONFIG_DIR"])
    assert all(PASSWORD not in file.read_text("utf-8") for file in config.rglob("*") if file.is_file())
    sealed = password.seal(PASSWORD)
    assert PASSWORD not in sealed
    assert sealed != password.seal(PASSWORD)
    assert password.fits(PASSWORD, sealed)
    assert not password.fits(PASSWORD + " ", sealed)


def test_where_the_password_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_text(PASSWORD + "\n")
    file.chmod(0o644)
    with pytest.raises(UsageError, match="can be read by others"):
        password.obtain(file)
    file.chmod(0o600)
    assert password.obtain(file) == PASSWORD
    monkeypatch.setenv(password.VARIABLE, PASSWORD)
    assert password.obtain() == PASSWORD
    assert password.VARIABLE not in os.environ, "no process that is started inherits it"
    monkeypatch.setenv(password.VARIABLE, "short")
    with pytest.raises(UsageError, match="allowed: 8 to 128"):
        password.obtain()
    with pytest.raises(UsageError, match="cannot be read"):
        password.obtain(tmp_path / "nothing")


@pytest.mark.parametrize(
    "words, said",
    [
        (("--panel-host", "0.0.0.0"), "needs a password"),
        (("--panel-host", "0.0.0.0", "--no-panel"), "--no-panel leaves nothing"),
        (("--panel-host", "my.house"), "no address for others"),
        (("--panel-host", "127.0.0.1"), "no address for others"),
        (("--panel-password-file", "x"), "is for --panel-host"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(words: tuple[str, ...], said: str, cli: Callable[..., Any]) -> None:
    done = cli("live", "--seconds", "0.1", *words, env={"JACK_NO_START_SERVER": "1"}, stdin=-3)
    assert (done.returncode, said in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.stderr


def test_without_a_password_nobody_else_is_listened_to(opened: Inside) -> None:
    assert opened.panel._listeners[0].getsockname()[0] == "0.0.0.0"
    with pytest.raises(UsageError, match="needs a password"):
        link.Panel(opened.host, opened.panel._desk, address="0.0.0.0")
    both = link._listen(None, "127.0.0.2")
    assert [s.getsockname()[0] for s in both] == ["127.0.0.1", "127.0.0.2"]
    assert len({s.getsockname()[1] for s in both}) == 1
    for each in both:
        each.close()
