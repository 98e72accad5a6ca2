# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Promise: a storage takes connections, which it does once its MariaDB answers."""

from __future__ import annotations

from pathlib import Path

from slapos_wendelin.mariadb.disk import shortage
from slapos_wendelin.mariadb.place import Place
from slapos_wendelin.promise import mariadb
from slapos_wendelin.promise.base import BrokenPromiseError
from slapos_wendelin.promise.port import check_addresses, explained


class RunPromise(mariadb.RunPromise):
    """Green while ``addresses`` take connections; says what is wrong with MariaDB when it is that.

    The other options are those of slapos_wendelin.promise.mariadb.
    """

    def check(self) -> str:
        """Ask MariaDB, then connect to the storage, which does not start where the disk is full."""
        super().check()
        addresses = self.getConfig("addresses").split()
        try:
            return check_addresses(addresses, self.getConfig("certificates"))
        except BrokenPromiseError as error:
            full = shortage(Place(Path(self.getConfig("partition"))))
            raise explained(error, full) from None
