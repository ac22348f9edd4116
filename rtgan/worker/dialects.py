"""The protocols that models in TorchScript speak, and how each is called. Runs in workers; the only room with torch.

nn~ (RAVE and others): ``<method>_params`` says channels and ratios, attributes are set by ``set_<name>``.
Neutone: a JSON beside the code, four parameters, a wrapper whose inner model is called in its own block size.
Everything else is a module that takes sound in one of three shapes.
"""

from __future__ import annotations

import copy
import json
import re
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from rtgan.errors import RtganError
from rtgan.generators.compile import Net
from rtgan.worker.delay import delay_of
from rtgan.worker.spec import (
    BOOL,
    BUFFER,
    FLOAT,
    INT,
    LATENTS,
    STEREO,
    SWITCH,
    SWITCH_WORDS,
    TENSOR,
    TEXT,
    Attribute,
    Method,
    Spec,
)

Tensor = torch.Tensor
#: Buffers of cached convolutions: what a stream has heard.
_CACHES = ("pad", "cache")
_SHAPES = ("bcn", "cn", "n")
_WANTED = {
    BOOL: "on or off", SWITCH: "on or off", INT: "a whole number", FLOAT: "a number",
    TENSOR: "numbers with spaces between",
}  # fmt: skip
_ABOUT = ("latent_size", "full_latent_size", STEREO)
_LONGEST_TAIL_S = 4
_BLOCKS = (512, 2048, 4096, 480, 8192, 1024)


def _sentence(error: BaseException) -> str:
    """The line of an error that says what is wrong."""
    if "CUDA" in str(error) or "cuda" in str(error):
        return "it wants CUDA; export it for the CPU"
    if "allocate memory" in str(error):
        return "it asks for more memory than there is"
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if re.match(r"\w*(Error|Exception)\b", line)), lines[-1:] or [""])
    text = said if isinstance(said, str) else said[0]
    return (text or type(error).__name__)[:300]


def open_file(path: str) -> tuple[Any, str]:
    """The module of a TorchScript file, and the text of Neutone's metadata, empty where there is none.

    Raises
    ------
    RtganError
        One sentence.
    """
    extra = {"metadata.json": ""}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit.load.*deprecated", category=DeprecationWarning)
            module = torch.jit.load(path, map_location="cpu", _extra_files=extra).eval()  # type: ignore[no-untyped-call]
    except Exception as error:
        text = str(error)
        if "PytorchStreamReader" in text or "failed finding central directory" in text or "not a ZIP" in text:
            raise RtganError(f"{path} is not a TorchScript model: the file is truncated or of another kind") from None
        if "constants.pkl" in text or "file not found" in text:
            raise RtganError(f"{path} is an archive but no TorchScript model") from None
        raise RtganError(f"{path} cannot be loaded as TorchScript: {_sentence(error)}") from None
    text = extra["metadata.json"]
    return module, text if isinstance(text, str) else bytes(text).decode("utf-8", "replace")


def methods_of(module: Any) -> list[str]:
    """Names of the methods that were compiled; TorchScript has no public list of them."""
    return list(module._c._method_names())


def clean(module: Any) -> None:
    """Empty the caches: exports carry what their exporter's last test left in them."""
    for name, buffer in module.named_buffers():
        if name.rpartition(".")[2] in _CACHES:
            buffer.zero_()


def whole(value: Any) -> list[Any]:
    """A scalar, list or tuple as a list."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


# --- calling ---


Call = Callable[[Any, Tensor, Sequence[float], Sequence[float]], Tensor]


def _ramp(past: float, now: float, frames: int) -> Tensor:
    """Values at the ends of as many equal parts of a block."""
    return past + (now - past) * torch.arange(1, frames + 1, dtype=torch.float32) / frames


@dataclass
class Choices:
    """How a model is to be played: what a preset says."""

    method: str = ""
    ranges: str = ""
    attributes: str = ""
    block: int = 512
    rate_hz: int = 48000
    channels: int = 1
    seed: int = 0
    threads: int = 1
    fixed: bool = False
    program: str = ""
    weights: str = "float32"


def calling(spec: Spec, choices: Choices) -> Call:
    """A function ``(module, sound (rows, channels, block), values before, values now) -> sound``."""
    if spec.kind == "nn~":
        return _nn(spec, choices)
    if spec.kind == "neutone":
        return _Neutone(spec, choices)
    shape = spec.shape

    def call(module: Any, x: Tensor, past: Sequence[float], now: Sequence[float]) -> Tensor:
        y: Tensor = module(x if shape == "bcn" else x[0] if shape == "cn" else x[0, 0])
        return y if shape == "bcn" else y[None] if shape == "cn" else y[None, None]

    return call


def _nn(spec: Spec, choices: Choices) -> Call:
    name = choices.method or spec.first
    method = spec.method(name)
    knobs = spec.knobs(choices.method, choices.ranges, choices.fixed)
    inputs = [(k, knob) for k, knob in enumerate(knobs) if knob.what == "input"]
    hands = [(k, knob) for k, knob in enumerate(knobs) if knob.what in ("add", "gain")]
    frames = choices.block // method.ratio_in

    def call(module: Any, x: Tensor, past: Sequence[float], now: Sequence[float]) -> Tensor:
        if inputs:
            given = torch.stack([_ramp(past[k], now[k], frames) for k, _ in inputs])[None].expand(x.shape[0], -1, -1)
            x = torch.cat([x[:, : method.sounds_in], given], 1) if method.sounds_in else given.contiguous()
        wide = method.channels_out == 2 and bool(getattr(module, STEREO, False))
        if name != LATENTS and not (wide and name == "forward"):
            y: Tensor = getattr(module, name)(x)
        else:
            z = module.encode(x)
            for k, knob in hands:
                values = _ramp(past[k], now[k], z.shape[-1])
                row = z[:, knob.element]
                z[:, knob.element] = row + values if knob.what == "add" else row * values
            # In that mode RAVE takes a row of latents for each side; its own forward does not make them.
            y = module.decode(torch.cat([z, z]) if wide else z)
        # A control signal holds until its next value, as nn~ has it.
        return y.repeat_interleave(method.ratio_out, -1) if method.ratio_out > 1 else y

    # What is stretched is stretched before it is moved.
    hands.sort(key=lambda h: h[1].what != "gain")
    return call


class _Neutone(torch.nn.Module):
    """Neutone's inner model between the gains, beside a dry path that is as late as it is: the host's business."""

    line: Tensor

    def __init__(self, spec: Spec, choices: Choices) -> None:
        super().__init__()
        knobs = spec.knobs(choices.method, choices.ranges)
        self.rows = [(k, knob) for k, knob in enumerate(knobs) if knob.what == "p"]
        self.place = {knob.what: k for k, knob in enumerate(knobs)}
        self.block = choices.block
        method = spec.method("")
        self.register_buffer("line", torch.zeros(method.sounds_in, max(0, method.delay_samples)))

    def forward(self, module: Any, x: Tensor, past: Sequence[float], now: Sequence[float]) -> Tensor:
        """A block, as `calling` has it."""

        def level(which: str) -> Tensor:
            k = self.place[which]
            return _ramp(10.0 ** (past[k] / 20.0), 10.0 ** (now[k] / 20.0), self.block)

        def share(which: str) -> Tensor:
            return _ramp(past[self.place[which]], now[self.place[which]], self.block)

        given = [torch.zeros(self.block)] * 4
        for k, knob in self.rows:
            given[knob.element] = (knob.low + knob.span * _ramp(past[k], now[k], self.block)).clamp(0, 1)
        loud = x[0] * level("input")
        inner = getattr(module, "w2w_base", module)
        # What it returns is a buffer of its own that it writes again.
        y: Tensor = inner.forward(loud, torch.stack(given)).clone()
        dry = loud
        if self.line.shape[1]:
            line = torch.cat([self.line, loud], 1)
            self.line.copy_(line[:, self.block :])
            dry = line[:, : self.block]
        if dry.shape[0] != y.shape[0]:
            dry = dry.mean(0, keepdim=True).expand(y.shape[0], -1)
        return ((y * share("wet") + dry * share("dry")) * level("output"))[None]


class Player:
    """A model that plays blocks of one size; several streams of it where the sound has more channels than it takes.

    Parameters
    ----------
    spec : Spec
    choices : Choices
    module : ScriptModule, optional
        Loaded already.
    """

    WARM = 6

    def __init__(self, spec: Spec, choices: Choices, module: Any = None) -> None:
        torch.set_num_threads(choices.threads)
        self.spec, self.choices = spec, choices
        self._pristine = module if module is not None else open_file(spec.path)[0]
        self._lay_out()
        self._copies = 1 if spec.rows else self._streams
        with torch.inference_mode():
            self._prepare(self._pristine)
        self._begin()

    def _lay_out(self) -> None:
        self.knobs = self.spec.knobs(self.choices.method, self.choices.ranges, self.choices.fixed)
        method = self.spec.method(self.choices.method)
        self._takes, self._gives = method.sounds_in, method.channels_out
        # A model of one channel gets a stream for each; one call for all where its rows keep to themselves.
        self._streams = self.choices.channels if self._takes == self._gives == 1 else 1

    def _begin(self) -> None:
        self._values = [knob.param.default for knob in self.knobs]
        #: Attributes that the model refused to set, each told once.
        self.refused: list[str] = []
        self._warm_up()

    def _warm_up(self) -> None:
        self.reset()
        silence = torch.zeros(self.choices.channels, self.choices.block)
        for _ in range(self.WARM):
            self.play(silence, self._values)
        self.reset()

    def _prepare(self, module: Any) -> None:
        clean(module)
        if self.spec.kind == "neutone" and hasattr(module, "set_daw_sample_rate_and_buffer_size"):
            rate = self.choices.rate_hz
            module.set_daw_sample_rate_and_buffer_size(rate, self.choices.block, rate, self.choices.block)
        fixed = {a.name: a for a in self.spec.attributes}
        for part in filter(str.strip, self.choices.attributes.split(";")):
            name, equals, text = (p.strip() for p in part.partition("="))
            if not equals or name not in fixed:
                known = ", ".join(fixed) or "none"
                raise RtganError(f"'{part.strip()[:60]}' sets no attribute; write name=value; there are: {known}")
            _set(module, fixed[name], [t.strip() for t in text.split(",")], self.spec.path)

    def reset(self) -> None:
        """Back to how it was after loading; the seed too."""
        torch.manual_seed(self.choices.seed)
        # Copies share the compiled code: they need no warming of their own.
        self._modules = [copy.deepcopy(self._pristine) for _ in range(self._copies)]
        self._calls = [calling(self.spec, self.choices) for _ in self._modules]
        self._set_to: list[float | None] = [None] * len(self.knobs)
        self._past: list[float] = []

    def _attributes(self, values: Sequence[float]) -> None:
        for attribute in self.spec.attributes:
            mine = [(k, knob) for k, knob in enumerate(self.knobs) if knob.target == attribute.name]
            if not mine or all(self._set_to[k] == values[k] for k, _ in mine):
                continue
            first = all(self._set_to[k] is None for k, _ in mine)
            for k, _ in mine:
                self._set_to[k] = values[k]
            if first and all(values[k] == knob.param.default for k, knob in mine):
                continue  # as the file has it
            for module in self._modules:
                held = whole(getattr(module, f"get_{attribute.name}")())
                for k, knob in mine:
                    kind = attribute.types[knob.element]
                    value = values[k]
                    held[knob.element] = value >= 0.5 if kind == BOOL else round(value) if kind == INT else float(value)
                if getattr(module, f"set_{attribute.name}")(*held) not in (0, None):
                    self._refuse(f"it refuses {attribute.name} = {', '.join(map(str, held))}")

    def _refuse(self, text: str) -> None:
        if text not in self.refused and len(self.refused) < 20:
            self.refused.append(text)

    @torch.inference_mode()
    def play(self, sound: Tensor, values: Sequence[float]) -> Tensor:
        """The next block, (channels, block), with the values that hold at its end.

        Raises
        ------
        RtganError
            If what comes out has another length or shape.
        """
        channels, block = sound.shape
        self._attributes(values)
        past = self._past or values  # the first block begins where it ends
        if self._streams > 1 or self._takes == channels == 1:
            rows = sound[:, None]
        elif self._takes <= 1:
            rows = sound.mean(0)[None, None]
        else:
            rows = (sound if channels == self._takes else sound.mean(0).expand(self._takes, -1))[None]
        parts = torch.split(rows, 1) if self._copies > 1 else (rows,)
        made = []
        for module, call, part in zip(self._modules, self._calls, parts, strict=True):
            y = call(module, part, past, values)
            if y.dim() != 3 or y.shape[-1] != block or y.shape[0] != part.shape[0]:
                raise RtganError(f"it gives {tuple(y.shape)} for a block of {block} samples")
            made.append(y)
        self._past = list(values)
        out = torch.cat(made) if len(made) > 1 else made[0]
        if self._streams > 1:
            return out[:, 0].to(torch.float32)
        out = out[0].to(torch.float32)
        if out.shape[0] == channels:
            return out
        return out.mean(0, keepdim=True).expand(channels, -1) if channels == 1 or out.shape[0] == 1 else out[:channels]


class NetPlayer(Player):
    """A model as machine code, played as `Player` plays the model itself: several times as fast.

    Parameters
    ----------
    spec : Spec
    choices : Choices
    net : Net
        Compiled from what `rtgan.worker.lowering.lower` wrote for these choices.
    """

    def __init__(self, spec: Spec, choices: Choices, net: Net) -> None:
        self.spec, self.choices, self._net = spec, choices, net
        self._lay_out()
        self._copies = self._streams
        self._begin()

    def reset(self) -> None:
        """Back to how it was after loading."""
        self._modules = [self._net.arena() for _ in range(self._copies)]
        self._calls = [self._run] * self._copies
        self._past = []

    def _attributes(self, values: Sequence[float]) -> None:
        """They stay as they were when it was lowered."""

    def _run(self, arena: Any, x: Tensor, past: Sequence[float], now: Sequence[float]) -> Tensor:
        for place, given in zip(self._net.inputs, (x.numpy(), past, now), strict=False):
            place.of(arena)[:] = np.asarray(given, np.float32)
        self._net.run(arena)
        return torch.from_numpy(self._net.outputs[0].of(arena).copy())


def _set(module: Any, attribute: Attribute, texts: Sequence[str], path: str) -> None:
    """Set an attribute from texts of a preset; of a buffer the text is a sound file."""
    if len(texts) != len(attribute.types):
        raise RtganError(f"{path}: {attribute.name} takes {len(attribute.types)} values, not {len(texts)}")
    values: list[Any] = []
    for k, (kind, text) in enumerate(zip(attribute.types, texts, strict=True)):
        try:
            if kind in (BOOL, SWITCH):
                values.append(SWITCH_WORDS[text.lower()])
            elif kind in (INT, FLOAT):
                values.append(int(text) if kind == INT else float(text))
            elif kind == BUFFER:
                values.append(_buffer(module, f"{attribute.name}#{k}", text))
            elif kind == TEXT:
                values.append(text)
            else:
                values.append(torch.tensor([float(number) for number in text.split()]))
        except (KeyError, ValueError):
            wanted = _WANTED.get(kind, "a text")
            raise RtganError(f"{path}: {attribute.name} takes {wanted}, not '{text[:40]}'") from None
    setter = getattr(module, f"set_{attribute.name}")
    if SWITCH in attribute.types and str(setter.schema.arguments[1].type) == "Tensor":
        values = [torch.tensor(value) for value in values]  # RAVE names no type there
    if setter(*values) not in (0, None):
        raise RtganError(f"{path}: the model refuses {attribute.name} = {', '.join(texts)}")


def _buffer(module: Any, name: str, file: str) -> str:
    import soundfile

    try:
        sound, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as problem:
        raise RtganError(f"the sound file {file} for {name} cannot be read: {problem}") from None
    if module.set_buffer_attribute(name, torch.from_numpy(np.ascontiguousarray(sound.T)), int(rate)) != 0:
        raise RtganError(f"the model refuses the sound file {file} for {name}")
    return name


# --- looking ---


def look(path: str, sha256: str) -> Spec:
    """What a file holds, and what shows when it runs.

    Raises
    ------
    RtganError
        One sentence: why it cannot be played.
    """
    torch.set_num_threads(1)
    module, metadata = open_file(path)
    if not isinstance(module, torch.jit.ScriptModule):
        raise RtganError(f"{path} holds no module")
    names = methods_of(module)
    with torch.inference_mode():
        if metadata and "sdk_version" in metadata:
            spec = _look_neutone(path, sha256, module, metadata, names)
        elif {"forward_bt", "set_daw_sample_rate_and_buffer_size"} <= set(names):
            spec = _look_neutone(path, sha256, module, json.dumps(_unwritten(module, names)), names)
        elif _nn_methods(module, names):
            spec = _look_nn(path, sha256, module, names)
        else:
            spec = _look_module(path, sha256, module)
    return _watch(spec, module)


def _nn_methods(module: Any, names: Sequence[str]) -> list[str]:
    if "get_methods" in names:
        return [str(n) for n in module.get_methods()]
    # Exports older than the list: whatever has such a table beside it.
    return [n for n in names if _table(module, n) is not None]


def _table(module: Any, name: str) -> list[int] | None:
    table = getattr(module, f"{name}_params", None)
    if isinstance(table, Tensor) and table.numel() == 4 and not table.is_floating_point():
        return [int(v) for v in table.tolist()]
    return None


def _look_nn(path: str, sha256: str, module: Any, names: Sequence[str]) -> Spec:
    methods, findings = {}, []
    for name in _nn_methods(module, names):
        table = _table(module, name)
        if table is None or name not in names or min(table) < 1:
            findings.append(f"its method {name} says nothing of its channels and cannot be played")
            continue
        into, out = (tuple(map(str, getattr(module, f"{name}_{way}_labels", ()) or ())) for way in ("input", "output"))
        methods[name] = Method(table[0], table[1], table[2], table[3], into, out)
    if not methods:
        raise RtganError(f"{path} has no method that can be played")
    given = list(module.get_attributes()) if "get_attributes" in names else None
    if given is None:
        given = [n.removeprefix("set_") for n in names if n.startswith("set_") and hasattr(module, f"{n[4:]}_params")]
    attributes = []
    for name in (str(n) for n in given if n not in ("none", *methods)):
        types = getattr(module, f"{name}_params", None)
        if not isinstance(types, Tensor) or f"get_{name}" not in names or f"set_{name}" not in names:
            continue
        values = whole(getattr(module, f"get_{name}")())
        kinds = [int(t) for t in types.reshape(-1).tolist()]
        plain = [v if isinstance(v, (bool, int, float, str)) else "" for v in values]
        attributes.append(Attribute(name, tuple(kinds), tuple(plain)))
        if TENSOR in kinds:
            findings.append(f"its attribute {name} is a tensor: a preset sets it, and no control moves it")
    if f"set_{STEREO}" in names and STEREO not in given:
        attributes.append(Attribute(STEREO, (SWITCH,), (bool(getattr(module, STEREO, False)),)))
    rate = int(getattr(module, "sr", 0) or 0)
    if not rate and "get_sample_rate" in names:
        rate = max(0, int(module.get_sample_rate()))
    if not rate:
        findings.append("it does not say its sample rate; 44100 Hz is assumed (rate_hz in the preset says otherwise)")
    ratio = max(max(m.ratio_in, m.ratio_out) for m in methods.values())
    about = {n: str(getattr(module, n)) for n in _ABOUT if hasattr(module, n)}
    return Spec(path, sha256, "nn~", rate or 44100, (), ratio, methods=methods, attributes=tuple(attributes),
                about=about, findings=tuple(findings))  # fmt: skip


def _look_neutone(path: str, sha256: str, module: Any, text: str, names: Sequence[str]) -> Spec:
    try:
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError
    except ValueError:
        raise RtganError(f"the metadata of {path} is not valid JSON") from None
    if "set_daw_sample_rate_and_buffer_size" not in names:
        raise RtganError(f"{path} is a Neutone model that does not work in real time")
    inner = getattr(module, "w2w_base", module)
    mono_in, mono_out = _flag(data.get("is_input_mono")), _flag(data.get("is_output_mono"))
    rates = [int(r) for r in data.get("native_sample_rates") or []]
    blocks = [int(b) for b in data.get("native_buffer_sizes") or []]
    delay = 0
    for owner in (inner, module):
        if "calc_model_delay_samples" in methods_of(owner):
            if owner is module:
                module.set_daw_sample_rate_and_buffer_size(rates[0] if rates else 48000, blocks[0] if blocks else 512)
            delay = int(owner.calc_model_delay_samples())
            break
    controls = []
    given = data.get("neutone_parameters") or data.get("parameters") or {}
    for number in range(1, 5):
        entry = given.get(f"p{number}")
        if not isinstance(entry, dict) or not _flag(entry.get("used", True)):
            continue
        if entry.get("type", "knob") not in ("knob", "continuous", "categorical", None):
            continue
        low, high = _number(entry.get("min_value"), 0.0), _number(entry.get("max_value"), 1.0)
        choices = _number(entry.get("n_values"), 0.0)
        low, high = (0.0, choices - 1) if choices > 1 else (low, high) if high > low else (0.0, 1.0)
        default = _number(entry.get("default_value"), 0.0)
        # The older dialect writes defaults of 0 to 1; the newer one in the parameter's own unit.
        share = (default - low) / (high - low) if choices > 1 or "min_value" in entry else default
        share = min(max(share, 0.0), 1.0)
        words = ", ".join(f"{k} {label}" for k, label in enumerate(entry.get("labels") or ()))
        said = f"{entry.get('description', '')}{f' ({words})' if words else ''}"
        controls.append((number, str(entry.get("name", ""))[:40], said, share, low, high))
    gains = {
        "wet": _number(data.get("wet_default_value"), 1.0),
        "dry": _number(data.get("dry_default_value"), 0.0),
        "input": _number(data.get("input_gain_default_value"), 0.5),
        "output": _number(data.get("output_gain_default_value"), 0.5),
    }
    authors = data.get("model_authors")
    about = {
        "name": str(data.get("model_name", "")),
        "authors": ", ".join(map(str, authors)) if isinstance(authors, list) else str(authors or ""),
        "description": str(data.get("model_short_description", "")),
        "version": str(data.get("model_version", "")),
        "made with": f"Neutone SDK {data.get('sdk_version', '?')}",
    }
    findings = [] if not _flag(data.get("is_experimental")) else ["its authors call it experimental"]
    rate = min(rates, key=lambda r: abs(r - 48000)) if rates else 0
    method = Method(1 if mono_in else 2, 1, 1 if mono_out else 2, 1, delay_samples=delay)
    return Spec(path, sha256, "neutone", rate, tuple(rates), 1, tuple(blocks), {"forward": method}, about=about,
                controls=tuple(controls), gains=gains, findings=tuple(findings))  # fmt: skip


def _unwritten(module: Any, names: Sequence[str]) -> dict[str, Any]:
    """What a Neutone file without metadata says of itself when it is asked, as the older dialect writes it."""

    def ask(name: str) -> Any:
        return getattr(module, name)() if name in names else None

    data = {k: ask(k) for k in ("is_input_mono", "is_output_mono")}
    data |= {k: ask(f"get_{k}") for k in ("native_sample_rates", "native_buffer_sizes")}
    gains = ("wet_default_value", "dry_default_value", "input_gain_default_value", "output_gain_default_value")
    data |= {k: ask(f"get_{k}") for k in gains}
    values, labels, used = (ask(f"get_default_param_{k}") for k in ("values", "names", "used"))
    data["neutone_parameters"] = {
        f"p{k + 1}": {
            "name": labels[k] if labels else "", "default_value": float(value), "used": used[k] if used else True,
        }
        for k, value in enumerate(values.reshape(-1).tolist() if isinstance(values, Tensor) else ())
    }  # fmt: skip
    return data


def _flag(value: Any) -> bool:
    return value.lower() == "true" if isinstance(value, str) else bool(value)


def _number(value: Any, otherwise: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return otherwise
    return number if np.isfinite(number) else otherwise


def _look_module(path: str, sha256: str, module: Any) -> Spec:
    if "forward" not in methods_of(module):
        raise RtganError(f"{path} has no method forward")
    said = ""
    for channels in (1, 2):
        for shape in _SHAPES if channels == 1 else _SHAPES[:2]:
            for block in _BLOCKS:
                x = torch.zeros(1, channels, block)
                try:
                    y = copy.deepcopy(module)(x if shape == "bcn" else x[0] if shape == "cn" else x[0, 0])
                except Exception as error:
                    said = said or _sentence(error)
                    continue
                if not isinstance(y, Tensor) or y.dim() != len(shape) or y.shape[-1] != block:
                    got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
                    said = f"for {block} samples of shape {shape!r} it gives {got}"
                    continue
                if not y.is_floating_point():
                    raise RtganError(f"{path} gives {y.dtype} where sound has to come out")
                out = y.shape[1] if shape == "bcn" else y.shape[0] if shape == "cn" else 1
                ratio = 1 if block == _BLOCKS[0] else block
                rate = int(getattr(module, "sample_rate", 0) or getattr(module, "sr", 0) or 0)
                findings = () if rate else ("it does not say its sample rate and gets the engine's",)
                method = Method(channels, 1, out, 1)
                return Spec(path, sha256, "module", rate, (), ratio, methods={"forward": method}, shape=shape,
                            findings=findings)  # fmt: skip
    raise RtganError(f"{path} takes no sound: {said}")


def _noise(channels: int, length: int, seed: int = 1) -> Tensor:
    return 0.1 * torch.randn(channels, length, generator=torch.Generator().manual_seed(seed))


def _watch(spec: Spec, module: Any) -> Spec:
    """What shows when a model runs: state, chance, whether rows keep to themselves, delay, level."""
    findings = list(spec.findings)
    block = spec.block_for(0)
    choices = Choices(block=block, rate_hz=spec.rate_hz or 48000)
    try:
        player = Player(spec, choices, module)
        sound = _noise(1, 8 * block)
        first = _run(player, sound)
        again = _run(player, sound)
        player.choices = replace(choices, seed=1)
        other = _run(player, sound)
    except RtganError as problem:
        raise RtganError(f"{spec.path} cannot be played: {problem}") from None
    except Exception as error:
        raise RtganError(f"{spec.path} cannot be played: {_sentence(error)}") from None
    random = not torch.equal(first, other)
    if not torch.equal(first, again):
        findings.append("it does not come back to the same state: a render of it cannot be repeated")
    if random:
        findings.append("chance plays a part in it; a seed holds that fast")
    if not torch.isfinite(first).all():
        findings.append("it puts out values that are not numbers")
    elif (peak := float(first.abs().max())) > 4.0:
        findings.append(f"it is loud: noise at -20 dB comes out with peaks of {20 * np.log10(peak):.0f} dBFS")
    elif peak < 1e-6 and spec.method("").sounds_in:
        findings.append("noise at -20 dB gives silence")
    tail = 0 if random else _tail(player, sound, choices.rate_hz)
    caches = [b for n, b in module.named_buffers() if n.rpartition(".")[2] in _CACHES and b.dim() == 3]
    player.choices = choices
    player.reset()
    player.play(sound[:, :block], player._values)
    after = player.play(sound[:, :block], player._values)
    state = "buffers" if caches else "" if random or torch.equal(after, first[:, :block]) else "attributes"
    if not state and not random and block > 1 and _has_memory(spec, player, block):
        findings.append("it hears each block by itself: edges may be heard, unlike with an export for streaming")
    spec = replace(spec, random=random, state=state, tail_samples=tail)
    rows = False
    if spec.kind == "nn~" and spec.method("").sounds_in == spec.method("").channels_out == 1:
        rows = (bool(caches) and min(b.shape[0] for b in caches) >= 2) if random else _rows_apart(spec, choices, module)
    methods = {n: _measured(replace(spec, rows=rows), n, choices, module) for n in spec.methods}
    return replace(spec, rows=rows, methods=methods, findings=tuple(findings))


def _run(player: Player, sound: Tensor) -> Tensor:
    player.reset()
    size = player.choices.block
    values = player._values
    return torch.cat([player.play(part, values) for part in torch.split(sound, size, 1) if part.shape[1] == size], 1)


def _tail(player: Player, sound: Tensor, rate_hz: int) -> int:
    """How long it sounds on behind a sound, until 80 dB below its peak; 0 for what does not die away by itself."""
    block = player.choices.block
    peak = float(_run(player, sound).abs().max())
    silence, heard, begin = torch.zeros(sound.shape[0], block), [0.0], time.perf_counter()
    for _ in range(_LONGEST_TAIL_S * rate_hz // block):
        heard.append(float(player.play(silence, player._values).abs().max()))
        if time.perf_counter() - begin > _LONGEST_TAIL_S:
            break
    quarter = len(heard) // 4
    if not np.isfinite(peak) or max(heard[-quarter:], default=0.0) > max(1e-4 * peak, 0.5 * max(heard[: quarter + 1])):
        return 0
    return block * max((k for k, level in enumerate(heard) if level > 1e-4 * peak), default=0)


def _has_memory(spec: Spec, player: Player, block: int) -> bool:
    """Whether a model without state answers a sample with more than a sample: its edges show."""
    if not spec.method("").sounds_in:
        return False
    impulse = torch.zeros(1, block)
    impulse[0, block // 2] = 0.5
    silence = player.play(torch.zeros(1, block), player._values)
    return int(((player.play(impulse, player._values) - silence).abs() > 1e-5).sum()) > 1


def _rows_apart(spec: Spec, choices: Choices, module: Any) -> bool:
    """Whether the rows of a batch come out as each of them alone does."""
    sound = _noise(2, 4 * choices.block, 2)
    try:
        pair = _run(Player(replace(spec, rows=True), replace(choices, channels=2), module), sound)
        alone = [_run(Player(spec, choices, module), sound[k : k + 1]) for k in range(2)]
    except Exception:
        return False
    return torch.allclose(pair, torch.cat(alone), atol=1e-4)


def _measured(spec: Spec, name: str, choices: Choices, module: Any) -> Method:
    """A method with its delay, where sound goes in and comes out much as it was."""
    method = spec.methods[name]
    if method.delay_samples >= 0 or not method.sounds_in or method.ratio_out > 1:
        return method
    try:
        sound = _noise(1, max(16384, 8 * choices.block), 3)
        out = _run(Player(spec, replace(choices, method=name), module), sound)
    except Exception:
        return method
    lag, alike = delay_of(sound[0].numpy(), out[0].numpy())
    return replace(method, delay_samples=lag if alike > 0.5 else -1)


# --- measuring ---


def timing(player: Player, blocks: int, limit_s: float) -> dict[str, float]:
    """How long blocks take in milliseconds, and what comes out of noise, speech-like level, silence and full scale."""
    choices = player.choices
    sounds = [_noise(choices.channels, choices.block, 4), torch.zeros(choices.channels, choices.block)]
    sounds.append(torch.sign(_noise(choices.channels, choices.block, 5)))
    spent: list[float] = []
    peak, finite = 0.0, True
    begin = time.perf_counter()
    for k in range(blocks):
        sound = sounds[0] if k % 16 < 13 else sounds[1] if k % 16 < 15 else sounds[2]
        before = time.perf_counter()
        out = player.play(sound, player._values)
        spent.append(1e3 * (time.perf_counter() - before))
        finite = finite and bool(torch.isfinite(out).all())
        peak = max(peak, float(out.abs().max())) if finite else peak
        if time.perf_counter() - begin > limit_s:
            break
    p50, p99 = np.percentile(spent, [50, 99])
    return {"blocks": len(spent), "p50_ms": float(p50), "p99_ms": float(p99), "max_ms": max(spent), "peak": peak,
            "finite": float(finite)}  # fmt: skip
