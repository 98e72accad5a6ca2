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
from certified import PATIENCE, SOME_LOOKS, Certified, eventually

from slapos_wendelin.free_ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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


def session_at(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> ssl.SSLSession | None:
    """Return the session of a connection that was answered, or nothing where it is refused.

    :param session: is taken up again if the server does so.
    """
    try:
        with (
            socket.create_connection(("127.0.0.1", port), PATIENCE) as plain,
            context.wrap_socket(plain, session=session) as opened,
        ):
            # The scheduler speaks first, its page does not.
            opened.sendall(b"GET /health HTTP/1.1\r\nHost: scheduler\r\n\r\n")
            return opened.session if opened.recv(1) else None
    except OSError:
        return None


def test_who_is_revoked_takes_up_no_session_again(
    certified: Certified, ports: tuple[int, int]
) -> None:
    certified.add("bob")
    context = certified.context("bob")
    eventually(lambda: all(session_at(port, context) for port in ports))
    sessions = {port: session_at(port, context) for port in ports}
    certified.revoke("bob")
    for port, session in sessions.items():
        eventually(lambda port=port: session_at(port, certified.context("bob")) is None)
        assert session_at(port, context, session) is None


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
