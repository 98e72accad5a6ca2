# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files beside a module of slapos.core, under Python 3.11.

slapos.core names the module that a file lies beside. Since Python 3.12 importlib.resources takes
that; Python 3.11 wants the module's package.
"""

from __future__ import annotations

from importlib import resources, util
from importlib.resources.abc import Traversable
from typing import Any


def accept_module_names(slapos_util: Any) -> None:
    """Let slapos.core find its files.

    :param slapos_util: its module ``slapos.util``, before others take its functions.
    """
    slapos_util.get_package_resource_bytes = _read
    slapos_util.get_package_resource_filename = _path


def _read(name: str, path: str) -> bytes:
    """Return the contents of a file beside a module or in a package."""
    return _file(name, path).read_bytes()


def _path(name: str, path: str) -> str:
    """Return the path of a file beside a module or in a package."""
    return str(_file(name, path))


def _file(name: str, path: str) -> Traversable:
    """Return a file beside a module or in a package."""
    found = util.find_spec(name)
    is_module = found is not None and found.submodule_search_locations is None
    package = name.rpartition(".")[0] if is_module else name
    return resources.files(package).joinpath(path)
