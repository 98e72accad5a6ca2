# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The slapos command with our commands in it.

slapos.core and this project both ship a script ``slapos``; the toolkit installs ours last. It is
slapos.core's, but for the commands below: the order in which cliff loads two commands of one name
from entry points is not defined, so ours are put in after all others.
"""

from __future__ import annotations

import sys

from slapos.cli import entry

from slapos_wendelin.cli.module_files import accept_module_names
from slapos_wendelin.cli.request import RequestCommand

COMMANDS = {"request": RequestCommand}


def main() -> int:
    """Run the slapos command."""
    accept_module_names()
    application = entry.SlapOSApp()
    for name, command in COMMANDS.items():
        application.command_manager.add_command(name, command)
    return int(application.run(sys.argv[1:] or ["-h"]) or 0)


if __name__ == "__main__":
    sys.exit(main())
