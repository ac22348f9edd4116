"""Models that lower run on the audio thread itself; the others say why they do not."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo as models
from playing import Rig, delayed
from support import speechlike

from rtgan import events, model_check
from rtgan.bench import autoencoders
from rtgan.engine import Engine
from rtgan.errors import UsageError
from rtgan.events import Record
from rtgan.generators.compile import compile
from rtgan.graph import ChainItem, Graph
from rtgan.plugin import plugin_class
from rtgan.worker import lowered, node
from rtgan.worker import spec as specs
from rtgan.worker.layout import ANSWERED, WRITTEN

SOUND = speechlike(0.2)


class Net(torch.nn.Module):
    """nn~: causal dilated convolutions with cached pads, a gate and a skip, as neural effects of guitars have them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.register_buffer("forward_params", models.params(1, 1, 1, 1))
        self.enter = torch.nn.Conv1d(1, 16, 3)
        self.middle = torch.nn.Conv1d(16, 32, 3, dilation=4)
        self.leave = torch.nn.Conv1d(16, 1, 1)
        self.register_buffer("first_pad", torch.zeros(1, 1, 2))
        self.register_buffer("middle_pad", torch.zeros(1, 16, 8))
        self.sr = 48000

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        line = torch.cat([self.first_pad, x], -1)
        self.first_pad.copy_(line[..., -2:])
        h = torch.tanh(self.enter(line))
        line = torch.cat([self.middle_pad, h], -1)
        self.middle_pad.copy_(line[..., -8:])
        a, b = self.middle(line).chunk(2, 1)
        return x + self.leave(h + torch.tanh(a) * torch.sigmoid(b))


class Noisy(torch.nn.Module):
    """nn~: a small net built as the first version of RAVE, with noise that goes through Fourier transforms."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("forward_params", models.params(1, 1, 1, 1))
        shape = {"capacity": 2, "ratios": [2, 1], "stacks": [3], "dilations": [[3]], "taps": 33, "noise": [2, 2]}
        self.net = torch.jit.trace(autoencoders._made(**shape), torch.zeros(1, 1, 64), check_trace=False)
        self.sr = 48000

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class Wide(torch.nn.Module):
    """nn~: 64 samples through a layer of 512."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.register_buffer("forward_params", models.params(1, 1, 1, 1))
        self.enter, self.leave = torch.nn.Linear(64, 512), torch.nn.Linear(512, 64)
        self.sr = 48000

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.leave(torch.tanh(self.enter(x.reshape(-1, 64)))).reshape(x.shape)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.save(Net(), tmp_path_factory.mktemp("net") / "net.ts")


def test_a_net_sounds_natively_as_in_torchscript_64_samples_late(net: Path) -> None:
    rig = Rig(net, run="auto")
    own = max(0, rig.latency - 64)
    assert rig.graph.chain[0].plugin.notice.endswith("; native") and not rig.graph.nodes[0].readings
    module = torch.jit.load(str(net))
    with torch.inference_mode():
        wanted = module(torch.from_numpy(SOUND[: 64 * 140])[None, None])[0, 0].numpy()
    out = rig.run(SOUND)
    assert own < 16 and np.abs(out[64:][: len(wanted)] - wanted[: len(out) - 64]).max() < 1e-4 * np.abs(wanted).max()


def test_noise_through_fourier_transforms_is_native(tmp_path: Path) -> None:
    path = models.save(Noisy(), tmp_path / "noisy.ts")
    rig = Rig(path, run="auto")
    assert rig.graph.chain[0].plugin.notice.endswith("; native")
    out = rig.run(SOUND)
    assert np.abs(out).max() > 1e-4 and np.array_equal(Rig(path, run="auto").run(SOUND), out)


def test_weights_of_half_precision_are_for_what_has_large_matrices(net: Path, tmp_path: Path) -> None:
    rig = Rig(net, run="auto", weights="float16")
    assert "in a worker: it has no matrix of 16384 weights" in rig.graph.chain[0].plugin.notice
    path = models.save(Wide(), tmp_path / "wide.ts")
    whole, half = Rig(path, run="auto"), Rig(path, run="auto", weights="float16")
    assert half.graph.chain[0].plugin.notice.endswith("; native")
    a, b = whole.run(SOUND), half.run(SOUND)
    assert 0 < np.abs(a - b).max() < 1e-3 * np.abs(a).max()
    with pytest.raises(UsageError, match="weights is 'int8'; allowed: float32 or float16"):
        Rig(net, weights="int8")


def test_native_or_in_a_worker_it_is_the_same_sound(net: Path) -> None:
    stereo = np.stack([SOUND, SOUND[::-1]], 1)
    native, worker = Rig(net, channels=2, run="auto"), Rig(net, channels=2, block_samples="64")
    shift = worker.latency - native.latency
    assert shift == 64
    a, b = native.run(stereo), worker.run(stereo)
    assert np.abs(a[:-shift] - b[shift:]).max() < 1e-4 * np.abs(a).max()


def test_no_block_size_shows_and_reset_equals_a_fresh_start(net: Path) -> None:
    first = Rig(net, run="auto").run(SOUND)
    for block in (1, 65, 997):
        assert np.array_equal(Rig(net, run="auto").run(SOUND, block), first)
    rig = Rig(net, run="auto")
    rig.run(SOUND[:3001])
    rig.engine.send(Record(events.RESET, events.NOW))
    assert np.array_equal(rig.run(SOUND), first)


@pytest.mark.parametrize("model, channels", [("stereo.ts", 1), ("stereo.ts", 2), ("widen.ts", 1), ("widen.ts", 2)])
def test_channels_are_mapped_as_in_a_worker(zoo: Path, model: str, channels: int) -> None:
    sound = np.stack([SOUND, SOUND[::-1]], 1)[:, :channels]
    native, worker = Rig(zoo / model, channels=channels, run="auto"), Rig(zoo / model, channels=channels)
    a, b = native.run(sound), worker.run(sound)
    assert np.abs(a[: -worker.latency + native.latency] - b[worker.latency - native.latency :]).max() < 1e-6


def test_hands_on_the_latents_move_natively(zoo: Path) -> None:
    flat = {f"latent_{k}_gain": 0.0 for k in range(1, 17)}
    rig = Rig(zoo / "latents.ts", 44100, run="auto", method="latents")
    assert rig.graph.chain[0].plugin.notice.endswith("; native")
    assert np.abs(rig.run(SOUND) - delayed(SOUND, rig.latency)).max() < 1e-5
    rig = Rig(zoo / "latents.ts", 44100, run="auto", method="latents", values=flat)
    assert not rig.run(SOUND).any()


@pytest.mark.parametrize(
    "model, why",
    [
        ("zoo.ts", "its attributes may move while it plays"),
        ("accident.ts", r"zoo.py, line \d+: if bool"),
    ],
)
def test_what_cannot_be_lowered_says_why_and_plays_in_a_worker(zoo: Path, model: str, why: str) -> None:
    rig = Rig(zoo / model, run="auto")
    notice = rig.graph.chain[0].plugin.notice
    assert "in a worker: " in notice
    assert re.search(why, notice)
    assert rig.worker.pid


def test_attributes_that_are_held_fast_let_a_model_run_natively(zoo: Path) -> None:
    rig = Rig(zoo / "zoo.ts", run="native", attributes="gain=0.25; order=4")
    assert rig.graph.chain[0].plugin.notice.endswith("; native")
    assert [p.id for p in rig.graph.chain[0].plugin.params.values()] == []
    assert np.abs(rig.run(SOUND) - delayed(SOUND, 64)).max() < 1e-6


def test_chance_runs_natively_and_a_seed_holds_it_fast(zoo: Path) -> None:
    rig = Rig(zoo / "chance.ts", run="auto")
    assert rig.graph.chain[0].plugin.notice.endswith("; native")
    first = rig.run(SOUND)
    noise = (first - delayed(SOUND, 64))[64:]
    assert noise.std() == pytest.approx(0.01, rel=0.05) and abs(noise.mean()) < 1e-3
    assert abs((noise[64:] * noise[:-64]).mean()) < 1e-5, "blocks do not repeat"
    assert np.array_equal(Rig(zoo / "chance.ts", run="auto").run(SOUND, 997), first)
    assert not np.array_equal(Rig(zoo / "chance.ts", run="auto", seed="5").run(SOUND), first)


@pytest.mark.parametrize("dialect", ["old.nm", "new.nm"])
def test_a_neutone_model_runs_natively_a_block_late(zoo: Path, dialect: str) -> None:
    rig = Rig(zoo / dialect, 48000, run="auto")
    assert rig.graph.chain[0].plugin.notice.endswith("; native")
    assert rig.latency == 256 + 7
    assert np.abs(rig.run(SOUND) - 0.5 * delayed(SOUND, rig.latency)).max() < 1e-6
    rig = Rig(zoo / dialect, 48000, run="auto", values={"cut": 0, "wet": 0.5, "dry": 0.5, "input_gain_db": -6})
    assert np.abs(rig.run(SOUND) - 10 ** (-0.3) * delayed(SOUND, rig.latency)).max() < 1e-6


#: How late the wrapper in a Neutone file of 512 samples at 48 kHz is, as it was measured, by calls of the device.
WRAPPER = {
    48000: {64: 448, 100: 600, 128: 384, 256: 256, 480: 480, 512: 0, 1024: 0, 2048: 0},
    44100: {64: 512, 100: 500, 128: 512, 256: 512, 480: 480, 512: 512, 1024: 1024, 2048: 2048},
    96000: {64: 960, 100: 1100, 128: 896, 256: 768, 480: 1440, 512: 512, 1024: 0, 2048: 0},
}
#: As docs/models.md says.
OURS = {
    48000: {0: 512, 64: 448, 100: 508, 128: 384, 256: 256, 480: 480, 512: 0, 1024: 0, 2048: 0},
    44100: {0: 486, 64: 482, 100: 485, 128: 482, 256: 482, 480: 476, 512: 482, 1024: 482, 2048: 482},
    96000: {0: 1056, 64: 992, 100: 1052, 128: 928, 256: 800, 480: 1024, 512: 544, 1024: 32, 2048: 32},
}


@pytest.fixture(scope="module")
def long_neutone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("neutone")
    return models.save(models.Neutone(512), folder / "m.nm", {**models.OLD_DIALECT, "native_buffer_sizes": [512]})


@pytest.mark.parametrize("rate", WRAPPER)
def test_a_neutone_model_is_no_later_than_in_its_wrapper(long_neutone: Path, rate: int) -> None:
    for call, wanted in OURS[rate].items():
        rig = Rig(long_neutone, rate, run="auto", call=call)
        sound = np.zeros(-(-(rig.latency + 3000) // 2048) * 2048, np.float32)
        sound[900] = 0.5
        assert int(np.abs(rig.run(sound, call or 256)).argmax()) - 900 == rig.latency, (rate, call)
        assert not rig.graph.slipped
        own = 7 * rate // 48000  # the model's, which the wrapper has too
        assert rig.latency - own == pytest.approx(wanted, abs=1)
        # At 96 kHz the wrapper resamples each call by itself, without a filter; ours is 8 samples at 48 kHz each way.
        allowed = WRAPPER[rate].get(call, 1 << 20) + (32 if rate == 96000 else 0)
        assert rig.latency - own <= allowed, (rate, call)


def test_margins_leave_three_quarters_of_a_block_whatever_the_period_is() -> None:
    assert [node.margin_for(512, period) for period in (0, 64, 128, 512, 2048)] == [512, 512, 576, 960, 2496]


@pytest.mark.parametrize("period", [64, 512, 1024])
def test_no_answer_is_due_before_the_worker_can_have_heard_the_question(zoo: Path, period: int) -> None:
    given = {"model": str(zoo / "fir.ts"), "run": "worker"}
    made = plugin_class("model").variant(given, load=True)
    assert made is not None
    engine = Engine(48000, 1, max_block=1024)
    graph = Graph([ChainItem(made(**given), {}, "it")], 48000, 1024, 1, period_samples=period)
    engine.publish(graph)
    late, tone = [], np.full((period, 1), 0.1, np.float32)
    for _ in range(4 * 4096 // period):
        engine.render(tone)
        late.append(graph.nodes[0].keep[0].node.late)
        deadline = time.monotonic() + 10
        # Until the worker has answered all that it has been asked: as if a period took as long.
        words = graph.nodes[0].keep[0]._life.words
        while words[ANSWERED] < words[WRITTEN] and time.monotonic() < deadline:
            time.sleep(0.001)
    assert late[-1] == 0


def test_what_is_too_slow_for_one_call_is_machine_code_in_a_worker(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stereo = np.stack([SOUND, SOUND[::-1]], 1)
    wanted = Rig(net, channels=2).run(stereo)
    monkeypatch.setattr(lowered, "MOST_SHARE", 0.0)
    rig = Rig(net, channels=2, run="auto")
    notice = rig.graph.chain[0].plugin.notice
    assert "in a worker, as machine code: " in notice and "ms at once, more than half of 64 samples" in notice
    out = rig.run(stereo)
    assert np.abs(out - wanted).max() < 1e-4 * np.abs(wanted).max() and not rig.graph.problems
    rig.engine.send(Record(events.RESET, events.NOW))
    assert np.array_equal(rig.run(stereo), out)


def test_rows_of_caches_that_are_for_others_take_no_memory(zoo: Path) -> None:
    spec = specs.look(zoo / "fir.ts")
    made = lowered.lower(spec, model_check._choices(64, 48000))
    assert not isinstance(made, str)
    assert compile(made.program).arena_floats < 5 * 64 < spec.block_for(0), "its 64 rows alone have 320 floats"
