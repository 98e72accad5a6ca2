# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of the server itself, made those of a newer version."""

from __future__ import annotations

import logging
import signal
import subprocess
import time
from pathlib import Path

from slapos_wendelin.mariadb.data_folder import Note, remember_version
from slapos_wendelin.mariadb.errors import ServerError
from slapos_wendelin.mariadb.place import Place, server_user
from slapos_wendelin.mariadb.programs import Version, parse_version, run, version_text
from slapos_wendelin.mariadb.wait import answers

log = logging.getLogger(__name__)


def upgrade(place: Place, software: Path, note: Note, version: Version) -> None:
    """Upgrade the data folder when an older server has written it.

    Nobody else is let in meanwhile. When it is interrupted, it is done again.

    :raises ServerError: it failed.
    """
    if parse_version(note.version) == version:
        return
    for path in place.old_upgrade_sockets():
        path.unlink()
    log.info("upgrading the data from %s to %s", note.version, version_text(version))
    command = [
        # Of SIGTERM it takes no notice while it starts.
        *("setpriv", "--pdeathsig", "KILL", "--"),
        str(software / "bin" / "mariadbd"),
        f"--defaults-file={place.configuration}",
        f"--socket={place.upgrade_socket}",
    ]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        _wait(place, server)
        run(
            [
                software / "bin" / "mariadb-upgrade",
                "--no-defaults",
                f"--socket={place.upgrade_socket}",
                f"--user={server_user()}",
                f"--tmpdir={place.temporary}",
            ],
            f"upgrading the data to MariaDB {version_text(version)}",
        )
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()
    remember_version(place, note, version)


def _wait(place: Place, server: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers."""
    while not answers(place.upgrade_socket):
        if server.poll() is not None:
            raise ServerError(
                f"MariaDB ended with status {server.returncode} when it was started to be upgraded",
                f"look into {place.error_log}",
            )
        time.sleep(0.05)
