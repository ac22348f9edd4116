"""The recogniser as a plugin: it changes nothing, and says the same whatever the block and nearly so at any rate."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
from support import speechlike

from rtgan import presets
from rtgan.engine import Engine
from rtgan.errors import RtganError, UsageError
from rtgan.graph import ChainItem, Graph
from rtgan.plugin import plugin_class
from rtgan.plugins.tags import Tags, frame_samples


def played(sound: np.ndarray, rate: int, block: int, step: int = 0) -> tuple[np.ndarray, list[dict[str, float]]]:
    """What comes out of (frames, channels), and the readings behind every ``step`` frames."""
    engine = Engine(rate, sound.shape[1], max_block=512)
    graph = Graph([ChainItem(Tags(), {}, "it")], rate, 512, sound.shape[1])
    engine.publish(graph)
    out, seen = [], []
    for start in range(0, len(sound), step or len(sound)):
        part = sound[start : start + (step or len(sound))]
        out += [engine.render(part[k : k + block]) for k in range(0, len(part), block)]
        seen.append(graph.readings)
    return np.concatenate(out), seen


@pytest.mark.parametrize("rate", [44100, 48000, 96000])
def test_every_sample_passes_as_it_is(rate: int) -> None:
    sound = np.stack([speechlike(0.6, rate, seed=k) for k in (1, 2)], 1)
    out, _ = played(sound, rate, 100)
    assert np.array_equal(out.view(np.int32), sound.view(np.int32))


def test_readings_change_every_100_ms_and_do_not_depend_on_the_block() -> None:
    sound = speechlike(1.0)[:, None]
    found = [played(sound, 48000, block, 2400)[1] for block in (64, 480, 509)]
    assert found[0] == found[1] == found[2]
    labels = [k for k in found[0][0] if k != "it.tag"]
    assert all(0 <= row[k] <= 1 for row in found[0] for k in labels)
    changes = [k for k in range(1, len(found[0])) if found[0][k] != found[0][k - 1]]
    assert changes and all(k % 2 == 1 for k in changes), "50 ms each: every second one ends a step of 100 ms"


def test_silence_is_known_at_once_and_named() -> None:
    sound = np.concatenate([0.3 * speechlike(0.5), np.zeros(48000, np.float32)])[:, None]
    _, seen = played(np.ascontiguousarray(sound), 48000, 480, 4800)
    assert seen[-1]["it.silence"] > 0.9
    assert list(seen[-1])[int(seen[-1]["it.tag"])] == "it.silence"


def test_what_is_mainly_heard_is_told_and_not_named() -> None:
    _, seen = played(speechlike(2.0)[:, None], 48000, 480, 4800)
    mainly = [k for k in seen[0] if k.startswith("it.mainly_")]
    assert mainly == ["it.mainly_speech", "it.mainly_music", "it.mainly_noise"]
    assert max(row[k] for row in seen for k in mainly) > 0.5, "one of them would be named if it could be"
    assert all(sum(row[k] for k in mainly) < 1.001 for row in seen)
    names = {list(row)[int(row["it.tag"])] for row in seen if row["it.tag"] >= 0}
    assert names and not names & set(mainly)


def test_other_rates_hear_the_same() -> None:
    sound = speechlike(2.0)
    sounds = {rate: soxr.resample(sound, 48000, rate, "HQ").astype(np.float32) for rate in (48000, 44100, 96000)}
    answers = [played(heard[:, None], rate, 512)[1][-1] for rate, heard in sounds.items()]
    for other in answers[1:]:
        assert max(abs(other[k] - answers[0][k]) for k in other if k != "it.tag") < 0.1


def test_frames_have_lengths_that_the_transform_knows() -> None:
    assert [frame_samples(rate, 25.0) for rate in (48000, 96000, 44100)] == [1920, 3840, 1728]


def test_a_model_of_another_kind_is_refused() -> None:
    with pytest.raises(RtganError, match="cannot recognise sounds"):
        Tags("voice")
    with pytest.raises(UsageError, match="no answer 'never'; allowed: soon, late"):
        Tags(answer="never")


def test_a_preset_with_an_answer_that_there_is_not_is_refused_with_its_line() -> None:
    text = "schema: 2\nname: X\nchain:\n- plugin: tags\n  answer: {}\n"
    assert presets.parse(text.format("late")).chain[0].options == {"answer": "late"}
    with pytest.raises(UsageError, match=r":4: there is no answer 'later'"):
        presets.parse(text.format("later"), "x.yaml")


def test_readings_are_known_before_it_plays() -> None:
    graph = Graph([ChainItem(Tags(), {}, "it")], 48000, 512, 1)
    assert [f"it.{name}" for name in plugin_class("tags").reading_names({}) or ()] == list(graph.readings)
