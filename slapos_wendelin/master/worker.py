# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One of several processes of a master, which answer on one socket; the supervisor starts it."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import socket
import sys
import threading
from collections.abc import Sequence
from functools import partial

from slapos_wendelin.errors import WendelinError
from slapos_wendelin.master import callers, logs, running
from slapos_wendelin.master.options import add_options
from slapos_wendelin.master.siblings import Siblings
from slapos_wendelin.master.supervisor import METRICS_VARIABLE, READY

_log = logging.getLogger("slapos_wendelin.master")


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer requests until SIGTERM; return the exit status."""
    options = _parser().parse_args(arguments)
    for descriptor in (options.socket, options.line, options.inbox, *options.outbox):
        os.set_inheritable(descriptor, False)
    logs.configure(options.log_level, options.log_format, options.worker)
    line = socket.socket(fileno=options.line)
    threading.Thread(target=_end_with_supervisor, args=(line,), daemon=True).start()
    try:
        return _run(options, line)
    except WendelinError as error:
        line.sendall(json.dumps({"message": error.message, "remedy": error.remedy}).encode())
        return error.exit_status


def _parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m slapos_wendelin.master.worker",
        description="Part of a master, which starts it with a socket; not for use alone.",
    )
    add_options(parser)
    parser.add_argument("--worker", type=int, required=True, metavar="NUMBER")
    for name in ("--socket", "--line", "--inbox"):
        parser.add_argument(name, type=int, required=True, metavar="DESCRIPTOR")
    parser.add_argument("--outbox", type=int, action="append", default=[], metavar="DESCRIPTOR")
    return parser


def _run(options: argparse.Namespace, line: socket.socket) -> int:
    """Run the server on the socket that is there."""
    server = running.make_server(options, socket.socket(fileno=options.socket))
    siblings = Siblings(options.inbox, options.outbox)
    siblings.hear("contact", server.presence.hear)
    siblings.hear("callers", callers.forget)
    server.presence.tell = partial(siblings.tell, "contact")
    callers.tell_changes(partial(siblings.tell, "callers"))
    siblings.start()
    return running.run(server, partial(line.sendall, READY))


def _end_with_supervisor(line: socket.socket) -> None:
    """End at once when the supervisor has been killed, so that a new master finds the port free.

    As after any kill, what was answered is on the disk and clients repeat the rest.
    """
    line.recv(1)
    _log.error("killed reason=%s", "the master's first process was")
    shutil.rmtree(os.environ[METRICS_VARIABLE], ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
