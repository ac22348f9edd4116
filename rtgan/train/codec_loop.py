"""Training of the codec: power spectra through the quantiser, heard with the phases of the original.

It begins with principal components and k-means, and is taught against discriminators too at the end. Every example of
a step uses a number of stages of its own, so that one net serves all bit rates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy.fft
import torch
from torch import Tensor

from ..errors import UsageError
from ..kernels import codec, spectra
from .codec_net import CodecNet, CodecSettings, log_power, put_together, sound, spectrum, taken_apart
from .config import read_yaml
from .course import Course, CourseConfig, Lesson, parse_course
from .data import Array, Corpus, describe, load_corpus
from .losses import level_scale

TASK = "codec"
_NOISY = 0.12
"""Share of examples with some noise."""
_FIRST_BATCHES, _LAST_BATCHES = 20, 100
"""That principal components and codebooks begin with; that the use of codes is counted in."""
_EDGE = spectra.N_FFT - spectra.HOP


@dataclass(frozen=True)
class CodecConfig(CourseConfig):
    """A training run of `CodecNet`, as in YAML.

    Attributes
    ----------
    batch, packets : int
        Examples in a step, and their length.
    fewest_stages : int
        Examples use from so many stages to all.
    log_weight, magnitude_weight, commitment_weight : float
        Of the distance of logarithms, of magnitudes to the power 0.3, and of latents to their codes.
    speed, level_db, tilt_db : sequence of float
        Ranges in which examples are altered.
    """

    TASK: ClassVar[str] = TASK

    batch: int = 10
    packets: int = 80
    fewest_stages: int = 3
    log_weight: float = 0.25
    magnitude_weight: float = 10.0
    commitment_weight: float = 0.25
    speed: tuple[float, float] = (0.9, 1.15)
    level_db: tuple[float, float] = (-12.0, 8.0)
    tilt_db: float = 4.0
    network: CodecSettings = field(default_factory=CodecSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch < 1 or self.packets < 24:
            raise UsageError("batch must be at least 1, packets at least 24.")
        if not 1 <= self.fewest_stages <= self.network.stages:
            raise UsageError(f"fewest_stages must lie in 1..{self.network.stages}.")
        for name in ("speed", "level_db"):
            low, high = getattr(self, name)
            if low > high:
                raise UsageError(f"{name} must be [low, high].")
            object.__setattr__(self, name, (float(low), float(high)))


def parse_codec_config(values: Any, where: str) -> CodecConfig:
    """Check plain values and make a config of them; unknown keys are refused."""
    return parse_course(CodecConfig, values, where, {"network": CodecSettings})


def load_codec_config(path: Path) -> CodecConfig:
    """Read a config file."""
    return parse_codec_config(read_yaml(path), str(path))


def _piece(corpus: Corpus, rng: np.random.Generator, role: str, samples: int, speed: float) -> Array:
    """A piece of a recording at the codec's rate, faster by `speed`; ends in silence where it is short."""
    clip = corpus.draw(rng, role, False)
    if clip is None:
        return np.zeros(samples, np.float32)
    ratio = speed * clip.sample_rate_hz / spectra.RATE_HZ
    wanted = scipy.fft.next_fast_len(round(samples * ratio), True)
    start = int(rng.integers(max(1, clip.samples - wanted // 2)))
    whole = scipy.fft.rfft(corpus.read(clip, start, wanted))
    target = round(wanted / ratio)
    kept = np.zeros(target // 2 + 1, whole.dtype)
    low = min(len(kept), len(whole))
    kept[:low] = whole[:low]
    out = scipy.fft.irfft(kept, target)[:samples] * (target / wanted)
    return np.asarray(np.pad(out, (0, samples - len(out))), np.float32)


class CodecTrainer(Course[CodecConfig]):
    """A run.

    Parameters
    ----------
    config : CodecConfig
    corpus : Corpus
    out : Path
        Run folder.
    """

    def __init__(self, config: CodecConfig, corpus: Corpus, out: Path) -> None:
        torch.manual_seed(config.seed)
        self.corpus = corpus
        self.codes: list[Tensor] = []
        self.codec = CodecNet(config.network)
        super().__init__(config, self.codec, out, spectra.RATE_HZ)

    def example(self, rng: np.random.Generator) -> Array:
        """One altered piece of speech."""
        config = self.config
        samples = (config.packets * spectra.FRAMES - 1) * spectra.HOP + spectra.N_FFT
        speech = _piece(self.corpus, rng, "speech", samples, rng.uniform(*config.speed))
        if rng.random() < _NOISY:
            noise = _piece(self.corpus, rng, "noise", samples, 1.0)
            level = float(np.sqrt(np.mean(speech**2)) / (np.sqrt(np.mean(noise**2)) + 1e-6))
            speech = speech + noise * np.float32(level * 10 ** (-rng.uniform(5, 30) / 20))
        points = rng.uniform(-config.tilt_db, config.tilt_db, 6)
        whole = scipy.fft.rfft(speech)
        curve = np.interp(np.linspace(0, 1, len(whole)), np.linspace(0, 1, 6) ** 1.5, points)
        gain = 10 ** ((curve + rng.uniform(*config.level_db)) / 20)
        out = scipy.fft.irfft(whole * gain.astype(np.float32), len(speech))
        return np.asarray(out * min(1.0, 0.99 / (float(np.abs(out).max()) + 1e-6)), np.float32)

    def examples(self, seed: int) -> Tensor:
        """Spectra of a batch, a function of a number."""
        rng = np.random.default_rng((self.config.seed, seed))
        return spectrum(torch.from_numpy(np.stack([self.example(rng) for _ in range(self.config.batch)])))

    def lesson(self, generator: torch.Generator) -> Lesson:
        """A batch through the codec."""
        config, net = self.config, self.codec
        if self.step == 0 and not self.lineage:
            rows = [taken_apart(log_power(self.examples((1 << 40) + k)))[0] for k in range(_FIRST_BATCHES)]
            net.begin(torch.cat([r.reshape(-1, spectra.ROW) for r in rows]), generator)
        given = self.examples(self.step)
        logs = log_power(given)
        stages = torch.randint(config.fewest_stages, config.network.stages + 1, (config.batch,), generator=generator)
        apart, comb = taken_apart(logs)
        latents, commitment = net.quantiser(net.encode(apart), stages, generator)
        parts = {"commitment": commitment}
        said = put_together(net.decode(latents), comb)
        parts["log"] = (said - logs).abs().mean()
        # Levels do not weigh examples, within reason.
        loudness = torch.exp(0.3 * logs).mean((1, 2), keepdim=True).sqrt().clamp_min(0.02)
        parts["magnitude"] = ((torch.exp(0.15 * said.clamp_max(8)) - torch.exp(0.15 * logs)) / loudness).square().mean()
        phases = given / given.abs().clamp_min(1e-9)
        both = [sound(x.clamp_max(8), phases)[:, _EDGE:-_EDGE] for x in (said, logs)]
        scale = level_scale(both[1])
        return Lesson(
            parts,
            {"commitment": config.commitment_weight, "log": config.log_weight, "magnitude": config.magnitude_weight},
            both[0] * scale,
            both[1] * scale,
        )

    def told(self, batches: int = _LAST_BATCHES) -> list[Tensor]:
        """Codes (packets, 1 + stages), comb first, of examples of the averaged net: how often each is used."""
        codes: list[Tensor] = []
        net = self.codec
        with self.as_averaged():
            for number in range(batches):
                logs = log_power(self.examples((1 << 41) + number))
                apart, comb = taken_apart(logs)
                silent = logs.reshape(*comb.shape, -1).amax(-1) <= np.log(2 * spectra.FLOOR)
                first = torch.where(silent, codec.SILENT, comb)
                told = torch.cat((first[..., None], net.quantiser.codes(net.encode(apart))), -1)
                codes += list(told.to(torch.int16))
        return codes

    def run(self, budget_minutes: float | None = None, progress: bool = True, tensorboard: bool = False) -> int:
        """See `Course.run`; at the end the codes that an export needs are counted."""
        steps = super().run(budget_minutes, progress, tensorboard)
        self.codes = self.told()
        self.save()
        return steps

    def facts(self) -> dict[str, Any]:
        """Where the recordings are from, how much was heard, and codes."""
        heard = self.step * self.config.batch * self.config.packets * spectra.PACKET / spectra.RATE_HZ
        used = [s for s in self.corpus.sources() if {"speech", "noise"} & set(s["roles"])]
        return {"sources": used, "seconds_of_audio": heard, "codes": self.codes}


def begin(config: CodecConfig, data: Path | None, cache: Path | None, out: Path) -> CodecTrainer:
    """A run, after a word on the recordings."""
    if data is None:
        raise UsageError("A codec is learned from recordings: say where they are with --data DIR.")
    corpus = load_corpus(data, cache)
    print(describe(corpus))
    return CodecTrainer(config, corpus, out)
