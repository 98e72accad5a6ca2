# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""dask's programs with certificates of an authority that revokes one while they run."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import distributed
import pytest

from slapos_wendelin.free_ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: Seconds for what takes some, on a busy machine.
PATIENCE = 240

#: Seconds in which dask's programs look several times: they do so every 2 seconds.
SOME_LOOKS = 10

SETTINGS = """
[ca]
default_ca = authority
[authority]
database = index.txt
new_certs_dir = .
certificate = ca.crt
private_key = ca.key
default_md = sha256
default_days = 2
default_crl_days = 2
policy = any
rand_serial = yes
x509_extensions = member
[any]
commonName = supplied
[member]
keyUsage = critical, digitalSignature
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[req]
distinguished_name = any
x509_extensions = authority_itself
[authority_itself]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
"""

NEW_KEY = "-config settings -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"


class Certified:
    """An authority of OpenSSL's programs, and the files of those whom it knows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "settings").write_text(SETTINGS)
        (folder / "index.txt").touch()
        self._openssl(f"req -x509 {NEW_KEY} -keyout ca.key -out ca.crt -subj /CN=ca -days 2")
        self._publish()

    def add(self, name: str) -> distributed.Security:
        """Make a certificate; return what dask wants of it."""
        self._openssl(f"req {NEW_KEY} -keyout {name}.key -out {name}.csr -subj /CN={name}")
        self._openssl(f"ca -config settings -batch -notext -in {name}.csr -out {name}.crt")
        return distributed.Security(
            require_encryption=True,
            tls_ca_file=str(self.folder / "ca.pem"),
            tls_client_cert=str(self.folder / f"{name}.crt"),
            tls_client_key=str(self.folder / f"{name}.key"),
        )

    def revoke(self, name: str) -> None:
        """Put a certificate on the list."""
        self._openssl(f"ca -config settings -revoke {name}.crt")
        self._publish()

    def context(self, name: str) -> ssl.SSLContext:
        """Return the context of a connection that shows a certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.folder / "ca.crt")
        context.load_cert_chain(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        return context

    def options(self, name: str) -> list[str]:
        """Return the options of dask's programs."""
        files = {"ca-file": "ca.pem", "cert": f"{name}.crt", "key": f"{name}.key"}
        named = [f"--tls-{option}={self.folder / file}" for option, file in files.items()]
        return ["--protocol=tls", *named, "--preload=slapos_wendelin.neo.dask_tls"]

    def _publish(self) -> None:
        """Write what is trusted, as a node's folder has it."""
        self._openssl("ca -config settings -gencrl -out list.pem")
        new = self.folder / "ca.pem.new"
        new.write_text("".join((self.folder / name).read_text() for name in ("ca.crt", "list.pem")))
        new.replace(self.folder / "ca.pem")

    def _openssl(self, command: str) -> None:
        subprocess.run(
            ["openssl", *command.split()], cwd=self.folder, check=True, capture_output=True
        )


def eventually(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not reached in time"
        time.sleep(0.1)


@pytest.fixture
def certified(tmp_path: Path) -> Certified:
    made = Certified(tmp_path)
    made.add("nodes")
    return made


@pytest.fixture
def ports(tmp_path: Path, certified: Certified) -> Iterator[tuple[int, int]]:
    """A scheduler and a worker: the ports of the scheduler and of its page."""
    scheduler, page = free_ports(2)
    options = certified.options("nodes")
    own = ["--host=127.0.0.1", f"--port={scheduler}", f"--dashboard-address=127.0.0.1:{page}"]
    worker = [f"tls://127.0.0.1:{scheduler}", "--preload-nanny=slapos_wendelin.neo.dask_tls"]
    commands = (
        ["distributed.cli.dask_scheduler", *own, *options],
        ["distributed.cli.dask_worker", *worker, "--no-dashboard", "--nthreads=1", *options],
    )
    of_page = {"CA_FILE": "ca.pem", "CERT": "nodes.crt", "KEY": "nodes.key"}
    environment = {
        **os.environ,
        **{
            f"DASK_DISTRIBUTED__SCHEDULER__DASHBOARD__TLS__{name}": f"{tmp_path / file}"
            for name, file in of_page.items()
        },
    }
    started = [
        subprocess.Popen([sys.executable, "-m", *command], cwd=tmp_path, env=environment)
        for command in commands
    ]
    yield scheduler, page
    for each in reversed(started):
        each.terminate()
        each.wait(PATIENCE)


def page_of(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Return a connection to the web page of a scheduler that stays open after an answer."""
    opened = context.wrap_socket(socket.create_connection(("127.0.0.1", port), PATIENCE))
    opened.sendall(b"GET /health HTTP/1.1\r\nHost: scheduler\r\n\r\n")
    assert opened.recv(1 << 16).startswith(b"HTTP/1.1 200")
    return opened


def test_open_connections_of_who_is_revoked_end_and_no_others(
    certified: Certified, ports: tuple[int, int]
) -> None:
    address, page = f"tls://127.0.0.1:{ports[0]}", ports[1]
    users = {name: certified.add(name) for name in ("alice", "bob")}
    with ExitStack() as ended:
        alice, bob = (
            ended.enter_context(distributed.Client(address, security=each, timeout=PATIENCE))
            for each in users.values()
        )
        eventually(lambda: len(alice.scheduler_info()["workers"]) == 1)
        assert [each.submit(json.dumps, 1).result(PATIENCE) for each in (alice, bob)] == ["1"] * 2
        pages = {
            name: ended.enter_context(page_of(page, certified.context(name))) for name in users
        }
        of_alice, of_bob = alice.scheduler_comm.comm, bob.scheduler_comm.comm
        held = alice.submit(json.dumps, 2)
        assert held.result(PATIENCE) == "2"
        time.sleep(SOME_LOOKS / 2)
        assert not of_bob.closed()
        certified.revoke("bob")
        eventually(of_bob.closed)
        assert pages["bob"].recv(1) == b""
        time.sleep(SOME_LOOKS)
        assert bob.status != "running"
        assert not of_alice.closed()
        assert held.result(PATIENCE) == "2"
        assert alice.submit(json.dumps, 3).result(PATIENCE) == "3"
        pages["alice"].sendall(b"GET /health HTTP/1.1\r\nHost: scheduler\r\n\r\n")
        assert pages["alice"].recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_a_worker_whose_certificate_is_revoked_is_put_out(
    certified: Certified, ports: tuple[int, int], tmp_path: Path
) -> None:
    address = f"tls://127.0.0.1:{ports[0]}"
    security = certified.add("alice")
    certified.add("stolen")
    # It believes what it was told once, and follows no list.
    options = [each for each in certified.options("stolen") if "preload" not in each]
    command = ["distributed.cli.dask_worker", address, "--no-nanny", "--no-dashboard", *options]
    with (
        distributed.Client(address, security=security, timeout=PATIENCE) as alice,
        subprocess.Popen([sys.executable, "-m", *command, "--name=stolen"], cwd=tmp_path) as worker,
    ):
        try:
            eventually(lambda: len(alice.scheduler_info()["workers"]) == 2)
            certified.revoke("stolen")
            eventually(lambda: len(alice.scheduler_info()["workers"]) == 1)
            assert alice.submit(json.dumps, 1).result(PATIENCE) == "1"
        finally:
            worker.kill()
