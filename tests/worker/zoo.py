# ruff: noqa: UP006, UP035 (what TorchScript wants)
"""Models that speak the protocols of others, in plain torch: what tests play, exported when they run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, List, Tuple

import torch

TAPS = (0.0, 0.0, 0.0, 1.0, 0.25, -0.125)


def params(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


class Fir(torch.nn.Module):
    """nn~: a filter of known taps, delay 3, with a cached pad for 64 streams that the export left dirty."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("taps", torch.tensor(TAPS).flip(0)[None, None])
        self.register_buffer("pad", torch.randn(64, 1, len(TAPS) - 1))
        self.register_buffer("forward_params", params(1, 1, 1, 1))
        self.sr = 48000

    @torch.jit.export
    def get_methods(self) -> List[str]:
        return ["forward"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.shape[0]
        line = torch.cat([self.pad[:rows], x], -1)
        self.pad[:rows] = line[..., -5:]
        return torch.nn.functional.conv1d(line, self.taps)


class Latents(torch.nn.Module):
    """nn~: encode and decode at a 16th of the rate, exact inverses; forward gives multiples of 16."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("encode_params", params(1, 1, 16, 16))
        self.register_buffer("decode_params", params(16, 16, 1, 1))
        self.register_buffer("forward_params", params(1, 1, 1, 1))
        self.encode_output_labels = ["(signal) loudness", "(signal) rest"]
        self.decode_input_labels = [f"(signal) z {k}" for k in range(16)]
        square = torch.randn(16, 16, generator=torch.Generator().manual_seed(1))
        self.register_buffer("turn", torch.linalg.qr(square)[0])

    @torch.jit.export
    def get_methods(self) -> List[str]:
        return ["encode", "decode", "forward"]

    @torch.jit.export
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return (x.reshape(x.shape[0], -1, 16) @ self.turn).transpose(1, 2).contiguous()

    @torch.jit.export
    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return (z.transpose(1, 2) @ self.turn.t()).reshape(z.shape[0], 1, -1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        short = (-x.shape[-1]) % 16
        return self.decode(self.encode(torch.nn.functional.pad(x, (0, short))))


class Old(torch.nn.Module):
    """nn~ before its lists: only a table beside each method; control values every 32 samples beside the sound."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("forward_params", params(1, 1, 1, 1))
        self.register_buffer("envelope_params", params(1, 1, 1, 32))
        self.register_buffer("tone_params", params(1, 32, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x

    @torch.jit.export
    def envelope(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], 1, -1, 32).abs().amax(-1)

    @torch.jit.export
    def tone(self, level: torch.Tensor) -> torch.Tensor:
        return level.repeat_interleave(32, -1)


class Rave(torch.nn.Module):
    """nn~: as RAVE decodes for two channels: two rows of latents that its host gives, by a setter in no list."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("encode_params", params(1, 1, 2, 16))
        self.register_buffer("decode_params", params(2, 16, 1, 1))
        self.register_buffer("forward_params", params(1, 1, 1, 1))
        self.stereo_mode = False
        self.sr = 48000

    @torch.jit.export
    def get_methods(self) -> List[str]:
        return ["encode", "decode", "forward"]

    @torch.jit.export
    def set_stereo_mode(self, stereo):  # RAVE names no type, which makes it a tensor
        self.stereo_mode = bool(stereo)

    @torch.jit.export
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat((x, -x), 1)[:, :, ::16]

    @torch.jit.export
    def decode(self, z: torch.Tensor) -> torch.Tensor:
        y = z[:, :1].repeat_interleave(16, -1)
        if self.stereo_mode:
            half = z.shape[0] // 2
            y = torch.cat([y[:half], 0.5 * y[half:]], 1)
        return y

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decode(self.encode(x))


class Zoo(torch.nn.Module):
    """nn~: attributes of every kind, one that refuses, one that is a list, a buffer of sound."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("forward_params", params(1, 1, 1, 1))
        self.register_buffer("on_params", params(0))
        self.register_buffer("order_params", params(1))
        self.register_buffer("gain_params", params(2))
        self.register_buffer("mode_params", params(3))
        self.register_buffer("pair_params", params(2, 2))
        self.register_buffer("room_params", params(5))
        self.register_buffer("curve_params", params(4))
        self.curve: torch.Tensor = torch.ones(1)
        self.on, self.order, self.gain, self.mode, self.pair = True, 2, 0.5, "plain", (0.0, 0.0)
        self.room: torch.Tensor = torch.zeros(1, 0)
        self.sr = 48000

    @torch.jit.export
    def get_methods(self) -> List[str]:
        return ["forward"]

    @torch.jit.export
    def get_attributes(self) -> List[str]:
        return ["on", "order", "gain", "mode", "pair", "room", "curve", "none"]

    @torch.jit.export
    def get_on(self) -> bool:
        return self.on

    @torch.jit.export
    def set_on(self, value: bool) -> int:
        self.on = value
        return 0

    @torch.jit.export
    def get_order(self) -> int:
        return self.order

    @torch.jit.export
    def set_order(self, value: int) -> int:
        if value > 4:
            return -1
        self.order = value
        return 0

    @torch.jit.export
    def get_gain(self) -> float:
        return self.gain

    @torch.jit.export
    def set_gain(self, value: float) -> int:
        self.gain = value
        return 0

    @torch.jit.export
    def get_mode(self) -> str:
        return self.mode

    @torch.jit.export
    def set_mode(self, value: str) -> int:
        self.mode = value
        return 0

    @torch.jit.export
    def get_pair(self) -> Tuple[float, float]:
        return self.pair

    @torch.jit.export
    def set_pair(self, first: float, second: float) -> int:
        self.pair = (first, second)
        return 0

    @torch.jit.export
    def get_curve(self) -> torch.Tensor:
        return self.curve

    @torch.jit.export
    def set_curve(self, value: torch.Tensor) -> int:
        self.curve = value
        return 0

    @torch.jit.export
    def get_room(self) -> str:
        return "room#0"

    @torch.jit.export
    def set_buffer_attribute(self, name: str, sound: torch.Tensor, rate: int) -> int:
        if name != "room#0":
            return -1
        self.room = sound
        return 0

    @torch.jit.export
    def set_room(self, name: str) -> int:
        return 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * self.gain * self.order * self.curve.sum() + self.pair[0] - self.pair[1]
        if self.mode == "negative":
            y = -y
        if self.room.numel() > 0:
            y = y + self.room.mean()
        return y if self.on else torch.zeros_like(y)


class Chance(torch.nn.Module):
    """nn~: noise of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("forward_params", params(1, 1, 1, 1))
        self.sr = 48000

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0.01 * torch.randn_like(x)


class Hungry(torch.nn.Module):
    """nn~: says that any length will do and needs 2048, as RAVE does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("forward_params", params(1, 1, 1, 1))
        self.register_buffer("encode_params", params(1, 1, 1, 2048))
        self.sr = 48000

    @torch.jit.export
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], 1, -1, 2048).mean(-1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(x, (0, (-x.shape[-1]) % 2048))


class Accident(torch.nn.Module):
    """A plain module: what is no number comes out of what is loud, and stays in its state; what is silent is heard."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool(x.abs().max() > 0.9):
            self.last = self.last / 0.0 - self.last / 0.0
        return x + self.last


class Loud(torch.nn.Module):
    """A plain module: ten times as loud."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 10.0 * x


class Rated(torch.nn.Module):
    """nn~: says its rate by a method alone, and what it was told by another comes out of its sound."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("forward_params", params(1, 1, 1, 1))
        self.rate = 32000

    @torch.jit.export
    def get_sample_rate(self) -> int:
        return self.rate

    @torch.jit.export
    def set_sample_rate(self, rate: int) -> int:
        self.rate = rate
        return 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (self.rate / 32000.0)


class Daw(torch.nn.Module):
    """The outside of a Neutone file that puts out what it was set to."""

    def __init__(self) -> None:
        super().__init__()
        self.rate, self.block = 0, 0

    @torch.jit.export
    def set_daw_sample_rate_and_buffer_size(self, rate: int, block: int, own_rate: int = 0, own_block: int = 0) -> int:
        self.rate, self.block = rate, block
        return block

    def forward(self, x: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x) + self.rate / 96000.0 + self.block / 1000000.0


class Slow(torch.nn.Module):
    """nn~: takes as long as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("forward_params", params(1, 1, 1, 1))
        self.register_buffer("work_params", params(1))
        self.register_buffer("big", torch.eye(128))
        self.work = 0
        self.sr = 48000

    @torch.jit.export
    def get_attributes(self) -> List[str]:
        return ["work"]

    @torch.jit.export
    def get_work(self) -> int:
        return self.work

    @torch.jit.export
    def set_work(self, value: int) -> int:
        self.work = value
        return 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.big
        for _ in range(self.work):
            y = y @ self.big
        return x * y[0, 0]


class Sleeper(torch.nn.Module):
    """nn~: half as loud; each change of ``sleep`` costs it so much work, once."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("forward_params", params(1, 1, 1, 1))
        self.register_buffer("sleep_params", params(1))
        self.register_buffer("big", torch.eye(128))
        self.sleep = 0
        self.due = 0
        self.sr = 48000

    @torch.jit.export
    def get_attributes(self) -> List[str]:
        return ["sleep"]

    @torch.jit.export
    def get_sleep(self) -> int:
        return self.sleep

    @torch.jit.export
    def set_sleep(self, value: int) -> int:
        self.sleep = value
        self.due = value
        return 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.big
        for _ in range(self.due):
            y = y @ self.big
        self.due = 0
        return 0.5 * x * y[0, 0]


class Stuck(torch.nn.Module):
    """Never ends being loaded."""

    @torch.jit.export
    def __getstate__(self) -> Tuple[int, bool]:
        return 0, self.training

    @torch.jit.export
    def __setstate__(self, state: Tuple[int, bool]) -> None:
        k = 0
        while k >= 0:
            k = (k + 1) % 1000
        self.training = state[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Giant(torch.nn.Module):
    """Asks for more memory than there is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.ones(1 << 42)[0]


class Cuda(torch.nn.Module):
    """Was made for another kind of machine and says so in its code."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.to(torch.device("cuda")) * 2.0).to(torch.device("cpu"))


class Double(torch.nn.Module):
    """Gives whole numbers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * 100).to(torch.int64)


class Exact(torch.nn.Module):
    """Was made in double precision."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.nn.Conv1d(1, 1, 1).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mix(x)


class Stereo(torch.nn.Module):
    """A plain module of two channels in and out, which changes their sides."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] != 2:
            raise ValueError("two channels, please")
        return x.flip(1)


class Widen(torch.nn.Module):
    """One channel to two: (channels, samples), no batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dim() == 2 and x.shape[0] == 1
        return torch.cat([x, 0.5 * x], 0)


class Inner(torch.nn.Module):
    """Neutone's inner model: a gain by its first parameter, 7 samples late, in its own block size."""

    def __init__(self, block: int, channels: int = 1) -> None:
        super().__init__()
        self.block = block
        self.register_buffer("line", torch.zeros(channels, 7))
        self.register_buffer("out", torch.zeros(channels, block))

    @torch.jit.export
    def calc_model_delay_samples(self) -> int:
        return 7

    def forward(self, x: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        assert x.shape[1] == self.block and p.shape[0] == 4 and p.shape[1] == self.block
        line = torch.cat([self.line, x], 1)
        self.line = line[:, -7:]
        self.out[:] = line[:, : self.block] * (1.0 - p[0].mean())
        return self.out


class Neutone(torch.nn.Module):
    """The outside of a Neutone file."""

    def __init__(self, block: int, channels: int = 1) -> None:
        super().__init__()
        self.w2w_base = Inner(block, channels)

    @torch.jit.export
    def set_daw_sample_rate_and_buffer_size(self, rate: int, block: int, own_rate: int = 0, own_block: int = 0) -> int:
        return 2 * block

    @torch.jit.export
    def calc_buffering_delay_samples(self) -> int:
        return 0

    def forward(self, x: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        return self.w2w_base.forward(x, p)


class Bare(Neutone):
    """The same in a file that lost its metadata."""

    @torch.jit.export
    def forward_bt(self, x: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        return self.w2w_base.forward(x, p)

    @torch.jit.export
    def is_input_mono(self) -> bool:
        return True

    @torch.jit.export
    def is_output_mono(self) -> bool:
        return True

    @torch.jit.export
    def get_native_sample_rates(self) -> List[int]:
        return [48000]

    @torch.jit.export
    def get_native_buffer_sizes(self) -> List[int]:
        return [256]

    @torch.jit.export
    def get_default_param_names(self) -> List[str]:
        return ["cut", "", "", ""]

    @torch.jit.export
    def get_default_param_used(self) -> List[bool]:
        return [True, False, False, False]

    @torch.jit.export
    def get_default_param_values(self) -> torch.Tensor:
        return torch.tensor([[0.5], [0.0], [0.0], [0.0]])


OLD_DIALECT: dict[str, Any] = {
    "model_name": "fixture", "model_authors": ["Nobody"], "model_short_description": "Turns down.",
    "sdk_version": "1.2.1", "is_input_mono": True, "is_output_mono": True, "native_sample_rates": [48000],
    "native_buffer_sizes": [256],
    "wet_default_value": 1.0, "dry_default_value": 0.0, "input_gain_default_value": 0.5,
    "output_gain_default_value": 0.5,
    "neutone_parameters": {
        "p1": {"name": "cut", "description": "how much it turns down", "default_value": "0.5", "used": "True",
               "type": "knob"},
        "p2": {"name": "", "description": "", "default_value": "0.0", "used": "False", "type": "knob"},
    },
}  # fmt: skip
NEW_DIALECT: dict[str, Any] = {
    **OLD_DIALECT, "sdk_version": "1.5.2", "native_sample_rates": [44100, 48000],
    "neutone_parameters": {
        "p1": {"name": "cut", "description": "how much it turns down", "default_value": 50.0, "used": True,
               "type": "continuous", "min_value": 0.0, "max_value": 100.0},
    },
}  # fmt: skip


def save(module: torch.nn.Module, path: Path, metadata: dict[str, Any] | None = None) -> Path:
    """Script and save."""
    torch.set_num_threads(1)
    extra = {"metadata.json": json.dumps(metadata)} if metadata is not None else {}
    torch.jit.save(torch.jit.script(module.eval()), str(path), _extra_files=extra)
    return path
