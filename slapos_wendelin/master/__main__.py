# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts a master.

``python -m slapos_wendelin.master --database FILE --listen ADDRESS:PORT --authority FOLDER``.
"""

from __future__ import annotations

import argparse
import logging
import math
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from slapos_wendelin.errors import WendelinError
from slapos_wendelin.master.authority import Authority
from slapos_wendelin.master.errors import ListenError
from slapos_wendelin.master.presence import LOST_AFTER
from slapos_wendelin.master.server import MasterServer, log_formatter

_LARGEST_PORT = 65535

_log = logging.getLogger("slapos_wendelin.master")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a master until SIGTERM or SIGINT; return the exit status."""
    options = _parser().parse_args(arguments)
    _configure_log(options.log_level)
    try:
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
    except WendelinError as error:
        print(f"slapos master: {error}", file=sys.stderr)
        return error.exit_status
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    failures: list[BaseException] = []
    thread = threading.Thread(target=_serve, args=(server, stop, failures), name="serve")
    thread.start()
    _log.info("started url=%s database=%s", server.url, options.database)
    stop.wait()
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


def _parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m slapos_wendelin.master",
        description="Run the slap master in the foreground.",
    )
    parser.add_argument("--database", required=True, metavar="FILE_OR_URL")
    parser.add_argument("--listen", required=True, metavar="ADDRESS:PORT")
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
        "--log-level", default="info", choices=("debug", "info", "warning", "error")
    )
    return parser


def _configure_log(level: str) -> None:
    """Send the log to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(log_formatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # It tells at each start which kind of database it meets.
    logging.getLogger("alembic").setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
