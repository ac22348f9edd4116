"""nn~, Neutone and plain modules: what is found out about a file, what its parameters do, what is refused."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zoo as models
from playing import Rig, delayed
from support import speechlike

from rtgan.errors import RtganError, UsageError
from rtgan.worker import spec as specs

SOUND = speechlike(0.15)


def names(path: Path, *choices: str) -> list[str]:
    return [knob.param.id for knob in specs.look(path).knobs(*choices)]


# --- nn~ ---


def test_methods_ratios_labels_and_attributes_are_read(zoo: Path) -> None:
    latents = specs.look(zoo / "latents.ts")
    assert latents.kind == "nn~" and latents.ratio == 16 and latents.rate_hz == 44100
    encode = latents.methods["encode"]
    assert (encode.channels_in, encode.ratio_in, encode.channels_out, encode.ratio_out) == (1, 1, 16, 16)
    assert encode.labels_out[0] == "(signal) loudness"
    assert any("does not say its sample rate" in f for f in latents.findings)
    zoo_spec = specs.look(zoo / "zoo.ts")
    assert [a.name for a in zoo_spec.attributes] == ["on", "order", "gain", "mode", "pair", "room", "curve"]
    assert names(zoo / "zoo.ts") == ["on", "order", "gain", "pair_1", "pair_2"]
    fir = specs.look(zoo / "fir.ts")
    assert fir.rows and fir.state == "buffers" and fir.methods["forward"].delay_samples == 3
    assert specs.look(zoo / "chance.ts").random and not fir.random


def test_old_exports_are_found_by_their_tables(zoo: Path) -> None:
    assert list(specs.look(zoo / "old.ts").methods) == ["forward", "envelope", "tone"]
    out = Rig(zoo / "old.ts", 44100).run(SOUND)
    assert np.array_equal(out, 0.5 * delayed(SOUND, 1024))


def test_control_signals_hold_until_their_next_value_and_are_parameters_where_they_go_in(zoo: Path) -> None:
    out = Rig(zoo / "old.ts", 44100, method="envelope").run(SOUND)[1024:]
    steps = out[: len(out) // 32 * 32].reshape(-1, 32)
    assert (steps == steps[:, :1]).all()
    assert np.array_equal(steps[:20, 0], np.abs(SOUND[:640].reshape(-1, 32)).max(1))
    rig = Rig(zoo / "old.ts", 44100, method="tone", values={"input_1": 0.25})
    assert rig.run(SOUND)[1024:] == pytest.approx(0.25)


def test_attributes_are_parameters_and_a_refused_one_stays_as_it_was(zoo: Path) -> None:
    rig = Rig(zoo / "zoo.ts", values={"gain": 0.25, "order": 4, "pair_1": 0.125})
    assert np.abs(rig.run(SOUND)[1024:] - SOUND[:-1024] - 0.125).max() < 1e-6
    rig.set("order", 9)
    for _ in range(200):
        assert np.abs(rig.run(SOUND)[2048:]).max() < 0.6, "it was set all the same"
        if any("refuses order = 9" in problem for problem in rig.graph.problems):
            break
    else:
        pytest.fail("nothing was said")
    rig = Rig(zoo / "zoo.ts", values={"on": 0})
    assert not rig.run(SOUND).any()


def test_texts_and_sound_files_are_set_when_it_is_loaded(zoo: Path, tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "room.wav", np.full(100, 0.25, np.float32), 48000, subtype="FLOAT")
    with pytest.raises(RtganError, match="curve takes numbers with spaces between, not 'high'"):
        Rig(zoo / "zoo.ts", attributes="curve=high")
    rig = Rig(zoo / "zoo.ts", attributes=f"mode=negative; room={tmp_path / 'room.wav'}; curve=0.25 0.75")
    assert np.abs(rig.run(SOUND)[1024:] + SOUND[:-1024] - 0.25).max() < 1e-6
    with pytest.raises(RtganError, match="order takes a whole number, not 'many'"):
        Rig(zoo / "zoo.ts", attributes="order=many")
    with pytest.raises(RtganError, match="refuses order = 9"):
        Rig(zoo / "zoo.ts", attributes="order=9")


def test_hands_on_the_latents(zoo: Path) -> None:
    assert names(zoo / "latents.ts", "latents")[:4] == [
        "latent_1_add",
        "latent_1_gain",
        "latent_2_add",
        "latent_2_gain",
    ]
    same = Rig(zoo / "latents.ts", 44100, method="latents").run(SOUND)
    assert np.abs(same - delayed(SOUND, 1024)).max() < 1e-5
    flat = {f"latent_{k}_gain": 0.0 for k in range(1, 17)}
    assert not Rig(zoo / "latents.ts", 44100, method="latents", values=flat).run(SOUND).any()
    rig = Rig(zoo / "latents.ts", 44100, method="latents", values={**flat, "latent_1_add": 1.0})
    moved = rig.run(SOUND)[2048:4096].reshape(-1, 16)
    assert np.abs(moved - moved[0]).max() < 1e-6 and np.abs(moved).max() > 0.1, "the sound of a latent alone"


def test_a_block_that_a_model_cannot_have_is_refused(zoo: Path) -> None:
    assert specs.look(zoo / "hungry.ts").block_for(0) == 2048
    with pytest.raises(UsageError, match="multiples of 2048 samples, not 512"):
        Rig(zoo / "hungry.ts", block_samples="512")
    with pytest.raises(UsageError, match="no method 'dance'; it has: encode, decode, forward, latents"):
        Rig(zoo / "latents.ts", method="dance")


def test_ranges_come_from_the_preset_where_no_file_tells_them(zoo: Path) -> None:
    gain = next(k for k in specs.look(zoo / "zoo.ts").knobs("", "gain -2 2") if k.param.id == "gain").param
    assert (gain.minimum, gain.maximum, gain.default) == (-2, 2, 0.5)
    with pytest.raises(UsageError, match="no parameter 'colour' to give a range to; it has: on, order, gain"):
        specs.look(zoo / "zoo.ts").knobs("", "colour 0 1")


# --- Neutone ---


@pytest.mark.parametrize("dialect, plain", [("old.nm", 0.25), ("new.nm", 25.0)])
def test_both_dialects_of_neutone(zoo: Path, dialect: str, plain: float) -> None:
    spec = specs.look(zoo / dialect)
    assert spec.kind == "neutone" and spec.rate_hz == 48000 and spec.blocks == (256,)
    assert spec.about["name"] == "fixture"
    assert names(zoo / dialect) == ["cut", "wet", "dry", "input_gain_db", "output_gain_db"]
    rig = Rig(zoo / dialect)
    assert rig.latency == 256 + 256 + 7
    assert np.abs(rig.run(SOUND) - 0.5 * delayed(SOUND, rig.latency)).max() < 1e-6
    rig = Rig(zoo / dialect, values={"cut": plain})
    assert np.abs(rig.run(SOUND) - 0.75 * delayed(SOUND, rig.latency)).max() < 1e-6


def test_dry_is_as_late_as_wet_and_gains_are_in_db(zoo: Path) -> None:
    rig = Rig(zoo / "new.nm", values={"cut": 0, "wet": 0.5, "dry": 0.5})
    assert np.abs(rig.run(SOUND) - delayed(SOUND, rig.latency)).max() < 1e-6
    assert Rig(zoo / "new.nm", 44100).latency == rig.latency, "at a rate of its own nothing is resampled"
    rig = Rig(zoo / "new.nm", values={"cut": 0, "input_gain_db": -20, "output_gain_db": 14})
    assert np.abs(rig.run(SOUND) - 10 ** (-0.3) * delayed(SOUND, rig.latency)).max() < 1e-6


def test_a_stereo_neutone_model_hears_both_sides(tmp_path: Path) -> None:
    both = {**models.NEW_DIALECT, "is_input_mono": False, "is_output_mono": False}
    path = models.save(models.Neutone(256, 2), tmp_path / "m.nm", both)
    stereo = np.stack([SOUND, SOUND[::-1]], 1)
    for run in ("auto", "worker"):
        rig = Rig(path, channels=2, run=run)
        assert np.abs(rig.run(stereo) - 0.5 * delayed(stereo, rig.latency)).max() < 1e-6


def test_choices_of_neutone_are_numbers_with_their_names(tmp_path: Path) -> None:
    entry = {"name": "mode", "description": "how it sounds", "default_value": 2, "used": True, "type": "categorical",
             "n_values": 4, "labels": ["plain", "warm", "bright", "odd"]}  # fmt: skip
    path = models.save(
        models.Neutone(256), tmp_path / "m.nm", {**models.NEW_DIALECT, "neutone_parameters": {"p1": entry}}
    )
    mode = specs.look(path).knobs()[0].param
    assert (mode.id, mode.minimum, mode.maximum, mode.default) == ("mode", 0, 3, 2) and "1 warm" in mode.description
    rig = Rig(path)
    assert np.abs(rig.run(SOUND) - delayed(SOUND, rig.latency) / 3).max() < 1e-6


def test_a_neutone_file_without_metadata_is_asked(tmp_path: Path) -> None:
    path = models.save(models.Bare(256), tmp_path / "m.ts")
    spec = specs.look(path)
    assert spec.kind == "neutone" and spec.blocks == (256,) and spec.rates_hz == (48000,)
    assert names(path) == ["cut", "wet", "dry", "input_gain_db", "output_gain_db"]
    rig = Rig(path)
    assert np.abs(rig.run(SOUND) - 0.5 * delayed(SOUND, rig.latency)).max() < 1e-6


def test_a_rate_that_only_a_method_tells_is_taken_and_not_written_over(tmp_path: Path) -> None:
    path = models.save(models.Rated(), tmp_path / "rated.ts")
    assert specs.look(path).rate_hz == 32000 and not specs.look(path).findings
    rig = Rig(path, 48000)
    tone = (0.1 * np.sin(2 * np.pi * 200 * np.arange(12000) / 48000)).astype(np.float32)
    assert np.abs(rig.run(tone)[4800:] - delayed(tone, rig.latency)[4800:]).max() < 1e-3


@pytest.mark.parametrize("rate", [44100, 48000])
def test_a_neutone_model_is_told_its_rate_and_block(tmp_path: Path, rate: int) -> None:
    data = {**models.OLD_DIALECT, "native_sample_rates": [rate], "native_buffer_sizes": [256]}
    out = Rig(models.save(models.Daw(), tmp_path / "daw.nm", data), rate).run(np.zeros(4096, np.float32))
    assert out[2048:] == pytest.approx(rate / 96000 + 256e-6, abs=1e-6)


def test_a_panel_of_microphones_goes_through_one_call_each_row_by_itself(zoo: Path) -> None:
    sound = np.stack([speechlike(0.1, seed=k) for k in range(8)], 1)
    rig = Rig(zoo / "fir.ts", channels=8)
    out = rig.run(sound)
    assert specs.look(zoo / "fir.ts").rows
    for k in (0, 7):
        assert np.abs(out[:, k] - Rig(zoo / "fir.ts").run(np.ascontiguousarray(sound[:, k]))).max() < 1e-6


# --- what is refused ---


def test_what_does_not_work_in_real_time_is_refused(tmp_path: Path) -> None:
    path = models.save(models.Inner(256), tmp_path / "m.nm", models.NEW_DIALECT)
    with pytest.raises(RtganError, match="is a Neutone model that does not work in real time"):
        specs.look(path)


@pytest.mark.parametrize(
    "file, words",
    [
        ("cuda.ts", "it wants CUDA"),
        ("double.ts", "gives torch.int64 where sound has to come out"),
        ("exact.ts", "takes no sound: .*double"),
        ("giant.ts", "asks for more memory than there is"),
    ],
)
def test_models_that_cannot_play_are_refused_in_one_sentence(zoo: Path, file: str, words: str) -> None:
    with pytest.raises(RtganError, match=words) as refusal:
        specs.look(zoo / file)
    assert str(zoo / file) in str(refusal.value) and "\n" not in str(refusal.value)


def test_one_that_never_ends_loading_is_given_up(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specs, "LOAD_S", 2.0)
    with pytest.raises(RtganError, match="cannot be loaded: it did not answer within 2 s"):
        specs.look(zoo / "stuck.ts")


def test_damaged_files_are_refused_in_one_sentence(zoo: Path, tmp_path: Path) -> None:
    whole = (zoo / "fir.ts").read_bytes()
    for name, data in {"short": whole[: len(whole) // 2], "empty": b"", "noise": os.urandom(4096)}.items():
        path = tmp_path / f"{name}.ts"
        path.write_bytes(data)
        with pytest.raises(RtganError, match="is not a TorchScript model: the file is truncated or of another kind"):
            specs.look(path)
    with zipfile.ZipFile(tmp_path / "other.ts", "w") as archive:
        archive.writestr("a/b.txt", "no model")
    with pytest.raises(RtganError, match=r"no TorchScript model|cannot be loaded as TorchScript"):
        specs.look(tmp_path / "other.ts")


def test_a_file_too_large_to_be_a_model_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.ts"
    with path.open("wb") as file:
        file.truncate(specs.LARGEST_BYTES + (1 << 20))
    with pytest.raises(RtganError, match="has 4097 MiB; at most 4096 are read"):
        specs.look(path)


def test_without_torch_one_sentence_says_what_to_install(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from rtgan.worker import nursery

    monkeypatch.setattr(nursery, "_nursery", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(specs, "known", lambda path: None)
    with pytest.raises(RtganError, match=r"needs torch, which is not installed: pip install 'rtgan\[torch\]'"):
        specs.look(zoo / "fir.ts")


@pytest.mark.parametrize("run", ["worker", "native"])
@pytest.mark.parametrize("method", ["forward", "latents"])
def test_rave_gives_two_channels_where_a_preset_says_so(zoo: Path, method: str, run: str) -> None:
    sound = np.repeat(speechlike(0.2)[:, None], 2, 1)
    narrow = Rig(zoo / "rave.ts", channels=2, method=method, run=run)
    wide = Rig(zoo / "rave.ts", channels=2, method=method, run=run, attributes="stereo_mode = on")
    one, two = narrow.run(sound), wide.run(sound)
    assert wide.latency == narrow.latency and np.abs(one).max() > 0.01
    assert np.array_equal(one[:, 0], one[:, 1])
    assert np.allclose(two, one * [1.0, 0.5], atol=1e-6)
    off = Rig(zoo / "rave.ts", channels=2, method=method, run=run, attributes="stereo_mode=off")
    assert np.array_equal(off.run(sound), one)


def test_a_switch_of_raves_is_told_and_refuses_what_is_no_switch(zoo: Path) -> None:
    facts = dict(specs.look(zoo / "rave.ts").facts())
    assert facts["stereo_mode"] == "False" and "attribute stereo_mode" in facts
    with pytest.raises(RtganError, match="stereo_mode takes on or off, not 'wide'"):
        Rig(zoo / "rave.ts", attributes="stereo_mode=wide")
