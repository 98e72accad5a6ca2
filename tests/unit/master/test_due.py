# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a computer learns that it has work."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from database_servers import on_every_database
from master_cloud import RELEASE, Cloud
from sqlalchemy.orm import Session

from slapos_wendelin.master.client import MasterAnswerError, NotFoundError
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.due import Board, next_number


@on_every_database
def test_work_that_is_there_is_told_at_once(cloud: Cloud):
    cloud.add_computer("paris")
    instance = cloud.request("cluster")
    due = cloud.client.wait_due("paris", after=0, timeout=60)
    assert [each["url"] for each in due["software"]] == [RELEASE]
    (told,) = due["instances"]
    assert told["guid"] == instance.getInstanceGuid()
    assert (told["partition"], told["state"]) == ("slappart0", "started")
    assert told["number"] == cloud.timestamp(instance)
    assert due["number"] >= told["number"]


def test_without_work_the_same_number_comes_back_after_the_timeout(cloud: Cloud):
    cloud.add_computer("paris")
    assert cloud.client.wait_due("paris", after=7, timeout=0.1) == {
        "number": 7,
        "software": [],
        "instances": [],
    }


@on_every_database
def test_only_newer_work_is_told(cloud: Cloud):
    cloud.add_computer("paris", partitions=3)
    cloud.request("first")
    number = cloud.client.wait_due("paris")["number"]
    second = cloud.request("second")
    due = cloud.client.wait_due("paris", after=number)
    assert [each["guid"] for each in due["instances"]] == [second.getInstanceGuid()]
    assert due["software"] == []


def test_a_waiting_computer_is_woken_by_its_work_and_not_by_that_of_others(cloud: Cloud):
    cloud.add_computer("paris")
    cloud.add_computer("tokyo")
    answered = threading.Event()

    def wait() -> dict:
        try:
            return cloud.client.wait_due("tokyo", timeout=60)
        finally:
            answered.set()

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(wait)
        cloud.request("here", filter_kw={"computer_guid": "paris"})
        assert not answered.wait(0.3)
        there = cloud.request("there", filter_kw={"computer_guid": "tokyo"})
        due = waiting.result(timeout=40)
    assert [each["guid"] for each in due["instances"]] == [there.getInstanceGuid()]


@on_every_database
def test_a_childs_publication_wakes_the_computer_of_its_root(cloud: Cloud):
    cloud.add_computer("paris")
    cloud.add_computer("tokyo")
    root = cloud.request("cluster", filter_kw={"computer_guid": "paris"})
    child = cloud.request_from(root, "storage", filter_kw={"computer_guid": "tokyo"})
    number = cloud.client.wait_due("paris")["number"]
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(cloud.client.wait_due, "paris", number, 60)
        cloud.partition(child).setConnectionDict({"url": "neo://"})
        due = waiting.result(timeout=40)
    assert [each["guid"] for each in due["instances"]] == [root.getInstanceGuid()]


def test_an_unknown_computer_has_no_work(cloud: Cloud):
    with pytest.raises(NotFoundError, match="computer 'nowhere' is not registered"):
        cloud.client.wait_due("nowhere")


@pytest.mark.parametrize("query", ["after=x", "after=0&timeout=x", "after=0&timeout=nan"])
def test_a_wrong_number_is_named(cloud: Cloud, query: str):
    cloud.add_computer("paris")
    with pytest.raises(MasterAnswerError, match="send a number"):
        cloud.client._call("GET", f"computers/paris/due?{query}")


def test_asking_for_work_is_not_reading_it(cloud: Cloud):
    cloud.add_computer("paris")
    instance = cloud.request("cluster")
    cloud.client.wait_due("paris")
    cloud.slap.registerComputerPartition("paris", instance.getId()).started()
    assert not cloud.client.instance("cluster")["settled"]


@on_every_database
def test_polls_leave_the_last_contact(cloud: Cloud):
    cloud.client.put_computer("paris")
    assert cloud.client.computers()[0]["contacted_at"] is None
    cloud.client.wait_due("paris", after=0, timeout=0)
    assert cloud.client.computers()[0]["contacted_at"]


def test_too_many_waiters_are_answered_without_waiting():
    board = Board(waiting_limit=0)
    begin = time.monotonic()
    assert board.wait("paris", 3, 3, 60) == 3
    assert time.monotonic() - begin < 30


@on_every_database
def test_numbers_grow_even_when_the_clock_goes_back(
    location: Path | str, monkeypatch: pytest.MonkeyPatch
):
    database = Database(location)

    def number() -> int:
        with database.writing() as session:
            assert isinstance(session, Session)
            return next_number(session)

    first = number()
    monkeypatch.setattr(time, "time_ns", lambda: 1000)
    assert number() == first + 1
    database.close()
