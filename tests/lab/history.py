# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commits that are promised to a client: ``history.py write NAME KIBIBYTES`` and ``read``.

Runs with the Python of the analytics environment; the database is WENDELIN_ZODB_URI. ``write``
commits numbers one after the other, with so much of random data each, and says of each when it is
begun, and whether it was acknowledged; it never tries the same again. ``read`` prints the
descriptions of all transactions, in their order.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from typing import Any

from persistent.mapping import PersistentMapping

from slapos_wendelin.neo import client

URI = os.environ["WENDELIN_ZODB_URI"]


def say(event: str, **what: Any) -> None:
    """Print something with the time."""
    print(json.dumps({"event": event, "at": time.monotonic(), **what}), flush=True)


def write(name: str, kibibytes: int) -> None:
    """Commit one number after the other, until this process is ended."""
    client.run(URI, lambda root: root.update({name: PersistentMapping()}))
    for number in itertools.count():
        say("begin", number=number)
        try:
            with client.connection(URI) as opened:
                manager = opened.transaction_manager
                manager.get().note(f"{name} {number}")
                # A new object each time: the data grows.
                data = PersistentMapping(data=os.urandom(kibibytes * 1024))
                opened.root()[name].update(number=number, data=data)
                manager.commit()
        except Exception as error:
            say("failed", number=number, error=repr(error))
            time.sleep(0.1)
        else:
            say("acknowledged", number=number)


def read() -> None:
    """Print the description of each transaction."""
    storage = client.open_database(URI).storage
    for record in storage.iterator():
        description = record.description or b""
        print(description.decode() if isinstance(description, bytes) else description)
    client.close_databases()


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2], int(sys.argv[3]))
    else:
        read()
