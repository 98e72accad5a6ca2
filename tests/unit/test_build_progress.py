# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a build is, is read from what buildout says."""

from __future__ import annotations

import pytest

from slapos_wendelin.build_progress import Progress, described, fault_of


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("Installing mariadb.", "mariadb"),
        ("Updating neoppod.", "neoppod"),
        ("mariadb: compiling with 2 jobs; all output: /parts/mariadb/x.log", "mariadb 0 %"),
        ("mariadb: compiling: 35 % after 120 s", "mariadb 35 %"),
        ("mariadb: compiling: 100 % after 720 s", "mariadb 100 %"),
        ("mariadb: compiling: 101 % after 720 s", "before"),
        ("mariadb: fetching https://archive.mariadb.org/mariadb.tar.gz", "before"),
        ("Installing collected packages: numpy", "before"),
        ("", "before"),
    ],
)
def test_a_line_says_which_part_is_made_and_how_much_of_it_is_done(line: str, where: str) -> None:
    assert str(Progress("before").after(line)) == where


def test_the_next_part_begins_anew() -> None:
    assert Progress("mariadb", 100).after("Installing mysqlclient.").percent is None


def test_people_read_it_beside_the_state() -> None:
    told = {"stage": "mariadb", "percent": 35}
    assert described("building", told) == "building: mariadb 35 %"
    assert described("building", {"stage": "neo", "percent": None}) == "building: neo"
    assert described("building", {"stage": "", "percent": None}) == "building"
    assert described("available", None) == "available"


FAULT = "handler.cc:7:9: error: 'x' was not declared"
COMPILING = f"""\
Failed to run buildout profile in directory '/soft/a':
Installing mariadb.
While:
  Installing mariadb.
Error: [mariadb] compiling failed:
  FAILED: sql/handler.cc.o
  handler.cc: In function 'int f()':
  {FAULT}
 (all output is in /parts/mariadb/x.log)
"""


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (
            COMPILING,
            f"[mariadb] compiling failed: {FAULT} (all output is in /parts/mariadb/x.log)",
        ),
        ("While:\n  Installing neo.\nError: cannot fetch it (mend that)\n", None),
        ("Traceback (most recent call last):\n  in f\nKeyError: 'x'\n", "KeyError: 'x'"),
        ("", ""),
    ],
)
def test_a_fault_is_one_line_that_says_what_matters(said: str, fault: str | None) -> None:
    expected = "cannot fetch it (mend that)" if fault is None else fault
    assert fault_of(said) == expected
