"""Bindings to what a control does: range, curve, inversion, scale, smoothing, ports."""

from __future__ import annotations

import numpy as np
import pytest
from test_engine import RATE, chain, engine_with, run

from rtgan.bindings import HOST_TARGETS, MODES, Binding, parse_control
from rtgan.control.mapping import points_of, position_of, preparing, routes
from rtgan.engine import HOST_PARAMS
from rtgan.params import Param
from rtgan.presets import Preset

CUTOFF = Param("cutoff_hz", "Cutoff", 20, 20000, 80, scale="log")
GAIN = Param("gain_db", "Gain", -60, 24, 0)
CC = parse_control("cc 7")


def test_ranges_follow_the_parameters_own_scale() -> None:
    points = points_of(Binding(CC, ("x",)), CUTOFF)
    assert points[[0, 127]].tolist() == [20, 20000]
    assert np.allclose(np.diff(np.log(points)), np.log(1000) / 127)
    assert points_of(Binding(CC, ("x",), low=-12, high=12), GAIN)[[0, 127]].tolist() == [-12, 12]
    fine = points_of(Binding(CC, ("x",), low=0, high=1, curve=2.0), GAIN)
    assert fine[32] == pytest.approx((32 / 127) ** 2)
    assert np.array_equal(points_of(Binding(CC, ("x",), low=0, high=1, curve=2.0, invert=True), GAIN), fine[::-1])
    mute = points_of(Binding(CC, ("host.mute",)), HOST_TARGETS["host.mute"])
    assert set(mute) == {0.0, 1.0}


@pytest.mark.parametrize("invert", [False, True])
def test_a_position_shows_the_value_it_would_set(invert: bool) -> None:
    binding = Binding(CC, ("x",), curve=2.5, invert=invert)
    points = points_of(binding, CUTOFF)
    for k in (0, 1, 40, 100, 127):
        assert round(position_of(binding, CUTOFF, points[k]) * 127) == k


def test_every_mode_and_host_target_makes_a_route_and_what_is_not_there_is_left_out() -> None:
    engine, graph = engine_with(chain("gain"))
    made = routes([Binding(CC, ("gain.gain_db", "nothing.here"), mode) for mode in MODES], engine, graph)
    assert len({r.mode for r in made}) == len(made) == len(MODES)
    host = routes([Binding(CC, tuple(HOST_TARGETS))], engine, graph)
    assert len(host) == len(HOST_TARGETS)
    assert {r.action for r in host} == {"", *(n.removeprefix("host.") for n in HOST_TARGETS)} - set(HOST_PARAMS)


def test_the_hosts_parameters_are_declared_alike_for_the_engine_and_for_bindings() -> None:
    for name, param in HOST_PARAMS.items():
        declared = HOST_TARGETS[f"host.{name}"]
        assert (declared.minimum, declared.maximum, declared.default, declared.scale) == (
            param.minimum, param.maximum, param.default, param.scale,
        )  # fmt: skip


def test_ports_are_known_by_a_part_of_their_name() -> None:
    engine, graph = engine_with(chain("gain"))
    binding = Binding(parse_control("cc 7", port="nano"), ("gain.gain_db",))
    (route,) = routes([binding], engine, graph, ["rtgan", "", "nanoKONTROL2 MIDI 1"])
    assert route.ports == 0b100
    (route,) = routes([binding], engine, graph, ["rtgan"])
    assert route.ports == 0, "it waits for its port"


def test_smoothing_lengthens_the_ramp() -> None:
    engine, graph = engine_with(chain("gain"))
    (plain,) = routes([Binding(CC, ("gain.gain_db",))], engine, graph)
    (slow,) = routes([Binding(CC, ("gain.gain_db",), smoothing_ms=100)], engine, graph)
    assert plain.ramp_samples == 0
    assert slow.ramp_samples == round(0.120 * RATE)
    engine.route(graph, [slow])
    engine.midi(b"\xb0\x07\x00", 1000)
    out = run(engine, np.full((RATE, 1), 0.1, np.float32))
    changing = np.flatnonzero(np.diff(out[:, 0]))
    assert (changing[0], changing[-1]) == (999, 999 + slow.ramp_samples - 1)


def test_a_preset_s_own_map_and_the_global_one_work_together() -> None:
    engine, graph = engine_with(chain("gain"))
    preset = Preset("p", midi=(Binding(CC, ("gain.gain_db",)),))
    preparing((Binding(parse_control("note 60"), ("host.mute",), "toggle"),))(engine, graph, preset)
    engine.midi(b"\xb0\x07\x7f")
    engine.midi(b"\x90\x3c\x7f")
    run(engine, np.zeros((64, 1), np.float32))
    assert graph.value("gain.gain_db") == 24
    assert engine.host_values["mute"] == 1
