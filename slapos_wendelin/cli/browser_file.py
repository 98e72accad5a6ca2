# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A key and its certificate as browsers import them."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import cast

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

from slapos_wendelin.certificates import read_certificates, read_key
from slapos_wendelin.errors import CommandError
from slapos_wendelin.files import write_atomically
from slapos_wendelin.neo.certificates import AUTHORITY_FILE, IDENTITY_FILE

#: How many random bytes are in a password.
_PASSWORD_BYTES = 12


def write_browser_file(folder: Path, name: str, path: Path) -> str:
    """Write the key and certificate of a folder as PKCS #12; return the password, kept nowhere.

    :param name: what the browser calls it.
    :param path: is replaced if it is there.
    :raises CommandError: when it cannot be written.
    """
    identity = folder / IDENTITY_FILE
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    content = pkcs12.serialize_key_and_certificates(
        name.encode(),
        cast("EllipticCurvePrivateKey", read_key(identity)),
        read_certificates(identity)[0],
        read_certificates(folder / AUTHORITY_FILE),
        BestAvailableEncryption(password.encode()),
    )
    try:
        write_atomically(path, content, secret=True)
    except OSError as error:
        raise CommandError(
            f"{path} cannot be written: {error.strerror}", "name another file"
        ) from error
    return password
