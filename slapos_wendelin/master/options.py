# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options with which a master is started."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

from slapos_wendelin.master import logs
from slapos_wendelin.master.errors import ListenError
from slapos_wendelin.master.presence import LOST_AFTER

#: Names the database where no password is to be seen in the list of processes.
DATABASE_VARIABLE = "WENDELIN_MASTER_DATABASE"

#: How many worker processes a master may have. No machine gains from so many: each one looks
#: at the database and wakes up for each connection.
MOST_PROCESSES = 64

_LARGEST_PORT = 65535


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
        "--processes",
        type=process_count,
        default=1,
        metavar="NUMBER",
        help="how many processes answer requests, as many as processors at most (default: 1)",
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
    logs.add_options(parser)


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


def words_of(options: argparse.Namespace) -> list[str]:
    """Return the words of a command line that give the same options to a new program.

    Paths are absolute. A database that the environment names stays there.
    """
    words: list[str] = []
    if options.database != os.environ.get(DATABASE_VARIABLE):
        is_url = "://" in options.database
        words += ["--database", options.database if is_url else _absolute(options.database)]
    words += ["--listen", options.listen]
    if options.processes > 1:
        words += ["--processes", str(options.processes)]
    if options.authority is not None:
        words += ["--authority", _absolute(options.authority)]
    for name in options.name:
        words += ["--name", name]
    if options.plain:
        words.append("--plain")
    if options.lost_after != LOST_AFTER:
        words += ["--lost-after", repr(options.lost_after)]
    return [*words, *logs.words_of(options)]


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


def process_count(text: str) -> int:
    """Return a number of processes.

    :raises argparse.ArgumentTypeError: when it is none, or too large.
    """
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MOST_PROCESSES:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of processes from 1 to {MOST_PROCESSES}"
        )
    return int(text)


def _absolute(path: Path | str) -> str:
    """Return a path that is the same in every folder."""
    return str(Path(path).absolute())
