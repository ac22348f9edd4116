"""Neural denoiser: a recurrent spectral generator, executed natively frame by frame."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rtgan.errors import RtganError
from rtgan.generators import library
from rtgan.kernels import stft
from rtgan.kernels.native import call_net, call_node, f32p, f64p, i64p, inline, larger, node, smaller
from rtgan.memory import address_of
from rtgan.params import Param, ParamSet, param_advance
from rtgan.plugin import Activation, NativeNode, Plugin
from rtgan.plugins.gain import apply_gain_db

(
    _CHANNELS, _STRIDE, _STFT, _NET, _WEIGHTS, _ARENAS, _ARENA_BYTES, _ARENA_FLOATS, _INITIAL, _INPUT, _OUTPUT,
    _VOICE, _BINS, _BINS_STRIDE, _SPECTRUM_STRIDE, _LOOKAHEAD, _DELAYED, _AMOUNT, _SENSITIVITY, _LINK, _POST_GAIN,
    _HOP, _STFT_RESET, _LANE, _LEAN, _TURN, _GAINS,
) = range(27)  # fmt: skip
# Float words: share of the input that stays, excess of the exponent over 1, share of the common gain, all for the
# frame at hand; and the chance that somebody speaks, for whoever reads it.
_KEEP, _EXCESS, _LINKED, _CHANCE = range(28, 32)
# What becomes of a frame: an answer of its own; one whose gains are kept; that one's gains again.
_FULL, _KEEPS, _REPEAT = range(3)
_DB = math.log(10.0) / 20.0
_TINY = np.float32(1e-20)


@inline
def _sharpen(re: Any, im: Any, in_re: Any, in_im: Any, bins: Any, excess: Any) -> None:
    """Raise the magnitude of every gain below 1 to the power ``1 + excess``."""
    for k in range(bins):
        given = in_re[k] * in_re[k] + in_im[k] * in_im[k]
        left = re[k] * re[k] + im[k] * im[k]
        if left < given:
            ratio = np.float32(math.exp(0.5 * excess * math.log(np.float64(left + _TINY) / np.float64(given + _TINY))))
            re[k] *= ratio
            im[k] *= ratio


@inline
def _hold(state: Any, channel: Any, old: Any) -> None:
    """Keep the gains of an answer for the next frame: real ones, as only these last for longer than a frame."""
    w = i64p(state)
    bins = w[_BINS]
    x = f32p(old)
    y = f32p(w[_ARENAS] + channel * w[_ARENA_BYTES] + 4 * w[_OUTPUT])
    gains = f32p(w[_GAINS] + 4 * channel * bins)
    for k in range(bins):
        along = y[k] * x[k] + y[bins + k] * x[bins + k]
        gain = along / (x[k] * x[k] + x[bins + k] * x[bins + k] + _TINY)
        gains[k] = smaller(larger(gain, np.float32(0.0)), np.float32(1.0))


@inline
def _repeat(state: Any, channel: Any, old: Any) -> None:
    """Answer with the gains of the frame before."""
    w = i64p(state)
    bins = w[_BINS]
    x = f32p(old)
    y = f32p(w[_ARENAS] + channel * w[_ARENA_BYTES] + 4 * w[_OUTPUT])
    gains = f32p(w[_GAINS] + 4 * channel * bins)
    for k in range(bins):
        y[k] = gains[k] * x[k]
        y[bins + k] = gains[k] * x[bins + k]


@inline
def _alike(state: Any, ring_bytes: Any, old: Any) -> Any:
    """Whether all channels carry the same frame; their answers are then the same too, to the bit."""
    w = i64p(state)
    first = f32p(w[_DELAYED] + old)
    for c in range(1, w[_CHANNELS]):
        x = f32p(w[_DELAYED] + c * ring_bytes + old)
        for k in range(2 * w[_BINS]):
            if x[k] != first[k]:
                return False
    return True


@inline
def _link(state: Any, ring_bytes: Any, old: Any) -> None:
    """Move every channel's answer towards one complex gain for all of them, which leaves the image in place.

    It is the gain that fits all answers best in the least squares.
    """
    w = i64p(state)
    bins = w[_BINS]
    linked = np.float32(f64p(state)[_LINKED])
    own = np.float32(1.0) - linked
    for k in range(bins):
        power = _TINY
        gain_re = np.float32(0.0)
        gain_im = np.float32(0.0)
        for c in range(w[_CHANNELS]):
            x = f32p(w[_DELAYED] + c * ring_bytes + old)
            y = f32p(w[_ARENAS] + c * w[_ARENA_BYTES] + 4 * w[_OUTPUT])
            power += x[k] * x[k] + x[bins + k] * x[bins + k]
            gain_re += y[k] * x[k] + y[bins + k] * x[bins + k]
            gain_im += y[bins + k] * x[k] - y[k] * x[bins + k]
        gain_re *= linked / power
        gain_im *= linked / power
        for c in range(w[_CHANNELS]):
            x = f32p(w[_DELAYED] + c * ring_bytes + old)
            y = f32p(w[_ARENAS] + c * w[_ARENA_BYTES] + 4 * w[_OUTPUT])
            y[k] = y[k] * own + gain_re * x[k] - gain_im * x[bins + k]
            y[bins + k] = y[bins + k] * own + gain_re * x[bins + k] + gain_im * x[k]


@node
def _spectrum(state: int, spectrum: int, channel: int) -> None:
    """Spectral callback: the generator on one channel's frame; at the last one, what is made of its answers."""
    w = i64p(state)
    f = f64p(state)
    bins = w[_BINS]
    re = f32p(spectrum)
    im = f32p(spectrum + 4 * w[_BINS_STRIDE])
    if channel == 0:
        hop = float(w[_HOP])
        f[_KEEP] = math.exp(-param_advance(w[_AMOUNT], hop) * _DB)
        f[_EXCESS] = math.exp(param_advance(w[_SENSITIVITY], hop) * math.log(2.0) / 50.0) - 1.0
        f[_LINKED] = param_advance(w[_LINK], hop)
        f[_CHANCE] = 0.0
        # With less time every other frame is answered like the one before.
        if i64p(w[_LEAN])[0] == 0:
            w[_TURN] = _FULL
        else:
            w[_TURN] = _REPEAT if w[_TURN] == _KEEPS else _KEEPS
    arena = w[_ARENAS] + channel * w[_ARENA_BYTES]
    if w[_TURN] != _REPEAT:
        into = f32p(arena + 4 * w[_INPUT])
        for k in range(bins):
            into[k] = re[k]
            into[bins + k] = im[k]
        call_net(w[_NET], arena, w[_WEIGHTS])
    out = f32p(arena + 4 * w[_OUTPUT])
    if w[_VOICE] >= 0:
        f[_CHANCE] = larger(f[_CHANCE], float(f32p(arena + 4 * w[_VOICE])[0]))
    # The generator answers for the frame `lookahead` hops ago: what stays of the input must be of that frame.
    slots = w[_LOOKAHEAD] + 1
    frame = stft.frame_index(spectrum)
    ring = w[_DELAYED] + channel * slots * 8 * bins
    newest = f32p(ring + (frame % slots) * 8 * bins)
    for k in range(bins):
        newest[k] = re[k]
        newest[bins + k] = im[k]
    old = (frame + 1) % slots * 8 * bins
    if w[_TURN] == _KEEPS:
        _hold(state, channel, ring + old)
    elif w[_TURN] == _REPEAT:
        _repeat(state, channel, ring + old)
    if f[_EXCESS] != 0.0:
        delayed = f32p(ring + old)
        _sharpen(out, f32p(arena + 4 * (w[_OUTPUT] + bins)), delayed, f32p(ring + old + 4 * bins), bins, f[_EXCESS])
    channels = w[_CHANNELS]
    if channel < channels - 1:
        return
    if channels > 1 and f[_LINKED] > 0.0 and not _alike(state, slots * 8 * bins, old):
        _link(state, slots * 8 * bins, old)
    keep = np.float32(f[_KEEP])
    change = np.float32(1.0) - keep
    for c in range(channels):
        target = spectrum + (c - channel) * w[_SPECTRUM_STRIDE]
        re = f32p(target)
        im = f32p(target + 4 * w[_BINS_STRIDE])
        x = f32p(w[_DELAYED] + c * slots * 8 * bins + old)
        y = f32p(w[_ARENAS] + c * w[_ARENA_BYTES] + 4 * w[_OUTPUT])
        for k in range(bins):
            re[k] = x[k] * keep + y[k] * change
            im[k] = x[bins + k] * keep + y[bins + k] * change


@node
def _process(state: int, io: int, n: int) -> None:
    w = i64p(state)
    f = f64p(state)
    lane = f32p(w[_LANE])
    start = 0
    while start < n:
        # Up to the end of a hop at most, where the next frame is computed: what it says holds from there on.
        count = smaller(n - start, w[_HOP] - i64p(w[_STFT])[stft.FILL])
        chance = np.float32(f[_CHANCE])
        for i in range(start, start + count):
            lane[i] = chance
        stft.process(w[_STFT], io + 4 * start, count)
        start += count
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
    f64p(state)[_CHANCE] = 0.0
    w[_TURN] = _FULL
    lane = f32p(w[_LANE])
    for i in range(w[_STRIDE]):
        lane[i] = -1.0


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
    shed = 1
    params = ParamSet(
        [
            Param("amount_db", "Amount", 0, 100, 100, unit="dB",
                  description="Most that noise is turned down; less sounds more natural."),
            Param("sensitivity", "Sensitivity", -50, 50, 0,
                  description="How readily sound counts as noise; 50 squares every gain, -50 takes its root."),
            Param("link", "Link channels", 0, 1, 1, scale="switch",
                  description="One gain for both channels of a stereo sound, so that its image stays in place."),
            Param("post_gain_db", "Post gain", -24, 24, 0, unit="dB", description="Level behind the denoiser."),
        ]
    )  # fmt: skip

    def __init__(self, model: str = "voice") -> None:
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
        lean = arena.int64(1)
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
        words[_VOICE] = net.outputs[2].offset if len(net.outputs) > 2 else -1
        words[_BINS], words[_BINS_STRIDE] = bins, transform.bins_stride
        words[_SPECTRUM_STRIDE] = transform.spectrum_stride
        words[_LOOKAHEAD], words[_DELAYED] = card.lookahead_frames, address_of(delayed)
        words[_AMOUNT], words[_SENSITIVITY] = activation.params["amount_db"], activation.params["sensitivity"]
        words[_LINK], words[_POST_GAIN] = activation.params["link"], activation.params["post_gain_db"]
        words[_HOP] = card.hop_samples
        words[_LEAN], words[_GAINS] = address_of(lean), address_of(arena.float32(channels, bins))
        lane = arena.float32(activation.stride_samples)
        lane[:] = -1
        words[_LANE] = address_of(lane)
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
            readings={"voice": address_of(words) + 8 * _CHANCE} if words[_VOICE] >= 0 else {},
            lanes={"voice": address_of(lane)} if words[_VOICE] >= 0 else {},
            lean=address_of(lean),
            keep=(net, transform),
        )
