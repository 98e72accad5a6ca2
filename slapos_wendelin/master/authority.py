# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The master's own certificate authority: a folder with a key, and what it signs.

Several master processes may share the folder. Nothing here knows the database: whoever lets the
authority sign something keeps a record of it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote, unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificateIssuerPublicKeyTypes,
    CertificatePublicKeyTypes,
    PrivateKeyTypes,
)
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from slapos_wendelin.certificates import (
    NODE,
    CertificateError,
    Subject,
    certificate_text,
    end_of,
    fingerprint_of,
    is_near_end,
    key_digest,
    key_text,
    make_key,
    read_certificates,
    read_key,
    serial_of,
)
from slapos_wendelin.files import write_atomically
from slapos_wendelin.master.errors import AuthorityError
from slapos_wendelin.master.signing_requests import public_key_of

#: How far a certificate reaches into the past, for owners whose clock is late.
_CLOCK_TOLERANCE = timedelta(minutes=10)

#: How long a list of revoked certificates is good for.
_LIST_LIFETIME = timedelta(days=7)

_DNS_NAME = re.compile(
    r"(?=.{1,253}$)([a-z0-9_]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long certificates are good for."""

    authority: timedelta = timedelta(days=3650)
    user: timedelta = timedelta(days=90)
    computer: timedelta = timedelta(days=90)
    partition: timedelta = timedelta(days=90)
    server: timedelta = timedelta(days=90)
    #: Of a cluster: its authority, its nodes and its users.
    cluster: timedelta = timedelta(days=3650)
    node: timedelta = timedelta(days=90)
    client: timedelta = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that was just signed, with what is to be recorded of it."""

    subject: Subject
    serial: str
    fingerprint: str
    #: The SHA-256 of its public key.
    public_key: str
    #: Seconds since the epoch.
    issued_at: float
    not_after: float
    #: The certificate, then the authority's.
    certificate: str = field(repr=False)
    #: The private key; empty when its owner has it.
    key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Kept:
    """A certificate with its key, which the authority has kept."""

    certificate: x509.Certificate
    #: The certificate, then the authority's.
    text: str = field(repr=False)
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Revoked:
    """A certificate that is not good any more."""

    serial: str
    #: Seconds since the epoch.
    revoked_at: float


class Authority:
    """Signs certificates with the key in a folder."""

    def __init__(
        self, folder: Path, lifetimes: Lifetimes | None = None, title: str = "master authority"
    ) -> None:
        """Open the authority, or make it when the folder is new.

        :param folder: is made for its owner only, below a folder that exists.
        :param title: what the certificate of a new authority calls it.
        :raises AuthorityError: when the folder or what is in it cannot be used.
        """
        self.folder = folder
        self.lifetimes = lifetimes or Lifetimes()
        self._title = title
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            _check_closed(folder)
            with self.locked():
                self._key, self._certificate = self._open()
        except OSError as error:
            raise AuthorityError(
                f"the authority's folder {folder} cannot be used: {error.strerror}",
                "name a folder that this user may write to",
            ) from error

    @property
    def certificate(self) -> str:
        """The authority's certificate, with which others check what it signed."""
        return certificate_text(self._certificate)

    @property
    def own(self) -> x509.Certificate:
        """The authority's certificate itself."""
        return self._certificate

    @property
    def certificate_file(self) -> Path:
        """The file of the authority's certificate."""
        return self.folder / "ca.crt"

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the authority's certificate in hexadecimal digits."""
        return fingerprint_of(self._certificate)

    def issue_from_request(
        self, request: str, subject: Subject, lifetime: timedelta | None = None
    ) -> Issued:
        """Sign a certificate for the key of a request; whom it is for is said here, not there.

        :param lifetime: None for the usual one of the subject's kind.
        :raises InvalidRequestError: when the request cannot be read, its key is weak, or whoever
            made it does not have the key.
        """
        return self._issue(public_key_of(request), subject, lifetime)

    def issue_with_key(self, subject: Subject, lifetime: timedelta | None = None) -> Issued:
        """Make a key and sign a certificate for it."""
        key = make_key()
        return self._issue(key.public_key(), subject, lifetime, key_text(key))

    def server_certificate(self, names: Iterable[str]) -> Path:
        """Return a file with key, certificate and the authority's certificate for a master.

        The same file is returned until less than a third of the certificate's life is left.

        :param names: host names and addresses under which the master is called.
        :raises AuthorityError: for a name that is neither.
        """
        wanted = sorted({_checked_name(name) for name in names})
        digest = hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:16]
        path = self.folder / f"server-{digest}.pem"
        if not self._is_good_for_server(path):
            with self.locked():
                if not self._is_good_for_server(path):
                    self._write_server_certificate(path, wanted)
        return path

    def keep(self, issued: Issued) -> None:
        """Keep a certificate with the key that the authority made for it, to give them out again.

        There is one for a subject; the last one counts.
        """
        path = self._kept_file(issued.subject)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomically(path, issued.key + issued.certificate, secret=True)

    def kept(self, subject: Subject) -> Kept | None:
        """Return what was kept for a subject; None when there is nothing, or nothing whole."""
        path = self._kept_file(subject)
        try:
            certificate, issuer = read_certificates(path)
            key = read_key(path)
        except (CertificateError, ValueError):
            return None
        if issuer != self._certificate:
            return None
        return Kept(certificate, certificate_text(certificate, issuer), key_text(key))

    def forget(self, subject: Subject) -> None:
        """Remove what was kept for a subject."""
        self._kept_file(subject).unlink(missing_ok=True)

    def keepers(self, kind: str) -> list[str]:
        """Return the names of all subjects of a kind for whom something is kept."""
        return sorted(unquote(each.stem) for each in (self.folder / f"{kind}s").glob("[!.]*.pem"))

    def _kept_file(self, subject: Subject) -> Path:
        """Return the file of what is kept for a subject."""
        return self.folder / f"{subject.kind}s" / f"{quote(subject.name, safe='')}.pem"

    def revocation_list(self, revoked: Iterable[Revoked]) -> str:
        """Return the signed list of revoked certificates, for programs that check it themselves."""
        now = _now()
        return self._sign_list(revoked, now, now + _LIST_LIFETIME)

    def lasting_revocation_list(self, revoked: Sequence[Revoked]) -> str:
        """Return a list of revoked certificates that is good as long as the authority.

        Programs that check it must go on where no newer one can be had. It says the same whenever
        it is made for the same certificates.
        """
        made = self._certificate.not_valid_before_utc
        latest = max((int(each.revoked_at) for each in revoked), default=0)
        begin = max(made, datetime.fromtimestamp(latest, UTC) - _CLOCK_TOLERANCE)
        return self._sign_list(revoked, begin, self._certificate.not_valid_after_utc)

    def _sign_list(self, revoked: Iterable[Revoked], begin: datetime, end: datetime) -> str:
        """Sign a list of revoked certificates that is good from *begin* to *end*."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(begin)
            .next_update(end)
            .add_extension(self._authority_identifier, critical=False)
            .add_extension(x509.CRLNumber(int(begin.timestamp())), critical=False)
        )
        for each in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(int(each.serial, 16))
                .revocation_date(datetime.fromtimestamp(int(each.revoked_at), UTC))
                .build()
            )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    @property
    def _authority_identifier(self) -> x509.AuthorityKeyIdentifier:
        """What a signed document says of the key that signed it."""
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())

    def _issue(
        self,
        public_key: CertificatePublicKeyTypes,
        subject: Subject,
        lifetime: timedelta | None,
        key: str = "",
    ) -> Issued:
        """Sign a certificate with which the subject calls; a node of a cluster is called too."""
        usage = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if subject.kind == NODE:
            usage.append(ExtendedKeyUsageOID.SERVER_AUTH)
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(subject.uri)])
        signed = self._sign(
            public_key,
            subject.common_name,
            names,
            x509.ExtendedKeyUsage(usage),
            lifetime or getattr(self.lifetimes, subject.kind),
        )
        return Issued(
            subject=subject,
            serial=serial_of(signed),
            fingerprint=fingerprint_of(signed),
            public_key=key_digest(public_key),
            issued_at=_now().timestamp(),
            not_after=end_of(signed),
            certificate=certificate_text(signed, self._certificate),
            key=key,
        )

    def _write_server_certificate(self, path: Path, names: Sequence[str]) -> None:
        """Make a key and a certificate for a master."""
        key = make_key()
        certificate = self._sign(
            key.public_key(),
            "master",
            x509.SubjectAlternativeName([_general_name(name) for name in names]),
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
            self.lifetimes.server,
        )
        text = key_text(key) + certificate_text(certificate, self._certificate)
        write_atomically(path, text, secret=True)

    def _is_good_for_server(self, path: Path) -> bool:
        """Say whether a master can go on with the certificate that it has."""
        try:
            certificate, issuer = read_certificates(path)
        except (CertificateError, ValueError):
            return False
        return issuer == self._certificate and not is_near_end(certificate)

    def _sign(
        self,
        public_key: CertificatePublicKeyTypes,
        common_name: str,
        names: x509.SubjectAlternativeName,
        usage: x509.ExtendedKeyUsage,
        lifetime: timedelta,
    ) -> x509.Certificate:
        """Sign a certificate that signs no others and ends before the authority's."""
        now = _now()
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(common_name))
            .issuer_name(self._certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCK_TOLERANCE)
            .not_valid_after(min(now + lifetime, self._certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(public_key), critical=True)
            .add_extension(usage, critical=False)
            .add_extension(names, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(self._authority_identifier, critical=False)
        )
        return builder.sign(self._key, hashes.SHA256())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes and threads from writing to the folder."""
        with (self.folder / "lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _open(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        """Return key and certificate; make what is not there yet.

        The key is written first. A certificate is made from it, so that an interruption between the
        two is mended at the next start.
        """
        key_file = self.folder / "ca.key"
        if not key_file.exists():
            if self.certificate_file.exists():
                raise AuthorityError(
                    f"the key {key_file} is missing beside its certificate",
                    "put it back from a backup, or move the folder away and let all join anew",
                )
            write_atomically(key_file, key_text(make_key()), secret=True)
        _check_closed(key_file)
        try:
            key = _elliptic(read_key(key_file))
            if not self.certificate_file.exists():
                write_atomically(self.certificate_file, certificate_text(self._sign_own(key)))
            (certificate,) = read_certificates(self.certificate_file)
        except (CertificateError, ValueError) as error:
            raise AuthorityError(
                f"the authority in {self.folder} is damaged: {error}", "put it back from a backup"
            ) from error
        if key_digest(certificate.public_key()) != key_digest(key.public_key()):
            raise AuthorityError(
                f"{self.certificate_file} was not made with the key beside it",
                "put both back from one backup",
            )
        return key, certificate

    def _sign_own(self, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        """Sign the authority's own certificate, under a name that no other authority has."""
        now = _now()
        name = _name(f"slapos_wendelin {self._title} {secrets.token_hex(4)}")
        public_key = key.public_key()
        identifier = x509.SubjectKeyIdentifier.from_public_key(public_key)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCK_TOLERANCE)
            .not_valid_after(now + self.lifetimes.authority)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(public_key, authority=True), critical=True)
            .add_extension(identifier, critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
                critical=False,
            )
        )
        return builder.sign(key, hashes.SHA256())


def _elliptic(key: PrivateKeyTypes) -> ec.EllipticCurvePrivateKey:
    """Return a key of the one kind that the authority makes for itself."""
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError("its key is not an elliptic curve key")
    return key


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


def _checked_name(name: str) -> str:
    """Return a host name or an address in its one usual form."""
    try:
        return str(ip_address(name))
    except ValueError:
        if _DNS_NAME.fullmatch(name):
            return name.lower()
    raise AuthorityError(
        f"{name!r} is neither a host name nor an address", "use names such as master.example.org"
    )


def _general_name(name: str) -> x509.GeneralName:
    """Return a host name or an address as certificates hold it."""
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _now() -> datetime:
    """Return the time in whole seconds, as certificates hold it."""
    return datetime.now(UTC).replace(microsecond=0)


def _check_closed(path: Path) -> None:
    """Refuse a file or folder of secrets that others than its owner may use."""
    status = path.stat()
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or status.st_uid != os.geteuid():
        mode = "0700" if path.is_dir() else "0600"
        raise AuthorityError(
            f"{path} may be used by others than this user",
            f"make this user its owner, then: chmod {mode} {path}",
        )
