# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup: one file with every row of the database, of whatever kind that is.

The file is compressed with gzip and holds one JSON value on each line: a header, then for each
table its name and columns and a line for each row, then the files of the certificate authority if
they were asked for, and at last the SHA-256 of all lines before.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

from sqlalchemy import Connection, Table, func, select

from slapos_wendelin.files import sync_folder
from slapos_wendelin.master import cluster_authority
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.due import LAST_NUMBER
from slapos_wendelin.master.errors import BackupError
from slapos_wendelin.master.models import Base, Property
from slapos_wendelin.master.schema import NEWEST_VERSION

_FORMAT = "slapos_wendelin master backup"
_FORMAT_VERSION = 1

#: How many rows are in memory at a time.
_ROWS = 1000

#: The longest line that is read, in bytes: a row holds parameters and logs of some MiB at most.
_LONGEST_LINE = 64 * 2**20

_COMPRESSION = 6

#: The files of the authorities of clusters, in the folder of the master's authority.
_CLUSTERS = f"{cluster_authority.FOLDER}/*/*/ca.*"

#: The largest file of an authority, in bytes.
_LARGEST_FILE = 2**20


@dataclass(frozen=True, slots=True)
class Summary:
    """What a backup holds."""

    created_at: str
    schema: str
    #: The last number of the database at that time.
    number: int
    #: How many rows each table has.
    rows: Mapping[str, int]
    #: The names of the authority's files.
    authority: tuple[str, ...]
    sha256: str

    def document(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "created_at": self.created_at,
            "schema": self.schema,
            "number": self.number,
            "rows": dict(self.rows),
            "authority": list(self.authority),
            "sha256": self.sha256,
        }


def tables() -> list[Table]:
    """Return the tables that are kept, each after those that it refers to."""
    return list(Base.metadata.sorted_tables)


def write_backup(database: Database, path: Path, authority: Path | None = None) -> Summary:
    """Write a backup of one state of the database; masters may go on using it.

    A crash leaves the file that was there, or the new one. Only its owner may read it: it holds
    what instances are told.

    :param authority: the folder of the certificate authority whose files are to be in it.
    :raises BackupError: when the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.new")
    files = {} if authority is None else _authority_files(authority)
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                with (
                    gzip.GzipFile("", "wb", _COMPRESSION, stream, mtime=0) as compressed,
                    database.reading() as session,
                ):
                    summary = _write(session.connection(), _Lines(compressed), files)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise BackupError(
            f"the backup {path} cannot be written: {error.strerror}",
            "free space there, or name a file in another folder",
        ) from error
    return summary


class _Lines:
    """Writes lines and knows their checksum."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()

    def write(self, value: object) -> None:
        """Write one value on a line."""
        line = json.dumps(value, separators=(",", ":")).encode()
        self._digest.update(line + b"\n")
        self._stream.write(line + b"\n")

    def close(self) -> str:
        """Write the checksum and return it."""
        checksum = self._digest.hexdigest()
        self._stream.write(json.dumps({"sha256": checksum}).encode() + b"\n")
        return checksum


def _write(connection: Connection, lines: _Lines, files: Mapping[str, bytes]) -> Summary:
    """Write all lines from one state of the database."""
    rows = {
        table.name: connection.scalar(select(func.count()).select_from(table)) or 0
        for table in tables()
    }
    number = connection.scalar(select(Property.value).where(Property.name == LAST_NUMBER)) or 0
    created_at = datetime.now(UTC).isoformat(timespec="seconds")
    header = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "schema": NEWEST_VERSION,
        "created_at": created_at,
        "database": connection.dialect.name,
        "number": number,
        "rows": rows,
        "authority": sorted(files),
    }
    lines.write(header)
    streaming = connection.execution_options(yield_per=_ROWS)
    for table in tables():
        lines.write({"table": table.name, "columns": [column.name for column in table.columns]})
        for row in streaming.execute(select(table).order_by(*table.primary_key)):
            lines.write(list(row))
    for name, content in sorted(files.items()):
        lines.write({"file": name, "content": base64.b64encode(content).decode()})
    return Summary(
        created_at, header["schema"], number, rows, tuple(header["authority"]), lines.close()
    )


def _authority_files(folder: Path) -> dict[str, bytes]:
    """Return the files of a certificate authority.

    :raises BackupError: when it is none, or cannot be read.
    """
    try:
        found = sorted((*folder.iterdir(), *folder.glob(_CLUSTERS)))
        files = {str(each.relative_to(folder)): _content(each) for each in found if each.is_file()}
    except OSError as error:
        raise BackupError(
            f"the authority's folder {folder} cannot be read: {error.strerror}",
            "run this as its owner, or leave --authority out",
        ) from error
    if "ca.key" not in files:
        raise BackupError(
            f"{folder} is no certificate authority: it has no ca.key",
            "name the folder that the master is started with",
        )
    return {name: content for name, content in files.items() if content}


def _content(path: Path) -> bytes:
    """Return the content of a file; nothing when it is too large, or was removed meanwhile."""
    try:
        return path.read_bytes() if path.stat().st_size <= _LARGEST_FILE else b""
    except FileNotFoundError:
        # The cluster that it belongs to has ended, or a master has replaced its own certificate.
        return b""


class BackupFile:
    """A backup that was found to be whole."""

    def __init__(self, path: Path) -> None:
        """Read the file once and check it.

        :raises BackupError: when it is no backup, is damaged, or is of another version.
        """
        self._path = path
        digest = hashlib.sha256()
        last = b""
        self.rows: dict[str, int] = {}
        table = ""
        with self._lines() as lines:
            header = self._header(next(lines, b""))
            digest.update(header.line)
            for line in lines:
                if last:
                    raise self._damaged("it goes on after its checksum")
                if line.startswith(b'{"sha256"'):
                    last = line
                    continue
                digest.update(line)
                if line.startswith(b'{"table"'):
                    table = str(self._value(line)["table"])
                    self.rows[table] = 0
                elif line.startswith(b"["):
                    self.rows[table] = self.rows.get(table, 0) + 1
        if not last:
            raise self._damaged("its end is missing")
        checksum = digest.hexdigest()
        if self._value(last).get("sha256") != checksum:
            raise self._damaged("its checksum is another one")
        if self.rows != header.value["rows"]:
            raise self._damaged("it has other rows than it says")
        self.summary = Summary(
            header.value["created_at"],
            header.value["schema"],
            header.value["number"],
            self.rows,
            tuple(header.value["authority"]),
            checksum,
        )

    def tables(self) -> Iterator[tuple[Table, Iterator[dict[str, Any]]]]:
        """Yield each table with its rows, which are to be read before the next table.

        :raises BackupError: when the file has changed, or names what this version does not have.
        """
        known = {table.name: table for table in tables()}
        with self._lines() as lines:
            next(lines)
            line = next(lines, b"")
            while line.startswith(b'{"table"'):
                head = self._value(line)
                table = known.get(head["table"])
                if table is None or set(head["columns"]) != set(table.columns.keys()):
                    raise self._damaged(f"this version has no such table {head['table']!r}")
                rest = [b""]
                yield table, self._rows(lines, head["columns"], rest)
                line = rest[0]

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield the authority's files: path in its folder, and content."""
        with self._lines() as lines:
            for line in lines:
                if line.startswith(b'{"file"'):
                    value = self._value(line)
                    yield str(value["file"]), base64.b64decode(value["content"], validate=True)

    def _rows(
        self, lines: Iterator[bytes], columns: list[str], rest: list[bytes]
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows of a table, and leave the line after them in `rest`."""
        for line in lines:
            if not line.startswith(b"["):
                rest[0] = line
                return
            yield dict(zip(columns, cast("list[Any]", self._value(line)), strict=True))

    def _header(self, line: bytes) -> _Header:
        """Return the first line.

        :raises BackupError: when the file is damaged, is no backup, or is of another version.
        """
        try:
            return _header(self._path, line)
        except BackupError:
            # gzip knows only at the end of a file that its beginning is damaged.
            with self._lines(), gzip.open(self._path, "rb") as stream:
                while stream.read(_LARGEST_FILE):
                    pass
            raise

    @contextmanager
    def _lines(self) -> Iterator[Iterator[bytes]]:
        """Open the file and give its lines."""
        try:
            with gzip.open(self._path, "rb") as stream:
                yield self._checked_lines(cast("IO[bytes]", stream))
        except (EOFError, gzip.BadGzipFile, zlib.error, ValueError, KeyError) as error:
            raise self._damaged(str(error)) from error
        except OSError as error:
            raise BackupError(
                f"the backup {self._path} cannot be read: {error.strerror or error}",
                "name a file that `slapos master backup` wrote",
            ) from error

    def _checked_lines(self, stream: IO[bytes]) -> Iterator[bytes]:
        """Yield lines of a bounded length."""
        while line := stream.readline(_LONGEST_LINE):
            if not line.endswith(b"\n"):
                raise self._damaged("a line has no end")
            yield line

    def _value(self, line: bytes) -> Any:
        """Return the value on a line."""
        return json.loads(line)

    def _damaged(self, reason: str) -> BackupError:
        """Return the error that says what is wrong with the file."""
        return BackupError(
            f"the backup {self._path} is damaged: {reason}",
            "use another backup; nothing was changed",
        )


@dataclass(frozen=True, slots=True)
class _Header:
    """The first line."""

    line: bytes
    value: Mapping[str, Any]


def _header(path: Path, line: bytes) -> _Header:
    """Return the first line of a backup.

    :raises BackupError: when the file is none, or of another version.
    """
    try:
        value = json.loads(line)
        name, version, schema = (value[key] for key in ("format", "format_version", "schema"))
    except (ValueError, KeyError, TypeError):
        name = version = schema = None
        value = {}
    if name != _FORMAT:
        raise BackupError(
            f"{path} is no backup of a master", "name a file that `slapos master backup` wrote"
        )
    if version != _FORMAT_VERSION or schema != NEWEST_VERSION:
        raise BackupError(
            f"the backup {path} has schema version {schema}, this program has {NEWEST_VERSION}",
            "restore it with the version of slapos_wendelin that wrote it; a later one then brings"
            " the database up to date when its master starts",
        )
    return _Header(line, value)
