"""Systems under measurement: exported models, played frame by frame, and denoisers of others."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .checkpoint import load_averaged, load_checkpoint
from .config import parse_config
from .data import Array
from .develop import enhance
from .export import read_model
from .networks import Denoiser, stream
from .scoring import open_onnx
from .stft import Stft


@dataclass(frozen=True)
class System:
    """Something that takes noisy signals ``(mixes, samples)`` at its own rate and returns them enhanced and aligned.

    `latency_ms` is what it would delay a live signal by, the collecting of its first hop not counted.
    """

    name: str
    latency_ms: float
    enhance: Callable[[Array], Array]
    sample_rate_hz: int = 48000


def model_system(path: Path) -> System:
    """An exported model, run frame by frame as it plays live."""
    module, card, _ = read_model(path)
    hop = int(card["hop_samples"])
    stft = Stft(int(card["n_fft"]), hop, 2 * hop)

    def enhance(noisy: Array) -> Array:
        padded = np.pad(noisy, ((0, 0), (0, hop + (-noisy.shape[1]) % hop)))
        with torch.inference_mode():
            out, _ = stream(module, stft.analyse(torch.from_numpy(padded)), int(card["state_size"]))
            return stft.synthesise(out)[:, : noisy.shape[1]].numpy()

    return System(str(card["name"]), 1000 * int(card["latency_samples"]) / int(card["sample_rate_hz"]), enhance)


def run_system(path: Path) -> System:
    """The averaged weights of a training run, or of one of its checkpoint files, over whole signals."""
    content = load_checkpoint(path)
    config = parse_config(content["config"], path.name)
    net = Denoiser(config.network)
    load_averaged(net, content)
    net.eval()

    def enhanced(noisy: Array) -> Array:
        with torch.inference_mode():
            return np.concatenate([enhance(net, config.stft, torch.from_numpy(row[None])).numpy() for row in noisy])

    latency_ms = 1000 * config.stft.synthesis_samples / config.network.sample_rate_hz
    return System(f"{config.name}@{content['step']}", latency_ms, enhanced)


def rnnoise_system() -> System | None:
    """RNNoise (Valin 2018) from the package pyrnnoise, or None where it is missing.

    What comes out of a call belongs to the frame of 10 ms two calls earlier: 20 ms, the collecting of a frame not
    counted.
    """
    if importlib.util.find_spec("pyrnnoise") is None:
        return None
    try:
        from pyrnnoise import rnnoise
    except (ImportError, OSError):
        return None
    frame = 480
    delay = 2 * frame

    def enhance(noisy: Array) -> Array:
        out = np.zeros_like(noisy)
        for row, signal in enumerate(noisy):
            samples = len(signal)
            padded = np.pad(signal, (0, delay + (-samples) % frame)) * np.float32(32768)
            pieces = np.ascontiguousarray(padded[: len(padded) // frame * frame].reshape(-1, frame), np.float32)
            state = rnnoise.create()
            try:
                for piece in pieces:
                    pointer = piece.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
                    rnnoise.lib.rnnoise_process_frame(state, pointer, pointer)
            finally:
                rnnoise.destroy(state)
            out[row] = pieces.reshape(-1)[delay : delay + samples] * np.float32(1 / 32768)
        return out

    return System("RNNoise", 20.0, enhance)


_GTCRN_STATE = {"conv_cache": (2, 1, 16, 16, 33), "tra_cache": (2, 3, 1, 1, 16), "inter_cache": (2, 1, 33, 16)}


def gtcrn_system(path: Path) -> System:
    """GTCRN (Rong et al. 2024), its authors' streaming ONNX model at 16 kHz: an STFT of 512 samples, hop 256.

    Window and overlap-add are those of its training, the square root of a periodic Hann window on both sides: 32 ms.
    """
    session = open_onnx(path, {"mix": (1, 257, 1, 2)} | _GTCRN_STATE, "GTCRN's streaming model")
    size, hop = 512, 256
    window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)

    def enhance(noisy: Array) -> Array:
        out = np.zeros_like(noisy)
        for row, signal in enumerate(noisy):
            frames = -(-len(signal) // hop) + 1
            padded = np.pad(signal, (hop, (frames + 1) * hop - hop - len(signal)))
            made = np.zeros(len(padded), np.float32)
            state = {name: np.zeros(shape, np.float32) for name, shape in _GTCRN_STATE.items()}
            for start in range(0, frames * hop, hop):
                spectrum = np.fft.rfft(padded[start : start + size] * window)
                mix = np.stack((spectrum.real, spectrum.imag), -1).astype(np.float32)[None, :, None]
                enhanced, *kept = session.run(None, {"mix": mix} | state)
                state = dict(zip(_GTCRN_STATE, kept, strict=True))
                real, imag = enhanced[0, :, 0].T
                made[start : start + size] += (np.fft.irfft(real + 1j * imag, size) * window).astype(np.float32)
            out[row] = made[hop : hop + len(signal)]
        return out

    return System("GTCRN", 32.0, enhance, 16000)


PEERS: dict[str, Callable[[], System | None]] = {"rnnoise": rnnoise_system}
"""Peers that need no file, by the name that ``--peers`` takes."""
