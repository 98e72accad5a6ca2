# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of many callers go to the disk together, and each caller gets what is its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from database_servers import on_every_database
from sqlalchemy import event, select
from sqlalchemy.exc import IntegrityError

from slapos_wendelin.master.database import Database
from slapos_wendelin.master.due import next_number
from slapos_wendelin.master.models import Product

pytestmark = on_every_database

CALLERS = 12
FAILING, TWICE, TRYING = 3, 5, 8


@pytest.fixture
def database(location: Path | str) -> Iterator[Database]:
    made = Database(location)
    yield made
    made.close()


def products(database: Database) -> set[str]:
    with database.reading() as session:
        return set(session.scalars(select(Product.name)))


def write(database: Database, index: int) -> int:
    """Make a product and return a number, as one of many."""
    if index == TRYING:
        with database.trying() as session:
            session.add(Product(name="tried", release_url="a"))
            session.flush()
            return next_number(session)
    with database.writing() as session:
        session.add(Product(name=f"product{index}", release_url="a"))
        session.flush()
        if index == FAILING:
            raise RuntimeError
        if index == TWICE:
            session.add(Product(name="product0", release_url="a"))
            session.flush()
        return next_number(session)


def wait_for_callers(database: Database) -> None:
    deadline = time.monotonic() + 240
    while database._writer._waiting < CALLERS:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_callers_that_wait_share_a_commit_and_failures_are_their_own(
    database: Database, monkeypatch: pytest.MonkeyPatch
):
    # The machine may be slow: nobody is left out for the time that the others took.
    monkeypatch.setattr("slapos_wendelin.master.writing._LONGEST_GROUP", 600)
    commits: list[object] = []
    with ThreadPoolExecutor(CALLERS) as pool:
        with database.writing() as session:
            session.add(Product(name="product0", release_url="a"))
            futures = [pool.submit(write, database, index + 1) for index in range(CALLERS)]
            wait_for_callers(database)
            event.listen(database._writing, "commit", commits.append)
        failures = {
            index + 1: type(future.exception())
            for index, future in enumerate(futures)
            if future.exception()
        }
    assert len(commits) == 1
    assert failures == {FAILING: RuntimeError, TWICE: IntegrityError}
    wanted = set(range(CALLERS + 1)) - {FAILING, TWICE, TRYING}
    assert products(database) == {f"product{index}" for index in wanted}
    numbers = [future.result() for future in futures if not future.exception()]
    assert len(set(numbers)) == len(numbers)


def test_a_caller_is_answered_when_its_changes_are_committed(database: Database):
    """Whoever comes later does not keep earlier callers waiting for good."""
    with ThreadPoolExecutor(CALLERS) as pool:

        def write_and_read(index: int) -> bool:
            for time_number in range(5):
                name = f"product{index}-{time_number}"
                with database.writing() as session:
                    session.add(Product(name=name, release_url="a"))
                if name not in products(database):
                    return False
            return True

        assert all(pool.map(write_and_read, range(CALLERS)))
    assert len(products(database)) == CALLERS * 5
