# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of examples/digits.py that something happens to while it writes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster import Cluster
from environment import wait_for

#: What the storages grow by before the run counts as writing, of about 128 MiB for all.
WRITING = 8 * 2**20
#: Seconds for a whole run, with its faults.
RUN_TIME = 600


class DigitsRun:
    """The example on a cluster: 32 blocks of 2 MiB and their predictions."""

    def __init__(self, cluster: Cluster, name: str, *, own_workers: bool = False) -> None:
        self.cluster = cluster
        self.process: subprocess.Popen[str] = cluster.start_python(
            *("examples/digits.py", "--small", "--json"),
            *("--name", f"{name}-{uuid.uuid4()}"),
            without=["WENDELIN_DASK_SCHEDULER"] if own_workers else [],
        )
        self.progress: list[str] = []
        self._size = self._stored()
        self._reader = threading.Thread(target=self._read_progress)
        self._reader.start()

    def wait_until_it_writes(self) -> None:
        """Wait until a part of the blocks is in the storages."""
        wait_for(self.has_written, "the example writes")

    def has_written(self) -> bool:
        """Return whether the storages have grown since the start."""
        self.check_writes()
        return self._stored() - self._size >= WRITING

    def check_writes(self) -> None:
        """Fail when the example ended, or has written all blocks."""
        assert self.process.poll() is None, self.said
        assert not any(re.match(r"load +32 of 32", line) for line in self.progress), self.said

    def result(self) -> dict[str, Any]:
        """Wait for the end, which has to be a good one, and return the result."""
        output, _ = self.process.communicate(timeout=RUN_TIME)
        self._reader.join()
        assert self.process.returncode == 0, f"{self.said}\n{output}"
        return json.loads(output)

    @property
    def said(self) -> str:
        """The progress until here."""
        return "".join(self.progress)

    def _read_progress(self) -> None:
        """Collect the progress, which comes on standard error."""
        stream = self.process.stderr
        self.process.stderr = None
        with contextlib.suppress(ValueError):
            for line in stream or ():
                self.progress.append(line)

    def _stored(self) -> int:
        """Return the size of all storages' databases in bytes."""
        folder = self.cluster.environment.home.root / "computers"
        return sum(_size_of(path) for path in folder.glob("*/inst/*/srv/neo.sqlite*"))


def _size_of(path: Path) -> int:
    """Return the size of a file; a journal of SQLite may have gone since it was found."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@contextlib.contextmanager
def writing(cluster: Cluster, name: str, *, own_workers: bool = False) -> Iterator[DigitsRun]:
    """Run the example; the body begins while it writes."""
    run = DigitsRun(cluster, name, own_workers=own_workers)
    try:
        run.wait_until_it_writes()
        yield run
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.process.pid, signal.SIGKILL)
        run.process.wait()
