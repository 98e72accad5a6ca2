# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a command of ``./wendelin`` ends."""

from __future__ import annotations

import argparse
import sys

from slapos_wendelin.errors import WendelinError


def outcome(options: argparse.Namespace, interrupted: str) -> int:
    """Run the chosen command; an error of ours is one line and a remedy.

    :param options: has the command as ``function``.
    :param interrupted: what to say when the user interrupts it.
    """
    try:
        status: int = options.function(options)
    except WendelinError as error:
        print(f"wendelin: {error.message}", file=sys.stderr)
        if error.remedy:
            print(f"  remedy: {error.remedy}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        return 130
    return status
