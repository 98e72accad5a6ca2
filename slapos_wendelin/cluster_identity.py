# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder with the key and certificate of a node or a user of a cluster, kept good.

The key is made here and goes nowhere. Key and certificate are in one file, so that whoever reads
them while they are replaced has both of one time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from slapos_wendelin.certificates import (
    CertificateError,
    addresses_in,
    is_near_end,
    key_digest,
    key_text,
    make_key,
    make_request,
    read_certificates,
    read_key,
)
from slapos_wendelin.errors import CommandError
from slapos_wendelin.files import write_atomically
from slapos_wendelin.master.client import Document, MasterClient
from slapos_wendelin.neo.certificates import AUTHORITY_FILE, IDENTITY_FILE, OPTION


def keep(
    folder: Path,
    authority: str,
    certify: Callable[[str], Document],
    addresses: Iterable[str] = (),
) -> bool:
    """Write what is trusted, and a new key and certificate when the old ones will not do.

    :param folder: is made, for its owner only.
    :param authority: what is trusted, as the master says it.
    :param certify: has a signing request signed; the answer holds ``certificate`` and
        ``authority``.
    :param addresses: those that the certificate has to name.
    :returns: whether there is a new certificate.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    identity = folder / IDENTITY_FILE
    if is_good(identity, authority, addresses):
        _write_authority(folder / AUTHORITY_FILE, authority)
        return False
    key = make_key()
    answer = certify(make_request(key, "cluster"))
    certificate = x509.load_pem_x509_certificate(answer["certificate"].encode())
    if key_digest(certificate.public_key()) != key_digest(key.public_key()):
        raise CommandError(
            "the master's certificate is not for the key that it was asked for", "try again"
        )
    _write_authority(folder / AUTHORITY_FILE, answer["authority"])
    write_atomically(identity, key_text(key) + answer["certificate"], secret=True)
    return True


def keep_for_user(master: MasterClient, cluster: str, folder: Path | None = None) -> Document:
    """Keep the certificate good with which the user who calls the master uses a cluster.

    :param cluster: the root of its instance tree.
    :param folder: None for the one where clients of the cluster look.
    :returns: ``cluster`` (its name), ``folder``, ``renewed``, ``not_after`` and ``zodb-uri``.
    """
    trusted = master.cluster_of(cluster)
    place = (folder or Path.home() / ".slapos" / OPTION / trusted["name"]).absolute()
    renewed = keep(place, trusted["authority"], partial(master.certify_user, cluster))
    certificate = read_certificates(place / IDENTITY_FILE)[0]
    return {
        "cluster": trusted["name"],
        "folder": str(place),
        "renewed": renewed,
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "zodb-uri": master.instance(cluster)["connection"].get("zodb-uri", ""),
    }


def is_good(identity: Path, authority: str, addresses: Iterable[str] = ()) -> bool:
    """Say whether a key and its certificate will do for some time.

    :param addresses: those that the certificate has to name.
    """
    try:
        certificate = read_certificates(identity)[0]
        key = read_key(identity)
    except CertificateError:
        return False
    return (
        key.public_key() == certificate.public_key()
        and not is_near_end(certificate)
        and addresses_in(certificate).issuperset(addresses)
        and _is_issued_by(certificate, authority)
        and not any(
            each.get_revoked_certificate_by_serial_number(certificate.serial_number)
            for each in _lists(authority)
        )
    )


def _is_issued_by(certificate: x509.Certificate, authority: str) -> bool:
    """Say whether one of the trusted authorities has signed a certificate."""
    for each in x509.load_pem_x509_certificates(authority.encode()):
        try:
            certificate.verify_directly_issued_by(each)
        except (InvalidSignature, ValueError, TypeError):
            continue
        return True
    return False


def _write_authority(path: Path, authority: str) -> None:
    """Write what is trusted, unless the file says the same: whoever uses it reads it anew."""
    try:
        if _meaning(path.read_text()) == _meaning(authority):
            return
    except (OSError, ValueError):
        pass
    write_atomically(path, authority)


def _meaning(authority: str) -> list[bytes]:
    """Return what is trusted without the signatures of lists, which differ each time."""
    certificates = x509.load_pem_x509_certificates(authority.encode())
    return [
        *(each.public_bytes(Encoding.DER) for each in certificates),
        *(each.tbs_certlist_bytes for each in _lists(authority)),
    ]


_BEGIN, _END = "-----BEGIN X509 CRL-----", "-----END X509 CRL-----"


def _lists(authority: str) -> list[x509.CertificateRevocationList]:
    """Return the lists of revoked certificates among what is trusted."""
    return [
        x509.load_pem_x509_crl(f"{_BEGIN}{each.partition(_END)[0]}{_END}\n".encode())
        for each in authority.split(_BEGIN)[1:]
    ]
