# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A running master, and the real slap library to call it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import slapos.slap
from slapos.util import dumps

from slapos_wendelin.master.client import MasterClient
from slapos_wendelin.master.server import MasterServer

RELEASE = "https://example.org/software/neo/software.cfg"


class Cloud:
    """A running master with helpers that say in one line what tests do often."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = MasterClient(url)
        self.slap = slapos.slap.slap()
        self.slap.initializeConnection(url)

    def add_computer(self, reference: str, partitions: int = 2, **place: Any) -> None:
        """Register and format a computer."""
        self.client.put_computer(reference, **place)
        self.format(reference, [f"slappart{index}" for index in range(partitions)])

    def format(self, reference: str, partitions: list[str]) -> None:
        """Send what format sends."""
        self.slap.registerComputer(reference).updateConfiguration(
            dumps(
                {
                    "reference": reference,
                    "address": "127.0.0.1",
                    "netmask": "255.0.0.0",
                    "partition_list": [
                        {
                            "reference": name,
                            "address_list": [{"addr": f"10.0.0.{index}", "netmask": "255.0.0.0"}],
                            "tap": {"name": f"tap{index}"},
                        }
                        for index, name in enumerate(partitions)
                    ],
                }
            )
        )

    def request(self, reference: str, **options: object):
        """Request an instance as a user does."""
        return self.slap.registerOpenOrder().request(
            options.pop("release", RELEASE), reference, **options
        )

    def request_from(self, requester, reference: str, **options: object):
        """Request an instance as the recipe in another instance's partition does."""
        return self.partition(requester).request(
            options.pop("release", RELEASE),
            options.pop("software_type", "default"),
            reference,
            **options,
        )

    def partition(self, instance):
        """Return the partition of an instance as its computer's slapgrid sees it, read afresh."""
        document = self.slap.registerComputer(instance.slap_computer_id)
        return next(
            each
            for each in document.getComputerPartitionList()
            if each.getId() == instance.slap_computer_partition_id
        )

    def timestamp(self, instance) -> int:
        """Return the timestamp of an instance's partition, in microseconds."""
        text = self.partition(instance).getInstanceParameterDict()["timestamp"]
        return int(text.replace(".", ""))


@contextmanager
def serving(location: Path | str) -> Iterator[Cloud]:
    """Run a master in this process, in clear, for as long as the block runs."""
    server = MasterServer(location, "127.0.0.1", 0, plain=True)
    thread = threading.Thread(target=server.serve)
    thread.start()
    running = Cloud(server.url)
    try:
        yield running
    finally:
        running.client.close()
        server.stop()
        thread.join()
