"""Music to bits and back: what a listener, a seek and a damaged file may count on."""

from __future__ import annotations

import io
import sys
import zlib
from functools import cache

import numpy as np
import pytest

from rtgan import cli
from rtgan.bench.codec import damaged, storm
from rtgan.codec import Reader, Receiver, Writer, container, load, modes, music, packets
from rtgan.codec.receiver import Loss
from rtgan.errors import RtganError, UsageError
from rtgan.io import files
from rtgan.kernels import music as rules

RATE_HZ = music.RATE_HZ
SECONDS = 4.0


def musical(seconds: float, rate: int = RATE_HZ, seed: int = 0) -> np.ndarray:
    """Chords of struck strings, and a drum twice a second."""
    rng = np.random.default_rng(seed)
    out = 1e-4 * rng.standard_normal(round(seconds * rate))
    t = np.arange(rate) / rate
    for begin in range(0, len(out), rate // 2):
        note = 0.3 * np.exp(-40 * t) * rng.standard_normal(rate)
        for pitch in 110 * 2 ** (rng.integers(0, 30, 3) / 12):
            for k in range(1, 12):
                if k * pitch < 0.45 * rate:
                    note += 0.1 / k * np.exp(-(2 + k) * t) * np.sin(2 * np.pi * k * pitch * t)
        part = out[begin : begin + rate]
        part += note[: len(part)]
    return (0.5 * out).astype(np.float32)


@cache
def model() -> music.Model:
    return music.load()


@cache
def sound() -> np.ndarray:
    return musical(SECONDS)


@cache
def sent(kbit_s: float = 16.0) -> tuple[bytes, ...]:
    sender = music.Sender(model(), 1000 * kbit_s)
    return (*sender.push(sound()), *sender.end())


@cache
def short(frames: int) -> tuple[bytes, ...]:
    """Packets of so many frames."""
    sender = music.Sender(model(), 16000, frames)
    return (*sender.push(sound()), *sender.end())


def played(told: tuple[bytes, ...] | list[bytes]) -> np.ndarray:
    decoder = music.Decoder(model())
    parts = [decoder.push(music.unpack(model(), packet)) for packet in told]
    return np.concatenate([*parts, decoder.end()])[decoder.DELAY :]


@cache
def file(channels: int = 2, rate: int = RATE_HZ, seconds: float = SECONDS) -> bytes:
    stream = io.BytesIO()
    writer = Writer(stream, model(), channels, rate, 16000)
    whole = np.stack([musical(seconds, rate, k) for k in range(channels)])
    for start in range(0, whole.shape[1], 7777):
        writer.write(whole[:, start : start + 7777])
    writer.close()
    return stream.getvalue()


def through(x: np.ndarray, kbit_s: float = 16.0) -> tuple[np.ndarray, int]:
    sender = music.Sender(model(), 1000 * kbit_s)
    told = [*sender.push(x), *sender.end()]
    return played(told)[: len(x)], sum(map(len, told))


def ratio_db(x: np.ndarray, target: np.ndarray) -> float:
    return float(10 * np.log10(np.square(target).sum() / np.square(x - target).sum()))


# --- sound, packets, sound ---


def test_packets_do_not_depend_on_the_pieces_a_sound_comes_in_and_sound_not_on_the_run() -> None:
    sender = music.Sender(model(), 16000)
    pieces = [p for part in np.array_split(sound(), 91) for p in sender.push(part)]
    assert (*pieces, *sender.end()) == sent()
    assert np.array_equal(played(sent()), played(sent()))


def test_the_sound_is_where_it_was_and_more_bits_come_nearer() -> None:
    ratios = [ratio_db(through(sound(), k)[0], sound()) for k in (8, 16, 24)]
    assert ratios[0] > 3 and ratios[0] < ratios[1] < ratios[2]


def test_the_rate_is_kept() -> None:
    x = musical(10.0, seed=3)
    for rate in (8, 12, 24):
        _, size = through(x, rate)
        assert 0.85 * rate < 8e-3 * size / 10 < 1.05 * rate
    for wrong in (7.9, 24.1, float("nan"), -1.0):
        with pytest.raises(UsageError, match="allowed are 8000 to 24000"):
            music.Sender(model(), 1000 * wrong)


@pytest.mark.parametrize("frames, kbit_s", [(1, 10), (1, 24), (2, 8), (2, 24)])
def test_packets_of_few_frames_keep_the_rate_too(frames: int, kbit_s: int) -> None:
    sender = music.Sender(model(), 1000 * kbit_s, frames)
    told = [*sender.push(sound()), *sender.end()]
    assert 0.85 * kbit_s < 8e-3 * sum(map(len, told)) / SECONDS < 1.05 * kbit_s
    with pytest.raises(UsageError, match="packets of 1 frame need 10000 bit/s or more"):
        music.Sender(model(), 9999, 1)


def test_short_packets_sound_as_long_ones_of_a_lower_rate() -> None:
    for frames in (1, 2):
        sender = music.Sender(model(), 24000, frames)
        out = played([*sender.push(sound()), *sender.end()])[: len(sound())]
        assert ratio_db(out, sound()) > ratio_db(through(sound(), 8)[0], sound())


def test_silence_costs_next_to_nothing_and_comes_back_as_silence() -> None:
    out, size = through(np.zeros(10 * RATE_HZ, np.float32))
    assert not out.any() and size < 11 * 20


def test_a_drum_is_not_heard_before_it_is_struck() -> None:
    x = np.zeros(RATE_HZ, np.float32)
    x[24400:] = 0.5 * np.random.default_rng(2).standard_normal(RATE_HZ - 24400) * np.exp(-np.arange(23600) / 2000)
    out, _ = through(x, 12)
    # Before the short block that it is in, and its overlap.
    early = np.square(out[: 24400 - 360]).mean()
    assert early < 1e-5 * np.square(out[24400:25000]).mean()


@pytest.mark.parametrize("kind", ["square", "noise", "not a number", "one sample", "very loud"])
def test_no_sound_does_harm(kind: str) -> None:
    rng = np.random.default_rng(0)
    x = {
        "square": np.sign(np.sin(np.arange(RATE_HZ) / 30)).astype(np.float32),
        "noise": rng.uniform(-1, 1, RATE_HZ).astype(np.float32),
        "not a number": np.where(rng.random(RATE_HZ) < 0.5, np.nan, np.inf).astype(np.float32),
        "one sample": np.eye(1, RATE_HZ, 5000, dtype=np.float32)[0],
        "very loud": np.full(RATE_HZ, 1e30, np.float32),
    }[kind]
    out, size = through(x, 8)
    given = np.clip(np.nan_to_num(x, nan=0, posinf=0, neginf=0), -4, 4)
    assert np.isfinite(out).all() and size < 1.3 * 1000 + 100
    assert np.abs(out).max() <= 3 * np.abs(given).max() and np.square(out).mean() <= 1.5 * np.square(given).mean()


def test_what_was_not_a_number_is_gone_when_it_is_over() -> None:
    sender = music.Sender(model(), 24000)
    told = [*sender.push(np.full(RATE_HZ, np.nan, np.float32)), *sender.push(sound()), *sender.end()]
    assert ratio_db(played(told)[RATE_HZ:][: len(sound())], sound()) > 8


# --- packets ---


def test_packets_say_what_they_are_and_are_refused_by_name() -> None:
    packet = sent()[1]
    found = music.unpack(model(), packet)
    assert (found.first, found.frames) == (50, 50)
    for data, reason in (
        (bytes([9]) + packet[1:], "version 9; this program knows version 2"),
        (packet[:-1], "cut short"),
        (b"", "cut short"),
        (packet[:-3] + bytes([packet[-3] ^ 1]) + packet[-2:], "damaged"),
    ):
        with pytest.raises(RtganError, match=reason):
            music.unpack(model(), data)
    other = packets.wrap(2, packets.folded(model().number ^ 1), 0, 50, found.quality, found.told)
    with pytest.raises(RtganError, match="another model"):
        music.unpack(model(), other)
    with pytest.raises(RtganError, match="version 2"):
        packets.unpack(load(), packet)


def test_a_packet_that_is_missing_is_made_up_for_without_a_click() -> None:
    whole = played(sent())
    decoder = music.Decoder(model())
    parts = [decoder.push(music.unpack(model(), p)) if k != 1 else decoder.conceal(50) for k, p in enumerate(sent())]
    out = np.concatenate([*parts, decoder.end()])[decoder.DELAY :]
    assert len(out) == len(whole)
    # What lies outside the gap and the overlaps with it is untouched.
    assert np.array_equal(out[: 50 * 960 - 960], whole[: 50 * 960 - 960])
    assert np.array_equal(out[100 * 960 + 480 :], whole[100 * 960 + 480 :])
    gap = out[50 * 960 : 100 * 960]
    assert np.abs(np.diff(gap)).max() <= 1.5 * np.abs(np.diff(whole)).max()
    assert np.abs(gap[:960]).max() > 1e-4 and not gap[15 * 960 : -960].any()


def test_whatever_arrives_is_a_packet_or_a_reason() -> None:
    rng = np.random.default_rng(4)
    refused = 0
    for _ in range(400):
        data = damaged(rng, sent())
        try:
            assert music.unpack(model(), data).frames <= 50
        except RtganError as problem:
            refused += 1
            assert "\n" not in str(problem)
    assert 400 > refused > 200


def test_what_passes_the_checksum_by_chance_is_a_sound_or_a_reason() -> None:
    rng = np.random.default_rng(2)
    heard = 0
    for _ in range(300):
        told = rng.integers(0, 256, int(rng.integers(200)), np.uint8).tobytes()
        forged = packets.wrap(2, packets.folded(model().number), 0, 12, int(rng.integers(256)), told)
        try:
            out = music.Decoder(model()).push(music.unpack(model(), forged))
        except RtganError:
            continue
        heard += 1
        # Nothing is louder than the loudest energies that can be told.
        assert out.shape == (12 * 960,) and np.isfinite(out).all() and np.abs(out).max() < 1e5
    assert heard


# --- networks ---


@pytest.mark.parametrize("frames", [1, 7, 50])
def test_a_receiver_of_packets_in_order_gives_what_the_decoder_gives(frames: int) -> None:
    told = short(frames)
    receiver = Receiver(model(), hold_frames=0)
    out = np.concatenate([*map(receiver.push, told), receiver.end()])
    assert np.array_equal(out[music.Decoder.DELAY :], played(told))
    assert receiver.loss == Loss(frames_played=len(out) // music.FRAME - 1)


@pytest.mark.parametrize("frames", [1, 7])
def test_a_receiver_puts_packets_in_order_and_knows_what_is_missing(frames: int) -> None:
    told = short(frames)
    mixed = Receiver(model(), hold_frames=4 * frames)
    pairs = [p for k in range(1, len(told) - 2, 2) for p in (told[k + 1], told[k], told[k])]
    order = [told[0], *pairs, *told[1 + len(pairs) // 3 * 2 :]]
    out = np.concatenate([*map(mixed.push, order), mixed.end()])
    assert np.array_equal(out[music.Decoder.DELAY :], played(told))
    assert mixed.loss.packets_late == len(pairs) // 3 and mixed.loss.frames_lost == 0
    holes = Receiver(model(), hold_frames=0)
    there = np.concatenate([*(holes.push(p) for k, p in enumerate(told) if k % 10 != 5), holes.end()])
    assert there.shape == out.shape and np.isfinite(there).all()
    assert holes.loss.frames_lost == frames * sum(k % 10 == 5 for k in range(len(told)))
    # A gap reaches as far as the windows that overlap with it.
    before = 5 * frames * music.FRAME
    assert np.array_equal(there[:before], out[:before])
    behind = slice(before + (frames + 2) * music.FRAME, 15 * frames * music.FRAME)
    assert np.array_equal(there[behind], out[behind])


def test_a_gap_sounds_the_same_in_whatever_pieces_it_is_told() -> None:
    packet = music.unpack(model(), short(7)[20])
    outs = []
    for pieces in ((20,), (1,) * 20, (3, 9, 8)):
        decoder = music.Decoder(model())
        decoder.push(packet)
        outs.append(np.concatenate([decoder.conceal(count) for count in pieces]))
    assert np.array_equal(outs[0], outs[1]) and np.array_equal(outs[0], outs[2])
    # Noise that came back every 20 ms would be a tone.
    a, b = outs[0][2 * music.FRAME : 4 * music.FRAME].reshape(2, -1)
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.3


def test_a_receiver_refuses_by_name() -> None:
    packet, receiver = short(1)[10], Receiver(model())
    other = packets.wrap(2, packets.folded(model().number ^ 1), 0, 1, 60, b"")
    speech = packets.wrap(packets.VERSION, packets.folded(load().number), 0, 1, 3, b"")
    for data, reason in (
        (bytes([9]) + packet[1:], "version 9; this program knows version 2"),
        (speech, "version 1; this program knows version 2"),
        (other, "another model"),
        (packet[:-1], "cut short"),
        (b"", "cut short"),
        (packet[:-3] + bytes([packet[-3] ^ 1]) + packet[-2:], "damaged"),
    ):
        assert receiver.push(data).size == 0 and reason in receiver.problem
    assert receiver.loss == Loss(packets_refused=6)
    assert receiver.push(packet).size == music.FRAME and not receiver.problem
    speaker = Receiver(load())
    assert speaker.push(packet).size == 0 and "version 2; this program knows version 1" in speaker.problem


def test_far_ahead_begins_anew_and_no_more_is_kept_than_is_allowed() -> None:
    told = music.unpack(model(), short(1)[10]).told

    def at(first: int) -> bytes:
        return packets.wrap(2, packets.folded(model().number), first, 1, 60, told)

    receiver = Receiver(model(), hold_frames=511)
    assert receiver.push(at(0)).size == music.FRAME
    for first in range(2, 512):
        assert not receiver.push(at(first)).size
        assert len(receiver._frames) <= 512
    # The gap is given up where what is held reaches its end.
    assert receiver.push(at(512)).size == 512 * music.FRAME and not receiver._frames
    assert receiver.loss == Loss(frames_played=512, frames_lost=1)
    assert not receiver.push(at(600)).size
    assert receiver.push(at((1 << 32) - 2)).size == music.FRAME and not receiver._frames
    assert receiver.loss == Loss(frames_played=513, frames_lost=1)


@pytest.mark.parametrize("times", [400, pytest.param(20000, marks=pytest.mark.slow)])
def test_whatever_arrives_is_a_sound_or_a_reason(times: int) -> None:
    found = storm(times, sound(), times, modes.MUSIC)
    assert found["failed"] == 0 and found["most_frames"] <= 64
    assert times > found["refused"] > times // 2


# --- files ---


@pytest.mark.parametrize("rate, channels", [(8000, 1), (44100, 2), (48000, 8), (192000, 1)])
def test_a_file_gives_back_its_sound_at_its_rate(rate: int, channels: int) -> None:
    data = file(channels, rate, 1.0)
    assert container.mode_of(data) is modes.MUSIC
    reader = Reader(data, model())
    assert (reader.channels, reader.sample_rate_hz, reader.problems) == (channels, rate, [])
    out = reader.read()
    assert out.shape == (channels, rate)
    for k in range(channels):
        assert ratio_db(out[k], musical(1.0, rate, k)) > (3 if rate != 192000 else 0)


@pytest.mark.parametrize("samples", [0, 1, 959, 960, 961])
def test_lengths(samples: int) -> None:
    stream = io.BytesIO()
    writer = Writer(stream, model())
    writer.write(sound()[None, :samples])
    writer.close()
    reader = Reader(stream.getvalue(), model())
    assert not reader.problems
    if samples:
        assert reader.read().shape == (1, samples)
    else:
        assert reader.seconds < 0.03 and not reader.read().any()


def test_a_seek_gives_what_a_run_from_the_beginning_gives_there() -> None:
    reader = Reader(file(), model())
    whole = reader.read()
    for start, seconds in ((1.5, 1.0), (2.34, 0.1), (3.99, None)):
        part = reader.read(start, seconds)
        begin = round(start * RATE_HZ)
        assert np.array_equal(part, whole[:, begin : begin + part.shape[1]]) and part.shape[1] > 0
    for wrong in ((9.0, None), (-1.0, None), (0.0, 0.0)):
        with pytest.raises(UsageError):
            reader.read(*wrong)


def test_damage_costs_what_is_damaged_and_is_told() -> None:
    data = file()
    cut = Reader(data[: len(data) // 2], model())
    assert any("the end is missing" in p for p in cut.problems) and 0.5 < cut.seconds < 3
    assert cut.read().shape[1] == round(cut.seconds * RATE_HZ)
    hurt = bytearray(data)
    hurt[len(hurt) // 2] ^= 16
    reader = Reader(bytes(hurt), model())
    assert any("are lost at" in p for p in reader.problems)
    assert reader.read().shape == (2, int(RATE_HZ * SECONDS))
    hurt = bytearray(data)
    hurt[10] ^= 16
    reader = Reader(bytes(hurt), model())
    assert "given back at 48000 Hz" in reader.problems[0] and reader.channels == 2
    between = data[:28] + b"\xa7\x52\x00\x02rubbish" + data[28:]
    assert np.array_equal(Reader(between, model()).read(), Reader(data, model()).read())


def test_files_of_other_kinds_are_refused_by_name() -> None:
    later = bytearray(file())
    later[4] = 7
    later[24:28] = zlib.crc32(bytes(later[:24])).to_bytes(4, "little")
    for data, loaded, reason in (
        (bytes(later), model(), "version 7; this program knows versions 1 .speech. and 2 .music."),
        (file(), load(), "holds what the model 'music' made"),
        (b"RIFF and more", model(), "no .rtg file"),
        (file()[:40], model(), "nothing in the file is intact"),
    ):
        with pytest.raises(RtganError, match=reason):
            Reader(data, loaded)


@pytest.mark.parametrize("times", [40, pytest.param(1500, marks=pytest.mark.slow)])
def test_no_file_does_harm(times: int) -> None:
    rng = np.random.default_rng(times)
    for _ in range(times):
        data = bytearray(file(1, RATE_HZ, 2.0))
        for _ in range(int(rng.integers(1, 30))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        if rng.random() < 0.3:
            at, length = int(rng.integers(len(data))), int(rng.integers(2000))
            data[at:at] = data[at : at + length]
        if rng.random() < 0.5:
            del data[int(rng.integers(len(data))) :]
        try:
            reader = Reader(bytes(data), model())
            out = reader.read(0, 0.2) if reader.seconds > 0 else np.zeros((1, 0))
        except RtganError as problem:
            assert "\n" not in str(problem)
            continue
        assert np.isfinite(out).all() and reader.seconds < 4


def test_forged_gaps_cost_no_more_than_a_minute_beyond_what_is_told() -> None:
    quiet = music.Frames.empty(1, 60)
    told = music.coded(model(), quiet)
    forged = bytearray(file()[:28])
    for number in range(200):
        packet = packets.wrap(music.VERSION, packets.folded(model().number), 3001 * number, 1, 60, told)
        forged += b"\xa7\x52\x00" + packet
    reader = Reader(bytes(forged), model())
    assert reader.samples or reader.seconds < 70
    assert sum(p if isinstance(p, int) else p.frames for p in reader._frames[0]) <= 3000 + 2 * 200
    assert sum("closed" in p for p in reader.problems) >= 198


def test_a_packet_between_whose_frames_others_lie_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = music.Sender(model(), 24000, 50)
    single = music.Sender(model(), 24000, 1)
    (long, *_), shorts = whole.push(sound()), single.push(sound())
    receiver = Receiver(model(), hold_frames=200)
    receiver.push(shorts[0])
    for number in range(2, 50, 2):
        receiver.push(shorts[number])
    count = []
    decoded = music.decoded
    monkeypatch.setattr(music, "decoded", lambda *args: count.append(1) or decoded(*args))  # type: ignore[func-returns-value]
    out = receiver.push(long)
    assert out.size == 49 * music.FRAME and np.isfinite(out).all()
    # Once to be checked, once to be played, and each of the others.
    assert len(count) <= 2 + 24 + 24


def test_what_is_saved_is_not_spent_on_a_single_short_packet() -> None:
    rng = np.random.default_rng(3)
    burst = (0.2 * rng.standard_normal(RATE_HZ)).astype(np.float32)
    sender = music.Sender(model(), 24000, 1)
    sizes = [len(p) for p in sender.push(np.concatenate([np.zeros(2 * RATE_HZ, np.float32), burst])) + sender.end()]
    loud = sizes[105:145]
    assert max(loud) < 4 * 24000 * music.FRAME_S / 8
    assert sum(loud[:20]) > 1.2 * 20 * 24000 * music.FRAME_S / 8, "what was saved is used"


# --- model and commands ---


def test_energies_that_are_told_are_heard() -> None:
    """Noise in place of noise is as loud as that was, in every band, at the lowest rate."""
    x = 0.1 * np.random.default_rng(6).standard_normal(3 * RATE_HZ).astype(np.float32)
    out, _ = through(x, 8)
    spectra = [np.square(np.abs(np.fft.rfft(y[RATE_HZ : 2 * RATE_HZ]))) for y in (x, out)]
    for low, high in zip(rules.EDGES[:-1], rules.EDGES[1:], strict=True):
        given, heard = (s[25 * low : 25 * high].mean() for s in spectra)
        assert abs(10 * np.log10(heard / given)) < 3


def test_the_commands(tmp_path, capsys, monkeypatch) -> None:
    def run(*words) -> int:
        monkeypatch.setattr(sys, "argv", ["rtgan", *map(str, words)])
        return cli.main(sys.argv[1:])

    source, coded, back = tmp_path / "in.wav", tmp_path / "out.rtg", tmp_path / "back.wav"
    files.write(source, musical(1.0, 44100)[None], 44100)
    assert run("encode", source, "-o", coded, "--music", "--kbit-s", 12) == 0
    assert run("decode", coded, "-o", back) == 0
    out, rate = files.read(back)
    assert rate == 44100 and out.shape == (1, 44100) and ratio_db(out[0], musical(1.0, 44100)) > 3
    assert run("encode", source, "-o", coded, "--music") == 0
    capsys.readouterr()
    for words in (
        ["encode", source, "-o", coded, "--music", "--kbit-s", 30],
        ["encode", source, "-o", coded, "--music", "--model", "codec"],
        ["decode", coded, "-o", back, "--model", "voice"],
    ):
        assert run(*words) in (1, 2)
        assert capsys.readouterr().err.count("\n") == 1
    coded.write_bytes(coded.read_bytes()[:-20])
    assert run("decode", coded, "-o", back) == 1
