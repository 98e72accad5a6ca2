# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests to sign a certificate, as strangers send them: only their key counts."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from slapos_wendelin.master.errors import InvalidRequestError

#: The longest request for a certificate that is read, in characters.
_REQUEST_LIMIT = 16_384

_CURVES = (ec.SECP256R1, ec.SECP384R1)
_RSA_SIZES = range(2048, 8193)


def public_key_of(request: str) -> CertificatePublicKeyTypes:
    """Return the public key of a request for a certificate.

    :raises InvalidRequestError: when the request cannot be read, its key is weak, or whoever made
        it does not have the key.
    """
    remedy = "send a PEM certificate signing request for a P-256 key"
    if len(request) > _REQUEST_LIMIT:
        raise InvalidRequestError(
            f"the certificate signing request has {len(request)} characters", remedy
        )
    try:
        parsed = x509.load_pem_x509_csr(request.encode())
        key = parsed.public_key()
        strong = _is_strong(key)
        # A key that is refused is not worth the work of checking its signature.
        signed = strong and parsed.is_signature_valid
    except Exception as error:
        # The library has many errors of its own for what it cannot read.
        raise InvalidRequestError(
            "the certificate signing request cannot be read", remedy
        ) from error
    if not strong:
        raise InvalidRequestError("the key of the certificate signing request is weak", remedy)
    if not signed:
        raise InvalidRequestError(
            "the certificate signing request is not signed with its own key", remedy
        )
    return key


def _is_strong(key: CertificatePublicKeyTypes) -> bool:
    """Say whether a key may be certified."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, _CURVES)
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size in _RSA_SIZES
    return isinstance(key, ed25519.Ed25519PublicKey)
