"""The net that plays notes: what is read from recordings, made of it, learned, exported and measured."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from rtgan.errors import UsageError
from rtgan.kernels.partials import BANDS, HARMONICS, TABLE_ROWS, Voice, noise_table
from rtgan.train import notes, tone_eval, tone_export
from rtgan.train.checkpoint import load_checkpoint
from rtgan.train.notes import HOP, RATE_HZ, TimbreSettings, load_notes
from rtgan.train.tone_loop import ToneConfig, ToneTrainer, parse_tone_config
from rtgan.train.tones import LOWEST, PITCHES, Playing, ToneNet, ToneSettings, rendered, stretched

Sound = NDArray[np.float32]


def struck(pitch: float, stiffness: float, gain: float = 0.5, seconds: float = 1.2) -> Sound:
    """A note that dies away, of ten partials and a little noise, behind a silence."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    hertz = 440 * 2 ** ((pitch - 69) / 12)
    k = np.arange(1, 11)[:, None]
    at = k * hertz * np.sqrt((1 + stiffness * k * k) / (1 + stiffness))
    sound = (np.exp(-2.0 * t * np.sqrt(k)) / k * np.sin(2 * np.pi * at * t)).sum(0)
    sound += 0.001 * np.random.default_rng(1).standard_normal(len(t))
    return np.concatenate([np.zeros(3000), gain * sound / np.abs(sound).max()]).astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two timbres: one an octave off its names and with velocities, one without either."""
    folder = tmp_path_factory.mktemp("notes")
    for name in ("bells", "plucks"):
        (folder / name).mkdir()
    for pitch, letter in ((57, "A2"), (60, "C3"), (64, "E3"), (67, "G3")):
        for force, gain in (("pp", 0.1), ("ff", 0.6)):
            soundfile.write(folder / "bells" / f"{letter}_{force}.wav", struck(pitch + 0.11, 3e-4, gain), RATE_HZ)
    for number, pitch in enumerate((50, 55, 62)):
        soundfile.write(folder / "plucks" / f"take-{number}-x.wav", struck(pitch, 0.0), RATE_HZ)
    return folder


#: Not in the order of the alphabet, which a card has.
TIMBRES = {"plucks": TimbreSettings("plucks"), "bells": TimbreSettings("bells")}


@pytest.fixture(scope="module")
def corpus(data: Path, tmp_path_factory: pytest.TempPathFactory) -> notes.NoteCorpus:
    return load_notes(data, TIMBRES, [60], tmp_path_factory.mktemp("cache"), progress=False)


CONFIG = ToneConfig(
    "tiny",
    steps=60,
    rows=128,
    sound_step=54,
    notes=2,
    frames=40,
    learning_rate=0.02,
    checkpoint_every=10,
    held_out=[60],
    timbres=TIMBRES,
    network=ToneSettings(32, 2, 2),
    losses={"stft": {"weight": 0.5, "n_fft": [256, 1024]}},
)


@pytest.mark.parametrize(
    "stem, pitch", [("FF_A0", 21), ("a2_f_rr1", 45), ("Martin_046_Bb2_1", 46), ("Mf_B-1", 11), ("027-Ds1-FF", 27)]
)
def test_pitches_are_read_from_names(stem: str, pitch: int) -> None:
    assert notes.named_pitch(stem) == pitch
    assert notes.named_pitch("take-1-x") is None


def test_velocities_are_read_from_names() -> None:
    assert notes.named_velocity("PP_A0", 1) < notes.named_velocity("a2_f_rr1", 1) < notes.named_velocity("FF_A0", 1)
    assert notes.named_velocity("bass_c2_vl2", 5) == pytest.approx(0.4)
    assert notes.named_velocity("C4", 1) < 0


def test_notes_are_tuned_by_ear_and_known_by_what_they_are_made_of(corpus: notes.NoteCorpus) -> None:
    bells = [n for n in corpus.notes if n.timbre == 1]
    assert sorted({round(n.pitch, 1) for n in bells}) == [57.1, 60.1, 64.1, 67.1], "the names are an octave lower"
    assert {n.velocity for n in bells} == {0.2, 1.0}
    assert all(1e-4 < n.stiffness < 6e-4 for n in bells)
    assert sorted(round(n.pitch) for n in corpus.notes if n.timbre == 0) == [50, 55, 62]
    assert [round(n.pitch) for n in corpus.side(held_out=True)] == [60, 60]
    loud = next(n for n in bells if n.velocity == 1.0)
    row = loud.first + int(np.argmin(np.abs(corpus.times[loud.first : loud.first + loud.frames] - 0.15)))
    heard = np.exp(corpus.partials[row, :4].astype(np.float64))
    expected = np.exp(-2.0 * 0.15 * np.sqrt(np.arange(1, 5))) / np.arange(1, 5)
    assert 20 * np.log10(heard / heard[0]) == pytest.approx(20 * np.log10(expected / expected[0]), abs=1.0)
    assert np.abs(corpus.sound(loud)).max() == pytest.approx(notes.PEAK, rel=0.1)


def test_what_is_trained_on_is_what_the_kernel_plays() -> None:
    rng = np.random.default_rng(2)
    levels = (0.05 * rng.random((6, HARMONICS + BANDS))).astype(np.float32)
    voice = Voice(RATE_HZ, 4, noise_table(RATE_HZ))
    state = voice.memory.view(np.float32)
    phases = np.arctan2(state[HARMONICS : 2 * HARMONICS], state[:HARMONICS])
    places = (voice._row + np.arange(5 * HOP)) % TABLE_ROWS
    native = []
    for k, level in enumerate(levels):
        voice.aim(level[:HARMONICS].copy(), level[HARMONICS:].copy(), 150.0, 150.0, HOP, 1e-4)
        if k == 0:
            voice.more(HOP)
            phases = np.arctan2(state[HARMONICS : 2 * HARMONICS], state[:HARMONICS])
            places = (voice._row + np.arange(5 * HOP)) % TABLE_ROWS
        else:
            native.append(voice.more(HOP))
    hertz = stretched(torch.tensor([150.0]), torch.tensor([1e-4]))
    sound = rendered(
        torch.from_numpy(levels)[None], hertz, torch.from_numpy(phases.copy())[None],
        torch.from_numpy(voice.table[places])[None], HOP, RATE_HZ,
    )[0]  # fmt: skip
    expected = np.concatenate(native)
    assert np.abs(sound.numpy() - expected).max() < 1e-3 * np.abs(expected).max()


def test_between_pitches_that_were_heard_lies_what_is_between_them() -> None:
    torch.manual_seed(3)
    net = ToneNet(ToneSettings(32, 2, 2, 4), 2).eval()
    net.heard[0, [10, 14]] = 1.0
    net.heard[1, 30] = 1.0
    known, table = net.known[0].detach(), net.table()
    assert torch.equal(table[0, :11], known[10].expand(11, -1)) and torch.equal(table[0, 14:], known[14].expand(76, -1))
    assert torch.allclose(table[0, 11], 0.75 * known[10] + 0.25 * known[14])
    assert torch.equal(table[1], net.known[1, 30].detach().expand(PITCHES, -1))
    playing = Playing(net).eval()
    # Pitches between keys, out of reach, and half of each timbre.
    for pitch, shares, recalled in (
        (LOWEST + 12.5, (1.0, 0.0), (table[0, 12] + table[0, 13]) / 2),
        (LOWEST - 9.0, (1.0, 0.0), table[0, 0]),
        (LOWEST + 200.0, (0.0, 1.0), table[1, -1]),
        (LOWEST + 12.0, (0.5, 0.5), (table[0, 12] + table[1, 12]) / 2),
    ):
        row = torch.tensor([[pitch, 0.7, 0.1, *shares, 0.2, -0.1]])
        with torch.no_grad():
            expected = torch.relu(net(row, recalled[None]).clamp(math.log(1e-6), 0).exp() - playing.floor)
            assert torch.allclose(playing(row), expected, rtol=1e-4, atol=1e-6)


def test_what_was_heard_is_of_a_runs_own_notes(
    corpus: notes.NoteCorpus, data: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    first = ToneTrainer(CONFIG, corpus, tmp_path / "first")
    first.save()
    others = load_notes(data, TIMBRES, [64], tmp_path_factory.mktemp("cache"), progress=False)
    config = dataclasses.replace(CONFIG, held_out=[64])
    fresh, tuned = (ToneTrainer(config, others, tmp_path / name) for name in ("fresh", "tuned"))
    tuned.start_from(tmp_path / "first")
    assert torch.equal(tuned.net.state_dict()["heard"], fresh.net.state_dict()["heard"])
    assert torch.equal(tuned.averaged["heard"], fresh.averaged["heard"])


def test_a_note_is_often_learned_from_its_neighbours(corpus: notes.NoteCorpus, tmp_path: Path) -> None:
    trainer = ToneTrainer(CONFIG, corpus, tmp_path)
    number = next(k for k, n in enumerate(trainer.notes) if n.timbre == 1 and round(n.pitch) == 64)
    own, below, above = (PITCHES + pitch - LOWEST for pitch in (64, 57, 67))
    assert trainer.sides[number, 0].tolist() == [own, own]
    assert trainer.sides[number, 1].tolist() == [below, above], "60 is held out"
    assert float(trainer.side_share[number, 1]) == pytest.approx(0.7)
    assert trainer.sides[number, 4].tolist() == [below, below], "67 is no more than three semitones away"
    many = torch.full((400,), number)
    recalled = trainer.recalled(many, torch.Generator().manual_seed(1))
    as_own = (recalled == trainer.tones.known.flatten(0, 1)[own]).all(1).float().mean()
    assert 0.1 < float(as_own) < 0.3


def test_what_the_net_leaves_out_of_recordings_is_measured(corpus: notes.NoteCorpus, tmp_path: Path) -> None:
    trainer = ToneTrainer(CONFIG, corpus, tmp_path)
    wanted = [(0.3, 0.1, 0.08), (0.1, 0.4, 0.15)]
    rng = np.random.default_rng(3)
    partials, noise = corpus.partials.copy(), corpus.noise.copy()
    for number, note in enumerate(trainer.notes):
        own = slice(note.first, note.first + note.frames)
        times = corpus.times[own]
        row = torch.cat((torch.tensor([note.pitch, max(note.velocity, 0.85), 0.0]), torch.eye(2)[note.timbre]))
        rows = torch.cat((row.expand(note.frames, -1), trainer.latents.weight[number].expand(note.frames, -1)), 1)
        rows[:, 1] = note.velocity if note.velocity >= 0 else 0.85
        rows[:, 2] = torch.from_numpy(times)
        pitch = round(note.pitch) - LOWEST
        with torch.no_grad():
            said = trainer.tones(rows, trainer.tones.known[note.timbre, pitch].expand(note.frames, -1)).numpy()
        depth, noisy, seconds = wanted[note.timbre]
        stray = rng.standard_normal((note.frames, HARMONICS + BANDS))
        for k in range(1, note.frames):
            keep = math.exp(-float(times[k] - times[k - 1]) / seconds)
            stray[k] = keep * stray[k - 1] + math.sqrt(1 - keep**2) * stray[k]
        partials[own] = said[:, :HARMONICS] + depth * stray[:, :HARMONICS]
        noise[own] = said[:, HARMONICS:-1] + noisy * stray[:, HARMONICS:]
    trainer.corpus = dataclasses.replace(corpus, partials=partials, noise=noise)
    for found, (depth, noisy, seconds) in zip(trainer.left_out(), wanted, strict=True):
        # A note's own mean is taken out, and a recording lasts but a second: a little is lost.
        assert 0.6 * depth < found["waver_db"] * math.log(10) / 20 < 1.1 * depth
        assert 0.6 * noisy < found["noise_waver_db"] * math.log(10) / 20 < 1.1 * noisy
        assert 400 * seconds < found["waver_ms"] < 1500 * seconds


def test_training_learns_resumes_to_the_bit_and_exports_a_playable_model(
    corpus: notes.NoteCorpus, tmp_path: Path
) -> None:
    whole = ToneTrainer(CONFIG, corpus, tmp_path / "whole")
    first = whole.train_step()
    whole.run(progress=False)
    last = whole.tracks_loss(torch.Generator().manual_seed(1))
    assert float(last.detach()) < 0.8 * first["tracks"]
    half = ToneTrainer(CONFIG, corpus, tmp_path / "half")
    while half.step < 56:
        half.train_step()
    half.save()
    again = ToneTrainer(CONFIG, corpus, tmp_path / "half")
    again.restore()
    again.run(progress=False)
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, again.net.state_dict()[name]), name

    content = load_checkpoint(tmp_path / "whole")
    del content["ema"]["body"]
    with pytest.raises(UsageError, match="earlier form of the net"):
        tone_export.net_of(content)

    path = tmp_path / "tiny.ts"
    card = tone_export.export_tones(tmp_path / "whole", path)
    assert [t["name"] for t in card["timbres"]] == ["plucks", "bells"]
    assert card["training"]["sources"] and card["inputs"] == 3 + 2 + 2
    from rtgan.generators import library

    loaded = library.load(path)
    error = library.deviation(loaded)
    assert error is not None and error < library.TOLERANCE
    assert [t.name for t in loaded.card.timbres] == ["plucks", "bells"]
    wavers = [(t.waver_db, t.noise_waver_db, t.waver_ms) for t in loaded.card.timbres]
    assert all(0 < waver < 24 and 0 <= noise < 24 and ms >= 50 for waver, noise, ms in wavers)

    system, config = tone_eval.system_of(path)
    assert config.held_out == [60] and list(config.timbres) == list(TIMBRES)
    results = tone_eval.measure(corpus, [system, tone_eval.sampler(corpus)])
    assert all(r["notes"] == 2 and np.isfinite([r["spectral"], r["frechet"]]).all() for r in results.values())


def test_a_system_that_plays_the_recordings_is_no_distance_away(corpus: notes.NoteCorpus) -> None:
    perfect = tone_eval.System("perfect", lambda note, samples, draw: corpus.sound(note)[:samples])
    silent = tone_eval.System("silent", lambda note, samples, draw: np.zeros(samples, np.float32))
    results = tone_eval.measure(corpus, [perfect, silent, tone_eval.taken_apart(corpus)])
    assert results["resynthesis of its own partials and noise"]["spectral"] < 0.5 * results["silent"]["spectral"]
    assert results["perfect"]["spectral"] < 1e-4 and results["perfect"]["frechet"] < 0.1
    assert results["silent"]["spectral"] > 1 and results["silent"]["frechet"] > 100


@pytest.mark.parametrize(
    "change, words",
    [
        ({"colour": 1}, "colour is not known"),
        ({"timbres": {}}, "at least one"),
        ({"timbres": {"a": {"folder": "x", "release_ms": 1}}}, "release_ms"),
        ({"timbres": {"a": {}}}, "timbres.a is not complete"),
        ({"network": {"width": 2}}, "width"),
        ({"steps": "many"}, "steps"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(change: dict[str, object], words: str) -> None:
    plain = dataclasses.asdict(CONFIG)
    with pytest.raises(UsageError, match=words):
        parse_tone_config(plain | change, "x.yaml")


def test_a_folder_without_notes_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="The timbre plucks has no recordings in "):
        load_notes(tmp_path, TIMBRES, [], tmp_path, progress=False)
