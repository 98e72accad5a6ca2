# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the master's authority and the owners of its certificates have in common.

A certificate's file holds the certificate first and then that of the authority, so that its owner
also has what to check the master with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificateIssuerPublicKeyTypes,
    CertificatePublicKeyTypes,
    PrivateKeyTypes,
)
from cryptography.x509.oid import NameOID

from slapos_wendelin.errors import WendelinError

#: The part of its life before whose end a certificate is renewed.
_RENEWED_PART = 1 / 3

#: The longest common name that X.509 knows, in bytes.
_COMMON_NAME_LIMIT = 64

_SUBJECT_PREFIX = "urn:slapos-wendelin:"

#: The kinds of subjects in a cluster: an instance that is a node of it, and a user who uses it.
NODE, CLIENT = "node", "client"


class CertificateError(WendelinError):
    """A file holds no certificate or key that can be used."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a certificate is for.

    :param kind: computer, user or partition; in a cluster node or client.
    :param name: the computer's reference, the user's name, the guid of the partition's instance; in
        a cluster the guid of its root and, after a slash, that of the instance or the user's name.
    """

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def common_name(self) -> str:
        """What tools show: the subject, shortened when it is longer than X.509 allows."""
        return _common_name(str(self))

    @property
    def uri(self) -> str:
        """The whole subject, as it stands among the alternative names of the certificate."""
        return f"{_SUBJECT_PREFIX}{self.kind}:{quote(self.name, safe='')}"


def _common_name(text: str) -> str:
    """Return a text as a common name; a long one is cut, with a digest of the whole at its end."""
    encoded = text.encode()
    if len(encoded) <= _COMMON_NAME_LIMIT:
        return text
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    return f"{encoded[: _COMMON_NAME_LIMIT - len(digest) - 1].decode(errors='ignore')}~{digest}"


def subject_of(certificate: x509.Certificate) -> Subject | None:
    """Return whom a certificate is for, or None when it does not say."""
    for uri in _names_in(certificate).get_values_for_type(x509.UniformResourceIdentifier):
        if uri.startswith(_SUBJECT_PREFIX):
            kind, _, name = uri.removeprefix(_SUBJECT_PREFIX).partition(":")
            return Subject(kind, unquote(name))
    return None


def addresses_in(certificate: x509.Certificate) -> set[str]:
    """Return the IP addresses that a certificate names."""
    return {str(each) for each in _names_in(certificate).get_values_for_type(x509.IPAddress)}


def _names_in(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    """Return the names in a certificate beside that of its subject."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return x509.SubjectAlternativeName([])


def serial_of(certificate: x509.Certificate) -> str:
    """Return the serial number as it is written everywhere: in hexadecimal digits."""
    return f"{certificate.serial_number:x}"


def fingerprint_of(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate in hexadecimal digits."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def key_digest(key: CertificatePublicKeyTypes | CertificateIssuerPublicKeyTypes) -> str:
    """Return the SHA-256 of a public key in hexadecimal digits."""
    encoded = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(encoded).hexdigest()


def end_of(certificate: x509.Certificate) -> float:
    """Return when a certificate ends, in seconds since the epoch."""
    return certificate.not_valid_after_utc.timestamp()


def is_near_end(certificate: x509.Certificate, now: datetime | None = None) -> bool:
    """Say whether less than a third of a certificate's life is left."""
    now = now or datetime.now(UTC)
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_after_utc - now < life * _RENEWED_PART


def make_key() -> ec.EllipticCurvePrivateKey:
    """Return a new private key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_text(key: PrivateKeyTypes) -> str:
    """Return a private key as text, unencrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def certificate_text(*certificates: x509.Certificate) -> str:
    """Return certificates as text, one after the other."""
    return "".join(each.public_bytes(serialization.Encoding.PEM).decode() for each in certificates)


def make_request(key: ec.EllipticCurvePrivateKey, name_of_caller: str) -> str:
    """Return a request for a certificate for a key; who gets it is for the authority to say."""
    attribute = x509.NameAttribute(NameOID.COMMON_NAME, _common_name(name_of_caller))
    name = x509.Name([attribute])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def read_certificates(path: Path) -> Sequence[x509.Certificate]:
    """Return the certificates of a file, the first one first.

    :raises CertificateError: when the file cannot be read or holds none.
    """
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds no certificate"
        raise CertificateError(
            f"the certificate {path} cannot be read: {reason}", "get a new one with a token"
        ) from error


def read_key(path: Path) -> PrivateKeyTypes:
    """Return the private key of a file.

    :raises CertificateError: when the file cannot be read or holds none.
    """
    try:
        return serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds no plain private key"
        raise CertificateError(
            f"the key {path} cannot be read: {reason}", "get a new certificate with a token"
        ) from error
