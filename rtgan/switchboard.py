"""MIDI on the audio thread: from the bytes of a message to the value of a parameter, at one sample.

A `Table` belongs to a graph. For every kind of control it answers, without searching, which routes a message
touches; a route holds 128 plain values over the controller's way, so that range, curve, inversion and the
parameter's own scale cost one look-up. Messages from every source come through here, which is why a fader on
JACK, on a polled port and in a file does the same thing.

Numbers follow the MIDI 1.0 specification (MMA, 1996): 14-bit controls are CC 0-31 with CC 32-63, parameters are
selected by CC 98-101 and set by CC 6, 38, 96 and 97. CC 96 and 97 go on from where the parameter stands, whoever
put it there. CC 120, 121 and 123-127 let go of what is held on their channel and port; none of them is a panic,
which is a target of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from rtgan.kernels.native import f64p, i64p, inline, kernel, larger, smaller
from rtgan.memory import Arena, address_of
from rtgan.params import TARGET

# Kinds of controls.
CC, CC14, NRPN, RPN, BEND, PRESSURE, POLY, NOTE, PROGRAM = range(9)
_KINDS = 9

# Modes of a route.
ABSOLUTE, PICKUP, TWOS, OFFSET, SIGNED, TOGGLE, MOMENTARY, TRIGGER = range(8)

# What a route sets: a parameter (its index), or one of these.
PANIC_ACTION = -1  #: the engine's own panic
_ACTIONS = -2  #: this and below: number ``-2 - index`` of the table's actions, for Python

POINTS = 128
PORTS = 16

# Words of a route.
(
    R_NEXT, R_KIND, R_NUMBER, R_CHANNEL, R_PORTS, R_MODE, R_SERIAL, R_INDEX, R_SLOT, R_POINTS, R_RAMP, R_ON, R_RAW,
    R_ENGAGED,
) = range(14)  # fmt: skip
F_VALUE, F_LAST, F_BEFORE, F_WAY = range(14, 18)
R_STEPPED = 18  # nothing between two points is ever set
F_DETENT = 19  # of the way, for each detent of a relative controller
#: What a route remembers of its controller.
_STATE = [R_ON, R_RAW, R_ENGAGED, F_VALUE, F_LAST, F_BEFORE, F_WAY]
_R_WORDS = 24

# Words of a table.
T_COUNT, T_ROUTES, T_HEADS = 0, 1, 8
_T_WORDS = T_HEADS + _KINDS * 128

# Decoder: per port and channel the halves of 14-bit controls, what is selected, its data, and whether it was told.
_MSB, _LSB, _SELECTED, _SELECT_MSB, _SELECT_LSB, _DATA, _KNOWN = 0, 32, 64, 65, 66, 67, 68
_CHANNEL_WORDS = 72
DECODER_WORDS = PORTS * 16 * _CHANNEL_WORDS

# What a message says: up to this many controls, each of these words.
C_KIND, C_NUMBER, C_RAW, C_ON, FC_VALUE, C_STEP = range(6)
_C_WORDS = 8
FOUND_WORDS = 3 * _C_WORDS


@inline
def _say(found: Any, count: Any, kind: Any, number: Any, raw: Any, value: Any) -> Any:
    at = found + 8 * _C_WORDS * count
    w = i64p(at)
    w[C_KIND] = kind
    w[C_NUMBER] = number
    w[C_RAW] = raw
    w[C_STEP] = 0
    w[C_ON] = 1 if value >= 0.5 or ((kind in (NOTE, PROGRAM)) and value > 0.0) else 0
    f64p(at)[FC_VALUE] = value
    return count + 1


@inline
def _control_change(state: Any, found: Any, number: Any, raw: Any) -> Any:
    """A CC in all its meanings."""
    s = i64p(state)
    count = _say(found, 0, CC, number, raw, raw / 127.0)
    wide = -1
    if number < 32:
        # Many controllers send the coarse half with every message: the fine one lasts until the coarse one moves.
        if s[_MSB + number] != raw:
            s[_MSB + number] = raw
            s[_LSB + number] = 0
        wide = number
    elif number < 64:
        s[_LSB + number - 32] = raw
        wide = number - 32
    if wide >= 0:
        both = s[_MSB + wide] * 128 + s[_LSB + wide]
        count = _say(found, count, CC14, wide, both, both / 16383.0)
    if number >= 98 and number <= 101:
        kind = NRPN if number < 100 else RPN
        half = _SELECT_MSB if number & 1 else _SELECT_LSB
        if s[_SELECTED] != kind or s[half] != raw:
            s[_KNOWN] = 0
        s[half] = raw
        s[_SELECTED] = kind
        if kind == RPN and s[_SELECT_LSB] == 127 and s[_SELECT_MSB] == 127:
            s[_SELECTED] = 0
    elif (number == 6 or number == 38 or number == 96 or number == 97) and s[_SELECTED] != 0:
        step = 0
        if number == 6:
            if s[_KNOWN] == 0 or s[_DATA] >> 7 != raw:
                s[_DATA] = raw * 128
            s[_KNOWN] = 1
        elif number == 38:
            s[_DATA] = (s[_DATA] & 0x3F80) + raw
        else:
            step = 1 if number == 96 else -1
            s[_DATA] = smaller(larger(s[_DATA] + step, 0), 16383)
        selected = s[_SELECT_MSB] * 128 + s[_SELECT_LSB]
        if s[_KNOWN] != 0:
            count = _say(found, count, s[_SELECTED], selected, s[_DATA], s[_DATA] / 16383.0)
            i64p(found + 8 * _C_WORDS * (count - 1))[C_STEP] = step
        elif step != 0:
            # A step from a place that nobody has told: what the control says as a number is not known.
            count = _say(found, count, s[_SELECTED], selected, -1, 0.0)
            i64p(found + 8 * _C_WORDS * (count - 1))[C_STEP] = step
    return count


@inline
def decode(decoder: Any, port: Any, message: Any, found: Any) -> Any:
    """[audio] Write what a channel message says to ``found``; returns how many controls that are.

    ``message`` holds up to three bytes, the status lowest. System messages say nothing.
    """
    status = message & 0xF0
    one = (message >> 8) & 0x7F
    two = (message >> 16) & 0x7F
    state = decoder + 8 * _CHANNEL_WORDS * ((port & (PORTS - 1)) * 16 + (message & 15))
    count = 0
    if status == 0xB0:
        count = _control_change(state, found, one, two)
    elif status == 0x90:
        count = _say(found, 0, NOTE, one, two, two / 127.0)
    elif status == 0x80:
        count = _say(found, 0, NOTE, one, 0, 0.0)
    elif status == 0xA0:
        count = _say(found, 0, POLY, one, two, two / 127.0)
    elif status == 0xC0:
        count = _say(found, 0, PROGRAM, one, 127, 1.0)
    elif status == 0xD0:
        count = _say(found, 0, PRESSURE, 0, one, one / 127.0)
    elif status == 0xE0:
        bend = two * 128 + one
        # The middle is exactly the middle, both ends are reached.
        value = bend / 16384.0 if bend < 8192 else 0.5 + (bend - 8192) / 16382.0
        count = _say(found, 0, BEND, 0, bend, value)
    return count


@inline
def decoder_reset(decoder: Any) -> None:
    """[audio] Forget halves of controls and selections."""
    w = i64p(decoder)
    for i in range(DECODER_WORDS):
        w[i] = 0


@inline
def _at(route: Any, value: Any) -> Any:
    """Plain value at 0..1 of the controller's way."""
    p = f64p(i64p(route)[R_POINTS])
    way = smaller(larger(value, 0.0), 1.0) * (POINTS - 1)
    left = smaller(np.int64(way), POINTS - 2)
    part = way - left
    if i64p(route)[R_STEPPED] != 0:
        return p[left] if part < 0.5 else p[left + 1]
    if part == 0.0:
        return p[left]
    if part == 1.0:
        return p[left + 1]
    return p[left] + (p[left + 1] - p[left]) * part


@inline
def _way(points: Any, plain: Any) -> Any:
    """Where on the way, 0..1, a plain value lies; the values never turn back."""
    p = f64p(points)
    sign = 1.0 if p[POINTS - 1] >= p[0] else -1.0
    left = 0
    right = POINTS - 1
    while right - left > 1:
        middle = (left + right) >> 1
        if (p[middle] - plain) * sign <= 0.0:
            left = middle
        else:
            right = middle
    width = p[right] - p[left]
    part = (plain - p[left]) / width if width != 0.0 else 0.0
    return (left + smaller(larger(part, 0.0), 1.0)) / (POINTS - 1)


@inline
def _steps(mode: Any, raw: Any) -> Any:
    """Detents that a relative controller has turned."""
    if mode == TWOS:
        return raw if raw < 64 else raw - 128
    if mode == OFFSET:
        return raw - 64
    return -(raw & 63) if raw & 64 else raw & 63


@inline
def _absolute(route: Any, value: Any, present: Any) -> Any:
    r = i64p(route)
    f = f64p(route)
    fine = r[R_KIND] == CC14 or r[R_KIND] == NRPN or r[R_KIND] == RPN or r[R_KIND] == BEND
    tick = 1.0 / 16383.0 if fine else 1.0 / 127.0
    plain = _at(route, value)
    step = abs(_at(route, value + tick) - _at(route, value - tick)) * 0.5
    distance = abs(plain - present)
    fires = 1
    if distance == 0.0 or (distance <= 0.5 * step and value > 0.0 and value < 1.0):
        # The parameter is there already, as far as this controller can tell: what a motor fader or an LED ring
        # sends back when it is told a value changes nothing.
        fires = 0
        r[R_ENGAGED] = 1
        f[F_LAST] = present
    elif r[R_MODE] == PICKUP and (r[R_ENGAGED] == 0 or f[F_LAST] != present):
        crossed = (f[F_BEFORE] - present) * (plain - present) <= 0.0
        if not crossed and distance > 1.5 * abs(_at(route, value + 1 / 127) - _at(route, value - 1 / 127)):
            fires = 0
            r[R_ENGAGED] = 0
    f[F_BEFORE] = plain
    f[F_VALUE] = plain
    return fires


@inline
def route_fires(route: Any, control: Any) -> Any:
    """[audio] Whether a route that a control touches changes something; the new value is its F_VALUE then."""
    r = i64p(route)
    f = f64p(route)
    c = i64p(control)
    value = f64p(control)[FC_VALUE]
    mode = r[R_MODE]
    points = r[R_POINTS]
    present = f[F_LAST]
    if r[R_SLOT] != 0:
        present = f64p(r[R_SLOT])[TARGET]
    if c[C_STEP] != 0:
        # One up or down from where the parameter is; buttons and what has no value do not know up and down.
        if (mode != ABSOLUTE and mode != PICKUP) or present != present:
            return 0
        value = _way(points, present) + c[C_STEP] / 16383.0
        if r[R_STEPPED] != 0:
            value = 1.0 if c[C_STEP] > 0 else 0.0
        f[F_LAST] = present
        r[R_ENGAGED] = 1
        return _absolute(route, value, present)
    # A button that never says that it is let go sends the same number twice; a fader does not.
    pressed = c[C_ON] != 0 and (r[R_ON] == 0 or r[R_RAW] == c[C_RAW])
    changed = c[C_ON] != r[R_ON]
    r[R_ON] = c[C_ON]
    r[R_RAW] = c[C_RAW]
    fires = 0
    if mode in (ABSOLUTE, PICKUP):
        fires = _absolute(route, value, present)
    elif mode == TRIGGER:
        f[F_VALUE] = value
        return 1 if pressed else 0
    elif mode == TOGGLE:
        low = f64p(points)[0]
        high = f64p(points)[POINTS - 1]
        f[F_VALUE] = low if abs(present - high) < abs(present - low) else high
        fires = 1 if pressed else 0
    elif mode == MOMENTARY:
        f[F_VALUE] = f64p(points)[(POINTS - 1) * c[C_ON]]
        fires = 1 if changed else 0
    else:
        if r[R_ENGAGED] == 0 or f[F_LAST] != present:
            f[F_WAY] = _way(points, present)
            r[R_ENGAGED] = 1
        way = f[F_WAY] + _steps(mode, c[C_RAW]) * f[F_DETENT]
        f[F_WAY] = smaller(larger(way, 0.0), 1.0)
        f[F_VALUE] = _at(route, f[F_WAY])
        f[F_LAST] = f[F_VALUE]
        return 1 if f[F_VALUE] != present else 0
    if fires:
        f[F_LAST] = f[F_VALUE]
        r[R_ENGAGED] = 1
    return fires


@inline
def route_first(table: Any, kind: Any, number: Any) -> Any:
    """[audio] The first route that may answer to a control; 0 if there is none."""
    return i64p(table)[T_HEADS + kind * 128 + (number & 127)]


@inline
def route_serves(route: Any, channel: Any, port: Any) -> Any:
    """[audio] Whether a route listens to this channel (from 0) and port."""
    r = i64p(route)
    return (r[R_CHANNEL] < 0 or r[R_CHANNEL] == channel) and (r[R_PORTS] >> (port & (PORTS - 1))) & 1


@inline
def route_answers(route: Any, kind: Any, number: Any, channel: Any, port: Any) -> Any:
    """[audio] Whether a route listens to this control, channel (from 0) and port."""
    r = i64p(route)
    return r[R_KIND] == kind and r[R_NUMBER] == number and route_serves(route, channel, port)


@inline
def route_release(route: Any) -> Any:
    """[audio] Let go of what is held; whether that changes something."""
    r = i64p(route)
    if r[R_MODE] != MOMENTARY or r[R_ON] == 0:
        return 0
    r[R_ON] = 0
    f64p(route)[F_VALUE] = f64p(r[R_POINTS])[0]
    f64p(route)[F_LAST] = f64p(route)[F_VALUE]
    return 1


@dataclass(frozen=True)
class Route:
    """One controller to one target, ready for the audio thread.

    Parameters
    ----------
    kind, number : int
        The control; ``number`` is 0 where the kind has none.
    channel : int
        From 0; -1 for any.
    mode : int
    points : ndarray of float64, (128,)
        Plain values over the controller's way; they never turn back. Only two different ones: a switch, which is
        never set to anything between them, however fine the control.
    serial, index : int
        Graph (0: the host) and parameter.
    slot : int
        Address of the parameter; 0 for an action.
    action : str
        What to ask Python for, instead of a parameter; ``panic`` is the engine's own.
    ports : int
        Bit mask of the ports listened to.
    ramp_samples : int
        Length of the ramp a change takes; 0 for the parameter's own.
    """

    kind: int
    number: int
    channel: int
    mode: int
    points: NDArray[np.float64]
    serial: int = 0
    index: int = 0
    slot: int = 0
    action: str = ""
    ports: int = (1 << PORTS) - 1
    ramp_samples: int = 0


class Table:
    """Routes in memory of their own [main].

    Attributes
    ----------
    address : int
        What the audio thread walks.
    actions : tuple of str
        Names of what ACTION records ask for, by number.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self.arena = arena = Arena()
        self.routes = tuple(routes)
        self.actions = tuple(dict.fromkeys(r.action for r in routes if r.action and r.action != "panic"))
        words = arena.int64(_T_WORDS)
        rows = arena.int64(_R_WORDS * max(1, len(routes))).reshape(-1, _R_WORDS)
        words[T_COUNT], words[T_ROUTES] = len(routes), address_of(rows)
        tails: dict[int, NDArray[np.int64]] = {}
        for route, row in zip(self.routes, rows, strict=False):
            row[R_KIND], row[R_NUMBER], row[R_CHANNEL] = route.kind, route.number, route.channel
            row[R_PORTS], row[R_MODE], row[R_RAMP] = route.ports, route.mode, route.ramp_samples
            row[R_SERIAL], row[R_INDEX], row[R_SLOT] = route.serial, route.index, route.slot
            if route.action:
                row[R_INDEX] = PANIC_ACTION if route.action == "panic" else _ACTIONS - self.actions.index(route.action)
            row[R_POINTS] = arena.put(np.asarray(route.points, np.float64))
            places = len(np.unique(route.points))
            row[R_STEPPED] = places <= 2
            row.view(np.float64)[[F_LAST, F_BEFORE]] = np.nan
            # Of a few places each detent reaches the next.
            row.view(np.float64)[F_DETENT] = 1 / (places - 1 if 1 < places <= POINTS // 2 else POINTS - 1)
            head = T_HEADS + route.kind * 128 + (route.number & 127)
            # Routes of one control answer in the order in which they were given.
            if head in tails:
                tails[head][R_NEXT] = address_of(row)
            else:
                words[head] = address_of(row)
            tails[head] = row
        self.address = address_of(words)
        self._rows = rows

    def resume(self, before: Table, index: Mapping[str, int], index_before: Mapping[str, int]) -> dict[int, float]:
        """Go on where another table's routes of the same control, target and mode stand: held, engaged, last place.

        ``index`` and ``index_before`` number the parameters of the two graphs by name. The audio thread may be
        writing ``before``: what it writes after a word was read is not seen.

        Returns
        -------
        dict of int to float
            The host's parameters, by number, that a control of ``before`` holds which is not known here, and the
            values they have when it is let go: nobody else will do it.
        """
        known = dict(zip(before._keys(index_before), zip(before.routes, before._rows, strict=False), strict=True))
        for key, row in zip(self._keys(index), self._rows, strict=False):
            if key in known:
                row[_STATE] = known.pop(key)[1][_STATE]
        return {
            route.index: float(route.points[0])
            for route, row in known.values()
            if route.mode == MOMENTARY and route.serial == 0 and not route.action and row[R_ON]
        }

    def _keys(self, index: Mapping[str, int]) -> list[tuple[object, ...]]:
        """What each route is; equal ones are counted. Not the port: the same one may come back as another number."""
        names = {number: name for name, number in index.items()}
        seen: Counter[tuple[object, ...]] = Counter()
        keys: list[tuple[object, ...]] = []
        for route in self.routes:
            target = route.index if route.serial == 0 else names.get(route.index)
            key = (route.kind, route.number, route.channel, route.mode, route.action, route.serial == 0, target)
            seen[key] += 1
            keys.append((*key, seen[key]))
        return keys


@inline
def action_number(index: Any) -> Any:
    """[audio] Which of the table's actions a route asks for."""
    return _ACTIONS - index


R_BYTES = 8 * _R_WORDS
FOUND_BYTES = 8 * _C_WORDS


_I = types.int64


@kernel(_I(_I, _I, _I, _I))
def _decode(decoder: Any, port: Any, message: Any, found: Any) -> Any:
    return decode(decoder, port, message, found)


@dataclass(frozen=True)
class Moved:
    """A control that a message moved.

    Parameters
    ----------
    kind, number : int
    raw : int
        As received, 7 or 14 bits.
    value : float
        0..1.
    on : bool
        Whether that counts as pressed.
    """

    kind: int
    number: int
    raw: int
    value: float
    on: bool


class Decoder:
    """What the audio thread understands of MIDI, for Python: to show it and to learn from it [one thread]."""

    def __init__(self) -> None:
        self._state = np.zeros(DECODER_WORDS, np.int64)
        self._found = np.zeros(FOUND_WORDS, np.int64)

    def controls(self, message: bytes, port: int = 0) -> list[Moved]:
        """The controls that a message of one to three bytes moves, those whose place is known."""
        packed = int.from_bytes(message[:3], "little")
        count = _decode(address_of(self._state), port, packed, address_of(self._found))
        rows = self._found.reshape(-1, _C_WORDS)[:count]
        return [
            Moved(int(r[C_KIND]), int(r[C_NUMBER]), int(r[C_RAW]), float(r.view(np.float64)[FC_VALUE]), bool(r[C_ON]))
            for r in rows
            if r[C_RAW] >= 0
        ]
