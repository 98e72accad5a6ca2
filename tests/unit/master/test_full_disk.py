# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""On a full disk a master refuses changes and goes on answering; with room again it recovers."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import slapos.slap
from master_cloud import Cloud
from sqlalchemy import Connection, Engine, event

from slapos_wendelin.master.consistency import check
from slapos_wendelin.master.database import Database

LARGE = {"_": "x" * 200_000}
NOTHING_CHANGED = "nothing was changed; free space on the disk of the database"


@contextmanager
def files_that_cannot_grow(folder: Path) -> Iterator[None]:
    """Let the kernel refuse to make files larger than they are."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(each.stat().st_size for each in folder.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def a_file_that_is_full(_folder: Path) -> Iterator[None]:
    """Let SQLite find no page more, as when the file system has none."""

    def limit(connection: Connection) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    def unlimit(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 1073741823")

    event.listen(Engine, "begin", limit)
    try:
        yield
    finally:
        event.remove(Engine, "begin", limit)
        event.listen(Engine, "begin", unlimit)
        FULL.append(unlimit)


FULL: list[Callable[[Connection], None]] = []


@pytest.fixture(autouse=True)
def forget_limits() -> Iterator[None]:
    yield
    while FULL:
        event.remove(Engine, "begin", FULL.pop())


@pytest.mark.parametrize("full", [files_that_cannot_grow, a_file_that_is_full])
def test_changes_are_refused_computers_are_answered_and_room_is_used_again(
    cloud: Cloud, tmp_path: Path, full: Callable[[Path], AbstractContextManager[None]]
):
    cloud.add_computer("paris", partitions=2)
    instance = cloud.request("cluster")
    number = cloud.client.wait_due("paris")["number"]
    with full(tmp_path):
        for _ in range(3):
            with pytest.raises(slapos.slap.ServerError, match=f"503 .*{NOTHING_CHANGED}"):
                cloud.request("second", partition_parameter_kw=LARGE)
        assert len(cloud.slap.registerComputer("paris").getComputerPartitionList()) == 2
        assert cloud.request("cluster").getInstanceGuid() == instance.getInstanceGuid()
        assert cloud.client.wait_due("paris", after=number, timeout=0.1)["number"] == number
        assert cloud.client.health() == {"status": "ok"}
    assert [each["reference"] for each in cloud.client.instances()] == ["cluster"]
    cloud.request("second", partition_parameter_kw=LARGE)
    assert len(cloud.client.instances()) == 2


@pytest.mark.parametrize("full", [files_that_cannot_grow, a_file_that_is_full])
def test_of_many_callers_each_is_told_the_truth(
    cloud: Cloud,
    location: Path,
    tmp_path: Path,
    full: Callable[[Path], AbstractContextManager[None]],
):
    cloud.add_computer("paris", partitions=40)
    refusals: list[str] = []

    def request(index: int) -> str | None:
        # Some fit in the room that is left, some do not.
        parameters = LARGE if index % 4 == 0 else {"_": str(index)}
        try:
            return cloud.request(
                f"cluster-{index}", partition_parameter_kw=parameters
            ).getInstanceGuid()
        except slapos.slap.ServerError as error:
            refusals.append(str(error))
            return None

    with ThreadPoolExecutor(16) as pool:
        with full(tmp_path):
            first = list(pool.map(request, range(40)))
        kept = {each["guid"] for each in cloud.client.instances()}
        assert kept == set(first) - {None}
        assert None in first
        assert all(NOTHING_CHANGED in each for each in refusals)
        second = list(pool.map(request, range(40)))
    assert all(second)
    assert all(before in {None, after} for before, after in zip(first, second, strict=True))
    database = Database(location)
    with database.reading() as session:
        assert check(session) == []
    database.close()
