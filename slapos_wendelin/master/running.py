# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a server in the foreground."""

from __future__ import annotations

import gc
import logging
import signal
import threading
from collections.abc import Callable

from slapos_wendelin.master import readiness
from slapos_wendelin.master.server import MasterServer

_log = logging.getLogger("slapos_wendelin.master")


def run(server: MasterServer, tell_ready: Callable[[], None]) -> int:
    """Run a server until SIGTERM or SIGINT; return the exit status.

    :param tell_ready: is called when it answers.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    failures: list[BaseException] = []
    thread = threading.Thread(target=_serve, args=(server, stop, failures), name="serve")
    thread.start()
    # What is there now stays: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    tell_ready()
    stop.wait()
    readiness.tell(readiness.STOPPING)
    server.stop()
    thread.join()
    _log.info("stopped")
    return 1 if failures else 0


def _serve(server: MasterServer, stop: threading.Event, failures: list[BaseException]) -> None:
    """Serve, and end the program when serving fails."""
    try:
        server.serve()
    except BaseException as error:
        _log.exception("serving failed")
        failures.append(error)
    finally:
        stop.set()
