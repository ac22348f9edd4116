"""Interleaved device samples to planar blocks and back, with a choice of channels."""

from __future__ import annotations

from typing import Any

from numba import types

from .native import f32p, i64p, inline, kernel


@inline
def _spread(source: int, target: int, width: int, n: int) -> None:
    """Every ``width``-th sample; widths 1 and 2 are written out, for only known strides are vectorised."""
    x = f32p(source)
    y = f32p(target)
    if width == 1:
        for i in range(n):
            y[i] = x[i]
    elif width == 2:
        for i in range(n):
            y[i] = x[2 * i]
    else:
        for i in range(n):
            y[i] = x[width * i]


@inline
def _gather(source: int, target: int, width: int, n: int) -> None:
    """Undo `_spread`."""
    x = f32p(source)
    y = f32p(target)
    if width == 1:
        for i in range(n):
            y[i] = x[i]
    elif width == 2:
        for i in range(n):
            y[2 * i] = x[i]
    else:
        for i in range(n):
            y[width * i] = x[i]


@inline
def deinterleave(source: int, width: int, channel_map: int, target: int, channels: int, stride: int, n: int) -> None:
    """Planar channels of ``n`` frames of ``width`` interleaved float32.

    ``channel_map`` is the address of one int64 for each of the ``channels``: the column to take it from, or a
    negative number for silence. ``target`` is planar, ``stride`` float32 from channel to channel.
    """
    columns = i64p(channel_map)
    for channel in range(channels):
        column = columns[channel]
        samples = f32p(target + 4 * channel * stride)
        if column < 0:
            for i in range(n):
                samples[i] = 0.0
        else:
            _spread(source + 4 * column, target + 4 * channel * stride, width, n)


@inline
def interleave(source: int, stride: int, channel_map: int, target: int, width: int, n: int) -> None:
    """Interleave to ``n`` frames of ``width`` float32; every one of them is written.

    ``channel_map`` is the address of one int64 for each of the ``width`` columns: the planar channel it gets,
    or a negative number for silence.
    """
    rows = i64p(channel_map)
    for column in range(width):
        row = rows[column]
        if row < 0:
            frames = f32p(target + 4 * column)
            for i in range(n):
                frames[width * i] = 0.0
        else:
            _gather(source + 4 * row * stride, target + 4 * column, width, n)


_frames = types.float32[:, ::1]


@kernel(types.void(_frames, types.int64[::1], _frames))
def deinterleave_array(frames: Any, channel_map: Any, planar: Any) -> None:
    """`deinterleave` of ``frames`` (n, width) to ``planar`` (channels, at least n)."""
    if planar.shape[1] < frames.shape[0] or channel_map.size < planar.shape[0]:
        raise ValueError("the planar array or the channel map is too small")
    for column in channel_map:
        if column >= frames.shape[1]:
            raise ValueError("the channel map names a column that is not there")
    deinterleave(
        frames.ctypes.data, frames.shape[1], channel_map.ctypes.data, planar.ctypes.data, planar.shape[0],
        planar.shape[1], frames.shape[0],
    )  # fmt: skip


@kernel(types.void(_frames, types.int64[::1], _frames))
def interleave_array(planar: Any, channel_map: Any, frames: Any) -> None:
    """`interleave` of ``planar`` (channels, at least n) to ``frames`` (n, width)."""
    if planar.shape[1] < frames.shape[0] or channel_map.size < frames.shape[1]:
        raise ValueError("the planar array or the channel map is too small")
    for row in channel_map:
        if row >= planar.shape[0]:
            raise ValueError("the channel map names a channel that is not there")
    interleave(
        planar.ctypes.data, planar.shape[1], channel_map.ctypes.data, frames.ctypes.data, frames.shape[1],
        frames.shape[0],
    )  # fmt: skip
