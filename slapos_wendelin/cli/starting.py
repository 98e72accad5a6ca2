# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts the commands of ``./wendelin``: Ctrl-C ends them well while their modules are read too."""

from __future__ import annotations

import sys

from slapos_wendelin.cli.outcome import INTERRUPTED, tell_interruption


def main() -> int:
    """Run one command."""
    try:
        from slapos_wendelin.cli import local  # noqa: PLC0415 (it takes a second)
    except KeyboardInterrupt:
        tell_interruption()
        return INTERRUPTED
    return local.main()


if __name__ == "__main__":
    sys.exit(main())
