"""The rules of the preset that plays, watched beside the audio thread; what they do goes through the one door."""

from __future__ import annotations

import threading
from collections.abc import Callable

from rtgan.bindings import HOST_TRIGGERS
from rtgan.errors import RtganError
from rtgan.host import Host
from rtgan.rules import Rule, Watch

_LOOK_S = 0.02
#: What of the host takes its time, or holds a value of its own, and is done by the desk.
_ACTIONS = ("record", "snapshot", "morph", "compare", "match", *(t.removeprefix("host.") for t in HOST_TRIGGERS))


class Reflex:
    """Rules at work [a thread of its own].

    Parameters
    ----------
    host : Host
    act : callable
        `rtgan.control.desk.Desk.act`.
    halt : Event
        Ends `run`.
    """

    def __init__(self, host: Host, act: Callable[[str, float], None], halt: threading.Event) -> None:
        self._host, self._act, self._halt = host, act, halt
        self._watch = Watch(())
        self._told: set[str] = set()

    def run(self) -> None:
        """Look at the readings again and again until the halt."""
        while not self._halt.wait(_LOOK_S):
            try:
                self.look()
            except RtganError as problem:
                self._host.warn(str(problem))
            except Exception as problem:
                # Rules of the next preset must still be watched.
                self._host.warn(f"a rule failed: {problem!r}")

    def look(self) -> None:
        """Once."""
        host = self._host
        rules = host.preset.rules
        if rules is not self._watch.rules:
            # Another preset begins with none of its rules in force.
            self._watch = Watch(rules)
            self._told.clear()
        if not rules:
            return
        readings = host.readings
        for name in {r.when for r in rules} - readings.keys() - self._told:
            self._told.add(name)
            host.warn(f"a rule waits for '{name}', which nothing in this chain tells")
        seconds = host.engine.counters.position_samples / host.sample_rate_hz
        for rule, begins in self._watch.look(seconds, readings):
            self._follow(rule, begins)

    def _follow(self, rule: Rule, begins: bool) -> None:
        name = rule.do.removeprefix("host.")
        if rule.load:
            if begins:
                self._act(f"load {rule.load}", 1.0)
        elif rule.do in HOST_TRIGGERS:
            if begins and name == "marker":
                # A marker needs a recording; where none runs there is nothing to mark.
                if self._host.recording is not None:
                    self._act(f"marker {rule.when.partition('.')[2]}", 1.0)
            elif begins:
                self._act(name, 1.0)
        else:
            value = rule.to if begins else rule.back
            if value is None:
                return
            if rule.do.startswith("host.") and name in _ACTIONS:
                self._act(name, value)
            else:
                self._host.set(rule.do, value)
