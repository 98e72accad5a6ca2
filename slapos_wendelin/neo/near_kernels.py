# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernels of notebooks that are reached by sockets in a folder, and open no port."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from ipykernel.kernelspec import write_kernel_spec
from jupyter_server.services.kernels.kernelmanager import ServerKernelManager

from slapos_wendelin.neo.errors import NotebookError

#: The longest path of a socket that Linux takes, in bytes.
PATH_LIMIT = 107

#: How many hexadecimal digits of a kernel's id are in the names of its sockets.
_DIGITS = 12


class NearKernelManager(ServerKernelManager):
    """Starts one kernel with sockets beside its connection file.

    Jupyter's names for them are longer than the path of a socket may be in many a partition.
    """

    def _ip_default(self) -> str:
        """Return what the paths of the sockets begin with; a number follows."""
        connection = Path(self.connection_file)
        short = connection.stem.replace("-", "")[: len("kernel") + _DIGITS]
        return str(connection.with_name(short))


def settings() -> dict[str, Any]:
    """Return the settings of Jupyter for such kernels."""
    name = f"{NearKernelManager.__module__}.{NearKernelManager.__name__}"
    return {
        "MappingKernelManager": {"kernel_manager_class": name},
        "KernelManager": {"transport": "ipc"},
    }


def prepare_sockets(folder: Path) -> None:
    """Make the folder of connection files and sockets, for its owner only, or empty it.

    :raises NotebookError: when the names of sockets would be too long.
    """
    longest = folder / f"kernel{'0' * _DIGITS}-1000"
    if len(os.fsencode(longest)) > PATH_LIMIT:
        raise NotebookError(
            f"the folder {folder} is too deep for sockets, of which the path has at most"
            f" {PATH_LIMIT} bytes",
            "give the computer's partitions a folder nearer to the root",
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # What a server leaves that was killed; its kernels end by themselves.
    for left in folder.glob("kernel*"):
        left.unlink(missing_ok=True)


def write_specification(folder: Path) -> None:
    """Tell Jupyter how the kernel is started, in place of what is in the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Files beside a notebook do not stand for modules that the kernel itself imports (-P).
    command = [sys.executable, "-P", "-m", "slapos_wendelin.neo.notebook_kernel"]
    own = {"argv": [*command, "-f", "{connection_file}"], "metadata": {}}
    write_kernel_spec(folder, {**own, "display_name": "Python 3"})
