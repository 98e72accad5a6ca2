# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the agent of a computer: ``python -m slapos_wendelin.node --configuration slapos.cfg``."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path

from slapos_wendelin.errors import WendelinError
from slapos_wendelin.master.client import MasterClient
from slapos_wendelin.node.configuration import NodeConfiguration, read_configuration
from slapos_wendelin.node.service import NodeService


def main() -> None:
    """Serve until SIGTERM; look at everything anew at SIGHUP."""
    parser = argparse.ArgumentParser(description="The agent of a computer.")
    parser.add_argument("--configuration", type=Path, required=True, help="its slapos.cfg")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        configuration = read_configuration(options.configuration)
        clients = [_client(configuration) for _ in range(3)]
    except WendelinError as error:
        sys.exit(f"wendelin: {error}")
    service = NodeService(configuration, *clients)
    stop = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stop.set())
    signal.signal(signal.SIGHUP, lambda *_: service.look_again())

    failures: list[BaseException] = []

    def serve() -> None:
        try:
            service.run()
        except BaseException as error:
            failures.append(error)
        finally:
            stop.set()

    # A thread that waits for the master's answer cannot be interrupted; it ends with the process.
    threading.Thread(target=serve, daemon=True).start()
    stop.wait()
    service.stop()
    if failures and isinstance(failures[0], WendelinError):
        sys.exit(f"wendelin: {failures[0]}")
    if failures:
        raise failures[0]


def _client(configuration: NodeConfiguration) -> MasterClient:
    """Return a client of the computer's master."""
    return MasterClient(
        configuration.master_url,
        ca_file=configuration.authority,
        certificate=configuration.certificate,
        key=configuration.key,
    )


if __name__ == "__main__":
    main()
