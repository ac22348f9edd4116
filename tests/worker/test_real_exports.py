"""Exports of the packages themselves, where these are installed; their licences keep the files out of here.

``pip install --no-deps nn-tilde cached-conv neutone-sdk click jsonschema tqdm soundfile`` makes them run.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from playing import Rig, delayed
from support import speechlike
from test_native import WRAPPER

from rtgan.worker import spec as specs

SOUND = speechlike(0.2)


def test_an_export_of_nn_tilde_with_cached_convolutions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nn_tilde")
    import real_nn

    path = real_nn.export(tmp_path)
    spec = specs.look(path)
    assert spec.kind == "nn~" and spec.rate_hz == 48000 and spec.state == "buffers" and spec.rows
    assert set(spec.methods) == {"forward", "encode", "decode"}
    assert [a.name for a in spec.attributes] == ["gain", "flip"]
    out = Rig(path, values={"gain": 0.5}).run(SOUND)
    module = torch.jit.load(str(path))
    for name, buffer in module.named_buffers():
        if name.rpartition(".")[2] in ("pad", "cache"):
            buffer.zero_()
    module.set_gain(0.5)
    with torch.inference_mode():
        wanted = module(torch.from_numpy(SOUND[: 512 * 16])[None, None])[0, 0].numpy()
    rig_latency = 1024
    heard = out[rig_latency:][: len(wanted)]
    assert np.abs(heard).max() > 1e-3 and np.abs(heard - wanted[: len(heard)]).max() < 1e-5


def test_an_export_of_the_neutone_sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = types.ModuleType("torchaudio")
    stub.transforms = types.ModuleType("torchaudio.transforms")  # type: ignore[attr-defined]
    stub.transforms.Resample = stub.transforms.MelSpectrogram = torch.nn.Identity  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchaudio", stub)
    monkeypatch.setitem(sys.modules, "torchaudio.transforms", stub.transforms)  # type: ignore[attr-defined]
    pytest.importorskip("neutone_sdk")
    import real_neutone

    path = real_neutone.export(tmp_path)
    spec = specs.look(path)
    assert spec.kind == "neutone" and spec.rate_hz == 48000 and spec.blocks == (512,)
    assert [k.param.id for k in spec.knobs()] == ["cut", "wet", "dry", "input_gain_db", "output_gain_db"]
    rig = Rig(path, values={"cut": 0.25})
    assert np.abs(rig.run(SOUND) - 0.75 * delayed(SOUND, rig.latency)).max() < 1e-5
    assert rig.latency == 1024
    module = torch.jit.load(str(path))
    buffering = getattr(module, "calc_buffering_delay_samples", None) or module.calc_min_delay_samples
    for rate, row in WRAPPER.items():
        for call, late in row.items():
            module.set_daw_sample_rate_and_buffer_size(rate, call)
            assert buffering() == late, (rate, call)
            rig = Rig(path, rate, run="auto", call=call)
            assert rig.graph.chain[0].plugin.notice.endswith("; native")
            assert rig.latency <= late + (32 if rate == 96000 else 0), (rate, call)
