# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that recipes start."""

import logging
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from slapos_wendelin.buildout.errors import ProfileError
from slapos_wendelin.recipe.shared import out_of_space

#: Lines of a failed program's output that its error repeats.
_SHOWN_LINES = 12

_NO_NETWORK = (
    "Could not connect",
    "dns error",
    "error sending request",
    "Failed to fetch",
    "network connectivity is disabled",
    "network was disabled",
    "tcp connect error",
)


class ProgramError(ProfileError):
    """A program ended with an error."""


def run(
    command: Sequence[str | Path],
    *,
    doing: str,
    log: logging.Logger,
    folder: Path,
    lock: int,
    environment: Mapping[str, str],
    umask: int = -1,
) -> None:
    """Run a program, its output going line by line to the log.

    :param doing: what the program is for; begins the message of errors.
    :param lock: file descriptor that the program inherits.
    :param umask: of the program; this process's own unless given.
    :raises ProgramError: it failed; the message repeats its last lines.
    :raises ProfileError: the disk is full, the network missing, or the program is not installed.
    """
    lines: list[str] = []
    try:
        process = subprocess.Popen(
            [str(argument) for argument in command],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=[lock],
            umask=umask,
        )
    except FileNotFoundError as error:
        raise ProfileError(
            f"{doing}: the program {command[0]} is not installed", "install it, then build again"
        ) from error
    with process as running:
        for line in running.stdout or ():
            lines.append(line.rstrip())
            log.debug("%s", lines[-1])
    if running.returncode:
        raise _failure(doing, "\n".join(lines), folder)


def _failure(doing: str, output: str, folder: Path) -> ProfileError:
    """Tell a full disk and a missing network from other failures."""
    if "No space left on device" in output or "Disk quota exceeded" in output:
        return out_of_space(folder)
    end = "\n  ".join(output.splitlines()[-_SHOWN_LINES:])
    if any(text in output for text in _NO_NETWORK):
        return ProfileError(f"{doing}: cannot fetch from the Python index:\n  {end}\n", NETWORK)
    return ProgramError(f"{doing} failed:\n  {end}")


#: What to do when something cannot be fetched.
NETWORK = (
    "connect this machine, or name an index that it reaches in UV_DEFAULT_INDEX, or build once "
    "where there is a network with the same UV_CACHE_DIR and download-cache"
)


def clean_environment() -> dict[str, str]:
    """Return the environment without what would lead Python and uv to other packages."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTHON") and name not in {"VIRTUAL_ENV", "UV_PYTHON", "PIP_TARGET"}
    }
