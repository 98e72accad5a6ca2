# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates and lists of revoked ones, as X.509 has them: RFC 5280."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificateIssuerPublicKeyTypes,
    CertificatePublicKeyTypes,
)
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from slapos_wendelin.master.errors import AuthorityError

#: How far a certificate reaches into the past, for owners whose clock is late.
CLOCK_TOLERANCE = timedelta(minutes=10)

_DNS_NAME = re.compile(
    r"(?=.{1,253}$)([a-z0-9_]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Revoked:
    """A certificate that is not good any more."""

    serial: str
    #: Seconds since the epoch.
    revoked_at: float


@dataclass(frozen=True, slots=True)
class Signer:
    """The key that signs, and the certificate with which others check what it has signed."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    certificate: x509.Certificate

    @property
    def _identifier(self) -> x509.AuthorityKeyIdentifier:
        """What a signed document says of the key that signed it."""
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())

    def sign(
        self,
        public_key: CertificatePublicKeyTypes,
        common_name: str,
        names: Iterable[x509.GeneralName],
        usage: Iterable[x509.ObjectIdentifier],
        lifetime: timedelta,
    ) -> x509.Certificate:
        """Sign a certificate that signs no others and ends before the signer's."""
        begin = now()
        builder = (
            _begun(public_key, _name(common_name), self.certificate.subject, begin)
            .not_valid_after(min(begin + lifetime, self.certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(public_key), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(self._identifier, critical=False)
        )
        return builder.sign(self.key, hashes.SHA256())

    def sign_list(self, revoked: Iterable[Revoked], begin: datetime, end: datetime) -> str:
        """Sign a list of revoked certificates that is good from *begin* to *end*."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(begin)
            .next_update(end)
            .add_extension(self._identifier, critical=False)
            .add_extension(x509.CRLNumber(int(begin.timestamp())), critical=False)
        )
        for each in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(int(each.serial, 16))
                .revocation_date(datetime.fromtimestamp(int(each.revoked_at), UTC))
                .build()
            )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def sign_own(
    key: ec.EllipticCurvePrivateKey, common_name: str, lifetime: timedelta
) -> x509.Certificate:
    """Sign the certificate of a key that signs others' certificates."""
    begin = now()
    name = _name(common_name)
    public_key = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public_key)
    builder = (
        _begun(public_key, name, name, begin)
        .not_valid_after(begin + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(public_key, authority=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
    )
    return builder.sign(key, hashes.SHA256())


def checked_name(name: str) -> str:
    """Return a host name or an address in its one usual form.

    :raises AuthorityError: when it is neither.
    """
    try:
        return str(ip_address(name))
    except ValueError:
        if _DNS_NAME.fullmatch(name):
            return name.lower()
    raise AuthorityError(
        f"{name!r} is neither a host name nor an address", "use names such as master.example.org"
    )


def general_name(name: str) -> x509.GeneralName:
    """Return a host name or an address as certificates hold it."""
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def now() -> datetime:
    """Return the time in whole seconds, as certificates hold it."""
    return datetime.now(UTC).replace(microsecond=0)


def _begun(
    public_key: CertificatePublicKeyTypes, subject: x509.Name, issuer: x509.Name, begin: datetime
) -> x509.CertificateBuilder:
    """Return what all certificates begin with."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - CLOCK_TOLERANCE)
    )


def _key_usage(
    key: CertificatePublicKeyTypes | CertificateIssuerPublicKeyTypes, *, authority: bool = False
) -> x509.KeyUsage:
    """Return what a key is for: to sign handshakes, or to sign certificates."""
    return x509.KeyUsage(
        digital_signature=not authority,
        key_encipherment=isinstance(key, rsa.RSAPublicKey),
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    """Return a distinguished name that is a common name only."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
