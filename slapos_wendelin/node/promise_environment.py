# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the promises of a partition are made for the Python that runs here."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable
from pathlib import Path

from slapos.grid.utils import getPythonExecutableFromSoftwarePath

from slapos_wendelin.node.partition_files import read_text
from slapos_wendelin.node.promise_child import Promise


def is_ours(release: str, plugins: Iterable[Promise]) -> bool:
    """Return whether plugins of a release mean this Python, and folders that it has anyway.

    Plugins of a release with a Python or eggs of its own must be run by slapgrid's means.
    """
    plugins = list(plugins)
    if not plugins:
        return True
    python = getPythonExecutableFromSoftwarePath(release)
    if python not in (None, sys.executable):
        return False
    return all(folders_of(plugin.path) <= set(sys.path) for plugin in plugins)


def folders_of(plugin: Path) -> set[str]:
    """Return the folders that a plugin puts before all others; none when it cannot be read.

    slapos.cookbook writes them as the first assignment. A plugin that is no Python is run all the
    same, to say so.
    """
    try:
        tree = ast.parse(read_text(plugin))
        assignment = next(each for each in tree.body if isinstance(each, ast.Assign))
        if ast.unparse(assignment.targets[0]) != "sys.path[0:0]":
            return set()
        return set(ast.literal_eval(assignment.value))
    except (
        OSError,
        SyntaxError,
        ValueError,
        TypeError,
        StopIteration,
        RecursionError,
        MemoryError,
    ):
        return set()
