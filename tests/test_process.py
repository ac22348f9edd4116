"""``rtgan process`` and `rtgan.process`: files in, files of the same length and place in time out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from support import speechlike

import rtgan
from rtgan import offline, presets
from rtgan.errors import UsageError
from rtgan.generators import library
from rtgan.generators.files import sha256_of

Cli = Callable[..., Any]


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 88200, 96000, 192000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_keeps_length_shape_and_alignment(rate: int, channels: int) -> None:
    sound = np.stack([speechlike(0.4, rate, seed=c) for c in range(channels)])
    spectrum = np.fft.rfft(sound)
    spectrum[:, int(0.4 * min(rate, 48000) * sound.shape[1] / rate) :] = 0  # what every converter lets through
    sound = np.fft.irfft(spectrum, sound.shape[1]).astype(np.float32)
    chain = "schema: 1\nname: t\nchain:\n- {plugin: limiter, params: {ceiling_db: 0}}\n"
    out = rtgan.process(sound, rate, preset=presets.parse(chain))
    assert out.shape == sound.shape
    assert out.dtype == np.float32
    # Nothing is above the ceiling: what comes out is what went in, in place.
    edge = sound.shape[1] // 10
    error = out[:, edge:-edge] - sound[:, edge:-edge]
    assert 10 * np.log10(np.mean(error**2) / np.mean(sound**2)) < -60


def test_mono_arrays_come_back_mono_and_settings_apply() -> None:
    sound = speechlike(0.3)
    chain = presets.parse("schema: 1\nname: t\nchain:\n- {plugin: gain}\n")
    assert np.array_equal(rtgan.process(sound, 48000, preset=chain), sound)
    quiet = rtgan.process(sound, 48000, preset=chain, gain__gain_db=-20)
    assert np.allclose(quiet, sound * 0.1, atol=1e-6)


def test_more_than_two_channels_of_a_file_are_processed() -> None:
    sound = np.stack([speechlike(0.2, seed=c) for c in range(5)])
    out = rtgan.process(sound, 48000, preset="bypass")
    assert np.array_equal(out, sound)


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros(0, np.float32), 48000, "not be empty"),
        (np.zeros((1, 2, 3), np.float32), 48000, "must have the shape"),
        (np.zeros(10, np.int16), 48000, "floating point"),
        (np.full(10, np.nan, np.float32), 48000, "not finite"),
        (np.zeros(10, np.float32), 0, "1000 to 768000"),
        (np.zeros(10, np.float32), 44100.5, "whole number"),
    ],
)
def test_bad_samples_are_refused(samples: Any, rate: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        rtgan.process(samples, rate, preset="bypass")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"nothing__x": 1}, "there is no 'nothing' in the preset"),
        ({"limiter__loudness": 1}, "has no parameter 'loudness'; it has: bypass, mix, ceiling_db"),
        ({"limiter__ceiling_db": 9}, "limiter.ceiling_db: 9 is out of range .* allowed: -24 to 0 dBFS"),
    ],
)
def test_bad_settings_are_refused(setting: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        rtgan.process(np.zeros(100, np.float32), 48000, preset="voice-basic", **setting)


@pytest.mark.parametrize("ending", [".wav", ".flac", ".ogg"])
def test_the_command_reads_and_writes_the_common_formats(cli: Cli, tmp_path: Path, ending: str) -> None:
    source, target = tmp_path / f"in{ending}", tmp_path / f"out{ending}"
    sound = np.stack([speechlike(1.0, 44100, seed=c) for c in range(2)], 1)
    soundfile.write(source, sound, 44100)
    done = cli("process", source, "-o", target, "--preset", "voice-basic",
               "--set", "gate.threshold_db=-90", "--set", "highpass.cutoff_hz=10")  # fmt: skip
    assert done.returncode == 0, done.stderr
    frames, rate = soundfile.read(target)
    assert (rate, frames.shape) == (44100, sound.shape)
    assert np.corrcoef(frames[:, 0], sound[:, 0])[0, 1] > 0.98


def test_several_files_go_to_a_folder(cli: Cli, tmp_path: Path) -> None:
    for name in ("a.wav", "b.flac"):
        soundfile.write(tmp_path / name, speechlike(0.2), 48000)
    out = tmp_path / "out"
    out.mkdir()
    done = cli("process", tmp_path / "a.wav", tmp_path / "b.flac", "-o", out, "--preset", "bypass")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in out.iterdir()) == ["a.wav", "b.flac"]


def test_live_and_offline_share_every_bit_whatever_the_pieces(rng: np.random.Generator) -> None:
    """A `Renderer` fed in random pieces is what a device does; `process` feeds large ones."""
    sound = speechlike(1.0)[None]
    expected = rtgan.process(sound, 48000, preset="voice-basic", keep_latency=True)
    renderer = offline.Renderer(presets.load("voice-basic"), 48000, 1)
    cuts = np.sort(rng.integers(1, sound.shape[1], 200))
    pieces = [renderer.push(p) for p in np.split(sound, cuts, axis=1) if p.shape[1]]
    assert np.array_equal(np.concatenate(pieces, axis=1).view(np.int32), expected.view(np.int32))


def test_an_event_log_round_trips_and_bad_ones_name_the_line(tmp_path: Path) -> None:
    preset = presets.load("voice-basic")
    other = presets.load("bypass")
    steps = [
        offline.Step(4800, "gate.threshold_db", -20.0),
        offline.Step(9600, preset=other, values={}),
    ]
    path = tmp_path / "log.jsonl"
    values = {"limiter.drive_db": 3.0}
    lines = [offline.log_header(preset, 48000, 1, values), *map(offline.log_step, steps)]
    path.write_text("\n".join(lines))
    read_preset, read_values, read_steps, rate, _ = offline.read_log(path)
    assert (read_preset, read_values, rate) == (preset, values, 48000)
    assert read_steps == steps
    for number, broken in (
        (1, "{"),
        (2, "[]"),
        (2, "{}"),
        (3, '{"position": "x", "param": "a", "value": 1, "graph": 0}'),
        (3, '{"position": 9, "param": "gate.range_db", "value": 1, "graph": 1}'),
        (3, '{"position": 9, "param": "gate.range_db", "value": 1, "graph": -1}'),
    ):
        path.write_text("\n".join([*lines[: number - 1], broken]))
        with pytest.raises(UsageError, match=f"log.jsonl:{number}"):
            offline.read_log(path)
    early = '{"position": 9, "param": "limiter.drive_db", "value": 1, "graph": 1}'
    path.write_text("\n".join([*lines, early]))
    with pytest.raises(UsageError, match=r"log.jsonl:4: .* graph 1 has not been loaded by sample 9"):
        offline.read_log(path)


def test_a_log_that_names_code_or_models_of_its_own_must_be_trusted(cli: Cli, tmp_path: Path) -> None:
    ran, plugin, log = tmp_path / "ran", tmp_path / "own.py", tmp_path / "take.events.jsonl"
    plugin.write_text(
        f"open({str(ran)!r}, 'w')\nfrom rtgan.plugins.gain import Gain\nclass Own(Gain):\n    id = 'own'\n"
    )
    for name in ("take.dry.wav", "in.wav"):
        soundfile.write(tmp_path / name, speechlike(0.2), 48000, subtype="FLOAT")
    coded = presets.Preset("Coded", (presets.Entry(str(plugin), hashes={"plugin": sha256_of(plugin)}),))
    plain = presets.load("bypass")
    for first, then in ((coded, ()), (plain, (offline.Step(10, preset=coded, values={}),))):
        log.write_text("\n".join([offline.log_header(first, 48000, 1, {}), *map(offline.log_step, then)]))
        with pytest.raises(UsageError, match=rf"jsonl:{1 + len(then)}: the performance names .*own.py; .*--allow-code"):
            offline.read_log(log)
    refused = cli("replay", tmp_path / "take.wav")
    assert refused.returncode == 2 and "--allow-code" in refused.stderr and "Traceback" not in refused.stderr
    out = tmp_path / "out.wav"
    assert cli("process", tmp_path / "in.wav", "-o", out, "--events", log).returncode == 2
    assert not ran.exists() and not out.exists()
    done = cli("process", tmp_path / "in.wav", "-o", out, "--events", log, "--allow-code")
    assert done.returncode == 0, done.stderr
    assert ran.exists() and out.exists()
    shipped = library.find("voice-live")
    assert shipped is not None
    model = tmp_path / "mine.ts"
    model.write_bytes(shipped.read_bytes())
    own = presets.Preset("Own", (presets.Entry("denoise", options={"model": str(model)}),))
    log.write_text(offline.log_header(own, 48000, 1, {}))
    with pytest.raises(UsageError, match=r"names .*mine.ts; .*--allow-code"):
        offline.read_log(log)
    assert offline.read_log(log, allow_code=True)[0].chain[0].options == {"model": str(model)}
