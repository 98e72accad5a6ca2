# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An authority of OpenSSL's programs, which revokes, and waiting for what comes of it."""

from __future__ import annotations

import ssl
import subprocess
import time
from typing import TYPE_CHECKING

import distributed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Seconds for what takes some, on a busy machine.
PATIENCE = 240

#: Seconds in which programs look several times: they do so every 2 seconds.
SOME_LOOKS = 10

SETTINGS = """
[ca]
default_ca = authority
[authority]
database = index.txt
new_certs_dir = .
certificate = ca.crt
private_key = ca.key
default_md = sha256
default_days = 2
default_crl_days = 2
policy = any
rand_serial = yes
x509_extensions = member
[any]
commonName = supplied
[member]
keyUsage = critical, digitalSignature
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[req]
distinguished_name = any
x509_extensions = authority_itself
[authority_itself]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
"""

NEW_KEY = "-config settings -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"


class Certified:
    """An authority of OpenSSL's programs, and the files of those whom it knows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "settings").write_text(SETTINGS)
        (folder / "index.txt").touch()
        self._openssl(f"req -x509 {NEW_KEY} -keyout ca.key -out ca.crt -subj /CN=ca -days 2")
        self._publish()

    def add(self, name: str) -> distributed.Security:
        """Make a certificate; return what dask wants of it."""
        self._openssl(f"req {NEW_KEY} -keyout {name}.key -out {name}.csr -subj /CN={name}")
        self._openssl(f"ca -config settings -batch -notext -in {name}.csr -out {name}.crt")
        return distributed.Security(
            require_encryption=True,
            tls_ca_file=str(self.folder / "ca.pem"),
            tls_client_cert=str(self.folder / f"{name}.crt"),
            tls_client_key=str(self.folder / f"{name}.key"),
        )

    def use(self, name: str) -> None:
        """Let a certificate be that of the folder, as a node has one."""
        new = self.folder / "identity.pem.new"
        texts = [(self.folder / f"{name}.{kind}").read_text() for kind in ("key", "crt")]
        new.write_text("".join(texts))
        new.replace(self.folder / "identity.pem")

    def revoke(self, name: str) -> None:
        """Put a certificate on the list."""
        self._openssl(f"ca -config settings -revoke {name}.crt")
        self._publish()

    def context(self, name: str) -> ssl.SSLContext:
        """Return the context of a connection that shows a certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.folder / "ca.crt")
        context.load_cert_chain(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        return context

    def options(self, name: str) -> list[str]:
        """Return the options of dask's programs."""
        files = {"ca-file": "ca.pem", "cert": f"{name}.crt", "key": f"{name}.key"}
        named = [f"--tls-{option}={self.folder / file}" for option, file in files.items()]
        return ["--protocol=tls", *named, "--preload=slapos_wendelin.neo.dask_tls"]

    def _publish(self) -> None:
        """Write what is trusted, as a node's folder has it."""
        self._openssl("ca -config settings -gencrl -out list.pem")
        new = self.folder / "ca.pem.new"
        new.write_text("".join((self.folder / name).read_text() for name in ("ca.crt", "list.pem")))
        new.replace(self.folder / "ca.pem")

    def _openssl(self, command: str) -> None:
        subprocess.run(
            ["openssl", *command.split()], cwd=self.folder, check=True, capture_output=True
        )


def eventually(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not reached in time"
        time.sleep(0.1)
