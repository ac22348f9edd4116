"""The speech codec as an effect: what is left of a sound behind so many bits, and its codes played with."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtgan.codec import model as models
from rtgan.generators import library
from rtgan.kernels import codec, spectra
from rtgan.kernels.native import f32p, f64p, i64p, inline, node, smaller
from rtgan.memory import address_of
from rtgan.params import Param, ParamSet, param_advance
from rtgan.plugin import Activation, NativeNode, Plugin

(
    _CHANNELS, _STRIDE, _STATES, _HISTORY, _OUTPUT, _FILL, _RATE, _FREEZE, _SHUFFLE, _AMOUNT, _TABLE, _KEPT, _WIDTH,
    _STAGES, _PACKETS, _CHOICE, _FRESH,
) = range(17)  # fmt: skip
# Float words: how much of the sound is the codec's, and bits of a stage.
_SHARE, _BITS = 18, 19
_WORDS = 24
_PACKET, _HOP, _HEARD = spectra.PACKET, spectra.HOP, codec.HEARD
#: Packets that a shuffle draws from: 1.28 s.
_MEMORY = 64
#: Packets are complete at 32 samples, 352 and so on: their frames begin at multiples of a packet.
_FIRST_FILL = _PACKET - _HEARD % _PACKET


@inline
def _drawn(number: Any) -> Any:
    """A number in 0..1 that looks drawn (SplitMix64: Steele, Lea and Flood, OOPSLA 2014)."""
    z = np.uint64(number) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.float64((z ^ (z >> np.uint64(31))) >> np.uint64(11)) / 9007199254740992.0


@inline
def _choose(state: Any) -> None:
    """Read the parameters for a packet, and decide whose codes sound: its own, or those of one further back."""
    w = i64p(state)
    f = f64p(state)
    length = float(_PACKET)
    stages = np.int64(param_advance(w[_RATE], length) / f[_BITS] + 0.5)
    w[_STAGES] = 1 if stages < 1 else smaller(stages, w[_WIDTH] - 1)
    frozen = param_advance(w[_FREEZE], length) >= 0.5
    shuffle = param_advance(w[_SHUFFLE], length) / 100.0
    f[_SHARE] = param_advance(w[_AMOUNT], length) / 100.0
    w[_PACKETS] += 1
    # What is frozen stays as it is: nothing new is entered.
    w[_FRESH] = 0 if frozen else 1
    w[_KEPT] = (w[_KEPT] + w[_FRESH]) % _MEMORY
    back = np.int64(0)
    if _drawn(2 * w[_PACKETS]) < shuffle:
        back = np.int64(_drawn(2 * w[_PACKETS] + 1) * _MEMORY)
    w[_CHOICE] = (w[_KEPT] + _MEMORY - back) % _MEMORY


@node
def _process(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f = f64p(state)
    channels = w[_CHANNELS]
    done = 0
    while done < n:
        fill = w[_FILL]
        place = fill % _HOP
        count = smaller(n - done, _HOP - place)
        for c in range(channels):
            samples = f32p(io + 4 * (c * w[_STRIDE] + done))
            history = f32p(w[_HISTORY] + 4 * (_HEARD * c + _HEARD - _PACKET + fill))
            output = f32p(w[_OUTPUT] + 4 * (_HOP * c + place))
            for i in range(count):
                history[i] = samples[i]
                samples[i] = output[i]
        done += count
        fill += count
        if fill == _PACKET:
            fill = 0
            _choose(state)
            for c in range(channels):
                one = i64p(w[_STATES])[c]
                history = f32p(w[_HISTORY] + 4 * _HEARD * c)
                table = w[_TABLE] + 8 * c * _MEMORY * w[_WIDTH]
                codec.hear(one, w[_HISTORY] + 4 * _HEARD * c, w[_STAGES])
                if w[_FRESH] == 1:
                    chosen = i64p(i64p(one)[codec.CHOSEN])
                    kept = i64p(table + 8 * w[_KEPT] * w[_WIDTH])
                    for k in range(w[_WIDTH]):
                        kept[k] = chosen[k]
                codec.say(one, table + 8 * w[_CHOICE] * w[_WIDTH], w[_STAGES])
                for i in range(_HEARD - _PACKET):
                    history[i] = history[i + _PACKET]
        if fill % _HOP == 0:
            for c in range(channels):
                one = i64p(w[_STATES])[c]
                codec.want(one, fill // _HOP, f[_SHARE])
                codec.sound(one, w[_OUTPUT] + 4 * _HOP * c, f[_SHARE])
        w[_FILL] = fill


@node
def _reset(state: int, io: int, n: int) -> None:
    w = i64p(state)
    for c in range(w[_CHANNELS]):
        codec.reset(i64p(w[_STATES])[c])
    history = f32p(w[_HISTORY])
    for i in range(_HEARD * w[_CHANNELS]):
        history[i] = 0.0
    output = f32p(w[_OUTPUT])
    for i in range(_HOP * w[_CHANNELS]):
        output[i] = 0.0
    table = i64p(w[_TABLE])
    for k in range(w[_CHANNELS] * _MEMORY):
        table[k * w[_WIDTH]] = codec.SILENT
    w[_FILL] = _FIRST_FILL
    w[_KEPT] = 0
    w[_PACKETS] = 0
    f64p(state)[_SHARE] = 1.0


class Codec(Plugin):
    """Send a sound through the speech codec and hear what arrives.

    Parameters
    ----------
    model : str
        Name of a shipped model or path of a TorchScript file with a card whose task is "codec".
    """

    id = "codec"
    name = "Codec"
    description = "Play with what a neural speech codec leaves of a sound, its bit rate, frozen and shuffled codes."
    options = frozenset({"model"})
    shed = 3
    rates_hz = (spectra.RATE_HZ,)
    params = ParamSet(
        [
            Param("bitrate", "Bit rate", 0.5, 6.5, 6, unit="kbit/s",
                  description="How many bits describe a voice; the fewer, the less is left of it."),
            Param("freeze", "Freeze", 0, 1, 0, scale="switch",
                  description="Hold the 20 ms that sound, for as long as one likes."),
            Param("shuffle", "Shuffle", 0, 100, 0, unit="%",
                  description="How often 20 ms of the last second sound in place of those that are due."),
            Param("amount", "Amount", 0, 100, 100, unit="%",
                  description="How much of spectrum and phases is the codec's; at 0 the sound is its own."),
        ]
    )  # fmt: skip

    def __init__(self, model: str = "codec") -> None:
        self.model = models.load(model)
        self.notice = "" if model in library.names() else f"model {model}, number {self.model.number:08x}"

    def activate(self, activation: Activation) -> NativeNode:
        """[main] See `rtgan.plugin.Plugin.activate`."""
        arena, channels, model = activation.arena, activation.channels, self.model
        weights = arena.put(model.net.weights)
        built = [model.state(weights, arena.int64) for _ in range(channels)]
        states = arena.int64(channels)
        states[:] = [address_of(state) for state, _ in built]
        words = arena.int64(_WORDS)
        words[_CHANNELS], words[_STRIDE] = channels, activation.stride_samples
        words[_STATES] = address_of(states)
        words[_HISTORY] = address_of(arena.float32(channels, _HEARD))
        words[_OUTPUT] = address_of(arena.float32(channels, _HOP))
        words[_RATE], words[_FREEZE] = activation.params["bitrate"], activation.params["freeze"]
        words[_SHUFFLE], words[_AMOUNT] = activation.params["shuffle"], activation.params["amount"]
        words[_WIDTH] = 1 + model.stages
        table = arena.int64(channels * _MEMORY * (1 + model.stages)).reshape(channels, _MEMORY, 1 + model.stages)
        table[:, :, 0] = codec.SILENT
        words[_TABLE] = address_of(table)
        words[_FILL] = _FIRST_FILL
        floats = words.view(np.float64)
        floats[_SHARE], floats[_BITS] = 1.0, models.stage_bits(model) / (1000 * models.PACKET_S)
        return NativeNode(
            int(_process.address),
            address_of(words),
            int(_reset.address),
            latency_samples=codec.LATENCY,
            tail_samples=4 * spectra.N_FFT,
            settle_samples=spectra.RATE_HZ // 2,
            keep=(model, built),
        )
