# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the project's tests with all that they need."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path


def test(options: argparse.Namespace) -> int:
    """Check style and types, then run the tests; arguments go to pytest."""
    source = Path(os.environ["WENDELIN_SOURCE"])
    programs = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}",
        "WENDELIN_CACHE": f"{os.environ['WENDELIN_HOME']}/cache",
    }

    def failed(program: str, *arguments: str) -> bool:
        command = [str(programs / program), *arguments]
        return subprocess.run(command, cwd=source, env=environment, check=False).returncode != 0

    checks = [("ruff", "check"), ("ruff", "format", "--check"), ("pyright",)]
    failures = [] if options.arguments else [" ".join(check) for check in checks if failed(*check)]
    if failed("pytest", *options.arguments):
        failures.append("pytest")
    if failures:
        print(f"failed: {', '.join(failures)}")
    return int(bool(failures))
