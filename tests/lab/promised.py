# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients that write down what was promised to them, and the check that it was kept."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from cluster import Cluster
from environment import wait_for

HISTORY = Path(__file__).with_name("history.py")


class Promised:
    """A client that commits one number after the other, and what it was told of each."""

    def __init__(self, cluster: Cluster, name: str, log: Path) -> None:
        self.cluster = cluster
        self.name = name
        self.log = log

    def words(self, *events: str, since: float = 0.0) -> list[dict[str, Any]]:
        """Return what it has said of some events; a last line that is cut off is not said yet."""
        said = [json.loads(line) for line in self.log.read_text().split("\n")[:-1]]
        return [word for word in said if word["event"] in events and word["at"] >= since]

    def acknowledged(self, since: float = 0.0) -> list[dict[str, Any]]:
        """Return the commits that were acknowledged since a time."""
        return self.words("acknowledged", since=since)

    def wait_for_commits(self, count: int = 5) -> None:
        """Wait until so many more commits are acknowledged."""
        begin = time.monotonic()
        wait_for(lambda: len(self.acknowledged(begin)) >= count, f"{self.name} commits")

    def longest_pause(self) -> float:
        """Return the longest time between two acknowledged commits, in seconds."""
        times = [word["at"] for word in self.acknowledged()]
        return max((after - before for before, after in pairwise(times)), default=0.0)

    def check(self) -> str:
        """Check that what was acknowledged is there, once and in order, and nothing unknown.

        Returns how much that is.
        """
        done = self.cluster.python(str(HISTORY), "read")
        assert done.returncode == 0, done.stderr
        numbers = [int(n) for n in re.findall(rf"^{self.name} (\d+)$", done.stdout, re.MULTILINE)]
        wrong = [pair for pair in pairwise(numbers) if pair[0] >= pair[1]]
        assert not wrong, f"twice or in another order: {wrong}"
        acknowledged = {word["number"] for word in self.acknowledged()}
        assert acknowledged <= set(numbers), f"lost: {sorted(acknowledged - set(numbers))}"
        assert set(numbers) <= {word["number"] for word in self.words("begin")}
        return (
            f"{len(acknowledged)} commits acknowledged and found, {len(self.words('failed'))}"
            f" failed, longest pause {self.longest_pause():.1f} s"
        )


@contextlib.contextmanager
def promised(cluster: Cluster, name: str, folder: Path, kibibytes: int = 16) -> Iterator[Promised]:
    """Yield a client that writes, so much with each commit, until the end."""
    log = folder / f"{name}.json"
    with log.open("w") as output:
        command = (str(HISTORY), "write", name, str(kibibytes))
        process = cluster.start_python(*command, output=output)
    try:
        client = Promised(cluster, name, log)
        client.wait_for_commits()
        yield client
    finally:
        process.kill()
        process.wait()


def check_copies(cluster: Cluster) -> None:
    """Let NEO compare the copies: cells that differ would be called corrupted."""
    cluster.wait_until_well()
    cluster.neoctl("check", ":")
    begin = time.monotonic()
    while time.monotonic() < begin + 10:
        table = cluster.neoctl("print", "pt")
        assert "C" not in _cells(table), table
        time.sleep(0.5)


def _cells(table: str) -> str:
    """Return the letters of all cells."""
    return "".join(line.rpartition(" ")[2] for line in table.splitlines()[1:])
