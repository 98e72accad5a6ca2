# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every port of a cluster speaks TLS with certificates of the cluster's own authority."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from cluster import Cluster, copies
from cryptography import x509
from environment import Environment, wait_for
from notebooks import notebook_server
from slapos.grid.slapgrid import COMPUTER_PARTITION_TIMESTAMP_FILENAME as TIMESTAMP

from slapos_wendelin.certificates import (
    CLIENT,
    Subject,
    end_of,
    read_certificates,
    serial_of,
    subject_of,
)
from slapos_wendelin.cluster_identity import keep
from slapos_wendelin.files import write_atomically
from slapos_wendelin.master.authority import Authority
from slapos_wendelin.master.client import Document
from slapos_wendelin.master.cluster_authority import ClusterAuthority

PAGE_PORT = 8787
#: Where a question is waited for.
PAGE_PORTS = (PAGE_PORT, 8888)
#: Ports of a node that it does not publish: of the dask worker's nanny, and the scheduler's page.
MORE_PORTS = {"dask-worker": 8788, "dask-scheduler": PAGE_PORT}


def ports(cluster: Cluster) -> dict[str, str]:
    """Return all that listens in the cluster: addresses, and what they are."""
    found = {}
    for name, node in cluster.nodes().items():
        address = node["connection"].get("address")
        if address:
            found[address] = name
            more = MORE_PORTS.get(re.sub(r"-\d+$", "", name))
            if more:
                found[f"{address.rpartition(':')[0]}:{more}"] = f"{name}, second port"
    return found


def is_page(address: str) -> bool:
    """Return whether a web page is there."""
    return int(address.rpartition(":")[2]) in PAGE_PORTS


def shake_hands(address: str, trusted: Path, identity: Path | None = None) -> str:
    """Connect by ``openssl s_client``; return the alert of the other side, or nothing.

    Where nobody listens for a moment, as a dask worker that is started again, it is tried again.
    """
    alerts = wait_for(lambda: _alerts(address, trusted, identity), f"somebody listens at {address}")
    return alerts[0]


def _alerts(address: str, trusted: Path, identity: Path | None) -> list[str]:
    """Return the alert of the other side, empty for none; no element when nobody is there.

    That side judges the certificate after the handshake, and before it answers what is sent.
    """
    options = [] if identity is None else ["-cert", str(identity), "-key", str(identity)]
    command = ["timeout", "60", "openssl", "s_client", "-connect", address, "-CAfile", str(trusted)]
    with subprocess.Popen(
        [*command, "-verify_return_error", "-quiet", "-no_ign_eof", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as client:
        assert client.stdin
        assert client.stdout
        # NEO and dask greet whom they let in; pages wait for a question.
        if is_page(address):
            with suppress(BrokenPipeError):
                client.stdin.write(b"GET / HTTP/1.0\r\n\r\n")
                client.stdin.flush()
        greeting = client.stdout.read(1)
        client.terminate()
        _, errors = client.communicate()
    if greeting:
        return [""]
    said = errors.decode()
    if "Connection refused" in said:
        return []
    alert = re.search(r"alert ([a-z ]+?):", said)
    assert alert, f"{address}: {said}"
    return [alert[1]]


@contextmanager
def held(address: str, trusted: Path, identity: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Hold a connection open; the process ends when the other side ends the connection."""
    command = ["timeout", "600", "openssl", "s_client", "-connect", address, "-quiet"]
    with subprocess.Popen(
        [*command, "-CAfile", str(trusted), "-cert", str(identity), "-key", str(identity)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as holding:
        try:
            assert holding.stdin
            assert holding.stdout
            if is_page(address):
                holding.stdin.write(f"GET / HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
                holding.stdin.flush()
            assert holding.stdout.read(1), address
            yield holding
        finally:
            holding.terminate()


@pytest.fixture(scope="module", autouse=True)
def notebook(environment: Environment) -> Iterator[None]:
    """Give the cluster a notebook server too."""
    with notebook_server(environment.cluster):
        yield


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Give a certificate of another cluster's authority."""
    other = ClusterAuthority(Authority(tmp_path / "authority"), "SOFTINST-1")

    def certify(request: str) -> Document:
        issued = other.signer.issue_from_request(request, Subject(CLIENT, "SOFTINST-1/mallory"))
        return {"certificate": issued.certificate, "authority": other.trust([])}

    keep(tmp_path / "foreign", other.trust([]), certify)
    return tmp_path / "foreign" / "identity.pem"


@pytest.fixture
def guest(environment: Environment, cluster: Cluster, tmp_path: Path) -> Iterator[Path]:
    """Give the folder of a second certificate of the environment's user."""
    folder = tmp_path / "guest"
    done = environment.slapos("cluster", "certificate", cluster.reference, str(folder))
    assert done.returncode == 0, done.stderr
    assert f"export WENDELIN_CERTIFICATES={folder}" in done.stdout
    yield folder
    shutil.rmtree(folder)


def test_who_has_no_certificate_or_a_foreign_one_is_refused_at_every_port(
    environment: Environment, cluster: Cluster, foreign: Path
) -> None:
    ours = environment.home.certificates
    master = environment.home.user
    listening = ports(cluster)
    assert len(listening) == 16
    for address, name in listening.items():
        assert not shake_hands(address, ours / "ca.pem", ours / "identity.pem"), name
        assert shake_hands(address, ours / "ca.pem") == "certificate required", name
        assert shake_hands(address, ours / "ca.pem", foreign) == "unknown ca", name
    both = foreign.with_name("master.pem")
    both.write_text(master.key.read_text() + master.certificate.read_text())
    assert shake_hands(address, ours / "ca.pem", both) == "unknown ca"


def test_keys_are_in_their_partitions_only(environment: Environment, cluster: Cluster) -> None:
    keys = {}
    for name in cluster.nodes():
        path = cluster.folder(name) / "etc" / "tls" / "identity.pem"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        keys[path] = path.read_text().splitlines()[1]
    assert len(set(keys.values())) == len(keys) == 13
    arguments = " ".join(environment.arguments())
    for path, key in keys.items():
        assert key not in arguments
        assert key not in str(environment.master.status())
        assert files_with(key, environment.home.root) == [path]


def files_with(text: str, folder: Path) -> list[Path]:
    """Return the files with a text, those of built parts left out."""
    left_out = [f"--exclude-dir={name}" for name in ("parts", "toolkit", "soft", "cache", "source")]
    command = ["grep", "-rlF", *left_out, "--", text, str(folder)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return [Path(line) for line in found.stdout.splitlines()]


def test_who_is_revoked_is_refused_everywhere_and_nothing_stops(
    environment: Environment, cluster: Cluster, guest: Path
) -> None:
    before = cluster.processes()
    addresses = ports(cluster)
    identity, trusted = guest / "identity.pem", guest / "ca.pem"
    assert {shake_hands(address, trusted, identity) for address in addresses} == {""}
    serial = serial_of(read_certificates(identity)[0])
    with ExitStack() as ended:
        open_ones = {
            name: ended.enter_context(held(address, trusted, identity))
            for address, name in addresses.items()
        }
        assert not [name for name, each in open_ones.items() if each.poll() is not None]
        done = environment.slapos("certificate", "revoke", serial, "--yes", "--reason", "lost")
        assert done.returncode == 0, done.stderr
        for address, name in addresses.items():
            refused = wait_for(lambda a=address: shake_hands(a, trusted, identity), name)
            assert refused == "certificate revoked", name
        for name, each in open_ones.items():
            wait_for(lambda e=each: e.poll() is not None, f"{name} ends an open connection")
    cluster.wait_until_well()
    assert cluster.processes() == before
    cluster.write_objects("after-revocation")
    cluster.check_objects("after-revocation")


def test_new_certificates_of_all_nodes_are_used_and_no_node_of_neo_stops(
    environment: Environment, cluster: Cluster
) -> None:
    # A dask worker that has lost its scheduler ends, and is started again.
    lasting = "(?!dask-worker)"
    before = cluster.processes(lasting)
    nodes = [name for name in cluster.nodes() if name != cluster.reference]
    files = {name: cluster.folder(name) / "etc" / "tls" / "identity.pem" for name in nodes}
    old = {name: serial_of(read_certificates(path)[0]) for name, path in files.items()}
    for serial in old.values():
        environment.master.revoke(serial, "renewed by hand")

    def are_new() -> bool:
        return all(serial_of(read_certificates(files[name])[0]) != old[name] for name in nodes)

    wait_for(are_new, "all nodes have new certificates")
    cluster.wait_until_well()
    assert cluster.processes(lasting) == before
    cluster.write_objects("after-renewal")
    cluster.check_objects("after-renewal")
    ours = environment.home.certificates
    for name in nodes:
        address = cluster.nodes()[name]["connection"]["address"]
        new = serial_of(read_certificates(files[name])[0])
        # A dask worker may be away just now: no promise is asked at that moment.
        wait_for(lambda a=address, n=new: presented(a, ours) == n, f"{name} shows its new one")


def test_nodes_that_were_off_until_their_certificates_had_ended_join_by_themselves(
    environment: Environment, cluster: Cluster
) -> None:
    computer = "tokyo"
    nodes = [
        name
        for name in cluster.nodes()
        if name != cluster.reference and cluster.computer(name) == computer
    ]
    files = [cluster.folder(name) / "etc" / "tls" / "identity.pem" for name in nodes]
    master = Authority(environment.home.authority.parent)
    guid = cluster.root["guid"]
    with environment.dark(computer):
        for name, path in zip(nodes, files, strict=True):
            let_end(path, ClusterAuthority(master, guid).signer)
            # Whose certificate has ended was not processed for long.
            os.utime(cluster.folder(name) / TIMESTAMP, (0, 0))
        for path in environment.home.partition_certificates(computer).glob("slappart*.crt"):
            let_end(path, master, path.with_suffix(".key"))
        cluster.write_objects("while-off")
    assert files
    # Each partition by itself: NEO has all copies as soon as the storage is back.
    for name, path in zip(nodes, files, strict=True):
        wait_for(
            lambda each=path: end_of(read_certificates(each)[0]) > time.time() + 86400,
            f"{name} has a new certificate",
        )
    state = cluster.wait_until_well()
    assert list(copies(state)) == [2] * 12
    cluster.check_objects("while-off")


def let_end(path: Path, authority: Authority, key: Path | None = None) -> None:
    """Put a certificate that has ended, of the same authority and subject, in the place of one."""
    subject = subject_of(read_certificates(path)[0])
    assert subject
    issued = authority.issue_with_key(subject, timedelta(seconds=1))
    if key is None:
        write_atomically(path, issued.key + issued.certificate, secret=True)
    else:
        write_atomically(key, issued.key, secret=True)
        write_atomically(path, issued.certificate)
    wait_for(lambda: time.time() > issued.not_after, "it has ended")


def presented(address: str, folder: Path) -> str:
    """Return the serial number of the certificate that a node shows, or none if it shows none."""
    identity = folder / "identity.pem"
    command = ["timeout", "60", "openssl", "s_client", "-connect", address]
    shown = subprocess.run(
        [*command, "-cert", str(identity), "-key", str(identity)],
        input=b"",
        capture_output=True,
        check=False,
        env=os.environ,
    ).stdout
    if b"BEGIN CERTIFICATE" not in shown:
        return ""
    return serial_of(x509.load_pem_x509_certificate(shown))
