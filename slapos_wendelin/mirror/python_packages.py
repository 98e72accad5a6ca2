# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Python packages of a mirror, downloaded by pip from the index that it is configured for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from slapos_wendelin.files import sha256_of
from slapos_wendelin.mirror.errors import MirrorError
from slapos_wendelin.mirror.folder import MirrorFolder
from slapos_wendelin.mirror.needs import PythonSource
from slapos_wendelin.recipe.index import (
    fetch_source_archive,
    index_url,
    parse_pin,
    without_password,
)
from slapos_wendelin.recipe.program import clean_environment

#: Lines of pip's output that an error repeats.
_SHOWN_LINES = 6


def fetch_python_source(source: PythonSource, folder: MirrorFolder) -> bool:
    """Add a source archive of the index unless it is there; return whether it was fetched.

    :raises ProfileError: the index lacks it, or has another one.
    """
    name, version = parse_pin(source.requirement)
    filename = f"{name.replace('-', '_')}-{version}.tar.gz"
    path = folder.files / filename
    if path.is_file() and sha256_of(path) == source.sha256:
        return False
    content = fetch_source_archive(source.requirement, source.sha256, None, offline=False)
    folder.add_python(filename, content)
    return True


def fetch_lock(lock: Path, folder: MirrorFolder, tell: Callable[[int, int], None]) -> None:
    """Download all that a lock names, for the Python that runs this; pip checks each hash.

    :param tell: is called with the number of packages done and of all.
    :raises MirrorError: pip could not get all of them.
    """
    total = len(pinned(lock.read_text().splitlines()))
    done = 0
    command = [
        *(sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "download"),
        *("--no-deps", "--require-hashes", "--progress-bar=off", f"--dest={folder.files}"),
        f"--requirement={lock}",
    ]
    said: list[str] = []
    with subprocess.Popen(
        command,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as pip:
        for line in pip.stdout or ():
            said.append(line.rstrip())
            if line.startswith(("Collecting ", "Ignoring ")):
                done += 1
                tell(done, total)
    if pip.returncode:
        lines = [line for line in said if line.startswith("ERROR")] or said[-_SHOWN_LINES:]
        raise MirrorError(
            f"pip could not download all of {lock} from {without_password(index_url())}:\n  "
            + "\n  ".join(lines[:_SHOWN_LINES]),
            "mend the connection to the index, or name another in PIP_INDEX_URL",
        )


def pinned(lines: Iterable[str]) -> list[str]:
    """Return the packages that the lines of a lock name."""
    return [line.partition("==")[0] for line in lines if "==" in line and line[0].isalnum()]
