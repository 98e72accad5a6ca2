# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys, and the SSH servers of hosts."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from slapos_wendelin.lab.bare_system import UpperLayer

#: Who logs in to hosts.
ADMINISTRATOR = "admin"
PORT = 22

SERVER_CONFIGURATION = f"""\
Port {PORT}
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
AcceptEnv LANG LC_*
MaxStartups 100:30:200
MaxSessions 100
Subsystem sftp internal-sftp
"""


class KeyPair:
    """An Ed25519 key as OpenSSH writes it."""

    def __init__(self, comment: str) -> None:
        key = Ed25519PrivateKey.generate()
        self.private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        ).decode()
        public = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        #: Type and key, as known_hosts has them.
        self.public = public.decode()
        self.line = f"{self.public} {comment}\n"


def write_server(layer: UpperLayer, host_key: KeyPair, allowed: str) -> None:
    """Give a host its SSH server: a key of its own, and one public key that may log in."""
    layer.write("etc/ssh/sshd_config", SERVER_CONFIGURATION)
    layer.write("etc/ssh/ssh_host_ed25519_key", host_key.private, 0o600)
    layer.write("etc/ssh/ssh_host_ed25519_key.pub", host_key.line)
    home = Path("home", ADMINISTRATOR)
    folder = layer.folder / home / ".ssh"
    folder.mkdir(mode=0o700)
    layer.write(str(home / ".ssh" / "authorized_keys"), allowed, 0o600)
    for path in (folder, folder / "authorized_keys"):
        os.chown(path, 1000, 1000)


def log_in(
    connection: socket.socket, name: str, key: Path, known_hosts: Path, *, timeout: float
) -> paramiko.SSHClient:
    """Log in to the host *name* over a connection to its SSH server."""
    client = paramiko.SSHClient()
    client.load_host_keys(str(known_hosts))
    client.connect(
        name,
        username=ADMINISTRATOR,
        key_filename=str(key),
        sock=connection,
        timeout=timeout,
        banner_timeout=timeout,
        auth_timeout=timeout,
        allow_agent=False,
        look_for_keys=False,
    )
    return client
