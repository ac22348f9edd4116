"""The virtual microphone where no server is asked: names, and cables of other systems."""

from __future__ import annotations

import pytest

from rtgan.errors import RtganError, UsageError
from rtgan.io.devices import Device
from rtgan.io.virtual_mic import VirtualMic, find_cable

MAC = [
    Device(0, "MacBook Pro Microphone", "Core Audio", 1, 0, 48000.0),
    Device(1, "BlackHole 2ch", "Core Audio", 2, 2, 48000.0),
    Device(2, "BlackHole 16ch", "Core Audio", 16, 16, 48000.0),
]
WINDOWS = [
    Device(0, "Microphone (USB)", "MME", 2, 0, 44100.0),
    Device(1, "CABLE Output (VB-Audio Virtual Cable)", "MME", 2, 0, 44100.0),
    Device(2, "CABLE Input (VB-Audio Virtual Cable)", "MME", 0, 2, 44100.0),
]


def test_cables_of_other_systems_are_found() -> None:
    assert find_cable(MAC, "darwin") == (MAC[1], ("BlackHole 2ch", "BlackHole 2ch"))
    assert find_cable(MAC, "darwin", "BlackHole 16ch")[0] == MAC[2]
    device, (_, other) = find_cable(WINDOWS, "win32")
    assert device == WINDOWS[2] and other == "CABLE Output (VB-Audio Virtual Cable)"


def test_without_one_it_is_said_what_to_install() -> None:
    with pytest.raises(RtganError, match="no virtual cable: install BlackHole"):
        find_cable(MAC[:1], "darwin")
    with pytest.raises(RtganError, match="install VB-CABLE"):
        find_cable(WINDOWS[:2], "win32")
    with pytest.raises(RtganError, match="no virtual cable 'Soundflower'"):
        find_cable(MAC, "darwin", "Soundflower")


@pytest.mark.parametrize("name", ["", " x", "a'b", 'a"b', "a;b", "x" * 41, "$(reboot)"])
def test_a_name_that_cannot_be(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be called"):
        VirtualMic(name)
