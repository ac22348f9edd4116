"""The codec's net: spectra to latents, a residual vector quantiser, latents to spectra.

Encoder and decoder hear the past only and run packet by packet. They speak of power and never of phase: whoever
decodes makes a signal whose spectra are these (`rtgan.kernels.phase`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UsageError
from ..kernels import spectra

_CENTRE, _SPREAD = math.log(spectra.FLOOR) / 2, 4.0
_DEAD = 0.05
"""A code that fewer vectors than this (mean of a step) fall on is put elsewhere."""
_TAPS = 3
_ANALYSIS, _SYNTHESIS = (torch.from_numpy(w) for w in spectra.windows())
_COMBS, _LIKENESS, _BANDS, _SMOOTHING, _LISTENING = (
    torch.from_numpy(table)
    for table in (
        spectra.combs(), spectra.likeness_table(), spectra.bands(), spectra.smoothing(), spectra.listening(),
    )
)  # fmt: skip


@dataclass(frozen=True)
class CodecSettings:
    """Size of the net.

    Attributes
    ----------
    width, hidden : int
        Of the residual stream, and inside a block.
    encoder_blocks, decoder_blocks : int
        Their dilations double, from 1 packet on.
    latent : int
        Numbers that are quantised for each packet.
    stages, codes : int
        Codebooks, and vectors in each.
    """

    width: int = 256
    hidden: int = 192
    encoder_blocks: int = 2
    decoder_blocks: int = 3
    latent: int = 48
    stages: int = 15
    codes: int = 512

    def __post_init__(self) -> None:
        if min(self.width, self.hidden, self.encoder_blocks, self.decoder_blocks, self.latent) < 1:
            raise UsageError("network: sizes must be at least 1.")
        if not 1 <= self.stages <= 32 or not 2 <= self.codes <= 4096:
            raise UsageError("network: stages must lie in 1..32, codes in 2..4096.")


class Past(nn.Module):
    """Layer on packets ``t``, ``t - dilation`` and so on, given as one row each: a causal convolution."""

    def __init__(self, inputs: int, outputs: int, taps: int, dilation: int) -> None:
        super().__init__()
        self.inputs, self.taps, self.dilation = inputs, taps, dilation
        self.layer = nn.Linear(taps * inputs, outputs)
        #: Packets to remember.
        self.reach = (taps - 1) * dilation

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, packets, inputs)`` from silence (zeros) on."""
        padded = functional.pad(x, (0, 0, self.reach, 0))
        packets = x.shape[1]
        heard = [padded[:, k * self.dilation : k * self.dilation + packets] for k in range(self.taps)]
        out: Tensor = self.layer(torch.cat(heard, -1))
        return out

    def step(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """One packet ``(1, inputs)`` with the rows before it ``(reach, inputs)``."""
        rows = torch.cat((past, x), 0)
        heard = [rows[k * self.dilation : k * self.dilation + 1] for k in range(self.taps)]
        return self.layer(torch.cat(heard, 1)), rows[1:]


class Block(nn.Module):
    """A residual step."""

    def __init__(self, width: int, hidden: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.past = Past(width, hidden, _TAPS, dilation)
        self.out = nn.Linear(hidden, width)
        nn.init.zeros_(self.out.bias)
        with torch.no_grad():
            self.out.weight.mul_(0.3)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, packets, width)``."""
        out: Tensor = x + self.out(functional.silu(self.past(self.norm(x))))
        return out

    def step(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """See `Past.step`."""
        heard, past = self.past.step(self.norm(x), past)
        return x + self.out(functional.silu(heard)), past


class Half(nn.Module):
    """Encoder or decoder: a linear way straight through, and what blocks that look back add to it."""

    def __init__(self, inputs: int, outputs: int, taps: int, blocks: int, settings: CodecSettings) -> None:
        super().__init__()
        self.first = Past(inputs, settings.width, taps, 1)
        self.blocks = nn.ModuleList(Block(settings.width, settings.hidden, 2**k) for k in range(blocks))
        self.norm = nn.LayerNorm(settings.width)
        self.last = nn.Linear(settings.width, outputs)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.straight = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, packets, inputs)`` to ``(batch, packets, outputs)``."""
        h = self.first(x)
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.straight(x) + self.last(self.norm(h))
        return out

    def reaches(self) -> list[tuple[int, int]]:
        """Rows and numbers in each of what every layer remembers."""
        layers = [self.first, *(block.past for block in self.blocks)]  # type: ignore[union-attr]
        return [(int(p.reach), int(p.inputs)) for p in layers]  # type: ignore[arg-type, union-attr]

    def step(self, x: Tensor, past: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """One packet."""
        h, kept = self.first.step(x, past[0])
        after = [kept]
        for block, rows in zip(self.blocks, past[1:], strict=True):
            h, kept = block.step(h, rows)  # type: ignore[operator]
            after.append(kept)
        return self.straight(x) + self.last(self.norm(h)), after


class Quantiser(nn.Module):
    """Residual vector quantiser: each codebook says what those before it left over.

    Zeghidour et al., "SoundStream", IEEE/ACM TASLP 2021; codebooks follow the vectors that fall on them by moving
    averages (van den Oord, Vinyals and Kavukcuoglu, NeurIPS 2017), begin with k-means, and codes that nothing falls on
    any more are put on vectors of the step.
    """

    books: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, settings: CodecSettings, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        shape = (settings.stages, settings.codes)
        self.register_buffer("books", torch.zeros(*shape, settings.latent))
        self.register_buffer("counts", torch.ones(*shape))
        self.register_buffer("sums", torch.zeros(*shape, settings.latent))

    def nearest(self, stage: int, rows: Tensor) -> Tensor:
        """Numbers of the codes nearest to ``(rows, latent)``."""
        book = self.books[stage]
        return torch.addmm(book.square().sum(1), rows, book.t(), alpha=-2).argmin(1)

    @torch.no_grad()
    def codes(self, latents: Tensor) -> Tensor:
        """Numbers of the codes of all stages, ``(batch, packets, stages)``."""
        left, chosen = latents.reshape(-1, latents.shape[-1]), []
        for stage in range(len(self.books)):
            chosen.append(self.nearest(stage, left))
            left = left - self.books[stage][chosen[-1]]
        return torch.stack(chosen, -1).view(*latents.shape[:2], -1)

    @torch.no_grad()
    def begin(self, rows: Tensor, generator: torch.Generator, rounds: int = 5) -> None:
        """k-means of ``(rows, latent)``, stage by stage."""
        left = rows
        for stage in range(len(self.books)):
            codes = self.books.shape[1]
            self.books[stage] = left[torch.randint(len(left), (codes,), generator=generator)]
            for _ in range(rounds):
                self._move(stage, left, self.nearest(stage, left), 0.0, generator)
            left = left - self.books[stage][self.nearest(stage, left)]
            self.counts[stage].fill_(1.0)
            self.sums[stage] = self.books[stage]

    def _move(self, stage: int, rows: Tensor, chosen: Tensor, decay: float, generator: torch.Generator) -> None:
        codes = self.books.shape[1]
        count = torch.bincount(chosen, minlength=codes).to(rows.dtype)
        total = torch.zeros_like(self.sums[stage]).index_add_(0, chosen, rows)
        self.counts[stage].mul_(decay).add_(count, alpha=1 - decay)
        self.sums[stage].mul_(decay).add_(total, alpha=1 - decay)
        dead = (self.counts[stage] < _DEAD).nonzero()[:, 0]
        if len(dead):
            fresh = rows[torch.randint(len(rows), (len(dead),), generator=generator)]
            self.counts[stage][dead] = 1.0
            self.sums[stage][dead] = fresh
        self.books[stage] = self.sums[stage] / self.counts[stage][:, None]

    def forward(self, latents: Tensor, used: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Quantise.

        Parameters
        ----------
        latents : Tensor, (batch, packets, latent)
        used : Tensor, (batch,)
            Stages used for each example.
        generator : torch.Generator, optional
            With it, codebooks learn.

        Returns
        -------
        quantised : Tensor, (batch, packets, latent)
            Its gradient goes on to `latents` as it is.
        commitment : Tensor
            Mean square of what each stage left over, relative to the latents'.
        """
        rows = latents.detach().reshape(-1, latents.shape[-1])
        per_row = used[:, None].expand(latents.shape[:2]).reshape(-1, 1)
        left, total = rows, torch.zeros_like(rows)
        with torch.no_grad():
            for stage in range(int(used.max())):
                chosen = self.nearest(stage, left)
                code = self.books[stage][chosen]
                if generator is not None:
                    self._move(stage, left, chosen, self.decay, generator)
                left = left - code
                total = total + code * (per_row > stage)
        total = total.view_as(latents)
        commitment = (latents - total).square().mean() / latents.detach().square().mean().clamp_min(1e-6)
        return latents + (total - latents).detach(), commitment


class CodecNet(nn.Module):
    """Encoder, quantiser, decoder of packets of `spectra.ROW` numbers."""

    centre: Tensor
    spread: Tensor

    def __init__(self, settings: CodecSettings) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = Half(spectra.ROW, settings.latent, 2, settings.encoder_blocks, settings)
        self.quantiser = Quantiser(settings)
        self.decoder = Half(settings.latent, spectra.ROW, 3, settings.decoder_blocks, settings)
        logs, depths = spectra.FRAMES * spectra.BINS, spectra.FRAMES * spectra.BANDS
        self.register_buffer("centre", torch.cat((torch.full((logs,), _CENTRE), torch.zeros(depths))))
        self.register_buffer("spread", torch.cat((torch.full((logs,), _SPREAD), torch.ones(depths))))

    @torch.no_grad()
    def begin(self, rows: Tensor, generator: torch.Generator) -> None:
        """Start where principal components and k-means of examples ``(rows, ROW)`` are, which costs no training.

        Bins weigh by the inverse of the ear's bandwidth (Glasberg and Moore 1990), depths by what they do to bins.
        """
        x = (rows - self.centre) / self.spread
        hertz = torch.arange(spectra.BINS) * (spectra.RATE_HZ / spectra.N_FFT)
        weight = (24.7 * (1 + 4.37e-3 * hertz)).rsqrt()
        deep = (_COMBS[1:].square().mean(0) * weight.square() * _BANDS).sum(1).sqrt() / _SPREAD
        weight = torch.cat((weight.repeat(spectra.FRAMES), deep.repeat(spectra.FRAMES)))
        mean = x.mean(0)
        centred = (x - mean) * weight
        _, ways = torch.linalg.eigh(centred.t() @ centred)
        ways = ways[:, -self.settings.latent :].flip(1)
        size = (centred @ ways).square().mean().sqrt()
        self.encoder.straight.weight.copy_((ways * weight[:, None] / size).t())
        self.encoder.straight.bias.copy_(-(mean * weight) @ ways / size)
        self.decoder.straight.weight.copy_(ways * size / weight[:, None])
        self.decoder.straight.bias.copy_(mean)
        self.quantiser.begin(self.encode(rows[None])[0], generator)

    def encode(self, rows: Tensor) -> Tensor:
        """``(batch, packets, ROW)`` rows of `taken_apart` to ``(batch, packets, latent)``."""
        out: Tensor = self.encoder((rows - self.centre) / self.spread)
        return out

    def decode(self, latents: Tensor) -> Tensor:
        """The way back."""
        out: Tensor = self.decoder(latents) * self.spread + self.centre
        return out


class Streaming(nn.Module):
    """The exported form: both halves, one packet at a time, with all they remember in one row.

    ``forward(row, state)``: `row` ``(1, ROW + latent)`` is what the encoder and what the decoder hears, the answer
    ``(1, latent + ROW)`` what they say; who needs one half gives the other anything.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, net: CodecNet) -> None:
        super().__init__()
        # The quantiser is no part of it: codes are searched and looked up elsewhere.
        self.encoder, self.decoder = net.encoder, net.decoder
        self.register_buffer("centre", net.centre)
        self.register_buffer("spread", net.spread)
        self.spans = [*net.encoder.reaches(), *net.decoder.reaches()]
        self.split = len(net.encoder.reaches())
        self.state_size = sum(rows * width for rows, width in self.spans)

    def forward(self, row: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        past, at = [], 0
        for rows, width in self.spans:
            past.append(state[0, at : at + rows * width].view(rows, width))
            at += rows * width
        heard = (row[:, : spectra.ROW] - self.centre) / self.spread
        latents, before = self.encoder.step(heard, past[: self.split])
        said, after = self.decoder.step(row[:, spectra.ROW :], past[self.split :])
        kept = torch.cat([rows.reshape(1, -1) for rows in (*before, *after)], 1)
        return torch.cat((latents, said * self.spread + self.centre), 1), kept


def spectrum(signal: Tensor) -> Tensor:
    """Complex spectra ``(batch, frames, BINS)`` of ``(batch, samples)``."""
    out: Tensor = torch.fft.rfft(signal.unfold(-1, spectra.N_FFT, spectra.HOP) * _ANALYSIS)
    return out


def log_power(spectra_: Tensor) -> Tensor:
    """Logarithms of power, floor added."""
    return torch.log(torch.view_as_real(spectra_).square().sum(-1) + spectra.FLOOR)


def taken_apart(logs: Tensor) -> tuple[Tensor, Tensor]:
    """Rows ``(batch, packets, ROW)`` and combs ``(batch, packets)`` of logarithmic power ``(batch, frames, BINS)``.

    The comb is the one that is most like the fine structure of a packet's two frames; depths fit best in each band.
    """
    batch = logs.shape[0]
    logs = logs.reshape(batch, -1, spectra.FRAMES, spectra.BINS)
    fine = logs - logs @ _SMOOTHING
    length = (fine.square() @ _LISTENING).sum(-1).sqrt()
    alike = (fine @ _LIKENESS.t()).sum(2) / (length[..., None] * spectra.FRAMES**0.5 + 1e-6)
    best, comb = alike.max(-1)
    comb = torch.where(best >= spectra.LEAST_LIKENESS, comb, 0)
    shape = _COMBS[comb][:, :, None]
    depths = ((fine * shape) @ _BANDS.t() / (shape.square() @ _BANDS.t() + 1e-6)).clamp(0, spectra.DEEPEST)
    rest = logs - (depths @ _BANDS) * shape
    return torch.cat((rest.flatten(2), depths.flatten(2)), -1), comb


def put_together(rows: Tensor, comb: Tensor) -> Tensor:
    """The way back: logarithmic power ``(batch, frames, BINS)``."""
    batch, count = comb.shape
    rest, depths = rows[..., : spectra.FRAMES * spectra.BINS], rows[..., spectra.FRAMES * spectra.BINS :]
    depths = depths.reshape(batch, count, spectra.FRAMES, spectra.BANDS)
    whole: Tensor = (
        rest.reshape(batch, count, spectra.FRAMES, spectra.BINS) + (depths @ _BANDS) * _COMBS[comb][:, :, None]
    )
    return whole.reshape(batch, -1, spectra.BINS)


def sound(logs: Tensor, phases: Tensor) -> Tensor:
    """Signals ``(batch, samples)`` of logarithmic power ``(batch, frames, BINS)`` and unit complex phases."""
    frames = torch.fft.irfft(torch.exp(0.5 * logs) * phases, spectra.N_FFT) * _SYNTHESIS
    batch, count = frames.shape[:2]
    length = (count - 1) * spectra.HOP + spectra.N_FFT
    folded = functional.fold(frames.transpose(1, 2), (1, length), (1, spectra.N_FFT), stride=(1, spectra.HOP))
    return folded.reshape(batch, length)
