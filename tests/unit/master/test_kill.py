# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A master that is killed in the middle of many requests has every answered one, whole and once."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from master_cloud import RELEASE, Cloud
from master_process import MasterProcess

from slapos_wendelin.master.consistency import check
from slapos_wendelin.master.database import Database

CLIENTS = 64
KILLS = 2
COMPUTERS = 10


class Requester:
    """Many clients that each send a request until it is answered, as recipes do in each run."""

    def __init__(self, cloud: Cloud, count: int) -> None:
        self.cloud = cloud
        self.count = count
        self.unanswered = 0
        #: The guid in each answer, of the first one and of the one after the last kill.
        self.first: dict[str, str] = {}
        self._changed = threading.Condition()

    def request(self, index: int) -> None:
        name = f"cluster-{index}"
        while name not in self.first:
            try:
                guid = self.ask(name)
            except Exception:
                with self._changed:
                    self.unanswered += 1
                self._running.wait(60)
            else:
                with self._changed:
                    self.first[name] = guid
                    self._changed.notify_all()

    def ask(self, name: str) -> str:
        return self.cloud.request(name).getInstanceGuid()

    def wait_for(self, answered: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.first) >= answered, 300)

    def run(self, master: MasterProcess, kills: list[int]) -> None:
        """Send all requests; kill and restart the master whenever so many are answered."""
        self._running = threading.Event()
        with ThreadPoolExecutor(CLIENTS) as pool:
            futures = [pool.submit(self.request, index) for index in range(self.count)]
            for answered in kills:
                self._running.clear()
                self.wait_for(answered)
                master.kill()
                master.start()
                self._running.set()
            for future in futures:
                future.result(300)


@pytest.mark.parametrize(
    ("location", "count"),
    [("sqlite", 1000), ("mariadb", 150), ("postgresql", 150)],
    indirect=["location"],
)
def test_a_killed_master_has_every_answered_request_once(location: Path | str, count: int):
    kills = sorted(random.sample(range(10, count - CLIENTS // 2), KILLS))
    print("killed after so many answers:", kills)
    with MasterProcess(location) as master:
        cloud = Cloud(master.url)
        for number in range(COMPUTERS):
            cloud.add_computer(
                f"computer-{number}", partitions=count // COMPUTERS, datacenter=f"dc-{number % 3}"
            )
        requester = Requester(cloud, count)
        requester.run(master, kills)
        assert requester.unanswered, "the master was killed between requests only"
        instances = cloud.client.instances()
        # There are exactly as many partitions: one request kept twice would leave another out.
        assert {each["reference"]: each["guid"] for each in instances} == requester.first
        assert len({(each["computer"], each["partition"]) for each in instances}) == count
        assert all(each["release_url"] == RELEASE for each in instances)
        due = cloud.client.wait_due("computer-0", after=0, timeout=60)
        assert len(due["instances"]) == count // COMPUTERS
    database = Database(location)
    with database.reading() as session:
        assert check(session) == []
    database.close()
