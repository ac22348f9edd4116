"""The edge: devices, files, recording."""
