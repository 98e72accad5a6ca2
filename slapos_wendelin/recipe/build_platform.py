# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What compiled programs depend on beside their source: distribution, C library, compiler."""

import platform
import shutil
import subprocess

from slapos_wendelin.buildout.errors import ProfileError


def build_platform(compiler: str = "c++") -> dict[str, str]:
    """Return what decides whether a program compiled here runs elsewhere.

    :raises ProfileError: there is no such compiler.
    """
    return {
        "machine": platform.machine(),
        "distribution": distribution(),
        "libc": "-".join(platform.libc_ver()),
        "compiler": _compiler_version(compiler),
    }


def distribution() -> str:
    """Return name and version of this system, such as ``debian 12``."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return platform.system().lower()
    return f"{release.get('ID', 'linux')} {release.get('VERSION_ID', 'rolling')}"


def _compiler_version(compiler: str) -> str:
    """Return what the compiler calls itself and its version."""
    program = shutil.which(compiler)
    if program is None:
        raise ProfileError(
            f"the compiler {compiler} is not installed",
            "apt-get install --yes --no-install-recommends g++ (or: ./wendelin doctor)",
        )
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise ProfileError(
            f"{program} --version failed: {done.stderr.strip()}", "mend the compiler"
        )
    return lines[0].strip()
