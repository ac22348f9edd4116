"""What is sounding now: a recogniser that listens and leaves every sample as it is.

The sum of the channels is heard in frames of 40 ms, one every 20 ms, whose frequencies lie about 25 Hz apart at any
sample rate. Each goes through the net as soon as it is whole; with every fifth, so every 100 ms, the mean probabilities
of the five become readings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rtgan.errors import RtganError, UsageError
from rtgan.generators import library
from rtgan.generators.card import ANSWERS, MAINLY
from rtgan.kernels import stft
from rtgan.kernels.native import call_net, call_node, f32p, f64p, i64p, node, smaller
from rtgan.memory import address_of
from rtgan.params import Param, ParamSet, param_advance
from rtgan.plugin import Activation, NativeNode, Plugin

(
    _CHANNELS, _STRIDE, _STFT, _STFT_RESET, _MONO, _NET, _WEIGHTS, _ARENA, _ARENA_FLOATS, _INITIAL, _INPUT, _OUTPUT,
    _BINS, _NET_BINS, _BINS_STRIDE, _LABELS, _SUMS, _SHOWN, _FRAMES, _STEP_FRAMES, _THRESHOLD, _STEP_SAMPLES,
    _RANKS,
) = range(23)  # fmt: skip
_WORDS = 24
#: Place of the reading that names the loudest label, behind those of the labels.
NONE = -1.0
STEP_S = 0.1
#: How a label may be named: before others, where none of these is sure enough, or never.
_EXACT, _GENERAL, _BESIDE = 0.0, 1.0, 2.0
_GENERAL_LABELS = ("noise", "music")
#: Beyond full scale by 40 dB: no sound.
_ABSURD = np.float32(100.0)


@node
def _listen(state: int, spectrum: int, channel: int) -> None:
    """Spectral callback: one frame through the net; every so many the means are shown."""
    w = i64p(state)
    re = f32p(spectrum)
    im = f32p(spectrum + 4 * w[_BINS_STRIDE])
    into = f32p(w[_ARENA] + 4 * w[_INPUT])
    bins = w[_NET_BINS]
    for k in range(smaller(bins, w[_BINS])):
        into[k] = re[k]
        into[bins + k] = im[k]
    call_net(w[_NET], w[_ARENA], w[_WEIGHTS])
    out = f32p(w[_ARENA] + 4 * w[_OUTPUT])
    sums = f64p(w[_SUMS])
    labels = w[_LABELS]
    for k in range(labels):
        sums[k] += np.float64(out[k])
    w[_FRAMES] += 1
    if w[_FRAMES] < w[_STEP_FRAMES]:
        return
    w[_FRAMES] = 0
    threshold = param_advance(w[_THRESHOLD], float(w[_STEP_SAMPLES]))
    shown = f64p(w[_SHOWN])
    rank = f32p(w[_RANKS])
    share = 1.0 / float(w[_STEP_FRAMES])
    best = np.int64(-1)
    best_general = np.int64(-1)
    for k in range(labels):
        chance = sums[k] * share
        shown[k] = chance
        sums[k] = 0.0
        if chance >= threshold and rank[k] != _BESIDE:
            if rank[k] == _GENERAL:
                if best_general < 0 or chance > shown[best_general]:
                    best_general = np.int64(k)
            elif best < 0 or chance > shown[best]:
                best = np.int64(k)
    shown[labels] = float(best if best >= 0 else best_general)


@node
def _process(state: int, io: int, n: int) -> None:
    w = i64p(state)
    mono = f32p(w[_MONO])
    share = np.float32(1.0 / w[_CHANNELS])
    for i in range(n):
        total = np.float32(0.0)
        for c in range(w[_CHANNELS]):
            total += f32p(io + 4 * c * w[_STRIDE])[i] * share
        mono[i] = total if -_ABSURD < total < _ABSURD else np.float32(0.0)
    stft.process(w[_STFT], w[_MONO], n)


@node
def _reset(state: int, io: int, n: int) -> None:
    w = i64p(state)
    call_node(w[_STFT_RESET], w[_STFT], 0, 0)
    arena = f32p(w[_ARENA])
    initial = f32p(w[_INITIAL])
    for k in range(w[_ARENA_FLOATS]):
        arena[k] = initial[k]
    sums = f64p(w[_SUMS])
    shown = f64p(w[_SHOWN])
    for k in range(w[_LABELS]):
        sums[k] = 0.0
        shown[k] = 0.0
    shown[w[_LABELS]] = NONE
    w[_FRAMES] = 0


def _rank(label: str) -> float:
    return _BESIDE if label.startswith(MAINLY) else _GENERAL if label in _GENERAL_LABELS else _EXACT


def frame_samples(sample_rate_hz: int, hertz: float) -> int:
    """Length of a frame whose frequencies lie nearest to ``hertz`` apart, of those that the transform knows."""
    aim = sample_rate_hz / hertz / 16
    most = int(2 * aim) + 4
    known = {a * b * c for a in _powers(2, most) for b in _powers(3, most) for c in _powers(5, most)}
    return 16 * min(known, key=lambda size: (abs(size - aim), size))


def _powers(base: int, most: int) -> list[int]:
    found = [1]
    while found[-1] * base <= most:
        found.append(found[-1] * base)
    return found


class Tags(Plugin):
    """Tell what is sounding, and pass it on untouched.

    Readings are the probability of each of the model's labels, 0 to 1, and ``tag``: the place among them of the label
    that is named now, -1 for none; what is mainly heard is not named, but told beside it. They are about as many frames
    ago as the model's card says.

    Parameters
    ----------
    model : str
        Name of a shipped model or path of a TorchScript file with a card whose task is "tags".
    answer : str
        "soon", or "late" for what a model says once it has heard more of what followed, where it says such a thing.
    """

    id = "tags"
    name = "Tags"
    description = "Tell what is sounding now, speech, music or kinds of noise, and pass it on untouched."
    options = frozenset({"model", "answer"})
    params = ParamSet(
        [
            Param("threshold", "Threshold", 0.05, 0.95, 0.5, smoothing_ms=0,
                  description="Probability from which a sound is named."),
        ]
    )  # fmt: skip

    def __init__(self, model: str = "tags", answer: str = ANSWERS[0]) -> None:
        self.variant({"answer": answer}, load=False)
        self.model = library.load(model)
        card = self.model.card
        if card.task != "tags" or card.channels != 1:
            raise RtganError(f"the model {model} is for '{card.task}' and cannot recognise sounds")
        self.late = answer == ANSWERS[1]
        if self.late and not card.late_frames:
            raise RtganError(f"the model {model} has no late answer")
        self.notice = "" if model in library.names() else f"model {self.model.path}, sha256 {card.sha256}"

    @classmethod
    def variant(cls, options: Mapping[str, str], load: bool) -> type[Plugin]:
        """See `rtgan.plugin.Plugin.variant`; an answer that there is not is refused where a preset is read."""
        answer = options.get("answer", ANSWERS[0])
        if answer not in ANSWERS:
            raise UsageError(f"there is no answer '{answer[:40]}'; allowed: {', '.join(ANSWERS)}")
        return cls

    @classmethod
    def reading_names(cls, options: Any) -> tuple[str, ...]:
        """See `rtgan.plugin.Plugin.reading_names`."""
        return (*library.card_of(options.get("model", "tags")).labels, "tag")

    def activate(self, activation: Activation) -> NativeNode:
        """[main] See `rtgan.plugin.Plugin.activate`."""
        card, net = self.model.card, self.model.net
        if not (net.inputs[0].contiguous and net.outputs[0].contiguous):
            raise RtganError(f"the model {self.model.path} does not lay its frames out in order")
        arena, rate = activation.arena, activation.sample_rate_hz
        n_fft = frame_samples(rate, card.sample_rate_hz / card.n_fft)
        hop = round(rate * card.hop_samples / card.sample_rate_hz)
        # A Hann window of the same sum as the card's: a tone is as strong in its frame at any rate.
        window = stft.sqrt_hann(n_fft) ** 2 * np.float32(card.n_fft / n_fft)
        words = arena.int64(_WORDS)
        transform = stft.build(
            n_fft,
            hop,
            hop,
            1,
            activation.stride_samples,
            callback=int(_listen.address),
            user_state=address_of(words),
            windows=(window, np.zeros_like(window)),
            allocate=arena.int64,
        )
        memory = arena.float32(net.arena_floats)
        memory[:] = net.initial_arena
        shown = arena.float64(len(card.labels) + 1)
        shown[-1] = NONE
        words[_CHANNELS], words[_STRIDE] = activation.channels, activation.stride_samples
        words[_STFT], words[_STFT_RESET] = transform.address, int(stft.stft_reset.address)
        words[_MONO] = address_of(arena.float32(activation.stride_samples))
        words[_NET], words[_WEIGHTS] = net.address, arena.put(net.weights)
        words[_ARENA], words[_ARENA_FLOATS] = address_of(memory), net.arena_floats
        words[_INITIAL] = arena.put(net.initial_arena)
        words[_INPUT], words[_OUTPUT] = net.inputs[0].offset, net.outputs[0].offset
        if self.late:
            words[_OUTPUT] += len(card.labels)
        words[_BINS], words[_NET_BINS], words[_BINS_STRIDE] = transform.bins, card.bins, transform.bins_stride
        words[_LABELS] = len(card.labels)
        words[_SUMS], words[_SHOWN] = address_of(arena.float64(len(card.labels))), address_of(shown)
        words[_STEP_FRAMES] = max(1, round(STEP_S * rate / hop))
        words[_STEP_SAMPLES] = words[_STEP_FRAMES] * hop
        words[_THRESHOLD] = activation.params["threshold"]
        words[_RANKS] = arena.put(np.array([_rank(label) for label in card.labels], np.float32))
        readings = {name: address_of(shown) + 8 * k for k, name in enumerate((*card.labels, "tag"))}
        return NativeNode(
            int(_process.address),
            address_of(words),
            int(_reset.address),
            settle_samples=rate,
            readings=readings,
            keep=(net, transform),
        )
