"""Losses on pairs whose value is known."""

from __future__ import annotations

import math

import pytest
import torch

from rtgan.errors import UsageError
from rtgan.train.losses import CompressedSpectral, LossSum, SiSdr, level_scale


def _noise(seed: int, samples: int = 24000) -> torch.Tensor:
    return torch.randn(2, samples, generator=torch.Generator().manual_seed(seed))


def test_equal_signals_cost_nothing() -> None:
    loss = CompressedSpectral(n_fft=(256, 512))
    assert float(loss(_noise(0), _noise(0))) == 0.0
    assert float(SiSdr(30.0)(_noise(0), _noise(0))) == pytest.approx(-30.0, abs=1e-3)


def test_scale_does_not_matter_to_si_sdr_and_orthogonal_noise_counts_in_decibel() -> None:
    target = torch.zeros(1, 8000)
    target[0, ::2] = 1
    error = torch.zeros(1, 8000)
    error[0, 1::2] = 10 ** (-10 / 20)
    loss = SiSdr(limit_db=100.0)
    assert float(loss(target + error, target)) == pytest.approx(-10, abs=0.01)
    assert float(loss(5 * (target + error), target)) == pytest.approx(-10, abs=0.01)


def test_silent_targets_are_left_out_of_si_sdr() -> None:
    target, estimate = _noise(0), _noise(1)
    target[1] = 0
    assert float(SiSdr()(estimate, target)) == pytest.approx(float(SiSdr()(estimate[:1], target[:1])), rel=1e-5)
    assert math.isfinite(float(SiSdr()(estimate, torch.zeros_like(target))))


def test_halving_a_signal_costs_what_the_power_says() -> None:
    # magnitudes differ by a factor: |x|^c (1 - g^c), the same for the complex part as the phase is kept
    target = _noise(0) * 1000
    for power, gain in ((0.3, 0.5), (1.0, 0.5)):
        loss = CompressedSpectral(power=power, n_fft=(512,), complex_share=0.5)
        silence = loss(torch.zeros_like(target), target)
        part = loss(gain * target, target)
        assert float(part / silence) == pytest.approx((1 - gain**power) ** 2, rel=0.08)


def test_left_in_noise_weighs_more_where_asked() -> None:
    target = _noise(0)
    even, strict = CompressedSpectral(n_fft=(512,)), CompressedSpectral(n_fft=(512,), removal_weight=3.0)
    assert float(strict(2 * target, target)) > 1.5 * float(even(2 * target, target))
    assert float(strict(0.5 * target, target)) == pytest.approx(float(even(0.5 * target, target)), rel=1e-4)


def test_phase_costs_only_where_complex_values_count() -> None:
    target = _noise(0)
    assert float(CompressedSpectral(complex_share=0.0)(-target, target)) == pytest.approx(0, abs=1e-9)
    assert float(CompressedSpectral(complex_share=0.5)(-target, target)) > 0.1


def test_gradients_are_finite_at_silence() -> None:
    estimate = torch.zeros(1, 4096, requires_grad=True)
    loss, _ = LossSum({"compressed": {}, "si_sdr": {"weight": 0.1}})(estimate, torch.zeros(1, 4096))
    loss.backward()
    assert estimate.grad is not None and bool(torch.isfinite(estimate.grad).all())


def test_level_is_taken_out() -> None:
    signal = _noise(0) * 0.01
    assert torch.allclose((signal * level_scale(signal)).square().mean(-1), torch.ones(2), atol=1e-4)
    assert bool(torch.isfinite(level_scale(torch.zeros(1, 100))).all())


def test_sum_is_weighted_and_named() -> None:
    target, estimate = _noise(0), _noise(1)
    total, parts = LossSum({"compressed": {"weight": 2.0}, "si_sdr": {"weight": 0.5}})(estimate, target)
    assert float(total) == pytest.approx(2 * float(parts["compressed"]) + 0.5 * float(parts["si_sdr"]), rel=1e-5)


def test_unknown_terms_and_settings_are_refused() -> None:
    with pytest.raises(UsageError, match=r"losses\.magic is not known"):
        LossSum({"magic": {}})
    with pytest.raises(UsageError, match=r"losses\.si_sdr"):
        LossSum({"si_sdr": {"colour": 1}})
    with pytest.raises(UsageError):
        LossSum({})
