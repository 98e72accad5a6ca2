# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real master on a loopback port."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cheroot.server import HTTPServer
from hypothesis import settings
from master_cloud import Cloud
from planning import make_template
from slapos_command import stop_supervisord, write_configuration

from slapos_wendelin.master.server import MasterServer

# How long an example takes depends on what else the machine does.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    # How long an idle server takes to see that it shall stop, in seconds.
    monkeypatch.setattr(HTTPServer, "expiration_interval", 0.02)
    server = MasterServer(tmp_path / "master.sqlite", "127.0.0.1", 0, plain=True)
    thread = threading.Thread(target=server.serve)
    thread.start()
    running = Cloud(server.url)
    yield running
    running.client.close()
    server.stop()
    thread.join()


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
