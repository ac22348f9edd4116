"""The codec: what it takes of a core each way, and what becomes of whatever may arrive from a network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from rtgan import demo
from rtgan.codec import Receiver, Sender, load
from rtgan.codec.model import PACKET, PACKET_S, RATE_HZ
from rtgan.errors import RtganError

SECONDS = 30.0
_BITS_PER_S = (3000, 6000)
STORM = 100_000
_MOST_FRAMES = 64


def run() -> list[dict[str, Any]]:
    """Measure, print a line for each row, return the rows."""
    sound = np.resize(soxr.resample(demo.recording(48000)[0], 48000, RATE_HZ), round(SECONDS * RATE_HZ))
    rows: list[dict[str, Any]] = []
    for bits_per_s in _BITS_PER_S:
        rows.append(ours(sound, bits_per_s))
        there, back, worst = (rows[-1][name] for name in ("encode", "decode", "worst_ms"))
        print(
            f"rtgan at {bits_per_s / 1000:g} kbit/s: encoding {100 * there:.2f} % of a core, "
            f"decoding {100 * back:.2f} %; a packet at worst {worst:.2f} ms"
        )
    rows.append(storm(STORM, sound[: 4 * RATE_HZ]))
    last = rows[-1]
    print(
        f"{last['packets']} packets flipped, cut, repeated, out of order or invented: {last['refused']} refused with a "
        f"reason, {last['played']} frames played, {last['failed']} failures; "
        f"a call at worst {last['worst_ms']:.1f} ms, never more than {last['most_frames']} frames at once"
    )
    return rows


def ours(sound: NDArray[np.float32], bits_per_s: int) -> dict[str, Any]:
    """Packets of 20 ms, one at a time, there and back."""
    model = load()
    sender, receiver = Sender(model, bits_per_s), Receiver(model, hold_frames=0)
    took: list[list[float]] = [[], []]
    for start in range(0, len(sound), PACKET):
        begun = time.perf_counter()
        packets = sender.push(sound[start : start + PACKET])
        between = time.perf_counter()
        for packet in packets:
            receiver.push(packet)
        took[0].append(between - begun)
        took[1].append(time.perf_counter() - between)
    # The first calls load and warm what they need.
    encode, decode = (np.array(t[20:]) for t in took)
    return {
        "system": "rtgan", "bits_per_s": bits_per_s, "encode": float(encode.mean() / PACKET_S),
        "decode": float(decode.mean() / PACKET_S), "worst_ms": float(1e3 * max(encode.max(), decode.max())),
    }  # fmt: skip


def damaged(rng: np.random.Generator, sent: Sequence[bytes]) -> bytes:
    """One packet of any of `sent`, as a network or an enemy may hand it over: whole, flipped, cut or invented."""
    data = bytearray(sent[int(rng.integers(len(sent)))])
    what = rng.random()
    if what < 0.5:
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    elif what < 0.8:
        del data[int(rng.integers(len(data))) :]
    elif what < 0.9:
        data = bytearray(rng.integers(0, 256, int(rng.integers(80)), np.uint8).tobytes())
    return bytes(data)


def storm(times: int, sound: NDArray[np.float32], seed: int = 1) -> dict[str, Any]:
    """Hand a receiver so many packets of `damaged`, and count what it does."""
    rng = np.random.default_rng(seed)
    model = load()
    sender, receiver = Sender(model, 3000), Receiver(model, most_frames=_MOST_FRAMES)
    sent = sender.push(sound) + sender.end()
    failed, most, worst = 0, 0, 0.0
    for _ in range(times):
        data = damaged(rng, sent)
        begun = time.perf_counter()
        try:
            out = receiver.push(data)
        except RtganError:
            failed += 1
            continue
        worst = max(worst, time.perf_counter() - begun)
        most = max(most, out.size // PACKET)
        failed += not bool(np.isfinite(out).all())
    loss = receiver.loss
    return {
        "packets": times, "refused": loss.packets_refused, "late": loss.packets_late, "played": loss.frames_played,
        "failed": failed, "most_frames": most, "worst_ms": 1e3 * worst,
    }  # fmt: skip
