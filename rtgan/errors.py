"""The two ways in which rtgan says no. Each message is one sentence: what is wrong, where, what is allowed."""

from __future__ import annotations


class RtganError(Exception):
    """Something asked for could not be done (exit code 1)."""

    exit_code = 1


class UsageError(RtganError):
    """What was asked for makes no sense: an unknown name, a value out of range (exit code 2)."""

    exit_code = 2


class NotLowered(RtganError):
    """A model that cannot become machine code; the message says why, with the operation and its source line."""
