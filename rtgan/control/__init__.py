"""Everything that comes in through one door: MIDI, OSC, files; and what goes back to lights and faders."""
