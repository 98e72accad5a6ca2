# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers that a master keeps in memory are those that it would make anew."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import requests
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from master_cloud import RELEASE, Cloud
from slapos.util import dumps
from sqlalchemy import func, select

from slapos_wendelin.master import registry
from slapos_wendelin.master.answers import Answer, Answers
from slapos_wendelin.master.application import create_application
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.documents import computer_document
from slapos_wendelin.master.models import Change, Instance
from slapos_wendelin.master.xml_writer import dump

COMPUTERS = ("paris", "tokyo")
NAMES = ("cluster", "storage", "worker", "shared")
PLACES = [(computer, f"slappart{index}") for computer in COMPUTERS for index in range(3)]

REQUESTS = st.fixed_dictionaries(
    {
        "software_release": st.sampled_from(["release-1", "release-2"]),
        "partition_reference": st.sampled_from(NAMES),
        "partition_parameter_xml": st.sampled_from(["1", "2"]).map(
            lambda value: dumps({"a": value}).decode()
        ),
        "filter_xml": st.sampled_from([{}, {"computer_guid": "tokyo"}]).map(
            lambda sla: dumps(sla).decode()
        ),
        "shared_xml": st.sampled_from([False, False, True]).map(
            lambda shared: dumps(shared).decode()
        ),
        "state": st.sampled_from(["started", "started", "stopped", "destroyed"]).map(
            lambda state: dumps(state).decode()
        ),
    }
)
ROOT = ("paris", "slappart0")


def request_of(reference: str, computer: str, *, shared: bool = False) -> dict[str, str]:
    return {
        "software_release": "release-1",
        "partition_reference": reference,
        "partition_parameter_xml": dumps({"a": "1"}).decode(),
        "filter_xml": dumps({"computer_guid": computer}).decode(),
        "shared_xml": dumps(shared).decode(),
        "state": dumps("started").decode(),
    }


TREE = [
    (request_of("cluster", "paris"), None),
    (request_of("storage", "tokyo"), ROOT),
    (request_of("worker", "tokyo"), ROOT),
    (request_of("shared", "tokyo", shared=True), ROOT),
    (request_of("deeper", "paris"), ("tokyo", "slappart0")),
]

REQUESTERS = st.sampled_from([None, None, *PLACES])
REPORTS = st.sampled_from(
    [
        ("startedComputerPartition", {}),
        ("stoppedComputerPartition", {}),
        ("destroyedComputerPartition", {}),
        ("softwareInstanceError", {"error_log": "it fails"}),
        ("softwareInstanceBang", {}),
        ("setComputerPartitionConnectionXml", {"connection_xml": dumps({"url": "a"}).decode()}),
        ("setComputerPartitionConnectionXml", {"connection_xml": dumps({"url": "b"}).decode()}),
        (
            "setComputerPartitionConnectionXml",
            {
                "connection_xml": dumps({"url": "c"}).decode(),
                "slave_reference": "SOFTINST-4",
            },
        ),
        ("softwareInstanceRename", {"new_name": "renamed"}),
        ("softwareInstanceRename", {"new_name": "shared", "slave_reference": "SOFTINST-4"}),
        (
            "updateComputerPartitionRelatedInstanceList",
            {"instance_reference_xml": dumps(["storage"]).decode()},
        ),
    ]
)
SOFTWARE_REPORTS = st.sampled_from(
    ["buildingSoftwareRelease", "availableSoftwareRelease", "softwareReleaseError"]
)
OPERATIONS = st.one_of(
    st.tuples(st.just("request"), REQUESTS, REQUESTERS),
    st.tuples(st.just("repeat"), st.integers(0, 20)),
    st.tuples(st.just("report"), REPORTS, st.sampled_from(PLACES)),
    st.tuples(st.just("software"), SOFTWARE_REPORTS, st.sampled_from(COMPUTERS)),
    st.tuples(st.just("format"), st.sampled_from(COMPUTERS), st.integers(1, 3)),
    st.tuples(st.just("rename"), st.sampled_from(NAMES)),
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a database with two computers and a tree on both, one instance of it shared."""
    path = tmp_path_factory.mktemp("template") / "master.sqlite"
    database = Database(path)
    client = Client(database)
    for computer in COMPUTERS:
        client.format(computer, 3)
    for form, requester in TREE:
        client.request(form, requester)
        client.check()
    database.close()
    return path


class Client:
    """Calls two applications on one database: one that keeps answers, and one that keeps none."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.keeping = create_application(database, is_plain=True).test_client()
        forgetful = create_application(database, is_plain=True)
        forgetful.extensions["wendelin-master"].answers._limit = 0
        self.forgetful = forgetful.test_client()
        self.sent: list[dict[str, str]] = []

    def post(self, path: str, form: dict[str, str], by: FlaskClient | None = None) -> bytes:
        return (by or self.keeping).post(f"http://127.0.0.1/{path}", data=form).data

    def format(self, computer: str, partitions: int) -> None:
        places = [
            {"reference": f"slappart{index}", "address_list": []} for index in range(partitions)
        ]
        configuration = {"reference": computer, "partition_list": places}
        self.post("loadComputerConfigurationFromXML", {"xml": dumps(configuration).decode()})

    def request(self, form: dict[str, str], requester: tuple[str, str] | None) -> None:
        """Request, twice: the second answer may be a kept one."""
        if requester is not None:
            form = form | {"computer_id": requester[0], "computer_partition_id": requester[1]}
        self.sent.append(form)
        self.post("requestComputerPartition", form)
        self.post("requestComputerPartition", form)

    def repeat(self, number: int) -> None:
        if not self.sent:
            return
        form = self.sent[number % len(self.sent)]
        answer = self.post("requestComputerPartition", form)
        changes = self.changes()
        assert answer == self.post("requestComputerPartition", form, self.forgetful)
        assert changes == self.changes()

    def report(self, report: tuple[str, dict[str, str]], place: tuple[str, str]) -> None:
        form = {"computer_id": place[0], "computer_partition_id": place[1]}
        self.post(report[0], form | report[1])

    def software(self, report: str, computer: str) -> None:
        self.post(report, {"computer_id": computer, "url": "release-1", "error_log": "x"})

    def rename(self, name: str) -> None:
        """Give the root of that name another one and back."""
        with self.database.writing() as session:
            for each in session.scalars(select(Instance).where(Instance.reference == name)):
                each.reference = f"{name}-{each.id}"

    def changes(self) -> int:
        with self.database.reading() as session:
            return session.scalars(select(func.count()).select_from(Change)).one()

    def check(self) -> None:
        """Compare what every computer is told with what it is told by a new master."""
        for computer in COMPUTERS:
            url = f"http://127.0.0.1/getFullComputerInformation?computer_id={computer}"
            told = self.keeping.get(url).data
            with self.database.reading() as session:
                assert told == dump(computer_document(registry.computer(session, computer)))


@contextmanager
def started(template: Path) -> Iterator[Client]:
    with TemporaryDirectory() as folder:
        shutil.copy(template, folder)
        database = Database(Path(folder) / template.name)
        client = Client(database)
        for form, requester in TREE:
            client.request(form, requester)
        client.check()
        yield client
        database.close()


@settings(max_examples=30, deadline=None)
@given(operations=st.lists(OPERATIONS, min_size=1, max_size=8))
def test_kept_answers_are_those_that_would_be_made_anew(
    template: Path, operations: list[tuple[str, ...]]
):
    with started(template) as client:
        for name, *arguments in operations:
            operation: Callable[..., None] = getattr(client, name)
            operation(*arguments)
            client.check()
        for number in range(len(client.sent)):
            client.repeat(number)


@pytest.mark.parametrize("name", ["keeping", "forgetful"])
def test_a_request_that_was_sent_before_waits_for_nobody_and_writes_nothing(
    template: Path, name: str
):
    with started(template) as client:
        form = {"software_release": "release", "partition_reference": "cluster"}
        by: FlaskClient = getattr(client, name)
        first, second = (client.post("requestComputerPartition", form, by) for _ in range(2))
        assert first == second
        with ThreadPoolExecutor(1) as pool, client.database.writing():
            # Nobody else can write now.
            again = pool.submit(client.post, "requestComputerPartition", form, by)
            assert again.result(timeout=30) == first


def test_a_name_that_was_destroyed_can_be_destroyed_elsewhere(cloud: Cloud):
    cloud.add_computer("paris")
    cloud.add_computer("tokyo")
    cloud.request("cluster", filter_kw={"computer_guid": "paris"})
    for _ in range(3):
        cloud.request("cluster", state="destroyed")
    cloud.request("cluster", filter_kw={"computer_guid": "tokyo"})
    cloud.request("cluster", state="destroyed")
    assert [each["state"] for each in cloud.client.instances()] == ["destroyed"] * 2


def test_what_never_was_can_be_destroyed_when_it_has_come_to_be(cloud: Cloud):
    cloud.add_computer("paris")
    cloud.add_computer("tokyo")
    root = cloud.request("cluster", filter_kw={"computer_guid": "paris"})
    for _ in range(3):
        cloud.request_from(root, "storage", state="destroyed")
    cloud.request_from(root, "storage", filter_kw={"computer_guid": "tokyo"})
    cloud.request_from(root, "storage", state="destroyed")
    (child,) = cloud.client.instance("cluster")["children"]
    assert child["state"] == "destroyed"


def test_a_release_that_failed_to_build_is_asked_for_by_each_request(cloud: Cloud):
    cloud.add_computer("paris")
    cloud.request("cluster")
    number = 0
    for _ in range(3):
        requests.post(
            f"{cloud.url}softwareReleaseError",
            data={"computer_id": "paris", "url": RELEASE, "error_log": "no compiler"},
            timeout=60,
        )
        cloud.request("cluster")
        (told,) = cloud.client.computers()[0]["software"]
        assert told["number"] > number
        number = told["number"]
        cloud.request("cluster")
        (told,) = cloud.client.computers()[0]["software"]
        assert told["number"] > number
        number = told["number"]


def test_a_computer_that_knows_its_document_is_told_that_it_is_the_same(cloud: Cloud):
    cloud.add_computer("paris")
    url = f"{cloud.url}getFullComputerInformation?computer_id=paris"
    tag = requests.get(url, timeout=60).headers["ETag"]
    unchanged = requests.get(url, headers={"If-None-Match": tag}, timeout=60)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    cloud.request("cluster")
    changed = requests.get(url, headers={"If-None-Match": tag}, timeout=60)
    assert changed.status_code == 200
    assert changed.headers["ETag"] != tag


def test_memory_for_answers_is_bounded_and_the_latest_stay():
    answers = Answers(limit=10_000)
    for number in range(20):
        answers.keep(number, Answer(b"x" * 1000, frozenset()))
        answers.find(0)
    kept = [number for number in range(20) if answers.find(number)]
    assert 0 in kept
    assert 19 in kept
    assert len(kept) < 10
    answers.keep("huge", Answer(b"x" * 9000, frozenset()))
    assert answers.find("huge") is None
