# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts a master.

``python -m slapos_wendelin.master --database FILE --listen ADDRESS:PORT --authority FOLDER``.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from slapos_wendelin.errors import WendelinError
from slapos_wendelin.master import handing_over, logs, readiness, running
from slapos_wendelin.master.options import add_options

_log = logging.getLogger("slapos_wendelin.master")


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and run a master; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m slapos_wendelin.master",
        description="Run the slap master in the foreground.",
    )
    add_options(parser)
    try:
        return run(parser.parse_args(arguments))
    except WendelinError as error:
        print(f"slapos master: {error}", file=sys.stderr)
        return error.exit_status


def run(options: argparse.Namespace) -> int:
    """Run a master until SIGTERM or SIGINT; return the exit status.

    :raises WendelinError: when it cannot start.
    """
    logs.configure(options.log_level, options.log_format)
    server = running.make_server(options)
    if options.processes > 1:
        handing_over.become_supervisor(server, options)

    def tell_ready() -> None:
        _log.info("started url=%s database=%s", server.url, server.database_name)
        readiness.tell(readiness.READY)

    return running.run(server, tell_ready)


if __name__ == "__main__":
    sys.exit(main())
