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
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote, unquote

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificatePublicKeyTypes,
    PrivateKeyTypes,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

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
from slapos_wendelin.master.signing import (
    CLOCK_TOLERANCE,
    Revoked,
    Signer,
    checked_name,
    general_name,
    now,
    sign_own,
)
from slapos_wendelin.master.signing_requests import public_key_of

#: How long a list of revoked certificates is good for.
_LIST_LIFETIME = timedelta(days=7)


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
                self._signer = self._open()
        except OSError as error:
            raise AuthorityError(
                f"the authority's folder {folder} cannot be used: {error.strerror}",
                "name a folder that this user may write to",
            ) from error

    @property
    def certificate(self) -> str:
        """The authority's certificate, with which others check what it signed."""
        return certificate_text(self._signer.certificate)

    @property
    def own(self) -> x509.Certificate:
        """The authority's certificate itself."""
        return self._signer.certificate

    @property
    def certificate_file(self) -> Path:
        """The file of the authority's certificate."""
        return self.folder / "ca.crt"

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the authority's certificate in hexadecimal digits."""
        return fingerprint_of(self._signer.certificate)

    def issue_from_request(
        self,
        request: str,
        subject: Subject,
        lifetime: timedelta | None = None,
        addresses: Iterable[str] = (),
    ) -> Issued:
        """Sign a certificate for the key of a request; whom it is for is said here, not there.

        :param lifetime: None for the usual one of the subject's kind.
        :param addresses: where the subject is called, for callers that compare.
        :raises InvalidRequestError: when the request cannot be read, its key is weak, or whoever
            made it does not have the key.
        """
        return self._issue(public_key_of(request), subject, lifetime, addresses=addresses)

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
        wanted = sorted({checked_name(name) for name in names})
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
        if issuer != self._signer.certificate:
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
        begin = now()
        return self._signer.sign_list(revoked, begin, begin + _LIST_LIFETIME)

    def lasting_revocation_list(self, revoked: Sequence[Revoked]) -> str:
        """Return a list of revoked certificates that is good as long as the authority.

        Programs that check it must go on where no newer one can be had. It says the same whenever
        it is made for the same certificates.
        """
        made = self._signer.certificate.not_valid_before_utc
        latest = max((int(each.revoked_at) for each in revoked), default=0)
        begin = max(made, datetime.fromtimestamp(latest, UTC) - CLOCK_TOLERANCE)
        return self._signer.sign_list(revoked, begin, self._signer.certificate.not_valid_after_utc)

    def _issue(
        self,
        public_key: CertificatePublicKeyTypes,
        subject: Subject,
        lifetime: timedelta | None,
        key: str = "",
        addresses: Iterable[str] = (),
    ) -> Issued:
        """Sign a certificate with which the subject calls; a node of a cluster is called too."""
        usage = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if subject.kind == NODE:
            usage.append(ExtendedKeyUsageOID.SERVER_AUTH)
        names = [x509.UniformResourceIdentifier(subject.uri), *map(general_name, addresses)]
        signed = self._signer.sign(
            public_key,
            subject.common_name,
            names,
            usage,
            lifetime or getattr(self.lifetimes, subject.kind),
        )
        return Issued(
            subject=subject,
            serial=serial_of(signed),
            fingerprint=fingerprint_of(signed),
            public_key=key_digest(public_key),
            issued_at=now().timestamp(),
            not_after=end_of(signed),
            certificate=certificate_text(signed, self._signer.certificate),
            key=key,
        )

    def _write_server_certificate(self, path: Path, names: Sequence[str]) -> None:
        """Make a key and a certificate for a master."""
        key = make_key()
        certificate = self._signer.sign(
            key.public_key(),
            "master",
            [general_name(name) for name in names],
            [ExtendedKeyUsageOID.SERVER_AUTH],
            self.lifetimes.server,
        )
        text = key_text(key) + certificate_text(certificate, self._signer.certificate)
        write_atomically(path, text, secret=True)

    def _is_good_for_server(self, path: Path) -> bool:
        """Say whether a master can go on with the certificate that it has."""
        try:
            certificate, issuer = read_certificates(path)
        except (CertificateError, ValueError):
            return False
        return issuer == self._signer.certificate and not is_near_end(certificate)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes and threads from writing to the folder."""
        with (self.folder / "lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _open(self) -> Signer:
        """Return key and certificate of the authority; make what is not there yet.

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
                # No other authority has that name.
                name = f"slapos_wendelin {self._title} {secrets.token_hex(4)}"
                own = sign_own(key, name, self.lifetimes.authority)
                write_atomically(self.certificate_file, certificate_text(own))
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
        return Signer(key, certificate)


def _elliptic(key: PrivateKeyTypes) -> ec.EllipticCurvePrivateKey:
    """Return a key of the one kind that the authority makes for itself."""
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError("its key is not an elliptic curve key")
    return key


def _check_closed(path: Path) -> None:
    """Refuse a file or folder of secrets that others than its owner may use."""
    status = path.stat()
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or status.st_uid != os.geteuid():
        mode = "0700" if path.is_dir() else "0600"
        raise AuthorityError(
            f"{path} may be used by others than this user",
            f"make this user its owner, then: chmod {mode} {path}",
        )
