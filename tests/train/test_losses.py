"""Losses on pairs whose value is known."""

from __future__ import annotations

import math

import pytest
import torch

from rtgan.errors import UsageError
from rtgan.train.losses import (
    Balancer,
    CompressedSpectral,
    LossSum,
    MultiResolutionMel,
    MultiResolutionStft,
    Pmsqe,
    SiSdr,
    Stoi,
    VoiceActivity,
    Waveform,
    adversarial,
    discriminating,
    feature_matching,
    level_scale,
)


def _noise(seed: int, samples: int = 24000) -> torch.Tensor:
    return torch.randn(2, samples, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "loss",
    [CompressedSpectral(n_fft=(256, 512)), MultiResolutionStft(), MultiResolutionMel(), Waveform(), Pmsqe(), Stoi()],
)
def test_equal_signals_cost_nothing_and_others_more_the_more_they_differ(loss: torch.nn.Module) -> None:
    target, error = _noise(0), _noise(1)
    costs = [float(loss(target + gain * error, target)) for gain in (0.0, 0.1, 0.4)]
    assert costs[0] == pytest.approx(0.0, abs=1e-4) and costs[0] < costs[1] < costs[2]


def test_scale_does_not_matter_to_si_sdr_and_orthogonal_noise_counts_in_decibel() -> None:
    target = torch.zeros(1, 8000)
    target[0, ::2] = 1
    error = torch.zeros(1, 8000)
    error[0, 1::2] = 10 ** (-10 / 20)
    loss = SiSdr(limit_db=100.0)
    assert float(loss(target + error, target)) == pytest.approx(-10, abs=0.01)
    assert float(loss(5 * (target + error), target)) == pytest.approx(-10, abs=0.01)
    assert float(SiSdr(30.0)(target, target)) == pytest.approx(-30.0, abs=1e-3)


def test_silent_targets_count_nothing_in_what_listens_for_speech() -> None:
    target, estimate = _noise(0), _noise(1)
    target[1] = 0
    for loss in (SiSdr(), Pmsqe(), Stoi()):
        assert float(loss(estimate, target)) == pytest.approx(float(loss(estimate[:1], target[:1])) / 2, rel=1e-5)
        assert math.isfinite(float(loss(estimate, torch.zeros_like(target))))


def test_intelligibility_is_that_of_the_measure() -> None:
    pystoi = pytest.importorskip("pystoi")
    rate = 48000
    time = torch.arange(2 * rate) / rate
    voice = sum(torch.sin(2 * math.pi * 140 * k * time + k) / k for k in range(1, 30))
    target = (voice * (0.6 + 0.4 * torch.sin(2 * math.pi * 3.1 * time)))[None]
    for gain in (0.1, 0.7, 3.0):
        noisy = target + gain * torch.randn(target.shape, generator=torch.Generator().manual_seed(3))
        wanted = pystoi.stoi(target[0].numpy(), noisy[0].numpy(), rate)
        assert 1 - float(Stoi()(noisy, target)) == pytest.approx(wanted, abs=0.02)


def test_halving_a_signal_costs_what_the_power_says() -> None:
    # magnitudes differ by a factor: |x|^c (1 - g^c), the same for the complex part as the phase is kept
    target = _noise(0) * 1000
    for power, gain in ((0.3, 0.5), (1.0, 0.5)):
        loss = CompressedSpectral(power=power, n_fft=(512,), complex_share=0.5)
        silence = loss(torch.zeros_like(target), target)
        part = loss(gain * target, target)
        assert float(part / silence) == pytest.approx((1 - gain**power) ** 2, rel=0.08)


def test_mel_bands_hear_level_and_place_and_not_what_lies_outside() -> None:
    target = _noise(0)
    deep = MultiResolutionMel(floor_db=-120)
    assert float(deep(0.5 * target, target)) == pytest.approx(math.log(2), rel=1e-3)
    # A tone that moves by less than a band costs next to nothing, one that moves by an octave much.
    time = torch.arange(24000) / 48000

    def tone(hertz: float) -> torch.Tensor:
        return torch.sin(2 * math.pi * hertz * time)[None]

    loss = MultiResolutionMel()
    assert float(loss(tone(8020), tone(8000))) < 0.1 * float(loss(tone(4000), tone(8000)))
    assert float(loss(tone(1000) + tone(20000), tone(1000))) < 0.3 * float(loss(tone(1000) + tone(12000), tone(1000)))
    with pytest.raises(UsageError, match="highest_hz"):
        MultiResolutionMel(highest_hz=30000)


def test_halving_a_signal_costs_half_a_convergence_and_the_logarithm_of_two() -> None:
    target = _noise(0)
    assert float(MultiResolutionStft(floor_db=-120)(0.5 * target, target)) == pytest.approx(0.5 + math.log(2), rel=1e-3)
    assert float(Waveform()(0.5 * target, target)) == pytest.approx(float(target.abs().mean()) / 2)


def test_left_in_noise_weighs_more_where_asked() -> None:
    target = _noise(0)
    even, strict = CompressedSpectral(n_fft=(512,)), CompressedSpectral(n_fft=(512,), removal_weight=3.0)
    assert float(strict(2 * target, target)) > 1.5 * float(even(2 * target, target))
    assert float(strict(0.5 * target, target)) == pytest.approx(float(even(0.5 * target, target)), rel=1e-4)


def test_phase_costs_only_where_complex_values_count() -> None:
    target = _noise(0)
    assert float(CompressedSpectral(complex_share=0.0)(-target, target)) == pytest.approx(0, abs=1e-9)
    assert float(CompressedSpectral(complex_share=0.5)(-target, target)) > 0.1
    for loss in (Pmsqe(), MultiResolutionStft()):
        assert float(loss(-target, target)) == pytest.approx(0, abs=1e-4)


def _tone(hertz: float, samples: int = 24000) -> torch.Tensor:
    return (2**0.5 * torch.sin(2 * math.pi * hertz / 48000 * torch.arange(samples)))[None]


def test_pmsqe_hears_as_ears_do() -> None:
    loss, voice = Pmsqe(), _tone(500) + 0.3 * _tone(1500)
    # one sone is a tone of 40 dB at 1 kHz
    power = loss._power(_tone(1000) * 100)
    assert float(power.sum(-1).mean()) == pytest.approx(1e4, rel=0.02)
    assert float((loss.loudness(power) * loss.width).sum(-1).mean()) == pytest.approx(1.0, rel=0.02)
    # what was added disturbs more than what was lost
    added, lost = voice + 0.1 * _tone(3000), voice - 0.1 * _tone(3000)
    assert float(loss(added, voice)) > 2 * float(loss(voice, voice + 0.1 * _tone(3000)))
    assert float(loss(lost, voice)) > 0
    # close to a loud tone less is heard than far from it, and beyond 8 kHz nothing
    assert float(loss(voice + 0.05 * _tone(530), voice)) < 0.5 * float(loss(voice + 0.05 * _tone(3000), voice))
    assert float(loss(voice + 0.1 * _tone(12000), voice)) == pytest.approx(0, abs=1e-3)


def test_pmsqe_falls_as_pesq_rises() -> None:
    pesq = pytest.importorskip("pesq").pesq
    from rtgan.train.data import generated_corpus
    from rtgan.train.mixing import Mixer, MixSettings
    from rtgan.train.scoring import at_16_khz

    settings = MixSettings(seconds=2.0, clean_chance=0, speechless_chance=0, pause_chance=0, snr_db=(0, 0))
    mix = Mixer(generated_corpus(seed=1, seconds=2.0, voices=6), settings)(0)
    scores, costs = [], []
    for gain in (0.02, 0.1, 0.5):
        given = mix.clean + gain * (mix.noisy - mix.clean)
        scores.append(pesq(16000, at_16_khz(mix.clean, 48000), at_16_khz(given, 48000), "wb"))
        costs.append(float(Pmsqe()(torch.from_numpy(given)[None], torch.from_numpy(mix.clean)[None])))
    assert scores == sorted(scores, reverse=True) and costs == sorted(costs)


def test_voice_is_where_the_target_is_loud() -> None:
    target = torch.zeros(2, 48000)
    target[0, 12000:36000] = _noise(0)[0]
    label = VoiceActivity().label(target, 100)
    assert not label[1].any() and not label[0, :25].any()
    assert label[0, 26:75].all() and not label[0, 78:].any()
    right, wrong = 8 * (2 * label - 1), -8 * (2 * label - 1)
    assert float(VoiceActivity()(right, target)) < 1e-3 < 5 < float(VoiceActivity()(wrong, target))


def test_gradients_are_finite_at_silence_and_at_the_answer() -> None:
    names = ("compressed", "si_sdr", "stft", "mel", "waveform", "pmsqe")
    loss = LossSum({name: {} for name in names})
    for target in (torch.zeros(1, 4096), _noise(0)[:1, :4096]):
        for given in (torch.zeros(1, 4096), target):
            estimate = given.clone().requires_grad_()
            loss.total(loss(estimate, target)).backward()
            assert estimate.grad is not None and bool(torch.isfinite(estimate.grad).all())


def test_level_is_taken_out() -> None:
    signal = _noise(0) * 0.01
    assert torch.allclose((signal * level_scale(signal)).square().mean(-1), torch.ones(2), atol=1e-4)
    assert bool(torch.isfinite(level_scale(torch.zeros(1, 100))).all())


def test_sum_is_weighted_and_named_and_leaves_out_what_weighs_nothing() -> None:
    target, estimate = _noise(0), _noise(1)
    loss = LossSum({"compressed": {"weight": 2.0}, "si_sdr": {"weight": 0.5}, "pmsqe": {"weight": 0}})
    parts = loss(estimate, target)
    assert set(parts) == {"compressed", "si_sdr"}
    total = float(loss.total(parts))
    assert total == pytest.approx(2 * float(parts["compressed"]) + 0.5 * float(parts["si_sdr"]), rel=1e-5)


def test_a_batch_costs_the_mean_of_its_halves() -> None:
    target, estimate = torch.cat((_noise(0), 0.1 * _noise(2))), torch.cat((_noise(1), 0.1 * _noise(3)))
    target[3] = 0
    loss = LossSum({name: {} for name in ("compressed", "si_sdr", "stft", "mel", "waveform", "pmsqe")})
    whole = loss(estimate, target)
    first, second = loss(estimate[:2], target[:2]), loss(estimate[2:], target[2:])
    for name, value in whole.items():
        assert float(value) == pytest.approx((float(first[name]) + float(second[name])) / 2, rel=1e-4)


def test_unknown_terms_and_settings_are_refused() -> None:
    with pytest.raises(UsageError, match=r"losses\.magic is not known"):
        LossSum({"magic": {}})
    with pytest.raises(UsageError, match=r"losses\.si_sdr"):
        LossSum({"si_sdr": {"colour": 1}})
    with pytest.raises(UsageError):
        LossSum({})


def test_adversarial_losses_have_the_values_of_their_papers() -> None:
    real, fake = [torch.tensor([[2.0], [0.5]])], [torch.tensor([[-3.0], [0.5]])]
    assert float(adversarial(fake, "hinge")) == pytest.approx(1.25)
    assert float(discriminating(real, fake, "hinge")) == pytest.approx(0.25 + 0.75)
    assert float(adversarial(fake, "least-squares")) == pytest.approx((16 + 0.25) / 2)
    assert float(discriminating(real, fake, "least-squares")) == pytest.approx((1 + 0.25) / 2 + (9 + 0.25) / 2)


def test_feature_matching_is_relative_and_moves_the_estimate_alone() -> None:
    wanted = torch.full((2, 3, 5), 4.0, requires_grad=True)
    given = torch.full((2, 3, 5), 5.0, requires_grad=True)
    loss = feature_matching([[wanted]], [[given]])
    assert float(loss.detach()) == pytest.approx(0.25)
    loss.backward()
    assert wanted.grad is None and given.grad is not None and bool((given.grad > 0).all())


def test_balanced_terms_push_by_their_weights_whatever_their_size() -> None:
    leaf = torch.zeros(2, 100, requires_grad=True)
    for factor in (1.0, 1e6):
        estimate = leaf * 1.0
        parts = {"small": estimate[:, :50].sum() / 2, "large": factor * estimate[:, 50:].sum() / 2}
        push = Balancer().gradient(estimate, parts, {"small": 3.0, "large": 1.0}, lambda value: value)
        shares = push[:, :50].norm(), push[:, 50:].norm()
        assert float(shares[0] / shares[1]) == pytest.approx(3.0, rel=1e-4)
        assert float(push[0, :50].norm()) == pytest.approx(0.75 / 2, rel=1e-4)
