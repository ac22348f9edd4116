"""Models as files: programs, cards, caches, and playing without torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cards import CARD

from rtgan.errors import RtganError
from rtgan.generators import library
from rtgan.generators.card import parse_card, read_card, read_test_vector
from rtgan.generators.compile import cache_path, compile
from rtgan.generators.program import Program, Storage, View


def tiny() -> Program:
    """Output = tanh(input + weight), recorded by hand."""
    x, w, y, z = (View(k, 0, (1, 5), (5, 1)).json() for k in range(4))
    ops = [
        {"op": "add", "args": {"self": {"t": x}, "other": {"t": w}, "alpha": 1}, "out": [y], "at": ""},
        {"op": "tanh", "args": {"self": {"t": y}}, "out": [z], "at": ""},
    ]
    storages = [Storage(5, "input"), Storage(5, "const", 0), Storage(5, "temp"), Storage(5, "temp")]
    weights = np.zeros(16, np.float32)
    weights[:5] = [0, 1, -1, 0.5, 3]
    return Program(ops, storages, [View.from_json(x)], [View.from_json(z)], weights, "abc", {"rate": 48000})


# -- programs


def test_program_file_round_trip_is_byte_stable(tmp_path: Path) -> None:
    path = tmp_path / "a.rtgp"
    program = tiny()
    program.save(path)
    again = Program.load(path)
    assert again.bytes() == path.read_bytes() == program.bytes()
    assert again.digest() == program.digest() and again.source == "abc" and again.meta == {"rate": 48000}
    assert os.listdir(tmp_path) == ["a.rtgp"]


def test_program_by_hand_runs() -> None:
    net = compile(tiny(), use_cache=False)
    arena = net.arena()
    net.inputs[0].of(arena)[...] = 0.25
    net.run(arena)
    np.testing.assert_allclose(net.outputs[0].of(arena)[0], np.tanh(0.25 + tiny().weights[:5]), atol=3e-7)


@pytest.mark.parametrize("cut", [0, 10, 100, 400, -1])
def test_truncated_program_is_refused(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "a.rtgp"
    path.write_bytes(tiny().bytes()[:cut])
    with pytest.raises(RtganError) as refused:
        Program.load(path)
    assert "\n" not in str(refused.value) and "a.rtgp" in str(refused.value)


def test_flipped_bits_never_pass_unseen(tmp_path: Path) -> None:
    good = tiny().bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "a.rtgp"
    seen = 0
    for _ in range(150):
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(bad))
        try:
            loaded = Program.load(path)
        except RtganError:
            seen += 1
            continue
        # What passes is the zip's own bookkeeping (dates, attributes): the content is unchanged.
        assert loaded.digest() == tiny().digest()
    assert seen > 50


def broken(change: Any) -> Program:
    program = tiny()
    change(program)
    return program


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.ops[0]["out"].__setitem__(0, View(2, 1, (1, 5), (5, 1)).json()),
        lambda p: p.ops[0]["args"].__setitem__("self", {"t": View(9, 0, (5,), (1,)).json()}),
        lambda p: p.ops[0]["args"].__setitem__("self", {"t": {"s": 0}}),
        lambda p: p.storages.__setitem__(1, Storage(5, "const", 14)),
        lambda p: p.storages.__setitem__(1, Storage(-5, "const", 0)),
        lambda p: p.storages.__setitem__(1, Storage(5, "magic", 0)),
        lambda p: p.inputs.__setitem__(0, View(0, -1, (1, 5), (5, 1))),
        lambda p: p.ops.append({"op": 3, "args": {}, "out": []}),
        lambda p: p.ops.append("tanh"),
    ],
)
def test_program_that_reaches_outside_its_memory_is_refused(change: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.rtgp"
    path.write_bytes(broken(change).bytes())
    with pytest.raises(RtganError, match="not a valid lowered generator"):
        Program.load(path)


def test_unknown_operation_in_a_program_is_refused_by_name() -> None:
    program = broken(lambda p: p.ops.append({"op": "fft", "args": {}, "out": [], "at": ""}))
    with pytest.raises(RtganError, match="aten::fft"):
        compile(program, use_cache=False)


# -- cards


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sample_rate_hz": 100}, "sample_rate_hz = 100; allowed is a whole number from 8000"),
        ({"n_fft": "128"}, "n_fft"),
        ({"name": ""}, "name"),
        ({"schema": 2}, "schema"),
        ({"hop_samples": 4096}, "hop_samples <= synthesis_samples <= n_fft"),
        ({"state_size": True}, "state_size"),
        ({"metrics": []}, "metrics"),
        ({"licence": None}, "licence"),
    ],
)
def test_card_with_a_wrong_value_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(RtganError) as refused:
        parse_card({**CARD, **change}, "x.ts")
    assert words in str(refused.value) and "x.ts" in str(refused.value)


@pytest.mark.parametrize("key", ["name", "hop_samples", "state_size"])
def test_card_without_a_key_is_refused(key: str) -> None:
    with pytest.raises(RtganError, match=f"lacks '{key}'"):
        parse_card({k: v for k, v in CARD.items() if k != key}, "x.ts")


def test_card_comes_out_of_the_model(small_model: Path) -> None:
    card = read_card(small_model)
    assert (card.name, card.bins, card.shapes) == ("small", 65, [(1, 2, 65), (1, 24)])
    assert len(card.sha256) == 64 and card.fields["metrics"] == {"si_sdr_db": 1.5}
    vector = read_test_vector(small_model, card)
    assert vector is not None and vector["input"].shape == (8, 2, 65)
    assert "small: A net for tests." in library.describe(small_model)


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_truncated_model_is_refused(part: float, small_model: Path, tmp_path: Path) -> None:
    data = small_model.read_bytes()
    path = tmp_path / "half.ts"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(RtganError) as refused:
        library.load(path)
    assert "\n" not in str(refused.value) and "half.ts" in str(refused.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.ts"
    wrong.write_bytes(os.urandom(2000))
    with pytest.raises(RtganError, match="not a TorchScript model"):
        library.load(wrong)
    with zipfile.ZipFile(wrong, "w") as archive:
        archive.writestr("a/extra/card.json", json.dumps(CARD))
    with pytest.raises(RtganError, match="no TorchScript model"):
        library.load(wrong)
    with zipfile.ZipFile(wrong, "w") as archive:
        archive.writestr("a/constants.pkl", b"")
    with pytest.raises(RtganError, match="no card"):
        library.load(wrong)
    with zipfile.ZipFile(wrong, "w") as archive:
        archive.writestr("a/constants.pkl", b"")
        archive.writestr("a/extra/card.json", "{")
    with pytest.raises(RtganError, match="not valid JSON"):
        library.load(wrong)
    with pytest.raises(RtganError, match="no model file 'nowhere'"):
        library.load("nowhere")


# -- playing and caches

PLAY = """
import sys, time
from rtgan.generators import library
loaded = library.load(sys.argv[1])
error = library.deviation(loaded)
assert error is not None and error < 1e-5, error
assert not any(m == "torch" or m.startswith("torch.") for m in sys.modules) or sys.argv[2] == "torch"
print("played")
"""


def play(model: Path, cache: Path, torch: str, **more: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "RTGAN_CACHE_DIR": str(cache), **more}
    command = [sys.executable, "-W", "ignore", "-c", PLAY, str(model), torch]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)


def test_second_start_needs_no_torch(small_model: Path, tmp_path: Path) -> None:
    cache, blocked = tmp_path / "cache", tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "torch.py").write_text("raise ImportError('torch is not installed')\n")
    path = os.pathsep.join([str(blocked), str(Path(library.__file__).resolve().parents[2])])
    without = play(small_model, cache, "none", PYTHONPATH=path)
    assert without.returncode != 0 and "pip install 'rtgan[torch]'" in without.stderr
    assert play(small_model, cache, "torch").stdout == "played\n"
    again = play(small_model, cache, "none", PYTHONPATH=path)
    assert again.stdout == "played\n", again.stderr


def test_shipped_program_beside_its_model_needs_no_torch(small_model: Path, tmp_path: Path, own_cache: Path) -> None:
    model = tmp_path / "m.ts"
    shutil.copy(small_model, model)
    assert library.lower(model) == tmp_path / "m.rtgp"
    assert library.lower(model, tmp_path / "other.rtgp").read_bytes() == (tmp_path / "m.rtgp").read_bytes()
    assert play(model, tmp_path / "fresh", "none").stdout == "played\n"


def test_program_of_another_model_is_not_taken(small_model: Path, tmp_path: Path, own_cache: Path) -> None:
    model = tmp_path / "m.ts"
    shutil.copy(small_model, model)
    program = library.record_file(model)
    program.source = "0" * 64
    program.weights = program.weights * 0
    program.save(tmp_path / "m.rtgp")
    error = library.deviation(library.load(model))
    assert error is not None and error < 1e-5


def test_lower_refuses_what_differs_from_the_test_vector(
    small_model: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(path: Path, card: Any = None) -> Program:
        program = record(path, card)
        program.weights[:100] += 0.5
        return program

    record = library.record_file
    monkeypatch.setattr(library, "record_file", changed)
    with pytest.raises(RtganError, match="test vector"):
        library.lower(small_model, tmp_path / "x.rtgp")
    assert not (tmp_path / "x.rtgp").exists()


def test_weights_of_float16_are_measured_and_refused_where_they_are_heard(
    small_model: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x.rtgp"
    with pytest.raises(RtganError, match="no matrix of 16384 weights"):
        library.lower(small_model, target, "float16")
    monkeypatch.setattr("rtgan.generators.compile.LARGE", 1000)
    monkeypatch.setattr("rtgan.generators.compile._generator_hash", lambda: "as if 1000 weights were many")
    library.lower(small_model, target, "float16")
    halved = library.Loaded(small_model, read_card(small_model), Program.load(target))
    whole = library.Loaded(small_model, read_card(small_model), library.record_file(small_model))
    error, before = library.deviation(halved), library.deviation(whole)
    assert error is not None and before is not None and before < 1e-6 < error < library.HALF_TOLERANCE
    assert halved.net.weights.size < 0.8 * whole.net.weights.size
    target.unlink()
    monkeypatch.setattr(library, "HALF_TOLERANCE", error / 2)
    with pytest.raises(RtganError, match=f"{error:.1e} of the peak off its test vector"):
        library.lower(small_model, target, "float16")
    assert not target.exists()


def test_machine_code_is_kept_and_a_damaged_file_is_made_again(own_cache: Path) -> None:
    program = tiny()
    first = compile(program)
    path = cache_path(program, ())
    assert path.is_file() and [p.name for p in path.parent.iterdir()] == [path.name]
    assert compile(program) is first, "what is in use is there once"
    in_use = sys.modules[compile.__module__]._loaded
    in_use.clear()
    again = compile(program)
    assert again is not first and again.code == first.code and again.report == first.report
    np.testing.assert_array_equal(again.weights, first.weights)
    whole = path.read_bytes()
    for bad in (b"", whole[:100], whole[: len(whole) // 2], os.urandom(500)):
        path.write_bytes(bad)
        in_use.clear()
        net = compile(program)
        arena = net.arena()
        net.run(arena)
        np.testing.assert_allclose(net.outputs[0].of(arena)[0], np.tanh(program.weights[:5]), atol=3e-7)
        assert path.read_bytes() == whole


def test_changed_weights_make_other_machine_code(own_cache: Path) -> None:
    program = tiny()
    path = cache_path(program, ())
    program.weights[0] += 1
    assert cache_path(program, ()) != path != cache_path(tiny(), [(0, 0)])


def test_cache_that_cannot_be_written_still_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("RTGAN_CACHE_DIR", str(blocked))
    net = compile(tiny())
    net.run(net.arena())
    assert blocked.read_text() == "not a folder"


def test_read_only_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTGAN_CACHE_DIR", str(tmp_path))
    compile(tiny())
    folder = cache_path(tiny(), ()).parent
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)
    try:
        net = compile(tiny())
        net.run(net.arena())
    finally:
        folder.chmod(0o755)


def test_an_arena_must_be_aligned() -> None:
    net = compile(tiny(), use_cache=False)
    with pytest.raises(RtganError, match="64-byte"):
        net.run(np.zeros(net.arena_floats + 1, np.float32)[1:])


# -- what is shipped


@pytest.mark.parametrize("name", library.names())
def test_shipped_model_plays_as_its_card_says(name: str, own_cache: Path) -> None:
    loaded = library.load(name)
    error = library.deviation(loaded)
    assert error is not None and error <= library.TOLERANCE
    assert loaded.program.source == loaded.card.sha256


@pytest.mark.parametrize("name", library.names())
def test_shipped_program_is_what_lowering_gives(name: str, own_cache: Path) -> None:
    pytest.importorskip("torch")
    loaded = library.load(name)
    assert library.record_file(loaded.path).bytes() == loaded.program.bytes()


@pytest.mark.parametrize(
    "odd",
    [
        {"training": {"sources": None, "curve": {"loss": []}}},
        {"training": {"sources": 3, "curve": 4}, "metrics": None},
        {"training": {"curve": {"loss": ["x"]}}, "parameters": "many", "macs_per_frame": None},
    ],
)
def test_what_a_card_says_beside_what_playing_needs_may_be_odd(odd: dict[str, object]) -> None:
    card = library.card_of("voice")
    rows = dict(library.facts(library.find("voice") or Path(), replace(card, fields={**card.fields, **odd})))
    assert rows["latency"] and rows["sha256"] == card.sha256
