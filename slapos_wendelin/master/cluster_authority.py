# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The authority of one cluster, which is an instance tree: others' certificates mean nothing there.

It has generations, each a key and a certificate of its own in a numbered folder. A new one is made
before the last one ends. Nodes trust all that have not ended, and a new one signs only after they
have had the time to learn of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from slapos_wendelin.certificates import is_near_end
from slapos_wendelin.files import sync_folder
from slapos_wendelin.master.authority import Authority
from slapos_wendelin.master.errors import AuthorityError
from slapos_wendelin.master.signing import Revoked

#: The folder of all clusters' authorities, in that of the master's.
FOLDER = "clusters"

#: Where an authority is while it is removed, beside that folder: backups do not look there.
GONE = "gone"

#: How long nodes have to learn of a new generation. Each asks at least once a day, when its
#: computer processes its partition.
LEARNING_TIME = timedelta(days=7)


class ClusterAuthority:
    """Signs certificates of the nodes and users of one cluster."""

    def __init__(self, master: Authority, guid: str, *, make: bool = True) -> None:
        """Open the authority, or make it.

        :param master: the authority of the master, whose folder holds this one.
        :param guid: of the root of the cluster's instance tree.
        :param make: False to have no generations when one would have to be made.
        :raises AuthorityError: when the folder or what is in it cannot be used.
        """
        #: What no other cluster is called, of whatever master.
        self.name = f"{guid}-{master.fingerprint[:8]}"
        self._folder = _folder_of(master, guid)
        self._lifetimes = replace(master.lifetimes, authority=master.lifetimes.cluster)
        #: What nodes trust, the oldest first.
        self.generations = self._open(make=make)

    @classmethod
    def find(cls, master: Authority, guid: str) -> ClusterAuthority | None:
        """Return the authority; None when it is not there, or another generation is to be made.

        :raises AuthorityError: when the folder or what is in it cannot be used.
        """
        try:
            found = cls(master, guid, make=False)
        except AuthorityError:
            if _folder_of(master, guid).exists():
                raise
            # It was removed meanwhile.
            return None
        return found if found.generations else None

    @property
    def signer(self) -> Authority:
        """The newest generation that all nodes know of; the oldest one when that is not sure."""
        limit = datetime.now(UTC) - LEARNING_TIME
        known = [each for each in self.generations if each.own.not_valid_before_utc < limit]
        return known[-1] if known else self.generations[0]

    def trust(self, revoked: Sequence[Revoked]) -> str:
        """Return the certificate and the list of revoked certificates of each generation."""
        return "".join(
            each.certificate + each.lasting_revocation_list(revoked) for each in self.generations
        )

    def _open(self, *, make: bool) -> list[Authority]:
        """Return the generations that have not ended; make one when it is time.

        :param make: False to return none then.
        """
        if not make and not self._folder.exists():
            return []
        try:
            if make:
                self._folder.parent.mkdir(mode=0o700, exist_ok=True)
                self._folder.mkdir(mode=0o700, exist_ok=True)
            numbers = sorted(int(e.name) for e in self._folder.iterdir() if e.name.isdecimal())
        except OSError as error:
            raise AuthorityError(
                f"the authority's folder {self._folder} cannot be used: {error.strerror}",
                "let the master's user write to it",
            ) from error
        found = [self._generation(number) for number in numbers]
        if not found or is_near_end(found[-1].own):
            if not make:
                return []
            found.append(self._generation(numbers[-1] + 1 if numbers else 1))
        now = datetime.now(UTC)
        return [each for each in found if each.own.not_valid_after_utc > now]

    def _generation(self, number: int) -> Authority:
        """Return one generation, made when it is new."""
        return Authority(self._folder / str(number), self._lifetimes, "cluster authority")


def known_clusters(master: Authority) -> list[str]:
    """Return the guids of the roots of all clusters that have an authority."""
    return _names(master.folder / FOLDER)


def remove_authority(master: Authority, guid: str) -> None:
    """Remove the authority of a cluster with its keys: nobody can sign for it any more.

    It goes out of its place at once and whole, so that whoever opens it has it or has nothing.
    When this is interrupted after that, `remove_remains` does the rest.
    """
    folder = _folder_of(master, guid)
    if not folder.exists():
        return
    with master.locked():
        gone = master.folder / GONE
        gone.mkdir(mode=0o700, exist_ok=True)
        if folder.exists():
            shutil.rmtree(gone / guid, ignore_errors=True)
            folder.rename(gone / guid)
            sync_folder(folder.parent)
    remove_remains(master)


def remove_remains(master: Authority) -> None:
    """Remove what is left of authorities whose removal had begun."""
    gone = master.folder / GONE
    if not gone.exists():
        return
    with master.locked():
        for name in _names(gone):
            shutil.rmtree(gone / name)
        sync_folder(gone)


def _folder_of(master: Authority, guid: str) -> Path:
    """Return the folder of the authority of a cluster."""
    return master.folder / FOLDER / guid


def _names(folder: Path) -> list[str]:
    """Return the names in a folder, none when it is not there."""
    try:
        return sorted(each.name for each in folder.iterdir())
    except FileNotFoundError:
        return []
