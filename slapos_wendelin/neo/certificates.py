# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a program finds the certificate with which it uses a cluster.

A cluster publishes the name of what to look for, not a place: its address then means the same on
every machine. `neo://wendelin@HOST:PORT?certificates=NAME` is looked for in the folder that the
environment variable WENDELIN_CERTIFICATES names, else in ~/.slapos/certificates/NAME.
"""

from __future__ import annotations

import os
from pathlib import Path

from slapos_wendelin.neo.errors import DatabaseError

#: The option of an address.
OPTION = "certificates"

#: Names the folder, whatever the cluster is; nodes of a cluster have one only.
FOLDER_VARIABLE = "WENDELIN_CERTIFICATES"

#: The files of a folder: what is trusted, and the own key with its certificate.
AUTHORITY_FILE, IDENTITY_FILE = "ca.pem", "identity.pem"


def folder_of(name: str) -> Path:
    """Return the folder of the certificate for a cluster."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named else Path.home() / ".slapos" / OPTION / name


def files_in(folder: Path) -> tuple[str, str, str]:
    """Return the files as NEO wants them: what is trusted, the certificate, its key.

    :raises DatabaseError: when one is missing.
    """
    authority, identity = folder / AUTHORITY_FILE, folder / IDENTITY_FILE
    for path in (authority, identity):
        if not path.is_file():
            raise DatabaseError(
                f"there is no {path}, with which the cluster would let this program in",
                "get it with `slapos cluster certificate CLUSTER`, or name its folder in"
                f" {FOLDER_VARIABLE}",
            )
    return str(authority), str(identity), str(identity)
