"""Sound to bits and back: packets, files, and everything that may happen to them on the way."""

from __future__ import annotations

import ctypes
import io
import sys
from functools import cache

import numpy as np
import pytest
from support import speechlike

from rtgan import cli
from rtgan.bench.codec import storm
from rtgan.codec import Decoder, Encoder, Model, Reader, Receiver, Sender, Writer, bits, load, packets
from rtgan.codec.model import PACKET, RATE_HZ, stages_of
from rtgan.errors import RtganError, UsageError
from rtgan.io import files
from rtgan.kernels import codec, entropy

SECONDS = 3.0


@cache
def model() -> Model:
    return load()


@cache
def sound() -> np.ndarray:
    return speechlike(SECONDS, RATE_HZ, seed=4)


@cache
def codes(stages: int | None = None) -> np.ndarray:
    encoder = Encoder(model())
    return np.concatenate([encoder.push(sound(), stages), encoder.end(stages)])


def told(kbit_s: float = 3.0, frames: int = 1) -> list[bytes]:
    sender = Sender(model(), 1000 * kbit_s, frames)
    return sender.push(sound()) + sender.end()


def level(x: np.ndarray, step: int = 800) -> np.ndarray:
    return np.log(np.square(x[: len(x) // step * step]).reshape(-1, step).mean(1) + 1e-5)


def spectra_of(x: np.ndarray) -> np.ndarray:
    """Of what is loud, in bands of 125 Hz."""
    frames = np.abs(np.fft.rfft(x[: len(x) // 512 * 512].reshape(-1, 512) * np.hanning(512)))[:, :128]
    bands = np.square(frames).reshape(-1, 32, 4).mean(-1)
    loud = np.square(sound()[: len(x) // 512 * 512].reshape(-1, 512)).mean(1) > 1e-3
    return np.log(bands[loud] + 1e-2)


@cache
def file(seconds: float = SECONDS) -> bytes:
    stream = io.BytesIO()
    writer = Writer(stream, model(), 2, 48000, 3000)
    fast = np.stack([speechlike(seconds, 48000, seed=k) for k in (4, 5)])
    for start in range(0, fast.shape[1], 7777):
        writer.write(fast[:, start : start + 7777])
    writer.close()
    return stream.getvalue()


# --- the coder ---


def test_the_coder_gives_back_what_it_was_given_in_hardly_more_bits_than_are_in_it() -> None:
    rng = np.random.default_rng(1)
    counts = rng.exponential(1, (9, 300)) ** 3
    tables = entropy.cumulated(counts)
    for length in (0, 1, 7, 900):
        rows = rng.integers(0, 9, length)
        symbols = np.array([rng.choice(300, p=counts[r] / counts[r].sum()) for r in rows], np.int64)
        out = np.zeros(4 * length + 8, np.uint8)
        data = out[: entropy.encode(tables, rows, symbols, out)]
        state = np.zeros(4, np.int64)
        entropy.begin(state, data)
        assert [entropy.decode(tables, int(r), state, data) for r in rows] == symbols.tolist()
        width = np.diff(tables.astype(np.int64))[rows, symbols]
        assert 8 * len(data) <= -np.log2(width / entropy.WHOLE).sum() + 10
    assert entropy.encode(tables, rows, symbols, np.zeros(20, np.uint8)) == -1


# --- sound, codes, sound ---


def test_codes_and_sound_do_not_depend_on_the_pieces_they_come_in() -> None:
    encoder, decoder = Encoder(model()), Decoder(model())
    pieces = [encoder.push(part) for part in np.array_split(sound(), 37)] + [encoder.end()]
    assert np.array_equal(np.concatenate(pieces), codes())
    whole = decoder.push(codes())
    decoder.reset()
    assert np.array_equal(np.concatenate([decoder.push(part) for part in np.array_split(codes(), 11)]), whole)


@pytest.mark.parametrize("stages", [1, 4, 7])
def test_codes_are_the_nearest_of_all_paths_that_a_search_follows(stages: int) -> None:
    encoder = Encoder(model())
    books = model().books.astype(np.float64)
    words = encoder._memory[0]
    place = (ctypes.c_float * books.shape[2]).from_address(int(words[codec.ARENA] + 4 * words[codec.OUTPUT]))
    missed, alone = [], []
    for piece in np.split(sound()[: 60 * PACKET], 60):
        for row in encoder.push(piece, stages):
            latent = np.array(place, np.float64)
            paths = [(float(latent @ latent), latent)]
            for book in books[:stages]:
                longer = [(float(d), left, code) for _, left in paths for code, d in enumerate(_distances(book, left))]
                best = sorted(longer, key=lambda way: way[0])[: int(words[codec.PATHS])]
                paths = [(d, left - book[code]) for d, left, code in best]
            found = latent - sum(book[code] for book, code in zip(books, row[1 : 1 + stages], strict=False))
            np.testing.assert_allclose(found @ found, paths[0][0], rtol=1e-3, atol=1e-6)
            left = latent
            for book in books[:stages]:
                left = left - book[np.argmin(_distances(book, left))]
            missed.append(found @ found)
            alone.append(left @ left)
            # Those behind go on from there, should more be told than was said.
            for book, code in zip(books[stages:], row[1 + stages :], strict=True):
                assert code == np.argmin(_distances(book, found))
                found = found - book[code]
    assert len(missed) > 50
    assert sum(missed) <= sum(alone) * (1 if stages == 1 else 0.95)


def _distances(book: np.ndarray, left: np.ndarray) -> np.ndarray:
    return np.square(left - book).sum(1)


def test_more_bits_come_nearer_and_the_sound_is_where_it_was() -> None:
    distance = []
    for stages in (1, model().stages):
        decoder = Decoder(model())
        out = np.concatenate([decoder.push(codes(), stages), decoder.end()])[Decoder.DELAY :][: len(sound())]
        assert len(out) == len(sound()) and np.isfinite(out).all()
        distance.append(np.abs(spectra_of(out) - spectra_of(sound())).mean())
        shifts = [np.corrcoef(level(out[k:], 160)[:280], level(sound(), 160)[:280])[0, 1] for k in range(0, 800, 80)]
        assert int(np.argmax(shifts)) <= 1
    assert distance[1] < distance[0]


def test_what_trembles_is_smoothed_and_what_changes_is_not() -> None:
    memory = model().state()
    words, floats = memory[0], codec.spectra.BINS * codec.spectra.FRAMES

    def rows(word: int, count: int) -> np.ndarray:
        place = (ctypes.c_float * (count * floats)).from_address(int(words[word]))
        return np.array(place, np.float64).reshape(2 * count, -1)

    told, said = [], []
    for row in codes():
        out = np.zeros(PACKET, np.float32)
        codec.say_all(int(words.ctypes.data), row[None].copy(), 7, out)
        told.append(rows(codec.TOLD, 2)[2:])
        said.append(rows(codec.SAID, 1))
    frames, smooth = np.concatenate(told), np.concatenate(said)
    mean = (frames[:-2] + frames[1:-1] + frames[2:]) / 3
    off = mean - frames[1:-1]
    wanted = frames[1:-1] + np.clip(1 - np.abs(off), 0, 1) * off
    # Pauses are lowered by as much in every bin; each frame is told one later.
    lowered = (wanted - smooth[2:])[:, :1]
    np.testing.assert_allclose(wanted - lowered, smooth[2:], atol=1e-3)
    assert lowered.min() > -1e-3
    assert np.abs(np.diff(wanted, axis=0)).mean() < 0.9 * np.abs(np.diff(frames[1:-1], axis=0)).mean()


def test_silence_costs_next_to_nothing_and_comes_back_as_silence() -> None:
    encoder, decoder = Encoder(model()), Decoder(model())
    quiet = encoder.push(np.zeros(10 * RATE_HZ, np.float32))
    assert (quiet[:, 0] == codec.SILENT).all()
    assert len(bits.pack(model(), quiet, 10)) < 50
    assert np.abs(decoder.push(quiet)).max() < 1e-5


def test_what_is_no_number_harms_only_itself() -> None:
    encoder, decoder = Encoder(model()), Decoder(model())
    bad = np.full(4000, np.nan, np.float32)
    bad[::3] = np.inf
    decoder.push(encoder.push(bad))
    out = decoder.push(encoder.push(sound()))
    assert np.isfinite(out).all() and np.abs(out).max() > 0.02


@pytest.mark.parametrize("change", [lambda c: c[:, :3], lambda c: c + 9999, lambda c: c - 9999])
def test_codes_that_no_codebook_has_are_refused(change) -> None:
    with pytest.raises(UsageError):
        Decoder(model()).push(change(codes()))


def test_the_bit_rate_is_about_what_was_asked_for() -> None:
    for rate in (2000, 4000, 6000):
        taken = 8 * len(bits.pack(model(), codes(), stages_of(model(), rate))) / SECONDS
        assert 0.5 * rate < taken < 1.35 * rate
    with pytest.raises(UsageError, match="the least is 1000"):
        stages_of(model(), 999)


# --- packets ---


def test_packets_say_what_was_coded() -> None:
    for frames in (1, 7):
        found = [packets.unpack(model(), p) for p in told(frames=frames)]
        assert [p.first for p in found] == list(range(0, len(codes()), frames))
        whole = np.concatenate([p.codes for p in found])
        stages = found[0].stages
        sounding = codes()[:, 0] != codec.SILENT
        assert np.array_equal(whole[:, 0], codes()[:, 0])
        assert np.array_equal(whole[sounding, : 1 + stages], codes(stages)[sounding, : 1 + stages])


def test_a_receiver_puts_packets_in_order_and_knows_what_is_missing() -> None:
    sent = told()
    plain = Receiver(model(), hold_frames=4)
    expected = np.concatenate([*map(plain.push, sent), plain.end()])
    assert plain.loss.frames_played == len(sent) and plain.loss.frames_lost == 0
    mixed = Receiver(model(), hold_frames=4)
    order = [sent[0], *(p for k in range(1, len(sent) - 2, 2) for p in (sent[k + 1], sent[k], sent[k]))]
    order += sent[len(order) // 3 * 2 + 1 :]
    assert np.array_equal(np.concatenate([*map(mixed.push, order), mixed.end()]), expected)
    assert mixed.loss.packets_late > 20
    holes = Receiver(model(), hold_frames=0)
    out = np.concatenate([*(holes.push(p) for k, p in enumerate(sent) if k % 10 != 5), holes.end()])
    assert len(out) == len(expected) and np.isfinite(out).all()
    assert holes.loss.frames_lost == sum(k % 10 == 5 for k in range(len(sent)))


def test_packets_of_another_version_or_model_are_refused_by_name() -> None:
    packet = told()[10]
    receiver = Receiver(model())
    for data, reason in (
        (bytes([9]) + packet[1:], "version 9"),
        (packet[:-1], "cut short"),
        (b"", "cut short"),
        (packet[:-3] + bytes([packet[-3] ^ 1]) + packet[-2:], "damaged"),
    ):
        assert receiver.push(data).size == 0 and reason in receiver.problem
    assert receiver.loss.packets_refused == 4
    other = packets.pack(Model(model().net, model().books, model().groups, model().tables, 5), 0, codes()[:1], 3)
    with pytest.raises(RtganError, match="another model"):
        packets.unpack(model(), other)


def test_far_ahead_begins_anew_in_bounded_time_and_memory() -> None:
    receiver = Receiver(model())
    receiver.push(told()[3])
    far = packets.pack(model(), (1 << 32) - 2, codes()[:1], 3)
    assert receiver.push(far).size == PACKET
    with pytest.raises(UsageError, match="numbered up to"):
        packets.pack(model(), 1 << 32, codes()[:1], 3)


@pytest.mark.parametrize("times", [400, pytest.param(20000, marks=pytest.mark.slow)])
def test_whatever_arrives_is_a_sound_or_a_reason(times: int) -> None:
    found = storm(times, sound(), seed=times)
    assert found["failed"] == 0 and found["most_frames"] <= 64
    assert times > found["refused"] > times // 2


def test_what_passes_the_checksum_by_chance_still_decodes_to_codes_or_a_reason() -> None:
    rng = np.random.default_rng(2)
    for _ in range(300):
        try:
            found = bits.unpack(model(), rng.integers(0, 256, 40, np.uint8).tobytes(), 5, model().stages)
        except RtganError:
            continue
        assert np.isfinite(Decoder(model()).push(found)).all()


# --- files ---


def test_a_file_gives_back_its_sound() -> None:
    reader = Reader(file(), model())
    assert (reader.channels, reader.sample_rate_hz, reader.problems) == (2, 48000, [])
    out = reader.read()
    assert out.shape == (2, int(48000 * SECONDS))
    original = np.stack([speechlike(SECONDS, 48000, seed=k) for k in (4, 5)])
    for a, b in zip(out, original, strict=True):
        assert np.corrcoef(level(a, 4800), level(b, 4800))[0, 1] > 0.8
    assert np.array_equal(out, Reader(file(), model()).read())


def test_a_file_seeks() -> None:
    reader = Reader(file(), model())
    whole, part = reader.read(), reader.read(1.5, 1.0)
    assert part.shape == (2, 48000)
    assert np.corrcoef(level(part[0], 2400), level(whole[0, 72000:120000], 2400))[0, 1] > 0.95
    for wrong in ((9.0, None), (-1.0, None), (0.0, 0.0)):
        with pytest.raises(UsageError):
            reader.read(*wrong)


def test_a_stream_without_an_end_is_a_file_too() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    pipe = Pipe()
    writer = Writer(pipe, model())
    writer.write(sound()[None])
    writer.close()
    reader = Reader(pipe.getvalue(), model())
    assert not reader.problems and reader.samples == 0
    assert abs(reader.seconds - SECONDS) < 0.03


def test_damage_costs_what_is_damaged_and_is_told() -> None:
    data = bytearray(file())
    cut = Reader(bytes(data[: len(data) // 2]), model())
    assert any("the end is missing" in p for p in cut.problems) and 0.5 < cut.seconds < 2.5
    assert cut.read().shape[1] == round(cut.seconds * 48000)
    hurt = bytearray(data)
    hurt[len(hurt) // 2] ^= 16
    reader = Reader(bytes(hurt), model())
    assert any("are lost at" in p for p in reader.problems) and reader.read().shape == (2, int(48000 * SECONDS))
    hurt = bytearray(data)
    hurt[10] ^= 16
    reader = Reader(bytes(hurt), model())
    assert "the head of the file is damaged" in reader.problems[0] and reader.channels == 2
    between = bytes(data[:28]) + b"\xa7\x52\x00\x01rubbish" + bytes(data[28:])
    assert np.array_equal(Reader(between, model()).read(), Reader(file(), model()).read())


@pytest.mark.parametrize("times", [40, pytest.param(1500, marks=pytest.mark.slow)])
def test_no_file_does_harm(times: int) -> None:
    rng = np.random.default_rng(times)
    for _ in range(times):
        data = bytearray(file())
        for _ in range(int(rng.integers(1, 30))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        if rng.random() < 0.5:
            del data[int(rng.integers(len(data))) :]
        try:
            reader = Reader(bytes(data), model())
            out = reader.read(0, 0.2) if reader.seconds > 0 else np.zeros((1, 0))
        except RtganError as problem:
            assert "\n" not in str(problem)
            continue
        assert np.isfinite(out).all() and reader.seconds < 2 * SECONDS


def test_the_commands(tmp_path, capsys, monkeypatch) -> None:
    def run(*words) -> int:
        monkeypatch.setattr(sys, "argv", ["rtgan", *map(str, words)])
        return cli.main(sys.argv[1:])

    source, coded, back = tmp_path / "in.wav", tmp_path / "out.rtg", tmp_path / "back.wav"
    files.write(source, speechlike(1.0, 44100)[None], 44100)
    assert run("encode", source, "-o", coded, "--kbit-s", 3) == 0
    assert run("decode", coded, "-o", back) == 0
    out, rate = files.read(back)
    assert rate == 44100 and out.shape == (1, 44100)
    for kbit_s in (0.9, 7, "nan"):
        capsys.readouterr()
        assert run("encode", source, "-o", tmp_path / "no.rtg", "--kbit-s", kbit_s) == 2
        assert "allowed are 1000 to" in capsys.readouterr().err and not (tmp_path / "no.rtg").exists()
    coded.write_bytes(coded.read_bytes()[:-20])
    assert run("decode", coded, "-o", back) == 1
    source.write_bytes(b"no sound")
    for words in (["decode", source, "-o", back], ["encode", source, "-o", tmp_path / "x.mp3"]):
        capsys.readouterr()
        assert run(*words) in (1, 2)
        assert capsys.readouterr().err.count("\n") == 1
