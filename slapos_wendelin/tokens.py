# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokens as they are given out: a secret, and by what its bearer recognises the master.

The second part is the fingerprint of the master's authority. So a computer that joins needs nothing
else to know that it speaks to the true master, before it tells the secret.
"""

from __future__ import annotations

import base64
import binascii

from slapos_wendelin.errors import ParameterError

_FINGERPRINT_SIZE = 32  # bytes of SHA-256


def join(secret: str, fingerprint: str) -> str:
    """Return a token.

    :param fingerprint: the SHA-256 of the authority's certificate in hexadecimal digits.
    """
    encoded = base64.urlsafe_b64encode(bytes.fromhex(fingerprint)).decode().rstrip("=")
    return f"{secret}.{encoded}"


def secret_of(token: str) -> str:
    """Return the secret of a token, which is all that the master needs of it."""
    return token.strip().partition(".")[0]


def fingerprint_of(token: str) -> str:
    """Return the fingerprint of the authority in hexadecimal digits.

    :raises ParameterError: when the token is not whole.
    """
    _, _, encoded = token.strip().partition(".")
    try:
        decoded = base64.b64decode(encoded + "=", altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        decoded = b""
    if len(decoded) != _FINGERPRINT_SIZE:
        raise ParameterError(
            "the token is not whole", "copy all of it: two parts with a dot in between"
        )
    return decoded.hex()
