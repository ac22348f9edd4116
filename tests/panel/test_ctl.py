"""The shell's way to what plays."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from stage import Inside


def test_the_shell_turns_what_plays(playing: Inside, cli: Callable[..., Any], until: Callable[..., None]) -> None:
    def said(*words: object) -> str:
        done = cli("ctl", *words)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    assert said("get", "gate.threshold_db") == f"{playing.host.values['gate.threshold_db']:g}\n"
    said("set", "gate.threshold_db", "-41.5")
    until(lambda: playing.host.values["gate.threshold_db"] == -41.5)
    said("set", "host.mute", "on")
    until(lambda: playing.host.values["host.mute"] == 1)
    assert "host.mute 1" in said("get")
    said("load", "stage")
    until(lambda: playing.host.preset.name == "Stage")
    said("panic")
    assert json.loads(said("tell", "about"))["rate_hz"] == 48000


@pytest.mark.parametrize(
    "words, code, sentence",
    [
        (("load", "nothing"), 2, "there is no preset 'nothing'"),
        (("set", "host.volume_db", "99"), 2, "allowed: -60 to 12 dB"),
        (("record", "maybe"), 2, "on is not a boolean"),
        (("morph", "120"), 2, "allowed: 0 to 100"),
        (("get", "nothing"), 2, "there is no parameter 'nothing'"),
        (("--panel", "http://127.0.0.1:1/#x", "panic"), 1, "does not answer"),
        (("--panel", "nowhere", "panic"), 2, "is not the address of a panel"),
    ],
)
def test_what_cannot_be_done_is_said(
    served: Inside, words: tuple[str, ...], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from rtgan import cli

    line = ["ctl", *([] if words[0] == "--panel" else ["--panel", served.url]), *words]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["rtgan", *line])
        assert cli.main(line) == code
    assert sentence in capsys.readouterr().err


def test_without_a_panel_there_is_one_sentence(cli: Callable[..., Any]) -> None:
    done = cli("ctl", "panic")
    assert (done.returncode, done.stderr) == (1, "rtgan: no `rtgan live` with a panel is running\n")
