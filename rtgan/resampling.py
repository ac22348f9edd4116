"""Plugins that need another sample rate than the device's: see `at_rate`."""

from __future__ import annotations

from rtgan.plugin import Activation, NativeNode, Plugin


def at_rate(plugin: Plugin, activation: Activation) -> NativeNode:
    """Activate a plugin at the engine's rate, or at the nearest rate it supports with resampling around it."""
    if not plugin.rates_hz or activation.sample_rate_hz in plugin.rates_hz:
        return plugin.activate(activation)
    raise ValueError("rate")
