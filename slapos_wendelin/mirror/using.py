# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build from a mirror: its archives go where buildout looks before it looks anywhere else."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from urllib.parse import quote

import requests

from slapos_wendelin.errors import reason
from slapos_wendelin.files import sha256_of
from slapos_wendelin.mirror.errors import MirrorError
from slapos_wendelin.mirror.filling import TIMEOUT, Tell
from slapos_wendelin.mirror.folder import CATALOG, PYTHON_INDEX, read_catalog

_BLOCK = 1024 * 1024


class Mirror:
    """A mirror to build from: a folder, or the URL that it is served at."""

    def __init__(self, place: str) -> None:
        self.is_folder = "://" not in place
        self.place = str(Path(place).absolute()) if self.is_folder else place.rstrip("/")
        if not self.is_folder and not place.startswith(("http://", "https://")):
            raise MirrorError(
                f"the mirror {place} is neither a folder nor a URL of http or https",
                "name the folder that ./wendelin mirror has filled, or where it is served",
            )

    @property
    def python_index(self) -> str:
        """URL of the mirror's Python index."""
        if self.is_folder:
            return f"file://{quote(self.place)}/{PYTHON_INDEX}"
        return f"{self.place}/{PYTHON_INDEX}"

    def seed(self, download_cache: Path, tell: Tell) -> int:
        """Put every archive of the mirror where buildout looks for its URL; return how many.

        The archives are checked against the mirror's catalog here, and against the profile when
        they are built from.

        :raises MirrorError: the mirror cannot be read, or an archive of it is damaged.
        """
        catalog = read_catalog(self._text(CATALOG), f"{self.place}/{CATALOG}")
        download_cache.mkdir(parents=True, exist_ok=True)
        for url, entry in catalog["sources"].items():
            key = hashlib.md5(url.encode(), usedforsecurity=False).hexdigest()
            target = download_cache / key
            if target.is_file() and sha256_of(target) == entry["sha256"]:
                continue
            tell(entry["file"])
            temporary = download_cache / f".{key}.new"
            self._copy(entry["file"], temporary)
            if sha256_of(temporary) != entry["sha256"]:
                temporary.unlink()
                raise MirrorError(
                    f"{self.place}/{entry['file']} is damaged: it has not the sha256 "
                    f"{entry['sha256']}",
                    "run ./wendelin mirror again on it, or copy it again",
                )
            temporary.replace(target)
        return len(catalog["sources"])

    def _text(self, name: str) -> str:
        """Return a small file of the mirror."""
        if self.is_folder:
            try:
                return Path(self.place, name).read_text()
            except OSError as error:
                raise MirrorError(
                    f"{self.place} is no mirror: {name} cannot be read ({error.strerror})",
                    "fill it first: ./wendelin mirror FOLDER",
                ) from error
        with self._get(name) as answer:
            return answer.text

    def _copy(self, name: str, target: Path) -> None:
        """Copy a large file of the mirror."""
        if self.is_folder:
            source = Path(self.place, name)
            if not source.resolve().is_relative_to(Path(self.place).resolve()):
                raise MirrorError(f"the catalog of {self.place} names {name}, outside the mirror")
            try:
                shutil.copyfile(source, target)
            except OSError as error:
                raise MirrorError(
                    f"{source} cannot be copied to {target}: {error.strerror}",
                    "run ./wendelin mirror again on the mirror, or make room",
                ) from error
            return
        with self._get(name) as answer, target.open("wb") as stream:
            try:
                for block in answer.iter_content(_BLOCK):
                    stream.write(block)
            except requests.RequestException as error:
                raise MirrorError(f"{self.place}/{name}: {reason(error)}", "try again") from error

    def _get(self, name: str) -> requests.Response:
        """Ask the mirror's server for a file."""
        url = f"{self.place}/{quote(name)}"
        try:
            answer = requests.get(url, stream=True, timeout=TIMEOUT)
        except requests.RequestException as error:
            raise MirrorError(
                f"the mirror cannot be reached at {url}: {reason(error)}", "correct its URL"
            ) from error
        if not answer.ok:
            answer.close()
            raise MirrorError(
                f"the mirror answers {answer.status_code} for {url}", "correct its URL"
            )
        return answer
