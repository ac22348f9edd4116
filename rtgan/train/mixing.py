"""Noisy speech and its target, made anew for every example: each is a pure function of (seed, number).

All filtering is done on the spectrum of the whole example: resampling, speed, equaliser, band limit and
bandwidth extension are one multiplication there. The target keeps the early reflections of a room.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

from ..errors import UsageError
from .data import Array, Clip, Corpus
from .floor import cleared, floor_of, in_frames

SAMPLE_RATE_HZ = 48000
_GRID = 960  # whole-spectrum transforms have lengths that are multiples of it: short prime factors only
_FLOOR_S = 20  # so much of a recording tells its floor
_GUARD = 2400  # wrapped-around samples cut from either end
Rng = np.random.Generator
Spectrum = NDArray[np.complex64]


@dataclass(frozen=True)
class MixSettings:
    """How examples are mixed. Chances are probabilities, pairs are ranges drawn uniformly.

    Up to four noises sound at once: `second_noise_chance` is tried again after each. Clipping and codecs act on the
    noisy side alone: the target is what they were given. The floor of a recording of speech lies up to `floor_db` lower
    in the target than in what is heard.
    """

    seconds: float = 3.0
    snr_db: tuple[float, float] = (-5.0, 20.0)
    level_db: tuple[float, float] = (-45.0, -15.0)
    clean_chance: float = 0.06
    speechless_chance: float = 0.04
    pause_chance: float = 0.35
    reverb_chance: float = 0.3
    low_pass_chance: float = 0.4
    equaliser_db: float = 5.0
    speed: tuple[float, float] = (0.85, 1.15)
    full_band_speed: tuple[float, float] = (0.65, 1.1)
    extension_chance: float = 0.5
    full_band_share: float = 0.3
    noise_speed: tuple[float, float] = (0.6, 1.6)
    recorded_share: float = 0.68
    generated_share: float = 0.17
    babble_share: float = 0.07
    music_share: float = 0.08
    second_noise_chance: float = 0.35
    alter_noise_chance: float = 0.25
    clip_chance: float = 0.04
    codec_chance: float = 0.06
    floor_db: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith(("_chance", "_share")) and not 0.0 <= value <= 1.0:
                raise UsageError(f"mixing.{field.name} is {value} but must lie between 0 and 1.")
            if isinstance(value, list | tuple):
                if len(value) != 2 or value[0] > value[1]:
                    raise UsageError(f"mixing.{field.name} is {list(value)} but must be [low, high].")
                object.__setattr__(self, field.name, tuple(float(v) for v in value))
        if self.seconds <= 0.1:
            raise UsageError(f"mixing.seconds is {self.seconds} but must be above 0.1.")
        if not 0.0 <= self.floor_db <= 60.0:
            raise UsageError(f"mixing.floor_db is {self.floor_db} but must lie between 0 and 60.")


PLAIN = MixSettings(
    seconds=4.0,
    level_db=(-36.0, -18.0),
    clean_chance=0.0,
    speechless_chance=0.0,
    pause_chance=0.2,
    reverb_chance=0.2,
    low_pass_chance=0.2,
    equaliser_db=0.0,
    speed=(1.0, 1.0),
    full_band_speed=(1.0, 1.0),
    extension_chance=0.0,
    full_band_share=0.1,
    noise_speed=(1.0, 1.0),
    second_noise_chance=0.2,
    alter_noise_chance=0.0,
    clip_chance=0.0,
    codec_chance=0.0,
)
"""Development mixes: held-out recordings as they are."""


@dataclass(frozen=True)
class Mix:
    """One example: float32 signals of equal length at 48 kHz, aligned sample by sample."""

    noisy: Array
    clean: Array
    snr_db: float
    kind: str


def active_level(signal: Array) -> float:
    """Root mean square over the 20 ms pieces within 30 dB of the loudest one; 0 for silence."""
    pieces = signal[: len(signal) // 960 * 960].reshape(-1, 960)
    power = np.einsum("ij,ij->i", pieces, pieces, dtype=np.float64) / 960
    loudest = float(power.max(initial=0.0))
    return float(np.sqrt(power[power >= loudest * 1e-3].mean())) if loudest > 1e-12 else 0.0


def _decibel(value: float) -> float:
    return float(10 ** (value / 20))


def _between(rng: Rng, bounds: tuple[float, float]) -> float:
    return float(rng.uniform(*bounds)) if bounds[0] < bounds[1] else bounds[0]


def _total(samples: int) -> int:
    return -(-(samples + 2 * _GUARD) // _GRID) * _GRID


def _frequencies(total: int) -> Array:
    return np.arange(total // 2 + 1, dtype=np.float32) * np.float32(SAMPLE_RATE_HZ / total)


def _coarse(total: int, curve: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Array:
    """A smooth curve over frequency, evaluated at 1024 places and interpolated to all bins."""
    grid = np.linspace(0.0, SAMPLE_RATE_HZ / 2, 1025)
    return np.interp(_frequencies(total), grid, curve(grid)).astype(np.float32)


def _equaliser(rng: Rng, total: int, depth_db: float) -> Array | None:
    if depth_db <= 0.0:
        return None
    places = np.log(np.geomspace(60.0, 24000.0, 7))
    gains = rng.uniform(-depth_db, depth_db, 7)
    return _coarse(total, lambda f: 10 ** (np.interp(np.log(np.maximum(f, 30.0)), places, gains) / 20))


def _low_pass(cutoff_hz: float, order: int, total: int) -> Array:
    return _coarse(total, lambda f: 1 / np.sqrt(1 + (f / cutoff_hz) ** (2 * order)))


def _spread(source: Array, total: int, image: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None) -> Spectrum:
    """Spectrum of `source` stretched to `total` samples; `image` weighs its mirror above the old band's end.

    Mirroring (a plain image of upsampling) puts the energy of sibilants where narrow-band recordings have none.
    """
    spectrum = np.asarray(scipy.fft.rfft(source)) * np.float32(total / len(source))
    bins = total // 2 + 1
    out = np.zeros(bins, np.complex64)
    kept = min(bins, len(spectrum))
    out[:kept] = spectrum[:kept]
    if image is not None and kept < bins:
        mirrored = min(bins - kept, kept - 1)
        weight = _coarse(total, image)[kept : kept + mirrored]
        out[kept : kept + mirrored] = np.conj(spectrum[kept - 1 - mirrored : kept - 1][::-1]) * weight
    return out


def _signal(spectrum: Spectrum, total: int, samples: int) -> Array:
    return np.asarray(scipy.fft.irfft(spectrum, total)[_GUARD : _GUARD + samples], np.float32)


def _source_length(total: int, clip: Clip, speed: float) -> int:
    return max(2, round(total / _GRID * clip.sample_rate_hz / SAMPLE_RATE_HZ * speed)) * _GRID


def _faded(source: Array, fade: Array, cut: tuple[int, int] | None) -> None:
    """Fade in and out at the ends and, with a `cut` from here to there, around a pause put in."""
    if cut is not None:
        begin, end = cut
        rest = source[begin : begin + len(source) - end].copy()
        source[begin:end] = 0
        source[end:] = rest
        if begin > len(fade):
            source[begin - len(fade) : begin] *= fade[::-1]
        if len(source) - end > len(fade):
            source[end : end + len(fade)] *= fade
    source[: len(fade)] *= fade
    source[-len(fade) :] *= fade[::-1]


def _speech_spectra(
    rng: Rng, corpus: Corpus, held_out: bool, settings: MixSettings, total: int, floor: Callable[[Clip], Array]
) -> list[Spectrum]:
    """Spectrum of speech as it was recorded and, where a target is to be clearer, as it should sound."""
    wide = rng.random() < settings.full_band_share
    clip = corpus.draw(rng, "speech", held_out)
    for _ in range(12):
        if clip is None or (clip.sample_rate_hz > 32000) == wide:
            break
        clip = corpus.draw(rng, "speech", held_out)
    assert clip is not None
    full_band = clip.sample_rate_hz > 32000
    length = _source_length(total, clip, _between(rng, settings.full_band_speed if full_band else settings.speed))
    offset = int(rng.integers(0, max(1, clip.samples - length // 2)))
    recorded = corpus.read(clip, offset, length)
    sources = [recorded]
    if settings.floor_db > 0:
        sources.append(cleared(recorded, clip.sample_rate_hz, floor(clip), settings.floor_db))
    fade = np.linspace(0, 1, length // 300, dtype=np.float32)
    cut: tuple[int, int] | None = None
    if rng.random() < settings.pause_chance:
        begin = int(rng.uniform(0.0, 0.8) * length)
        cut = begin, min(length, begin + int(rng.uniform(0.1, 0.45) * length))
    for source in sources:
        _faded(source, fade, cut)
    image = None
    if not full_band and rng.random() < settings.extension_chance:
        start = clip.sample_rate_hz / 2
        depth, slope, top = rng.uniform(-10, 4), rng.uniform(4, 14), rng.uniform(11000, 20000)

        def image(f: NDArray[np.float64]) -> NDArray[np.float64]:
            octaves = np.log2(np.maximum(f, start) / start)
            return np.asarray(10 ** ((depth - slope * octaves) / 20) / np.sqrt(1 + (f / top) ** 16))

    return [_spread(source, total, image) for source in sources]


def _decay_noise(rng: Rng, samples: int, seconds_60_db: float) -> Array:
    slope = np.float32(-6.9078 / (seconds_60_db * SAMPLE_RATE_HZ))
    return np.asarray(rng.standard_normal(samples, np.float32) * np.exp(slope * np.arange(samples, dtype=np.float32)))


def generated_room(rng: Rng) -> Array:
    """Room response by formula: a direct impulse, sparse early reflections, a decaying tail, darker with time."""
    seconds = float(rng.uniform(0.12, 0.8))
    samples = int(min(seconds, 0.6) * SAMPLE_RATE_HZ)
    tail = _decay_noise(rng, samples, seconds) * 0.5 + _decay_noise(rng, samples, seconds * 0.4)
    onset = int(rng.uniform(0.002, 0.02) * SAMPLE_RATE_HZ)
    tail[:onset] *= np.linspace(0, 1, onset, dtype=np.float32) ** 2
    smooth = int(rng.integers(2, 6))
    tail = np.convolve(tail, np.hanning(smooth + 2)[1:-1], "same").astype(np.float32)
    room = tail * np.float32(_decibel(-rng.uniform(0.0, 14.0)) / max(float(np.linalg.norm(tail)), 1e-9))
    places = rng.integers(40, 1500, int(rng.integers(3, 10)))
    room[places] += rng.uniform(-0.5, 0.5, len(places)).astype(np.float32) * np.exp(-places / 700).astype(np.float32)
    room[0] = 1.0
    return room


def _room(rng: Rng, corpus: Corpus, held_out: bool) -> tuple[Array, Array]:
    """A room response and the part of it that the target keeps."""
    clip = corpus.draw(rng, "rir", held_out) if rng.random() < 0.2 else None
    if clip is None:
        room = generated_room(rng)
    else:
        measured = corpus.read(clip, 0, min(clip.samples, clip.sample_rate_hz))
        room = np.asarray(
            scipy.signal.resample_poly(measured, SAMPLE_RATE_HZ // 10, clip.sample_rate_hz // 10), np.float32
        )
        room = room[int(np.argmax(np.abs(room))) :][: int(0.6 * SAMPLE_RATE_HZ)]
        room = room / np.float32(max(abs(float(room[0])), 1e-6))
    time = np.arange(len(room), dtype=np.float32) / SAMPLE_RATE_HZ
    early = room * np.exp(-np.maximum(time - 0.025, 0) * np.float32(6.9078 / 0.06))
    return room, early.astype(np.float32)


def generated_noise(rng: Rng, samples: int, sample_rate_hz: int = SAMPLE_RATE_HZ) -> Array:
    """One of eight kinds of noise by formula: colours, hum, fan, keys, wind, tones, crackle, warble."""
    kind = int(rng.integers(8))
    time = np.arange(samples, dtype=np.float32) / np.float32(sample_rate_hz)
    length = int(scipy.fft.next_fast_len(samples, real=True))
    frequency = np.maximum(np.arange(length // 2 + 1, dtype=np.float32) * np.float32(sample_rate_hz / length), 20.0)

    def coloured(slope: float, low_hz: float = 20.0, high_hz: float = 24000.0) -> Array:
        shape = (frequency / 1000) ** np.float32(slope)
        shape[(frequency < low_hz) | (frequency > high_hz)] *= np.float32(0.03)
        white = rng.standard_normal((2, length // 2 + 1), np.float32)
        out = np.asarray(scipy.fft.irfft((white[0] + 1j * white[1]) * shape, length)[:samples], np.float32)
        return np.asarray(out / np.float32(max(float(np.std(out)), 1e-9)))

    def wandering(rate_hz: float, depth: float) -> Array:
        knots = rng.standard_normal(int(time[-1] * rate_hz) + 3)
        steps = np.interp(time * rate_hz, np.arange(len(knots)), knots)
        wander: Array = np.exp(depth * steps).astype(np.float32)
        return wander

    def harmonics(base_hz: float, count: int, fall: float) -> Array:
        glide = 1 + 0.003 * np.sin(2 * np.pi * rng.uniform(0.1, 1.0) * time)
        phase = 2 * np.pi * base_hz * np.cumsum(glide, dtype=np.float64) / sample_rate_hz
        out = np.zeros(samples, np.float32)
        for order in range(1, count + 1):
            if base_hz * order < sample_rate_hz * 0.45:
                out += np.float32(rng.uniform(0.2, 1) * order**-fall) * np.sin(
                    order * phase + rng.uniform(0, 6)
                ).astype(np.float32)
        return out / np.float32(max(float(np.std(out)), 1e-9))

    if kind == 0:
        return coloured(float(rng.uniform(-1.2, 0.3)))
    if kind == 1:
        return harmonics(float(rng.choice([50.0, 60.0, 100.0, 120.0])), 16, 0.7) + coloured(-0.5) * np.float32(
            rng.uniform(0.05, 0.6)
        )
    if kind == 2:
        return harmonics(float(rng.uniform(70, 500)), 8, 1.0) * np.float32(rng.uniform(0.1, 0.8)) + coloured(
            -0.7
        ) * wandering(3, 0.2)
    if kind in (3, 6):
        keys = kind == 3
        out = coloured(-0.5) * np.float32(0.01)
        for begin in np.cumsum(rng.exponential(1 / (rng.uniform(3, 9) if keys else rng.uniform(10, 60)), 400)):
            place = int(begin * sample_rate_hz)
            if place >= samples - 64:
                break
            burst = _decay_noise(
                rng,
                min(samples - place, int(rng.uniform(0.003, 0.05 if keys else 0.008) * sample_rate_hz) + 8),
                0.03 if keys else 0.004,
            )
            if keys and rng.random() < 0.5:
                burst = np.convolve(burst, np.ones(int(rng.integers(2, 12)), np.float32), "same").astype(np.float32)
            out[place : place + len(burst)] += burst[: samples - place] * np.float32(rng.uniform(0.2, 1.5))
        return out
    if kind == 4:
        return coloured(float(rng.uniform(-2.0, -1.0)), 20.0, float(rng.uniform(300, 3000))) * wandering(2, 0.7)
    if kind == 5:
        out = coloured(-0.5) * np.float32(0.05)
        period = rng.uniform(0.1, 0.8)
        for start in np.arange(rng.uniform(0, period), time[-1], period):
            begin, end = int(start * sample_rate_hz), int((start + period * rng.uniform(0.2, 0.9)) * sample_rate_hz)
            span = time[: max(0, min(end, samples) - begin)]
            sweep = rng.uniform(300, 3500) * span + rng.uniform(-800, 800) * span**2
            out[begin : begin + len(span)] += np.sin(2 * np.pi * sweep).astype(np.float32)
        return out
    if kind == 7:
        low = float(rng.uniform(100, 4000))
        return coloured(0.0, low, low * float(rng.uniform(1.3, 4))) * wandering(float(rng.uniform(4, 20)), 0.9)
    return coloured(float(rng.uniform(0.0, 1.0)), float(rng.uniform(500, 4000)))


def generated_voice(rng: Rng, samples: int, sample_rate_hz: int = SAMPLE_RATE_HZ) -> Array:
    """A speech-like sound: gliding pulses and breath through three resonances that change with each syllable."""
    out = np.zeros(samples, np.float32)
    pitch_hz = float(rng.uniform(85, 260))
    place = int(rng.uniform(0, 0.2) * sample_rate_hz)
    while place < samples:
        length = min(samples - place, int(rng.uniform(0.08, 0.3) * sample_rate_hz))
        if length < 256:
            break
        glide = pitch_hz * np.linspace(rng.uniform(0.8, 1.2), rng.uniform(0.8, 1.2), length)
        phase = np.cumsum(glide) / sample_rate_hz
        excitation = rng.standard_normal(length) * 0.03
        if rng.random() < 0.75:
            excitation += np.diff(np.floor(phase), prepend=0.0)
        else:
            excitation *= 20
        spectrum = scipy.fft.rfft(excitation)
        frequency = np.arange(len(spectrum)) * sample_rate_hz / length
        shape = 0.02 / (1 + frequency / 4000)
        for low, high in ((250, 900), (800, 2400), (2200, 3600)):
            centre, width = rng.uniform(low, high), rng.uniform(60, 200)
            shape = shape + 1 / (1 + ((frequency - centre) / width) ** 2)
        syllable = scipy.fft.irfft(spectrum * shape, length) * np.hanning(length) ** 0.5
        out[place : place + length] += (syllable * rng.uniform(0.3, 1) / max(np.std(syllable), 1e-9)).astype(np.float32)
        place += length + int(rng.choice([0.0, 0.02, 0.25], p=[0.6, 0.25, 0.15]) * sample_rate_hz)
    return out


def _altered(rng: Rng, noise: Array) -> Array:
    """A recording made into another one: reversed, phase-randomised within short frames, or modulated."""
    kind = int(rng.integers(3))
    if kind == 0:
        return np.ascontiguousarray(noise[::-1])
    if kind == 1:
        return in_frames(noise, 2048, lambda s: np.abs(s) * np.exp(2j * np.pi * rng.random(s.shape, np.float32)))
    time = np.arange(len(noise), dtype=np.float32) / SAMPLE_RATE_HZ
    swing = 1 + rng.uniform(0.3, 0.95) * np.sin(2 * np.pi * rng.uniform(0.3, 8.0) * time + rng.uniform(0, 6))
    return noise * swing.astype(np.float32)


def _noise_signal(rng: Rng, corpus: Corpus, held_out: bool, settings: MixSettings, total: int) -> tuple[Array, str]:
    """One noise source of `total` samples at 48 kHz and what it is called."""
    shares = np.array([settings.recorded_share, settings.generated_share, settings.babble_share, settings.music_share])
    present = [bool(corpus.pool(role, held_out)) for role in ("noise", "speech", "speech", "music")]
    present[1] = True
    shares = shares * present
    if shares.sum() <= 0:
        shares = np.array([0.0, 1.0, 0.0, 0.0])
    kind = int(rng.choice(4, p=shares / shares.sum()))
    if kind == 1:
        return generated_noise(rng, total), "generated"
    count = {0: 1, 2: int(rng.integers(4, 9)), 3: int(rng.integers(1, 6))}[kind]
    role = ("noise", "", "speech", "music")[kind]
    out = np.zeros(total, np.float32)
    name = ("", "", "babble", "music")[kind]
    for _ in range(count):
        clip = corpus.draw(rng, role, held_out)
        assert clip is not None
        speed = float(np.exp(_between(rng, (np.log(settings.noise_speed[0]), np.log(settings.noise_speed[1])))))
        length = _source_length(total, clip, speed if kind != 2 else 1.0)
        if clip.samples > length:
            source = corpus.read(clip, int(rng.integers(0, clip.samples - length)), length)
        else:
            source = corpus.read(clip, int(rng.integers(0, clip.samples)), length, wrap=kind != 3)
            if kind == 3:
                source = np.roll(corpus.read(clip, 0, length), int(rng.integers(0, length)))
        part = np.asarray(scipy.fft.irfft(_spread(source, total, None), total), np.float32)
        out += part / np.float32(max(active_level(part), 1e-5)) * np.float32(rng.uniform(0.4, 1.0))
        name = name or clip.group
    if rng.random() < settings.alter_noise_chance:
        out = _altered(rng, out)
    return out, name


def _clipped(rng: Rng, noisy: Array) -> Array:
    """Overdriven by 1 to 10 dB, hard or soft."""
    limit = np.float32(np.max(np.abs(noisy)) * _decibel(-rng.uniform(1.0, 10.0)))
    if limit <= 0:
        return noisy
    if rng.random() < 0.6:
        return np.clip(noisy, -limit, limit)
    return np.asarray(limit * np.tanh(noisy / limit), np.float32)


def _coded(rng: Rng, noisy: Array) -> Array:
    """What a codec leaves: mu-law, few bits, holes in the spectrum, or Vorbis, MP3 or Opus at a low rate."""
    peak = np.float32(np.max(np.abs(noisy)))
    if peak < 1e-6:
        return noisy
    x = noisy / peak
    kind = int(rng.integers(6))
    if kind == 0:
        companded = np.sign(x) * np.log1p(255 * np.abs(x)) / np.log(256)
        steps = np.round(companded * 127) / 127
        return np.asarray(peak * np.sign(steps) * (256 ** np.abs(steps) - 1) / 255, np.float32)
    if kind == 1:
        steps = 2 ** int(rng.integers(6, 11))
        dither = rng.random(len(x), np.float32) - np.float32(0.5) if rng.random() < 0.5 else np.float32(0)
        return np.asarray(peak * np.round(x * steps + dither) / steps, np.float32)
    if kind == 2:
        share = float(rng.uniform(0.3, 0.8))

        def emptied(spectrum: Spectrum) -> Spectrum:
            size = np.abs(spectrum)
            return np.where(size < np.quantile(size[:, :342], share, axis=1, keepdims=True), 0, spectrum)

        return in_frames(noisy, 1024, emptied)
    import soundfile

    subtype = ("VORBIS", "MPEG_LAYER_III", "OPUS")[kind - 3]
    written = io.BytesIO()
    level = float(rng.uniform(0.7, 0.98))
    container = "MP3" if kind == 4 else "OGG"
    # half of full scale: codecs clip what their own noise lifts above it
    soundfile.write(written, x * 0.5, SAMPLE_RATE_HZ, subtype, format=container, compression_level=level)
    written.seek(0)
    heard, _ = soundfile.read(written, len(x), dtype="float32", fill_value=0.0)
    return np.asarray(heard * (2 * peak), np.float32)


class Mixer:
    """Makes example `number` of an endless, reproducible series.

    Parameters
    ----------
    corpus : Corpus
        Recordings.
    settings : MixSettings
        Chances and ranges.
    seed : int
        Names the series.
    held_out : bool
        Draw from the development side of the split.
    """

    def __init__(self, corpus: Corpus, settings: MixSettings, seed: int = 0, held_out: bool = False) -> None:
        if not corpus.pool("speech", held_out):
            raise UsageError(f"There is no speech on the {'held-out' if held_out else 'training'} side of the data.")
        self.corpus, self.settings, self.seed, self.held_out = corpus, settings, seed, held_out
        self.samples = round(settings.seconds * SAMPLE_RATE_HZ)
        self._floors: dict[str, Array] = {}

    def _floor(self, clip: Clip) -> Array:
        if clip.file not in self._floors:
            begin = self.corpus.read(clip, 0, min(clip.samples, _FLOOR_S * clip.sample_rate_hz))
            self._floors[clip.file] = floor_of(begin, clip.sample_rate_hz)
        return self._floors[clip.file]

    def __call__(self, number: int) -> Mix:
        """Mix example `number`; the same bits on every call."""
        settings, corpus, samples = self.settings, self.corpus, self.samples
        rng = np.random.default_rng((self.seed, number, int(self.held_out)))
        total = _total(samples)
        band: Array | None = None
        if rng.random() < settings.low_pass_chance:
            band = _low_pass(
                float(np.exp(rng.uniform(np.log(4000.0), np.log(20000.0)))), int(rng.integers(6, 40)), total
            )

        clean = target = np.zeros(samples, np.float32)
        if rng.random() >= settings.speechless_chance:
            spectra = _speech_spectra(rng, corpus, self.held_out, settings, total, self._floor)
            for curve in (_equaliser(rng, total, settings.equaliser_db), band):
                if curve is not None:
                    spectra = [spectrum * curve for spectrum in spectra]
            heard, wanted = spectra[0], spectra[-1]
            if rng.random() < settings.reverb_chance:
                # the room acts on the whole guarded signal, circularly: the guard is silent at the seam by its fade
                room, early = _room(rng, corpus, self.held_out)
                target = _signal(wanted * scipy.fft.rfft(early, total), total, samples)
                clean = _signal(heard * scipy.fft.rfft(room, total), total, samples)
            else:
                target = clean = _signal(heard, total, samples)
                if wanted is not heard:
                    target = _signal(wanted, total, samples)

        noise, kind = _noise_signal(rng, corpus, self.held_out, settings, total)
        for _ in range(3):
            if rng.random() >= settings.second_noise_chance:
                break
            other, other_kind = _noise_signal(rng, corpus, self.held_out, settings, total)
            noise = noise / np.float32(max(active_level(noise), 1e-6))
            noise = noise + other * np.float32(rng.uniform(0.2, 1.0) / max(active_level(other), 1e-6))
            kind = f"{kind} + {other_kind}"
        curves = [c for c in (_equaliser(rng, total, settings.equaliser_db * 1.4), band) if c is not None]
        if curves:
            noise_spectrum = np.asarray(scipy.fft.rfft(noise))
            for curve in curves:
                noise_spectrum = noise_spectrum * curve
            noise = _signal(noise_spectrum, total, samples)
        else:
            noise = noise[_GUARD : _GUARD + samples]

        level = _decibel(_between(rng, settings.level_db))
        snr_db = _between(rng, settings.snr_db)
        if rng.random() < settings.clean_chance:
            snr_db = float(rng.uniform(30.0, 60.0))
        loudness = active_level(target)
        scale = np.float32(level / loudness) if loudness > 1e-7 else np.float32(0)
        noise_scale = np.float32(level * _decibel(-snr_db) / max(active_level(noise), 1e-7))
        target = target * scale
        noisy = clean * scale + noise * noise_scale
        peak = float(np.max(np.abs(noisy)))
        if peak > 0.98:
            noisy, target = noisy * np.float32(0.98 / peak), target * np.float32(0.98 / peak)
        if rng.random() < settings.clip_chance:
            noisy = _clipped(rng, noisy)
        if rng.random() < settings.codec_chance:
            noisy = _coded(rng, noisy)
        return Mix(noisy.astype(np.float32), target.astype(np.float32), snr_db, kind)
