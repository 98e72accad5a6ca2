# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How often the programs of a computer have died, and when they did last."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable
from typing import Any

from slapos.grid.SlapObject import WATCHDOG_MARK

Document = dict[str, Any]

#: Seconds after its last death when a program counts as well again.
LIFETIME = 86400.0
#: How many programs the master is told of at most: those that died last.
MOST = 100


class Deaths:
    """The deaths of programs, by their full names at supervisord."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        """Make an empty record.

        :param changed: is called after each death.
        """
        self.changed = changed
        #: How often each program has died, and when it did last.
        self._found: dict[str, tuple[int, float]] = {}

    def note(self, name: str, at: float) -> None:
        """Count the death of a program at *at*, in seconds since the epoch."""
        count, _ = self._found.get(name, (0, 0.0))
        self._found[name] = (count + 1, at)
        self.changed()

    def keep(self, names: Collection[str], now: float) -> None:
        """Forget all programs but those of some names that died not long ago."""
        self._found = {
            name: (count, last)
            for name, (count, last) in self._found.items()
            if name in names and now - last < LIFETIME
        }

    def told(self) -> dict[str, Document]:
        """Return what the agent's state says of them."""
        return {name: {"count": count, "last": last} for name, (count, last) in self._found.items()}

    def remember(self, told: dict[str, Document]) -> None:
        """Take over what an earlier agent's state says."""
        # It may have been of another version.
        with contextlib.suppress(AttributeError, KeyError, TypeError):
            self._found = {name: (each["count"], each["last"]) for name, each in told.items()}

    def report(self, partitions: Iterable[str]) -> list[Document]:
        """Return what the master is told: the latest of those in some partitions."""
        names = set(partitions)
        found = [
            {
                "partition": partition,
                "program": name.partition(":")[2].removesuffix(WATCHDOG_MARK),
                "count": count,
                "last": last,
            }
            for name, (count, last) in list(self._found.items())
            if (partition := _partition(name.partition(":")[0], names))
        ]
        return sorted(found, key=lambda each: each["last"], reverse=True)[:MOST]


def _partition(group: str, names: Collection[str]) -> str:
    """Return the partition of a group of programs: some have several; empty for none."""
    while group and group not in names:
        group = group.rpartition("-")[0]
    return group
