# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder of a mirror: what is where, checked by its SHA-256.

::

    mirror.json                      what is in it
    sources/DIGEST/NAME.tar.gz       archives that profiles name by URL
    python/files/                    wheels and source archives of Python packages
    python/simple/PROJECT/index.html the same, as a Python index

It holds relative paths only: copied anywhere, or served by any HTTP server, it is the same mirror.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

from slapos_wendelin.build_settings import PYTHON_INDEX
from slapos_wendelin.files import held, sha256_of, write_atomically
from slapos_wendelin.mirror.errors import MirrorError
from slapos_wendelin.mirror.needs import Archive
from slapos_wendelin.recipe.mirrored import archive_place

CATALOG = "mirror.json"
_FORMAT = 1


class MirrorFolder:
    """A mirror on this machine's disk.

    :raises MirrorError: the folder cannot be made or holds something else.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.files = self.root / "python" / "files"
        catalog = self.root / CATALOG
        if self.root.exists() and not catalog.exists():
            strange = [
                path
                for path in self.root.iterdir()
                if path.name not in {"sources", "python"} and not path.name.startswith(".")
            ]
            if strange:
                raise MirrorError(
                    f"{self.root} holds {strange[0].name} and no {CATALOG}, so it is no mirror",
                    "name a folder that is empty or does not exist",
                )
        try:
            self.files.mkdir(parents=True, exist_ok=True)
            self.catalog = (
                read_catalog(catalog.read_text(), str(catalog)) if catalog.exists() else {}
            )
        except OSError as error:
            raise MirrorError(
                f"the mirror {self.root} cannot be written: {error.strerror}",
                "choose another folder",
            ) from error

    @contextlib.contextmanager
    def filling(self) -> Iterator[None]:
        """Hold the mirror: one command fills it at a time. What a killed one left is removed.

        :raises MirrorError: another command fills it.
        """
        refusal = MirrorError(f"another command fills the mirror {self.root}", "wait until it ends")
        with held(self.root / ".lock", refusal):
            for left in self.root.glob(".fetching-*"):
                shutil.rmtree(left)
            for left in [*self.files.glob(".*.new"), *self.root.glob("sources/*/.*.new")]:
                left.unlink()
            yield

    def place(self, archive: Archive) -> Path:
        """Return where an archive is or will be."""
        return self.root / archive_place(archive.url, archive.sha256)

    def holds(self, archive: Archive) -> bool:
        """Whether an archive is there, undamaged."""
        place = self.place(archive)
        return place.is_file() and sha256_of(place) == archive.sha256

    def add(self, archive: Archive, found: Path) -> None:
        """Copy an archive, checked before, so that it is there whole or not at all."""
        place = self.place(archive)
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f".{place.name}.new")
        shutil.copyfile(found, temporary)
        _publish(temporary, place)

    def add_python(self, filename: str, content: bytes) -> None:
        """Write a file of the Python index."""
        temporary = self.files / f".{filename}.new"
        temporary.write_bytes(content)
        _publish(temporary, self.files / filename)

    def write_catalog(self, archives: Iterable[Archive]) -> None:
        """Write the pages of the Python index, then the catalog."""
        entries = {}
        for archive in archives:
            place = self.place(archive)
            if place.is_file():
                entries[archive.url] = {
                    "sha256": archive.sha256,
                    "file": str(place.relative_to(self.root)),
                    "size": place.stat().st_size,
                }
        self._write_index()
        self.catalog = {"format": _FORMAT, "sources": self.catalog.get("sources", {}) | entries}
        text = json.dumps(self.catalog, indent=2, sort_keys=True)
        write_atomically(self.root / CATALOG, text + "\n")

    def _write_index(self) -> None:
        """Write a page for each Python project, and one for all."""
        projects: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(self.files.iterdir()):
            project = project_of(path.name)
            if project:
                projects[project].append(path)
        simple = self.root / PYTHON_INDEX
        for project, paths in projects.items():
            links = [
                (f"../../files/{quote(path.name)}#sha256={sha256_of(path)}", path.name)
                for path in paths
            ]
            _write_page(simple / project, links)
        _write_page(simple, [(f"{project}/", project) for project in projects])


def read_catalog(text: str, place: str) -> dict[str, dict[str, dict[str, str]]]:
    """Read a mirror's catalog; raises MirrorError."""
    try:
        catalog = json.loads(text)
        if catalog["format"] == _FORMAT and isinstance(catalog["sources"], dict):
            return catalog
    except (ValueError, TypeError, KeyError):
        pass
    raise MirrorError(f"{place} is no catalog of a mirror", "fill the mirror again")


def project_of(filename: str) -> str:
    """Return the Python project that a wheel or source archive belongs to, or nothing."""
    try:
        return canonicalize_name(parse_wheel_filename(filename)[0])
    except InvalidWheelFilename:
        pass
    try:
        return canonicalize_name(parse_sdist_filename(filename)[0])
    except InvalidSdistFilename:
        return ""


def _write_page(folder: Path, links: list[tuple[str, str]]) -> None:
    """Write a page of the Python index."""
    folder.mkdir(parents=True, exist_ok=True)
    anchors = "".join(
        f'<a href="{html.escape(to)}">{html.escape(name)}</a>\n' for to, name in links
    )
    text = f"<!DOCTYPE html>\n<html><body>\n{anchors}</body></html>\n"
    write_atomically(folder / "index.html", text, durable=False)


def _publish(temporary: Path, place: Path) -> None:
    """Put a file that was written under another name in its place, for good."""
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(place)
