"""Bindings to routes: what `rtgan.bindings` says, worked out for one graph and the ports that are there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtgan import switchboard
from rtgan.bindings import HOST_TARGETS, HOST_TRIGGERS, Binding
from rtgan.control.midi import KINDS
from rtgan.engine import HOST, HOST_PARAMS, Engine
from rtgan.graph import Graph
from rtgan.offline import Prepare
from rtgan.params import Param
from rtgan.presets import Preset
from rtgan.switchboard import POINTS, PORTS, Route

#: Port of the messages of a MIDI file.
FILE_PORT = PORTS - 1
FILE_NAME = "MIDI file"
#: Port of the panel's keyboard.
PANEL_PORT = PORTS - 2
PANEL_NAME = "panel"

_MODES = {
    "absolute": switchboard.ABSOLUTE, "pickup": switchboard.PICKUP, "relative-twos": switchboard.TWOS,
    "relative-offset": switchboard.OFFSET, "relative-signed": switchboard.SIGNED, "toggle": switchboard.TOGGLE,
    "momentary": switchboard.MOMENTARY,
}  # fmt: skip


def points_of(binding: Binding, param: Param) -> NDArray[np.float64]:
    """Plain values over the controller's way, (128,): range, curve, inversion and the parameter's own scale."""
    low = param.minimum if binding.low is None else binding.low
    high = param.maximum if binding.high is None else binding.high
    first, last = param.normalise(low), param.normalise(high)
    way = np.linspace(0.0, 1.0, POINTS) ** binding.curve
    points = np.array([param.plain(first + x * (last - first)) for x in way])
    points[0], points[-1] = low, high
    if param is HOST_TARGETS["host.snapshot"]:
        points = np.round(points)
    return np.ascontiguousarray(points[::-1] if binding.invert else points)


def routes(bindings: Sequence[Binding], engine: Engine, graph: Graph, ports: Sequence[str] = ()) -> list[Route]:
    """Everything the bindings do to a graph and to the host; targets that the graph does not hold are left out.

    ``ports`` are the names of the ports by number; a binding to a port that is not there waits for it.
    """
    found = []
    for binding in bindings:
        for target in binding.targets:
            route = _route(binding, target, engine, graph, ports)
            if route is not None:
                found.append(route)
    return found


def preparing(shared: Sequence[Binding]) -> Prepare:
    """What gives every graph its routes where no port is open: those of the global map, and of its preset."""

    def prepare(engine: Engine, graph: Graph, preset: Preset) -> None:
        names = [""] * PORTS
        names[FILE_PORT] = FILE_NAME
        engine.route(graph, routes((*shared, *preset.midi), engine, graph, names))

    return prepare


def _route(binding: Binding, target: str, engine: Engine, graph: Graph, ports: Sequence[str]) -> Route | None:
    control = binding.control
    mode, action, serial, index, slot = _MODES[binding.mode], "", HOST, 0, 0
    name = target.removeprefix("host.")
    if target in HOST_TARGETS:
        param = HOST_TARGETS[target]
        if name in HOST_PARAMS:
            index, slot = HOST_PARAMS.index(name), engine.host_slot(name)
        else:
            action = name
            mode = switchboard.TRIGGER if target in HOST_TRIGGERS else mode
    elif target in graph.index:
        index, param = graph.find(target)
        serial, slot = graph.serial, graph.slot(index)
    else:
        return None
    ramp = 0
    if binding.smoothing_ms and param.scale != "switch":
        ramp = round((param.smoothing_ms + binding.smoothing_ms) * graph.sample_rate_hz / 1000)
    return Route(
        kind=KINDS.index(control.kind),
        number=control.number,
        channel=-1 if control.channel is None else control.channel - 1,
        mode=mode,
        points=points_of(binding, param),
        serial=serial,
        index=index,
        slot=slot,
        action=action,
        ports=_mask(control.port, ports),
        ramp_samples=ramp,
    )


def _mask(port: str, ports: Sequence[str]) -> int:
    if not port:
        return (1 << PORTS) - 1
    return sum(1 << k for k, name in enumerate(ports[:PORTS]) if port.lower() in name.lower())


def position_of(binding: Binding, param: Param, plain: float) -> float:
    """Where on its way, 0..1, a controller stands that shows a plain value."""
    points = points_of(binding, param)
    if points[-1] < points[0]:
        return 1.0 - float(np.interp(plain, points[::-1], np.linspace(0, 1, POINTS)))
    return float(np.interp(plain, points, np.linspace(0, 1, POINTS)))
