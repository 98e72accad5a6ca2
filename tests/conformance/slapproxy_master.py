# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our master where slapos.core's tests of slapproxy expect slapproxy.

The tests set up ``slapos.proxy.views.app`` with a configuration and call its test client, or start
``slapos proxy`` and call its port. Both get the real application of the master on a database of its
own, in the file that the configuration names.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import slapos.proxy
from cheroot.server import HTTPServer
from flask import Flask
from slapos.tests.test_slapproxy import CliMasterMixin, TestAppSession
from slapproxy_dialect import Adaptations, Client

from slapos_wendelin.master.application import create_application
from slapos_wendelin.master.client import MasterClient
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.server import MasterServer

#: The computer that the tests' configuration names; slapproxy knows it from the start.
COMPUTER = "computer"


class Configuration(dict[str, Any]):
    """The configuration of the application; products that are set in it come into the catalog."""

    def __init__(self, master: StandIn) -> None:
        super().__init__(multimaster={})
        self._master = master

    def __setitem__(self, name: str, value: Any) -> None:
        """Set a value."""
        super().__setitem__(name, value)
        if name == "software_product_list":
            self._master.put_products(value)


class StandIn:
    """Stands where the tests find slapproxy's Flask application."""

    def __init__(self, adaptations: Adaptations) -> None:
        self.config = Configuration(self)
        self.logger = logging.getLogger("slapproxy")
        self.adaptations = adaptations
        self._application: Flask | None = None
        self._database: Database | None = None

    def start(self, configuration: Any) -> None:
        """Serve the database that slapproxy's configuration names."""
        self.stop()
        self._database = Database(Path(configuration.database_uri))
        self._application = create_application(self._database, is_plain=True)
        self._application.test_client_class = Client
        self._application.test_client().put(f"/v1/computers/{COMPUTER}", json={})

    def stop(self) -> None:
        """Close the database."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def test_client(self) -> Client:
        """Return a client of the application."""
        assert self._application is not None
        client = self._application.test_client()
        assert isinstance(client, Client)
        client.adaptations = self.adaptations
        return client

    def test_request_context(self, *arguments: Any, **options: Any) -> Any:
        """Return a context as if a request came."""
        assert self._application is not None
        return self._application.test_request_context(*arguments, **options)

    def put_products(self, products: dict[str, str]) -> None:
        """Put products into the catalog."""
        for name, url in products.items():
            answer = self.test_client().put(f"/v1/products/{name}", json={"release_url": url})
            assert answer.status_code == 200, answer.text


class ServerProcess:
    """A master on a port, where the tests expect the process of ``slapos proxy``."""

    def __init__(self, database: Path) -> None:
        self._server = MasterServer(database, "127.0.0.1", 0, plain=True)
        self._thread = threading.Thread(target=self._server.serve)
        self._thread.start()
        self.url = self._server.url.rstrip("/")
        client = MasterClient(self._server.url)
        client.put_computer(COMPUTER)
        client.close()

    def terminate(self) -> None:
        """Stop serving."""
        self._server.stop()

    def wait(self) -> None:
        """Wait for the end of serving."""
        self._thread.join()


def _start_process(case: Any) -> None:
    """Start a master on any free port, and correct the port in the case's configuration file."""
    case.proxy_process = ServerProcess(Path(case.proxy_db))
    file = Path(case.slapos_cfg)
    file.write_text(file.read_text().replace(case.proxyaddr, case.proxy_process.url))
    case.proxyaddr = case.proxy_process.url
    case.app = TestAppSession(case.proxyaddr)


@contextmanager
def in_place_of_slapproxy() -> Iterator[Adaptations]:
    """Put the master in the place of slapproxy; give what was adapted until the end."""
    adaptations = Adaptations()
    master = StandIn(adaptations)
    with (
        patch.object(slapos.proxy.views, "app", master),
        patch.object(slapos.proxy, "setupFlaskConfiguration", master.start),
        patch.object(CliMasterMixin, "startProxy", _start_process),
        # How long an idle server takes to see that it shall stop, in seconds.
        patch.object(HTTPServer, "expiration_interval", 0.02),
        patch.dict("os.environ", SLAPOS_TEST_IPV4="127.0.0.1"),
    ):
        try:
            yield adaptations
        finally:
            master.stop()
