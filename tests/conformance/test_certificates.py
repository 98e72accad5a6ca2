# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""NEO's programs with certificates of a cluster's authority, which change while they run."""

from __future__ import annotations

import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from neo_programs import PATIENCE, Cluster, begin_commit, commit, last_value, wait_until

from slapos_wendelin import cluster_identity
from slapos_wendelin.certificates import CLIENT, NODE, Subject, read_certificates, serial_of
from slapos_wendelin.master.authority import Authority
from slapos_wendelin.master.client import Document
from slapos_wendelin.master.cluster_authority import ClusterAuthority
from slapos_wendelin.master.signing import Revoked

#: Seconds in which nodes close the connections of who is on a new list: they look every 2 seconds.
BOUND = 10

#: What a node says first: the version of NEO's protocol in this series.
ANSWER = b"\0\0W\2"


class Certified:
    """An authority, and folders with certificates that it has signed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.cluster = ClusterAuthority(Authority(folder / "authority"), "SOFTINST-1")
        self.revoked: list[Revoked] = []
        #: What ends with the test.
        self.stack = ExitStack()

    def folder_of(self, kind: str, name: str) -> Path:
        """Return the folder of a subject, in which the certificate is kept good."""

        def certify(request: str) -> Document:
            subject = Subject(kind, f"SOFTINST-1/{name}")
            issued = self.cluster.signer.issue_from_request(request, subject)
            return {"certificate": issued.certificate, "authority": self.trusted}

        cluster_identity.keep(self.folder / name, self.trusted, certify)
        return self.folder / name

    @property
    def trusted(self) -> str:
        """What the master says is trusted."""
        return self.cluster.trust(self.revoked)

    def serial(self, name: str) -> str:
        """Return the serial number of a subject's certificate."""
        return serial_of(read_certificates(self.folder / name / "identity.pem")[0])

    def revoke(self, name: str) -> None:
        """Put the certificate of a subject on the list."""
        self.revoked.append(Revoked(self.serial(name), time.time()))


@pytest.fixture
def certified(tmp_path: Path) -> Iterator[Certified]:
    made = Certified(tmp_path / "certified")
    with made.stack:
        yield made


@pytest.fixture
def host(request: pytest.FixtureRequest) -> str:
    """The address of the cluster, of IPv6 unless the test says otherwise."""
    return getattr(request, "param", "[::1]")


@pytest.fixture
def cluster(neo_python: str, tmp_path: Path, certified: Certified, host: str) -> Iterator[Cluster]:
    """A cluster in which everybody shows a certificate."""
    folder = certified.folder_of(NODE, "nodes")
    with Cluster(Path(neo_python).parent, tmp_path, host=host, certificates=folder) as started:
        yield started


def call(cluster: Cluster, trusted: Path, *options: str) -> str:
    """Connect to the master by `openssl s_client`; return what that says until it has an answer.

    NEO's nodes speak first, once they have accepted the certificate of who calls.
    """
    address = cluster.masters
    command = ["openssl", "s_client", "-connect", address, "-CAfile", str(trusted / "ca.pem")]
    with subprocess.Popen(
        [*command, *options, "-ign_eof"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as client:
        assert client.stdout
        said = b""
        deadline = time.monotonic() + PATIENCE
        while ANSWER not in said and time.monotonic() < deadline:
            more = client.stdout.read1(65536)
            if not more:
                break
            said += more
        client.kill()
    return said.decode("latin-1")


def is_let_in(said: str) -> bool:
    """Tell whether NEO has answered."""
    return ANSWER.decode("latin-1") in said and "alert" not in said


def identity(folder: Path) -> tuple[str, ...]:
    """Return the options with which s_client shows a certificate."""
    return ("-cert", str(folder / "identity.pem"), "-key", str(folder / "identity.pem"))


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"], indirect=True)
def test_who_has_no_certificate_of_the_cluster_is_refused(
    cluster: Cluster, certified: Certified, tmp_path: Path
) -> None:
    alice = certified.folder_of(CLIENT, "alice")
    assert is_let_in(call(cluster, alice, *identity(alice)))
    nobody = call(cluster, alice)
    assert "certificate required" in nobody
    assert not is_let_in(nobody)
    foreign = Certified(tmp_path / "foreign").folder_of(CLIENT, "mallory")
    refused = call(cluster, alice, *identity(foreign))
    assert re.search("unknown ca|decrypt error|bad certificate", refused)
    assert not is_let_in(refused)


def test_a_renewed_certificate_is_used_without_a_stop(
    cluster: Cluster, certified: Certified
) -> None:
    alice = certified.folder_of(CLIENT, "alice")
    with cluster.client() as client:
        commit(client, 1)
        before = {name: process.pid for name, process in cluster.processes.items()}
        old = certified.serial("nodes")
        (certified.folder / "nodes" / "identity.pem").write_text("half a")
        assert is_let_in(call(cluster, alice, *identity(alice)))
        certified.folder_of(NODE, "nodes")
        assert certified.serial("nodes") != old
        shown = call(cluster, alice, *identity(alice), "-showcerts")
        presented = re.findall("-----BEGIN.*?-----END CERTIFICATE-----", shown, re.DOTALL)
        assert presented[0] in (certified.folder / "nodes" / "identity.pem").read_text()
        commit(client, 2)
        assert {name: process.pid for name, process in cluster.processes.items()} == before
        assert all(process.poll() is None for process in cluster.processes.values())
        assert last_value(client) == "value 2\n"
    assert cluster.state() == "RUNNING"


def test_who_is_revoked_is_refused_and_the_others_are_not(
    cluster: Cluster, certified: Certified
) -> None:
    alice, bob = (certified.folder_of(CLIENT, name) for name in ("alice", "bob"))
    with cluster.client() as client:
        commit(client, 1)
        certified.revoke("bob")
        certified.folder_of(NODE, "nodes")
        refused = call(cluster, alice, *identity(bob))
        assert "revoked" in refused
        assert not is_let_in(refused)
        assert is_let_in(call(cluster, alice, *identity(alice)))
        commit(client, 2)
        assert last_value(client) == "value 2\n"
    assert cluster.state() == "RUNNING"


def connections(client: subprocess.Popen[str]) -> set[tuple[str, int]]:
    """Return the own ends of all open connections of a client."""
    return {
        each.laddr
        for each in psutil.Process(client.pid).net_connections("tcp")
        if each.status == psutil.CONN_ESTABLISHED
    }


def commit_for(client: subprocess.Popen[str], seconds: float) -> float:
    """Commit again and again for some time; return how long the slowest one took."""
    end = time.monotonic() + seconds
    slowest, value = 0.0, 100
    while (began := time.monotonic()) < end:
        commit(client, value)
        value += 1
        slowest = max(slowest, time.monotonic() - began)
    return slowest


def test_open_connections_of_who_is_revoked_are_closed_and_no_others(
    cluster: Cluster, certified: Certified
) -> None:
    certificates = str(certified.folder / "nodes")

    def client_of(name: str) -> subprocess.Popen[str]:
        uri = cluster.uri.replace(certificates, str(certified.folder_of(CLIENT, name)))
        return certified.stack.enter_context(cluster.client(uri))

    alice = client_of("alice")
    commit(alice, 1)
    # Not before: two clients that make the root of the database conflict.
    bob = client_of("bob")
    commit(bob, 2)
    of_alice, of_bob = connections(alice), connections(bob)
    # To the master and to both storages.
    assert len(of_alice) == len(of_bob) == 3
    pids = {name: process.pid for name, process in cluster.processes.items()}
    usual = commit_for(alice, 5)
    assert connections(bob) == of_bob
    certified.revoke("bob")
    certified.folder_of(NODE, "nodes")
    slowest = commit_for(alice, BOUND)
    # Within the bound where the machine is not busy.
    wait_until(lambda: not connections(bob) & of_bob)
    assert connections(alice) == of_alice
    # Nobody waits for who has gone; a disk may be busy for some seconds.
    assert slowest < usual + 15
    # It tries again and again, and is refused.
    begin_commit(bob, 3)
    commit_for(alice, BOUND)
    assert bob.stdout
    assert not select.select([bob.stdout], [], [], 0)[0]
    commit(alice, 4)
    assert last_value(alice) == "value 4\n"
    assert {name: process.pid for name, process in cluster.processes.items()} == pids
    assert cluster.state() == "RUNNING"
    assert re.search("certificate of the peer is revoked", cluster.log("m1"))
    bob.kill()


def test_a_node_whose_certificate_is_revoked_comes_back_with_another_one(
    neo_python: str, tmp_path: Path, certified: Certified
) -> None:
    nodes, lost = (certified.folder_of(NODE, name) for name in ("nodes", "leaked"))
    with Cluster(Path(neo_python).parent, tmp_path, certificates=nodes) as cluster:
        cluster.end("s2", signal.SIGTERM)
        cluster.commands["s2"] += [
            f"--{name}={lost / file}"
            for name, file in (("ca", "ca.pem"), ("cert", "identity.pem"), ("key", "identity.pem"))
        ]
        cluster.start("s2")
        wait_until(cluster.is_replicated)
        with cluster.client() as client:
            commit(client, 1)
            certified.revoke("leaked")
            certified.folder_of(NODE, "nodes")
            wait_until(lambda: not cluster.is_replicated())
            commit(client, 2)
            certified.folder_of(NODE, "leaked")
            wait_until(cluster.is_replicated)
            commit(client, 3)
            assert last_value(client) == "value 3\n"
        assert "certificate of the peer is revoked" in cluster.log("m1")
