# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A preload of dask's programs: they follow the files of the partition's certificate.

dask reads the files when it starts, and lets whoever comes see its web page.
Started with ``--preload slapos_wendelin.neo.dask_tls``, and in a nanny also ``--preload-nanny``.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tornado.ioloop import PeriodicCallback

from slapos_wendelin.neo.followed_tls import INTERVAL, FollowedFiles, FollowedSocket

# dask imports this before it listens, and calls it after that: somebody may be there by then.
ssl.SSLContext.sslsocket_class = FollowedSocket


def followed_files_of(server: Any) -> FollowedFiles:
    """Return what follows the files of a server."""
    tls = server.security.get_tls_config_for_role(_role(server))
    files = [Path(tls[name]) for name in ("ca_file", "cert", "key")]
    page = getattr(getattr(server, "http_server", None), "ssl_options", None)
    if isinstance(page, ssl.SSLContext):
        page.verify_mode = ssl.CERT_REQUIRED

    def contexts() -> Iterator[ssl.SSLContext]:
        """Yield those of connections that the server makes, and of those that it takes."""
        yield server.connection_args["ssl_context"]
        for listener in server.listeners:
            yield listener.server_args["ssl_options"]
        if isinstance(page, ssl.SSLContext):
            yield page

    return FollowedFiles(files, contexts, logging.getLogger("distributed.tls"))


def _role(server: Any) -> str:
    """Return what dask calls a server in its settings of TLS."""
    return "scheduler" if type(server).__name__ == "Scheduler" else "worker"


def dask_setup(server: Any) -> None:
    """Begin to follow; dask calls this once the server listens."""
    if not server.connection_args.get("ssl_context"):
        return
    followed = followed_files_of(server)
    followed.look()
    server.periodic_callbacks["certificate"] = callback = PeriodicCallback(followed.look, INTERVAL)
    callback.start()
