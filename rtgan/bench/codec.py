"""The codec: what it takes of a core each way, and what becomes of whatever may arrive from a network."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from rtgan import demo
from rtgan.codec import Receiver, packets
from rtgan.codec.modes import MUSIC, SPEECH, Mode
from rtgan.errors import RtganError

SECONDS = 30.0
#: What is measured: bits a second, and frames of 20 ms in a packet; few for networks, 50 as in files.
_SETTINGS = {SPEECH: ((3000, 1), (6000, 1)), MUSIC: ((12000, 2), (24000, 2), (12000, 50), (24000, 50))}
STORM, _CALL = 100_000, 100
_MOST_FRAMES = 64
#: The first frames load and warm what they need; as many as a packet of a second has, and more.
_WARM = 60


def run() -> list[dict[str, Any]]:
    """Measure, print a line for each row, return the rows."""
    rows: list[dict[str, Any]] = []
    for mode, settings in _SETTINGS.items():
        heard = soxr.resample(demo.recording(48000)[0], 48000, mode.rate_hz)
        sound = np.resize(heard, round(SECONDS * mode.rate_hz))
        for bits_per_s, frames in settings:
            rows.append(ours(sound, bits_per_s, frames, mode))
            there, back, worst = (rows[-1][name] for name in ("encode", "decode", "worst_ms"))
            print(
                f"rtgan {mode.name} at {bits_per_s / 1000:g} kbit/s, {1e3 * frames * mode.frame_s:g} ms in a packet: "
                f"encoding {100 * there:.2f} % of a core, decoding {100 * back:.2f} %; "
                f"a packet at worst {worst:.2f} ms"
            )
        rows.append(storm(STORM, sound[: 4 * mode.rate_hz], mode=mode))
        last = rows[-1]
        print(
            f"{mode.name}: {last['packets']} packets flipped, cut, repeated, out of order or invented: "
            f"{last['refused']} refused with a reason, {last['played']} frames played, {last['failed']} failures; "
            f"a call at worst {last['worst_ms']:.1f} ms, never more than {last['most_frames']} frames at once"
        )
    return rows


def ours(sound: NDArray[np.float32], bits_per_s: int, frames: int = 1, mode: Mode = SPEECH) -> dict[str, Any]:
    """Packets, one at a time as they get full, there and back."""
    model = mode.load(mode.name)
    sender, receiver = mode.sender(model, bits_per_s, frames), Receiver(model, hold_frames=0)
    took: list[list[float]] = [[], []]
    for start in range(0, len(sound), mode.frame):
        begun = time.perf_counter()
        full = sender.push(sound[start : start + mode.frame])
        between = time.perf_counter()
        for packet in full:
            receiver.push(packet)
        took[0].append(between - begun)
        took[1].append(time.perf_counter() - between)
    encode, decode = (np.array(t[_WARM:]) for t in took)
    return {
        "system": "rtgan", "mode": mode.name, "bits_per_s": bits_per_s, "frames": frames,
        "encode": float(encode.mean() / mode.frame_s), "decode": float(decode.mean() / mode.frame_s),
        "worst_ms": float(1e3 * max(encode.max(), decode.max())),
    }  # fmt: skip


def damaged(rng: np.random.Generator, sent: Sequence[bytes]) -> bytes:
    """One packet of any of `sent`, as a network or an enemy may hand it over: whole, hurt, cut, made up or forged."""
    data = bytearray(sent[int(rng.integers(len(sent)))])
    what = rng.random()
    if what < 0.5:
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    elif what < 0.8:
        del data[int(rng.integers(len(data))) :]
    elif what < 0.85:
        # What is coded says something else, and the check agrees.
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(packets.OVERHEAD - 4, max(len(data) - 4, packets.OVERHEAD - 3)))] ^= 1 << int(
                rng.integers(8)
            )
        data[-4:] = struct.pack("<I", zlib.crc32(data[:-4]))
    elif what < 0.92:
        data = bytearray(rng.integers(0, 256, int(rng.integers(80)), np.uint8).tobytes())
    return bytes(data)


def storm(times: int, sound: NDArray[np.float32], seed: int = 1, mode: Mode = SPEECH) -> dict[str, Any]:
    """Hand receivers so many packets of `damaged`, `_CALL` to each, and count what they do."""
    rng = np.random.default_rng(seed)
    model = mode.load(mode.name)
    sender = mode.sender(model, _SETTINGS[mode][0][0], 1)
    sent = sender.push(sound) + sender.end()
    receivers: list[Receiver] = []
    failed, most, worst = 0, 0, 0.0
    for number in range(times):
        # One that has played all there is would call the rest late and look at none.
        if number % _CALL == 0:
            receivers.append(Receiver(model, most_frames=_MOST_FRAMES))
        receiver = receivers[-1]
        data = damaged(rng, sent)
        begun = time.perf_counter()
        try:
            out = receiver.push(data)
        except RtganError:
            failed += 1
            continue
        worst = max(worst, time.perf_counter() - begun)
        most = max(most, out.size // mode.frame)
        failed += not bool(np.isfinite(out).all())
    losses = [receiver.loss for receiver in receivers]
    return {
        "mode": mode.name, "packets": times, "refused": sum(each.packets_refused for each in losses),
        "late": sum(each.packets_late for each in losses), "played": sum(each.frames_played for each in losses),
        "failed": failed, "most_frames": most, "worst_ms": 1e3 * worst,
    }  # fmt: skip
