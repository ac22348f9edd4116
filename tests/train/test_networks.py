"""The denoiser: streaming equals offline, gradients are right, and nothing odd comes out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from rtgan.errors import UsageError
from rtgan.train.networks import (
    Denoiser,
    DenoiserSettings,
    StreamingDenoiser,
    _Cell,
    _Convolution,
    count_parameters,
    macs_per_frame,
    pool,
    smoothed,
    spread,
    stream,
)
from rtgan.train.stft import Stft

ROWS = ((8, 1), (4, 2), (4, 4))  # 32 bins below the last
PHASES = pytest.mark.parametrize("phases", [1, 3])


def _settings(phases: int = 1, smoothing: float = 0.0) -> DenoiserSettings:
    return DenoiserSettings(
        n_fft=64, hop_samples=16, phases=phases, rows=ROWS, narrow=4, wide=6, blocks=2, mean_seconds=0.03,
        smoothing=smoothing,
    )  # fmt: skip


def _net(phases: int = 1, smoothing: float = 0.0) -> Denoiser:
    torch.manual_seed(0)
    net = Denoiser(_settings(phases, smoothing)).eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.3, 3)
                module.weight.uniform_(0.5, 2)
                module.bias.normal_(0, 0.3)
        net.gains.weight.mul_(4)
    return net


def _spectrum(frames: int = 61) -> torch.Tensor:
    signal = torch.randn(2, frames * 16, generator=torch.Generator().manual_seed(1)) * 0.1
    signal[1, : signal.shape[1] // 2] = 0
    return Stft(64, 16, 32).analyse(signal)


@PHASES
@pytest.mark.parametrize("smoothing", [0.0, 0.6])
def test_frame_by_frame_equals_the_whole_sequence(phases: int, smoothing: float) -> None:
    net, spectrum = _net(phases, smoothing), _spectrum()
    module = torch.jit.script(StreamingDenoiser(net))
    with torch.no_grad():
        whole, voice = net(spectrum)
        frames, chance = stream(module, spectrum, module.state_size)
    assert float((whole - frames).abs().max()) <= 1e-5 * float(whole.abs().max())
    assert float((torch.sigmoid(voice) - chance).abs().max()) <= 1e-5
    assert float((whole - spectrum).abs().max()) > 0.1 * float(spectrum.abs().max())


def test_levels_tremble_less_where_something_was_removed_and_stay_where_nothing_was() -> None:
    generator = torch.Generator().manual_seed(2)
    given = torch.randn(1, 2, 200, 33, generator=generator)
    steady = given / given.square().sum(1, keepdim=True).sqrt()
    removed = steady * 0.2 * torch.exp(0.3 * torch.randn(1, 1, 200, 33, generator=generator))

    def levels(x: torch.Tensor) -> torch.Tensor:
        return 0.5 * torch.log(x.square().sum(1))

    out = smoothed(steady, removed, 0.5, 1.5)
    assert float(levels(out).diff(dim=1).abs().mean()) < 0.8 * float(levels(removed).diff(dim=1).abs().mean())
    # Phases are as they were, and what passes untouched is what it was.
    assert torch.allclose(out / out.square().sum(1, keepdim=True).sqrt(), steady, atol=1e-5)
    assert torch.allclose(smoothed(steady, 0.999 * steady, 0.5, 1.5), 0.999 * steady, atol=1e-3)
    # Sounds begin and end at once.
    burst = removed.clone()
    burst[:, :, 100:] *= 30
    steps = levels(smoothed(30 * steady, burst, 0.5, 1.5))[:, 99:101].mean(2)[0]
    assert float(steps[1] - steps[0]) == pytest.approx(math.log(30), abs=0.2)
    with pytest.raises(
        UsageError, match=r"network\.smoothing must be at least 0 and less than 1, and network\.near above 0"
    ):
        _settings(smoothing=1.0)


@PHASES
def test_output_never_depends_on_later_frames(phases: int) -> None:
    net, spectrum = _net(phases), _spectrum()
    changed = spectrum.clone()
    changed[:, :, 30:] *= -3
    with torch.no_grad():
        (before, spoken), (after, spoken_after) = net(spectrum), net(changed)
    assert torch.equal(before[:, :, :30], after[:, :, :30])
    assert torch.equal(spoken[:, :30], spoken_after[:, :30])
    assert not torch.equal(before[:, :, 30], after[:, :, 30])


def test_phases_take_turns_and_never_mix() -> None:
    net, spectrum = _net(3), _spectrum(60)
    changed = spectrum.clone()
    changed[:, :, 1::3] *= 2
    with torch.no_grad():
        before, after = net(spectrum)[0], net(changed)[0]
        alone = net(spectrum[:, :, 1::3], one_phase=True)[0]
    assert torch.allclose(alone, before[:, :, 1::3], atol=1e-6)
    assert torch.equal(before[:, :, ::3], after[:, :, ::3]) and torch.equal(before[:, :, 2::3], after[:, :, 2::3])
    assert not torch.equal(before[:, :, 1::3], after[:, :, 1::3])


def test_open_gains_pass_the_spectrum() -> None:
    net, spectrum = _net(), _spectrum()
    with torch.no_grad():
        assert net.gains.bias is not None
        net.gains.weight.zero_()
        net.gains.bias.copy_(torch.tensor([40.0, 0.0, 0.0]))
        assert torch.allclose(net(spectrum)[0], spectrum, atol=1e-6)


def test_rows_pool_means_and_spread_back() -> None:
    values = torch.arange(33.0)
    pooled = pool(values, list(ROWS))
    assert pooled.tolist() == [*range(8), 8.5, 10.5, 12.5, 14.5, 17.5, 21.5, 25.5, 29.5]
    back = spread(pooled, list(ROWS))
    assert back.shape == (33,) and back[8:12].tolist() == [8.5, 8.5, 10.5, 10.5] and float(back[32]) == 29.5
    assert torch.equal(pool(back, list(ROWS)), pooled)


@pytest.mark.parametrize("kind", ["silence", "dc", "full scale", "impulse", "beyond"])
def test_extreme_input_stays_finite_and_silence_stays_silent(kind: str) -> None:
    net = _net()
    signal = torch.zeros(1, 3200)
    if kind == "dc":
        signal += 0.9
    elif kind == "full scale":
        signal = torch.sign(torch.sin(torch.arange(3200) * 0.05))[None]
    elif kind == "impulse":
        signal[0, 1000] = 1
    elif kind == "beyond":
        signal = torch.randn(signal.shape) * 1e4
    module = StreamingDenoiser(net)
    with torch.no_grad():
        out, chance = stream(module, Stft(64, 16, 32).analyse(signal), module.state_size)
    assert bool(torch.isfinite(out).all()) and bool(((chance >= 0) & (chance <= 1)).all())
    if kind == "silence":
        assert not bool(out.any())


def test_level_of_the_input_hardly_matters() -> None:
    net, spectrum = _net(), _spectrum()[:1] * 30
    with torch.no_grad():
        loud, soft = net(spectrum)[0], net(spectrum * 0.1)[0] * 10
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


def test_every_weight_gets_a_gradient() -> None:
    net = _net().train()
    out, voice = net(_spectrum())
    (out.square().mean() + voice.mean()).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not bool(p.grad.any())] == []


def test_counts_are_those_of_the_layers() -> None:
    settings, net = _settings(), _net()
    assert count_parameters(net) == sum(p.numel() for p in net.parameters())
    convolutions = {"first": 8, "second": 4, "third": 4, "rise": 4, "rise_again": 8}  # rows that each puts out
    wanted = 16 * net.gains.weight.numel() + net.voice.weight.numel()
    for name, rows in convolutions.items():
        layer = getattr(net, name)
        assert isinstance(layer, _Convolution)
        wanted += rows * layer.filter.weight.numel()
    for block in net.blocks:
        wanted += 4 * sum(p.numel() for name, p in block.named_parameters() if "weight" in name and "norm" not in name)
    assert macs_per_frame(settings) == wanted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": ((8, 1), (4, 2))}, "must cover 32 bins"),
        ({"rows": ((2, 16),)}, "no multiple of four"),
        ({"rows": ((8, 1, 1),)}, "pairs"),
        ({"narrow": 3}, "must be even"),
        ({"phases": 0}, "positive"),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DenoiserSettings(**({"n_fft": 64, "hop_samples": 16, "rows": ROWS} | change))  # type: ignore[arg-type]
