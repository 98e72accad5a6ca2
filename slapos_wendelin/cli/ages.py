# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Times and sizes as people read them."""

from __future__ import annotations

from datetime import datetime

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def age(since: str | None, now: str) -> str:
    """Return how long ago a time was, in one unit; empty for none.

    :param since: a time in ISO 8601, or None.
    :param now: the time from which to count: the master's, whose clock made the other one too.
    """
    if since is None:
        return ""
    return duration((datetime.fromisoformat(now) - datetime.fromisoformat(since)).total_seconds())


def duration(time: float) -> str:
    """Return a time in seconds in one unit, 0 for one that is below."""
    seconds = max(0, int(time))
    for unit, length in _UNITS:
        if seconds >= 2 * length or length == 1:
            return f"{seconds // length} {unit}"
    return ""


def times(count: int) -> str:
    """Return how often something was."""
    return "once" if count == 1 else f"{count} times"


def gibibytes(size: int | None) -> str:
    """Return an amount of bytes in GiB, or TiB where that is shorter; empty for none."""
    if size is None:
        return ""
    if size >= 10 * 2**40:
        return f"{size / 2**40:.0f} TiB"
    return f"{size / 2**30:.{0 if size >= 10 * 2**30 else 1}f} GiB"
