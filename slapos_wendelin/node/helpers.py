# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes that work for an agent: started, started again when they die, and ended with it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from slapos_wendelin.node import channel

log = logging.getLogger(__name__)

#: Seconds between two starts of a process that dies again and again.
RESTART_PAUSE = 1.0
#: Seconds that a process gets to end when its input has ended.
STOP_TIME = 5.0


class Helper:
    """A process that reads commands and tells events."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        descriptors: Sequence[int],
        environment: dict[str, str],
        tell: Callable[[channel.Document], None],
    ) -> None:
        """Say how to start it; nothing runs yet.

        :param module: the name of its module, which is also that of the events of its start.
        :param descriptors: what it inherits.
        :param tell: is called from another thread with each event; with ``started`` at each start.
        """
        self._name = module.rpartition(".")[2]
        self._command = [sys.executable, "-P", "-m", module, *arguments]
        self._descriptors = list(descriptors)
        self._environment = environment
        self._tell = tell
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopping = threading.Event()

    @property
    def pid(self) -> int | None:
        """Its process id, while it runs."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def start(self) -> None:
        """Start it, and a thread that reads from it and starts it again."""
        self._start()
        threading.Thread(target=self._run, daemon=True).start()

    def send(self, document: dict[str, Any]) -> None:
        """Send a command; one that dies first is told of by another start."""
        process = self._process
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):
                process.stdin.write(json.dumps(document).encode() + b"\n")
                process.stdin.flush()

    def stop(self) -> None:
        """End it and what it has started."""
        self._is_stopping.set()
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        try:
            process.wait(STOP_TIME)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _start(self) -> None:
        """Start the process."""
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=self._descriptors,
            env=self._environment,
            cwd=os.sep,
        )
        self._tell({"event": "started", "helper": self._name})

    def _run(self) -> None:
        """Read events; start the process again when it has ended."""
        while True:
            process = self._process
            if process is None or process.stdout is None:
                return
            for line in process.stdout:
                try:
                    self._tell(json.loads(line))
                except ValueError:
                    log.warning("%s said: %r", self._name, line)
            status = process.wait()
            process.stdout.close()
            if self._is_stopping.is_set():
                return
            log.warning("%s ended with status %s and is started again", self._name, status)
            time.sleep(RESTART_PAUSE)
            if not self._is_stopping.is_set():
                self._start()
