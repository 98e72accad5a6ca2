# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a command of ``./wendelin`` ends."""

from __future__ import annotations

import argparse
import sys

from slapos_wendelin.errors import WendelinError

#: Exit status of a command that a user ends with Ctrl-C.
INTERRUPTED = 130

#: What goes on when a command of the environment is interrupted.
GOES_ON = (
    "Interrupted. What was started goes on in the background:\n"
    "  ./wendelin up continues, ./wendelin down stops it."
)


def tell_interruption(text: str = GOES_ON) -> None:
    """Say that the user has interrupted the command."""
    print(f"\n{text}", file=sys.stderr)


def outcome(options: argparse.Namespace, interrupted: str = GOES_ON) -> int:
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
        tell_interruption(interrupted)
        return INTERRUPTED
    return status
