# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start the MariaDB of a storage node.

Makes its data folder and upgrades it when that is needed, then becomes the server. It may be killed
at any moment and started again.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path

from slapos_wendelin.errors import MissingRequirementError, WendelinError
from slapos_wendelin.files import held, write_atomically
from slapos_wendelin.mariadb import logs
from slapos_wendelin.mariadb.configuration import (
    ENGINES,
    RELAXED,
    SAFE,
    configuration,
    first_statements,
)
from slapos_wendelin.mariadb.crashes import note_crash
from slapos_wendelin.mariadb.data_folder import prepare
from slapos_wendelin.mariadb.disk import shortage
from slapos_wendelin.mariadb.errors import ServerError
from slapos_wendelin.mariadb.memory import buffer_size
from slapos_wendelin.mariadb.place import Place
from slapos_wendelin.mariadb.programs import server_version
from slapos_wendelin.mariadb.upgrade import upgrade

log = logging.getLogger(__name__)


def make_ready(options: argparse.Namespace) -> list[str]:
    """Do all that must be done before the server; return its command.

    :raises WendelinError: it must not, or cannot, be started.
    """
    place, software = Place(options.partition), options.software
    place.check()
    place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if full := shortage(place):
        raise MissingRequirementError(full)
    busy = ServerError("another process prepares the data folder", "it is started again later")
    with held(place.lock, busy):
        if note_crash(place, time.time()):
            log.info("the server had not been shut down: it recovers from its log")
        version = server_version(software)
        note = prepare(place, software, options.engine, version)
        write_atomically(place.first_statements, first_statements())
        text = configuration(
            place,
            software,
            engine=options.engine,
            durability=options.durability,
            buffers=buffer_size(options.share),
            settings=dict(options.set),
        )
        write_atomically(place.configuration, text)
        logs.rotate(place)
        upgrade(place, software, note, version)
    return [str(software / "bin" / "mariadbd"), f"--defaults-file={place.configuration}"]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    found.add_argument("--software", required=True, type=Path, help="folder of the MariaDB")
    found.add_argument("--partition", required=True, type=Path)
    found.add_argument("--engine", required=True, choices=sorted(ENGINES))
    found.add_argument("--durability", default=SAFE, choices=(SAFE, RELAXED))
    found.add_argument("--share", default=1, type=int, help="storage nodes on this computer")
    found.add_argument(
        "--set", default=[], action="append", type=_setting, metavar="NAME=VALUE", help="an option"
    )
    return found


def _setting(text: str) -> tuple[str, str]:
    """Return the name and the value of an option of the server."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=VALUE")
    return name, value


def main() -> None:
    """Start the server, or say in one line why not."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    options = parser().parse_args()
    try:
        command = make_ready(options)
    except (WendelinError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    log.info("starting the server")
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606 (no shell is wanted)


if __name__ == "__main__":
    main()
