# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Masters as processes of their own, which can be killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from slapos_wendelin.errors import WendelinError
from slapos_wendelin.free_ports import free_ports
from slapos_wendelin.master.client import MasterClient

_PATIENCE = 240  # seconds


class MasterProcess:
    """A master that runs in the block."""

    def __init__(self, database: Path | str, port: int = 0, options: Sequence[str] = ()) -> None:
        """Say how to start it.

        :param port: 0 for any free one, which then stays the same.
        """
        self.port = port or free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}/"
        self._arguments = [
            "--plain",
            "--database",
            str(database),
            "--listen",
            f"127.0.0.1:{self.port}",
        ]
        self._arguments += ["--log-level", "error", *options]
        self.process: subprocess.Popen[bytes] | None = None
        #: Where its standard error goes; None for that of the tests.
        self.log: Path | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.launch()
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with MasterClient(self.url, timeout=5) as client:
                    client.health()
            except WendelinError:
                time.sleep(0.05)
            else:
                return
        self.kill()
        raise AssertionError("the master does not answer")

    def launch(self, **environment: str) -> None:
        """Start it without waiting, with more variables in its environment."""
        command = [sys.executable, "-m", "slapos_wendelin.master", *self._arguments]
        with ExitStack() as files:
            log = None if self.log is None else files.enter_context(self.log.open("ab"))
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stderr=log, env={**os.environ, **environment}
            )

    def kill(self) -> None:
        """End it as a power cut does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
