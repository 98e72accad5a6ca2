# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster whose storages keep their data in MariaDB, requested as any other.

It takes a compiled MariaDB (tests/unit/compiled_mariadb.py); without one these tests are skipped.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from cluster import OBJECTS, Cluster, copies
from environment import PATIENCE, Environment, wait_for
from promised import check_copies, promised

from slapos_wendelin.local.home import DATA_CENTERS

NAME = "mariadb-cluster"
STORAGES = ("neo-storage-0", "neo-storage-1")
PARAMETERS = (
    *("storage-engine=innodb", "storage-count=2", "replicas=1", "partitions=4", "master-count=1"),
    *("worker-count=0", "mariadb={innodb-io-capacity: 321, innodb-buffer-pool-size: 64MiB}"),
)
#: Seconds for three computers to build the release, from compiled parts.
BUILD_TIME = 900.0
#: Seconds in which a storage has to be well elsewhere.
MOVING_TIME = 900.0
#: MiB of a disk with room for all that the tests write.
SMALL_DISK = 1000

Report = Callable[[str], None]


@pytest.fixture(scope="module")
def release(environment: Environment) -> str:
    """Let all computers build the release that has MariaDB; return its URL."""
    if not os.environ.get("WENDELIN_COMPILED"):
        pytest.skip(
            "WENDELIN_COMPILED names no cache of compiled parts, such as"
            " ./wendelin build component/mariadb and slapos cache push FOLDER make"
        )
    own = environment.cluster.root["release_url"]
    url = own.replace("/software/wendelin/", "/software/wendelin-mariadb/")
    for computer in DATA_CENTERS:
        done = environment.slapos("supply", url, computer)
        assert done.returncode == 0, done.stderr

    def built() -> bool:
        software = [each for each in environment.master.status()["software"] if each["url"] == url]
        errors = [each["error"] for each in software if each["reported_state"] == "error"]
        assert not errors, errors
        return [each["reported_state"] for each in software] == ["available"] * len(DATA_CENTERS)

    wait_for(built, "the release is built", BUILD_TIME)
    return url


@pytest.fixture(scope="module")
def requested(environment: Environment, release: str) -> Iterator[Cluster]:
    """Yield the cluster, which is gone afterwards."""
    done = environment.slapos("request", NAME, release, "--parameters", *PARAMETERS)
    assert done.returncode == 0, done.stderr
    cluster = Cluster(environment, NAME)

    def is_there() -> bool:
        return bool(cluster.root["connection"].get("zodb-uri"))

    wait_for(is_there, "the cluster publishes where it is", BUILD_TIME)
    yield cluster
    done = environment.slapos("request", NAME, "--state", "destroyed")
    assert done.returncode == 0, done.stderr

    def is_gone() -> bool:
        names = [root["reference"] for root in environment.master.instances()]
        return NAME not in names

    wait_for(is_gone, "the cluster is gone", BUILD_TIME)


@pytest.fixture
def maria(requested: Cluster) -> Iterator[Cluster]:
    """Yield the cluster, well before and after the test."""
    requested.wait_until_well()
    yield requested
    requested.wait_until_well()


def ask(cluster: Cluster, node: str, statement: str) -> str:
    """Ask the MariaDB of a storage, as the user of its partition."""
    server = cluster.process(node, "mariadb")
    client = Path(server.exe()).with_name("mariadb")
    socket = cluster.folder(node) / "var/run/mariadb.sock"
    done = subprocess.run(
        [
            *(str(client), "--no-defaults", f"--socket={socket}", "--database=neo"),
            *("--batch", "--skip-column-names", f"--execute={statement}"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_objects_are_kept_in_innodb_by_each_storage(maria: Cluster) -> None:
    maria.write_objects("first")
    maria.check_objects("first")
    engines = (
        "SELECT DISTINCT ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()"
    )
    for storage in STORAGES:
        assert ask(maria, storage, engines) == "InnoDB"
        # NEO moves what is committed to its place a moment later.
        moved = partial(ask, maria, storage, "SELECT COUNT(*) > 200 FROM obj")
        wait_for(lambda ask_again=moved: ask_again() == "1", f"{storage} has the objects")
        asked = "SELECT @@innodb_flush_log_at_trx_commit, @@innodb_io_capacity"
        assert ask(maria, storage, asked) == "1\t321"


def test_each_storage_has_a_server_of_its_own_that_listens_on_no_port(maria: Cluster) -> None:
    servers = [maria.process(storage, "mariadb") for storage in STORAGES]
    assert {Path(server.exe()).name for server in servers} == {"mariadbd"}
    assert len({server.pid for server in servers}) == len(STORAGES)
    for storage, server in zip(STORAGES, servers, strict=True):
        assert Path(server.cwd()).is_relative_to(maria.folder(storage))
        assert [c for c in server.net_connections("inet") if c.status == psutil.CONN_LISTEN] == []


def test_promises_tell_that_the_servers_answer(maria: Cluster) -> None:
    promises = ("mariadb-answers", "mariadb-crashes", "mariadb-disk", "mariadb-logs-runs")
    wanted = [(storage, name) for storage in STORAGES for name in promises]
    found = maria.look_until(*wanted, is_red=False)
    assert "answers and has InnoDB" in found[STORAGES[0], "mariadb-answers"].message


def start_to_write(cluster: Cluster, name: str) -> subprocess.Popen[str]:
    """Start a client that counts up in the objects of that name."""
    cluster.write_objects(name)
    writer = cluster.start_python(str(OBJECTS), "use", name, "200")
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    return writer


def check_written(writer: subprocess.Popen[str]) -> None:
    """End a client, and check that it has read nothing wrong and lost no count."""
    writer.terminate()
    output, errors = writer.communicate(timeout=PATIENCE)
    lines = output.splitlines()
    assert lines[-1] == "0 wrong", output + errors
    counts = [int(line) for line in lines[:-1] if line.isdecimal()]
    # The numbers that were acknowledged: each is one more than the one before.
    assert counts == list(range(counts[0], counts[0] + len(counts)))


def test_kill_9_of_each_server_in_the_middle_of_commits_loses_nothing(
    maria: Cluster, tmp_path: Path, report: Report
) -> None:
    with (
        promised(maria, "one", tmp_path) as one,
        promised(maria, "another", tmp_path) as another,
    ):
        for storage in STORAGES:
            one.wait_for_commits()
            killed = maria.kill(storage, "mariadb")
            begin = time.monotonic()
            maria.successor(killed, storage, "mariadb")
            maria.wait_until_well()
            report(
                f"kill -9 of the server of {storage}: well {time.monotonic() - begin:.0f} s later"
            )
        one.wait_for_commits()
        another.wait_for_commits()
    report(f"one: {one.check()}; another: {another.check()}")
    check_copies(maria)


def test_a_full_disk_under_a_storage_is_told_stops_nothing_and_heals_when_there_is_room(
    environment: Environment, maria: Cluster, tmp_path: Path, report: Report
) -> None:
    storage = STORAGES[0]
    folder = maria.folder(storage) / "srv/mariadb"
    full = f"the disk of {folder} is full (free some, and it goes on by itself)"
    with environment.small_disk(folder, SMALL_DISK) as disk:
        maria.wait_until_well()
        with promised(maria, "full", tmp_path) as client:
            disk.leave(4)
            begin = time.monotonic()
            wait_for(lambda: list(copies(maria.state())) == [1] * 4, "the storage is lost")
            disk_is_full = {(storage, "mariadb-disk"): re.escape(full)}
            maria.look_until(*disk_is_full, is_red=True, says=disk_is_full, by_service=True)
            wait_for(lambda: full in maria.error(storage), "the master is told")
            report(f"full disk: the master was told {time.monotonic() - begin:.0f} s later")
            status = environment.slapos("cluster", "status", NAME)
            assert full in " ".join(status.stdout.split())
            # A server that ends on a full disk is not started there over and over, to abort.
            with contextlib.suppress(psutil.NoSuchProcess):
                maria.kill(storage, "mariadb")
            says = "MariaDB does not answer: .*" + re.escape(full)
            maria.look_until((storage, "mariadb-answers"), is_red=True, says=says)
            client.wait_for_commits()
            disk.leave(400)
            begin = time.monotonic()
            state = maria.wait_until_well()
            report(f"full disk: well {time.monotonic() - begin:.0f} s after there was room")
            assert list(copies(state)) == [2] * 4
            client.wait_for_commits()
        report(f"full disk: {client.check()}")
        check_copies(maria)


def test_a_storage_is_moved_to_another_computer_while_a_client_writes(
    environment: Environment, maria: Cluster
) -> None:
    writer = start_to_write(maria, "moved")
    before = maria.nodes()[STORAGES[0]]
    move = ("cluster", "move", before["guid"], "--yes", "--wait")
    done = environment.slapos(*move, seconds=MOVING_TIME)
    assert done.returncode == 0, done.stdout + done.stderr
    state = maria.wait_until_well()
    assert maria.computer(STORAGES[0]) != before["computer"]
    assert list(copies(state)) == [2] * 4
    check_written(writer)
    # Nothing of it is where it was: what is read comes from the server that was made anew.
    moved = partial(ask, maria, STORAGES[0], "SELECT COUNT(*) > 200 FROM obj")
    wait_for(lambda: moved() == "1", "the moved storage has the objects")
    maria.check_objects("moved")


def test_all_killed_at_once_have_all_that_was_acknowledged(maria: Cluster) -> None:
    maria.write_objects("before")
    programs = [("neo-master-0", "neo-master"), *((storage, "mariadb") for storage in STORAGES)]
    killed = [maria.kill(*program) for program in programs]
    for process, program in zip(killed, programs, strict=True):
        maria.successor(process, *program)
    maria.wait_until_well()
    maria.check_objects("before")


def test_a_damaged_ibdata1_is_told_by_promise_and_status_and_not_overwritten(
    environment: Environment, maria: Cluster
) -> None:
    storage = STORAGES[1]
    maria.write_objects("precious")
    path = maria.folder(storage) / "srv/mariadb/data/ibdata1"
    with environment.unattended(maria.computer(storage)):
        maria.kill(storage, "mariadb")
        good = path.read_bytes()
        damaged = good[:64] + b"\xff" * 200_000 + good[200_064:]
        path.write_bytes(damaged)
    maria.look_until(
        (storage, "mariadb-answers"),
        is_red=True,
        says="MariaDB does not answer; it said: .*ibdata1",
        by_service=True,
    )
    wait_for(lambda: "ibdata1" in maria.error(storage), "the master is told")
    status = environment.slapos("cluster", "status", NAME)
    assert "ibdata1" in status.stdout
    maria.check_objects("precious")
    assert path.read_bytes() == damaged
    path.write_bytes(good)


def test_another_engine_is_refused_after_creation(environment: Environment, maria: Cluster) -> None:
    done = environment.slapos("request", NAME, "--parameters", "storage-engine=rocksdb")
    assert done.returncode == 1
    sentence = "storage-engine: cannot be changed after creation (it is innodb, not rocksdb)"
    assert sentence in done.stderr
    assert maria.root["parameters"]["storage-engine"] == "innodb"


@pytest.mark.usefixtures("requested")
def test_an_unknown_setting_is_refused_with_the_nearest_one(environment: Environment) -> None:
    setting = "mariadb={innodb-io-capacty: 200}"
    done = environment.slapos("request", NAME, "--parameters", setting)
    assert done.returncode == 1
    assert "mariadb.innodb-io-capacty: unknown key, did you mean innodb-io-capacity?" in done.stderr


@pytest.mark.usefixtures("requested")
def test_relaxed_durability_is_planned_with_what_may_be_lost(environment: Environment) -> None:
    change = ("--parameters", "durability=relaxed")
    done = environment.slapos("cluster", "plan", NAME, *change)
    assert done.returncode == 2, done.stderr
    assert "Caution: durability relaxed: a computer that loses power" in done.stdout
    done = environment.slapos("cluster", "plan", NAME, *change, "--json")
    assert "loses power" in json.loads(done.stdout)["cautions"][0]


def test_a_release_without_mariadb_says_which_one_has_it(environment: Environment) -> None:
    done = environment.slapos(
        *("request", "other", "wendelin-cluster", "--parameters", "storage-engine=innodb")
    )
    assert done.returncode == 1
    assert (
        'storage-engine: "innodb" must be one of sqlite:'
        " this release lacks it, request software/wendelin-mariadb" in done.stderr
    )
