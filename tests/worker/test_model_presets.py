"""Models in presets and on the command line."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import speechlike

from rtgan import cli as command_line
from rtgan import live, model_check, offline, presets
from rtgan.errors import UsageError
from rtgan.host import Host
from rtgan.panel import link
from rtgan.worker import spec as specs

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
    assert "model.pair_1" not in listed.values() and not presets.has_run(listed.chain[1])


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
        assert host.latency_samples == 256 + (128 + 64 + 192) != before, (
            "a block, and three quarters of it to answer in"
        )
        assert host.stats().faults == {"gain": 0, "model": 0}
    assert np.isfinite(host.output_so_far()).all()


def test_models_take_each_others_place_under_load_without_a_click(preset: Path, zoo: Path) -> None:
    tone = (0.1 * np.sin(2 * np.pi * 200 * np.arange(48000 * 30) / 48000)).astype(np.float32)
    busy, ended = [], threading.Event()
    for _ in range(2):
        busy.append(threading.Thread(target=lambda: [sum(range(1000)) for _ in iter(ended.is_set, True)]))
        busy[-1].start()
    try:
        with Host(presets.of_model(str(zoo / "fir.ts")), source=tone[None]) as host:
            assert host.wait_first_block()
            for name in (str(preset), str(zoo / "stereo.ts"), str(zoo / "new.nm"), str(zoo / "fir.ts")):
                host.load(name if name.endswith(".yaml") else presets.of_model(name))
                # Its latency, a quarter of a second to settle, and the fade.
                until = len(host.output_so_far()[0]) + 30000
                deadline = time.monotonic() + 60
                while len(host.output_so_far()[0]) < until:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            assert not any(host.stats().faults.values())
            out = host.output_so_far()[0]  # before it fades out
    finally:
        ended.set()
        for thread in busy:
            thread.join()
    # The tone's own steps are 0.0026; a filter, a gain and two sounds at once make more of them, and a click 0.1.
    assert np.abs(np.diff(out[4800:])).max() < 0.02
    heard = np.abs(out[4800 : len(out) // 480 * 480]).reshape(-1, 480).max(1)
    assert heard.min() > 0.01, "a gap"


def test_the_command_line_plays_a_model(cli: Cli, zoo: Path) -> None:
    done = cli(
        "live", "--model", zoo / "zoo.ts", "--set", "model.gain=0.25", "--seconds", "1", "--no-midi", "--no-panel"
    )
    assert done.returncode == 0, done.stderr
    assert "sha256" in done.stdout and "model" in done.stdout


def test_a_model_that_is_loaded_later_is_named_with_its_hash(preset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    looking = threading.Event()

    class Halt(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            looking.set()
            return super().wait(timeout)

    halt = Halt()
    with Host("bypass", source=speechlike(1.0)[None]) as host:
        waiting = threading.Thread(target=live._wait, args=(host, halt, None, False, None))
        waiting.start()
        try:
            assert looking.wait(20)
            host.load(presets.load(str(preset)))
            told = ""
            deadline = time.monotonic() + 20
            while "sha256" not in told and time.monotonic() < deadline:
                told += capsys.readouterr().out
                time.sleep(0.05)
        finally:
            halt.set()
            waiting.join()
    assert told.count("zoo.ts, sha256") == 1


def test_what_the_command_line_cannot_play_is_one_sentence(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["live", "--model", str(zoo / "gone.ts")]) == 2
    assert capsys.readouterr().err == f"rtgan: there is no model file {zoo / 'gone.ts'}\n"
    assert command_line.main(["live", "--model", str(zoo / "zoo.ts"), "--preset", "clean"]) == 2
    assert "--model plays a model and nothing else" in capsys.readouterr().err
    assert command_line.main(["info", str(zoo / "cuda.ts")]) == 1
    assert "it wants CUDA" in capsys.readouterr().err


def test_the_panel_shows_what_a_model_is(preset: Path) -> None:
    with Host(presets.load(str(preset)), source=speechlike(0.1)[None]) as host:
        (plugin,) = [plugin for label, plugin, _ in host.strips if label == "model"]
        (name, notice), *facts = link.card_of(plugin)
    assert name == "zoo.ts" and "sha256" in notice
    assert dict(facts)["kind"] == "an nn~ model" and "method forward" in dict(facts)


def test_info_shows_what_a_model_is(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["info", str(zoo / "latents.ts")]) == 0
    told = capsys.readouterr().out
    known = ("an nn~ model", "44100 Hz", "multiples of 16", "16 x every 16 samples ((signal) z 0")
    for words in (*known, "on the audio thread, in blocks of 64", specs.hash_of(zoo / "latents.ts")):
        assert words in told
    assert command_line.main(["info", str(zoo / "new.nm")]) == 0
    told = capsys.readouterr().out
    assert "a Neutone model" in told and "50 (0 to 100)" in told and "Neutone SDK 1.5.2" in told


def test_doctor_says_whether_a_model_holds_and_keeps_what_it_measured(
    zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_check, "_ROUNDS", 30)
    monkeypatch.setattr(model_check, "SAFE", 1e3)  # whatever else this machine does
    path = tmp_path / "fir.ts"
    path.write_bytes((zoo / "fir.ts").read_bytes())
    assert command_line.main(["doctor", str(path), "--block", "64", "--rate", "44100"]) == 0
    told = capsys.readouterr().out
    assert "on the audio thread itself" in told and "caches" in told
    kept = json.loads(path.with_name("fir.ts.latency.json").read_text())
    assert kept["measured_samples"] == kept["declared_samples"] > 0
    assert kept["sha256"] == specs.hash_of(path) and kept["methods"] == {"forward": 3}
    path = tmp_path / "zoo.ts"
    path.write_bytes((zoo / "zoo.ts").read_bytes())
    assert command_line.main(["doctor", str(path)]) == 0
    told = capsys.readouterr().out
    assert "smallest safe block" in told and "it runs in a worker: its attributes may move while it plays" in told
    assert "with `run: native` on the audio thread, for " in told
    kept = json.loads(path.with_name("zoo.ts.latency.json").read_text())
    assert (
        kept["measured_samples"] == kept["declared_samples"]
        and f"margin_samples: {kept['options']['margin_samples']}" in told
    )
    monkeypatch.setattr(model_check, "SAFE", 0.0)
    assert command_line.main(["doctor", str(path)]) == 1
    assert "will not hold on this machine" in capsys.readouterr().out
