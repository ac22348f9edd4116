"""Gaps in a recording: where they are, and what fills them from both sides.

A gap is foretold twice, from what was before it and, backwards, from what comes behind it, and the two are faded over.
There are two ways to foretell. Linear prediction of a high order (Kauppinen and Roth, "Audio Signal Extrapolation",
2002) goes on with every partial of a held tone, and where that is right the forecasts from both sides agree. Where they
do not, as in speech, the live plugin's net fills the gap once forwards and once in the reversed recording.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rtgan import offline
from rtgan.errors import UsageError
from rtgan.kernels import autoregression
from rtgan.mending.spans import runs
from rtgan.presets import Entry, Preset

Sound = NDArray[np.float32]
Wide = NDArray[np.float64]
Spans = list[tuple[int, int]]

#: Longest gap that is filled, and the shortest run of zeros that is one.
LONGEST_S, SHORTEST_S = 0.2, 0.001
#: A gap breaks sound off and begins it anew: so loud are the 2 ms on either side of it, as power.
_EDGE_S, _AUDIBLE = 0.002, 1e-7
#: Order of the prediction and what it is learned from; what is nearer than that to a side cannot be learned from.
_ORDER_S, _LEARN_S, _LEAST_S = 1 / 24, 0.2, 0.01
#: Likeness of both forecasts from which they are believed.
_ALIKE = 0.4
#: What the net is shown before a gap, and behind it.
_LEAD_S, _AFTER_S = 0.25, 0.02


def detected(sound: Sound, rate_hz: int) -> Spans:
    """Runs of exact zeros of 1 to 200 ms that break the sound of one channel off, as (first, behind the last)."""
    edge = max(2, round(_EDGE_S * rate_hz))
    found = []
    for begin, end in runs(sound == 0):
        if not SHORTEST_S * rate_hz <= end - begin <= LONGEST_S * rate_hz:
            continue
        sides = sound[max(0, begin - edge) : begin], sound[end : end + edge]
        if all(len(side) == edge and np.mean(np.square(side, dtype=np.float64)) > _AUDIBLE for side in sides):
            found.append((int(begin), int(end)))
    return found


def _seconds(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e7:
        raise UsageError(
            f"{where}: '{text.strip()}' is not a time; write two numbers of seconds, begin and end of a gap"
        )
    return value


def read_list(path: Path) -> list[tuple[float, float, str]]:
    """Gaps that somebody marked: begin and end in seconds, and where it stands.

    Parameters
    ----------
    path : Path
        ``begin,end`` in each line (a first line that says so is passed over), or a label track of Audacity's.

    Raises
    ------
    UsageError
        With file and line.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(f"the list of gaps {path} cannot be read: {getattr(problem, 'strerror', '') or 'no text'}") \
            from None  # fmt: skip
    found = []
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        # Audacity writes the range of frequencies of a label into a line of its own.
        if not line.strip() or line.startswith("\\"):
            continue
        cells = line.split("\t" if "\t" in line else ",")
        if number == 1 and cells[0].strip().lower() in ("start", "begin"):
            continue
        if len(cells) < 2:
            raise UsageError(f"{where}: '{line.strip()}' is no gap; write begin,end in seconds")
        begin, end = _seconds(cells[0], where), _seconds(cells[1], where)
        if end <= begin:
            raise UsageError(f"{where}: a gap must end after it begins, and this one lasts from {begin:g} to {end:g} s")
        if end - begin > LONGEST_S + 1e-9:
            raise UsageError(f"{where}: this gap lasts {1000 * (end - begin):.0f} ms; at most "
                             f"{1000 * LONGEST_S:.0f} ms can be filled")  # fmt: skip
        found.append((begin, end, where))
    return found


def placed(marked: list[tuple[float, float, str]], rate_hz: int, samples: int) -> Spans:
    """Marked gaps in samples; `UsageError` for one that begins behind the recording's end."""
    spans = []
    for begin, end, where in marked:
        if begin * rate_hz >= samples:
            raise UsageError(f"{where}: a gap begins at {begin:g} s, and the recording ends at {samples / rate_hz:g} s")
        first = round(begin * rate_hz)
        spans.append((first, min(samples, max(first + 1, round(end * rate_hz)))))
    return spans


def merged(spans: Spans) -> Spans:
    """Spans in order, those that touch as one."""
    out: Spans = []
    for begin, end in sorted(spans):
        if out and begin <= out[-1][1]:
            out[-1] = out[-1][0], max(end, out[-1][1])
        else:
            out.append((begin, end))
    return out


def _foretold(past: Wide, count: int, order: int) -> Wide:
    """So many samples more, by prediction."""
    order = min(order, len(past) // 3)
    room = np.empty((2, len(past)))
    a = np.empty(order + 1)
    autoregression.burg(past, a, room[0], room[1])
    out = np.concatenate((past[len(past) - order :], np.zeros(count)))
    autoregression.extend(out, order, a)
    return out[order:]


def _likeness(a: Wide, b: Wide) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b) + 1e-24))


def _faded(ahead: Wide, back: Wide) -> Wide:
    """From one forecast to the other, with gains that keep the power whatever they have in common."""
    alike = min(1.0, max(0.0, _likeness(ahead, back)))
    rise = np.sin(0.5 * np.pi * (np.arange(len(ahead)) + 0.5) / len(ahead))
    fall = np.sqrt(np.maximum(1 - rise * rise * (1 - alike * alike), 0)) - alike * rise
    return np.asarray(fall * ahead + rise * back)


def by_net(sound: Sound, gaps: Spans, rate_hz: int) -> list[Wide]:
    """What the live plugin, which knows only what was before, puts into each of these gaps, which are silent."""
    lead, after = round(_LEAD_S * rate_hz), round(_AFTER_S * rate_hz)
    pieces, places, at = [], [], 0
    for begin, end in gaps:
        first = max(0, begin - lead)
        pieces.append(sound[first : end + after])
        places.append((at + begin - first, at + end - first))
        at += len(pieces[-1])
    renderer = offline.Renderer(Preset("mending", (Entry("repair"),)), rate_hz, 1)
    out = renderer.perform(np.concatenate(pieces)[None], flush=renderer.latency_samples)[0, renderer.latency_samples :]
    return [out[begin:end].astype(np.float64) for begin, end in places]


def filled(sound: Sound, gaps: Spans, rate_hz: int) -> Sound:
    """One channel with its gaps, in order, filled; what stood in them is not looked at.

    Parameters
    ----------
    sound : ndarray of float32, (samples,)
    gaps : list of (int, int)
        First sample, and the one behind the last; at most `LONGEST_S` long where they shall be filled to their middle.
    rate_hz : int
    """
    out = sound.copy()
    for begin, end in gaps:
        out[begin:end] = 0
    silent = out.copy()
    order, learn, least = (round(s * rate_hz) for s in (_ORDER_S, _LEARN_S, _LEAST_S))
    left: list[int] = []
    for number, (begin, end) in enumerate(gaps):
        limit = gaps[number + 1][0] if number + 1 < len(gaps) else len(sound)
        past = out[max(0, begin - learn) : begin].astype(np.float64)
        future = silent[end : min(end + learn, limit)][::-1].astype(np.float64, order="C")
        sides = [_foretold(side, end - begin, order) if len(side) >= least else None for side in (past, future)]
        ahead, back = sides[0], None if sides[1] is None else sides[1][::-1]
        if ahead is not None and back is not None:
            out[begin:end] = _faded(ahead, back)
            if _likeness(ahead, back) < _ALIKE:
                left.append(number)
        elif ahead is not None or back is not None:
            # At the very beginning or end there is one side only.
            out[begin:end] = ahead if back is None else back
    if left:
        own = [gaps[number] for number in left]
        turned = [(len(sound) - end, len(sound) - begin) for begin, end in own]
        forward = by_net(silent, own, rate_hz)
        backward = by_net(np.ascontiguousarray(silent[::-1]), turned, rate_hz)
        for (begin, end), ahead, back in zip(own, forward, backward, strict=True):
            out[begin:end] = _faded(ahead, back[::-1])
    return out
