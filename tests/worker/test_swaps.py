"""What a model leaves behind when another takes its place, and calls that are not as long as announced."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import zoo as models
from playing import Rig, delayed
from support import speechlike

from rtgan import cli as command_line
from rtgan import offline, presets
from rtgan.graph import ChainItem, Graph
from rtgan.host import Host
from rtgan.plugin import plugin_class
from rtgan.worker import spec as specs


class Echo(torch.nn.Module):
    """nn~: an echo every 50 ms, each as loud as half of the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("forward_params", models.params(1, 1, 1, 1))
        self.register_buffer("line_pad", torch.zeros(1, 1, 2400))
        self.sr = 48000

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x + 0.5 * self.line_pad[..., : x.shape[-1]]
        self.line_pad.copy_(torch.cat([self.line_pad, y], -1)[..., -2400:])
        return y


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.save(Echo(), tmp_path_factory.mktemp("echo") / "echo.ts")


def test_how_long_a_model_sounds_on_is_measured(zoo: Path, echo: Path) -> None:
    # 80 dB are 13 echoes.
    assert specs.look(echo).tail_samples == pytest.approx(13.3 * 2400, rel=0.1)
    assert specs.look(zoo / "fir.ts").tail_samples <= 512
    assert specs.look(zoo / "chance.ts").tail_samples == 0, "it never ends by itself"


@pytest.mark.parametrize("run", ["native", "worker"])
def test_the_tail_of_a_model_that_is_swapped_out_rings_out(echo: Path, run: str) -> None:
    sound = np.zeros(48000 * 2, np.float32)
    sound[9600:14400] = speechlike(0.1)
    wanted = Rig(echo, run=run).run(sound)
    swapped = {}
    for block in (64, 997):
        rig = Rig(echo, run=run)
        heard = [rig.run(sound[:14400], 4800)]
        plain = Graph([ChainItem(plugin_class("gain")(), {}, "it")], 48000, 512, 1)
        old = rig.graph.serial
        rig.engine.publish(plain)
        heard.append(rig.run(sound[14400:], block))
        swapped[block] = np.concatenate(heard)
        rig.engine.poll()
        assert not rig.engine.holds(old) and rig.engine.holds(plain.serial), "it goes when it is silent"
    out = swapped[64]
    assert np.abs(wanted[20000:]).max() > 0.01
    late = 14400 + rig.latency + 48000 // 10
    assert np.abs(out[late:] - wanted[late:]).max() < 1e-4
    assert np.abs(out - swapped[997]).max() < 1e-4


def test_what_never_ends_by_itself_fades(zoo: Path) -> None:
    rig = Rig(zoo / "chance.ts")
    rig.run(speechlike(0.1))
    rig.engine.publish(Graph([ChainItem(plugin_class("gain")(), {}, "it")], 48000, 512, 1))
    assert not rig.run(np.zeros(24000, np.float32))[4800:].any()


def test_a_tone_goes_over_without_a_step_where_a_tail_rings(echo: Path) -> None:
    tone = (0.1 * np.sin(2 * np.pi * 200 * np.arange(96000) / 48000)).astype(np.float32)
    rig = Rig(echo)
    heard = [rig.run(tone[:24000])]
    for k in range(3):  # the second and third come while the first still rings
        name = (str(echo), "", str(echo))[k]
        if name:
            given = {"model": name, "run": "worker", "block_samples": "256"}
            made = plugin_class("model").variant(given, load=True)
            assert made is not None
            plugin = made(**given)
        else:
            plugin = plugin_class("gain")()
        graph = Graph([ChainItem(plugin, {}, "it")], 48000, 512, 1)
        graph.wait_for_workers()
        rig.engine.publish(graph)
        heard.append(rig.run(tone[24000 + 20000 * k :][:20000]))
    assert np.abs(np.diff(np.concatenate(heard)[4800:])).max() < 0.02


def test_a_call_of_another_length_costs_a_block_and_no_step(zoo: Path) -> None:
    tone = (0.1 * np.sin(2 * np.pi * 200 * np.arange(48000) / 48000)).astype(np.float32)
    rig = Rig(zoo / "latents.ts", 44100, run="auto", call=128)
    assert rig.latency == 0 and not rig.graph.slipped
    first = rig.run(tone[:12800], 128)
    assert np.abs(first - tone[:12800]).max() < 1e-6
    second = rig.run(tone[12800:], 100)
    assert rig.graph.slipped
    assert np.abs(second[200:] - delayed(tone, 64)[12800:][200:]).max() < 1e-6
    assert np.abs(np.diff(np.concatenate([first, second]))).max() < 0.006


def test_events_wait_for_whole_calls_where_a_model_counts_on_them(zoo: Path) -> None:
    rig = Rig(zoo / "latents.ts", 44100, run="auto", method="latents", call=64)
    sound = speechlike(0.2)
    for k in range(20):
        rig.set("latent_1_gain", 1.0, 100 + 333 * k)
    assert np.abs(rig.run(sound, 64) - sound).max() < 1e-5 and not rig.graph.slipped


def test_a_take_of_a_model_that_counts_on_whole_calls_is_performed_again(echo: Path, tmp_path: Path) -> None:
    take = tmp_path / "take.wav"
    source = np.tile(speechlike(1.0), 30)[None]
    with Host(presets.of_model(str(echo)), source=source, block=128, record=take) as host:
        assert host.wait_first_block() and host.latency_samples == 0
        label = host.preset.chain[0].plugin
        for k in range(4):
            host.set(f"{label}.mix", 90.0 - 20 * k)
            time.sleep(0.1)
    log = tmp_path / "take.events.jsonl"
    assert offline.read_log(log, allow_code=True)[4] == 128
    assert command_line.main(["replay", str(take), "--allow-code"]) == 0
    again = tmp_path / "again.wav"
    rendered = ["process", str(tmp_path / "take.dry.wav"), "-o", str(again), "--events", str(log)]
    assert command_line.main([*rendered, "--keep-latency", "--allow-code"]) == 0
    wet, dry = (soundfile.read(path, dtype="float32")[0] for path in (take, tmp_path / "take.dry.wav"))
    assert np.array_equal(soundfile.read(again, dtype="float32")[0], wet) and not np.array_equal(wet, dry)


def test_a_host_whose_device_does_not_keep_its_word_builds_anew(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Host, "_period", lambda host: 64)
    source = np.tile(speechlike(1.0), 30)[None]
    with Host(presets.of_model(str(zoo / "stereo.ts")), source=source, block=100) as host:
        deadline = time.monotonic() + 30
        while host.latency_samples != 64 or host._graph.slipped or host._renewing:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert any("are not all of 64 samples" in w for w in host.stats().warnings)
