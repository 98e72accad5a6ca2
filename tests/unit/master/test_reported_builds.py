# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The master knows how far a computer is with the build of a release, and shows it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from master_cloud import RELEASE, Cloud
from our_slapos import run_commands

from slapos_wendelin.build_progress import Progress
from slapos_wendelin.master.client import MasterAnswerError, MasterClient
from slapos_wendelin.node.build_reporter import BuildReporter
from slapos_wendelin.waiting import NotReadyError, Patience, follow

SIZES = {"cpu_core": 8, "memory_size": 2**30, "storage_capacity": 2**30}


@pytest.fixture
def release(cloud: Cloud) -> Any:
    """Return the release that the computer paris builds for the instance cluster."""
    cloud.add_computer("paris")
    cloud.request("cluster")
    (release,) = cloud.slap.registerComputer("paris").getSoftwareReleaseList()
    release.building()
    return release


def progress(cloud: Cloud) -> Any:
    """Return what the status tells of the build."""
    (software,) = cloud.client.status()["software"]
    return software["progress"]


def test_progress_is_kept_until_the_build_ends_or_begins_anew(cloud: Cloud, release: Any):
    assert progress(cloud) is None
    assert cloud.client.put_build("paris", RELEASE, "mariadb", 35) == {"kept": True}
    assert progress(cloud) == {"stage": "mariadb", "percent": 35}
    # What a computer measures is another matter.
    cloud.client.put_measurement("paris", SIZES)
    assert progress(cloud) == {"stage": "mariadb", "percent": 35}
    assert cloud.client.computer("paris")["measured"] == SIZES
    release.error("no compiler")
    assert progress(cloud) is None
    release.building()
    assert progress(cloud) is None
    cloud.client.put_build("paris", RELEASE, "neo")
    assert progress(cloud) == {"stage": "neo", "percent": None}
    release.available()
    assert progress(cloud) is None


def test_progress_that_comes_too_late_is_left(cloud: Cloud, release: Any):
    release.available()
    assert cloud.client.put_build("paris", RELEASE, "mariadb", 95) == {"kept": False}
    assert cloud.client.put_build("paris", "/another.cfg", "mariadb", 95) == {"kept": False}
    assert progress(cloud) is None


@pytest.mark.usefixtures("release")
def test_progress_makes_nothing_due_and_no_history(cloud: Cloud):
    before = cloud.client.computer("paris")["number"], len(cloud.client.history())
    cloud.client.put_build("paris", RELEASE, "mariadb", 35)
    assert (cloud.client.computer("paris")["number"], len(cloud.client.history())) == before


@pytest.mark.usefixtures("release")
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"percent": 101}, "percent is 101"),
        ({"percent": True}, "percent is True"),
        ({"percent": 3.5}, "percent is 3.5"),
        ({"stage": ""}, "stage is ''"),
        ({"stage": "a\nb"}, "stage is"),
        ({"url": None}, "url is None"),
    ],
)
def test_progress_that_cannot_be_is_refused(cloud: Cloud, values: Any, message: str):
    told = {"url": RELEASE, "stage": "mariadb", "percent": 35} | values
    with pytest.raises(MasterAnswerError, match=message) as refusal:
        cloud.client.put_build("paris", **told)
    assert refusal.value.status == 400


@pytest.mark.usefixtures("release")
def test_status_and_computer_show_how_far_it_is(cloud: Cloud, tmp_path: Path):
    cloud.client.put_build("paris", RELEASE, "mariadb", 35)
    status, computer, document = run_commands(
        tmp_path,
        cloud.url,
        ["cluster", "status"],
        ["computer", "show", "paris"],
        ["computer", "show", "paris", "--json"],
        columns=160,
    )
    assert "building: mariadb 35 %" in status.out
    assert f"{RELEASE} building: mariadb 35 %" in computer.out
    (told,) = document.document["software"]
    assert told["progress"] == {"stage": "mariadb", "percent": 35}


@pytest.mark.usefixtures("release")
def test_who_waits_for_a_node_sees_how_far_it_is_and_waits_as_long_as_it_goes_on(cloud: Cloud):
    told: list[str] = []

    def wait() -> None:
        steps = follow(
            lambda: cloud.client.instance("cluster"),
            lambda: cloud.client.software(RELEASE),
            Patience(unchanged=5.0),
        )
        for (node,) in steps:
            told.append(node.fault)
            # In the end the build goes on no more.
            cloud.client.put_build("paris", RELEASE, "mariadb", min(len(told), 4))

    with pytest.raises(NotReadyError, match="without a change"):
        wait()
    assert told[:5] == [
        "its software is being built",
        *(f"its software is being built: mariadb {percent} %" for percent in (1, 2, 3, 4)),
    ]


@pytest.mark.usefixtures("release")
def test_the_newest_is_told_and_what_is_overtaken_is_not(cloud: Cloud):
    with reporting(cloud.url) as reporter:
        reporter.tell(RELEASE, Progress("mariadb", 5))
        wait_until(lambda: progress(cloud) == {"stage": "mariadb", "percent": 5})
        for percent in range(6, 80):
            reporter.tell(RELEASE, Progress("mariadb", percent))
        wait_until(lambda: progress(cloud) == {"stage": "mariadb", "percent": 79})


def test_a_master_that_is_away_does_not_keep_the_reporter_from_ending(caplog: Any):
    with reporting("http://127.0.0.1:9") as reporter:
        reporter.tell(RELEASE, Progress("mariadb", 5))
        wait_until(lambda: "the progress of a build is not reported" in caplog.text)
        reporter.tell(RELEASE, Progress("mariadb", 6))


@contextmanager
def reporting(url: str) -> Iterator[BuildReporter]:
    """Run a reporter that may speak often."""
    with MasterClient(url) as master:
        reporter, stop = BuildReporter(master, "paris", interval=0.1), threading.Event()
        thread = threading.Thread(target=reporter.run, args=(stop,))
        thread.start()
        try:
            yield reporter
        finally:
            stop.set()
            reporter.wake()
            thread.join(240)
            assert not thread.is_alive()


def wait_until(ask: Any, seconds: float = 240.0) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not ask():
        assert time.monotonic() < deadline
        time.sleep(0.02)
