# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What many callers at once get, of one master or of several."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from database_servers import on_every_database
from master_cloud import Cloud
from master_process import MasterProcess

from slapos_wendelin.master.client import MasterClient

THREADS = 16


def places(instances: list[dict]) -> list[tuple[str, str]]:
    """Return where instances are."""
    return [(each["computer"], each["partition"]) for each in instances]


@on_every_database
def test_concurrent_requests_leave_exactly_as_many_instances(cloud: Cloud):
    for name in ("paris", "tokyo", "virginia"):
        cloud.add_computer(name, partitions=40, datacenter=name)
    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(lambda index: cloud.request(f"cluster-{index}"), range(120)))
    instances = cloud.client.instances()
    assert len(instances) == 120
    assert len(set(places(instances))) == 120
    assert {each.getInstanceGuid() for each in answers} == {each["guid"] for each in instances}


@on_every_database
def test_concurrent_requests_for_one_name_make_one_instance(cloud: Cloud):
    cloud.add_computer("paris", partitions=40)
    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(lambda _: cloud.request("cluster"), range(40)))
    assert len({each.getInstanceGuid() for each in answers}) == 1
    assert len(cloud.client.instances()) == 1


@on_every_database
def test_requests_beyond_the_capacity_are_refused_and_the_others_kept(cloud: Cloud):
    cloud.add_computer("paris", partitions=10)

    def request(index: int) -> bool:
        try:
            cloud.request(f"cluster-{index}")
        except Exception:
            return False
        return True

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(request, range(40))) == 10
    assert len(cloud.client.instances()) == 10


def test_sigterm_stops_a_master_with_waiting_computers_cleanly(tmp_path: Path):
    with (
        MasterProcess(tmp_path / "master.sqlite") as master,
        MasterClient(master.url) as client,
        MasterClient(master.url) as operator,
        ThreadPoolExecutor() as pool,
    ):
        client.put_computer("paris")
        waiting = pool.submit(client.wait_due, "paris", 0, 60)
        # The master has noted that the computer calls, so it has got the question.
        while not operator.computer("paris")["contacted_at"]:
            time.sleep(0.05)
        master.process.send_signal(signal.SIGTERM)
        assert master.process.wait(timeout=50) == 0
        assert waiting.result(timeout=50)["number"] == 0


@on_every_database
def test_two_masters_serve_one_database_and_nothing_is_lost(location: Path | str):
    with MasterProcess(location) as first, MasterProcess(location) as second:
        clouds = [Cloud(master.url) for master in (first, second)]
        for name in ("paris", "tokyo"):
            clouds[0].add_computer(name, partitions=30, datacenter=name)
        with ThreadPoolExecutor(THREADS) as pool:
            answers = list(
                pool.map(
                    lambda index: clouds[index % 2].request(f"cluster-{index // 2}"), range(80)
                )
            )
        assert len({each.getInstanceGuid() for each in answers}) == 40
        for cloud in clouds:
            instances = cloud.client.instances()
            assert len(instances) == len(set(places(instances))) == 40
            assert {each["guid"] for each in instances} == {
                each.getInstanceGuid() for each in answers
            }


@on_every_database
def test_a_change_at_one_master_wakes_a_computer_that_waits_at_another(location: Path | str):
    with MasterProcess(location) as first, MasterProcess(location) as second:
        here, there = Cloud(first.url), Cloud(second.url)
        here.add_computer("paris")
        number = here.client.wait_due("paris", timeout=0)["number"]
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(here.client.wait_due, "paris", number, 60)
            time.sleep(0.5)
            instance = there.request("cluster")
            due = waiting.result(timeout=30)
        assert [each["guid"] for each in due["instances"]] == [instance.getInstanceGuid()]
        # What the first one keeps in memory is not what it tells after a change at the second.
        assert here.partition(instance).getState() == "started"
        there.request("cluster", state="stopped")
        assert here.partition(instance).getState() == "stopped"
