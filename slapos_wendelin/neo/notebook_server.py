# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""JupyterLab for those who have a certificate of the cluster: the certificate is the login.

Where a cluster has no certificates, Jupyter's own token is: it is in a file of the partition.
The port with the page is the only one: kernels are reached by sockets in the runtime folder.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_core.paths import jupyter_config_dir, jupyter_data_dir, jupyter_runtime_dir
from jupyter_server.auth.identity import IdentityProvider, User
from jupyterlab.handlers.announcements import NeverCheckForUpdate
from jupyterlab.labapp import LabApp
from tornado.ioloop import PeriodicCallback
from traitlets.config import Config

from slapos_wendelin.errors import WendelinError
from slapos_wendelin.files import write_atomically
from slapos_wendelin.neo import near_kernels
from slapos_wendelin.neo.certificates import files_in
from slapos_wendelin.neo.followed_tls import INTERVAL, FollowedFiles, FollowedSocket
from slapos_wendelin.neo.notebook_example import write_example

if TYPE_CHECKING:
    from collections.abc import Sequence


class CertifiedIdentity(IdentityProvider):
    """Takes from the certificate of a connection who it is that asks; TLS has judged it."""

    @property
    def login_available(self) -> Any:
        """Offer no login: who has no certificate does not get here."""
        return False

    @property
    def logout_available(self) -> Any:
        """Offer no logout."""
        return False

    def get_user(self, handler: Any) -> User | None:
        """Return the user of the certificate."""
        certificate = handler.request.get_ssl_certificate()
        if not certificate:
            return None
        names = dict(pair for part in certificate["subject"] for pair in part)
        return User(names["commonName"].rpartition("/")[2])


def settings(host: str, port: int, notebooks: Path) -> Config:
    """Return the settings of Jupyter that a server has in any case."""
    return Config(
        ServerApp={
            "ip": host,
            "port": port,
            "port_retries": 0,
            "root_dir": str(notebooks),
            "open_browser": False,
        },
        # It would start programs that it finds, npm among them.
        LanguageServerManager={"autodetect": False},
        # Nothing is asked of anybody outside, and nothing installed from there.
        LabApp={
            "news_url": None,
            "check_for_updates_class": NeverCheckForUpdate,
            "extension_manager": "readonly",
        },
        **near_kernels.settings(),
    )


def protect(server: Any, files: tuple[str, str, str]) -> None:
    """Let nobody in without a good certificate, from now on and whenever the files change."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.sslsocket_class = FollowedSocket
    followed = FollowedFiles(map(Path, files), lambda: [context], server.log)
    followed.load()
    server.http_server.ssl_options = context
    PeriodicCallback(followed.look, INTERVAL).start()


def certified(files: tuple[str, str, str]) -> Config:
    """Return the settings for a cluster with certificates."""
    authority, certificate, key = files
    return Config(
        ServerApp={
            "certfile": certificate,
            "keyfile": key,
            "client_ca": authority,
            "identity_provider_class": CertifiedIdentity,
        },
        IdentityProvider={"token": ""},
    )


def with_token(path: Path) -> Config:
    """Return the settings for a cluster without certificates; the token stays as it was made."""
    if not path.exists():
        write_atomically(path, f"{secrets.token_hex(24)}\n", secret=True)
    return Config(IdentityProvider={"token": path.read_text().strip()})


def prepare(notebooks: Path) -> None:
    """Prepare what kernels need and, at the very first start, the example.

    :raises NotebookError: when that cannot be here.
    """
    # What is told of the kernel here comes before what the environment brings.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "0"
    data = Path(jupyter_data_dir())
    near_kernels.prepare_sockets(Path(jupyter_runtime_dir()))
    if not data.exists():
        write_example(notebooks)
    near_kernels.write_specification(data / "kernels" / "python3")
    page = Path(jupyter_config_dir(), "labconfig", "page_config.json")
    if not page.exists():
        page.parent.mkdir(parents=True, exist_ok=True)
        # It would ask each user whether to fetch news.
        disabled = {"@jupyterlab/apputils-extension:announcements": True}
        write_atomically(page, json.dumps({"disabledExtensions": disabled}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until the process is told to end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True, help="HOST:PORT of the page")
    parser.add_argument("--notebooks", required=True, type=Path, help="folder of the notebooks")
    login = parser.add_mutually_exclusive_group(required=True)
    login.add_argument("--certificates", type=Path, help="folder of the node's certificate")
    login.add_argument("--token-file", type=Path, help="made when it is missing")
    given = parser.parse_args(arguments)
    host, _, port = given.address.rpartition(":")
    config = settings(host.strip("[]"), int(port), given.notebooks)
    try:
        prepare(given.notebooks)
        files = files_in(given.certificates) if given.certificates else None
        config.merge(certified(files) if files else with_token(given.token_file))
        server = LabApp.initialize_server(config=config)
        # It would hold the token once more.
        server.no_browser_open_file = True
        if files:
            protect(server, files)
    except (WendelinError, OSError) as error:
        print(f"notebook: {error}", file=sys.stderr)
        return 1
    server.start()
    return 0


if __name__ == "__main__":
    sys.exit(main())
