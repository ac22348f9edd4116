"""Opus (RFC 6716) as a peer in measurements, through the system's libopus."""

from __future__ import annotations

import ctypes
import ctypes.util
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RtganError
from .data import Array

_VOIP, _AUDIO, _SET_BITRATE, _SET_COMPLEXITY, _SET_SIGNAL, _GET_LOOKAHEAD = 2048, 2049, 4002, 4010, 4024, 4027
_FULL_EFFORT, _SPEECH, _MUSIC = 10, 3001, 3002
_LARGEST = 4000
PACKET_MS = 20


class Opus:
    """Sound in packets of 20 ms at a variable rate and full effort, concealment by its own decoder.

    Parameters
    ----------
    sample_rate_hz : int
        48000 or 16000.
    bits_per_s : int
    music : bool
        Whether it is told that it is given music instead of speech.

    Raises
    ------
    OSError
        Where there is no libopus.
    """

    #: A packet must be complete, and the encoder looks ahead by 6.5 ms.
    LATENCY_MS = PACKET_MS + 6.5

    def __init__(self, sample_rate_hz: int, bits_per_s: int, music: bool = False) -> None:
        found = ctypes.util.find_library("opus")
        if found is None:
            raise OSError("libopus is not installed")
        self._library, self._rate_hz, self._bits_per_s = ctypes.CDLL(found), sample_rate_hz, bits_per_s
        self._application, self._signal = (_AUDIO, _MUSIC) if music else (_VOIP, _SPEECH)
        for name in ("opus_encoder_create", "opus_decoder_create"):
            getattr(self._library, name).restype = ctypes.c_void_p
        self._library.opus_get_version_string.restype = ctypes.c_char_p
        version = self._library.opus_get_version_string().decode().split()[-1]
        self.name = f"Opus {bits_per_s // 1000} kbit/s (libopus {version})"

    def __call__(self, speech: Array, lost: NDArray[Any] | None = None) -> tuple[Array, int]:
        """Code, lose, decode: the sound ``(samples,)``, its delay undone, and the bits of all packets.

        Parameters
        ----------
        speech : ndarray, (samples,)
        lost : ndarray of bool, (packets,), optional
            Packets that do not arrive.
        """
        library, error = self._library, ctypes.c_int()
        encoder = ctypes.c_void_p(library.opus_encoder_create(self._rate_hz, 1, self._application, ctypes.byref(error)))
        decoder = ctypes.c_void_p(library.opus_decoder_create(self._rate_hz, 1, ctypes.byref(error)))
        if not encoder or not decoder:
            raise RtganError(f"libopus answers {error.value} to a request for {self._rate_hz} Hz, one channel.")
        size = self._rate_hz * PACKET_MS // 1000
        taken = 0
        try:
            settings = ((_SET_BITRATE, self._bits_per_s), (_SET_COMPLEXITY, _FULL_EFFORT), (_SET_SIGNAL, self._signal))
            for request, value in settings:
                library.opus_encoder_ctl(encoder, request, ctypes.c_int(value))
            ahead = ctypes.c_int()
            library.opus_encoder_ctl(encoder, _GET_LOOKAHEAD, ctypes.byref(ahead))
            frames = -(-(len(speech) + ahead.value) // size)
            whole = np.pad(speech, (0, frames * size - len(speech))).astype(np.float32)
            out = np.zeros((frames, size), np.float32)
            packet = (ctypes.c_ubyte * _LARGEST)()
            for k in range(frames):
                source = np.ascontiguousarray(whole[k * size : (k + 1) * size])
                told = library.opus_encode_float(encoder, ctypes.c_void_p(source.ctypes.data), size, packet, _LARGEST)
                gone = lost is not None and k < len(lost) and bool(lost[k])
                given, length = (None, 0) if gone else (packet, told)
                target = ctypes.c_void_p(out[k].ctypes.data)
                got = library.opus_decode_float(decoder, given, length, target, size, 0)
                if told < 1 or got != size:
                    raise RtganError(f"libopus failed on packet {k}: {told} bytes, {got} samples.")
                taken += 8 * told
        finally:
            library.opus_encoder_destroy(encoder)
            library.opus_decoder_destroy(decoder)
        return out.reshape(-1)[ahead.value : ahead.value + len(speech)], taken
