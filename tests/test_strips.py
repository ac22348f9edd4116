"""Several microphones at once: each its own strip, aligned, mixed, ducked, and recorded to a file of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import soundfile
import yaml
from numpy.typing import NDArray
from support import speechlike

from rtgan import chain, events, live, offline, preset_schema, presets
from rtgan.errors import UsageError
from rtgan.events import Record
from rtgan.host import Host
from rtgan.presets import Preset

RATE = 48000
Frames = NDArray[np.float32]

ROUND = """schema: 2
name: Round
strips:
- name: anna
  input: 1
  params: {priority: 6}
  chain:
  - plugin: highpass
  - plugin: denoise
- name: ben
  input: 2
  chain:
  - plugin: limiter
    label: lid
- name: music
  input: [3, 4]
  params: {duck_db: 20, priority: 1}
  chain: []
mixer: {attack_ms: 10, hold_ms: 100, release_ms: 50}
chain:
- plugin: gain
"""


def of(text: str = ROUND) -> Preset:
    return presets.parse(text, "round.yaml")


def plain(strips: int = 3) -> str:
    named = "".join(f"- {{name: s{k + 1}, input: {k + 1}}}\n" for k in range(strips))
    return f"schema: 2\nname: Plain\nstrips:\n{named}chain: []\n"


def voices(count: int, seconds: float = 1.0) -> Frames:
    return np.stack([0.3 * speechlike(seconds, seed=k) for k in range(count)])


def test_strips_add_up_to_the_bit_and_each_has_its_level_its_place_and_its_mute() -> None:
    sound = voices(3)
    together = (sound[0] + sound[1] + sound[2]).astype(np.float32)
    out = offline.process(sound, RATE, of(plain()))
    assert np.array_equal(out, np.stack([together, together]))
    settings = {"s1__mute": 1, "s2__pan": -100, "s3__pan": 100, "s3__level_db": -20 * np.log10(2.0)}
    out = offline.process(sound, RATE, of(plain()), **settings)
    assert np.array_equal(out[0], sound[1]) and np.allclose(out[1], sound[2] / 2, atol=1e-6)
    stereo = plain(2).replace("input: 2", "input: [3, 1]")
    out = offline.process(sound, RATE, of(stereo))
    assert np.array_equal(out, np.stack([sound[0] + sound[2], sound[0] + sound[0]]))


def test_the_slowest_strip_sets_the_delay_and_the_others_wait_for_it() -> None:
    preset = of()
    renderer = offline.Renderer(preset, RATE, 4)
    alone = offline.Renderer(Preset("x", tuple(_loose(preset, "anna"))), RATE, 1)
    assert renderer.latency_samples == alone.latency_samples > 500
    assert renderer.graph.parts[:2] == [("anna-highpass", 0), ("anna-denoise", alone.latency_samples)]
    sound = np.zeros((4, 20000), np.float32)
    sound[[1, 2, 3], 5000] = 0.1, 0.2, 0.4
    out = renderer.push(sound)
    assert np.flatnonzero(np.abs(out).max(0) > 0.05).tolist() == [5000 + renderer.latency_samples]
    assert out[:, 5000 + renderer.latency_samples] == pytest.approx([0.3, 0.5], abs=1e-3)
    voice = voices(1, 2.0)
    mixed = renderer.__class__(preset, RATE, 4).push(np.vstack([voice, np.zeros((3, voice.shape[1]), np.float32)]))
    assert np.array_equal(mixed[0], alone.push(voice)[0]), "what one strip makes of it is what its chain makes of it"


def _loose(preset: Preset, strip: str) -> list[presets.Entry]:
    return [presets.Entry(e.plugin, e.params, e.options) for e in preset.chain if e.strip == strip and not e.inputs]


def test_who_speaks_ducks_those_of_lower_priority_and_nobody_else() -> None:
    seconds, period = 3.0, 480
    sound = np.zeros((3, round(seconds * RATE)), np.float32)
    tone = np.sin(2 * np.pi * 1000 / RATE * np.arange(sound.shape[1])).astype(np.float32)
    sound[2] = 0.1 * tone  # the music, in the middle of which somebody speaks
    sound[0, RATE : 2 * RATE] = 1e-1 * np.sin(2 * np.pi * 100 / RATE * np.arange(RATE))
    text = plain().replace("input: 3", "input: 3, params: {duck_db: 20, priority: 1}")
    text = text.replace("chain: []", "mixer: {attack_ms: 10, hold_ms: 100, release_ms: 50}\nchain: []")

    def music(preset: Preset) -> NDArray[np.float64]:
        """Its level in the mix by pieces of 10 ms, in dB."""
        out = offline.process(sound, RATE, preset)[0] * tone
        return 20 * np.log10(np.abs(2 * out.reshape(-1, period).mean(1)) / 0.1)

    level = music(of(text))
    assert np.allclose(level[10:95], 0, atol=0.1)
    assert np.allclose(level[120:200], -20, atol=0.5)
    assert np.allclose(level[201:208], -20, atol=0.5), "it holds"
    assert np.allclose(level[260:], 0, atol=0.1)
    assert np.abs(np.diff(level)).max() < 10
    for other in (text.replace("priority: 1", "priority: 5"), text.replace("duck_db: 20", "duck_db: 0"),
                  text.replace("input: 1", "input: 1, params: {key_db: -10}"),
                  text.replace("input: 1", "input: 1, params: {mute: true}")):  # fmt: skip
        assert np.allclose(music(of(other))[10:], 0, atol=0.1)


def test_behind_a_denoiser_it_is_a_voice_that_ducks_and_not_a_noise() -> None:
    text = ROUND.replace("duck_db: 20", "duck_db: 40")
    renderer = offline.Renderer(of(text), RATE, 4)
    rng = np.random.default_rng(0)
    sound = np.zeros((4, 2 * RATE), np.float32)
    sound[0] = 0.1 * rng.standard_normal(2 * RATE)
    renderer.push(sound)
    assert renderer.graph.readings["music.ducked_db"] < 1 and renderer.graph.readings["anna.speaking"] == 0
    sound[0] = speechlike(2.0)
    ducked = []
    for start in range(0, 2 * RATE, 480):
        renderer.push(np.ascontiguousarray(sound[:, start : start + 480]))
        ducked.append(renderer.graph.readings["music.ducked_db"])
    assert max(ducked) > 35


def test_no_block_size_shows_in_a_single_bit_while_everything_moves() -> None:
    sound = np.vstack([voices(2), voices(2)])
    outs = []
    for max_block in (1, 64, 997):
        renderer = offline.Renderer(of(), RATE, 4, max_block=max_block)
        rng = np.random.default_rng(4)
        for when in np.sort(rng.integers(0, RATE, 200)).tolist():
            name = str(rng.choice(list(renderer.graph.index)))
            renderer.set(name, renderer.graph.find(name)[1].plain(float(rng.random())), when)
        outs.append(renderer.push(sound))
        assert renderer.engine.memory_intact
    assert np.abs(outs[0]).max() > 0.01
    for out in outs[1:]:
        assert np.array_equal(out.view(np.int32), outs[0].view(np.int32))


def test_reset_is_a_fresh_start_and_a_new_graph_goes_on_where_the_old_one_was() -> None:
    sound = np.vstack([voices(2, 2.0), voices(2, 2.0)])
    expected = offline.Renderer(of(), RATE, 4).push(sound)
    renderer = offline.Renderer(of(), RATE, 4)
    renderer.push(np.ascontiguousarray(sound[::-1]))
    renderer.engine.send(Record(events.RESET, events.NOW))
    assert np.array_equal(renderer.push(sound), expected)
    renderer = offline.Renderer(of(), RATE, 4)
    first = renderer.push(np.ascontiguousarray(sound[:, :RATE]))
    renderer._publish(of(), None)
    assert np.array_equal(np.hstack([first, renderer.push(np.ascontiguousarray(sound[:, RATE:]))]), expected)
    # Two whose inputs are exchanged are no twins.
    other = of(ROUND.replace("input: 1", "input: 9").replace("input: 2", "input: 1").replace("input: 9", "input: 2"))
    renderer._publish(other, None)
    renderer.push(np.ascontiguousarray(sound[:, :480]))
    assert events.SWAP_DONE not in [r.kind for r in renderer.engine.poll()]


def test_a_bypass_of_everything_opens_no_muted_microphone() -> None:
    sound = voices(3)
    out = offline.process(sound, RATE, of(plain()), s1__mute=1, host__bypass=1)
    assert np.array_equal(out[0], sound[1] + sound[2])


def test_a_preset_without_strips_hears_the_sum_and_one_with_strips_comes_back() -> None:
    sound = voices(3, 3.0)
    renderer = offline.Renderer(of(plain()), RATE, 3)
    third = sound.shape[1] // 3
    renderer.push(np.ascontiguousarray(sound[:, :third]))
    renderer._publish(presets.load("bypass"), None)
    out = renderer.push(np.ascontiguousarray(sound[:, third : 2 * third]))
    assert np.array_equal(out[0], (sound[0] + sound[1] + sound[2])[third : 2 * third])
    renderer._publish(of(plain(2)), None)
    out = renderer.push(np.ascontiguousarray(sound[:, 2 * third :]))
    assert np.array_equal(out[1, -1000:], (sound[0] + sound[1])[-1000:])
    with pytest.raises(UsageError, match="the strips of Round need 4 inputs, and there are 3"):
        renderer._publish(of(), None)
    with pytest.raises(UsageError, match="the strips of Plain need 3 inputs, and what plays was begun without strips"):
        offline.build(of(plain()), RATE, 1024, 2)


def test_a_preset_says_what_it_means_and_is_written_as_it_was_read() -> None:
    preset = of()
    assert presets.labels(preset.chain) == [
        "anna-highpass", "anna-denoise", "anna", "ben-lid", "ben", "music", "mixer", "gain",
    ]  # fmt: skip
    assert preset.strips == {"anna": (1,), "ben": (2,), "music": (3, 4)} and preset.inputs == 4
    assert presets.parse(presets.dump(preset)) == preset
    assert presets.dump(presets.parse(presets.dump(preset))) == presets.dump(preset)
    jsonschema.Draft202012Validator(preset_schema.schema()).validate(yaml.safe_load(ROUND))
    bound = of(ROUND + "midi:\n- {control: cc 7, target: anna.level_db}\n")
    assert bound.midi[0].targets == ("anna.level_db",)


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("input: 2", "input: 0", "round.yaml:11: input is 0; allowed: 1 to 64"),
        ("[3, 4]", "[3, 3]", "round.yaml:16: input is a channel from 1, or a list of two different ones"),
        ("[3, 4]", "[3, 4, 5]", "round.yaml:16: input is a channel from 1, or a list of two different ones"),
        ("  input: 2\n", "", "round.yaml:10: a strip lacks the key 'input'"),
        ("name: ben", "name: anna", "round.yaml:10: two strips are called 'anna'"),
        ("name: ben", "name: mixer", "round.yaml:10: the strip cannot be called 'mixer'"),
        ("name: ben", "name: b.n", "round.yaml:10: the strip cannot be called 'b.n'"),
        ("priority: 1", "priority: 11", "round.yaml:17: the strip music.priority: 11 is out of range"),
        ("hold_ms: 100", "hold: 100", "round.yaml:19: params of mixer has no key 'hold'"),
        ("- plugin: gain", "- plugin: fader", "round.yaml:21: a fader comes with strips; no chain can name it"),
        ("plugin: limiter", "plugin: mixer", "round.yaml:13: a mixer comes with strips; no chain can name it"),
    ],
)
def test_what_a_preset_says_wrongly_is_refused_in_one_sentence(old: str, new: str, words: str) -> None:
    assert ROUND.count(old) == 1
    with pytest.raises(UsageError) as refusal:
        of(ROUND.replace(old, new))
    assert str(refusal.value).startswith(words) and "\n" not in str(refusal.value)


def test_one_strip_or_nine_and_a_mixer_for_none_are_refused() -> None:
    for text, words in (
        (plain(1), "strips: from 2 to 8 are allowed, not 1"),
        (plain(9), "strips holds 9 things; at most 8 are allowed"),
        ("schema: 2\nname: x\nmixer: {}\nchain: []\n", "mixer needs strips beside it"),
    ):
        with pytest.raises(UsageError, match=words):
            of(text)


def test_a_chain_is_changed_within_its_strip() -> None:
    more = chain.change(of(), "add", "eq", 3)
    assert presets.labels(more.chain)[:4] == ["anna-highpass", "anna-denoise", "anna-eq", "anna"]
    more = chain.change(more, "add", "eq", 1)
    assert presets.labels(more.chain)[:5] == ["anna-eq-2", "anna-highpass", "anna-denoise", "anna-eq", "anna"]
    assert presets.parse(presets.dump(more)).chain == more.chain
    less = chain.change(more, "remove", "anna-eq")
    assert presets.labels(less.chain)[:4] == ["anna-eq-2", "anna-highpass", "anna-denoise", "anna"]
    moved = chain.change(of(), "move", "anna-denoise", 1)
    assert presets.labels(moved.chain)[:3] == ["anna-denoise", "anna-highpass", "anna"]
    assert presets.labels(chain.change(of(), "add", "limiter").chain)[-1] == "limiter"
    for what, name, position in (("remove", "mixer", 0), ("move", "anna", 1)):
        with pytest.raises(UsageError, match="belongs to the strips of Round and stays where it is"):
            chain.change(of(), what, name, position)
    for what, name, position in (("add", "eq", 7), ("move", "anna-denoise", 4), ("move", "gain", 1)):
        with pytest.raises(UsageError, match="a plugin stays in its strip"):
            chain.change(of(), what, name, position)


def test_each_strip_is_recorded_to_a_file_of_its_own_and_performed_again(
    tmp_path: Path, cli: Callable[..., Any]
) -> None:
    sound = np.vstack([voices(2, 4.0), voices(2, 4.0)])
    host = Host(of(), source=sound, record=tmp_path / "take.wav", stems=["anna-denoise"], shed=False)
    with host:
        while host.stats().seconds < 1:
            time.sleep(0.01)
        host.set("ben.level_db", -6)
        host.set("music.pan", 40)
        assert {"anna.peak_db", "ben.peak_db", "music.ducked_db"} <= set(host.stats().readings)
        while not host.source_ended:
            time.sleep(0.01)
    read = {p.name: soundfile.read(p, dtype="float32", always_2d=True)[0] for p in tmp_path.glob("*.wav")}
    assert {name: frames.shape[1] for name, frames in read.items()} == {
        "take.wav": 2, "take.dry.wav": 4, "take.anna.wav": 1, "take.ben.wav": 1, "take.music.wav": 2,
        "take.anna-denoise.wav": 1,
    }  # fmt: skip
    dry = read["take.dry.wav"]
    late = host.latency_samples
    assert np.array_equal(dry[:RATE], sound.T[:RATE])
    assert np.array_equal(read["take.music.wav"][late:], dry[:-late, 2:])
    assert np.array_equal(read["take.anna.wav"], read["take.anna-denoise.wav"])
    done = cli("replay", tmp_path)
    assert done.returncode == 0 and "identical to what was heard" in done.stdout, (done.stdout, done.stderr)


def test_the_command_line_makes_strips_of_any_preset() -> None:
    def made(*texts: str) -> Preset:
        basic = presets.load("voice-basic")
        return presets.with_strips(basic, live._strips(list(texts), basic))

    preset = made("anna", "ben:3=bypass", "music:5,6=bypass", "eve")
    assert preset.strips == {"anna": (1,), "ben": (3,), "music": (5, 6), "eve": (7,)}
    assert presets.labels(preset.chain)[0] == "anna-highpass" and presets.labels(preset.chain)[-1] == "mixer"
    assert presets.parse(presets.dump(preset)).chain == preset.chain
    for texts, words in (
        (["anna"], "strips: from 2 to 8 are allowed, not 1"),
        (["anna", "anna"], "there is a strip 'anna' already"),
        (["anna:x", "ben"], "'x' is no input"),
        (["anna:1,2,3", "ben"], "'1,2,3' is no input"),
        (["a b", "ben"], "the strip cannot be called 'a b'"),
        (["anna", "ben=nowhere"], "there is no preset 'nowhere'"),
    ):
        with pytest.raises(UsageError, match=words):
            made(*texts)
