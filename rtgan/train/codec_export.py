"""From a run of the codec to a TorchScript file with its card, codebooks, tables and a test vector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UsageError
from ..kernels import codec, entropy, spectra
from .checkpoint import load_averaged, load_checkpoint
from .codec_eval import OURS
from .codec_loop import CodecConfig, parse_codec_config
from .codec_net import CodecNet, Streaming
from .export import TEST_VECTOR, course_card, own_figures, save_model, traced
from .networks import count_parameters

#: Codebooks and tables in the file.
BOOKS = "codec.npz.b64"
#: Kinds of packets, by the code of the first stage, that the chances of all other codes depend on.
GROUPS = 32
_VECTOR_ROWS = 24
_BELIEF = 40.0
"""So many codes count as much as what holds for all contexts together."""


def net_of(content: Mapping[str, Any]) -> tuple[CodecConfig, CodecNet]:
    """The averaged net of a checkpoint, and its config."""
    config = parse_codec_config(content["config"], "checkpoint")
    net = CodecNet(config.network)
    load_averaged(net, content)
    return config, net.eval()


def grouped(book: Tensor) -> NDArray[np.uint8]:
    """The group of each code of the first stage: k-means of the codes."""
    generator = torch.Generator().manual_seed(0)
    centres = book[torch.randperm(len(book), generator=generator)[:GROUPS]].clone()
    group = torch.zeros(len(book), dtype=torch.int64)
    for _ in range(30):
        group = torch.cdist(book, centres).argmin(1)
        for k in range(GROUPS):
            if bool((group == k).any()):
                centres[k] = book[group == k].mean(0)
    return group.numpy().astype(np.uint8)


def _believed(counts: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Tables of counts (contexts, symbols), where few were seen after what holds for all contexts."""
    whole = counts.sum(0) + 0.2
    return entropy.cumulated(counts + _BELIEF * whole / whole.sum())


def tables_of(codes: list[NDArray[np.int64]], groups: NDArray[np.uint8], symbols: int) -> NDArray[np.uint16]:
    """Tables of the coder, see `rtgan.codec.bits.rows_of`, from codes (packets, 1 + stages) of stretches of sound."""
    stages = codes[0].shape[1] - 1
    comb = np.zeros((spectra.COMBS + 2, symbols))
    stage = np.zeros((stages, GROUPS + 1, symbols))
    for stretch in codes:
        before = np.concatenate([[spectra.COMBS + 1], stretch[:-1, 0]])
        np.add.at(comb, (before, stretch[:, 0]), 1)
        group = groups[stretch[:, 1]]
        silent = stretch[:, 0] == codec.SILENT
        known = np.concatenate([[GROUPS], np.where(silent, GROUPS, group)[:-1]])
        heard = stretch[~silent]
        for k in range(stages):
            np.add.at(stage[k], ((known if k == 0 else group)[~silent], heard[:, 1 + k]), 1)
    return np.concatenate([_believed(comb), *(_believed(s) for s in stage)])


def export_codec(
    run: Path,
    path: Path,
    name: str | None = None,
    description: str | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Export the averaged weights of a run; returns the card."""
    content = load_checkpoint(run)
    config, net = net_of(content)
    if not content["codes"]:
        raise UsageError("The run was cut off before its codes were counted: go on with 'rtgan train --resume'.")
    streaming = Streaming(net).eval()
    books = net.quantiser.books.numpy().astype(np.float16)
    groups = grouped(net.quantiser.books[0])
    codes = [stretch.numpy().astype(np.int64) for stretch in content["codes"]]
    tables = tables_of(codes, groups, max(config.network.codes, spectra.COMBS + 1))
    inputs, outputs = spectra.ROW + config.network.latent, config.network.latent + spectra.ROW
    figures = own_figures(metrics, OURS, r"\d+ stages", "rtgan eval codec --json")
    card = course_card(content, config, run, name, description, figures) | {
        "sample_rate_hz": spectra.RATE_HZ,
        "hop_samples": spectra.PACKET,
        "latency_samples": codec.LATENCY,
        "state_size": streaming.state_size,
        "inputs": inputs,
        "outputs": outputs,
        "latents": config.network.latent,
        "stages": config.network.stages,
        "codes": config.network.codes,
        "parameters": count_parameters(net) + books.size,
        "macs_per_frame": sum(m.weight.numel() for m in streaming.modules() if isinstance(m, torch.nn.Linear)),
        "test_vector": {"file": TEST_VECTOR, "rows": _VECTOR_ROWS, "encoding": "base64 of npz: input, output"},
    }
    rng = np.random.default_rng(3)
    rows = torch.from_numpy(rng.normal(0, 1, (_VECTOR_ROWS, inputs)).astype(np.float32))
    rows[:, : spectra.FRAMES * spectra.BINS] = rows[:, : spectra.FRAMES * spectra.BINS] * 3 - 8
    module, told = traced(streaming, rows, torch.zeros(1, streaming.state_size))
    beside: dict[str, dict[str, NDArray[Any]]] = {BOOKS: {"books": books, "groups": groups, "tables": tables}}
    save_model(module, card, rows.numpy(), told.numpy(), path, beside)
    return card
