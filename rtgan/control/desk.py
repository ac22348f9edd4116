"""The one door: MIDI of every kind of port, actions, program changes and feedback, for one host.

What moves a parameter goes through the audio thread's routes (`rtgan.switchboard`); this is everything around it
that needs Python: ports that come and go, presets to load, lights and motor faders to tell.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import rtmidi

from rtgan import bindings as maps
from rtgan import chain, events, notes, presets, setlist, snapshots
from rtgan.bindings import HOST_TARGETS, Binding
from rtgan.control.comparison import Comparison
from rtgan.control.feedback import Feedback
from rtgan.control.history import History
from rtgan.control.jack import MOST_INPUTS, NO_LIBRARY, JackMidi
from rtgan.control.mapping import FILE_NAME, FILE_PORT, PANEL_NAME, PANEL_PORT, routes
from rtgan.control.midi import CLOCK, CONTINUE, START, STOP, Message
from rtgan.control.ports import Polled
from rtgan.control.reflex import Reflex
from rtgan.engine import Engine
from rtgan.errors import RtganError
from rtgan.events import Record
from rtgan.graph import Graph
from rtgan.host import Host, length_of
from rtgan.preset_watch import HotReload
from rtgan.presets import Preset
from rtgan.setlist import SetList
from rtgan.switchboard import PORTS

_POLL_S = 0.001
_SCAN_S = 1.0
_FEEDBACK_S = 0.01
_SILENCE_S = 1.0
_BANK_MSB, _BANK_LSB = 0, 32
_CLOCKS_PER_BEAT = 24
#: Actions that a key turns on and off.
_SWITCHES = ("record", "compare", "match")
#: Actions that find what those before them have left.
_IN_ORDER = ("compare", "copy", "undo", "redo")
#: Every channel: all sound off, all controllers reset, all notes off.
SILENCE = tuple(bytes([0xB0 | c, number, 0]) for c in range(16) for number in (120, 121, 123))


@dataclass
class Clock:
    """Tempo and transport as a master sends them.

    Attributes
    ----------
    running : bool
        Between start or continue, and stop.
    beats : float
        Since the start.
    bpm : float
        Over the last beat; 0 before there was one.
    """

    sample_rate_hz: int
    running: bool = False
    beats: float = 0.0
    bpm: float = 0.0
    _ticks: list[int] = field(default_factory=list)

    def feed(self, status: int, position: int) -> None:
        """Take a real-time message and the sample it came at."""
        if status == START:
            self.running, self.beats = True, 0.0
        elif status == CONTINUE:
            self.running = True
        elif status == STOP:
            self.running = False
        elif status == CLOCK:
            self.beats += 1 / _CLOCKS_PER_BEAT if self.running else 0.0
            self._ticks = [*self._ticks[-_CLOCKS_PER_BEAT:], position]
            span = self._ticks[-1] - self._ticks[0]
            if len(self._ticks) > _CLOCKS_PER_BEAT and span > 0:
                self.bpm = 60.0 * self.sample_rate_hz / span


class Desk:
    """Everything that plays a host from outside [main].

    Parameters
    ----------
    host : Host
    inputs : sequence of str
        Parts of the names of MIDI inputs; none: the virtual port and everything that is hardware.
    outputs : sequence of str
        Parts of the names of MIDI outputs that are told what changes.
    takes : Path
        Folder for recordings that a control begins.
    ports : bool
        Whether to open ports at all; a MIDI file and OSC play without them.
    on_message : callable, optional
        Given every message that arrives, with the sample, port number and port name.
    on_reload : callable, optional
        Given the preset that plays whenever its file was saved and has been loaded anew.

    Attributes
    ----------
    clock : Clock
    comparison : Comparison
        A and B; what is done to it goes through `act`.
    history : History
        What can be undone, through `act` as well.
    failures : dict of str to str
        By backend, why it is not served.
    """

    def __init__(
        self,
        host: Host,
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
        takes: Path = Path("takes"),
        ports: bool = True,
        on_message: Callable[[int, int, str, Message], None] | None = None,
        on_reload: Callable[[Preset], None] = lambda preset: None,
    ) -> None:
        self.host = host
        self.clock = Clock(host.sample_rate_hz)
        self.failures: dict[str, str] = {}
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        self._takes = takes
        self._open = ports
        self._on_message = on_message
        self._global = maps.load_map()
        # The presets' own order takes a look at every one of them, which can wait until there is sound.
        self._setlist = setlist.load() if setlist.path().exists() else None
        self._banks: dict[tuple[int, int], list[int]] = {}
        self._jack: JackMidi | None = None
        self._jack_tried = 0.0
        self._polled: Polled | None = None
        self._feedback = Feedback(self.send)
        self._scenes = snapshots.Scenes(host)
        self.comparison = Comparison(host)
        self.history = History(host, self.comparison)
        self._silenced = -_SILENCE_S
        # What is saved is heard; what is broken when it is saved is not.
        self._reload = HotReload(host, on_reload, host.warn)
        self._work: queue.Queue[tuple[str, float] | None] = queue.Queue()
        self._ports_changed = False
        self._halt = threading.Event()
        self._threads: list[threading.Thread] = []
        self._changed: Callable[[str, float], None] | None = None

    # --- life ---

    def start(self) -> None:
        """Open the ports and take over; before or after the host has started."""
        if self._open:
            self._open_ports()
        self.host.prepare = self._prepare
        self.host.reroute()
        for listener in (self._heard, self.comparison.heard, self.history.heard):
            self.host.listen(listener)
        self._reload.__enter__()
        reflex = Reflex(self.host, self.act, self._halt)
        works = ((self._poll, "rtgan-midi"), (self._perform, "rtgan-actions"), (reflex.run, "rtgan-rules"))
        for target, name in works:
            thread = threading.Thread(target=target, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def _open_ports(self) -> None:
        self._open_jack()
        # Two clients of one server would offer every port twice; without its library rtmidi's own copy may work.
        skip = [] if self.failures.get("JACK") == NO_LIBRARY else [rtmidi.API_UNIX_JACK]
        self._polled = Polled(self._inputs, self._outputs, skip, MOST_INPUTS, PANEL_PORT - MOST_INPUTS)
        self.failures |= self._polled.failures
        self._scan()

    def close(self) -> None:
        """Give the ports back."""
        self._halt.set()
        self._work.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._reload.__exit__(None, None, None)
        if self._polled is not None:
            self._polled.close()
        if self._jack is not None:
            self._jack.close()
            self._jack = None

    def __enter__(self) -> Desk:
        self.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    # --- ports ---

    @property
    def ports(self) -> list[str]:
        """Names of inputs by port number; empty for numbers that are free."""
        names = [""] * PORTS
        if self._jack is not None:
            names[: len(self._jack.ports)] = self._jack.ports
        if self._polled is not None:
            found = self._polled.ports
            names[MOST_INPUTS : MOST_INPUTS + len(found)] = found
        names[PANEL_PORT], names[FILE_PORT] = PANEL_NAME, FILE_NAME
        return names

    def _open_jack(self) -> None:
        self._jack_tried = time.monotonic()
        try:
            self._jack = JackMidi(self.host.engine, self.host.on_jack)
        except RtganError as problem:
            self.failures["JACK"] = str(problem)
        else:
            self.failures.pop("JACK", None)

    def _scan(self) -> bool:
        changed = False
        if self._jack is not None and self._jack.gone:
            self._jack.close()
            self._jack = None
            self.host.engine.end_notes()
            self.failures["JACK"] = "the server has gone"
            changed = True
        elif self._jack is not None and not self._served(self._jack):
            # The host plays on other devices by now.
            self._jack.close()
            self._open_jack()
            changed = True
        elif self._jack is None and time.monotonic() - self._jack_tried > 5 * _SCAN_S:
            self._open_jack()
            changed = self._jack is not None
        if self._jack is not None:
            changed |= self._jack.connect(self._inputs, self._outputs)
            for name, reason in self._jack.failures.items():
                self.host.warn(f"the MIDI port '{name}' takes no part: {reason}")
        if self._polled is not None:
            changed |= self._polled.scan()
        for backend in (self._jack, self._polled):
            while backend is not None and backend.lost:
                # Keys that were down on it would sound for ever.
                self.host.engine.midi(bytes([notes.LET_GO]), port=backend.lost.pop())
        return changed

    def _served(self, jack: JackMidi) -> bool:
        return self.host.changing or jack.serves(self.host.engine, self.host.on_jack)

    def send(self, message: bytes, port: str = "") -> None:
        """Send a message to the outputs whose names contain ``port``. The desk's thread."""
        if self._polled is not None:
            self._polled.send(message, port)
        if self._jack is not None and self._outputs:
            self._jack.send(message, port)

    def _poll(self) -> None:
        scanned = told = time.monotonic()
        while not self._halt.wait(_POLL_S):
            # Each on its own: an output that fails keeps no input from being heard.
            self._guarded("MIDI input", self._take)
            now = time.monotonic()
            if now - told >= _FEEDBACK_S:
                told = now
                self._guarded("MIDI output", self._feedback.flush)
            if self._polled is not None and now - scanned >= _SCAN_S:
                scanned = now
                self._guarded("the search for MIDI ports", self._rescan)

    def _take(self) -> None:
        away = self.host.away
        for port, message in self._polled.poll() if self._polled is not None else ():
            if away and message.data[0] >= 0xF8:
                continue  # nobody counts a clock while no device calls, and it would fill the inbox
            if not self.host.engine.midi(message.data, port=port):
                self.host.engine.end_notes()

    def _rescan(self) -> None:
        # What is told in the very period in which a port is connected may be lost: it is told once more.
        again, self._ports_changed = self._ports_changed, self._scan()
        # A preset that is being built takes its time, which no note that is played meanwhile may wait for.
        if (again or self._ports_changed) and not self.host.reroute(wait=False):
            self._ports_changed = True

    def _guarded(self, what: str, run: Callable[[], object]) -> None:
        """Do something that must be done again later, whatever happens now."""
        try:
            run()
        except RtganError as problem:
            self.host.warn(str(problem))
        except Exception as problem:
            # A driver, a server, somebody else's function: the next time is another time.
            self.host.warn(f"{what} failed: {problem!r}")

    # --- bindings ---

    def _prepare(self, engine: Engine, graph: Graph, preset: Preset) -> None:
        """Give a graph its routes: the global map's and the preset's."""
        self.clock.sample_rate_hz = engine.sample_rate_hz
        found: tuple[Binding, ...] = (*self._global, *preset.midi)
        engine.route(graph, routes(found, engine, graph, self.ports))
        own = {name: graph.declared[index] for name, index in graph.index.items()}
        self._feedback.bind(found, {**own, **HOST_TARGETS})
        host_values = {f"host.{k}": v for k, v in engine.host_values.items()}
        self._feedback.refresh({**graph.values(), **host_values, **self._compared()})

    @property
    def morph_percent(self) -> float:
        """Where the fader between two presets stands, 0 to 100."""
        return 100 * self._scenes.position

    @property
    def global_map(self) -> tuple[Binding, ...]:
        """The bindings that hold whatever preset plays."""
        return self._global

    def reload(self) -> None:
        """Read the global map and the set list again.

        Raises
        ------
        UsageError
            If one cannot be used; what was in force stays.
        """
        found, order = maps.load_map(), setlist.load()
        self._global, self._setlist = found, order
        self.host.reroute()

    def on_change(self, function: Callable[[str, float], None]) -> None:
        """Give every change of a parameter, by name, to a function, in a background thread."""
        self._changed = function

    # --- what the audio thread reports ---

    def _heard(self, record: Record) -> None:
        self._guarded("what a control asked for", lambda: self._hear(record))

    def _hear(self, record: Record) -> None:
        if record.kind == events.HEARD:
            message = Message(record.a.to_bytes(8, "little")[: length_of(record.a & 0xFF)])
            self._message(record.when, record.b, message)
        elif record.kind == events.ACTION:
            action = self.host.engine.action(record)
            if action == "marker":
                self.host.mark(position=record.when)  # at once: the sample is known, and nothing is built
                return
            # Others press too: a button's own state is not that of what it switches.
            self.act(f"flip {action}" if action in _SWITCHES and self._toggles(action) else action, record.x)
        elif record.kind == events.APPLIED:
            name = self.host.name_of(record)
            if name:
                self._tell(name, record.x)
        elif record.kind == events.PANICKED and time.monotonic() - self._silenced > _SILENCE_S:
            # Where an output of ours is wired to an input of ours, this comes back as another panic: once is enough.
            self._silenced = time.monotonic()
            for silence in SILENCE:
                self._feedback.queue(silence)

    def _tell(self, name: str, value: float) -> None:
        self._feedback.changed(name, value)
        if self._changed is not None:
            self._changed(name, value)

    def _message(self, position: int, port: int, message: Message) -> None:
        self._feedback.heard(message, port)
        if message.kind >= 0xF8:
            self.clock.feed(message.kind, position)
        elif message.channel is not None:
            bank = self._banks.setdefault((port, message.channel), [0, 0])
            if message.kind == 0xB0 and message.data[1] in (_BANK_MSB, _BANK_LSB):
                bank[message.data[1] == _BANK_LSB] = message.data[2]
            elif message.kind == 0xC0:
                called = self._order().called(message.data[1], bank[0] * 128 + bank[1])
                if called is not None:
                    self.act(f"load {called}", 1.0)
        if self._on_message is not None:
            self._on_message(position, port, self.ports[port % PORTS], message)

    def _toggles(self, action: str) -> bool:
        found = (*self._global, *self.host.preset.midi)
        return any(b.mode == "toggle" for b in found if f"host.{action}" in b.targets)

    def _compared(self) -> dict[str, float]:
        return {"host.compare": float(self.comparison.side), "host.match": float(self.comparison.matching)}

    # --- actions ---

    def act(self, action: str, value: float = 1.0) -> None:
        """Do something that takes its time, one after the other, in a thread of its own. Any thread.

        ``load NAME``, ``next``, ``previous``, ``record`` (value from 0.5 on: begin), ``marker NAME`` (by default a
        number), ``snapshot`` (its number), ``morph`` (0 to 100 per cent of the way to the preset that the present one
        names), ``compare`` (from 0.5 on: B), ``copy``, ``match`` (from 0.5 on: at one loudness), ``undo``, ``redo``,
        ``panic``, ``chain CHANGE POSITION NAME`` (see `rtgan.chain.change`); ``flip record``, ``flip compare`` and
        ``flip match`` do the opposite of what is.
        """
        if action:
            self._work.put((action, value))

    def _order(self) -> SetList:
        found = self._setlist
        if found is None:
            found = self._setlist = setlist.automatic()
        return found

    def _perform(self) -> None:
        self.host.wait_first_block(halt=self._halt)
        self._guarded("the set list", self._order)
        while (work := self._work.get()) is not None:
            waiting = [work]
            while not self._work.empty():
                more = self._work.get()
                if more is None:
                    return
                waiting.append(more)
            for k, (action, value) in enumerate(waiting):
                rest = (a for a, _ in waiting[k + 1 :])
                later = list(itertools.takewhile(lambda a: a.removeprefix("flip ") not in _IN_ORDER, rest))
                # Of several presets, or places of the morph fader, that were asked for meanwhile the last one counts.
                if action == "morph" and "morph" in later:
                    continue
                if action.startswith("load ") and any(a.startswith("load ") for a in later):
                    continue
                try:
                    self._do(action, value)
                except RtganError as problem:
                    self.host.warn(str(problem))
                except Exception as problem:
                    # A plugin of somebody else's that fails while it is built: the next action must still be done.
                    self.host.warn(f"'{action}' failed: {problem!r}")

    def _do(self, action: str, value: float) -> None:
        host = self.host
        name, _, rest = action.partition(" ")
        if name == "load":
            # What leads to a file is no person who gives its path: code runs as freely as that of the preset here did.
            if presets.by_path(rest):
                self.comparison.load(presets.load(rest, "run" if host.preset.trusted else "pinned"))
            else:
                self.comparison.load(rest)
        elif name in ("next", "previous"):
            chosen = self._order().step(host.preset, 1 if name == "next" else -1)
            if chosen is not None:
                self.comparison.load(chosen)
        elif name == "flip":
            present = {"host.record": float(host.recording is not None), **self._compared()}[f"host.{rest}"]
            self._do(rest, 1.0 - present)
        elif name == "record":
            if value >= 0.5:
                try:
                    self._takes.mkdir(parents=True, exist_ok=True)
                except OSError as problem:
                    raise RtganError(f"the folder {self._takes} cannot be made: {problem.strerror}") from None
                host.record(self._takes / time.strftime("take-%Y%m%d-%H%M%S.wav"))
            else:
                host.stop_recording()
        elif name == "marker":
            host.mark(rest)
        elif name == "snapshot":
            self._scenes.snapshot(round(value))
        elif name == "morph":
            self._scenes.morph(value / 100)
        elif name == "compare":
            self.comparison.play(int(value >= 0.5))
        elif name == "copy":
            self.comparison.copy()
        elif name == "match":
            self.comparison.match(value >= 0.5)
        elif name == "undo":
            self.history.undo()
        elif name == "redo":
            self.history.redo()
        elif name == "panic":
            host.panic()
        elif name == "chain":
            what, position, plugin = rest.split(" ", 2)
            host.change(lambda preset: chain.change(preset, what, plugin, int(position)))
        if name in (*_IN_ORDER, "match"):
            for target, is_at in self._compared().items():
                self._tell(target, is_at)
