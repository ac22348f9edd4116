"""Mixing: the same bits for a seed, the asked-for ratio, and both sides of the split kept apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rtgan.errors import UsageError
from rtgan.train.mixing import PLAIN, Mixer, MixSettings, _coded, active_level, generated_noise, generated_room

SHORT = {"seconds": 0.5}


def test_an_example_is_a_function_of_seed_and_number(corpus: Any) -> None:
    settings = MixSettings(**SHORT, reverb_chance=0.5, codec_chance=0.5, clip_chance=0.5)
    first, again = Mixer(corpus, settings, 5), Mixer(corpus, settings, 5)
    for number in (3, 0, 3, 17):
        a, b = first(number), again(number)
        assert np.array_equal(a.noisy, b.noisy) and np.array_equal(a.clean, b.clean)
    assert not np.array_equal(first(0).noisy, first(1).noisy)
    assert not np.array_equal(first(0).noisy, Mixer(corpus, settings, 6)(0).noisy)


def test_ratio_and_level_are_those_drawn(corpus: Any) -> None:
    settings = MixSettings(
        **SHORT,
        snr_db=(5.0, 5.0),
        level_db=(-30.0, -30.0),
        reverb_chance=0,
        clean_chance=0,
        speechless_chance=0,
        clip_chance=0,
        codec_chance=0,
    )
    mixer = Mixer(corpus, settings, 1)
    for number in range(6):
        mix = mixer(number)
        assert 20 * np.log10(active_level(mix.clean)) == pytest.approx(-30, abs=0.1)
        ratio = active_level(mix.clean) / active_level(mix.noisy - mix.clean)
        assert 20 * np.log10(ratio) == pytest.approx(5.0, abs=0.1)


def test_examples_are_finite_float32_within_full_scale(corpus: Any) -> None:
    mixer = Mixer(corpus, MixSettings(**SHORT, reverb_chance=0.5, level_db=(-10, 0)), 2)
    for number in range(30):
        mix = mixer(number)
        for signal in (mix.noisy, mix.clean):
            assert signal.dtype == np.float32 and signal.shape == (24000,) and bool(np.isfinite(signal).all())
        assert np.max(np.abs(mix.noisy)) <= 1.0


def test_a_target_may_be_clearer_than_the_recording_that_is_heard(corpus: Any) -> None:
    plain: dict[str, Any] = {"reverb_chance": 0, "clip_chance": 0, "codec_chance": 0, "speechless_chance": 0}
    asis, clearer = (Mixer(corpus, MixSettings(**SHORT, **plain, floor_db=depth), 1) for depth in (0.0, 20.0))
    for number in range(5):
        a, b = asis(number), clearer(number)
        assert a.kind == b.kind and a.snr_db == b.snr_db
        assert active_level(a.clean) == pytest.approx(active_level(b.clean), rel=0.05)
        # What is heard is the same, but for the level of speech, which follows the target's.
        assert np.corrcoef(a.noisy, b.noisy)[0, 1] > 0.999
    assert any(not np.array_equal(asis(n).clean, clearer(n).clean) for n in range(5))
    with pytest.raises(UsageError, match=r"mixing\.floor_db is 70\.0 but must lie between 0 and 60\."):
        MixSettings(floor_db=70.0)


def test_speechless_examples_have_a_silent_target(corpus: Any) -> None:
    mix = Mixer(corpus, MixSettings(**SHORT, speechless_chance=1.0), 1)(0)
    assert not mix.clean.any() and mix.noisy.any()


def test_held_out_recordings_are_never_drawn_for_training(corpus: Any) -> None:
    rng = np.random.default_rng(0)
    for role in ("speech", "noise"):
        trained = {corpus.draw(rng, role, False).group for _ in range(200)}
        held_out = {corpus.draw(rng, role, True).group for _ in range(200)}
        assert trained and held_out and not trained & held_out


def test_band_limit_acts_on_speech_and_noise_alike(corpus: Any) -> None:
    untouched = {"reverb_chance": 0, "speechless_chance": 0, "codec_chance": 0, "clip_chance": 0}
    mixer = Mixer(corpus, MixSettings(**SHORT, **untouched, low_pass_chance=1.0), 4)
    powers = []
    for number in range(12):
        power = np.abs(np.fft.rfft(mixer(number).noisy * np.hanning(24000))) ** 2
        powers.append(power[11500:].sum() / power.sum())
    assert max(powers) < 1e-3


def test_overdriven_examples_keep_an_even_target(corpus: Any) -> None:
    plain = {**SHORT, "codec_chance": 0, "speechless_chance": 0}
    for number in range(6):
        whole = Mixer(corpus, MixSettings(**plain, clip_chance=0), 1)(number)
        clipped = Mixer(corpus, MixSettings(**plain, clip_chance=1), 1)(number)
        assert np.array_equal(whole.clean, clipped.clean)
        assert np.max(np.abs(clipped.noisy)) < 0.95 * np.max(np.abs(whole.noisy))
        assert np.dot(clipped.noisy, whole.noisy) > 0.8 * np.linalg.norm(clipped.noisy) * np.linalg.norm(whole.noisy)


def test_codecs_leave_their_mark_in_place(corpus: Any) -> None:
    pytest.importorskip("soundfile")
    mix = Mixer(corpus, MixSettings(**SHORT, codec_chance=0, clip_chance=0, speechless_chance=0, low_pass_chance=0))(2)
    seen = set()
    for seed in range(30):
        kind = int(np.random.default_rng(seed).integers(6))
        coded = _coded(np.random.default_rng(seed), mix.noisy)
        assert np.array_equal(coded, _coded(np.random.default_rng(seed), mix.noisy))
        assert coded.shape == mix.noisy.shape and coded.dtype == np.float32 and not np.array_equal(coded, mix.noisy)
        cross = np.fft.irfft(np.fft.rfft(mix.noisy, 65536) * np.conj(np.fft.rfft(coded, 65536)))
        lag = int(np.argmax(cross))
        assert min(lag, 65536 - lag) <= 8  # a codec's delay is undone
        assert np.max(cross) > 0.6 * np.linalg.norm(coded) * np.linalg.norm(mix.noisy)
        seen.add(kind)
    assert seen == set(range(6))
    assert np.array_equal(_coded(np.random.default_rng(0), np.zeros(4800, np.float32)), np.zeros(4800, np.float32))


def test_generated_sounds_are_finite_and_audible() -> None:
    for seed in range(40):
        noise = generated_noise(np.random.default_rng(seed), 24000)
        assert noise.shape == (24000,) and bool(np.isfinite(noise).all()) and noise.std() > 1e-3
    room = generated_room(np.random.default_rng(0))
    assert room[0] == 1.0 and bool(np.isfinite(room).all())


@pytest.mark.parametrize("wrong", [{"reverb_chance": 1.5}, {"snr_db": [5, -5]}, {"seconds": 0}, {"speed": [1, 1, 1]}])
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        MixSettings(**wrong)


def test_development_mixes_alter_nothing() -> None:
    assert PLAIN.codec_chance == PLAIN.clip_chance == PLAIN.equaliser_db == PLAIN.alter_noise_chance == 0
    assert PLAIN.speed == PLAIN.noise_speed == (1.0, 1.0)
