"""Models in presets and on the command line."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import speechlike

from rtgan import offline, presets
from rtgan.errors import UsageError
from rtgan.host import Host

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def preset(zoo: Path, tmp_path: Path) -> Path:
    (tmp_path / "zoo.ts").write_bytes((zoo / "zoo.ts").read_bytes())
    path = tmp_path / "mine.yaml"
    path.write_text(
        "schema: 2\nname: Mine\nchain:\n- plugin: gain\n- plugin: model\n  model: zoo.ts\n  block_samples: 256\n"
        "  ranges: gain 0 2\n  params: {gain: 1.5}\nmidi:\n- {control: cc 74, target: model.gain}\n"
    )
    return path


def test_a_model_stands_in_a_preset_with_its_hash_and_its_parameters(preset: Path) -> None:
    loaded = presets.load(str(preset))
    assert loaded.values()["model.gain"] == 1.5 and "model.pair_1" in loaded.values()
    sound = speechlike(0.2)
    out = offline.process(sound, 48000, loaded, model__order=1)
    assert np.abs(out - 1.5 * sound).max() < 1e-5
    text = presets.dump(loaded, preset.parent)
    assert "model: zoo.ts\n  model_sha256: " in text
    assert presets.dump(presets.parse(text, "x", preset), preset.parent) == text
    presets.save(loaded, preset)
    (preset.parent / "zoo.ts").write_bytes((preset.parent / "zoo.ts").read_bytes() + b"x")
    with pytest.raises(UsageError, match="is not the file that this preset was made with: its SHA-256 is"):
        presets.load(str(preset))


def test_what_a_model_has_not_is_refused_with_file_and_line(preset: Path) -> None:
    text = preset.read_text()
    for old, new, words in (
        (
            "{gain: 1.5}",
            "{colour: 1}",
            r"mine.yaml:9: params of model has no key 'colour'; allowed: bypass, mix, on, order",
        ),
        ("{gain: 1.5}", "{gain: 3}", "3 is out of range for gain; allowed: 0 to 2"),
        ("zoo.ts", "gone.ts", "there is no model file gone.ts"),
        ("model: zoo.ts\n  ", "", "lacks the key 'model'"),
        ("target: model.gain", "target: model.size", "model.size"),
    ):
        preset.write_text(text.replace(old, new))
        with pytest.raises(UsageError, match=words):
            presets.load(str(preset))


def test_a_preset_by_name_loads_a_model_only_with_its_hash(preset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rtgan.worker import spec

    monkeypatch.setattr(spec, "_known", {})
    monkeypatch.setattr(spec, "_kept", lambda sha256: preset.parent / "nothing.json")
    with pytest.raises(UsageError, match=r"zoo.ts is code: it is loaded only for a preset given by its path, or with"):
        presets.load(str(preset), "pinned")
    listed = presets.load(str(preset), "never")
    assert "model.gain" not in listed.values() and not presets.has_run(listed.chain[1])


def test_a_model_is_swapped_in_while_it_plays(preset: Path, zoo: Path) -> None:
    source = np.tile(speechlike(1.0), 30)[None]
    with Host(presets.of_model(str(zoo / "fir.ts")), source=source) as host:
        assert host.wait_first_block()
        assert any("sha256" in n for n in host.notices)
        before = host.latency_samples
        host.load(str(preset))
        host.set("model.gain", 0.5)
        until = 0
        while host.values["model.gain"] != 0.5:
            until += 1
            assert until < 4000
            host._poll()
        assert host.latency_samples == 256 + 256 != before
        assert host.stats().faults == {"gain": 0, "model": 0}
    assert np.isfinite(host.output_so_far()).all()


def test_the_command_line_plays_a_model(cli: Cli, zoo: Path) -> None:
    done = cli(
        "live", "--model", zoo / "zoo.ts", "--set", "model.gain=0.25", "--seconds", "1", "--no-midi", "--no-panel"
    )
    assert done.returncode == 0, done.stderr
    assert "sha256" in done.stdout and "model" in done.stdout
    done = cli("live", "--model", zoo / "gone.ts")
    assert done.returncode == 2 and done.stderr.endswith(f"there is no model file {zoo / 'gone.ts'}\n")
    done = cli("live", "--model", zoo / "zoo.ts", "--preset", "podcast")
    assert done.returncode == 2 and "--model" in done.stderr
