# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What compiled programs depend on beside their source: distribution, C library, compiler."""

import os
import platform
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path

from slapos_wendelin.buildout.errors import ProfileError

#: Where the distribution's own compiler is.
_SYSTEM_FOLDER = Path("/usr/bin")


def build_platform(program: str = "c++") -> dict[str, str]:
    """Return what decides whether a program compiled here runs elsewhere.

    A computer without a compiler is to find what another has compiled. The distribution says which
    compiler is its own, so only a foreign one is named.
    """
    found = shutil.which(program)
    is_foreign = found and not Path(found).resolve().is_relative_to(_SYSTEM_FOLDER)
    return {
        "machine": platform.machine(),
        "distribution": distribution(),
        "libc": "-".join(platform.libc_ver()),
        "compiler": compiler_version(program) if is_foreign else "of the distribution",
    }


def distribution() -> str:
    """Return name and version of this system, such as ``debian 12``."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return platform.system().lower()
    return f"{release.get('ID', 'linux')} {release.get('VERSION_ID', 'rolling')}"


def compiler_version(program: str = "c++") -> str:
    """Return what the compiler calls itself and its version; nothing when there is none.

    :raises ProfileError: it does not run.
    """
    found = shutil.which(program)
    if found is None:
        return ""
    done = subprocess.run(
        [found, "--version"],
        env=os.environ | {"LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise ProfileError(f"{found} --version failed: {done.stderr.strip()}", "mend the compiler")
    return lines[0].strip()


def missing_packages(names: Collection[str]) -> list[str]:
    """Return which packages of Debian are not installed; none where dpkg does not know."""
    dpkg = shutil.which("dpkg-query")
    if not names or not dpkg:
        return []
    done = subprocess.run(
        [dpkg, "--show", "--showformat=${Package} ${db:Status-Abbrev}\\n", *names],
        capture_output=True,
        text=True,
        check=False,
    )
    installed = {line.split()[0] for line in done.stdout.splitlines() if line.endswith(" ii ")}
    return [name for name in names if name not in installed]
