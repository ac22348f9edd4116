"""From the bytes of a message to the value of a parameter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_engine import RATE, chain, column, engine_with, run

from rtgan import events
from rtgan import switchboard as sb
from rtgan.engine import HOST_PARAMS, Engine
from rtgan.graph import Graph

LINE = np.linspace(-60.0, 24.0, 128)


def moving(mode: int = sb.ABSOLUTE, kind: int = sb.CC, number: int = 7, points: Any = LINE, **more: Any) -> Any:
    """An engine whose gain listens to one control, and a function that sends it bytes and tells the value."""
    engine, graph = engine_with(chain("gain"))
    index, _ = graph.find("gain.gain_db")
    route = sb.Route(
        kind, number, more.pop("channel", -1), mode, points, graph.serial, index, graph.slot(index), **more
    )
    engine.route(graph, [route])

    def send(*messages: bytes, port: int = 0) -> float:
        for message in messages:
            assert engine.midi(message, port=port)
        run(engine, np.zeros((64, 1), np.float32))
        return graph.value("gain.gain_db")

    return send, engine, graph


def cc(number: int, value: int, channel: int = 1) -> bytes:
    return bytes([0xB0 + channel - 1, number, value])


def test_a_fader_goes_through_the_whole_range_on_its_channel_and_port() -> None:
    send, _, _ = moving(channel=2, ports=0b10)
    assert send(cc(7, 127, 3), port=0) == 0
    assert send(cc(7, 127, 2), port=1) == 0, "channels count from 0 here"
    send, _, _ = moving(channel=2, ports=0b10)
    assert send(cc(7, 0, 3), port=1) == pytest.approx(-60)
    values = [send(cc(7, v, 3), port=1) for v in range(128)]
    assert values == pytest.approx(LINE.tolist())
    assert send(cc(8, 0, 3), port=1) == 24


@pytest.mark.parametrize(
    "kind, number, messages, expected",
    [
        (sb.CC14, 7, [cc(7, 64), cc(39, 3)], (64 * 128 + 3) / 16383),
        (sb.NRPN, 3 * 128 + 5, [cc(99, 3), cc(98, 5), cc(6, 100), cc(38, 9)], (100 * 128 + 9) / 16383),
        (sb.NRPN, 5, [cc(99, 0), cc(98, 5), cc(6, 100), cc(96, 0), cc(96, 0), cc(97, 0)], (100 * 128 + 1) / 16383),
        (sb.RPN, 1, [cc(101, 0), cc(100, 1), cc(6, 20)], 20 * 128 / 16383),
        (sb.BEND, 0, [b"\xe0\x00\x60"], 0.5 + (0x60 * 128 - 8192) / 16382),
        (sb.PRESSURE, 0, [b"\xd0\x50"], 80 / 127),
        (sb.POLY, 60, [b"\xa0\x3c\x50"], 80 / 127),
        (sb.NOTE, 60, [b"\x90\x3c\x50"], 80 / 127),
    ],
)
def test_every_kind_of_control(kind: int, number: int, messages: list[bytes], expected: float) -> None:
    send, _, _ = moving(kind=kind, number=number)
    assert send(*messages) == pytest.approx(-60 + 84 * expected, abs=1e-9)


def test_data_without_a_selection_or_after_the_null_moves_nothing() -> None:
    send, _, _ = moving(kind=sb.RPN, number=16383)
    assert send(cc(6, 100)) == 0
    assert send(cc(101, 127), cc(100, 127), cc(6, 100)) == 0


def test_pickup_waits_until_the_fader_meets_the_value_and_lets_go_when_somebody_else_moves_it() -> None:
    send, engine, graph = moving(sb.PICKUP)
    assert [send(cc(7, v)) for v in (10, 40, 80)] == [0, 0, 0], "0 dB lies at 90.7"
    assert send(cc(7, 100)) == pytest.approx(LINE[100]), "it has crossed"
    assert send(cc(7, 20)) == pytest.approx(LINE[20]), "and holds"
    engine.set_param(graph, graph.find("gain.gain_db")[0], 10.0)
    assert send(cc(7, 25)) == 10
    assert send(cc(7, 105), cc(7, 106)) == pytest.approx(LINE[106])


@pytest.mark.parametrize("mode, up, down", [(sb.TWOS, 2, 126), (sb.OFFSET, 66, 62), (sb.SIGNED, 2, 66)])
def test_relative_controls_step_from_where_the_parameter_is(mode: int, up: int, down: int) -> None:
    send, engine, graph = moving(mode)
    step = 84 / 127
    assert send(cc(7, up)) == pytest.approx(2 * step)
    assert send(cc(7, up)) == pytest.approx(4 * step)
    assert send(cc(7, down)) == pytest.approx(2 * step)
    engine.set_param(graph, graph.find("gain.gain_db")[0], -30.0)
    assert send(cc(7, down)) == pytest.approx(-30 - 2 * step)
    assert send(*[cc(7, up)] * 100) == 24
    assert send(cc(7, down)) == pytest.approx(24 - 2 * step), "the end is not gone beyond"


def test_an_encoder_steps_from_place_to_place_where_there_are_few() -> None:
    send, _, _ = moving(sb.TWOS, points=np.round(np.linspace(-2, 2, 128)))
    assert [send(cc(7, v)) for v in (1, 1, 127, 126, 1)] == [1, 2, 1, -1, 0]


def test_buttons_toggle_and_hold() -> None:
    points = np.where(np.arange(128) < 64, -6.0, 6.0)
    send, _, _ = moving(sb.TOGGLE, points=points)
    assert [send(cc(7, v)) for v in (127, 0, 127, 0)] == [6, 6, -6, -6]
    assert [send(cc(7, 127)) for _ in range(3)] == [6, -6, 6], "a button that never sends 0"
    send, _, _ = moving(sb.MOMENTARY, sb.NOTE, 60, points)
    assert [send(m) for m in (b"\x90\x3c\x20", b"\x90\x3c\x00", b"\x90\x3c\x01", b"\x80\x3c\x40")] == [6, -6, 6, -6]
    assert send(b"\x90\x3c\x20") == 6
    assert send(cc(123, 0)) == -6, "all notes off lets go"
    send, engine, _ = moving(sb.MOMENTARY, sb.NOTE, 60, points)
    assert send(b"\x90\x3c\x20") == 6
    engine.panic()
    assert send() == -6, "and so does panic"


def test_a_motor_fader_that_answers_changes_nothing() -> None:
    send, engine, graph = moving()
    engine.set_param(graph, graph.find("gain.gain_db")[0], 10.2)
    nearest = int(np.argmin(np.abs(LINE - 10.2)))
    assert send(cc(7, nearest)) == 10.2
    assert send(cc(7, nearest + 1)) == pytest.approx(LINE[nearest + 1])
    engine.set_param(graph, graph.find("gain.gain_db")[0], 23.9)
    assert send(cc(7, 127)) == 24, "the ends are always reached"


def test_a_message_takes_effect_at_its_very_sample_and_is_reported() -> None:
    outs = []
    for block in (64, 997):
        _, engine, _ = moving(ramp_samples=1)
        for when, value in ((900, 20), (777, 10), (778, 127), (500, 0)):
            engine.midi(cc(7, value), when)
        outs.append(run(engine, np.full((2000, 1), 0.01, np.float32), block))
        records = engine.poll()
        assert [r.when for r in records if r.kind == events.HEARD] == [500, 777, 778, 900], (
            "whatever the order of arrival"
        )
        applied = [r for r in records if r.kind == events.APPLIED]
        assert [(r.when, r.x, r.y) for r in applied] == [
            (500, LINE[0], 1), (777, LINE[10], 1), (778, 24, 1), (900, LINE[20], 1)
        ]  # fmt: skip
    assert np.flatnonzero(np.diff(outs[0][:, 0])).tolist() == [499, 776, 777, 899]
    assert np.array_equal(*outs)


def test_one_control_moves_many_and_the_host_and_asks_for_actions() -> None:
    engine, graph = engine_with(chain("gain", "highpass"))
    routes = []
    for name, points in (("gain.gain_db", LINE), ("highpass.cutoff_hz", np.geomspace(2000, 10, 128))):
        index, _ = graph.find(name)
        routes.append(sb.Route(sb.CC, 1, -1, sb.ABSOLUTE, points, graph.serial, index, graph.slot(index)))
    mute = HOST_PARAMS.index("mute")
    steps = np.where(np.arange(128) < 64, 0.0, 1.0)
    routes.append(sb.Route(sb.CC, 1, -1, sb.ABSOLUTE, steps, 0, mute, engine.host_slot("mute")))
    routes.append(sb.Route(sb.PROGRAM, 5, -1, sb.TRIGGER, LINE, action="next"))
    routes.append(sb.Route(sb.NOTE, 5, -1, sb.TRIGGER, LINE, action="panic"))
    engine.route(graph, routes)
    engine.midi(cc(1, 127))
    engine.midi(b"\xc3\x05")
    engine.midi(b"\x93\x05\x05")
    run(engine, np.zeros((2000, 1), np.float32))
    assert (graph.value("gain.gain_db"), graph.value("highpass.cutoff_hz")) == (24, pytest.approx(10))
    assert engine.host_values == {name: p.default for name, p in HOST_PARAMS.items()} | {"mute": 1}
    records = engine.poll()
    assert [engine.action(r) for r in records if r.kind == events.ACTION] == ["next"]
    assert len([r for r in records if r.kind == events.PANICKED]) == 1


def test_bindings_change_while_it_plays_and_belong_to_the_graph_that_came_last() -> None:
    send, engine, graph = moving()
    engine.route(graph, [])
    assert send(cc(7, 127)) == 0
    other = Graph(chain("gain"), RATE, 1024, 1)
    index, _ = other.find("gain.gain_db")
    engine.route(other, [sb.Route(sb.CC, 7, -1, sb.ABSOLUTE, LINE, other.serial, index, other.slot(index))])
    engine.publish(other)
    send(cc(7, 127))
    assert other.value("gain.gain_db") == 24, "from the first sample of the fade"
    assert graph.value("gain.gain_db") == 0


SWITCH = np.where(np.arange(128) < 64, 0.0, 1.0)


def mute_route(engine: Engine, kind: int, number: int, mode: int, **more: Any) -> sb.Route:
    """A route to the host's mute."""
    return sb.Route(
        kind, number, more.pop("channel", -1), mode, SWITCH, 0, HOST_PARAMS.index("mute"), engine.host_slot("mute"),
        **more,
    )  # fmt: skip


def volume_route(engine: Engine, **more: Any) -> sb.Route:
    """A route that picks up the host's volume."""
    slot = engine.host_slot("volume_db")
    return sb.Route(sb.CC, 7, -1, sb.PICKUP, np.linspace(-60, 12, 128), 0, HOST_PARAMS.index("volume_db"), slot, **more)


@pytest.mark.parametrize("other", [False, True], ids=["the ports change", "the preset changes"])
def test_what_is_held_and_picked_up_stays_so_when(other: bool) -> None:
    engine, graph = engine_with(chain("gain"))

    def routes(of: Graph, ports: int) -> list[sb.Route]:
        index, _ = of.find("gain.gain_db")
        own = sb.Route(sb.CC, 9, -1, sb.PICKUP, LINE, of.serial, index, of.slot(index), ports=ports)
        more = [volume_route(engine, ports=ports)]
        # In another place of the table, and of the graph.
        return [own, mute_route(engine, sb.NOTE, 60, sb.MOMENTARY), *more] if of is graph else [*more, own, held]

    held = mute_route(engine, sb.NOTE, 60, sb.MOMENTARY)
    silence: NDArray[np.float32] = np.zeros((64, 1), np.float32)
    engine.route(graph, routes(graph, 0xFFFF))
    for number in (7, 9):
        for value in (127, 100):
            engine.midi(cc(number, value))
    run(engine, silence)
    present = Graph(chain("highpass", "gain", gain={"gain_db": float(LINE[100])}), RATE, 1024, 1) if other else graph
    engine.route(present, routes(present, 0xFF))
    # Between the making of the routes and the swap.
    engine.midi(b"\x90\x3c\x40")
    run(engine, silence)
    if other:
        engine.publish(present)
    else:
        engine.route(present, [*reversed(routes(present, 1))])
    assert engine.host_values["mute"] == 1
    for message in (b"\x80\x3c\x00", cc(7, 20), cc(9, 30)):
        engine.midi(message)
    run(engine, silence)
    assert engine.host_values["mute"] == 0, "the button is let go"
    assert engine.host_values["volume_db"] == pytest.approx(np.linspace(-60, 12, 128)[20])
    assert present.value("gain.gain_db") == pytest.approx(LINE[30])


@pytest.mark.parametrize("number", [120, 121, 123, 127])
def test_a_channel_mode_message_lets_go_of_its_own_channel_and_port_and_of_nothing_else(number: int) -> None:
    engine, graph = engine_with(chain("gain"))
    engine.route(graph, [mute_route(engine, sb.NOTE, 60, sb.MOMENTARY, channel=2, ports=0b10)])
    silence: NDArray[np.float32] = np.zeros((64, 1), np.float32)
    engine.midi(b"\x92\x3c\x40", port=1)
    values = []
    for channel, port in ((1, 1), (3, 0), (3, 1)):
        engine.midi(cc(number, 0, channel), port=port)
        run(engine, silence)
        values.append(engine.host_values["mute"])
    assert values == [1, 1, 0]
    assert not [r for r in engine.poll() if r.kind == events.PANICKED], "nobody asked for a panic"


@pytest.mark.parametrize(
    "kind, number, message",
    [
        (sb.BEND, 0, lambda raw: [bytes([0xE0, raw & 127, raw >> 7])]),
        (sb.CC14, 7, lambda raw: [cc(7, raw >> 7), cc(39, raw & 127)]),
        (sb.NRPN, 5, lambda raw: [cc(99, 0), cc(98, 5), cc(6, raw >> 7), cc(38, raw & 127)]),
    ],
)
def test_a_switch_is_on_or_off_however_fine_the_control(kind: int, number: int, message: Any) -> None:
    engine, graph = engine_with(chain("gain"))
    engine.route(graph, [mute_route(engine, kind, number, sb.ABSOLUTE)])
    values = set()
    for raw in range(8000, 8400, 7):
        for part in message(raw):
            engine.midi(part)
            run(engine, np.zeros((16, 1), np.float32))
            values.add(engine.host_values["mute"])
    assert values == {0.0, 1.0}


def test_data_increments_go_on_from_where_the_parameter_is() -> None:
    select = (cc(99, 0), cc(98, 5))
    tick = 84 / 16383
    send, engine, graph = moving(kind=sb.NRPN, number=5)
    index, _ = graph.find("gain.gain_db")
    assert send(*select, cc(96, 0)) == pytest.approx(tick, abs=1e-9), "no value was ever sent"
    there = send(cc(6, 100))
    assert send(*select, cc(96, 0)) == pytest.approx(there + tick, abs=1e-9)
    assert send(*select, cc(97, 0), cc(97, 0)) == pytest.approx(there - tick, abs=1e-9)
    engine.set_param(graph, index, -30.0)
    assert send(cc(96, 0)) == pytest.approx(-30 + tick, abs=1e-9), "somebody else moved it"
    assert send(cc(101, 127), cc(100, 127), cc(96, 0)) == pytest.approx(-30 + tick, abs=1e-9), "nothing is selected"
    assert send(*select, cc(38, 9)) == pytest.approx(-30 + tick, abs=1e-9), "half of a value whose rest is unknown"
    send, _, _ = moving(sb.TOGGLE, sb.NRPN, 5)
    assert send(*select, cc(96, 0), cc(97, 0)) == 0, "a button has no up and down"


def test_the_fine_half_lasts_while_the_coarse_half_stands() -> None:
    send, _, _ = moving(kind=sb.CC14)
    value = send(cc(7, 64), cc(39, 100))
    assert send(cc(7, 64)) == value
    assert send(cc(7, 65)) == pytest.approx(-60 + 84 * 65 * 128 / 16383)
    send, _, _ = moving(kind=sb.NRPN, number=5)
    value = send(cc(99, 0), cc(98, 5), cc(6, 64), cc(38, 100))
    assert send(cc(6, 64)) == value


def test_a_million_random_bytes_leave_nothing_stuck(rng: np.random.Generator) -> None:
    engine, graph = engine_with(chain("gain"))
    index, param = graph.find("gain.gain_db")
    steps = np.where(np.arange(128) < 64, 0.0, 1.0)
    slot = graph.slot(index)
    routes = [
        sb.Route(kind, number, -1, mode, LINE, graph.serial, index, slot)
        for kind in range(9)
        for number in range(0, 128, 9)
        for mode in (sb.ABSOLUTE, sb.PICKUP)
    ]
    mute = HOST_PARAMS.index("mute")
    routes += [sb.Route(sb.NOTE, n, -1, sb.MOMENTARY, steps, 0, mute, engine.host_slot("mute")) for n in range(128)]
    engine.route(graph, routes)
    silence: NDArray[np.float32] = np.zeros((64, 1), np.float32)
    sent = 0
    for row in rng.integers(0, 256, (333_334, 3), np.uint8):
        sent += engine.midi(row.tobytes(), port=int(row[0]) & 31)
        if sent % 4000 == 0:
            engine.render(silence)
            engine.poll()
    engine.render(silence)
    assert sent == 333_334
    assert engine.memory_intact
    assert param.minimum <= graph.value("gain.gain_db") <= param.maximum
    for channel in range(1, 17):
        engine.midi(cc(123, 0, channel))
    engine.render(silence)
    assert engine.host_values["mute"] == 0, "no note stays held"
    out = run(engine, column(np.full(RATE, 0.1, np.float32)))
    assert np.isfinite(out).all()


def test_what_does_not_fit_is_refused_and_counted() -> None:
    engine = Engine(RATE, 1)
    taken = sum(engine.midi(b"\xb0\x01\x01") for _ in range(5000))
    assert taken == 4096
    assert engine.counters.events_dropped == 5000 - 4096
