# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The libraries of the system that a compiled part needs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from slapos_wendelin.compiled.errors import CacheError

_FOLDERS = ("bin", "sbin", "lib", "libexec")
_ELF = b"\x7fELF"


def check_libraries(name: str, location: Path) -> None:
    """Refuse a part whose programs miss libraries here; raises CacheError."""
    programs = [
        path
        for folder in _FOLDERS
        for path in sorted((location / folder).rglob("*"))
        if path.is_file() and not path.is_symlink() and _is_elf(path)
    ]
    ldd = shutil.which("ldd")
    if not programs or not ldd:
        return
    done = subprocess.run([ldd, *map(str, programs)], capture_output=True, text=True, check=False)
    missing = {
        line.split("=>")[0].strip() for line in done.stdout.splitlines() if "=> not found" in line
    }
    if missing:
        raise CacheError(
            f"{name} of the cache needs {', '.join(sorted(missing))}, which this system lacks",
            "install the packages that ./wendelin doctor names for compiling",
        )


def _is_elf(path: Path) -> bool:
    """Whether a file is a program or a library."""
    with path.open("rb") as stream:
        return stream.read(len(_ELF)) == _ELF
