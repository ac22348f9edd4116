"""rtgan: live neural audio. A real-time streaming plugin host whose audio thread runs no Python.

The two doors most programs need are `process` (samples in, samples out) and `Host` (live, on devices).
Importing the package is cheap: no device is opened, no kernel compiled, torch is never imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rtgan import kernel_cache as _kernel_cache
from rtgan.version import VERSION

__version__ = VERSION

_kernel_cache.use()

if TYPE_CHECKING:
    from rtgan.host import Host as Host
    from rtgan.host import process as process

__all__ = ["Host", "__version__", "process"]


def __getattr__(name: str) -> Any:
    if name in ("Host", "process"):
        from rtgan import host

        return getattr(host, name)
    raise AttributeError(f"module 'rtgan' has no attribute {name!r}")
