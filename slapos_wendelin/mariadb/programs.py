# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""MariaDB's programs, run until they end."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from slapos_wendelin.mariadb.errors import ServerError

Version = tuple[int, ...]

_VERSION = re.compile(r"Ver ([0-9]+(?:\.[0-9]+)+)")

#: Lines of a failed program that its error repeats.
_SHOWN_LINES = 4


def run(command: Sequence[str | Path], doing: str) -> str:
    """Run a program and return what it said.

    :param doing: what it is for; begins the message of errors.
    :raises ServerError: it is not there, or it failed.
    """
    try:
        done = subprocess.run(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise ServerError(f"{doing}: {command[0]} cannot be run: {error.strerror}") from error
    if done.returncode:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        said = [line for line in lines if "ERROR" in line.upper()] or lines[-_SHOWN_LINES:]
        raise ServerError(f"{doing} failed: {' | '.join(said[:_SHOWN_LINES]) or 'it said nothing'}")
    return done.stdout


def server_version(software: Path) -> Version:
    """Return the version of the server."""
    said = run([software / "bin" / "mariadbd", "--no-defaults", "--version"], "asking its version")
    found = _VERSION.search(said)
    if found is None:
        raise ServerError(f"the server's version cannot be read from {said.strip()!r}")
    return parse_version(found[1])


def parse_version(text: str) -> Version:
    """Return the numbers of a version."""
    return tuple(int(number) for number in text.split("."))


def version_text(version: Version) -> str:
    """Return a version as people write it."""
    return ".".join(map(str, version))
