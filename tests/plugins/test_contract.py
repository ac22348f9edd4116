"""What every plugin owes the host, one suite over all that are registered."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from support import speechlike

from rtgan import events, presets
from rtgan.engine import Engine
from rtgan.errors import UsageError
from rtgan.events import Record
from rtgan.graph import ChainItem, Graph
from rtgan.params import Param
from rtgan.plugin import HOST_PARAMS, Plugin, all_params, plugin_class, whole_plugin_ids

Frames = NDArray[np.float32]

IDS = whole_plugin_ids()
#: Settings at which a plugin changes nothing while its full path runs.
NEUTRAL: dict[str, dict[str, float]] = {
    "codec": {"amount": 0.0},
    "compressor": {"ratio": 1.0},
    "deesser": {"range_db": 0.0},
    "denoise": {"amount_db": 0.0},
    "gate": {"threshold_db": -90.0},
    "highpass": {"cutoff_hz": 10.0},
    "hum": {"harmonics": 0.0},
    "leveller": {"boost_db": 0.0, "cut_db": 0.0},
    "morph": {"level_db": -60.0},
}
#: How far below the sound the change may lie, in dB, at a rate the plugin runs at; the others keep every bit.
NEUTRAL_RESIDUAL_DB = {"codec": -18.0, "denoise": -90.0, "highpass": -20.0}
#: Settings at which an instrument lets through what comes in, which by itself it does not.
PASSING: dict[str, dict[str, float]] = {
    "morph": {"input_db": 0.0, "level_db": -60.0},
    "synth": {"input_db": 0.0},
}
#: Those that keep spectra and make phases of their own, but for their neutral setting.
OWN_PHASES = {"codec"}
#: Settings at which a plugin sounds without being played.
BY_ITSELF = {"synth": {"drone"}}
UNITS = {"dB": "_db", "dBFS": "_db", "dBTP": "_db", "Hz": "_hz", "ms": "_ms"}
CEILING = 10 ** (-0.1 / 20) + 1e-6
MAX_BLOCK = 512

every_plugin = pytest.mark.parametrize("name", IDS)
every_rate = pytest.mark.parametrize(
    "rate", [48000, pytest.param(44100, marks=pytest.mark.slow), pytest.param(96000, marks=pytest.mark.slow)]
)


class Rig:
    """One plugin alone in an engine; every run ends with a look at the canaries."""

    def __init__(
        self,
        name: str,
        rate: int = 48000,
        channels: int = 1,
        values: dict[str, float] | None = None,
        max_block: int = MAX_BLOCK,
    ) -> None:
        self.engine = Engine(rate, channels, max_block=max_block)
        values = {**PASSING.get(name, {}), **(values or {})}
        self.graph = Graph([ChainItem(plugin_class(name)(), values, "it")], rate, max_block, channels)
        self.engine.publish(self.graph)
        self.rate, self.node = rate, self.graph.nodes[0]
        self.latency = self.graph.latency_samples
        self.declared = self.graph.chain[0].plugin.params

    def run(self, sound: Frames, block: int = 256, cuts: NDArray[np.int64] | None = None) -> Frames:
        """Play (frames,) or (frames, channels) in blocks of one size, or cut at the places given."""
        frames = np.ascontiguousarray(sound if sound.ndim == 2 else sound[:, None], np.float32)
        cuts = np.arange(block, len(frames), block) if cuts is None else cuts
        out = np.concatenate([self.engine.render(part) for part in np.split(frames, cuts) if len(part)])
        assert self.engine.memory_intact, "something was written outside the plugin's memory"
        return out if sound.ndim == 2 else out[:, 0]

    def set(self, param: str, value: float, when: int = events.NOW) -> None:
        assert self.engine.set_param(self.graph, self.graph.find(f"it.{param}")[0], value, when)

    @property
    def faults(self) -> int:
        return self.graph.faults["it"]


def same_bits(a: Frames, b: Frames) -> bool:
    return a.shape == b.shape and bool(np.array_equal(a.view(np.int32), b.view(np.int32)))


def db(x: float) -> float:
    return float(20 * np.log10(max(x, 1e-12)))


def delayed(sound: Frames, samples: int) -> Frames:
    return np.concatenate([np.zeros((samples, *sound.shape[1:]), np.float32), sound])[: len(sound)]


def moving(rig: Rig, length: int, seed: int = 3) -> None:
    """Schedule changes of every parameter, now and then of the host's own too, over the next samples."""
    rng = np.random.default_rng(seed)
    start = rig.engine.counters.position_samples
    own = list(rig.declared)
    for when in np.sort(rng.integers(0, length, length // 250)).tolist():
        name = str(rng.choice(own)) if rng.random() < 0.9 else str(rng.choice([p.id for p in HOST_PARAMS]))
        param = rig.graph.find(f"it.{name}")[1]
        # Half of the time to an end of the range: what stays in the middle leaves a gate open all the time.
        rig.set(name, param.plain(float(rng.choice([0.0, 1.0, rng.random(), rng.random()]))), start + when)


# --- a chain that replaces another ---


@every_plugin
@every_rate
def test_a_twin_in_the_next_chain_goes_on_where_it_was(name: str, rate: int) -> None:
    sound = np.stack([speechlike(3.0, seed=1, rate=rate), speechlike(3.0, seed=2, rate=rate)], 1)
    half = len(sound) // 2
    values = {p.id: p.plain(0.4) for p in plugin_class(name).params.values()}
    expected = Rig(name, rate, 2, values).run(sound)
    rig = Rig(name, rate, 2, values)
    first = rig.run(sound[:half])
    rig.engine.poll()
    rig.engine.publish(Graph([ChainItem(plugin_class(name)(), values, "it")], rate, MAX_BLOCK, 2))
    fading = rig.run(sound[half : half + rate // 10])
    assert events.SWAP_DONE in [r.kind for r in rig.engine.poll()], "nothing is waited for"
    out = np.concatenate([first, fading, rig.run(sound[half + rate // 10 :])])
    assert np.array_equal(out, expected)


# --- declarations ---


@every_plugin
def test_it_says_who_it_is(name: str) -> None:
    plugin = plugin_class(name)
    assert plugin.id == name and re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", plugin.id)
    assert re.fullmatch(r"\d+\.\d+\.\d+", plugin.version)
    assert plugin.name.strip() == plugin.name != ""
    assert re.fullmatch(r"[A-Z][^\n.]+\.", plugin.description), "one sentence"
    assert all(re.fullmatch(r"[a-z_]+", option) for option in plugin.options)
    module = importlib.import_module(plugin.__module__)
    classes = [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__]
    assert [c for c in classes if issubclass(c, Plugin)] == [plugin], "one plugin, one file"


@every_plugin
def test_its_parameters_are_well_declared(name: str) -> None:
    assert list(all_params(plugin_class(name)))[: len(HOST_PARAMS)] == [p.id for p in HOST_PARAMS]
    for param in plugin_class(name).params.values():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", param.id) and param.id not in ("bypass", "mix")
        assert param.minimum < param.maximum and param.minimum <= param.default <= param.maximum
        for unit, suffix in UNITS.items():
            if param.unit == unit:
                assert param.id.endswith(suffix), f"{param.id} does not carry its unit"
        if param.id.endswith(("_db", "_hz", "_ms")):
            assert UNITS.get(param.unit) == param.id[-3:], f"{param.id} is shown in {param.unit!r}"
        assert param.name and re.fullmatch(r"[A-Z0-9].*\.", param.description), f"{param.id} is not described"
        assert 0 <= param.smoothing_ms <= 200
        if param.scale == "switch":
            assert (param.minimum, param.maximum, param.unit) == (0, 1, "")
        for x in (0.0, 0.25, 1.0):
            plain = param.plain(x)
            assert param.check(plain) == plain
            assert param.normalise(plain) == pytest.approx(round(x) if param.scale == "switch" else x, abs=1e-9)


@every_plugin
@pytest.mark.parametrize("entry", ["colour: red", "params: {colour_db: 1}", "params: {mix: 101}"])
def test_what_it_does_not_know_is_refused_in_one_sentence(name: str, entry: str) -> None:
    text = f"schema: 1\nname: X\nchain:\n- plugin: {name}\n  {entry}\n"
    with pytest.raises(UsageError) as refusal:
        presets.parse(text, "x.yaml")
    message = str(refusal.value)
    assert message.startswith("x.yaml:5: ") and "\n" not in message and len(message) > 25


@every_plugin
@every_rate
def test_what_it_declares_is_constant_and_not_negative(name: str, rate: int) -> None:
    nodes = [Rig(name, rate, channels, max_block=block).node for channels in (1, 2) for block in (64, 1024)]
    for node in nodes:
        declared = (node.latency_samples, node.tail_samples, node.settle_samples)
        assert all(isinstance(d, int) and 0 <= d <= 10 * rate for d in declared)
        assert node.latency_samples == nodes[0].latency_samples, "latency depends on the block or the channels"


# --- the same samples, however they are asked for ---


def check_block_sizes(name: str, rate: int, channels: int, seconds: float, ones: bool, move: bool) -> None:
    rng = np.random.default_rng(5)
    sound = np.stack([speechlike(seconds, rate, seed=k) for k in range(channels)], 1)
    random = np.sort(rng.integers(0, len(sound), len(sound) // 200))
    outs = []
    for block in (256, 64, 65, 128, 997, 0, *([1] if ones else [])):
        for max_block in (MAX_BLOCK, 64) if block == 256 else (MAX_BLOCK,):
            rig = Rig(name, rate, channels, max_block=max_block)
            if move:
                moving(rig, len(sound))
            outs.append(rig.run(sound, block) if block else rig.run(sound, cuts=random))
    assert np.isfinite(outs[0]).all() and np.abs(outs[0]).max() > 1e-3
    for out in outs[1:]:
        assert same_bits(out, outs[0])


@every_plugin
@pytest.mark.parametrize("rate", [44100, 48000])
def test_no_block_size_shows_in_a_single_bit(name: str, rate: int) -> None:
    check_block_sizes(name, rate, 2, 0.4, ones=rate == 48000, move=True)


@pytest.mark.slow
@every_plugin
@pytest.mark.parametrize("rate", [44100, 48000, 96000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("move", [False, True])
def test_no_block_size_shows_in_a_single_bit_anywhere(name: str, rate: int, channels: int, move: bool) -> None:
    check_block_sizes(name, rate, channels, 1.0, ones=True, move=move)


@every_plugin
@every_rate
def test_reset_equals_a_fresh_activation_and_keeps_the_parameters(name: str, rate: int) -> None:
    sound = speechlike(0.4, rate)
    values = {p.id: p.plain(0.6) for p in plugin_class(name).params.values()}
    outs = []
    for fresh in (True, False):
        rig = Rig(name, rate, values=values if fresh else None)
        if not fresh:
            for key, value in values.items():
                rig.set(key, value)
            rig.run(speechlike(0.3001, rate, seed=8))
            rig.engine.send(Record(events.RESET, events.NOW))
        quiet = rig.run(sound)
        moving(rig, len(sound))
        outs.append(np.concatenate([quiet, rig.run(sound)]))
    assert np.abs(outs[0]).max() > 1e-3
    assert same_bits(*outs)


@every_plugin
def test_two_of_it_share_nothing(name: str) -> None:
    sounds = [speechlike(0.3, seed=k) for k in (1, 2)]
    alone = [Rig(name).run(sound) for sound in sounds]
    rigs = [Rig(name), Rig(name)]
    rigs[1].set("bypass", 1.0, 5000)
    pieces: list[list[Frames]] = [[], []]
    for start in range(0, len(sounds[0]), 480):
        for k in (0, 1):
            pieces[k].append(rigs[k].run(sounds[k][start : start + 480]))
    together = [np.concatenate(p) for p in pieces]
    assert same_bits(together[0], alone[0])
    assert same_bits(together[1][:5000], alone[1][:5000])


@every_plugin
@every_rate
def test_channels_carry_their_own_sound(name: str, rate: int) -> None:
    sound = speechlike(0.3, rate)
    out = Rig(name, rate, 2).run(np.stack([sound, sound], 1))
    assert same_bits(np.ascontiguousarray(out[:, 0]), np.ascontiguousarray(out[:, 1]))
    assert same_bits(np.ascontiguousarray(out[:, 0]), Rig(name, rate, 1).run(sound))
    out = Rig(name, rate, 2).run(np.stack([sound, np.zeros_like(sound)], 1))
    assert np.abs(out[:, 0]).max() > 1e-3
    assert db(np.abs(out[:, 1]).max()) < -100, "sound of one channel reaches the other"


@every_plugin
@every_rate
def test_the_future_changes_nothing(name: str, rate: int) -> None:
    sound = speechlike(0.4, rate)
    for turn in (len(sound) // 3, len(sound) // 2 + 17):
        other = sound.copy()
        other[turn:] = -0.5
        assert same_bits(Rig(name, rate).run(sound, 64)[:turn], Rig(name, rate).run(other, 64)[:turn])


# --- latency ---


@every_plugin
@every_rate
@pytest.mark.parametrize("channels", [1, 2])
def test_the_declared_latency_is_where_an_impulse_comes_out(name: str, rate: int, channels: int) -> None:
    rig = Rig(name, rate, channels, NEUTRAL.get(name))
    at = rig.node.settle_samples + 1000
    sound = np.zeros((at + rig.latency + 4000, channels), np.float32)
    sound[at] = 0.5
    out = rig.run(sound)
    for c in range(channels):
        assert int(np.abs(out[:, c]).argmax()) - at == rig.latency
        # What passes through a lower rate keeps the share of its height that the bandwidth is.
        inside = min(plugin_class(name)().rates_hz, default=rate)
        assert out[at + rig.latency, c] > 0.4 * min(1.0, inside / rate)


@every_plugin
@every_rate
def test_the_declared_latency_is_that_of_speech(name: str, rate: int) -> None:
    # Who makes phases of its own is asked with the sound's.
    rig = Rig(name, rate, 1, NEUTRAL[name] if name in OWN_PHASES else None)
    sound = speechlike(2.0, rate)
    size = 2 * len(sound)
    cross = np.fft.rfft(rig.run(sound), size) * np.conj(np.fft.rfft(sound, size))
    # Whitened, so that the delay of all frequencies counts and not the phase of the loudest.
    cross /= np.abs(cross) + 1e-4 * np.abs(cross).max()
    assert int(np.fft.irfft(cross, size).argmax()) == rig.latency


@every_plugin
def test_the_neutral_setting_changes_nothing(name: str) -> None:
    rig = Rig(name, 48000, 1, NEUTRAL.get(name))
    sound = speechlike(0.5)
    start = rig.latency + 4800
    difference = (rig.run(sound) - delayed(sound, rig.latency))[start:]
    residual = db(np.sqrt(np.mean(difference**2) / np.mean(sound**2)))
    if name in NEUTRAL_RESIDUAL_DB:
        assert residual < NEUTRAL_RESIDUAL_DB[name]
    else:
        assert not difference.any()


@every_plugin
@every_rate
@pytest.mark.parametrize("switch, value", [("bypass", 1.0), ("mix", 0.0)])
def test_bypassed_it_is_the_delayed_input_to_the_bit(name: str, rate: int, switch: str, value: float) -> None:
    sound = np.stack([speechlike(0.4, rate, seed=k) for k in (1, 2)], 1)
    rig = Rig(name, rate, 2, {switch: value})
    assert same_bits(rig.run(sound), delayed(sound, rig.latency))
    rig = Rig(name, rate, 2)
    rig.set(switch, value, 4000)
    settled = 4000 + round(0.02 * rate) + 1
    assert same_bits(rig.run(sound)[settled:], delayed(sound, rig.latency)[settled:])


# --- whatever comes in ---


def nasty_sounds(length: int) -> dict[str, Frames]:
    rng = np.random.default_rng(9)
    noise = (0.3 * rng.standard_normal(length)).astype(np.float32)
    holes = noise.copy()
    holes[rng.integers(0, length, 40)] = np.nan
    holes[rng.integers(0, length, 40)] = np.inf
    holes[rng.integers(0, length, 40)] = -np.inf
    impulse = np.zeros(length, np.float32)
    impulse[length // 3] = 1.0
    return {
        "not numbers": holes,
        "denormals": (1e-40 * np.sign(noise)).astype(np.float32),
        "full scale": np.sign(noise) + (noise == 0),
        "direct current": np.ones(length, np.float32),
        "alternating": np.where(np.arange(length) % 2, 1, -1).astype(np.float32),
        "impulse": impulse,
        "silence": np.zeros(length, np.float32),
    }


@every_plugin
@every_rate
def test_finite_numbers_come_out_of_any_sound(name: str, rate: int) -> None:
    for kind, sound in nasty_sounds(rate // 4).items():
        rig = Rig(name, rate, 2)
        out = rig.run(np.stack([sound, sound[::-1]], 1), 200)
        assert np.isfinite(out).all() and np.abs(out).max() <= CEILING, kind
        assert rig.faults == 0, f"{kind}: the host had to silence it"


@every_plugin
def test_it_plays_on_after_numbers_no_sound_has(name: str) -> None:
    rig = Rig(name)
    absurd = np.full(4800, 3e38, np.float32)
    absurd[::3] *= -1
    assert np.isfinite(rig.run(absurd)).all()
    # The host leaves a node out for a second or two after it has put out what is no number.
    rig.run(np.zeros(4 * 48000, np.float32))
    out = rig.run(speechlike(0.5))
    assert np.isfinite(out).all() and np.abs(out[rig.latency :]).max() > 0.02


@every_plugin
@every_rate
@pytest.mark.parametrize("end", ["minimum", "default", "maximum"])
def test_silence_stays_silence_and_the_tail_has_the_length_it_declares(name: str, rate: int, end: str) -> None:
    params = [p for p in plugin_class(name).params.values() if p.id not in BY_ITSELF.get(name, ())]
    rig = Rig(name, rate, values={p.id: float(getattr(p, end)) for p in params})
    assert db(np.abs(rig.run(np.zeros(rate // 4, np.float32))).max()) < -100
    sound = 0.5 * speechlike(0.5, rate) + 0.2  # ends on a step, the hardest case for a filter
    rig.run(sound.astype(np.float32))
    out = rig.run(np.zeros(rig.latency + rig.node.tail_samples + rate // 10, np.float32))
    assert db(np.abs(out[rig.latency + rig.node.tail_samples :]).max()) < -60


@every_plugin
@every_rate
def test_every_parameter_can_be_swept_while_it_plays(name: str, rate: int) -> None:
    t = np.arange(rate // 2) / rate
    sound = (0.06 * np.sin(2 * np.pi * 220 * t)).astype(np.float32)
    for param in all_params(plugin_class(name)).values():
        rig = Rig(name, rate)
        rig.run(sound)
        start = rig.engine.counters.position_samples
        for k, x in enumerate([*np.linspace(0, 1, 40), *np.linspace(1, 0, 40), 1.0, 0.0, 0.5, 1.0]):
            rig.set(param.id, param.plain(float(x)), start + 250 * k)
        out = rig.run(sound)
        assert np.isfinite(out).all() and rig.faults == 0
        # A gate of 0.1 ms takes 0.2 of what is left in one sample; nothing may be quicker.
        assert np.abs(np.diff(out)).max() <= 0.25 * np.abs(out).max(), f"{param.id} clicks"
        out = rig.run(sound)
        assert np.isfinite(out).all()


@dataclass(frozen=True)
class Corner:
    """Every parameter at one end of its range."""

    param: Param
    value: float


@every_plugin
@every_rate
def test_it_bears_every_end_of_every_range(name: str, rate: int) -> None:
    sounds = nasty_sounds(rate // 20)
    corners = [Corner(p, v) for p in plugin_class(name).params.values() for v in (p.minimum, p.maximum)]
    for corner in corners:
        for kind, sound in sounds.items():
            rig = Rig(name, rate, values={corner.param.id: corner.value})
            out = rig.run(sound, 100)
            assert np.isfinite(out).all() and rig.faults == 0, (corner.param.id, corner.value, kind)


def test_the_ids_are_those_of_the_house() -> None:
    assert set(IDS) >= {"denoise", "gain", "gate", "highpass", "limiter", "truepeak"}
    assert all(issubclass(plugin_class(name), Plugin) for name in IDS)
    with pytest.raises(
        UsageError, match="there is no plugin 'reverb-that-is-not-there'; known are: codec, compressor, "
    ):
        plugin_class("reverb-that-is-not-there")
