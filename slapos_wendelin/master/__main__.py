# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts a master.

``python -m slapos_wendelin.master --database FILE --listen ADDRESS:PORT --authority FOLDER``.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from slapos_wendelin.errors import WendelinError
from slapos_wendelin.master import logs, readiness
from slapos_wendelin.master.authority import Authority
from slapos_wendelin.master.errors import ListenError
from slapos_wendelin.master.presence import LOST_AFTER
from slapos_wendelin.master.server import MasterServer

_LARGEST_PORT = 65535

#: Names the database where no password is to be seen in the list of processes.
DATABASE_VARIABLE = "WENDELIN_MASTER_DATABASE"

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
    host, port = split_listen(options.listen)
    server = MasterServer(
        options.database,
        host,
        port,
        authority=Authority(options.authority) if options.authority else None,
        names=options.name,
        plain=options.plain,
        lost_after=options.lost_after,
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    failures: list[BaseException] = []
    thread = threading.Thread(target=_serve, args=(server, stop, failures), name="serve")
    thread.start()
    _log.info("started url=%s database=%s", server.url, server.database_name)
    readiness.tell(readiness.READY)
    stop.wait()
    readiness.tell(readiness.STOPPING)
    server.stop()
    thread.join()
    _log.info("stopped")
    return 1 if failures else 0


def split_listen(listen: str) -> tuple[str, int]:
    """Return the host and the port of ADDRESS:PORT, with brackets around an IPv6 address.

    :raises ListenError: when it is not of that form.
    """
    host, _, port = listen.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not host or not port.isascii() or not port.isdigit() or int(port) > _LARGEST_PORT:
        raise ListenError(f"--listen is {listen!r}", "write ADDRESS:PORT, such as 127.0.0.1:5000")
    return host, int(port)


def positive_seconds(text: str) -> float:
    """Return a time in seconds.

    :raises argparse.ArgumentTypeError: when it is not a number above zero.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def _serve(server: MasterServer, stop: threading.Event, failures: list[BaseException]) -> None:
    """Serve, and end the program when serving fails."""
    try:
        server.serve()
    except BaseException as error:
        _log.exception("serving failed")
        failures.append(error)
    finally:
        stop.set()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a master."""
    add_database_option(parser)
    parser.add_argument(
        "--listen",
        default="127.0.0.1:5000",
        metavar="ADDRESS:PORT",
        help="where to listen (default: 127.0.0.1:5000)",
    )
    parser.add_argument(
        "--authority",
        type=Path,
        metavar="FOLDER",
        help="the folder of the certificate authority, made when it is new",
    )
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        help="a host name or address under which the master is called (may be repeated)",
    )
    parser.add_argument(
        "--plain", action="store_true", help="listen in clear; on loopback only, for tests"
    )
    parser.add_argument(
        "--lost-after",
        type=positive_seconds,
        default=LOST_AFTER,
        metavar="SECONDS",
        help="a computer that has not called for so long counts as lost (default: %(default)g)",
    )
    parser.add_argument(
        "--log-level",
        default="info",
        choices=("debug", "info", "warning", "error"),
        help="the least that is logged (default: info)",
    )
    parser.add_argument(
        "--log-format",
        default=logs.TEXT,
        choices=(logs.TEXT, logs.JSON),
        help="lines for people or for programs (default: text)",
    )


def add_database_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the database."""
    default = os.environ.get(DATABASE_VARIABLE)
    parser.add_argument(
        "--database",
        default=default,
        required=default is None,
        metavar="FILE_OR_URL",
        help="a SQLite file, mariadb://USER@HOST/NAME or postgresql://USER@HOST/NAME"
        f" (default: ${DATABASE_VARIABLE})",
    )


if __name__ == "__main__":
    sys.exit(main())
