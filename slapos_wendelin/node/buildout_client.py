# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let the server of forked buildouts run the buildout of a partition, where that is the same.

It is, when the script ``bin/buildout`` of the release is the one that buildout itself writes, for
the Python and the folders of the server. Every other buildout is started as slapgrid starts it.
"""

from __future__ import annotations

import ast
import logging
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from slapos.grid.exception import BuildoutFailedError
from slapos.grid.utils import SAFE_UMASK, LineLogger, getCleanEnvironment

from slapos_wendelin.node import channel

#: The script as zc.buildout writes it.
_SCRIPT = re.compile(
    r"#!(?P<python>[^\s]+)\n\s*import sys\nsys\.path\[0:0\] = (?P<folders>\[[^\]]*\])\s*"
    r"import zc\.buildout\.buildout\s*if __name__ == '__main__':\s*"
    r"sys\.exit\(zc\.buildout\.buildout\.main\(\)\)\s*"
)


class ForkedBuildouts:
    """Takes the place of slapos.core's function launchBuildout."""

    def __init__(self, questions: socket.socket, otherwise: Callable[..., None]) -> None:
        """Make the caller of a server.

        :param otherwise: slapos.core's function.
        """
        self._questions = questions
        self._otherwise = otherwise

    def launch(
        self,
        path: str,
        buildout_binary: str,
        logger: logging.Logger,
        additional_buildout_parameter_list: list[str] | None = None,
        *,
        debug: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Run the buildout in the folder *path*.

        Raises BuildoutFailedError when it fails, TimeoutExpired when it takes too long.
        """
        more = additional_buildout_parameter_list or []
        if debug or not is_ours(Path(buildout_binary)):
            self._otherwise(path, buildout_binary, logger, more, debug=debug, timeout=timeout)
            return
        folder = Path(path).stat()
        reading, writing = os.pipe()
        document = {
            "folder": path,
            "arguments": [buildout_binary, "-U", *more],
            "environment": getCleanEnvironment(logger=logger, home_path=path),
            "umask": SAFE_UMASK,
            "uid": folder.st_uid,
            "gid": folder.st_gid,
        }
        with (
            os.fdopen(reading, "rb", buffering=0) as output,
            channel.ask(self._questions, document, writing) as answer,
        ):
            os.close(writing)
            said = _follow(output.fileno(), logger, timeout, document["arguments"])
            ended = channel.receive(answer)
        if ended is None or ended[0]["status"] != 0:
            message = f"Failed to run buildout profile in directory {path!r}"
            logger.error(message)
            raise BuildoutFailedError(f"{message}:\n{said}\n")


def is_ours(script: Path) -> bool:
    """Return whether a script starts the buildout of this Python, from folders that it knows."""
    try:
        found = _SCRIPT.fullmatch(script.read_text())
    except OSError:
        return False
    if found is None or found["python"] != sys.executable:
        return False
    return set(ast.literal_eval(found["folders"])) <= set(sys.path)


def _follow(output: int, logger: logging.Logger, timeout: float | None, command: list[str]) -> str:
    """Log what a buildout says until it has said all; return it. Raises TimeoutExpired."""
    lines, pieces = LineLogger(logger), []
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        patience = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        if not select.select([output], [], [], patience)[0]:
            # The server kills it as soon as nobody waits for its end.
            raise subprocess.TimeoutExpired(command, timeout or 0.0, "".join(pieces))
        data = os.read(output, 1 << 16).decode(errors="replace")
        if not data:
            lines.flush()
            return "".join(pieces)
        lines.update(data)
        pieces.append(data)
