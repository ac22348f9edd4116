"""The recogniser: its recordings, its scenes, the net in both forms, and how it is measured."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from support import speechlike

from rtgan import cli
from rtgan.errors import RtganError, UsageError
from rtgan.generators import library
from rtgan.generators.card import MAINLY
from rtgan.tagging import recognise
from rtgan.train import tag_data, tag_export, tag_loop
from rtgan.train.tag_data import GROUPS, LABELS, LEAD_DB, MELS, TagDataSettings, TagMixer, load_tag_corpus, sounding
from rtgan.train.tag_eval import calibration_error, figures, heard, lead, told
from rtgan.train.tag_loop import TagConfig, calibration, parse_tag_config, tag_loss, which_loss
from rtgan.train.tags import Listening, TagNet, TagSettings

SMALL = TagSettings(channels=[4, 4, 4], features=8, hidden=8, recall=4, lags=[1, 3])
DATA = TagDataSettings(test=["music/c"], calibrate=["music/b"], seconds=1.0, turns=0.5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a second each: twelve speakers, noises, clips with folds, three instruments, three pieces."""
    folder = tmp_path_factory.mktemp("tags-data")
    rng = np.random.default_rng(1)
    manifest = []

    def put(name: str, sound: np.ndarray, **more: object) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sound.astype(np.float32), 16000)
        manifest.append({"file": name, "licence": "CC0", "source": name.split("/")[0], **more})

    for k in range(12):
        put(f"speech/speaker{k:02d}.wav", speechlike(0.5, 16000, seed=k))
        put(f"noise/{'train' if k == 0 else 'hiss'}{chr(97 + k)}x.wav", 0.1 * rng.standard_normal(8000))
        for label in ("Rain", "Dog_bark"):
            put(f"noise/esc/{label}-{k}.wav", 0.1 * rng.standard_normal(8000), label=label, fold=k % 4 + 1,
                recording=f"{label}{k // 4}{k % 4}")  # fmt: skip
    for k in "abc":
        for note in (60, 64):
            tone = np.sin(2 * np.pi * 440 * 2 ** ((note - 69) / 12) * np.arange(8000) / 16000)
            put(f"music/{k}/{note}.wav", 0.3 * tone)
    for k in range(12):
        put(f"music/freesound/piece{k}.wav", 0.2 * rng.standard_normal(8000))
    put("singing/a.wav", speechlike(0.5, 16000, seed=99))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def corpus(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tag_data.TagCorpus:
    return load_tag_corpus(data, DATA, tmp_path_factory.mktemp("cache"), progress=False)


def test_no_recording_is_on_two_sides(corpus: tag_data.TagCorpus) -> None:
    sides: dict[tuple[str, str], set[str]] = {}
    for clip in corpus.clips:
        sides.setdefault((clip.kind, clip.file if clip.kind == "music" else clip.group), set()).add(clip.side)
    assert all(len(s) == 1 for s in sides.values())
    assert {c.side for c in corpus.clips if c.kind == "speech"} >= {"train", "test"}
    assert {c.side for c in corpus.clips if "-3.wav" in c.file and "esc" in c.file} == {"test"}, "fold 4"
    assert {c.side for c in corpus.clips if c.kind == "singing"} == {"test"}
    assert {c.kind for c in corpus.clips if "train" in c.file} == {"noise"}, "no rain"
    assert {c.side for c in corpus.clips if c.kind == "noise"} > {"train"}
    assert [c.side for c in corpus.clips if c.file.startswith(("music/b", "music/c"))] == 2 * ["calibrate"] + 2 * [
        "test"
    ]


def test_two_runs_that_decode_at_once_do_each_other_no_harm(
    data: Path, corpus: tag_data.TagCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second begins when the first is half-way, and has only just begun when the first is done."""
    decode, others, count = tag_data._decode, list[tag_data.TagCorpus](), 0
    begun, first_done = threading.Event(), threading.Event()
    second = threading.Thread(target=lambda: others.append(load_tag_corpus(data, DATA, tmp_path, progress=False)))

    def slowed(*given: Any) -> Any:
        nonlocal count
        if threading.current_thread() is second:
            begun.set()
            assert first_done.wait(20)
        elif (count := count + 1) == 20:
            second.start()
            assert begun.wait(20)
        return decode(*given)

    def check(found: tag_data.TagCorpus) -> None:
        assert found.clips == corpus.clips
        for clip in corpus.clips:
            assert np.array_equal(found.decibels(clip), corpus.decibels(clip))

    monkeypatch.setattr(tag_data, "_decode", slowed)
    check(load_tag_corpus(data, DATA, tmp_path, progress=False))
    first_done.set()
    second.join()
    check(others[0])
    assert sorted(p.name for p in next(tmp_path.iterdir()).iterdir()) == ["decibels.f16", "spans.json"]


def test_a_voice_that_is_silent_sings_nothing() -> None:
    sung = tag_data._sung(np.random.default_rng(3), np.zeros((100, MELS), np.float32), 200)
    assert np.isfinite(sung).all() and sung.max() < 1e-3


def test_powers_are_those_of_a_sine_at_full_scale() -> None:
    sine = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
    level = 10 * np.log10(tag_data.powers(sine)[5:].sum(1))
    assert np.abs(level - 10 * np.log10(1.5)).max() < 0.3, "a Hann window spreads it by half"


def test_scenes_say_what_is_in_them_and_are_always_the_same(corpus: tag_data.TagCorpus) -> None:
    mixer = TagMixer(corpus, "train", DATA, 3)
    scene = mixer.scene(np.random.default_rng(1), ["rain"])
    assert scene.decibels.shape == (50, MELS) and scene.labels.shape == (50, len(LABELS))
    columns = {name: scene.labels[:, k] for k, name in enumerate(LABELS)}
    assert (columns["rain"] == 1).any() and (columns["noise"][columns["rain"] == 1] == 1).all()
    assert not (columns["speech"] == 1).any()
    again = TagMixer(corpus, "train", DATA, 3)
    for number in range(12):
        one, two = mixer(number), again(number)
        assert all(np.array_equal(getattr(one, f.name), getattr(two, f.name)) for f in dataclasses.fields(one))
        assert np.isfinite(one.decibels).all()
    sung = mixer.scene(np.random.default_rng(2), ["singing"])
    assert (sung.labels[:, LABELS.index("singing")] == 1).any() and np.isfinite(sung.decibels).all()


def test_the_loudest_of_two_is_known_where_it_leads(corpus: tag_data.TagCorpus) -> None:
    mixer, found = TagMixer(corpus, "train", DATA, 3), set()
    for seed in range(30):
        scene = mixer.scene(np.random.default_rng(seed), ["speech", "rain"])
        quiet = scene.loudest == GROUPS.index("silence")
        assert np.array_equal(quiet, scene.labels[:, LABELS.index("silence")] == 1)
        known = (scene.loudest >= 0) & ~quiet
        names = {GROUPS[k] for k in scene.loudest[known]}
        assert names <= {"speech", "noise"}
        assert all(scene.labels[t, LABELS.index(GROUPS[scene.loudest[t]])] != 0 for t in np.flatnonzero(known))
        found |= names
    assert found == {"speech", "noise"}


def test_what_is_far_beneath_never_leads(corpus: tag_data.TagCorpus) -> None:
    settings = dataclasses.replace(DATA, beside_db=[-20, -12])
    mixer, known = TagMixer(corpus, "train", settings, 3), 0
    for seed in range(20):
        scene = mixer.scene(np.random.default_rng(seed), ["rain", "speech"])
        heard = scene.labels[:, LABELS.index("rain")] == 1
        known += int((scene.loudest[heard] >= 0).sum())
        assert set(scene.loudest[heard & (scene.loudest >= 0)]) <= {GROUPS.index("noise")}
    assert known > 100


@pytest.mark.parametrize("make", [tag_data.hum, tag_data.machine, tag_data.knocks, tag_data.synthesised])
def test_sounds_by_formula_are_powers(make: Callable[[np.random.Generator, int], np.ndarray]) -> None:
    rng = np.random.default_rng(5)
    for _ in range(10):
        power = make(rng, 120)
        assert power.shape == (120, MELS) and np.isfinite(power).all() and power.min() >= 0 and power.max() > 1e-6


def test_hum_is_low_and_stays() -> None:
    rng = np.random.default_rng(3)
    rises = []
    for _ in range(30):
        power = tag_data.hum(rng, 200).mean(0)
        rises.append(10 * np.log10(power[:12].sum() / power[40:52].sum()))
    assert np.median(rises) > 10, "most of it is low"
    levels = np.stack([10 * np.log10(tag_data.hum(rng, 200).sum(1)) for _ in range(30)])
    assert np.median(levels.std(1)) < 1.5, "and stays"


def test_a_beat_comes_again() -> None:
    power = tag_data.beat(np.random.default_rng(2), 3000, [tag_data.struck(np.random.default_rng(1))])
    strokes = np.maximum(np.diff(np.log(power.sum(1))), 0)
    spectrum = np.abs(np.fft.rfft(strokes - strokes.mean()))
    assert spectrum.max() > 6 * np.median(spectrum)


def test_a_sound_holds_a_while_and_is_then_in_doubt() -> None:
    power = np.full((200, MELS), 1e-10, np.float32)
    power[20:40] = 1e-3
    found = sounding(power, 25.0)
    assert (found[20:40] == 1).all() and (found[45:54] == 1).all()
    assert found[70] == -1 and found[150] == 0 and found[5] == 0


def test_frame_by_frame_it_says_what_it_says_of_the_whole() -> None:
    torch.manual_seed(0)
    net = TagNet(SMALL, len(LABELS), len(GROUPS), 2)
    for _ in range(3):
        net(torch.randn(4, 60, MELS) * 20 - 60)
    net.eval()
    rng = np.random.default_rng(0)
    sound = (0.1 * rng.standard_normal(16000) * np.linspace(0, 1, 16000)).astype(np.float32)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(640) / 640)
    padded = np.concatenate((np.zeros(320), sound))
    spectra = np.fft.rfft(np.lib.stride_tricks.sliding_window_view(padded, 640)[::320] * window)
    frames = torch.from_numpy(np.stack((spectra.real, spectra.imag), 1).astype(np.float32))
    told, groups = [0, 3, 7], [1, 4]
    scales = [[[1.5, 0.2]] * len(LABELS), [[0.5, 0.1]] * len(LABELS)]
    module = Listening(net, scales, [2.0, 0.7], told, groups, 640, 7).eval()
    state, answers = torch.zeros(1, module.state_size), []
    with torch.no_grad():
        for frame in frames:
            answer, state = module(frame[None], state)
            answers.append(answer)
        decibels = 10 * np.log10(tag_data.powers(sound) + np.float32(1e-10))
        logits = net(torch.from_numpy(decibels)[None])[0]
        there = torch.sigmoid(logits[:, 0, told] * 1.5 + 0.2), torch.sigmoid(logits[:, 1, told] * 0.5 + 0.1)
        first = (torch.softmax(logits[:, k, len(LABELS) :] * by, 1)[:, groups] for k, by in enumerate((2.0, 0.7)))
        soon, late = (torch.cat(both, 1) for both in zip(there, first, strict=True))
        before = torch.cat((torch.zeros(7, 5), soon[:-7]))
        whole = torch.cat((soon, (2 * late + before) / 3), 1)
    assert float((torch.cat(answers) - whole).abs().max()) < 1e-5


def test_what_is_loudest_bears_names_that_the_player_knows() -> None:
    assert all(name.startswith(MAINLY) for name in tag_loop.LOUDEST)
    assert not any(name.startswith(MAINLY) for name in LABELS)


def test_losses_know_what_nobody_can_tell() -> None:
    logits = torch.zeros(1, 2, len(LABELS), requires_grad=True)
    first = torch.zeros(1, 2, len(GROUPS), requires_grad=True)
    labels = -torch.ones(1, 2, len(LABELS))
    labels[0, 0] = 0
    labels[0, 0, LABELS.index("rain")] = 1
    loudest = torch.tensor([[GROUPS.index("noise"), -1]])
    (tag_loss(logits, labels) + which_loss(logits, first, labels, loudest)).backward()
    assert logits.grad is not None and first.grad is not None
    assert not logits.grad[0, 1].any() and logits.grad[0, 0, LABELS.index("rain")] < 0
    assert not first.grad[0, 1].any() and (first.grad[0, 0] < 0).tolist() == [g == "noise" for g in GROUPS]
    assert float(which_loss(logits, first, labels, loudest).detach()) == pytest.approx((np.log(10) + np.log(5)) / 2)


def test_calibration_finds_what_a_net_that_is_too_sure_must_be_scaled_by(corpus: tag_data.TagCorpus) -> None:
    class Sure(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            said = torch.full((*x.shape[:2], 1, len(LABELS) + len(GROUPS)), 8.0)
            said[..., len(LABELS) + GROUPS.index("noise")] = 30.0
            return said

    scales, sharpness = calibration(Sure(), TagMixer(corpus, "calibrate", DATA, 1), 16)  # type: ignore[arg-type]
    assert len(scales) == len(LABELS)
    assert all(scale * 8.0 + shift < 5.0 for scale, shift in scales), "no label sounds all the time"
    assert len({tuple(s) for s in scales[-10:]}) == 1
    assert 0 < sharpness < 0.5, "it is not always noise that is the loudest"


def test_a_run_is_exported_lowered_and_read_with_its_labels(
    corpus: tag_data.TagCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tag_loop, "_SCENES", 16)
    config = TagConfig(
        "tiny", steps=2, batch=2, bfloat16=True, delays_ms=[200, 400], network=SMALL, data=DATA,
        tell=["speech", "rain", "mainly_music"],
    )  # fmt: skip
    course = tag_loop.TagCourse(config, corpus, tmp_path / "run")
    assert course.run(progress=False) == 2
    again = tag_loop.TagCourse(dataclasses.replace(config, steps=3), corpus, tmp_path / "run")
    again.restore()
    assert again.run(progress=False) == 3
    other = dataclasses.replace(config, network=dataclasses.replace(SMALL, recall=0))
    simpler = tag_loop.TagCourse(other, corpus, tmp_path / "other")
    taken, whole = simpler.start_from(tmp_path / "run")
    assert 0 < taken < whole
    assert torch.equal(simpler.net.state_dict()["gather.weight"], again.averaged["gather.weight"])
    wide = dataclasses.replace(SMALL, channels=[5, 4, 6], features=11, hidden=9, recall=7)
    wider = tag_loop.TagCourse(dataclasses.replace(config, network=wide), corpus, tmp_path / "wider")
    taken, whole = wider.start_from(tmp_path / "run")
    assert taken == whole
    x = torch.randn(2, 40, MELS) * 20 - 60
    with again.as_averaged() as one, wider.as_averaged() as other_net:
        assert torch.allclose(one(x), other_net(x), atol=1e-5), "a wider net begins as the one that it goes on from"
    assert wider.lineage and wider.train_step()["loss"] > 0
    card = tag_export.export_tags(tmp_path / "run", tmp_path / "tiny.ts")
    assert {s["name"] for s in card["training"]["sources"]} == {"speech", "noise", "music"}
    library.lower(tmp_path / "tiny.ts")
    loaded = library.load(tmp_path / "tiny.ts")
    assert loaded.card.labels == ("speech", "rain", "mainly_music")
    assert (loaded.card.lookahead_frames, loaded.card.late_frames) == (10, 20)
    error = library.deviation(loaded)
    assert error is not None and error < 1e-5
    soon, late = (recognise(speechlike(1.0)[None], 48000, str(tmp_path / "tiny.ts"), answer=a) for a in ("soon", ""))
    assert (soon.delay_s, late.delay_s) == pytest.approx((0.2, 0.4))
    assert soon.probabilities.shape == late.probabilities.shape == (10, 3)
    assert np.abs(soon.probabilities - late.probabilities).max() > 1e-3
    # A third of the late answer is the soon one about the same moment.
    rest = (late.probabilities - soon.probabilities / 3) * 1.5
    assert rest.min() > 0 and rest.max() < 1
    # A run that answers once has no late answer.
    hasty = dataclasses.replace(config, delays_ms=[0], tell=["speech", "rain"])
    assert tag_loop.TagCourse(hasty, corpus, tmp_path / "hasty").run(progress=False) == 2
    tag_export.export_tags(tmp_path / "hasty", tmp_path / "hasty.ts")
    library.lower(tmp_path / "hasty.ts")
    with pytest.raises(RtganError, match="has no late answer"):
        recognise(speechlike(1.0)[None], 48000, str(tmp_path / "hasty.ts"), answer="late")
    assert recognise(speechlike(1.0)[None], 48000, str(tmp_path / "hasty.ts")).delay_s == 0
    soundfile.write(tmp_path / "take.wav", speechlike(1.0), 48000)
    assert cli.main(["tag", str(tmp_path / "take.wav"), "--mainly", "--model", str(tmp_path / "hasty.ts")]) != 0
    assert "hasty.ts does not tell what is mainly heard: leave --mainly out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"batch": 1}, "batch must be at least 2"),
        ({"delays_ms": [250]}, "delays_ms must be whole numbers of 100 ms"),
        ({"delays_ms": [300, 200]}, "the second is the greater one"),
        ({"delays_ms": [2000]}, "half a second before a scene"),
        ({"delays_ms": []}, "delays_ms must be one number"),
        ({"network": {"lags": [0]}}, "lags must be at most 8 numbers"),
        ({"network": {"recall": -1}}, "recall at least 0"),
        ({"data": {"turns": 2}}, "turns must lie in 0..1"),
        ({"losses": {"stft": {"weight": 1.0}}}, "leave losses and adversary out"),
        ({"network": {"strides": [3, 2, 2]}}, "strides divide 64 bands"),
        ({"tell": ["speech", "wind"]}, "tell must name different labels"),
        ({"tell": ["speech", "speech"]}, "tell must name different labels of silence"),
        ({"tell": ["mainly_speech"]}, "tell must name one of silence, speech, .* at least"),
        ({"network": {"channels": [8]}}, "lists of one length"),
        ({"network": {"memory_s": [0.001]}}, "memory_s"),
        ({"data": {"seconds": 0.1}}, "seconds must lie in 1..30"),
        ({"data": {"beside_db": [3, -3]}}, "beside_db must be two levels"),
        ({"data": {"beside_db": ["loud", 3]}}, r"data\.beside_db is \['loud', 3\] but must be a list of numbers"),
        ({"tell": "speech"}, "tell is 'speech' but must be a list of words"),
        ({"data": {"test_share": 1.0}}, "less than 1 together"),
        ({"colour": 1}, "colour is not known"),
    ],
)
def test_a_config_that_cannot_be_is_refused(change: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse_tag_config({"name": "x", **change}, "x.yaml")


def test_bands_weigh_what_a_filter_for_loudness_makes_of_them() -> None:
    time_s = np.arange(48000) / 48000
    for hertz in (50, 120, 500, 1000, 3000, 7000):
        sine = (0.1 * np.sin(2 * np.pi * hertz * time_s)).astype(np.float32)
        thousand = (0.1 * np.sin(2 * np.pi * 1000 * time_s)).astype(np.float32)
        slow = [tag_data.powers(s[::3])[10:] for s in (sine, thousand)]
        heard_so = [10 * np.log10((p @ tag_data._K_WEIGHTS).mean()) for p in slow]
        assert heard_so[0] - heard_so[1] == pytest.approx(lead(sine, thousand)[-1], abs=1.0)


def test_what_no_ear_hears_does_not_lead() -> None:
    time_s = np.arange(48000) / 48000
    rumble, voice = np.sin(2 * np.pi * 8 * time_s), 0.1 * np.sin(2 * np.pi * 400 * time_s)
    assert (heard(rumble)[3:] - heard(voice)[3:] > 15).all()
    assert (lead(rumble.astype(np.float32), voice.astype(np.float32))[3:] < -LEAD_DB).all()


def test_the_louder_of_two_sounds_is_the_right_answer_unless_it_may_be_over() -> None:
    sounds = np.array([True, True, False, True]), np.array([True, True, True, False])
    said, others = told("speech", "music", sounds, np.array([10.0, 1.0, -10.0, -10.0]))
    assert said.tolist() == ["speech", "", "music", ""] and others.tolist() == ["music", "music", "speech", "speech"]


def test_figures_count_what_is_known_and_leave_out_what_is_not() -> None:
    labels = ("silence", "speech", "music", "noise", "instrument")
    kinds = ["speech"] * 10 + ["instrument"] * 10 + ["silence"] * 10 + [""] * 5
    fresh = np.concatenate([np.arange(10)] * 3 + [np.arange(5)])
    chances = np.zeros((35, 5), np.float32)
    chances[2:10, 1] = 0.9
    chances[10:20, 2] = 0.8
    chances[20:30, 0] = 1.0
    chances[30:, 3] = 1.0
    chances[7, 3] = 0.95
    found = figures(labels, chances, kinds, [""] * 35, fresh)
    three = found["speech_music_noise"]
    assert three["steps"] == 20 and three["accuracy_settled"] == pytest.approx(0.9)
    assert found["labels"]["speech"] == {"steps": 5, "found": 1.0, "false": 0.0}
    assert found["labels"]["instrument"]["found"] == 0.0 and found["labels"]["music"]["found"] == 1.0
    assert found["delay_ms"]["speech"] == 300.0
    late = figures(labels, chances, kinds, [""] * 35, fresh, 2)
    assert late["speech_music_noise"]["delay_ms"] == 200 and late["delay_ms"]["silence"] == 300.0
    # What tells the loudest is asked for it, and measured as the other labels are.
    mainly = np.zeros((35, 3), np.float32)
    mainly[:10, 0], mainly[10:18, 1], mainly[18:20, 2], mainly[20:22, 1] = 0.9, 0.7, 0.6, 0.8
    names = (*labels, "mainly_speech", "mainly_music", "mainly_noise")
    both = figures(names, np.concatenate((chances, mainly), 1), kinds, ["music"] * 10 + [""] * 25, fresh)
    assert both["speech_music_noise"]["accuracy"] == pytest.approx(18 / 20)
    assert both["labels"]["mainly_speech"] == {"steps": 5, "found": 1.0, "false": 0.0}
    assert both["labels"]["mainly_music"] == {"steps": 5, "found": 0.6, "false": 0.0}
    assert "mainly_noise" not in both["labels"], "there is none to find"
    beneath = ["noise"] * 35
    assert "noise" not in figures(labels, chances, kinds, beneath, fresh)["labels"]


def test_calibration_error_is_the_distance_from_what_came_true() -> None:
    said = np.array([0.95] * 10 + [0.15] * 10)
    assert calibration_error(np.stack((said, np.repeat([1.0, 0.0], 10)))) == pytest.approx(0.1)
    assert calibration_error(np.stack((said, np.repeat([0.0, 1.0], 10)))) == pytest.approx(0.9)
