# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The authority of one cluster, which is an instance tree: others' certificates mean nothing there.

It has generations, each a key and a certificate of its own in a numbered folder. A new one is made
before the last one ends. Nodes trust all that have not ended, and a new one signs only after they
have had the time to learn of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from slapos_wendelin.certificates import is_near_end
from slapos_wendelin.master.authority import Authority, Revoked
from slapos_wendelin.master.errors import AuthorityError

#: The folder of all clusters' authorities, in that of the master's.
FOLDER = "clusters"

#: How long nodes have to learn of a new generation. Each asks at least once a day, when its
#: computer processes its partition.
LEARNING_TIME = timedelta(days=7)


class ClusterAuthority:
    """Signs certificates of the nodes and users of one cluster."""

    def __init__(self, master: Authority, guid: str) -> None:
        """Open the authority, or make it.

        :param master: the authority of the master, whose folder holds this one.
        :param guid: of the root of the cluster's instance tree.
        :raises AuthorityError: when the folder or what is in it cannot be used.
        """
        #: What no other cluster is called, of whatever master.
        self.name = f"{guid}-{master.fingerprint[:8]}"
        self._folder = master.folder / FOLDER / guid
        self._lifetimes = replace(master.lifetimes, authority=master.lifetimes.cluster)
        #: What nodes trust, the oldest first.
        self.generations = self._open()

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

    def _open(self) -> list[Authority]:
        """Return the generations that have not ended; make one when it is time."""
        try:
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
            found.append(self._generation(numbers[-1] + 1 if numbers else 1))
        now = datetime.now(UTC)
        return [each for each in found if each.own.not_valid_after_utc > now]

    def _generation(self, number: int) -> Authority:
        """Return one generation, made when it is new."""
        return Authority(self._folder / str(number), self._lifetimes, "cluster authority")
