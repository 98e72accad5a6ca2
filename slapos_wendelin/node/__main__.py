# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the service of a computer: ``python -m slapos_wendelin.node --configuration slapos.cfg``."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path

from slapos_wendelin.errors import WendelinError
from slapos_wendelin.master.client import MasterClient
from slapos_wendelin.node.configuration import read_configuration
from slapos_wendelin.node.service import NodeService


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description="The service of a computer.")
    parser.add_argument("--configuration", type=Path, required=True, help="its slapos.cfg")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        configuration = read_configuration(options.configuration)
    except WendelinError as error:
        sys.exit(f"wendelin: {error}")
    service = NodeService(configuration, MasterClient(configuration.master_url))

    def stop(*_: object) -> None:
        # A signal handler must not wait for the child: run() does.
        threading.Thread(target=service.stop).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    service.run()


if __name__ == "__main__":
    main()
