# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What many callers at once get, also when the master is killed under them."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from master_cloud import RELEASE, Cloud

from slapos_wendelin.errors import WendelinError
from slapos_wendelin.master.client import MasterClient

THREADS = 16


def places(instances: list[dict]) -> list[tuple[str, str]]:
    """Return where instances are."""
    return [(each["computer"], each["partition"]) for each in instances]


def test_concurrent_requests_leave_exactly_as_many_instances(cloud: Cloud):
    for name in ("paris", "tokyo", "virginia"):
        cloud.add_computer(name, partitions=40, datacenter=name)
    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(lambda index: cloud.request(f"cluster-{index}"), range(120)))
    instances = cloud.client.instances()
    assert len(instances) == 120
    assert len(set(places(instances))) == 120
    assert {each.getInstanceGuid() for each in answers} == {each["guid"] for each in instances}


def test_concurrent_requests_for_one_name_make_one_instance(cloud: Cloud):
    cloud.add_computer("paris", partitions=40)
    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(lambda _: cloud.request("cluster"), range(40)))
    assert len({each.getInstanceGuid() for each in answers}) == 1
    assert len(cloud.client.instances()) == 1


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


def start_master(database: Path, port: int) -> subprocess.Popen[bytes]:
    """Start a master as a process of its own and wait until it answers."""
    arguments = ["--plain", "--database", str(database), "--listen", f"127.0.0.1:{port}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "slapos_wendelin.master", *arguments, "--log-level", "error"]
    )
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            with MasterClient(f"http://127.0.0.1:{port}", timeout=5) as client:
                client.health()
        except WendelinError:
            time.sleep(0.05)
        else:
            return process
    process.kill()
    raise AssertionError("the master does not answer")


def test_a_killed_master_has_every_answered_request_once(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    database = tmp_path / "master.sqlite"
    process = start_master(database, port)
    answered: set[str] = set()
    unanswered: set[str] = set()
    enough = threading.Event()
    try:
        cloud = Cloud(f"http://127.0.0.1:{port}/")
        for name in ("paris", "tokyo", "virginia"):
            cloud.add_computer(name, partitions=80, datacenter=name)

        def request(index: int) -> None:
            name = f"cluster-{index}"
            try:
                cloud.request(name, filter_kw={"spread": "datacenter", "group": "all"})
            except Exception:
                unanswered.add(name)
            else:
                answered.add(name)
                if len(answered) >= 30:
                    enough.set()

        with ThreadPoolExecutor(THREADS) as pool:
            for index in range(200):
                pool.submit(request, index)
            assert enough.wait(60)
            process.kill()
            process.wait()
        assert unanswered
        process = start_master(database, port)
        kept = {each["reference"] for each in cloud.client.instances()}
        assert answered <= kept
        # A request that was cut is either there whole or not at all; sent again, it is there once.
        for name in sorted(unanswered)[:10]:
            cloud.request(name, filter_kw={"spread": "datacenter", "group": "all"})
        instances = cloud.client.instances()
        names = [each["reference"] for each in instances]
        assert len(set(names)) == len(names)
        assert len(set(places(instances))) == len(instances)
        assert all(each["release_url"] == RELEASE and each["partition"] for each in instances)
        # Work is due right after the restart.
        due = cloud.client.wait_due("paris", after=0, timeout=60)
        assert len(due["instances"]) == sum(each["computer"] == "paris" for each in instances)
    finally:
        process.kill()
        process.wait()


def test_sigterm_stops_a_master_with_waiting_computers_cleanly(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = start_master(tmp_path / "master.sqlite", port)
    try:
        with MasterClient(f"http://127.0.0.1:{port}") as client, ThreadPoolExecutor() as pool:
            client.put_computer("paris")
            waiting = pool.submit(client.wait_due, "paris", 0, 60)
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=15) == 0
            assert waiting.result(timeout=5)["number"] == 0
    finally:
        process.kill()
        process.wait()
