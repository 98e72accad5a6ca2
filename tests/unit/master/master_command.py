# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs ``slapos master`` in the process of the test."""

from __future__ import annotations

import sys

from slapos_wendelin.cli import master
from slapos_wendelin.errors import WendelinError


def slapos_master(name: str, *arguments: object) -> int:
    """Run a command as `slapos` does; return its exit status."""
    command = getattr(master, f"{name.capitalize()}Command")(None, None)
    options = command.get_parser(f"slapos master {name}").parse_args([str(a) for a in arguments])
    try:
        return command.run(options)
    except WendelinError as error:
        print(f"slapos: {error.message}\n  remedy: {error.remedy}", file=sys.stderr)
        return error.exit_status
