"""Rules of a preset: what happens by itself when a plugin's reading says so.

In YAML::

    rules:
    - {when: tags.speech, above: 0.8, for_ms: 300, do: gate.bypass, to: on, back: off}
    - {when: tags.dog_bark, above: 0.7, do: host.marker}
    - {when: tags.mainly_music, above: 0.8, for_ms: 2000, load: sing-a-sax}

A rule begins when its reading has been beyond the limit for ``for_ms``, and ends when it has not been for ``until_ms``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import yaml

from rtgan.bindings import HOST_TARGETS, HOST_TRIGGERS
from rtgan.params import Param
from rtgan.preset_text import OneLine, Reader, plain

MOST_RULES = 64
MOST_MS = 60000.0
FOR_MS, UNTIL_MS = 200.0, 500.0
_KEYS = ("when", "above", "below", "for_ms", "until_ms", "do", "to", "back", "load")
_FARTHEST = 1e9


@dataclass(frozen=True)
class Rule:
    """What happens when.

    Parameters
    ----------
    when : str
        ``label.reading`` of the chain.
    limit : float
    above : bool
        Whether the reading must lie above the limit, or below.
    for_ms, until_ms : float
        How long it must have done so, and how long not any more.
    do : str
        ``label.param`` of the chain, or one of `rtgan.bindings.HOST_TARGETS`; empty where a preset is loaded.
    to, back : float or None
        Plain value when it begins, and when it ends; None for what does something each time, or stays.
    load : str
        Name or path of a preset to play; empty for none.
    """

    when: str
    limit: float
    above: bool = True
    for_ms: float = FOR_MS
    until_ms: float = UNTIL_MS
    do: str = ""
    to: float | None = None
    back: float | None = None
    load: str = ""

    def holds(self, value: float) -> bool:
        """Whether a reading lies beyond the limit."""
        return value > self.limit if self.above else value < self.limit


class Watch:
    """Which rules hold, as readings go by.

    Parameters
    ----------
    rules : sequence of Rule
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self._on = [False] * len(self.rules)
        self._since: list[float | None] = [None] * len(self.rules)

    def look(self, seconds: float, readings: Mapping[str, float]) -> list[tuple[Rule, bool]]:
        """Rules that begin (True) or end (False) now, by the clock of the sound; a missing reading holds none."""
        found = []
        for k, rule in enumerate(self.rules):
            holds = rule.when in readings and rule.holds(readings[rule.when])
            if holds == self._on[k]:
                self._since[k] = None
                continue
            since = self._since[k]
            if since is None or since > seconds:
                since = self._since[k] = seconds
            if 1000 * (seconds - since) >= (rule.until_ms if self._on[k] else rule.for_ms):
                self._on[k], self._since[k] = holds, None
                found.append((rule, holds))
        return found


def read_rules(
    reader: Reader, node: yaml.Node, targets: Mapping[str, Param], readings: Mapping[str, Sequence[str] | None],
    preset: Callable[[yaml.Node], str],
) -> tuple[Rule, ...]:  # fmt: skip
    """Read a ``rules`` list.

    Parameters
    ----------
    targets : mapping of str to Param
        What a rule may move.
    readings : mapping of str to sequence of str
        Names of the readings by label of the chain; None where only playing tells.
    preset : callable
        Checks the name of a preset and gives it as it is to be kept.

    Raises
    ------
    UsageError
        With file and line.
    """
    return tuple(_rule(reader, item, targets, readings, preset) for item in reader.sequence(node, "rules", MOST_RULES))


def _rule(
    reader: Reader, node: yaml.Node, targets: Mapping[str, Param], readings: Mapping[str, Sequence[str] | None],
    preset: Callable[[yaml.Node], str],
) -> Rule:  # fmt: skip
    fields = reader.mapping(node, "a rule", required=("when",), allowed=_KEYS)
    when = reader.text(fields["when"], "when")
    label, _, name = when.partition(".")
    if label not in readings:
        raise reader.error(fields["when"], f"the chain has no '{label[:60]}' to read; it has: {', '.join(readings)}")
    known = readings[label]
    if known is not None and name not in known:
        listed = ", ".join(f"{label}.{n}" for n in known) or "none"
        raise reader.error(fields["when"], f"there is no reading '{when[:60]}'; known are: {listed}")
    if ("above" in fields) == ("below" in fields):
        raise reader.error(node, "a rule needs one limit: above or below")
    side = "above" if "above" in fields else "below"
    if ("do" in fields) == ("load" in fields):
        raise reader.error(node, "a rule needs one thing to happen: do or load")
    times = {
        key: reader.number(fields[key], key, 0, MOST_MS) if key in fields else default
        for key, default in (("for_ms", FOR_MS), ("until_ms", UNTIL_MS))
    }
    limit = reader.number(fields[side], side, -_FARTHEST, _FARTHEST)
    to: float | None = None
    back: float | None = None
    do = reader.text(fields["do"], "do") if "do" in fields else ""
    if do and do not in targets:
        raise reader.error(fields["do"], f"there is no target '{do[:60]}'; known are: {', '.join(targets)}")
    for key in ("to", "back"):
        if key in fields and (not do or do in HOST_TRIGGERS):
            raise reader.error(fields[key], f"{do or 'load'} takes no {key}")
    if do and do not in HOST_TRIGGERS:
        if "to" not in fields:
            raise reader.error(node, f"{do} needs a value: to")
        to = reader.value(fields["to"], targets[do], do)
        back = reader.value(fields["back"], targets[do], do) if "back" in fields else None
    load = preset(fields["load"]) if "load" in fields else ""
    return Rule(when, limit, side == "above", times["for_ms"], times["until_ms"], do, to, back, load)


def fields_of(rule: Rule, declared: Mapping[str, Param]) -> OneLine:
    """A rule as plain values for YAML, defaults left out; ``declared`` are the chain's parameters."""
    targets = {**declared, **HOST_TARGETS}
    fields = OneLine(when=rule.when)
    fields["above" if rule.above else "below"] = plain(rule.limit)
    if rule.for_ms != FOR_MS:
        fields["for_ms"] = plain(rule.for_ms)
    if rule.until_ms != UNTIL_MS:
        fields["until_ms"] = plain(rule.until_ms)
    if rule.load:
        fields["load"] = rule.load
    if rule.do:
        fields["do"] = rule.do
    switch = rule.do in targets and targets[rule.do].scale == "switch"
    for key, value in (("to", rule.to), ("back", rule.back)):
        if value is not None:
            fields[key] = bool(value) if switch and value in (0, 1) else plain(value)
    return fields
