# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases by address, and transactions that are tried again."""

from __future__ import annotations

import mmap
import subprocess
import sys
import threading
import time
from urllib.parse import parse_qsl, urlsplit

import pytest
from conftest import needs_neo
from ZODB.POSException import ConflictError, ReadOnlyHistoryError

from slapos_wendelin.neo import client
from slapos_wendelin.neo.errors import DatabaseError, StorageUnavailableError
from slapos_wendelin.neo.servers import NeoCluster, ZeoServer

#: Seconds for what takes some, on a busy machine.
PATIENCE = 240


def put(value):
    return lambda root: root.__setitem__("value", value)


def get(root):
    return root["value"]


def test_a_process_opens_a_database_once(file_uri):
    assert client.open_database(file_uri) is client.open_database(file_uri)


def test_the_name_of_a_certificate_means_its_files_on_this_machine(tmp_path, monkeypatch):
    address = "neo://cluster@[::1]:1,[::1]:2?certificates=SOFTINST-1&compress=true"
    folder = tmp_path / ".slapos" / "certificates" / "SOFTINST-1"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WENDELIN_CERTIFICATES", raising=False)
    with pytest.raises(DatabaseError, match=f"there is no {folder}/ca.pem") as caught:
        client.open_database(address)
    assert "slapos cluster certificate" in caught.value.remedy
    for place in (folder, tmp_path / "of a node"):
        place.mkdir(parents=True)
        (place / "ca.pem").touch()
        (place / "identity.pem").touch()
    assert options_of(address) == {
        "ca": f"{folder}/ca.pem",
        "cert": f"{folder}/identity.pem",
        "key": f"{folder}/identity.pem",
        "compress": "true",
        "connection_cache_size_bytes": "33554432",
    }
    monkeypatch.setenv("WENDELIN_CERTIFICATES", str(tmp_path / "of a node"))
    assert options_of(address)["ca"] == f"{tmp_path}/of a node/ca.pem"


def options_of(address):
    """Return the options of an address as NEO gets them."""
    return dict(parse_qsl(urlsplit(client.complete_uri(address)).query))


def test_a_transaction_is_committed(uri):
    client.run(uri, put(5))
    assert client.run(uri, get) == 5


def test_a_function_that_raises_changes_nothing(file_uri):
    def fail(root):
        root["value"] = 1
        raise KeyError("of the function")

    with pytest.raises(KeyError, match="of the function"):
        client.run(file_uri, fail)
    assert "value" not in client.run(file_uri, dict)


def test_what_is_not_committed_is_dropped(file_uri):
    with client.connection(file_uri) as connection:
        connection.root()["value"] = 1
    assert "value" not in client.run(file_uri, dict)


def test_conflicts_are_tried_again_until_all_have_counted(server_uri):
    client.run(server_uri, put(0))

    def count():
        for _ in range(10):
            client.run(server_uri, lambda root: root.__setitem__("value", root["value"] + 1))

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.run(server_uri, get) == 30


def test_conflicts_that_never_end_are_given_up(file_uri):
    def conflict(_):
        raise ConflictError("always")

    with pytest.raises(StorageUnavailableError, match=r"gave up on file://.*ConflictError.*always"):
        client.run(file_uri, conflict, time_limit=0.3)


#: A process in which nothing but the main thread runs while that waits for the next number, so that
#: it has not heard of a commit when it is told that there is one.
DEAF = """
import mmap, sys
from slapos_wendelin.neo import client
uri, path = sys.argv[1:]
sys.setswitchinterval(30)
with open(path, "r+b") as file, mmap.mmap(file.fileno(), 2) as shared:
    for number in range(1, 11):
        while shared[0] != number:
            pass
        at = client.last_transaction(uri)
        print(*(client.run(uri, lambda root: root["value"], at=each) for each in (None, at)))
        shared[1] = number
"""


def test_what_was_committed_before_is_seen_by_every_process(server_uri, tmp_path):
    path = tmp_path / "shared"
    path.write_bytes(bytes(2))
    client.run(server_uri, put(0))
    with (
        subprocess.Popen(
            [sys.executable, "-c", DEAF, server_uri, path], stdout=subprocess.PIPE, text=True
        ) as process,
        path.open("r+b") as file,
        mmap.mmap(file.fileno(), 2) as shared,
    ):
        for number in range(1, 11):
            client.run(server_uri, put(number))
            shared[0] = number
            while shared[1] != number and process.poll() is None:
                time.sleep(0.01)
        assert process.communicate()[0].split() == [str(n) for n in range(1, 11) for _ in range(2)]


def test_an_earlier_moment_can_be_read(server_uri):
    client.run(server_uri, put(1))
    at = client.last_transaction(server_uri)
    client.run(server_uri, put(2))
    assert client.run(server_uri, get, at=at) == 1
    assert client.run(server_uri, get) == 2


def test_an_earlier_moment_cannot_be_written(file_uri):
    client.run(file_uri, put(1))
    at = client.last_transaction(file_uri)
    with pytest.raises(ReadOnlyHistoryError):
        client.run(file_uri, put(2), at=at)
    assert client.run(file_uri, get) == 1


def test_storage_that_comes_back_in_time_is_no_error(tmp_path):
    with ZeoServer(tmp_path) as server:
        client.run(server.uri, put(1))
        server.servers[0].kill()
        starter = threading.Timer(1.5, server.servers[0].start)
        starter.start()
        client.run(server.uri, put(2), time_limit=PATIENCE)
        starter.join()
        assert client.run(server.uri, get) == 2


@needs_neo
@pytest.mark.parametrize("which", ["masters", "storages"])
def test_a_neo_node_that_comes_back_in_time_is_no_error(tmp_path, which):
    with NeoCluster(tmp_path, storage_count=1) as cluster:
        client.run(cluster.uri, put(1))
        (node,) = getattr(cluster, which)
        node.kill()
        starter = threading.Timer(1, node.start)
        starter.start()
        client.run(cluster.uri, put(2), time_limit=PATIENCE)
        starter.join()
        assert client.run(cluster.uri, get) == 2


@needs_neo
def test_a_storage_with_a_replica_is_not_missed(tmp_path):
    with NeoCluster(tmp_path, storage_count=2, replicas=1) as cluster:
        client.run(cluster.uri, put(1))
        for node in cluster.storages:
            node.kill()
            client.run(cluster.uri, put(node.name), time_limit=PATIENCE)
            assert client.run(cluster.uri, get, time_limit=PATIENCE) == node.name
            node.start()
            wait_for_copies(cluster)


def wait_for_copies(cluster):
    """Wait until every storage can serve alone what the others have."""
    from neo.lib.protocol import CellStates  # noqa: PLC0415 - only where NEO is

    storage = client.open_database(cluster.uri).storage
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        storage.sync()
        table = storage.app.pt
        rows = [table.getCellList(number) for number in range(table.getPartitions())]
        if all(
            len(row) == 2 and all(cell.getState() == CellStates.UP_TO_DATE for cell in row)
            for row in rows
        ):
            return
        time.sleep(0.1)
    pytest.fail("the storages do not become copies of each other")


@needs_neo
def test_storage_that_stays_away_is_a_clear_error(tmp_path):
    with NeoCluster(tmp_path, storage_count=1) as cluster:
        cluster.stop()
        with pytest.raises(
            StorageUnavailableError, match=r"gave up on neo://test-.*see that its masters"
        ):
            client.run(cluster.uri, put(1), time_limit=1)


@pytest.mark.parametrize("uri", ["nonsense", "ftp://host/path", "neo://without-masters", ""])
def test_an_address_that_is_none_is_named(uri):
    with pytest.raises(DatabaseError, match="cannot use the database address"):
        client.run(uri, get)


def test_options_are_not_shown_in_messages():
    assert client.public_uri("zeo://host:1?username=u&password=p") == "zeo://host:1"


@pytest.mark.parametrize(
    ("uri", "completed"),
    [
        ("file:///a", "file:///a?connection_cache_size_bytes=33554432"),
        ("neo://n@m:1", "neo://n@m:1?connection_cache_size_bytes=33554432&compress=false"),
        ("neo://n@m:1?compress=true&connection_cache_size_bytes=1", None),
    ],
)
def test_an_address_gets_what_arrays_want(uri, completed):
    assert client.complete_uri(uri) == (completed or uri)
