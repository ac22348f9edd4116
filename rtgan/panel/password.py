"""The password of a panel that listens to other machines: asked for, never kept, compared by what is made of it."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
import time
from collections import OrderedDict
from getpass import getpass
from pathlib import Path

from rtgan.errors import UsageError

#: Where a password may stand instead of being typed; taken out of the environment at once.
VARIABLE = "RTGAN_PANEL_PASSWORD"
SHORTEST, LONGEST = 8, 128
#: Wrong passwords that one address, and all together, may give at once; then one in so many seconds each.
TRIES, ALL_TRIES = 5, 20
AGAIN_S = 12.0
_ADDRESSES = 1024


def obtain(file: Path | None = None) -> str:
    """The password, from a file, from the environment, or from whoever sits at the terminal.

    Raises
    ------
    UsageError
        If there is none, others could read it, or it is no good.
    """
    given = os.environ.pop(VARIABLE, None)
    if file is not None:
        try:
            if file.stat().st_mode & 0o077 and os.name == "posix":
                raise UsageError(f"{file} can be read by others; say: chmod 600 {file}")
            given = file.read_text("utf-8").removesuffix("\n").removesuffix("\r")
        except (OSError, UnicodeDecodeError) as problem:
            raise UsageError(f"the password cannot be read from {file}: {problem}") from None
    elif given is None:
        if not sys.stdin.isatty():
            raise UsageError(
                f"--panel-host needs a password: set {VARIABLE}, use --panel-password-file, or start at a terminal"
            )
        given = getpass("Password for the panel: ")
    if not SHORTEST <= len(given) <= LONGEST:
        raise UsageError(f"the password has {len(given)} characters; allowed: {SHORTEST} to {LONGEST}")
    return given


def seal(password: str) -> str:
    """What may be kept of a password: a salt, and what scrypt (RFC 7914) makes of both; text."""
    salt = secrets.token_bytes(16)
    return f"{salt.hex()}:{_scrypt(password, salt).hex()}"


def fits(password: str, sealed: str) -> bool:
    """Whether that is the password; takes some 50 ms and 16 MB on purpose."""
    salt, _, wanted = sealed.partition(":")
    return secrets.compare_digest(_scrypt(password, bytes.fromhex(salt)).hex(), wanted)


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode("utf-8", "surrogatepass"), salt=salt, n=1 << 14, r=8, p=1, dklen=32)


class Tries:
    """How often a wrong password may still be given [one thread]."""

    def __init__(self) -> None:
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """How long an address has to wait before it may try; 0: it may now."""
        return max(self._over(address, TRIES), self._over("", ALL_TRIES))

    def _over(self, address: str, most: int) -> float:
        return max(0.0, (self._now(address) - most + 1.0) * self._each_s(address))

    @staticmethod
    def _each_s(address: str) -> float:
        return AGAIN_S if address else AGAIN_S * TRIES / ALL_TRIES

    def _now(self, address: str) -> float:
        """Tries that have not been made up for by waiting."""
        count, at = self._spent.get(address, (0.0, 0.0))
        return max(0.0, count - (time.monotonic() - at) / self._each_s(address))

    def spend(self, address: str, count: int = 1) -> None:
        """A try begins; -1 takes it back."""
        for each in (address, ""):
            self._spent[each] = (max(0.0, self._now(each) + count), time.monotonic())
            self._spent.move_to_end(each)
        while len(self._spent) > _ADDRESSES:
            self._spent.popitem(last=False)
