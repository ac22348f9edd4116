"""Windows, and a streaming short-time Fourier transform as a node of the audio thread.

The adapter turns blocks of any size into frames and back. Frame ``t`` covers the input samples
``[(t + 1) hop - n_fft, (t + 1) hop)``, with silence before the start. Its spectrum is handed to a callback
that changes it in place; what comes back overlap-adds over the last ``synthesis_samples`` of the frame. The
latency is exactly ``synthesis_samples``, whatever the block size, and the samples do not depend on the block
size by a single bit.

A spectral callback is a node, ``void (int64 user_state, int64 spectrum, int64 channel)``:

- ``user_state`` is the word given to `build`;
- ``spectrum`` is the address of ``bins = n_fft/2 + 1`` float32 real parts; the imaginary parts follow at
  ``spectrum + 4 * bins_stride``, the next channel's spectrum at ``spectrum + spectrum_stride`` bytes;
- all channels are analysed before the first call and resynthesised after the last one, so that a callback
  that links channels may do all its work at channel 0;
- the frame's number since reset is the int64 at ``spectrum - 8`` (`frame_index`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import fft
from .fft import Allocate, aligned, check_size
from .native import call_node, f32p, i64p, inline, node, smaller
from .vector import LANES, Vectors, emitted

Floats = NDArray[np.float32]

# --- Windows ---------------------------------------------------------------------------------------------------


def _hann(n: int) -> NDArray[np.float64]:
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n))


def sqrt_hann(n: int) -> Floats:
    """Square root of the periodic Hann window of ``n`` samples."""
    return np.sqrt(_hann(n)).astype(np.float32)


def wola_windows(n_fft: int, hop_samples: int, analysis: Floats | None = None) -> tuple[Floats, Floats]:
    """Analysis window and the synthesis window that reconstructs perfectly with it at any hop.

    Parameters
    ----------
    n_fft
        Frame length in samples.
    hop_samples
        Samples between frames, at most ``n_fft``.
    analysis
        ``n_fft`` gains; the square root of a Hann window by default.

    Returns
    -------
    tuple of ndarray
        ``(analysis, synthesis)``, float32, ``n_fft`` each; the synthesis window is the analysis window over
        the sum of its shifted squares (Griffin and Lim, 1984).

    Raises
    ------
    ValueError
        When the window leaves a sample uncovered at this hop.
    """
    if not 1 <= hop_samples <= n_fft:
        raise ValueError(f"hop_samples is {hop_samples} but must lie between 1 and n_fft ({n_fft})")
    window = np.sqrt(_hann(n_fft)) if analysis is None else np.asarray(analysis, np.float64)
    if window.shape != (n_fft,):
        raise ValueError(f"the analysis window has shape {window.shape} but must have ({n_fft},)")
    frames = -(-n_fft // hop_samples)
    squares = np.zeros(frames * hop_samples)
    squares[:n_fft] = window**2
    power = squares.reshape(frames, hop_samples).sum(axis=0)
    if power.min() < 1e-3 * power.max():
        raise ValueError(f"a hop of {hop_samples} samples leaves samples uncovered by this window of {n_fft}")
    synthesis = window / np.tile(power, frames)[:n_fft]
    return window.astype(np.float32), synthesis.astype(np.float32)


def dual_windows(n_fft: int, hop_samples: int, synthesis_samples: int) -> tuple[Floats, Floats]:
    """Long analysis and short synthesis window whose product overlap-adds to one.

    Mauler and Martin, "A low delay, variable resolution, perfect reconstruction spectral analysis-synthesis
    system for speech enhancement", EUSIPCO 2007.

    Parameters
    ----------
    n_fft
        Frame length in samples.
    hop_samples
        Samples between frames.
    synthesis_samples
        Length of the synthesis window, on the last samples of the frame, which is the latency: even, a
        multiple of the hop, at least twice the hop and at most ``n_fft``.

    Returns
    -------
    tuple of ndarray
        ``(analysis, synthesis)``, float32, ``n_fft`` each; the synthesis window begins with zeros.

    Raises
    ------
    ValueError
        When the lengths do not fit each other.
    """
    hop, short = hop_samples, synthesis_samples
    if hop < 1 or short % hop or short < 2 * hop or short % 2:
        raise ValueError(
            f"synthesis_samples is {short} but must be even and a multiple of hop_samples ({hop}), twice or more"
        )
    if short > n_fft:
        raise ValueError(f"synthesis_samples is {short} but must not exceed n_fft ({n_fft})")
    fall = short // 2
    rise = n_fft - fall
    analysis = np.empty(n_fft)
    analysis[:rise] = np.sqrt(_hann(2 * rise)[:rise])
    analysis[rise:] = np.sqrt(_hann(short)[fall:])
    product = _hann(short) * (2 * hop / short)
    tail = analysis[n_fft - short :]
    synthesis = np.zeros(n_fft)
    np.divide(product, tail, out=synthesis[n_fft - short :], where=tail > 0)
    return analysis.astype(np.float32), synthesis.astype(np.float32)


# --- The state: words of an int64 block ------------------------------------------------------------------------

#: Address of the transform's plan; frame, hop and synthesis lengths in samples; channels.
PLAN, N_FFT, HOP, SYNTHESIS, CHANNELS = 0, 1, 2, 3, 4
#: Float32 from one channel of ``io`` to the next.
IO_STRIDE = 5
#: Address of the spectral callback (0: none) and the word handed to it.
CALLBACK, USER_STATE = 6, 7
#: Frames since reset, samples since the last frame (0 .. hop-1), place in the history (0 .. n_fft-1).
FRAME, FILL, PLACE = 8, 9, 10
#: Addresses of the windows (n_fft and synthesis_samples, both padded with zeros).
ANALYSIS_WINDOW, SYNTHESIS_WINDOW = 11, 12
#: Addresses of the first channel's history and output, and bytes to the next channel's.
HISTORY, HISTORY_STRIDE, OUTPUT, OUTPUT_STRIDE = 13, 14, 15, 16
#: Address of the first channel's spectrum, bytes to the next one, float32 from real to imaginary parts.
SPECTRUM, SPECTRUM_STRIDE, BINS_STRIDE = 17, 18, 19
#: Addresses of one resynthesised frame and of the transform's scratch.
SAMPLES, SCRATCH = 20, 21
#: Bytes of history and output of all channels together.
HISTORY_BYTES, OUTPUT_BYTES = 22, 23
_HEADER = 24


@emitted(5)
def _overlap(v: Vectors, output: Any, hop: Any, samples: Any, window: Any, count: Any) -> None:
    """``output[i] = output[i + hop] + samples[i] * window[i]``: shift by a hop and add a frame, in place."""
    with v.loop(v.word(0), count, v.word(LANES)) as i:
        product = v.mul(v.load(samples, i), v.load(window, i))
        v.store(v.add(v.load(output, v.builder.add(i, hop)), product), output, i)


@emitted(4)
def _clear(v: Vectors, start: Any, count: Any, unused: Any, unused_too: Any) -> None:
    """Write ``count`` zeros, a multiple of 8."""
    with v.loop(v.word(0), count, v.word(LANES)) as i:
        v.store(v.constant(0), start, i)


@inline
def frame_index(spectrum: int) -> int:
    """Return the number of the frame since reset, from the address that a spectral callback gets."""
    return i64p(spectrum)[-1]  # type: ignore[no-any-return]


@inline
def _frame(state: int) -> None:
    s = i64p(state)
    re_to_im = 4 * s[BINS_STRIDE]
    for channel in range(s[CHANNELS]):
        spectrum = s[SPECTRUM] + channel * s[SPECTRUM_STRIDE]
        newest = s[HISTORY] + channel * s[HISTORY_STRIDE] + 4 * s[PLACE]
        fft.forward(s[PLAN], newest, s[ANALYSIS_WINDOW], spectrum, spectrum + re_to_im, s[SCRATCH])
        i64p(spectrum)[-1] = s[FRAME]
    if s[CALLBACK] != 0:
        for channel in range(s[CHANNELS]):
            call_node(s[CALLBACK], s[USER_STATE], s[SPECTRUM] + channel * s[SPECTRUM_STRIDE], channel)
    first = s[N_FFT] - s[SYNTHESIS]
    for channel in range(s[CHANNELS]):
        spectrum = s[SPECTRUM] + channel * s[SPECTRUM_STRIDE]
        output = s[OUTPUT] + channel * s[OUTPUT_STRIDE]
        fft.inverse(s[PLAN], spectrum, spectrum + re_to_im, s[SAMPLES], first, s[SCRATCH])
        _overlap(output, s[HOP], s[SAMPLES] + 4 * first, s[SYNTHESIS_WINDOW], s[SYNTHESIS])
    s[FRAME] += 1


@inline
def process(state: int, io: int, n: int) -> None:
    """Run ``n`` samples of each channel through the adapter, in place; for use inside nodes."""
    s = i64p(state)
    n_fft, hop = s[N_FFT], s[HOP]
    done = 0
    while done < n:
        fill, place = s[FILL], s[PLACE]
        # The history is written twice, n_fft apart, so that every frame lies in one piece.
        count = smaller(smaller(n - done, hop - fill), n_fft - place)
        for channel in range(s[CHANNELS]):
            samples = f32p(io + 4 * (channel * s[IO_STRIDE] + done))
            lower = f32p(s[HISTORY] + channel * s[HISTORY_STRIDE] + 4 * place)
            upper = f32p(s[HISTORY] + channel * s[HISTORY_STRIDE] + 4 * (place + n_fft))
            output = f32p(s[OUTPUT] + channel * s[OUTPUT_STRIDE] + 4 * fill)
            for i in range(count):
                value = samples[i]
                lower[i] = value
                upper[i] = value
                samples[i] = output[i]
        done += count
        place += count
        s[PLACE] = 0 if place == n_fft else place
        fill += count
        s[FILL] = 0 if fill == hop else fill
        if fill == hop:
            _frame(state)


@node
def stft_process(state: int, io: int, n: int) -> None:
    """Node: `process` on planar float32 (channels, IO_STRIDE) at ``io``, in place; audio thread."""
    process(state, io, n)


@node
def stft_reset(state: int, io: int, n: int) -> None:
    """Node: forget everything heard; ``io`` and ``n`` are ignored; audio thread."""
    s = i64p(state)
    s[FRAME] = 0
    s[FILL] = 0
    s[PLACE] = 0
    _clear(s[HISTORY], s[HISTORY_BYTES] // 4, 0, 0)
    _clear(s[OUTPUT], s[OUTPUT_BYTES] // 4, 0, 0)


# --- Building --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stft:
    """A streaming transform that is ready to run; keep it alive as long as a node uses `address`.

    Attributes
    ----------
    memory
        The state, an int64 block (see the constants of this module) with all buffers behind it.
    plan
        The plan of the Fourier transform.
    n_fft, hop_samples, synthesis_samples, channels, io_stride
        As given to `build`.
    """

    memory: NDArray[np.int64]
    plan: NDArray[np.int64]
    n_fft: int
    hop_samples: int
    synthesis_samples: int
    channels: int
    io_stride: int

    @property
    def address(self) -> int:
        """Address of the state, the first argument of `stft_process` and `stft_reset`."""
        return int(self.memory.ctypes.data)

    @property
    def bins(self) -> int:
        """Bins of a spectrum, ``n_fft/2 + 1``."""
        return self.n_fft // 2 + 1

    @property
    def latency_samples(self) -> int:
        """Delay of the resynthesis, equal to ``synthesis_samples``."""
        return self.synthesis_samples

    @property
    def bins_stride(self) -> int:
        """Float32 from the real to the imaginary parts of a spectrum."""
        return int(self.memory[BINS_STRIDE])

    @property
    def spectrum_stride(self) -> int:
        """Bytes from one channel's spectrum to the next one's."""
        return int(self.memory[SPECTRUM_STRIDE])


def build(
    n_fft: int,
    hop_samples: int,
    synthesis_samples: int,
    channels: int,
    io_stride: int,
    *,
    callback: int = 0,
    user_state: int = 0,
    windows: tuple[Floats, Floats] | None = None,
    allocate: Allocate = aligned,
) -> Stft:
    """Lay out and fill the state of a streaming transform.

    Parameters
    ----------
    n_fft
        Frame length in samples: 16 times a product of 2, 3 and 5, from 32 to 65536.
    hop_samples
        Samples between frames.
    synthesis_samples
        Length of the synthesis window in samples, which is the latency.
    channels
        Channels, each with its own history.
    io_stride
        Float32 from one channel of the block to the next.
    callback
        Address of the spectral callback (see the module); 0 for none.
    user_state
        Word handed to the callback.
    windows
        Analysis and synthesis window, ``n_fft`` each, the synthesis window zero before its last
        ``synthesis_samples``; `dual_windows` by default.
    allocate
        Source of zeroed int64 memory that starts at a multiple of 64 bytes, given the number of words.

    Returns
    -------
    Stft
        The state, reset.

    Raises
    ------
    ValueError
        When a length is not possible.
    """
    check_size(n_fft)
    if not 1 <= hop_samples <= synthesis_samples <= n_fft:
        raise ValueError(
            f"hop_samples ({hop_samples}) may not exceed synthesis_samples ({synthesis_samples}), "
            f"nor that n_fft ({n_fft})"
        )
    if channels < 1 or io_stride < 0:
        raise ValueError(f"{channels} channels with a stride of {io_stride} samples make no block")
    analysis, synthesis = windows or dual_windows(n_fft, hop_samples, synthesis_samples)
    if analysis.shape != (n_fft,) or synthesis.shape != (n_fft,):
        raise ValueError(f"windows have shapes {analysis.shape} and {synthesis.shape} but must both have ({n_fft},)")
    first = n_fft - synthesis_samples
    if synthesis[:first].any():
        raise ValueError(f"the synthesis window must be zero before its last {synthesis_samples} samples")

    plan = fft.plan(n_fft, allocate)
    # Lengths in float32, in multiples of 16 (64 bytes). What lies beyond a piece's own length stays zero: loops
    # run in steps of 8 into it.
    bins_stride = _padded(n_fft // 2 + 1)
    history = _padded(2 * n_fft)
    output = _padded(synthesis_samples + hop_samples + LANES)
    spectrum = 16 + 2 * bins_stride
    pieces = {
        ANALYSIS_WINDOW: _padded(n_fft),
        SYNTHESIS_WINDOW: _padded(synthesis_samples),
        HISTORY: channels * history,
        OUTPUT: channels * output,
        SPECTRUM: channels * spectrum,
        SAMPLES: _padded(n_fft + LANES),
        SCRATCH: fft.scratch_floats(n_fft),
    }
    memory = allocate(_HEADER + sum(pieces.values()) // 2)
    at = _HEADER
    for slot, floats in pieces.items():
        memory[slot] = memory.ctypes.data + 8 * at
        if slot == ANALYSIS_WINDOW:
            memory[at : at + floats // 2].view(np.float32)[:n_fft] = analysis
        elif slot == SYNTHESIS_WINDOW:
            memory[at : at + floats // 2].view(np.float32)[:synthesis_samples] = synthesis[first:]
        elif slot == SPECTRUM:
            # The frame's number stands in the word before each spectrum.
            memory[slot] += 64
        at += floats // 2
    memory[PLAN] = plan.ctypes.data
    memory[N_FFT], memory[HOP], memory[SYNTHESIS] = n_fft, hop_samples, synthesis_samples
    memory[CHANNELS], memory[IO_STRIDE] = channels, io_stride
    memory[CALLBACK], memory[USER_STATE] = callback, user_state
    memory[HISTORY_STRIDE], memory[OUTPUT_STRIDE] = 4 * history, 4 * output
    memory[SPECTRUM_STRIDE], memory[BINS_STRIDE] = 4 * spectrum, bins_stride
    memory[HISTORY_BYTES], memory[OUTPUT_BYTES] = 4 * channels * history, 4 * channels * output
    return Stft(memory, plan, n_fft, hop_samples, synthesis_samples, channels, io_stride)


def _padded(floats: int) -> int:
    return -(-floats // 16) * 16
