"""Neural denoiser: a recurrent spectral generator, executed natively frame by frame."""

from __future__ import annotations

import math

import numpy as np

from rtgan.errors import RtganError
from rtgan.generators import library
from rtgan.kernels import stft
from rtgan.kernels.native import call_net, call_node, f32p, f64p, i64p, node
from rtgan.memory import address_of
from rtgan.params import Param, ParamSet, param_advance
from rtgan.plugin import Activation, NativeNode, Plugin
from rtgan.plugins.gain import apply_gain_db

(
    _CHANNELS, _STRIDE, _STFT, _NET, _WEIGHTS, _ARENAS, _ARENA_BYTES, _ARENA_FLOATS, _INITIAL, _INPUT, _OUTPUT,
    _BINS, _BINS_STRIDE, _LOOKAHEAD, _DELAYED, _AMOUNT, _POST_GAIN, _HOP, _STFT_RESET,
) = range(19)  # fmt: skip
_KEEP = 24  # float word: share of the input that stays, for the frame at hand
_DB = math.log(10.0) / 20.0


@node
def _spectrum(state: int, spectrum: int, channel: int) -> None:
    """Spectral callback: the generator on one channel's frame, then the limit on its attenuation."""
    w = i64p(state)
    bins = w[_BINS]
    re = f32p(spectrum)
    im = f32p(spectrum + 4 * w[_BINS_STRIDE])
    if channel == 0:
        f64p(state)[_KEEP] = math.exp(-param_advance(w[_AMOUNT], float(w[_HOP])) * _DB)
    keep = np.float32(f64p(state)[_KEEP])
    arena = w[_ARENAS] + channel * w[_ARENA_BYTES]
    into = f32p(arena + 4 * w[_INPUT])
    for k in range(bins):
        into[k] = re[k]
        into[bins + k] = im[k]
    call_net(w[_NET], arena, w[_WEIGHTS])
    out = f32p(arena + 4 * w[_OUTPUT])
    # The generator answers for the frame `lookahead` hops ago: what stays of the input must be of that frame.
    lookahead = w[_LOOKAHEAD]
    slots = lookahead + 1
    frame = stft.frame_index(spectrum)
    ring = w[_DELAYED] + channel * slots * 8 * bins
    newest = f32p(ring + (frame % slots) * 8 * bins)
    delayed = f32p(ring + ((frame + 1) % slots) * 8 * bins)
    for k in range(bins):
        newest[k] = re[k]
        newest[bins + k] = im[k]
    change = np.float32(1.0) - keep
    for k in range(bins):
        re[k] = delayed[k] * keep + out[k] * change
        im[k] = delayed[bins + k] * keep + out[bins + k] * change


@node
def _process(state: int, io: int, n: int) -> None:
    w = i64p(state)
    stft.process(w[_STFT], io, n)
    apply_gain_db(w[_POST_GAIN], io, w[_STRIDE], w[_CHANNELS], n)


@node
def _reset(state: int, io: int, n: int) -> None:
    w = i64p(state)
    call_node(w[_STFT_RESET], w[_STFT], 0, 0)
    initial = f32p(w[_INITIAL])
    for c in range(w[_CHANNELS]):
        arena = f32p(w[_ARENAS] + c * w[_ARENA_BYTES])
        for k in range(w[_ARENA_FLOATS]):
            arena[k] = initial[k]
    delayed = f32p(w[_DELAYED])
    for k in range(w[_CHANNELS] * (w[_LOOKAHEAD] + 1) * 2 * w[_BINS]):
        delayed[k] = 0.0


class Denoise(Plugin):
    """Take noise away and leave the voice.

    Parameters
    ----------
    model : str
        Name of a shipped model or path of a TorchScript file with a card whose task is "denoise".
    """

    id = "denoise"
    name = "Denoise"
    description = "Take noise away and leave the voice, with a neural generator run frame by frame."
    options = frozenset({"model"})
    params = ParamSet(
        [
            Param("amount_db", "Amount", 0, 100, 100, unit="dB",
                  description="Most that noise is turned down; less sounds more natural."),
            Param("post_gain_db", "Post gain", -24, 24, 0, unit="dB", description="Level behind the denoiser."),
        ]
    )  # fmt: skip

    def __init__(self, model: str = "denoise-podcast") -> None:
        self.model = library.load(model)
        card = self.model.card
        if card.task != "denoise" or card.channels != 1:
            raise RtganError(f"the model {model} is for '{card.task}' and cannot denoise")
        self.rates_hz = (card.sample_rate_hz,)
        self.notice = "" if model in library.names() else f"model {self.model.path}, sha256 {card.sha256}"

    def activate(self, activation: Activation) -> NativeNode:
        """[main] See `rtgan.plugin.Plugin.activate`."""
        card, net = self.model.card, self.model.net
        if not (net.inputs[0].contiguous and net.outputs[0].contiguous):
            raise RtganError(f"the model {self.model.path} does not lay its frames out in order")
        arena, channels, bins = activation.arena, activation.channels, card.bins
        words = arena.int64(32)
        transform = stft.build(
            card.n_fft,
            card.hop_samples,
            card.synthesis_samples,
            channels,
            activation.stride_samples,
            callback=int(_spectrum.address),
            user_state=address_of(words),
            allocate=arena.int64,
        )
        size = -(-net.arena_floats // 16) * 16
        arenas = arena.float32(channels, size)
        arenas[:, : net.arena_floats] = net.initial_arena
        delayed = arena.float32(channels, card.lookahead_frames + 1, 2, bins)
        words[_CHANNELS], words[_STRIDE] = channels, activation.stride_samples
        words[_STFT], words[_STFT_RESET] = transform.address, int(stft.stft_reset.address)
        words[_NET], words[_WEIGHTS] = net.address, arena.put(net.weights)
        words[_ARENAS], words[_ARENA_BYTES], words[_ARENA_FLOATS] = address_of(arenas), 4 * size, net.arena_floats
        words[_INITIAL] = arena.put(net.initial_arena)
        words[_INPUT], words[_OUTPUT] = net.inputs[0].offset, net.outputs[0].offset
        words[_BINS], words[_BINS_STRIDE] = bins, transform.bins_stride
        words[_LOOKAHEAD], words[_DELAYED] = card.lookahead_frames, address_of(delayed)
        words[_AMOUNT], words[_POST_GAIN] = activation.params["amount_db"], activation.params["post_gain_db"]
        words[_HOP] = card.hop_samples
        latency = transform.latency_samples + card.lookahead_frames * card.hop_samples
        if latency != card.latency_samples:
            raise RtganError(f"the model {self.model.path} declares {card.latency_samples} samples, but has {latency}")
        return NativeNode(
            int(_process.address),
            address_of(words),
            int(_reset.address),
            latency_samples=latency,
            # A frame's length for the transform, as much again for a generator that looks back over frames.
            tail_samples=2 * card.n_fft,
            settle_samples=card.sample_rate_hz,
            keep=(net, transform),
        )
