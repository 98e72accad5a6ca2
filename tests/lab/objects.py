# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects of known content in a cluster: ``objects.py write|check|use NAME COUNT``.

Runs with the Python of the analytics environment; the database is WENDELIN_ZODB_URI. ``use`` goes
on until it is told to stop (SIGTERM): it adds to a counter and reads an object each time.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from persistent.mapping import PersistentMapping

from slapos_wendelin.neo import client

if TYPE_CHECKING:
    from persistent import Persistent

URI = os.environ["WENDELIN_ZODB_URI"]


def content(name: str, number: int) -> bytes:
    """Return what object *number* has to hold: 16 KiB that nothing else holds."""
    return hashlib.shake_256(f"{name}/{number}".encode()).digest(16384)


def write(root: PersistentMapping, name: str, count: int) -> int:
    """Write all objects, each a persistent object of its own."""
    objects: dict[int, Persistent] = {
        number: PersistentMapping(content=content(name, number)) for number in range(count)
    }
    root[name] = PersistentMapping(objects)
    return count


def check(root: PersistentMapping, name: str, count: int) -> int:
    """Return how many of the objects are right."""
    objects = root[name]
    return sum(objects[n]["content"] == content(name, n) for n in range(count))


def use(name: str, count: int) -> None:
    """Write and read until SIGTERM; print how often, or what was wrong."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def step(root: PersistentMapping) -> tuple[int, bool]:
        counter = root.setdefault("counter", PersistentMapping(value=0))
        counter["value"] += 1
        number = counter["value"] % count
        return counter["value"], root[name][number]["content"] == content(name, number)

    first = last = 0
    wrong = 0
    while not stop.is_set():
        last, right = client.run(URI, step)
        first = first or last
        wrong += not right
        print("ready" if last == first else last, flush=True)
    print(f"{wrong} wrong", flush=True)


def main() -> None:
    """Do what the command line asks for."""
    action, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if action == "use":
        use(name, count)
    elif action == "write":
        print(client.run(URI, lambda root: write(root, name, count)), "written")
    else:
        print(client.run(URI, lambda root: check(root, name, count)), "right")
    client.close_databases()


if __name__ == "__main__":
    main()
