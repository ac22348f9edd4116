"""Measurements of speed, each against the best that others offer, in one run."""
