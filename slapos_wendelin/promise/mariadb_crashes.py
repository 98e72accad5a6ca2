# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Promise: the MariaDB of a storage does not crash again and again."""

from __future__ import annotations

import time
from pathlib import Path

from slapos_wendelin.mariadb.crashes import crash_times
from slapos_wendelin.mariadb.place import Place
from slapos_wendelin.promise.base import BrokenPromiseError, Promise

#: So many crashes in so many seconds are too many.
MOST, HOUR = 5, 3600.0

DAY = 86400.0


class RunPromise(Promise):
    """Green while the server in ``partition`` has crashed less than five times within an hour."""

    def check(self) -> str:
        """Count the times at which it had not been shut down when it was started."""
        place = Place(Path(self.getConfig("partition")))
        now = time.time()
        ages = [now - each for each in crash_times(place.crashes)]
        lately = sum(age < HOUR for age in ages)
        if lately >= MOST:
            raise BrokenPromiseError(
                f"MariaDB has crashed {lately} times within an hour; it says why in"
                f" {place.error_log}"
            )
        return f"MariaDB has crashed {sum(age < DAY for age in ages)} times within a day"
