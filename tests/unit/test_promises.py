# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Promises of every program go red when it dies or its port closes, and say why."""

import contextlib
import os
import queue
import socket
import ssl
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from slapos_wendelin import cluster_identity
from slapos_wendelin.certificates import NODE, Subject
from slapos_wendelin.free_ports import free_ports
from slapos_wendelin.master.authority import Authority, Lifetimes
from slapos_wendelin.master.cluster_authority import ClusterAuthority
from slapos_wendelin.promise import disk, port, process
from slapos_wendelin.promise.base import BrokenPromiseError


@pytest.fixture
def promise(tmp_path, monkeypatch):
    """Make a promise as slapgrid does."""
    monkeypatch.setattr(port, "START_TIME", 0.2)
    # Silence is no fault, so what is refused has to be so in time.
    monkeypatch.setattr(port, "ANSWER_TIME", 60.0)

    def make(module, **configuration):
        config = {key.replace("_", "-"): value for key, value in configuration.items()}
        return module.RunPromise(
            {
                "queue": queue.Queue(),
                "name": "promise.py",
                "path": str(tmp_path / "promise.py"),
                "partition-folder": str(tmp_path),
                **config,
            }
        )

    return make


@pytest.fixture
def program(tmp_path):
    """A program that works in the partition's folder and tells its process id."""
    with subprocess.Popen(["sleep", "1000"], cwd=tmp_path) as running:
        (tmp_path / "program.pid").write_text(f"{running.pid}\n")
        yield running
        running.kill()


def process_promise(promise, tmp_path):
    return promise(
        process, program="program", pid_file=str(tmp_path / "program.pid"), folder=str(tmp_path)
    )


def test_a_running_program_is_green(promise, program, tmp_path):
    assert process_promise(promise, tmp_path).check() == f"program runs as process {program.pid}"


def test_a_killed_program_is_red_and_its_last_words_are_told(promise, program, tmp_path):
    (tmp_path / ".slappart0_program-1a2b.log").write_text("starting\ncannot bind: in use\n")
    program.kill()
    program.wait()
    with pytest.raises(BrokenPromiseError, match="does not run; it said: cannot bind: in use"):
        process_promise(promise, tmp_path).check()


def test_a_program_that_was_never_started_is_red(promise, tmp_path):
    with pytest.raises(BrokenPromiseError, match="was never started"):
        process_promise(promise, tmp_path).check()


def test_another_program_with_the_same_process_id_is_no_excuse(promise, tmp_path):
    (tmp_path / "program.pid").write_text(str(os.getpid()))
    with pytest.raises(BrokenPromiseError, match="does not run"):
        process_promise(promise, tmp_path).check()


def test_an_open_port_is_green_and_a_closed_one_is_red(promise):
    (number,) = free_ports(1)
    address = f"127.0.0.1:{number}"
    with socket.create_server(("127.0.0.1", number)):
        assert promise(port, addresses=address).check() == f"{address} listens"
    with pytest.raises(BrokenPromiseError, match=f"nothing listens at {address}"):
        promise(port, addresses=address).check()


class Greeter:
    """A server that lets in who has a certificate of its cluster, and greets."""

    def __init__(self, folder: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(folder / "ca.pem")
        context.load_cert_chain(folder / "identity.pem")
        self.server = context.wrap_socket(
            socket.create_server(("::1", 0), family=socket.AF_INET6), server_side=True
        )
        self.address = f"[::1]:{self.server.getsockname()[1]}"
        self.is_over = False
        self.thread = threading.Thread(target=self.serve)

    def serve(self) -> None:
        """Greet until the socket is shut down."""
        while not self.is_over:
            # Callers may be strangers, and go when they like.
            with contextlib.suppress(OSError), self.server.accept()[0] as caller:
                caller.sendall(b"hello")

    def __enter__(self) -> str:
        self.thread.start()
        return self.address

    def __exit__(self, *_: object) -> None:
        self.is_over = True
        self.server.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.server.close()


def certified(folder: Path, life: timedelta = timedelta(days=90)) -> Path:
    """Return a folder with the certificate of a node of a cluster of its own."""
    cluster = ClusterAuthority(Authority(folder, replace(Lifetimes(), node=life)), "SOFTINST-1")

    def certify(request: str) -> dict[str, str]:
        subject = Subject(NODE, "SOFTINST-1/SOFTINST-2")
        issued = cluster.signer.issue_from_request(request, subject)
        return {"certificate": issued.certificate, "authority": cluster.trust([])}

    cluster_identity.keep(folder / "node", cluster.trust([]), certify)
    return folder / "node"


def test_a_node_of_the_cluster_is_green_and_another_one_is_red(promise, tmp_path):
    ours, others = certified(tmp_path / "ours"), certified(tmp_path / "others")
    with Greeter(ours) as address:
        found = promise(port, addresses=address, certificates=str(ours)).check()
        assert found == f"{address} listens"
        with pytest.raises(BrokenPromiseError, match="certificate verify failed"):
            promise(port, addresses=address, certificates=str(others)).check()
        # Who trusts the server but has another cluster's certificate is refused.
        (others / "ca.pem").write_text((ours / "ca.pem").read_text())
        with pytest.raises(BrokenPromiseError, match="unknown ca"):
            promise(port, addresses=address, certificates=str(others)).check()


class Page(BaseHTTPRequestHandler):
    """A web page that is at one path only."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer, as a server does that keeps the connection for another question."""
        self.send_response(200 if self.path == "/api" else 403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_web_page_is_green_when_it_is_there(promise):
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"127.0.0.1:{server.server_port}"
            found = promise(port, addresses=address, page="/api").check()
            assert found == f"{address} listens"
            with pytest.raises(BrokenPromiseError, match=r"it answers HTTP/1\.1 403 Forbidden"):
                promise(port, addresses=address, page="/other").check()
        finally:
            server.shutdown()
            thread.join()


def test_a_certificate_that_has_ended_is_red(promise, tmp_path):
    # Certificates reach ten minutes into the past.
    ended = certified(tmp_path / "ended", timedelta(minutes=-5))
    with (
        Greeter(ended) as address,
        pytest.raises(BrokenPromiseError, match="certificate has expired"),
    ):
        promise(port, addresses=address, certificates=str(ended)).check()


def test_a_broken_check_makes_the_result_red(promise):
    unhappy = promise(port, addresses="127.0.0.1:1")
    unhappy.run(check_anomaly=True)
    result = unhappy._GenericPromise__queue.get_nowait().item
    assert result.hasFailed()
    assert "nothing listens at 127.0.0.1:1" in result.message


def test_little_space_is_red_with_what_to_do(promise, tmp_path, monkeypatch):
    left = promise(disk, folder=str(tmp_path))
    assert left.check().endswith("are left")
    monkeypatch.setattr(disk, "BYTES", 2**60)
    monkeypatch.setattr(disk, "PART", 1.0)
    with pytest.raises(BrokenPromiseError, match=f"left on the disk of {tmp_path}: free some, or"):
        left.check()


def test_a_port_that_is_closed_since_the_disk_is_full_says_so(promise, tmp_path, monkeypatch):
    monkeypatch.setattr(port, "ROOM_FOR_DATABASE", 2**60)
    closed = promise(port, addresses="127.0.0.1:1", data=str(tmp_path))
    reason = f"nothing listens at 127.0.0.1:1; No space left on device: the disk of {tmp_path} is"
    with pytest.raises(BrokenPromiseError, match=reason):
        closed.check()


def test_a_program_is_started_where_there_is_room(tmp_path):
    command = [sys.executable, "-m", "slapos_wendelin.room", "--folder", str(tmp_path)]
    started = subprocess.check_output([*command, "--", "/bin/echo", "it", "runs"], text=True)
    assert started == "it runs\n"
