# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run modules of NEO's own test suite and write one line of JSON for each case.

This file runs in the Python that has the wheel of NEO, where nothing of slapos_wendelin is
installed. It needs the environment variables of NEO's tests: TEMP, NEO_TESTS_ADAPTER and
NEO_TESTS_SSL; for MariaDB also those of neo_mariadb.py.
"""

import argparse
import faulthandler
import importlib
import json
import os
import sys
import time
import traceback
import unittest
from collections.abc import Iterator
from typing import TextIO

#: Seconds after which a case is stuck: the stacks of all threads are printed and the process ends.
STUCK = 240


class Report(unittest.TestResult):
    """Writes the outcome of each case as soon as it is known."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream
        self.started_at = 0.0
        self.outcome = ("", "")

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        """Begin a case."""
        super().startTest(test)
        faulthandler.dump_traceback_later(STUCK, exit=True)
        self.started_at = time.monotonic()
        self.outcome = ("passed", "")

    def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        """End a case."""
        faulthandler.cancel_dump_traceback_later()
        self.write(test.id(), *self.outcome, time.monotonic() - self.started_at)
        super().stopTest(test)

    def write(self, case: str, outcome: str, detail: str, seconds: float) -> None:
        """Write one line of the report."""
        line = {"case": case, "outcome": outcome, "detail": detail, "seconds": round(seconds, 3)}
        self.stream.write(json.dumps(line) + "\n")
        self.stream.flush()

    def _failed(self, error: tuple) -> None:
        previous = self.outcome[1] and self.outcome[1] + "\n"
        self.outcome = ("failed", previous + "".join(traceback.format_exception(*error)))

    def addFailure(self, test: unittest.TestCase, err: tuple) -> None:  # noqa: ARG002, N802
        """Note a failed assertion."""
        self._failed(err)

    def addError(self, test: unittest.TestCase, err: tuple) -> None:  # noqa: N802
        """Note an error, also one outside of cases (setUpClass, import of a module)."""
        self._failed(err)
        if not isinstance(test, unittest.TestCase):
            self.write(test.id(), *self.outcome, 0)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: ARG002, N802
        """Note a case that skips itself."""
        self.outcome = ("skipped", reason)

    def addExpectedFailure(self, test: unittest.TestCase, err: tuple) -> None:  # noqa: ARG002, N802
        """Note a failure that NEO's authors expect."""
        self.outcome = ("expected-failure", "".join(traceback.format_exception(*err)))

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:  # noqa: ARG002, N802
        """Note a success where NEO's authors expect a failure."""
        self.outcome = ("unexpected-success", "")


def cases(tests: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """Flatten a suite."""
    for test in tests:
        if isinstance(test, unittest.TestSuite):
            yield from cases(test)
        else:
            yield test


def load(module: str) -> list[unittest.TestCase]:
    """Return the cases that a module defines, once each and in the order of unittest."""
    loaded = unittest.TestLoader().loadTestsFromModule(importlib.import_module(module))
    return list({case.id(): case for case in cases(loaded)}.values())


def main() -> None:
    """Run or list cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="print the cases and run nothing")
    parser.add_argument("--report", help="file that gets the lines of JSON")
    parser.add_argument("--case", action="append", help="run this case only; may be repeated")
    parser.add_argument("module", nargs="+")
    options = parser.parse_args()
    if options.list:
        for module in options.module:
            for case in load(module):
                print(case.id())
        return
    # Neither is for users: no fsync, and logs that are kept in memory until something fails.
    importlib.import_module("neo.storage.database.manager").DatabaseManager.UNSAFE = True
    importlib.import_module("neo.lib").logging.backlog(max_packet=1 << 20)
    engine = os.environ.get("NEO_TESTS_ENGINE")
    if engine:
        # It is an option of storages, which NEO's tests do not give.
        importlib.import_module(
            "neo.storage.database.mysqldb"
        ).MySQLDatabaseManager._engine = engine
    with open(options.report, "a") as stream:  # noqa: PTH123
        for module in options.module:
            selected = [c for c in load(module) if not options.case or c.id() in options.case]
            unittest.TestSuite(selected).run(Report(stream))
    # Threads of failed cases must not keep the process.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
