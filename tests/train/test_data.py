"""Recordings: scanned, decoded once, split by group, and tolerant of damage."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from rtgan.errors import UsageError
from rtgan.train.data import load_corpus, pack, scan

soundfile = pytest.importorskip("soundfile")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    root = tmp_path / "data"
    for top, count in (("speech", 20), ("noise", 20)):
        (root / top).mkdir(parents=True)
        for number in range(count):
            soundfile.write(root / top / f"{top}_{number:02d}x.wav", rng.uniform(-0.5, 0.5, 1600), 16000, "PCM_16")
    (root / "notes.txt").write_text("not audio")
    entries = [{"file": "speech/speech_00x.wav", "licence": "CC0-1.0", "source": "my voice", "tier": "B"}]
    (root / "manifest.json").write_text(json.dumps(entries))
    return root


def test_samples_survive_the_cache(folder: Path, tmp_path: Path) -> None:
    corpus = load_corpus(folder, tmp_path / "cache", progress=False)
    clip = next(c for c in corpus.clips if c.file == "noise/noise_03x.wav")
    wanted, rate = soundfile.read(folder / clip.file, dtype="float32")
    assert (clip.sample_rate_hz, clip.samples) == (rate, len(wanted))
    assert np.array_equal(corpus.read(clip, 0, len(wanted)), wanted)
    assert np.array_equal(corpus.read(clip, 1500, 200), np.concatenate((wanted[1500:], np.zeros(100, np.float32))))
    assert np.array_equal(corpus.read(clip, 1500, 200, wrap=True), np.concatenate((wanted[1500:], wanted[:100])))


def test_cache_is_reused_and_rebuilt_when_the_folder_changes(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    load_corpus(folder, cache, progress=False)
    (made,) = cache.iterdir()
    stamp = (made / "audio.i16").stat().st_mtime_ns
    load_corpus(folder, cache, progress=False)
    assert (made / "audio.i16").stat().st_mtime_ns == stamp
    soundfile.write(folder / "noise" / "new.wav", np.full(800, 0.25), 8000, "PCM_16")
    corpus = load_corpus(folder, cache, progress=False)
    assert len(list(cache.iterdir())) == 2
    assert any(c.file == "noise/new.wav" and c.samples == 800 for c in corpus.clips)


def test_what_is_only_for_training_is_never_held_out(folder: Path) -> None:
    held_out = [item["file"] for item in scan(folder) if item["held_out"]]
    index = folder / "manifest.json"
    told = json.loads(index.read_text())
    index.write_text(json.dumps(told + [{"file": file, "only": "train"} for file in held_out]))
    assert held_out and not any(item["held_out"] for item in scan(folder))
    index.write_text(json.dumps([{"file": held_out[0], "only": "test"}]))
    with pytest.raises(UsageError, match=f"{held_out[0]}: 'only' is 'test' but can only be 'train'"):
        scan(folder)


def test_split_is_by_group_stable_and_two_sided(folder: Path) -> None:
    first, again = scan(folder), scan(folder)
    assert first == again
    for role in ("speech", "noise"):
        sides = {item["held_out"] for item in first if item["role"] == role}
        assert sides == {True, False}
    (folder / "speech" / "zz.wav").write_bytes((folder / "speech" / "speech_01x.wav").read_bytes())
    before = {item["file"]: item["held_out"] for item in first}
    assert all(before.get(item["file"], item["held_out"]) == item["held_out"] for item in scan(folder))


def test_manifest_names_origin_and_weighs_tiers(folder: Path) -> None:
    by_file = {item["file"]: item for item in scan(folder)}
    named = by_file["speech/speech_00x.wav"]
    assert (named["source"], named["licence"]) == ("my voice", "CC0-1.0")
    assert named["weight"] < by_file["speech/speech_01x.wav"]["weight"]


def test_damaged_files_are_left_out(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "noise" / "broken.flac").write_bytes(b"this is not audio")
    corpus = load_corpus(folder, tmp_path / "cache", progress=False)
    assert all(c.file != "noise/broken.flac" for c in corpus.clips)
    assert "broken.flac" in capsys.readouterr().err


def test_sources_add_up(folder: Path, tmp_path: Path) -> None:
    sources = load_corpus(folder, tmp_path / "cache", progress=False).sources()
    assert {"my voice", "speech", "noise"} == {s["name"] for s in sources}


def test_a_pack_is_a_subset_that_sounds_and_splits_the_same(folder: Path, tmp_path: Path) -> None:
    whole = load_corpus(folder, tmp_path / "cache", progress=False)
    chosen = pack(folder, tmp_path / "a.pack", 0.1, progress=False)
    assert (tmp_path / "a.pack").stat().st_size <= 100_000
    assert 10 < len(chosen) < len(whole.clips) and not list(tmp_path.glob("*.tmp"))
    part = load_corpus(tmp_path / "a.pack", tmp_path / "cache", progress=False)
    assert {(c.role, c.held_out) for c in part.clips} >= {("speech", False), ("noise", False)}
    by_name = {c.file: c for c in whole.clips}
    for clip in part.clips:
        twin = by_name[clip.file.removesuffix(".flac")]
        for name in ("role", "group", "source", "licence", "weight", "held_out"):
            assert getattr(clip, name) == getattr(twin, name)
        assert np.array_equal(part.read(clip, 0, clip.samples), whole.read(twin, 0, twin.samples))
    with zipfile.ZipFile(tmp_path / "a.pack") as archive:
        notice = archive.read("LICENCES.txt").decode()
    assert {line.split(":")[0] for line in notice.splitlines()} == {c.source for c in part.clips}


def test_a_pack_that_fits_everything_holds_everything(folder: Path, tmp_path: Path) -> None:
    chosen = pack(folder, tmp_path / "a.pack", 50, progress=False)
    assert len(chosen) == len(scan(folder))
    assert len(pack(folder, tmp_path / "b.pack", 50, progress=False)) == len(chosen)
    assert (tmp_path / "a.pack").read_bytes() == (tmp_path / "b.pack").read_bytes()


def test_bad_packs_get_one_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too few"):
        pack(folder, tmp_path / "a.pack", 0.001, progress=False)
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(UsageError, match="is not a pack"):
        load_corpus(tmp_path / "junk", tmp_path / "cache", progress=False)


def test_bad_folders_get_one_sentence(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        scan(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no audio files under 'speech"):
        scan(tmp_path / "empty")
    (folder / "manifest.json").write_text("{oops")
    with pytest.raises(UsageError, match="not a JSON list"):
        scan(folder)
