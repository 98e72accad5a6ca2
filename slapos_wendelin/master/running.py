# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a server and runs it in the foreground."""

from __future__ import annotations

import argparse
import gc
import logging
import signal
import socket
import threading
from collections.abc import Callable

from slapos_wendelin.master import readiness
from slapos_wendelin.master.authority import Authority
from slapos_wendelin.master.options import split_listen
from slapos_wendelin.master.server import MasterServer

_log = logging.getLogger("slapos_wendelin.master")


def make_server(
    options: argparse.Namespace, listening: socket.socket | None = None
) -> MasterServer:
    """Make the server that the options of a master describe.

    :param listening: the socket to answer on; None to bind the one that the options name.
    :raises WendelinError: as `MasterServer`.
    """
    host, port = split_listen(options.listen)
    return MasterServer(
        options.database,
        host,
        port,
        authority=Authority(options.authority) if options.authority else None,
        names=options.name,
        plain=options.plain,
        lost_after=options.lost_after,
        listening=listening,
    )


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
