# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A master of several processes is one master for those who call it and for who runs it."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
import requests
from master_cloud import RELEASE, Cloud
from master_command import slapos_master
from master_workers import Connection, Workers, is_running, wait_for
from secure_cloud import Caller, SecureCloud
from slapos.util import dumps
from test_metrics import scrape

from slapos_wendelin.master.__main__ import main
from slapos_wendelin.master.authority import Authority
from slapos_wendelin.master.consistency import check
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.siblings import Siblings
from slapos_wendelin.master.supervisor import main as supervise

CLIENTS = 16
HEALTH = ("endpoint", "api.health")
REQUEST = ("endpoint", "protocol.request_computer_partition")
GOOD = ("status", "200")


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """A master of two processes."""
    workers = Workers(tmp_path_factory.mktemp("workers"), "--log-level", "debug")
    yield workers
    workers.kill()


@pytest.fixture
def master(workers: Workers) -> Workers:
    """The master, started again when a test has ended it: to start it takes long."""
    return started(workers)


def started(workers: Workers) -> Workers:
    """Start a master unless it runs."""
    if workers.process is None or workers.process.poll() is not None:
        workers.start()
    return workers


def samples(connection: Connection) -> dict[tuple, float]:
    """Scrape the worker at the other end."""
    status, text = connection.ask("GET", "/metrics")
    assert status == 200
    return scrape(text)


def test_all_workers_answer_on_the_one_port_and_the_log_names_them(master: Workers):
    def answering() -> bool:
        requests.get(f"{master.url}v1/health", timeout=60)
        seen = {each.get("worker") for each in master.lines() if each["event"] == "request"}
        return seen >= {1, 2}

    wait_for(answering, "answers of both workers")
    assert set(master.pids()) == {1, 2}
    assert {each.pid for each in master.children()} == set(master.pids().values())


def test_every_worker_tells_the_sum_of_what_all_counted(master: Workers):
    key = ("slapos_master_requests_total", HEALTH, GOOD)
    length = ("slapos_master_request_seconds_count", HEALTH)
    with master.connections() as both:
        before = samples(both[0])
        for connection in both:
            for _ in range(3):
                connection.ask("GET", "/v1/health")
        for connection in both:
            after = samples(connection)
            assert after[key] - before.get(key, 0) == 6
            assert after[length] - before.get(length, 0) == 6


def test_a_computer_that_waits_at_one_worker_is_woken_by_a_change_at_the_other(master: Workers):
    cloud = Cloud(master.url)
    cloud.add_computer("tokyo")
    number = cloud.client.wait_due("tokyo", timeout=0)["number"]
    with master.connections() as (here, there):
        here.send("GET", f"/v1/computers/tokyo/due?after={number}&timeout=60")
        form = {
            "software_release": RELEASE,
            "partition_reference": "cluster",
            "filter_xml": dumps({"computer_guid": "tokyo"}).decode(),
            "partition_parameter_xml": dumps({}).decode(),
            "state": dumps("started").decode(),
        }
        status, text = there.ask("POST", "/requestComputerPartition", form)
        assert status == 200, text
        due = json.loads(here.answer()[1])
    assert [each["reference"] for each in due["instances"]] == ["cluster"]


def test_every_worker_knows_when_a_computer_called_any_of_them(master: Workers):
    Cloud(master.url).add_computer("virginia")
    with master.connections() as (here, there):

        def contact() -> str:
            computers = json.loads(there.ask("GET", "/v1/computers")[1])
            (found,) = [each for each in computers if each["reference"] == "virginia"]
            return found["contacted_at"]

        first = contact()

        def is_newer() -> bool:
            # It does not write this call to the database before half a minute is over.
            here.ask("GET", "/getFullComputerInformation?computer_id=virginia")
            return contact() > first

        wait_for(is_newer, "the other worker to know of the call")


def test_a_killed_worker_is_replaced_and_no_answered_request_is_lost(master: Workers):
    count = 200
    cloud = Cloud(master.url)
    cloud.add_computer("paris", partitions=count)
    answered: dict[str, str] = {}
    before = set(master.pids().values())

    def request(index: int) -> None:
        name = f"killed-{index}"
        while name not in answered:
            with suppress(Exception):
                instance = Cloud(master.url).request(name, filter_kw={"computer_guid": "paris"})
                answered[name] = instance.getInstanceGuid()

    with ThreadPoolExecutor(CLIENTS) as pool:
        futures = [pool.submit(request, index) for index in range(count)]
        for number, at in ((1, count // 5), (2, count // 2)):
            wait_for(lambda at=at: len(answered) >= at, f"{at} answers")
            psutil.Process(master.pids()[number]).kill()
        for future in futures:
            future.result(300)
    instances = [each for each in cloud.client.instances() if each["computer"] == "paris"]
    assert {each["reference"]: each["guid"] for each in instances} == answered
    assert len({each["partition"] for each in instances}) == count
    wait_for(lambda: before.isdisjoint(master.pids().values()), "two new workers")
    # What the killed ones had counted is not lost either.
    with closing(Connection(master.port)) as connection:
        told = samples(connection)
    assert told["slapos_master_requests_total", REQUEST, GOOD] >= count
    reasons = [each["reason"] for each in master.lines() if each["event"] == "worker-ended"]
    assert reasons == ["was ended by SIGKILL"] * 2
    database = Database(master.database)
    with database.reading() as session:
        assert check(session) == []
    database.close()


def test_when_the_first_process_is_killed_the_workers_end_and_the_port_is_free(
    master: Workers, tmp_path: Path
):
    Cloud(master.url).client.put_computer("kept")
    pids, started = master.pids().values(), master.count("worker-started")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(240)
        master.kill()
        master.launch(NOTIFY_SOCKET=str(tmp_path / "notify"))
        # systemd counts it as started when all workers answer.
        assert systemd.recv(100) == b"READY=1"
        assert master.count("worker-started") == started + 2
    wait_for(lambda: not any(map(is_running, pids)), "the end of the killed master's workers")
    assert "kept" in [each["reference"] for each in Cloud(master.url).client.computers()]
    assert len(list(master.temporary.iterdir())) == 1


def test_sigterm_ends_all_workers_after_the_requests_that_they_work_on(master: Workers):
    Cloud(master.url).client.put_computer("berlin")
    pids = master.pids().values()
    with master.connections() as both:
        for each in both:
            each.send("GET", "/v1/computers/berlin/due?after=9999999999999999&timeout=60")
        master.process.send_signal(signal.SIGTERM)
        assert [each.answer()[0] for each in both] == [200, 200]
    assert master.process.wait(240) == 0
    assert not any(map(is_running, pids))
    assert list(master.temporary.iterdir()) == []


@pytest.fixture(scope="module")
def secure_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """A master of two processes with TLS."""
    folder = tmp_path_factory.mktemp("secure")
    workers = Workers(folder, "--log-level", "debug", authority=folder / "authority")
    yield workers
    workers.kill()


@pytest.fixture
def secure_master(secure_workers: Workers) -> Workers:
    """The master with TLS, started again when a test has ended it."""
    return started(secure_workers)


@pytest.fixture
def secure_cloud(secure_master: Workers, tmp_path: Path) -> Iterator[SecureCloud]:
    """The operators of the master with TLS."""
    authority = Authority(secure_master.database.with_name("authority"))
    database = Database(secure_master.database)
    cloud = SecureCloud(secure_master.url, database, authority, tmp_path)
    yield cloud
    cloud.close()
    database.close()


def test_all_workers_have_one_certificate_and_one_view_of_those_of_others(
    secure_master: Workers, secure_cloud: SecureCloud
):
    master, cloud = secure_master, secure_cloud
    mallory = cloud.user("mallory", "operator")
    with master.connections(context_of(mallory)) as (here, there):
        shown = [each.http.sock.getpeercert(binary_form=True) for each in (here, there)]
        assert shown[0] == shown[1]
        assert [each.ask("GET", "/v1/computers")[0] for each in (here, there)] == [200, 200]
        (known,) = cloud.operator.client.certificates("user", "mallory")
        cloud.operator.client.revoke(known["serial"], "the laptop was stolen")
        for each in (here, there):
            wait_for(
                lambda each=each: each.ask("GET", "/v1/computers")[0] == 403, "what was revoked"
            )


def context_of(caller: Caller) -> ssl.SSLContext:
    """Return the settings of a client with somebody's certificate."""
    context = ssl.create_default_context(cafile=str(caller.authority))
    context.load_cert_chain(caller.certificate)
    return context


def test_workers_that_end_again_and_again_end_the_master_with_the_reason(
    secure_master: Workers,
):
    master = secure_master
    while master.process.poll() is None:
        with suppress(psutil.Error, IndexError):
            master.children()[0].kill()
    assert master.process.returncode == 1
    last = master.log.read_text().splitlines()[-1]
    assert "was ended by SIGKILL" in last
    assert "times in a row" in last


def test_a_worker_that_cannot_start_ends_the_master_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "notes.txt"
    path.write_text("not a database " * 100)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        options = ["--socket", str(listening.detach()), "--processes", "1"]
        options += ["--url", "http://127.0.0.1/", "--database-name", "notes.txt", "--"]
        assert supervise([*options, "--plain", "--database", str(path)]) == 1
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "slapos master:" in each]
    assert "cannot start: " in line
    assert "cannot be read as a database" in line


def test_a_taken_port_is_told_on_one_line_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        options = ["--database", str(tmp_path / "database"), "--listen", f"127.0.0.1:{port}"]
        assert main(["--plain", "--processes", "2", *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"slapos master: port {port} of 127.0.0.1 is taken by process")


@pytest.mark.parametrize("number", ["0", "-1", "two", "1000", "²"])
def test_a_wrong_number_of_processes_is_named(number: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["--database", "x", "--processes", number])
    assert ended.value.code == 2
    assert f"{number!r} is no number of processes from 1 to 64" in capsys.readouterr().err


def test_a_unit_starts_as_many_processes(capsys: pytest.CaptureFixture[str]):
    options = ["--database", "/srv/master.sqlite", "--plain", "--lost-after", "60"]
    assert slapos_master("unit", "systemd", *options, "--processes", "4") == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("ExecStart=")]
    assert " --processes 4 " in line
    assert " --lost-after 60.0 " in line


def test_what_a_worker_tells_reaches_the_other_and_nobody_waits_for_one_that_does_not_listen():
    inbox, outbox = os.pipe()
    os.set_blocking(outbox, False)
    talker = Siblings(-1, [outbox])
    # Another process has read the first half of this line, and was killed.
    os.write(outbox, b'", 1.0]\n')
    for number in range(10_000):
        talker.tell("contact", "paris" * 10, number)
    talker.tell("contact", "x" * 5000, 0)
    heard: queue.SimpleQueue[tuple] = queue.SimpleQueue()
    listener = Siblings(inbox, [])
    listener.hear("contact", lambda *values: heard.put(values))
    listener.start()
    assert heard.get(timeout=60) == ("paris" * 10, 0)
    assert heard.get(timeout=60) == ("paris" * 10, 1)
    os.close(outbox)
