"""The denoiser: streaming equals offline, gradients are right, and nothing odd comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rtgan.errors import UsageError
from rtgan.train.networks import (
    Denoiser,
    DenoiserSettings,
    StreamingDenoiser,
    _Cell,
    band_matrices,
    count_parameters,
    stream,
)


def _net(config: Any) -> Denoiser:
    torch.manual_seed(0)
    net = Denoiser(config.network).eval()
    with torch.no_grad():
        for head in net.heads:
            head.filter.weight.mul_(10)
            head.filter.bias.normal_(std=0.3)
    return net


def _spectrum(config: Any, frames: int = 60) -> torch.Tensor:
    signal = torch.randn(2, frames * config.network.hop_samples, generator=torch.Generator().manual_seed(1)) * 0.1
    signal[1, : signal.shape[1] // 2] = 0
    return config.stft.analyse(signal)


@pytest.mark.parametrize("head", [0, 1])
def test_frame_by_frame_equals_the_whole_sequence(config: Any, head: int) -> None:
    net, spectrum = _net(config), _spectrum(config)
    module = torch.jit.script(StreamingDenoiser(net, head))
    with torch.no_grad():
        whole = net(spectrum, head)
        frames = stream(module, spectrum, module.state_size)
    assert float((whole - frames).abs().max()) <= 1e-5 * float(whole.abs().max())
    assert float(whole.abs().max()) > 0.1


@pytest.mark.parametrize("head", [0, 1])
def test_output_never_depends_on_later_frames(config: Any, head: int) -> None:
    net, spectrum = _net(config), _spectrum(config)
    changed = spectrum.clone()
    changed[:, :, 30:] *= -3
    with torch.no_grad():
        assert torch.equal(net(spectrum, head)[:, :, :30], net(changed, head)[:, :, :30])
        assert not torch.equal(net(spectrum, head)[:, :, 30], net(changed, head)[:, :, 30])


@pytest.mark.parametrize(("head", "lookahead"), [(0, 0), (1, 2)])
def test_open_gates_pass_the_spectrum_delayed_by_the_look_ahead(config: Any, head: int, lookahead: int) -> None:
    net, spectrum = _net(config), _spectrum(config)
    with torch.no_grad():
        for layer in (net.heads[head].gains, net.heads[head].filter):
            layer.weight.zero_()
            layer.bias.zero_()
        net.heads[head].gains.bias.fill_(40.0)
        out = net(spectrum, head)
    frames = spectrum.shape[2]
    assert torch.allclose(out[:, :, lookahead:], spectrum[:, :, : frames - lookahead], atol=1e-6)


@pytest.mark.parametrize("kind", ["silence", "dc", "full scale", "impulse", "beyond"])
def test_extreme_input_stays_finite_and_silence_stays_silent(config: Any, kind: str) -> None:
    net = _net(config)
    signal = torch.zeros(1, 200 * config.network.hop_samples)
    if kind == "dc":
        signal += 0.9
    elif kind == "full scale":
        signal = torch.sign(torch.sin(torch.arange(signal.shape[1]) * 0.05))[None]
    elif kind == "impulse":
        signal[0, 4000] = 1
    elif kind == "beyond":
        signal = torch.randn(signal.shape) * 1e4
    module = StreamingDenoiser(net, 1)
    with torch.no_grad():
        out = stream(module, config.stft.analyse(signal), module.state_size)
    assert bool(torch.isfinite(out).all())
    if kind == "silence":
        assert not bool(out.any())


def test_level_of_the_input_hardly_matters(config: Any) -> None:
    net, spectrum = _net(config), _spectrum(config)[:1]
    with torch.no_grad():
        loud, soft = net(spectrum, 0), net(spectrum * 0.1, 0) * 10
    assert float((loud - soft).abs().max()) < 0.02 * float(loud.abs().max())


def test_gradients_of_the_recurrent_layer_equal_those_of_torch() -> None:
    torch.manual_seed(0)
    cell = _Cell(5, 7).double()
    x = torch.randn(9, 3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(9, 3, 7, dtype=torch.float64)
    parameters = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
    mine = torch.autograd.grad((cell.sequence(x) * weight).sum(), [x, *parameters])
    start = torch.zeros(1, 3, 7, dtype=torch.float64)
    reference = torch.gru(x, start, parameters, True, 1, 0.0, False, False, False)[0]
    for a, b in zip(mine, torch.autograd.grad((reference * weight).sum(), [x, *parameters]), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize(("bands", "n_fft"), [(48, 1024), (12, 256), (32, 512)])
def test_bands_cover_every_bin_once(bands: int, n_fft: int) -> None:
    average, spread = band_matrices(bands, n_fft, 48000)
    assert average.shape == (n_fft // 2 + 1, bands)
    assert torch.allclose(spread.sum(0), torch.ones(n_fft // 2 + 1))
    assert torch.allclose(average.sum(0), torch.ones(bands))
    assert bool((spread.max(1).values == 1).all())


def test_state_holds_everything_that_is_carried_over(config: Any) -> None:
    net, spectrum = _net(config), _spectrum(config, 20)
    module = StreamingDenoiser(net, 1)
    with torch.no_grad():
        once = stream(module, spectrum, module.state_size)
        state = torch.zeros(2, module.state_size)
        for t in range(10):
            _, state = module(spectrum[:, :, t], state)
        out, _ = StreamingDenoiser(net, 1)(spectrum[:, :, 10], state)
    assert torch.equal(out, once[:, :, 10])


def test_settings_are_checked() -> None:
    with pytest.raises(UsageError, match="look-ahead 3"):
        DenoiserSettings(lookaheads=(3,))
    with pytest.raises(UsageError, match="low_bins"):
        DenoiserSettings(low_bins=4)
    with pytest.raises(UsageError, match="bands"):
        band_matrices(200, 256, 48000)


def test_size_is_what_the_shapes_say(config: Any) -> None:
    s = config.network
    hidden = s.hidden
    trunk = s.features * hidden + hidden + 2 * (2 * 3 * hidden * hidden + 6 * hidden)
    head = (hidden + 1) * (s.bands + (2 * len(s.taps) + 1) * s.low_bins)
    assert count_parameters(Denoiser(s)) == trunk + 2 * head
    assert np.isclose(s.features, 2 * s.bands + 3 * s.low_bins)
