"""The codec packet by packet: spectra and codes out of sound, spectra out of codes, sound out of spectra.

`hear` takes the samples of a packet and its surroundings apart (see `spectra`), runs the encoder and searches the
codebooks; `say` runs the decoder on codes; `sound` makes a signal whose spectra have the magnitudes wanted, which the
codec never says the phases of: real-time iterative spectrogram inversion with look-ahead (Zhu, Beauregard and Wyse,
IEEE TASLP 2007). All on raw addresses, without allocation, for the audio thread and for files alike.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from . import fft, spectra
from .fft import Allocate, aligned
from .native import call_net, f32p, f64p, i64p, inline, inline_fast, kernel, larger, smaller

#: Frames that a frame's phases are improved with before it is heard, and how often.
LOOK, ROUNDS = 3, 4
#: Frames behind one that it is smoothed by.
AFTER = 1
_SLOTS = LOOK + 1
_TOTAL = LOOK * spectra.HOP + spectra.N_FFT
#: Samples that `hear` looks at: a packet's frames.
HEARD = (spectra.FRAMES - 1) * spectra.HOP + spectra.N_FFT
#: From the last sample `hear` needs of a packet to the first that `sound` gives of it.
LATENCY = HEARD + (LOOK + AFTER) * spectra.HOP
#: Samples of silence that go before a sound, so that every frame of its first sample is in a packet.
LEAD = LOOK * spectra.HOP

#: In place of a comb: the packet is silent, or lost.
SILENT, LOST = spectra.COMBS, -1
#: A lost packet is like the one before, but for so much (natural logarithm of power), and so many at most.
_FADE, _MOST_LOST = 0.7, 6
_LOW, _HIGH, _MOST_POWER = math.log(spectra.FLOOR), 8.0, 1e5
_TINY = np.float32(1e-20)

#: What a decoder adds, as speech coders' post-filters do (Chen and Gersho, IEEE TSAP 1995): combs deeper than they
#: were told, and frames far below the loudest of late lower still, by a share of the distance beyond the first.
_DEEPER, _EXPANSION, _FREE, _MOST_CUT, _FORGET = 1.35, 0.2, 6.0, 8.0, 0.005
#: Codes tremble from frame to frame where the sound did not: a bin nearer than this (natural logarithm of power) to its
#: mean with the frames before and behind is drawn there, the nearer the more.
_NEAR = np.float32(1.0)

# Words of the state.
(
    NET, WEIGHTS, ARENA, ARENA_FLOATS, INITIAL, INPUT, OUTPUT, LATENT, STAGES, CODES, PLAN, ANALYSIS, SYNTHESIS,
    SCRATCH, RE, IM, COMB_TABLE, LIKENESS, LISTENING, BOOKS, NORMS, LOGS, FINE, LEFT, CHOSEN, TOTAL, FRAMES, WANTED,
    SAMPLES, OWN_RE, OWN_IM, SLOT_RE, SLOT_IM, LOST_IN_A_ROW, SAID, BAND_OF, MOUTH, LOUDEST, PATHS, COSTS, WAYS,
    TOLD,
) = range(42)  # fmt: skip
_HEADER = 48
_BINS, _COUNT, _BANDS, _N, _HOP = spectra.BINS, spectra.COMBS, spectra.BANDS, spectra.N_FFT, spectra.HOP
_ROOM = -(-_BINS // 16) * 16
_REST = spectra.FRAMES * _BINS


@inline_fast
def _dot(a: Any, b: Any, count: Any) -> Any:
    x = f32p(a)
    y = f32p(b)
    total = np.float32(0.0)
    for k in range(count):
        total += x[k] * y[k]
    return total


@inline
def _spectra(state: Any, x: Any) -> Any:
    """Spectra of the packet at ``x`` behind the last of the one before, their logarithms; whether anything is in it."""
    w = i64p(state)
    loudest = 0.0
    for table in range(2):
        own = f32p(w[OWN_RE] if table == 0 else w[OWN_IM])
        for k in range(_ROOM):
            own[k] = own[_ROOM * spectra.FRAMES + k]
    for frame in range(spectra.FRAMES):
        re = w[OWN_RE] + 4 * _ROOM * (AFTER + frame)
        im = w[OWN_IM] + 4 * _ROOM * (AFTER + frame)
        fft.forward(w[PLAN], x + 4 * _HOP * frame, w[ANALYSIS], re, im, w[SCRATCH])
        a = f32p(re)
        b = f32p(im)
        logs = f32p(w[LOGS] + 4 * _BINS * frame)
        for k in range(_BINS):
            power: Any = np.float64(a[k]) * np.float64(a[k]) + np.float64(b[k]) * np.float64(b[k])
            # Whatever is no number counts as very loud, and goes no further.
            if not power < _MOST_POWER:
                power = _MOST_POWER
                a[k] = 0.0
                b[k] = 0.0
            if power > loudest:
                loudest = power
            logs[k] = np.float32(math.log(power + spectra.FLOOR))
    return loudest > spectra.FLOOR


@inline
def _take_apart(state: Any) -> Any:
    """Write the net's input row from the logarithms; the comb that fits best."""
    w = i64p(state)
    listening = f32p(w[LISTENING])
    length = 0.0
    for frame in range(spectra.FRAMES):
        logs = f32p(w[LOGS] + 4 * _BINS * frame)
        fine = f32p(w[FINE] + 4 * _BINS * frame)
        total = 0.0
        for k in range(spectra.REACH):
            total += np.float64(logs[k])
        for k in range(_BINS):
            first = k - spectra.REACH
            last = k + spectra.REACH
            if last < _BINS:
                total += np.float64(logs[last])
            else:
                last = _BINS - 1
            if first > 0:
                total -= np.float64(logs[first - 1])
            else:
                first = 0
            fine[k] = np.float32(np.float64(logs[k]) - total / (last - first + 1))
            length += np.float64(fine[k] * fine[k] * listening[k])
    comb = 0
    best = np.float32(spectra.LEAST_LIKENESS * (math.sqrt(length * spectra.FRAMES) + 1e-6))
    for c in range(1, _COUNT):
        table = w[LIKENESS] + 4 * _BINS * c
        alike = _dot(table, w[FINE], _BINS) + _dot(table, w[FINE] + 4 * _BINS, _BINS)
        if alike >= best:
            best = alike
            comb = c
    row = f32p(w[ARENA] + 4 * w[INPUT])
    shape = f32p(w[COMB_TABLE] + 4 * _BINS * comb)
    band_of = i64p(w[BAND_OF])
    for frame in range(spectra.FRAMES):
        logs = f32p(w[LOGS] + 4 * _BINS * frame)
        fine = f32p(w[FINE] + 4 * _BINS * frame)
        for band in range(_BANDS):
            along = 0.0
            size = 1e-6
            for k in range(_BINS):
                if band_of[k] == band:
                    along += np.float64(fine[k] * shape[k])
                    size += np.float64(shape[k] * shape[k])
            depth = along / size
            if depth < 0.0:
                depth = 0.0
            if depth > spectra.DEEPEST:
                depth = spectra.DEEPEST
            row[_REST + _BANDS * frame + band] = np.float32(depth)
        for k in range(_BINS):
            row[_BINS * frame + k] = logs[k] - row[_REST + _BANDS * frame + band_of[k]] * shape[k]
    return comb


@inline
def _nearest(state: Any, stage: Any, left: Any) -> Any:
    """The code of a stage nearest to the vector at ``left``."""
    w = i64p(state)
    latent = w[LATENT]
    book = w[BOOKS] + 4 * latent * w[CODES] * stage
    norms = f32p(w[NORMS] + 4 * w[CODES] * stage)
    code = 0
    least = np.float32(3e38)
    for c in range(w[CODES]):
        distance = norms[c] - np.float32(2.0) * _dot(book + 4 * latent * c, left, latent)
        if distance < least:
            least = distance
            code = c
    return code


@inline
def _subtract(state: Any, stage: Any, code: Any, left: Any) -> None:
    w = i64p(state)
    latent = w[LATENT]
    vector = f32p(w[BOOKS] + 4 * latent * (w[CODES] * stage + code))
    rest = f32p(left)
    for k in range(latent):
        rest[k] -= vector[k]


@inline
def _search(state: Any, stages: Any) -> None:
    """Codes of the first stages that together come nearest, by so many paths at a time as ``PATHS`` says."""
    w = i64p(state)
    latent = w[LATENT]
    width = w[PATHS]
    books = w[STAGES]
    now = 0
    paths = 1
    f32p(w[COSTS])[0] = 0.0
    for stage in range(stages):
        book = w[BOOKS] + 4 * latent * w[CODES] * stage
        norms = f32p(w[NORMS] + 4 * w[CODES] * stage)
        lefts = w[LEFT] + 4 * latent * width * now
        nexts = w[LEFT] + 4 * latent * width * (1 - now)
        costs = f32p(w[COSTS] + 4 * width * now)
        best = f32p(w[COSTS] + 4 * width * (1 - now))
        # Behind the codes of all paths, now and next: from which path and with which code the best go on.
        ways = i64p(w[WAYS] + 8 * 2 * width * books)
        found = 0
        for path in range(paths):
            left = lefts + 4 * latent * path
            for c in range(w[CODES]):
                cost = costs[path] + norms[c] - np.float32(2.0) * _dot(book + 4 * latent * c, left, latent)
                if found < width or cost < best[width - 1]:
                    place = found if found < width else width - 1
                    while place > 0 and cost < best[place - 1]:
                        best[place] = best[place - 1]
                        ways[2 * place] = ways[2 * place - 2]
                        ways[2 * place + 1] = ways[2 * place - 1]
                        place -= 1
                    best[place] = cost
                    ways[2 * place] = path
                    ways[2 * place + 1] = c
                    if found < width:
                        found += 1
        for place in range(found):
            a = f32p(lefts + 4 * latent * ways[2 * place])
            b = f32p(nexts + 4 * latent * place)
            for k in range(latent):
                b[k] = a[k]
            _subtract(state, stage, ways[2 * place + 1], nexts + 4 * latent * place)
            before = i64p(w[WAYS] + 8 * books * (width * now + ways[2 * place]))
            after = i64p(w[WAYS] + 8 * books * (width * (1 - now) + place))
            for k in range(stage):
                after[k] = before[k]
            after[stage] = ways[2 * place + 1]
        paths = found
        now = 1 - now
    # The best of all is the first.
    chosen = i64p(w[CHOSEN])
    told = i64p(w[WAYS] + 8 * books * width * now)
    for stage in range(stages):
        chosen[1 + stage] = told[stage]
    a = f32p(w[LEFT] + 4 * latent * width * now)
    b = f32p(w[LEFT])
    for k in range(latent):
        b[k] = a[k]


@inline
def _quantise(state: Any, stages: Any) -> None:
    """Codes of all stages, those of the first found together, of the others each for itself."""
    w = i64p(state)
    left = f32p(w[LEFT])
    told = f32p(w[ARENA] + 4 * w[OUTPUT])
    for k in range(w[LATENT]):
        left[k] = told[k]
    chosen = i64p(w[CHOSEN])
    first = 0
    if w[PATHS] > 1:
        first = smaller(stages, w[STAGES])
        _search(state, first)
    for stage in range(first, w[STAGES]):
        chosen[1 + stage] = _nearest(state, stage, w[LEFT])
        _subtract(state, stage, chosen[1 + stage], w[LEFT])


@inline
def hear(state: Any, x: Any, stages: Any) -> None:
    """Codes of the packet whose `HEARD` samples lie at ``x``, to the words at ``CHOSEN``: comb, then all stages.

    Of ``stages`` codes it is known that they will be told; the others are there if more should be.
    """
    w = i64p(state)
    sounds = _spectra(state, x)
    chosen = i64p(w[CHOSEN])
    comb = _take_apart(state)
    call_net(w[NET], w[ARENA], w[WEIGHTS])
    _quantise(state, stages)
    chosen[0] = comb if sounds else SILENT


@inline
def _tell(state: Any, chosen: Any, stages: Any) -> None:
    """Logarithms of power of a packet's frames as told, to ``TOLD``, behind the two before."""
    w = i64p(state)
    codes = i64p(chosen)
    told = f32p(w[TOLD])
    for k in range(_REST):
        told[k] = told[_REST + k]
    fresh = f32p(w[TOLD] + 4 * _REST)
    latent = w[LATENT]
    if codes[0] == LOST:
        w[LOST_IN_A_ROW] += 1
        for k in range(_REST):
            fresh[k] = fresh[k] - np.float32(_FADE) if w[LOST_IN_A_ROW] < _MOST_LOST else np.float32(_LOW)
        return
    w[LOST_IN_A_ROW] = 0
    row = f32p(w[MOUTH] + 4 * (w[INPUT] + spectra.ROW))
    for k in range(latent):
        row[k] = 0.0
    if codes[0] != SILENT:
        for stage in range(stages):
            vector = f32p(w[BOOKS] + 4 * latent * (w[CODES] * stage + codes[1 + stage]))
            for k in range(latent):
                row[k] += vector[k]
    call_net(w[NET], w[MOUTH], w[WEIGHTS])
    rows = f32p(w[MOUTH] + 4 * (w[OUTPUT] + latent))
    shape = f32p(w[COMB_TABLE] + 4 * _BINS * (codes[0] if codes[0] != SILENT else 0))
    band_of = i64p(w[BAND_OF])
    for frame in range(spectra.FRAMES):
        for k in range(_BINS):
            value = rows[_BINS * frame + k] + np.float32(_DEEPER) * rows[_REST + _BANDS * frame + band_of[k]] * shape[k]
            if not value > np.float32(_LOW) or codes[0] == SILENT:
                value = np.float32(_LOW)
            if value > np.float32(_HIGH):
                value = np.float32(_HIGH)
            fresh[_BINS * frame + k] = value


@inline
def say(state: Any, chosen: Any, stages: Any) -> None:
    """Logarithms of power to ``SAID``, by the codes at ``chosen``, of which so many stages count.

    They are smoothed, and of the frames that lie ``AFTER`` before those of the packet.
    """
    w = i64p(state)
    _tell(state, chosen, stages)
    for frame in range(spectra.FRAMES):
        before = f32p(w[TOLD] + 4 * _BINS * frame)
        here = f32p(w[TOLD] + 4 * _BINS * (frame + 1))
        behind = f32p(w[TOLD] + 4 * _BINS * (frame + 2))
        said = f32p(w[SAID] + 4 * _BINS * frame)
        power = 0.0
        for k in range(_BINS):
            off = (before[k] + here[k] + behind[k]) * np.float32(1.0 / 3.0) - here[k]
            share = np.float32(1.0) - abs(off) / _NEAR
            if share < np.float32(0.0):
                share = np.float32(0.0)
            said[k] = here[k] + share * off
            power += math.exp(np.float64(said[k]))
        level = math.log(power / _BINS)
        f = f64p(state)
        f[LOUDEST] = larger(level, f[LOUDEST] - _FORGET)
        cut = np.float32(_EXPANSION * smaller(larger(f[LOUDEST] - _FREE - level, 0.0), _MOST_CUT))
        for k in range(_BINS):
            said[k] -= cut


@inline
def want(state: Any, frame: Any, amount: Any) -> None:
    """Make frame 0 or 1 of what was said (and, below an ``amount`` of 1, was heard then) the next for `sound`."""
    w = i64p(state)
    said = f32p(w[SAID] + 4 * _BINS * frame)
    wanted = f32p(w[WANTED] + 4 * _ROOM * LOOK)
    re = f32p(w[SLOT_RE] + 4 * _ROOM * LOOK)
    im = f32p(w[SLOT_IM] + 4 * _ROOM * LOOK)
    own_re = f32p(w[OWN_RE] + 4 * _ROOM * frame)
    own_im = f32p(w[OWN_IM] + 4 * _ROOM * frame)
    for k in range(_BINS):
        power = math.exp(np.float64(said[k])) - spectra.FLOOR
        magnitude = np.float32(math.sqrt(power)) if power > 0.0 else np.float32(0.0)
        own = math.sqrt(np.float64(own_re[k]) * own_re[k] + np.float64(own_im[k]) * own_im[k])
        if amount < 1.0:
            magnitude = np.float32(amount * magnitude + (1.0 - amount) * own)
        length = 1.0 / (own + 1e-20)
        re[k] = np.float32(own_re[k] * length)
        im[k] = np.float32(own_im[k] * length)
        wanted[k] = magnitude


@inline
def sound(state: Any, out: Any, amount: Any) -> None:
    """Take the frame that `want` left, and write the `spectra.HOP` samples at ``out`` that lie ``LOOK`` frames back.

    With an ``amount`` below 1 phases are drawn to the sound's own, and at 0 are those.
    """
    w = i64p(state)
    total = f32p(w[TOTAL])
    keep = np.float32(amount)
    own = np.float32(1.0) - keep
    for _ in range(ROUNDS):
        for back in range(_SLOTS):
            slot = LOOK - back
            place = w[TOTAL] + 4 * _HOP * slot
            fft.forward(w[PLAN], place, w[ANALYSIS], w[RE], w[IM], w[SCRATCH])
            re = f32p(w[RE])
            im = f32p(w[IM])
            wanted = f32p(w[WANTED] + 4 * _ROOM * slot)
            own_re = f32p(w[SLOT_RE] + 4 * _ROOM * slot)
            own_im = f32p(w[SLOT_IM] + 4 * _ROOM * slot)
            for k in range(_BINS):
                x = re[k]
                y = im[k]
                length = np.float32(math.sqrt(np.float64(x) * np.float64(x) + np.float64(y) * np.float64(y)))
                if length > np.float32(1e-12):
                    x /= length
                    y /= length
                else:
                    x = np.float32(1.0)
                    y = np.float32(0.0)
                if own > np.float32(0.0):
                    x = keep * x + own * own_re[k]
                    y = keep * y + own * own_im[k]
                    if keep > np.float32(0.0):
                        length = np.float32(math.sqrt(np.float64(x) * np.float64(x) + np.float64(y) * np.float64(y)))
                        x /= length + _TINY
                        y /= length + _TINY
                re[k] = wanted[k] * x
                im[k] = wanted[k] * y
            fft.inverse(w[PLAN], w[RE], w[IM], w[SAMPLES], 0, w[SCRATCH])
            made = f32p(w[SAMPLES])
            window = f32p(w[SYNTHESIS])
            frame = f32p(w[FRAMES] + 4 * _N * slot)
            target = f32p(place)
            for i in range(_N):
                fresh = made[i] * window[i]
                target[i] += fresh - frame[i]
                frame[i] = fresh
    target = f32p(out)
    for i in range(_HOP):
        target[i] = total[i]
    for i in range(_TOTAL):
        total[i] = total[i + _HOP] if i + _HOP < _TOTAL else np.float32(0.0)
    for slot in range(LOOK):
        a = f32p(w[FRAMES] + 4 * _N * slot)
        b = f32p(w[FRAMES] + 4 * _N * (slot + 1))
        for i in range(_N):
            a[i] = b[i]
        for table in range(3):
            rows = w[WANTED] if table == 0 else w[SLOT_RE] if table == 1 else w[SLOT_IM]
            a = f32p(rows + 4 * _ROOM * slot)
            b = f32p(rows + 4 * _ROOM * (slot + 1))
            for k in range(_BINS):
                a[k] = b[k]
    a = f32p(w[FRAMES] + 4 * _N * LOOK)
    for i in range(_N):
        a[i] = 0.0


@inline
def reset(state: Any) -> None:
    """Forget everything heard and said."""
    w = i64p(state)
    initial = f32p(w[INITIAL])
    ear = f32p(w[ARENA])
    mouth = f32p(w[MOUTH])
    for k in range(w[ARENA_FLOATS]):
        ear[k] = initial[k]
        mouth[k] = initial[k]
    total = f32p(w[TOTAL])
    for i in range(_TOTAL):
        total[i] = 0.0
    frames = f32p(w[FRAMES])
    for i in range(_SLOTS * _N):
        frames[i] = 0.0
    for table in range(3):
        rows = f32p(w[WANTED] if table == 0 else w[SLOT_RE] if table == 1 else w[SLOT_IM])
        for k in range(_SLOTS * _ROOM):
            rows[k] = 0.0
    told = f32p(w[TOLD])
    for k in range(2 * _REST):
        told[k] = np.float32(_LOW)
    for table in range(2):
        own = f32p(w[OWN_RE] if table == 0 else w[OWN_IM])
        for k in range(_ROOM * (AFTER + spectra.FRAMES)):
            own[k] = 0.0
    w[LOST_IN_A_ROW] = 0
    f64p(state)[LOUDEST] = _LOW


# --- Building, and whole stretches for Python ------------------------------------------------------------------------


def _padded(floats: int) -> int:
    return -(-floats // 16) * 16


def build(
    net: int, weights: int, initial: np.ndarray, inputs: int, outputs: int, books: np.ndarray,
    *, paths: int = 1, allocate: Allocate = aligned,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Lay out the state of one channel.

    Parameters
    ----------
    net, weights
        Addresses of the lowered net and its weights; whoever calls keeps them alive.
    initial
        What the net's arena holds at first, float32.
    inputs, outputs
        Where in it the net's row and its answer begin, in floats.
    books
        Codebooks (stages, codes, latent), float32.
    paths
        Paths through the codebooks that are followed at once in the search for codes; 1 takes each stage by itself.
    allocate
        Source of zeroed int64 memory that starts at a multiple of 64 bytes, given the number of words.

    Returns
    -------
    tuple of ndarray
        The state, reset, whose address is what the kernels take; and the plan of its transforms, to be kept with it.
    """
    stages, codes, latent = books.shape
    plan = fft.plan(_N, allocate)
    analysis, synthesis = spectra.windows()
    pieces: dict[int, np.ndarray | int] = {
        ARENA: initial,
        MOUTH: initial,
        INITIAL: initial,
        ANALYSIS: analysis,
        SYNTHESIS: synthesis,
        COMB_TABLE: spectra.combs(),
        LIKENESS: spectra.likeness_table(),
        LISTENING: spectra.listening(),
        BOOKS: books,
        NORMS: np.square(books).sum(-1),
        SCRATCH: fft.scratch_floats(_N),
        RE: _ROOM,
        IM: _ROOM,
        LOGS: _REST,
        FINE: _REST,
        LEFT: 2 * paths * latent,
        COSTS: 2 * paths,
        WAYS: 2 * (2 * paths * stages + 2 * paths),
        SAID: _REST,
        TOLD: np.full(2 * _REST, _LOW, np.float32),
        CHOSEN: 2 * (1 + stages),
        TOTAL: _TOTAL + 16,
        FRAMES: _SLOTS * _N,
        WANTED: _SLOTS * _ROOM,
        SAMPLES: _N + 16,
        OWN_RE: (AFTER + spectra.FRAMES) * _ROOM,
        OWN_IM: (AFTER + spectra.FRAMES) * _ROOM,
        SLOT_RE: _SLOTS * _ROOM,
        SLOT_IM: _SLOTS * _ROOM,
        BAND_OF: 2 * _BINS,
    }
    sizes = {word: _padded(piece if isinstance(piece, int) else piece.size) for word, piece in pieces.items()}
    state = allocate(_HEADER + sum(sizes.values()) // 2)
    at = _HEADER
    for word, piece in pieces.items():
        state[word] = state.ctypes.data + 8 * at
        if not isinstance(piece, int):
            state[at : at + sizes[word] // 2].view(np.float32)[: piece.size] = piece.ravel()
        if word == BAND_OF:
            state[at : at + _BINS] = spectra.bands().argmax(0)
        at += sizes[word] // 2
    state[NET], state[WEIGHTS], state[ARENA_FLOATS] = net, weights, initial.size
    state[INPUT], state[OUTPUT] = inputs, outputs
    state[LATENT], state[STAGES], state[CODES], state[PLAN] = latent, stages, codes, plan.ctypes.data
    state[PATHS] = paths
    state.view(np.float64)[LOUDEST] = _LOW
    return state, plan


_words, _floats = types.int64[::1], types.float32[::1]


@kernel(types.void(types.int64, _floats, types.int64, types.int64[:, ::1]))
def hear_all(state: int, x: np.ndarray, stages: int, codes: np.ndarray) -> None:
    """Codes (packets, 1 + stages) of sound whose first packet's frames begin at ``x[0]``; for ``stages`` see `hear`."""
    w = i64p(state)
    for packet in range(codes.shape[0]):
        hear(state, x.ctypes.data + 4 * spectra.PACKET * packet, stages)
        chosen = i64p(w[CHOSEN])
        for k in range(codes.shape[1]):
            codes[packet, k] = chosen[k]


@kernel(types.void(types.int64, types.int64[:, ::1], types.int64, _floats))
def say_all(state: int, codes: np.ndarray, stages: int, out: np.ndarray) -> None:
    """Sound of packets of codes, of which so many stages count; `spectra.PACKET` samples of ``out`` for each."""
    for packet in range(codes.shape[0]):
        say(state, codes.ctypes.data + 8 * codes.shape[1] * packet, stages)
        for frame in range(spectra.FRAMES):
            want(state, frame, 1.0)
            sound(state, out.ctypes.data + 4 * (spectra.PACKET * packet + _HOP * frame), 1.0)


@kernel(types.void(types.int64))
def forget(state: int) -> None:
    """`reset`, from Python."""
    reset(state)
