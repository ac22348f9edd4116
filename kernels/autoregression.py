"""Sound as something that goes on by rule: each sample a weighted sum of those before it, and what that leaves.

With coefficients ``a`` (``a[0]`` is 1) the *residual* of a sound is ``sum(a[k] * x[n - k])``. The better the rule, the
smaller; a sample that is wrong stands out in it, and samples that are missing are those that make it smallest.
For whole recordings: nothing here is meant for the audio thread.
"""

from __future__ import annotations

from typing import Any

from numba import types

from .native import kernel

_I, _D = types.int64, types.float64


@kernel(types.float64(_D[::1], _D[::1], _D[::1], _D[::1]), fastmath=True)
def burg(x: Any, a: Any, forward: Any, backward: Any) -> Any:
    """Coefficients of a stretch of sound by Burg's method ("Maximum Entropy Spectral Analysis", 1975).

    They are always stable: what is gone on with by them dies away.

    Parameters
    ----------
    x : ndarray of float64, (samples,)
    a : ndarray of float64, (order + 1,)
        Written.
    forward, backward : ndarray of float64, (samples,)
        Room to work in.

    Returns
    -------
    float
        Mean square of the residual.
    """
    n = len(x)
    order = len(a) - 1
    power = 0.0
    for i in range(n):
        forward[i] = x[i]
        backward[i] = x[i]
        power += x[i] * x[i]
    power = power / n + 1e-30
    a[:] = 0.0
    a[0] = 1.0
    for m in range(1, order + 1):
        both = 0.0
        own = 1e-30
        for i in range(m, n):
            both += forward[i] * backward[i - 1]
            own += forward[i] * forward[i] + backward[i - 1] * backward[i - 1]
        reflection = -2.0 * both / own
        for k in range(m // 2 + 1):
            low = a[k]
            high = a[m - k]
            a[k] = low + reflection * high
            if k != m - k:
                a[m - k] = high + reflection * low
        for i in range(n - 1, m - 1, -1):
            ahead = forward[i]
            behind = backward[i - 1]
            forward[i] = ahead + reflection * behind
            backward[i] = behind + reflection * ahead
        power *= 1.0 - reflection * reflection
    return power


@kernel(types.void(_D[::1], _I, _D[::1]), fastmath=True)
def extend(x: Any, begin: Any, a: Any) -> None:
    """Write the samples from `begin` on so that the residual of each is 0."""
    order = len(a) - 1
    for n in range(begin, len(x)):
        total = 0.0
        for k in range(1, order + 1):
            total -= a[k] * x[n - k]
        x[n] = total


@kernel(types.void(_D[::1], _D[::1], _D[:, ::1]), fastmath=True)
def weighed(x: Any, weight: Any, moments: Any) -> None:
    """Weighed sums of products of samples a few apart, from which coefficients by least squares follow.

    Parameters
    ----------
    x : ndarray of float64, (samples,)
    weight : ndarray of float64, (samples - order,)
        Of the equation for each sample from `order` on.
    moments : ndarray of float64, (order + 1, order + 1)
        Written: sums of ``weight * x[n - i] * x[n - j]``.
    """
    order = len(moments) - 1
    count = len(weight)
    for i in range(order + 1):
        for j in range(i + 1):
            total = 0.0
            for n in range(count):
                total += weight[n] * x[n + order - i] * x[n + order - j]
            moments[i, j] = total
            moments[j, i] = total
