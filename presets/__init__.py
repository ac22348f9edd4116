"""Factory presets."""
