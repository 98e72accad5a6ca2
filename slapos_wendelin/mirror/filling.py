# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fill a mirror from wherever this machine can reach."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import requests

from slapos_wendelin.errors import WendelinError, reason
from slapos_wendelin.files import sha256_of
from slapos_wendelin.mirror.debian import DebianSources
from slapos_wendelin.mirror.errors import MirrorError
from slapos_wendelin.mirror.folder import MirrorFolder
from slapos_wendelin.mirror.needs import Archive, Needs
from slapos_wendelin.mirror.python_packages import fetch_lock, fetch_python_source

#: Seconds without any byte after which a download is given up.
TIMEOUT = 30
_BLOCK = 1024 * 1024

#: Tells what is done and how far it is.
Tell = Callable[[str], None]


@dataclass
class Outcome:
    """What filling a mirror came to."""

    #: Where each archive was found, by its URL.
    found: dict[str, str] = field(default_factory=dict)
    #: What is missing, each with the places that were tried.
    missing: list[str] = field(default_factory=list)


class Filler:
    """Fills a mirror; what it holds already is checked and not fetched again.

    :param look_in: folders that are looked into first: mirrors, download caches, any others.
    """

    def __init__(
        self, folder: MirrorFolder, *, look_in: Sequence[Path] = (), apt: Path = Path("/etc/apt")
    ) -> None:
        self.folder = folder
        self.look_in = look_in
        self.apt = apt

    def fill(self, needs: Needs, tell: Tell, *, python: bool = True) -> Outcome:
        """Fetch all that is needed; what cannot be found does not keep the rest from coming.

        :param python: whether the Python packages are wanted too.
        """
        with self.folder.filling():
            return self._fill(needs, tell, python=python)

    def _fill(self, needs: Needs, tell: Tell, *, python: bool) -> Outcome:
        """Fetch all that is needed, while nobody else does."""
        outcome = Outcome()
        with contextlib.closing(DebianSources(self.apt)) as debian:
            for archive in needs.archives:
                with self._noting(outcome):
                    outcome.found[archive.url] = self._fetch(archive, debian, tell)
        for source in needs.python_sources:
            with self._noting(outcome):
                tell(source.requirement)
                is_new = fetch_python_source(source, self.folder)
                place = "the Python index" if is_new else "this mirror"
                outcome.found[source.requirement] = place
        for lock in needs.locks if python else []:
            with self._noting(outcome):
                fetch_lock(
                    lock,
                    self.folder,
                    lambda done, total, lock=lock: tell(f"{lock}: {min(done, total)} of {total}"),
                )
                outcome.found[str(lock)] = "the Python index"
        self.folder.write_catalog(needs.archives)
        return outcome

    @contextlib.contextmanager
    def _noting(self, outcome: Outcome) -> Iterator[None]:
        """Note what is missing instead of ending."""
        try:
            yield
        except WendelinError as error:
            outcome.missing.append(error.message)

    def _fetch(self, archive: Archive, debian: DebianSources, tell: Tell) -> str:
        """Add one archive; return where it was found.

        :raises MirrorError: names all places that were looked in.
        """
        tell(archive.filename)
        if self.folder.holds(archive):
            return "this mirror"
        tried = []
        with tempfile.TemporaryDirectory(dir=self.folder.root, prefix=".fetching-") as work:
            for place, get in (
                ("folders given", self._from_folders),
                (archive.url, lambda archive, work: _download(archive, work, tell)),
                (
                    f"Debian's source package {archive.debian_source}",
                    lambda archive, work: debian.fetch(archive.debian_source, archive.sha256, work),
                ),
            ):
                try:
                    found = get(archive, Path(work))
                except MirrorError as error:
                    tried.append(f"{place}: {error.message}")
                    continue
                self.folder.add(archive, found)
                return place
        raise MirrorError(
            f"{archive.filename} with sha256 {archive.sha256}, which {archive.wanted_by} names, "
            "was found nowhere:" + "".join(f"\n    {line}" for line in tried)
        )

    def _from_folders(self, archive: Archive, _work: Path) -> Path:
        """Return a file with the archive's checksum in one of the given folders."""
        key = hashlib.md5(archive.url.encode(), usedforsecurity=False).hexdigest()
        names = (
            *(archive.filename, key, f"sources/{archive.sha256[:16]}/{archive.filename}"),
            f"{archive.debian_source}_*.orig.tar.*",
        )
        for folder in self.look_in:
            for name in names:
                for path in folder.glob(name):
                    if path.is_file() and sha256_of(path) == archive.sha256:
                        return path
        if not self.look_in:
            raise MirrorError("none")
        raise MirrorError(f"{', '.join(map(str, self.look_in))}: no file has this checksum")


def _download(archive: Archive, work: Path, tell: Tell) -> Path:
    """Download an archive from its own URL, checking it on the way."""
    path = work / "download"
    digest = hashlib.sha256()
    try:
        with requests.get(archive.url, stream=True, timeout=TIMEOUT) as answer:
            if not answer.ok:
                raise MirrorError(f"answers {answer.status_code} {answer.reason}")
            size = int(answer.headers.get("Content-Length") or 0)
            done = 0
            with path.open("wb") as stream:
                for block in answer.iter_content(_BLOCK):
                    stream.write(block)
                    digest.update(block)
                    done += len(block)
                    if size:
                        tell(f"{archive.filename}: {100 * done // size} %")
    except requests.RequestException as error:
        raise MirrorError(reason(error)) from error
    if digest.hexdigest() != archive.sha256:
        raise MirrorError(f"has sha256 {digest.hexdigest()}")
    return path
