"""The host's end of the panel: start its process, tell it what is so, do what it asks.

What is told is looked up thirty times a second and sent where it has changed, so that whatever moved it, a page, MIDI,
OSC, a preset, a file that was saved, is shown alike. Sound goes another way: the audio thread writes it into memory
that the panel's process reads (`rtgan.engine.Engine.show`), and no Python of this process touches it.
"""

from __future__ import annotations

import ipaddress
import json
import os
import queue
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rtgan import __version__, bindings, chain, memory, preset_files, presets, setlist, snapshots
from rtgan.bindings import HOST_TARGETS, Binding
from rtgan.control.commands import Learning
from rtgan.control.desk import Desk
from rtgan.control.mapping import FILE_NAME, PANEL_NAME, PANEL_PORT
from rtgan.control.midi import Message
from rtgan.control.plugboard import Plugboard
from rtgan.errors import RtganError, UsageError
from rtgan.events import HEARD, Record
from rtgan.generators import library
from rtgan.host import Host, length_of
from rtgan.io.virtual_mic import VirtualMic
from rtgan.kernels import rings
from rtgan.offline import ENGINE_RATES_HZ
from rtgan.panel import commands
from rtgan.panel.password import seal
from rtgan.params import Param
from rtgan.plugin import Plugin, plugin_class, plugin_ids
from rtgan.preset_text import config_folder
from rtgan.presets import Preset

DEFAULT_PORT = 8020
_ADDRESS = "127.0.0.1"
_TICK_S = 1 / 30
_STATS_TICKS = 3
_LIST_TICKS = 30
_SCOPE_S = 0.3
_RESTART_S = 1.0
_MOST_RESTARTS = 5
_MOST_SLOW = 8


def missing() -> str | None:
    """What has to be installed before there can be a panel, as one sentence; None if nothing."""
    from importlib.util import find_spec

    absent = [name for name in ("starlette", "uvicorn", "websockets") if find_spec(name) is None]
    return f"no panel without {' and '.join(absent)}: pip install {' '.join(absent)}" if absent else None


def address_file() -> Path:
    """Where the address of the panel that was opened last lies, for `rtgan ctl`; readable by its owner alone."""
    return config_folder() / "panel.json"


class Panel:
    """A panel for a host [main].

    Parameters
    ----------
    host : Host
    desk : Desk
        What is asked for goes through it.
    port : int, optional
        Default: `DEFAULT_PORT`, or any that is free where that is taken.
    mic : VirtualMic, optional
        The one that the host plays into; the panel takes it away when it ends, or when somebody says so.
    address : str
        Address of this machine to listen on beside its own; ``0.0.0.0`` for all.
    password : str
        What other machines have to know; only a hash of it is kept.

    Attributes
    ----------
    url : str
        What to open in a browser; it holds the token, so whoever has it has the panel.
    opens : str
        What other machines can do, in one sentence; empty if nothing.

    Raises
    ------
    RtganError
        If the port cannot be listened on.
    """

    def __init__(
        self,
        host: Host,
        desk: Desk,
        port: int | None = None,
        mic: VirtualMic | None = None,
        address: str = _ADDRESS,
        password: str = "",
    ) -> None:
        if not ipaddress.ip_address(address).is_loopback and not password:
            raise UsageError("a panel that other machines reach needs a password")
        self._host, self._desk = host, desk
        self._listeners = _listen(port, address)
        self._sealed = seal(password) if password else ""
        self._port = int(self._listeners[0].getsockname()[1])
        self._token = secrets.token_urlsafe(24)
        self.url = f"http://{_ADDRESS}:{self._port}/#{self._token}"
        self.opens = opens(address, self._port) if self._sealed else ""
        self._scope_fd = -1
        self._scope = self._show()
        self._plugboard = Plugboard(host, mic)
        self._told = _Told(host, desk, self._plugboard)
        self._halt = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._sending = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="rtgan-panel", daemon=True)

    def _show(self) -> rings.Ring:
        """Let the engine that plays write its sound where the panel's process can read it."""

        def allocate(words: int) -> Any:
            self._scope_fd, found = memory.shared(8 * words)
            return found

        engine = self._engine = self._host.engine
        if self._scope_fd >= 0:
            os.close(self._scope_fd)
        scope = rings.build(round(_SCOPE_S * engine.sample_rate_hz), 2 * engine.channels, allocate=allocate)
        engine.show(scope)
        return scope

    def start(self) -> None:
        """Start the panel's process."""
        self._host.listen(self._told.heard)
        self._thread.start()
        try:
            _write_private(address_file(), json.dumps({"url": self.url, "pid": os.getpid()}))
        except OSError as problem:
            self._host.warn(f"rtgan ctl will not find the panel: {address_file()}: {problem.strerror}")

    def close(self) -> None:
        """End the panel's process."""
        self._halt.set()
        self._part()
        if self._thread.is_alive():
            self._thread.join()
        for listener in self._listeners:
            listener.close()
        self._plugboard.close()
        os.close(self._scope_fd)
        try:
            if json.loads(address_file().read_text("utf-8")).get("url") == self.url:
                address_file().unlink()
        except (OSError, ValueError):
            pass  # somebody else's by now

    @property
    def process(self) -> int | None:
        """Number of the panel's process; None before it has been started."""
        return self._process.pid if self._process is not None else None

    def __enter__(self) -> Panel:
        self.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    # --- the process ---

    def _run(self) -> None:
        # Sound first: a process and a look at every preset take their time.
        self._host.wait_first_block(halt=self._halt)
        lives = 0
        while lives <= _MOST_RESTARTS:
            if lives and self._halt.wait(_RESTART_S):
                return
            lives += 1
            try:
                self._serve()
            except Exception as problem:
                # Whatever it is, it is the panel's: the next life may do better, and the sound goes on.
                if not self._halt.is_set():
                    self._host.warn(f"the panel's process was lost: {problem!r}")
            finally:
                self._part()
                if self._process is not None:
                    _end(self._process)
            if self._halt.is_set():
                return
            if self._outlived:
                # Another rate: what the process knows of the sound is true no more.
                self._scope = self._show()
                lives = 0
        self._host.warn(f"the panel has ended {_MOST_RESTARTS + 1} times and is not started again")

    def _serve(self) -> None:
        """One life of the panel's process."""
        ours, theirs = socket.socketpair()
        self._link = ours
        numbers = (theirs.fileno(), self._scope_fd, *(listener.fileno() for listener in self._listeners))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "rtgan.panel", *map(str, numbers)],
            pass_fds=numbers,
            # The same modules as here, wherever they came from; and no Ctrl-C that is meant for the host.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1",
                 "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        theirs.close()
        self._send({
            "token": self._token,
            "password": self._sealed,
            "hosts": [f"{name}:{self._port}" for name in (_ADDRESS, "localhost")],
            "rate_hz": self._engine.sample_rate_hz,
            "scope": {"frames": int(self._scope.memory[rings.CAPACITY]), "channels": self._engine.channels,
                      "written_word": rings.WRITTEN, "first_word": rings.HEADER},
        })  # fmt: skip
        self._told.forget()
        slow: queue.Queue[dict[str, Any] | None] = queue.Queue()
        hearing = threading.Thread(target=self._hear, args=(ours, slow), name="rtgan-panel-asks", daemon=True)
        working = threading.Thread(target=self._work, args=(slow,), name="rtgan-panel-works", daemon=True)
        hearing.start()
        working.start()
        tick = 0
        try:
            while not self._halt.wait(_TICK_S) and hearing.is_alive() and not self._outlived:
                for topic, data in self._told.changes(tick):
                    self._send({"topic": topic, "data": data})
                tick += 1
        finally:
            self._part()
            hearing.join()
            slow.put(None)

    @property
    def _outlived(self) -> bool:
        """Whether another engine plays than the one whose sound the process knows."""
        return self._engine is not self._host.engine and not self._host.changing

    def _part(self) -> None:
        link = self._link
        if link is not None:
            try:
                link.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has gone already

    def _send(self, message: Mapping[str, Any]) -> None:
        link = self._link
        assert link is not None
        with self._sending:
            link.sendall(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    def _hear(self, link: socket.socket, slow: queue.Queue[dict[str, Any] | None]) -> None:
        with link, link.makefile("rb") as lines:
            try:
                for line in lines:
                    asked = json.loads(line)
                    if not commands.COMMANDS[asked["do"]].slow:
                        self._answer(asked)
                    elif slow.qsize() < _MOST_SLOW:
                        slow.put(asked)
                    else:
                        self._send({"answer": asked["id"], "error": "too much is asked for at once; try again"})
            except (OSError, ValueError):
                pass  # the process has gone

    def _work(self, slow: queue.Queue[dict[str, Any] | None]) -> None:
        """Do what takes its time, one after the other."""
        while (asked := slow.get()) is not None:
            try:
                self._answer(asked)
            except OSError:
                pass  # the process has gone; what was asked for is done all the same

    def _answer(self, asked: Mapping[str, Any]) -> None:
        answer: dict[str, Any] = {"answer": asked["id"]}
        try:
            self._told.do(asked["do"], asked["with"])
        except RtganError as problem:
            answer["error"] = str(problem)
        except Exception as problem:
            # A disk, somebody else's plugin: the panel must live on, and say it.
            answer["error"] = f"{asked['do']} failed: {problem!r}"
        self._send(answer)


def check_address(text: str) -> str:
    """An address that other machines may reach; `UsageError` for what is none."""
    try:
        found = ipaddress.ip_address(text)
        if found.is_loopback:
            raise ValueError
        return str(found)
    except ValueError:
        raise UsageError(
            f"--panel-host '{text[:60]}' is no address for others; give one of this machine, or 0.0.0.0 for all"
        ) from None


def opens(address: str, port: int) -> str:
    """What a panel that other machines reach means, in one sentence."""
    found = ipaddress.ip_address(address)
    if found.is_unspecified:
        # Nothing is sent: this only asks which of the addresses leads outside.
        family, far = (socket.AF_INET, "192.0.2.1") if found.version == 4 else (socket.AF_INET6, "2001:db8::1")
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((far, 9))
                address = probe.getsockname()[0]
            except OSError:
                pass  # no network at all; whoever gets one knows the address
    where = f"[{address}]:{port}" if found.version == 6 else f"{address}:{port}"
    return (
        f"panel for others: http://{where}/ - whoever reaches this address and knows the password can see and turn "
        "everything, and what passes is not encrypted"
    )


def _listen(port: int | None, address: str = _ADDRESS) -> list[socket.socket]:
    """Listen on this machine's own address, and on another one with the same port."""
    failed: Exception | None = None
    for chosen in (DEFAULT_PORT, 0) if port is None else (port,):
        found: list[socket.socket] = []
        try:
            # All addresses hold this machine's own one.
            for each in [address] if address in (_ADDRESS, "0.0.0.0") else [_ADDRESS, address]:
                found.append(_bound(each, int(found[0].getsockname()[1]) if found else chosen))
            return found
        except (OSError, OverflowError) as problem:
            failed = problem
            for listener in found:
                listener.close()
    raise RtganError(f"the panel cannot listen on {address}:{port}: {failed}")


def _bound(address: str, port: int) -> socket.socket:
    six = ":" in address
    listener = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if six:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(64)
    except BaseException:
        listener.close()
        raise
    return listener


def _end(process: subprocess.Popen[bytes]) -> None:
    for ask in (process.terminate, process.kill):
        ask()
        try:
            process.wait(2)
            return
        except subprocess.TimeoutExpired:
            continue


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    fd = os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(part, path)


# --- what is told and done --------------------------------------------------------------------------------


class _Told:
    """What the panel knows of a host, and what it may do to it [changes: one thread; do: one, and one that is slow]."""

    def __init__(self, host: Host, desk: Desk, plugboard: Plugboard) -> None:
        self._host, self._desk, self._plugboard = host, desk, plugboard
        self._sent: dict[str, Any] = {}
        self._values: dict[str, float] = {}
        self._playing: Preset | None = None
        self._locked = False
        self._listed: tuple[object, list[dict[str, Any]]] = (None, [])
        self._learning = Learning()
        self._target = ""
        self._found: tuple[str, Binding] | None = None
        self._last_midi: dict[str, Any] = {"count": 0, "text": "", "port": ""}
        self._xruns_before = self._xruns = 0
        self._xrun_at: float | None = None
        self._recording: tuple[Path | None, float] = (None, 0.0)
        self._plugins: list[dict[str, str]] = []

    def forget(self) -> None:
        """Tell everything anew: a panel has just begun."""
        self._sent.clear()
        self._values = {}

    def changes(self, tick: int) -> list[tuple[str, Any]]:
        """Topics that are not as they were told last, with what is so now; of the values only those that changed."""
        self._learn()
        found: list[tuple[str, Any]] = []

        def tell(topic: str, data: Any) -> None:
            if self._sent.get(topic) != data:
                self._sent[topic] = data
                found.append((topic, data))

        tell("about", self._about())
        if tick % _LIST_TICKS == 0:
            tell("presets", self._presets())
        tell("plugins", self._plugins)
        if tick % _STATS_TICKS == 0:
            tell("stats", self._stats())
            tell("midi", self._midi())
            tell("compare", self._desk.comparison.state)
            tell("history", self._desk.history.state)
            tell("morph", {"position": round(self._desk.morph_percent, 1)})
            tell("devices", self._devices())
            tell("doctor", self._plugboard.findings)
        tell("lock", {"on": self._locked})
        before = self._sent.get("chain")
        tell("chain", self._chain())
        values = dict(self._host.values)
        if before is not self._sent["chain"]:
            # Those that are not there any more go with the chain that they belonged to.
            found.append(("values", values))
        else:
            moved = {name: value for name, value in values.items() if self._values.get(name) != value}
            if moved:
                found.append(("values", moved))
        self._values = values
        return found

    def _about(self) -> dict[str, Any]:
        host = self._host
        ends = {"input": host.input, "output": host.output}
        return {
            "version": __version__,
            "rate_hz": host.sample_rate_hz,
            "channels": host.engine.channels,
            **{end: device.name if device is not None else "built-in recording" for end, device in ends.items()},
        }

    def _chain(self) -> dict[str, Any]:
        host = self._host
        preset = host.preset
        before: dict[str, Any] | None = self._sent.get("chain")
        # The same object as long as the same plays: nothing is put together again thirty times a second.
        if before is not None and self._playing is preset:
            return before
        self._playing = preset
        entries = dict(zip(presets.labels(preset.chain), preset.chain, strict=True))
        strips = [
            {"label": label, "plugin": _title(entries.get(label), plugin.name), "description": plugin.description,
             "options": entries[label].options if label in entries else {},
             "params": {k: _param(p) for k, p in params.items()}, "card": card_of(plugin)}
            for label, plugin, params in host.strips
        ]  # fmt: skip
        return {
            "name": preset.name,
            "id": preset.path.stem if preset.path is not None else preset.name,
            "description": preset.description,
            "notes": preset.notes,
            "program": preset.program,
            "bank": preset.bank,
            "own": preset_files.is_own(preset),
            "edited": preset.edited,
            "notes_in": host.takes_notes,
            "snapshots": [s.name for s in preset.snapshots],
            "morph": preset.morph,
            "saved": preset.values(),
            "strips": strips,
            "host": {k: _param(p) for k, p in host.params.items() if k.startswith("host.")},
        }

    def _presets(self) -> list[dict[str, Any]]:
        files = [p for folder in presets.folders() if folder.is_dir() for p in sorted(folder.glob("*.yaml"))]
        stamp = [(str(p), _stamp(p)) for p in [*files, setlist.path()]]
        if self._listed[0] != stamp:
            self._listed = (stamp, _list())
        return self._listed[1]

    def _stats(self) -> dict[str, Any]:
        host = self._host
        stats = host.stats()
        if stats.xruns < self._xruns_before:
            self._xruns_before = 0  # another engine counts anew
        if stats.xruns != self._xruns:
            self._xruns, self._xrun_at = stats.xruns, time.time()
        if host.recording != self._recording[0]:
            self._recording = (host.recording, stats.seconds)
        path, since = self._recording
        return {
            "running": host.running,
            "device": stats.device,
            "away": host.away,
            "load": round(stats.load, 4),
            "worst_load": round(stats.worst_load, 4),
            "xruns": stats.xruns - self._xruns_before,
            "xrun_at": self._xrun_at,
            "slips": stats.slips,
            "faults": stats.faults,
            "limited": stats.limited,
            "bad_input": stats.bad_input,
            "dropped": stats.dropped,
            "latency_ms": stats.latency_ms,
            "readings": {k: round(v, 3) for k, v in stats.readings.items()},
            "trouble": [*stats.problems, *stats.warnings, *filter(None, [stats.overload])],
            "shed": stats.shed,
            "recording": None if path is None else {"file": path.name, "seconds": int(stats.seconds - since)},
        }

    def _devices(self) -> dict[str, Any]:
        host, board = self._host, self._plugboard
        return {
            "inputs": board.names("input"),
            "outputs": board.names("output"),
            "input": host.input.full_name if host.input is not None else "",
            "output": host.output.full_name if host.output is not None else "",
            "rates_hz": list(ENGINE_RATES_HZ),
            "rate_hz": host.sample_rate_hz,
            "block": host.block,
            "microphone": board.mic,
            "fixed": board.fixed,
        }

    def _midi(self) -> dict[str, Any]:
        preset = self._host.preset
        rows = [("global", b) for b in self._desk.global_map] + [("preset", b) for b in preset.midi]
        return {
            "ports": [name for name in dict.fromkeys(self._desk.ports) if name not in ("", FILE_NAME, PANEL_NAME)],
            "map": [
                {"where": where, "control": str(b.control), "target": target, "mode": b.mode, "low": b.low,
                 "high": b.high}
                for where, b in rows
                for target in b.targets
            ],
            "targets": {k: p.name for k, p in HOST_TARGETS.items()},
            "learning": self._target,
            "last": self._last_midi,
        }  # fmt: skip

    # --- MIDI ---

    def heard(self, record: Record) -> None:
        """Note a message that arrives, and whether it is the control that is being looked for. The host's thread."""
        if record.kind != HEARD or record.a & 0xFF >= 0xF0:
            return
        message = Message(record.a.to_bytes(8, "little")[: length_of(record.a & 0xFF)])
        names = self._desk.ports
        port = names[record.b] if record.b < len(names) else ""
        self._last_midi = {"count": self._last_midi["count"] + 1, "text": str(message), "port": port}
        target = self._target
        if target and self._found is None:
            control = self._learning.feed(record.b, message)
            if control is not None:
                self._found = (target, Binding(control, (target,), bindings.default_mode(control.kind)))

    def _learn(self) -> None:
        found = self._found
        if found is None:
            return
        self._found, self._target = None, ""
        try:
            self._rebind(*found)
        except RtganError as problem:
            self._host.warn(str(problem))

    def _rebind(self, target: str, binding: Binding | None) -> None:
        if target.startswith("host."):
            bindings.save_map(bindings.rebound(bindings.load_map(), target, binding))
            self._desk.reload()
        else:
            preset = self._settled_preset()
            what = "forget a control in" if binding is None else "learn a control in"
            self._keep(replace(preset, midi=bindings.rebound(preset.midi, target, binding)), what)

    # --- what may be asked for ---

    def do(self, name: str, given: Mapping[str, Any]) -> None:
        """Carry out a command of `rtgan.panel.commands`; `RtganError` says why not."""
        command = commands.COMMANDS[name]
        plays = name == "set" and not str(given["name"]).startswith("host.")
        if self._locked and (command.edits or plays):
            raise RtganError("the performance lock is on")
        getattr(self, f"_do_{name}")(**given)

    def _do_set(self, name: str, value: object) -> None:
        self._host.set(name, value)

    def _do_load(self, name: str) -> None:
        if presets.by_path(name):
            # A page is nobody who gave a path: it must not run what lies there.
            raise UsageError("a panel loads presets by name, not by path")
        presets.load(name, "never")
        self._desk.act(f"load {name}")

    def _do_next(self) -> None:
        self._desk.act("next")

    def _do_previous(self) -> None:
        self._desk.act("previous")

    def _do_snapshot(self, number: int) -> None:
        if number > len(self._host.preset.snapshots):
            snapshots.recall(self._host.preset, number)
        self._desk.act("snapshot", number)

    def _do_morph(self, position: float) -> None:
        snapshots.partner(self._host.preset)
        self._desk.act("morph", position)

    def _do_compare(self, side: str) -> None:
        sides = {"a": ("compare", 0.0), "b": ("compare", 1.0), "other": ("flip compare", 1.0)}
        if side.lower() not in sides:
            raise UsageError(f"there is no side '{side[:40]}'; allowed: {', '.join(sides)}")
        self._desk.act(*sides[side.lower()])

    def _do_copy(self) -> None:
        self._desk.act("copy")

    def _do_match(self, on: bool) -> None:
        self._desk.act("match", float(on))

    def _do_undo(self) -> None:
        self._turn_back("undo", "there is nothing to undo")

    def _do_redo(self) -> None:
        self._turn_back("redo", "there is nothing to do again")

    def _turn_back(self, action: str, otherwise: str) -> None:
        self._host.catch_up()
        if not self._desk.history.state[action]:
            raise UsageError(otherwise)
        self._desk.act(action)

    def _do_panic(self) -> None:
        self._host.panic()

    def _do_note(self, number: int, velocity: int) -> None:
        self._host.engine.midi(bytes([0x90, number, velocity]), port=PANEL_PORT)

    def _do_record(self, on: bool) -> None:
        self._desk.act("record", float(on))

    def _do_mark(self) -> None:
        self._host.mark()

    def _do_reset(self) -> None:
        self._xruns_before, self._xrun_at = self._host.stats().xruns, None
        self._host.engine.forget_worst()

    def _do_lock(self, on: bool) -> None:
        self._locked = on
        self._target = ""

    def _do_save(self, name: str) -> None:
        host = self._host
        host.catch_up()
        preset = host.preset if name else self._own_preset()
        known = preset.values()
        preset = preset.with_values({k: v for k, v in host.values.items() if k in known})
        if not name:
            self._keep(preset)
            return
        if not name.strip():
            raise UsageError("a preset needs a name")
        path = presets.own_path(name)
        if path.exists():
            raise UsageError(f"there is a preset {path.stem} already")
        # The number calls the preset that this one comes from.
        fresh = replace(preset, name=name, author="", program=None, bank=0, path=path, trusted=False)
        if fresh.morph and presets.by_path(fresh.morph):
            fresh = replace(fresh, morph=str(Path(fresh.morph).resolve()))
        self._keep(fresh)

    def _do_rename(self, name: str, new: str) -> None:
        change, renamed = preset_files.rename(name, new.strip())
        before = self._host.preset
        if before.path == presets.user_folder() / f"{name}.yaml":
            self._host.adopt(replace(before, name=renamed.name, path=renamed.path))
        self._desk.history.did(change, before, self._host.preset)

    def _do_delete(self, name: str) -> None:
        before = self._host.preset
        change = preset_files.delete(name)
        if before.path in change.before:
            # The sound goes on; it belongs to no file any more.
            self._host.adopt(replace(before, path=None))
        self._desk.history.did(change, before, self._host.preset)

    def _do_keep(self, name: str) -> None:
        if not name.strip():
            raise UsageError("a snapshot needs a name")
        self._host.catch_up()
        self._keep(snapshots.take(self._settled_preset(), name.strip(), self._host.values), "keep a snapshot in")

    def _do_chain(self, what: str, name: str, position: int) -> None:
        self._host.change(lambda preset: chain.change(preset, what, name, position))

    def _do_browse(self) -> None:
        self._plugins = _addable()

    def _do_look(self) -> None:
        self._plugboard.look()

    def _do_examine(self) -> None:
        self._plugboard.examine()

    def _do_devices(self, input: str, output: str, rate_hz: int, block: int) -> None:
        self._plugboard.open(input, output, rate_hz, block)

    def _do_microphone(self, on: bool) -> None:
        self._plugboard.virtual_mic(on)

    def _do_learn(self, target: str) -> None:
        if target and target not in HOST_TARGETS:
            if target not in self._host.preset.declared():
                raise UsageError(f"there is no target '{target}'")
            self._settled_preset()
        self._learning, self._found, self._target = Learning(), None, target

    def _do_forget(self, target: str) -> None:
        self._rebind(target, None)

    def _own_preset(self) -> Preset:
        preset = self._host.preset
        if not preset_files.is_own(preset):
            raise UsageError(f"{preset.name} stays as it is; save it under a name of your own first")
        return preset

    def _settled_preset(self) -> Preset:
        """One's own preset with the chain of its file: what is kept in it must not save another chain unasked."""
        preset = self._own_preset()
        if preset.edited:
            raise UsageError(f"the chain of {preset.name} has been changed; save it first")
        return preset

    def _keep(self, preset: Preset, what: str = "save") -> None:
        """Write a preset and let it be the one that plays."""
        assert preset.path is not None
        before, path, preset = self._host.preset, preset.path, replace(preset, edited=False)
        change = preset_files.save(preset, path, what)
        self._host.adopt(preset)
        self._desk.history.did(change, before, preset)


def _addable() -> list[dict[str, str]]:
    """Plugins that can be put into a chain; each has to be loaded for it, which takes its time."""
    found = []
    for name in plugin_ids():
        try:
            plugin = plugin_class(name)
        except RtganError:
            continue  # one that is installed and broken; a chain that names it says why
        if chain.stands_alone(plugin):
            found.append({"id": name, "name": plugin.name, "description": plugin.description})
    return sorted(found, key=lambda plugin: plugin["name"].lower())


def _title(entry: presets.Entry | None, name: str) -> str:
    """What a plugin is called on the page: with the strip it stands in, a fader by the strip's name alone."""
    if entry is None or not entry.strip:
        return name
    return entry.strip if entry.inputs else f"{entry.strip}: {name}"


def card_of(plugin: Plugin) -> list[tuple[str, str]]:
    """What the model that a plugin plays says of itself: name and description, then fact by fact; empty without one."""
    model = getattr(plugin, "model", None)
    if isinstance(model, library.Loaded):
        return [(model.card.name, model.card.description), *library.facts(model.path, model.card)]
    spec = getattr(plugin, "spec", None)  # a model file without a card
    return [(spec.title, plugin.notice), *spec.facts()] if spec is not None and spec.kind != "card" else []


def _param(param: Param) -> dict[str, Any]:
    return {
        "name": param.name, "low": param.minimum, "high": param.maximum, "default": param.default, "unit": param.unit,
        "scale": param.scale, "description": param.description,
    }  # fmt: skip


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _list() -> list[dict[str, Any]]:
    """Every preset, those of the set list first; what cannot be read says why."""
    try:
        order: list[str] = [slot.preset for slot in setlist.load().slots]
    except RtganError:
        order = []
    known = presets.names()
    found: list[dict[str, Any]] = []
    for name in [*(n for n in dict.fromkeys(order) if n in known), *(n for n in known if n not in order)]:
        file = presets.user_folder() / f"{name}.yaml"
        row: dict[str, Any] = {"id": name, "name": name, "description": "", "tags": [], "program": None, "bank": 0,
                               "own": file.is_file(), "hides": preset_files.stands_in_front(file),
                               "broken": ""}  # fmt: skip
        try:
            preset = presets.load(name, "never")
            row |= {"name": preset.name, "description": preset.description, "tags": list(preset.tags),
                    "program": preset.program, "bank": preset.bank}  # fmt: skip
        except RtganError as problem:
            row["broken"] = str(problem)
        found.append(row)
    return found
