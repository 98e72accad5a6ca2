# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The data folder of a storage node's MariaDB: made whole or not at all, and never overwritten."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from slapos_wendelin.files import sync_file_systems, sync_folder, write_atomically
from slapos_wendelin.mariadb.configuration import ENGINES
from slapos_wendelin.mariadb.errors import DataFolderError
from slapos_wendelin.mariadb.place import Place, server_user
from slapos_wendelin.mariadb.programs import Version, parse_version, run, version_text

log = logging.getLogger(__name__)

#: Begins the names of data folders that are not ready.
_UNFINISHED = "new-"

#: What InnoDB would make anew, empty, where it is missing.
_INNODB_FILES = ("ibdata1", "ib_logfile0")

_REMEDY = (
    "nothing was overwritten; the other copies of the cluster have its data:"
    " bring back the folder, or move the storage to another partition"
)


@dataclass(frozen=True)
class Note:
    """What is known of the data."""

    engine: str
    #: The newest server that has written it.
    version: str


def prepare(place: Place, software: Path, engine: str, version: Version) -> Note:
    """Make the data folder unless it is there; return what is known of it.

    :param software: folder of the compiled MariaDB.
    :param version: that of its server.
    :raises DataFolderError: what is there is of another engine, of a newer server, or not whole.
    """
    _clean_up(place)
    if not place.data.exists():
        _make(place, software, engine, version)
    note = _read(place)
    _check(place, note, engine, version)
    return note


def remember_version(place: Place, note: Note, version: Version) -> None:
    """Write down that a newer server has written the data."""
    _write(place.note, Note(note.engine, version_text(version)))


def _clean_up(place: Place) -> None:
    """Remove what interrupted initialisations have left."""
    place.temporary.mkdir(parents=True, exist_ok=True)
    for path in place.folder.glob(f"{_UNFINISHED}*"):
        log.info("removing what an interrupted initialisation has left: %s", path)
        # Its programs may still write: what they add goes next time.
        shutil.rmtree(path, ignore_errors=True)


def _make(place: Place, software: Path, engine: str, version: Version) -> None:
    """Make the data folder under another name, which it loses when all of it is on the disk.

    The name is new each time: the programs of an interrupted initialisation may still write.
    """
    log.info("making the data folder %s", place.data)
    folder = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=place.folder))
    command = [
        software / "scripts" / "mariadb-install-db",
        "--no-defaults",
        f"--basedir={software}",
        f"--datadir={folder}",
        f"--tmpdir={place.temporary}",
        "--auth-root-authentication-method=socket",
        f"--auth-root-socket-user={server_user()}",
        "--skip-test-db",
        "--skip-name-resolve",
    ]
    run(command, "making the data folder of MariaDB")
    _write(folder / place.note.name, Note(engine, version_text(version)))
    sync_file_systems([folder])
    folder.rename(place.data)
    sync_folder(place.folder)


def _read(place: Place) -> Note:
    """Return what is known of the data."""
    try:
        document = json.loads(place.note.read_text())
        return Note(str(document["engine"]), str(document["version"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataFolderError(
            f"{place.note} cannot be read ({error}), so {place.data} may not be the data of this"
            " storage",
            _REMEDY,
        ) from error


def _check(place: Place, note: Note, engine: str, version: Version) -> None:
    """Refuse data that this server, or another engine, would damage."""
    if note.engine != engine:
        raise DataFolderError(
            f"this storage has its data in {ENGINES.get(note.engine, note.engine)},"
            f" and {ENGINES[engine]} is asked for",
            f"request storage-engine {note.engine}, or another cluster",
        )
    if parse_version(note.version) > version:
        raise DataFolderError(
            f"the data of this storage was written by MariaDB {note.version},"
            f" and this release has the older {version_text(version)}",
            f"request a release with MariaDB {note.version} or newer",
        )
    lacking = [name for name in _INNODB_FILES if not (place.data / name).is_file()]
    if lacking:
        raise DataFolderError(
            f"{place.data} lacks {' and '.join(lacking)}: the data of this storage is damaged",
            _REMEDY,
        )


def _write(path: Path, note: Note) -> None:
    """Write down what is known of the data."""
    write_atomically(path, json.dumps(asdict(note), indent=2, sort_keys=True))
