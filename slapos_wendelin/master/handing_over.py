# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a master that can start becomes the supervisor of worker processes."""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn

from slapos_wendelin.master import logs, options
from slapos_wendelin.master.server import MasterServer


def become_supervisor(server: MasterServer, given: argparse.Namespace) -> NoReturn:
    """Put the supervisor in the place of this program, with the server's socket.

    All that can be wrong has been seen by then. The process stays the same, and what it needed to
    see that leaves the memory. Requests queue at the socket until the workers answer.

    :param given: the options of the master.
    """
    listening = server.hand_over()
    listening.set_inheritable(True)
    # All workers have one certificate, whatever addresses the machine has when one starts again.
    worker = argparse.Namespace(**vars(given) | {"name": server.names, "processes": 1})
    command = [sys.executable, "-P", "-m", "slapos_wendelin.master.supervisor"]
    command += ["--socket", str(listening.fileno()), "--processes", str(given.processes)]
    command += ["--url", server.url, "--database-name", server.database_name]
    command += [*logs.words_of(given), "--", *options.words_of(worker)]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, command)  # noqa: S606 (there is no shell on purpose)
