# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is installed where this Python looks, read once for all buildouts.

A buildout reads the metadata of every distribution on ``sys.path`` several times, which is most of
the work of a small one. Forks of a process that has read them take what it knows.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any


class Distributions:
    """The distributions of the folders on ``sys.path``, as long as nothing is installed there."""

    def __init__(self, pkg_resources: Any) -> None:
        """Read them, with what they require.

        :param pkg_resources: the module that buildout takes distributions from.
        """
        self._find = pkg_resources.find_distributions
        self._known: dict[tuple[str, bool], tuple[int, list[Any]]] = {}
        for folder in sys.path:
            for only in (False, True):
                self._read(folder, only=only)

    def _read(self, folder: str, *, only: bool) -> None:
        """Read what is in a folder, if there is one."""
        changed = _changed(folder)
        if changed is None or not os.path.isdir(folder):  # noqa: PTH112 (entries may be empty)
            return
        found = list(self._find(folder, only))
        read_requirements(found)
        self._known[folder, only] = changed, found

    def find(self, folder: str, only: bool = False) -> Iterator[Any]:
        """Yield the distributions of a folder: pkg_resources' ``find_distributions``."""
        changed, found = self._known.get((folder, only), (None, []))
        if changed is None or changed != _changed(folder):
            return iter(self._find(folder, only))
        return iter(found)


def remember(pkg_resources: Any) -> None:
    """Let a module pkg_resources, and the forks of this process, read distributions once."""
    pkg_resources.find_distributions = Distributions(pkg_resources).find
    read_requirements(pkg_resources.working_set)


def read_requirements(distributions: Iterable[Any]) -> None:
    """Read what distributions require, which each of them remembers."""
    for distribution in distributions:
        # A broken distribution is told by the buildout that needs it.
        with contextlib.suppress(Exception):
            distribution.requires()


def _changed(folder: str) -> int | None:
    """Return when something was installed in a folder or removed; None when it is not there."""
    try:
        return os.stat(folder).st_mtime_ns  # noqa: PTH116 (entries may be empty)
    except OSError:
        return None
