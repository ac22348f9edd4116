"""Trained weights, their cards and their lowered programs."""
