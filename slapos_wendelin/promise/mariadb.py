# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Promise: the MariaDB of a storage answers, with its engine."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

from slapos_wendelin.mariadb.configuration import ENGINES
from slapos_wendelin.mariadb.disk import shortage
from slapos_wendelin.mariadb.place import Place, server_user
from slapos_wendelin.promise.base import BrokenPromiseError, Promise
from slapos_wendelin.promise.process import last_line

#: Seconds that a server which was just started may take, and that one answer may.
START_TIME, TIME_LIMIT = 5.0, 10.0

_QUESTION = (
    "SELECT VERSION();"
    " SELECT ENGINE FROM information_schema.ENGINES WHERE SUPPORT IN ('YES', 'DEFAULT')"
)

#: What the server says first when it starts, with the number of its process.
_BEGIN = "starting as process"

#: What it says when InnoDB cannot be started on the data, and what users are told then.
_NO_INNODB = "Plugin 'InnoDB' registration as a STORAGE ENGINE failed"
_DAMAGED = (
    " (its data folder is damaged and stays as it is: the cluster's other copies have the data,"
    " so bring back the folder, or move the storage)"
)

#: Bytes of the end of the error log that are read.
_END_OF_LOG = 200_000


class RunPromise(Promise):
    """Green while the server in ``partition`` answers and has ``engine``.

    ``software`` is the folder of the compiled MariaDB.
    """

    def check(self) -> str:
        """Ask the server; tell what it, or the program that starts it, said when it is gone."""
        place = Place(Path(self.getConfig("partition")))
        version, engines = self._ask(place)
        engine = ENGINES[self.getConfig("engine")]
        if engine.lower() not in (each.lower() for each in engines):
            raise BrokenPromiseError(
                f"MariaDB {version} runs without the engine {engine}, it has {', '.join(engines)}"
            )
        return f"MariaDB {version} answers and has {engine}"

    def _ask(self, place: Place) -> tuple[str, list[str]]:
        """Return the server's version and engines."""
        deadline = time.monotonic() + START_TIME
        while True:
            try:
                answer = self._answer(place)
            except subprocess.TimeoutExpired:
                raise BrokenPromiseError(f"MariaDB did not answer in {TIME_LIMIT:.0f} s") from None
            if answer.returncode == 0:
                version, *engines = answer.stdout.split()
                return version, engines
            if time.monotonic() >= deadline:
                raise BrokenPromiseError(f"MariaDB does not answer{_reason(place, answer.stderr)}")
            time.sleep(0.2)

    def _answer(self, place: Place) -> subprocess.CompletedProcess[str]:
        """Ask once, as the partition's user."""
        command: list[Any] = [
            Path(self.getConfig("software")) / "bin" / "mariadb",
            "--no-defaults",
            f"--socket={place.socket}",
            f"--user={server_user()}",
            "--batch",
            "--skip-column-names",
            f"--execute={_QUESTION}",
        ]
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIME_LIMIT,
            check=False,
        )


def _reason(place: Place, said: str) -> str:
    """Return why it does not answer: what the server said first is what led to the rest."""
    if full := shortage(place):
        return f": {full}"
    errors = errors_since_start(place.error_log)
    started = last_line(place.partition, "mariadb")
    if "error: " in started:
        # The program that starts the server refused, after whatever the server said before.
        return started
    if errors:
        is_damaged = any(_NO_INNODB in each for each in errors)
        return f"; it said: {errors[0][:400]}{_DAMAGED if is_damaged else ''}"
    return started or f": {' '.join(said.split())[:300]}"


def errors_since_start(path: Path) -> list[str]:
    """Return the errors that a log tells since the server was started last."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - _END_OF_LOG))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    begin = max((number for number, line in enumerate(lines) if _BEGIN in line), default=0)
    return [line.partition("[ERROR]")[2].strip() for line in lines[begin:] if "[ERROR]" in line]
