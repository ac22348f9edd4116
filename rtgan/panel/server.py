"""The panel's process: pages, a WebSocket and an HTTP interface on the loopback address, and on another if asked to.

Whoever asks must name this machine (Host, which a page that was rebound to it cannot), must not come from another page
(Origin), and must know the token, but for the files of the page itself, which hold no secret. Where other machines are
listened to, the password gives the token.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from secrets import compare_digest
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from rtgan.errors import RtganError, UsageError
from rtgan.panel import commands
from rtgan.panel.password import LONGEST, Tries, fits
from rtgan.panel.scope import Scope as SoundScope

FRAME_S = 1 / 30
MOST_VIEWERS = 16
#: Commands a second that one page, or all of HTTP together, may ask for, and how many at once.
RATE, BURST = 120.0, 400.0
_BREATH_S = 0.05
_ANSWER_S = 30.0
_LINE_BYTES = 1 << 24
_NICE = 5
PROTOCOL = "rtgan"
_TOKEN = "token."
_KINDS = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}  # fmt: skip
_HEADERS = tuple(
    (name.lower().encode(), value.encode())
    for name, value in {
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }.items()
)


class Budget:
    """So many a second, and so many at once."""

    def __init__(self) -> None:
        self._left, self._at = BURST, time.monotonic()

    def take(self) -> bool:
        """Whether there is room for one more."""
        now = time.monotonic()
        self._left = min(BURST, self._left + (now - self._at) * RATE)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Guard:
    """Lets nobody through who does not name this machine or comes from another page; adds headers to every answer.

    Where other machines are listened to (``others``), the address that a connection came in at names it too: a number,
    which no name can be bound to.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str], others: bool) -> None:
        self._app = app
        self._hosts = hosts
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        found: dict[bytes, list[str]] = {b"host": [], b"origin": []}
        for name, value in scope["headers"]:
            if name in found:
                found[name].append(value.decode("latin-1"))
        hosts = self._hosts
        if self._others and scope.get("server"):
            address, port = scope["server"]
            hosts |= {f"[{address}]:{port}" if ":" in address else f"{address}:{port}"}
        problem = ""
        if len(found[b"host"]) != 1 or found[b"host"][0] not in hosts:
            problem = "this panel answers to its own address only"
        elif any(origin.removeprefix("http://") not in hosts for origin in found[b"origin"]):
            problem = "this panel answers to its own page only"

        async def sent(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        if not problem:
            await self._app(scope, receive, sent)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _refusal(403, problem)(scope, receive, sent)


def _refusal(status: int, problem: str) -> JSONResponse:
    return JSONResponse({"error": problem}, status)


class Viewer:
    """A page: what it has still to be told. A slow one is told less often, never later and later."""

    def __init__(self, page: WebSocket) -> None:
        self.page = page
        self.looking = True
        #: Notes that its keyboard holds.
        self.holding: set[int] = set()
        self._topics: dict[str, Any] = {}
        self._errors: list[str] = []
        self._frame: bytes | None = None
        self._wake = asyncio.Event()

    def tell(self, topic: str, data: Any) -> None:
        """A topic has changed."""
        if topic == "values" and topic in self._topics:
            self._topics[topic] |= data
        elif topic == "values":
            self._topics[topic] = dict(data)
        else:
            if topic == "chain":
                # Values come behind the chain that they belong to.
                self._topics.pop("values", None)
            self._topics[topic] = data
        self._wake.set()

    def refuse(self, problem: str) -> None:
        """Something that the page asked for was not done."""
        self._errors = [*self._errors[-3:], problem]
        self._wake.set()

    def show(self, frame: bytes) -> None:
        """The newest picture."""
        self._frame = frame
        self._wake.set()

    async def write(self) -> None:
        """Send until the page has gone."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            topics, self._topics = self._topics, {}
            errors, self._errors = self._errors, []
            frame, self._frame = self._frame, None
            for topic, data in topics.items():
                await self.page.send_text(json.dumps({"topic": topic, "data": data}, separators=(",", ":")))
            for problem in errors:
                await self.page.send_text(json.dumps({"error": problem}))
            if frame is not None:
                await self.page.send_bytes(frame)


class Server:
    """Everything between the host's socket and the pages.

    Parameters
    ----------
    hello : mapping
        The host's first line: token, names of this machine, rate, layout of the sound.
    scope_fd : int
    link : asyncio.StreamWriter
        To the host.
    """

    def __init__(self, hello: Mapping[str, Any], scope_fd: int, link: asyncio.StreamWriter) -> None:
        self._token = str(hello["token"]).encode()
        self._sealed: str = hello["password"]
        self._tries = Tries()
        self._trying = asyncio.Lock()
        self._link = link
        self._scope = SoundScope(scope_fd, hello["scope"], int(hello["rate_hz"]))
        self._topics: dict[str, Any] = {}
        self._viewers: set[Viewer] = set()
        self._asked: dict[int, asyncio.Future[str | None]] = {}
        self._number = 0
        self._budget = Budget()
        self._somebody = asyncio.Event()
        self._files = {
            f"/{path.name}": (path.read_bytes(), _KINDS[path.suffix])
            for path in (Path(__file__).parent / "static").iterdir()
            if path.suffix in _KINDS
        }
        self._files["/"] = self._files["/index.html"]
        files = [Route(path, self._file) for path in self._files]
        api = [
            Route("/api/openapi.json", self._openapi),
            *([Route("/api/login", self._login, methods=["POST"])] if self._sealed else []),
            Route("/api/{name}", self._tell, methods=["GET"]),
            Route("/api/{name}", self._do, methods=["POST"]),
        ]
        app = Starlette(routes=[*files, *api, WebSocketRoute("/live", self._live)])
        self.app = Guard(app, frozenset(hello["hosts"]), bool(self._sealed))

    # --- pages and HTTP ---

    async def _file(self, request: Request) -> Response:
        body, kind = self._files[request.url.path]
        return Response(body, media_type=kind)

    def _knows(self, given: str) -> bool:
        return compare_digest(given.encode("latin-1", "replace"), self._token)

    def _stranger(self, request: Request) -> JSONResponse | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self._knows(token):
            problem = "the token is missing or wrong; it stands in the address that `rtgan live` prints"
            return JSONResponse({"error": problem, "password": bool(self._sealed)}, 401)
        return None

    async def _login(self, request: Request) -> Response:
        """Give the token for the password. Whoever is wrong too often has to wait, right or wrong."""
        body = await self._body(request)
        if isinstance(body, Response):
            return body
        try:
            given = json.loads(body)["password"]
            if not isinstance(given, str) or len(given) > LONGEST:
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):
            return _refusal(400, "a password is asked for")
        address = request.client.host if request.client is not None else "?"
        wait_s = self._tries.wait_s(address)
        if wait_s > 0:
            return _refusal(429, f"too many wrong passwords; try again in {math.ceil(wait_s)} s")
        # Counted before it is looked at, so that many at once are no way around it.
        self._tries.spend(address)
        async with self._trying:
            right = await asyncio.to_thread(fits, given, self._sealed)
        if not right:
            return _refusal(401, "the password is wrong")
        self._tries.spend(address, -1)
        return JSONResponse({"token": self._token.decode()})

    @staticmethod
    async def _body(request: Request) -> bytes | Response:
        """What was sent, if it is JSON and not too much; else the refusal."""
        if request.headers.get("content-type", "application/json").partition(";")[0].strip() != "application/json":
            return _refusal(415, "a request's body is JSON")
        body = b""
        try:
            async for piece in request.stream():
                body += piece
                if len(body) > commands.MOST_BYTES:
                    return _refusal(413, f"a request may have {commands.MOST_BYTES} bytes")
        except ClientDisconnect:
            return Response(status_code=400)
        return body

    async def _openapi(self, request: Request) -> Response:
        return self._stranger(request) or JSONResponse(commands.openapi(self._params()))

    def _params(self) -> dict[str, Any]:
        chain = self._topics.get("chain", {"strips": [], "host": {}})
        return {**chain["host"], **{k: p for strip in chain["strips"] for k, p in strip["params"].items()}}

    async def _tell(self, request: Request) -> Response:
        refused = self._stranger(request)
        name = request.path_params["name"]
        if refused is None and name not in self._topics:
            refused = _refusal(404, f"there is no topic '{name[:40]}'; known are: {', '.join(commands.TOPICS)}")
        return refused or JSONResponse(self._topics[name])

    async def _do(self, request: Request) -> Response:
        refused = self._stranger(request)
        if refused is not None:
            return refused
        body = await self._body(request)
        if isinstance(body, Response):
            return body
        if not self._budget.take():
            return _refusal(429, f"more than {RATE:g} requests a second")
        try:
            given = json.loads(body or b"{}")
            if not isinstance(given, dict) or "do" in given:
                raise UsageError("a request's body is an object with the command's arguments")
            command = json.dumps({**given, "do": request.path_params["name"]})
            problem = await self._ask(command)
        except UsageError as wrong:
            return _refusal(400, str(wrong))
        except (ValueError, RecursionError):
            return _refusal(400, "that is not JSON")
        except (TimeoutError, RtganError):
            return _refusal(503, "the host does not answer")
        return _refusal(400, problem) if problem else JSONResponse({})

    # --- the WebSocket ---

    async def _live(self, page: WebSocket) -> None:
        offered = page.scope["subprotocols"]
        token = next((p.removeprefix(_TOKEN) for p in offered if p.startswith(_TOKEN)), "")
        if PROTOCOL not in offered or not self._knows(token):
            await page.close(1008)
            return
        await page.accept(PROTOCOL)
        if len(self._viewers) >= MOST_VIEWERS:
            await page.close(1013, f"{MOST_VIEWERS} pages are open already")
            return
        viewer = Viewer(page)
        for topic, data in self._topics.items():
            viewer.tell(topic, data)
        self._viewers.add(viewer)
        self._somebody.set()
        writing = asyncio.create_task(viewer.write())
        try:
            await self._read(viewer)
        except (WebSocketDisconnect, RuntimeError):
            pass  # the page was closed
        finally:
            for number in viewer.holding:
                self._send(json.dumps({"do": "note", "number": number, "velocity": 0}))
            self._viewers.discard(viewer)
            writing.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await writing

    async def _read(self, viewer: Viewer) -> None:
        budget = Budget()
        while True:
            message = await viewer.page.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            if text is None:
                await viewer.page.close(1008, "text only")
                return
            while not budget.take():
                # Who sends more than there is room for waits: what is not read backs up to where it comes from.
                await asyncio.sleep(_BREATH_S)
            if text in ("look", "rest"):
                viewer.looking = text == "look"
                self._somebody.set()
                continue
            try:
                name, given, asked = self._send(text)
            except UsageError as problem:
                viewer.refuse(str(problem))
                continue
            if name == "note":
                (viewer.holding.add if given["velocity"] else viewer.holding.discard)(given["number"])
            asked.add_done_callback(lambda done: self._refused(viewer, done))

    @staticmethod
    def _refused(viewer: Viewer, done: asyncio.Future[str | None]) -> None:
        if not done.cancelled() and done.exception() is None and (problem := done.result()):
            viewer.refuse(problem)

    # --- the host ---

    def _send(self, text: str | bytes) -> tuple[str, dict[str, Any], asyncio.Future[str | None]]:
        """Ask the host: the command's name, its arguments, and what speaks against it once that is known."""
        _, name, given = commands.parse(text)
        self._number += 1
        number = self._number
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        answer.add_done_callback(lambda done: self._asked.pop(number, None))
        self._link.write(json.dumps({"id": number, "do": name, "with": given}).encode() + b"\n")
        return name, given, answer

    async def _ask(self, text: str | bytes) -> str | None:
        return await asyncio.wait_for(self._send(text)[2], _ANSWER_S)

    def told(self, line: bytes) -> None:
        """Take a line of the host's."""
        message = json.loads(line)
        if "answer" in message:
            asked = self._asked.get(message["answer"])
            if asked is not None and not asked.done():
                asked.set_result(message.get("error"))
            return
        topic, data = message["topic"], message["data"]
        if topic == "chain":
            self._topics["values"] = {}
        if topic == "values":
            # In place of the one before: pages may still have that to send.
            self._topics[topic] = {**self._topics.get(topic, {}), **data}
        else:
            self._topics[topic] = data
        if topic == "chain":
            # What is told first stands first.
            self._topics["values"] = self._topics.pop("values")
        for viewer in self._viewers:
            viewer.tell(topic, data)

    async def draw(self) -> None:
        """A frame, thirty times a second, as long as somebody looks."""
        due = time.monotonic()
        while True:
            looking = [viewer for viewer in self._viewers if viewer.looking]
            if not looking:
                self._somebody.clear()
                await self._somebody.wait()
                due = time.monotonic()
                continue
            frame = self._scope.frame()
            for viewer in looking:
                viewer.show(frame)
            due = max(due + FRAME_S, time.monotonic())
            await asyncio.sleep(due - time.monotonic())


async def _serve(link_fd: int, scope_fd: int, listen_fds: Sequence[int]) -> None:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=link_fd), limit=_LINE_BYTES)
    panel = Server(json.loads(await reader.readline()), scope_fd, writer)
    server = uvicorn.Server(
        uvicorn.Config(
            panel.app,
            log_config=None,
            access_log=False,
            lifespan="off",
            interface="asgi3",
            proxy_headers=False,
            server_header=False,
            ws="websockets-sansio",
            ws_max_size=commands.MOST_BYTES,
            ws_per_message_deflate=False,
            h11_max_incomplete_event_size=commands.MOST_BYTES,
            limit_concurrency=8 * MOST_VIEWERS,
            timeout_graceful_shutdown=1,
        )
    )

    async def follow() -> None:
        """The host hangs up when it ends, however it ends."""
        while line := await reader.readline():
            panel.told(line)

    def end(task: asyncio.Task[None]) -> None:
        server.should_exit = True

    tasks = [asyncio.create_task(follow()), asyncio.create_task(panel.draw())]
    for task in tasks:
        task.add_done_callback(end)
    await server.serve(sockets=[socket.socket(fileno=fd) for fd in listen_fds])
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError, ConnectionError):
        await asyncio.gather(*tasks)


def main(link_fd: int, scope_fd: int, *listen_fds: int) -> None:
    """Serve until the host hangs up."""
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    with contextlib.suppress(OSError):
        # Whatever else runs comes first.
        os.nice(_NICE)
    with contextlib.suppress(ConnectionError):
        asyncio.run(_serve(link_fd, scope_fd, listen_fds))
