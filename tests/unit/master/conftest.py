# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real master on a loopback port, and real databases."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from cheroot.server import HTTPServer
from database_servers import SERVERS, DatabaseServer
from master_cloud import Cloud, serving
from planning import make_template
from secure_cloud import SecureCloud
from slapos_command import stop_supervisord, write_configuration

from slapos_wendelin.master.authority import Authority
from slapos_wendelin.master.server import MasterServer


@pytest.fixture(autouse=True)
def log_of_the_test() -> Iterator[None]:
    """Take away the log of a master that a test has started in this process.

    It goes to what pytest captures of the test; later masters would write to what is closed.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def database_servers() -> Iterator[Callable[[str], DatabaseServer]]:
    """Start a server of a kind when it is first asked for."""
    with ExitStack() as ended:
        servers: dict[str, DatabaseServer] = {}

        def started(kind: str) -> DatabaseServer:
            if kind not in servers:
                servers[kind] = SERVERS[kind]()
                ended.callback(servers[kind].stop)
            return servers[kind]

        yield started


@pytest.fixture
def location(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    database_servers: Callable[[str], DatabaseServer],
) -> Path | str:
    """Give a new database: of SQLite, or of the kind that the test is parametrised with."""
    kind: str = getattr(request, "param", "sqlite")
    if kind == "sqlite":
        return tmp_path / "master.sqlite"
    return database_servers(kind).new_database()


@pytest.fixture
def cloud(location: Path | str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    # How long an idle server takes to see that it shall stop, in seconds.
    monkeypatch.setattr(HTTPServer, "expiration_interval", 0.02)
    with serving(location) as served:
        yield served


@contextmanager
def running(server: MasterServer) -> Iterator[None]:
    """Run a server in a thread."""
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield
    finally:
        server.stop()
        thread.join()


@pytest.fixture(scope="module")
def secure_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureCloud]:
    """A master with TLS, with an operator, a viewer and nothing else."""
    folder = tmp_path_factory.mktemp("secure")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HTTPServer, "expiration_interval", 0.02)
        authority = Authority(folder / "authority")
        server = MasterServer(folder / "master.sqlite", "127.0.0.1", 0, authority=authority)
        with running(server):
            cloud = SecureCloud(server.url, server._database, authority, folder)
            yield cloud
            cloud.close()


@pytest.fixture
def configuration(cloud: Cloud, tmp_path: Path) -> Iterator[Path]:
    """Give the slapos.cfg of the computer paris, which has four partitions."""
    yield write_configuration(tmp_path, cloud.url, partitions=4)
    stop_supervisord(tmp_path)


@pytest.fixture(scope="session")
def three_computers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the file of a database with three computers, to be copied."""
    path = tmp_path_factory.mktemp("three_computers") / "master.sqlite"
    make_template(path)
    return path
