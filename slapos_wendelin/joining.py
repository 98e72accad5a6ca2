# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Join a master with a token, and stay in.

A computer or a user makes its key itself and keeps it; only a request to sign leaves the machine.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import socket
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from slapos_wendelin import tokens
from slapos_wendelin.certificates import (
    CertificateError,
    is_near_end,
    key_digest,
    key_text,
    make_key,
    make_request,
    read_certificates,
    read_key,
)
from slapos_wendelin.errors import CommandError, WendelinError
from slapos_wendelin.files import write_atomically
from slapos_wendelin.master.client import Document, MasterClient, MasterUnreachableError
from slapos_wendelin.trust import UntrustedMasterError

#: How long to wait for the master's handshake, in seconds.
_TIMEOUT = 30.0

_log = logging.getLogger(__name__)


def join(
    url: str,
    token: str,
    *,
    certificate: Path,
    key: Path,
    name: str = "",
    ca_file: Path | None = None,
) -> Document:
    """Get a certificate with a token and write it; return what the master says of it.

    When it was interrupted it may be repeated: the key that is there already is used.

    :param certificate: the file to write; the authority's certificate follows in it.
    :param key: the file of the key, which is made when there is none.
    :param name: the computer's or the user's name; empty to leave that to the token.
    :param ca_file: the certificate of the master's authority; None to recognise it by the token.
    :raises UntrustedMasterError: when what answers is not the master of the token.
    :raises ParameterError: when the token is not whole.
    """
    with _authority(url, token, ca_file) as authority:
        secret = _own_key(key)
        with MasterClient(url, ca_file=authority) as master:
            answer = master.join(token.strip(), make_request(secret, name or "joining"), name)
        _write(certificate, answer["certificate"], secret, key)
    return answer


def renew_near_end(url: str, *, certificate: Path, key: Path, ca_file: Path | None = None) -> bool:
    """Get a new certificate when less than a third of the life of the old one is left.

    The key stays. Processes that try at the same time renew once.

    :returns: whether the certificate was renewed.
    """
    if not _needs_renewal(certificate):
        return False
    with _locked(certificate):
        if not _needs_renewal(certificate):
            return False
        secret = _elliptic(key)
        with MasterClient(url, ca_file=ca_file, certificate=certificate, key=key) as master:
            answer = master.renew(make_request(secret, "renewing"))
        _write(certificate, answer["certificate"], secret, key)
    _log.info("renewed %s, which is good until %s", certificate, answer["not_after"])
    return True


def renew_if_possible(
    url: str, *, certificate: Path | None, key: Path | None, ca_file: Path | None = None
) -> None:
    """Renew a certificate when it is time; warn when that fails, as the old one is still good."""
    if certificate is None or key is None or urlsplit(url).scheme != "https":
        return
    try:
        renew_near_end(url, certificate=certificate, key=key, ca_file=ca_file)
    except WendelinError as error:
        _log.warning("%s is not renewed: %s", certificate, error)
    except OSError as error:
        _log.warning("%s is not renewed: %s", certificate, error.strerror or error)


def presented_authority(url: str, fingerprint: str) -> str:
    """Return the certificate of the authority that a master presents, if it is the right one.

    Nothing is sent but the handshake.

    :param fingerprint: the SHA-256 of the certificate in hexadecimal digits.
    :raises UntrustedMasterError: when it is another one.
    """
    parts = urlsplit(url)
    if parts.scheme != "https":
        raise UntrustedMasterError(
            f"a token may not be sent in clear to {url}", "use the https URL of the master"
        )
    for encoded in _presented(parts.hostname or "", parts.port or 443):
        if hashlib.sha256(encoded).hexdigest() == fingerprint:
            return ssl.DER_cert_to_PEM_cert(encoded)
    raise UntrustedMasterError(
        f"what answers at {url} is not the master: its authority is not the one of the token",
        "nothing was sent to it; correct the URL, or ask for a token of this master",
    )


def _presented(host: str, port: int) -> list[bytes]:
    """Return the certificates that a server presents, encoded."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # What is presented is compared with a fingerprint afterwards, and then checked again.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=_TIMEOUT) as raw,
            context.wrap_socket(raw, server_hostname=host) as connection,
        ):
            return _chain(connection)
    except OSError as error:
        raise MasterUnreachableError(
            f"the master at {host}:{port} does not answer: {error.strerror or error}",
            "start it, or correct the URL",
        ) from error


def _chain(connection: Any) -> list[bytes]:
    """Return the chain that the other side has sent; before Python 3.13 that is not public."""
    if hasattr(connection, "get_unverified_chain"):
        return list(connection.get_unverified_chain())
    chain = connection._sslobj.get_unverified_chain()  # noqa: SLF001
    return [ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in chain]


@contextmanager
def _authority(url: str, token: str, ca_file: Path | None) -> Iterator[Path]:
    """Give the file of the authority's certificate while the master is asked."""
    if ca_file is not None:
        yield ca_file
        return
    text = presented_authority(url, tokens.fingerprint_of(token))
    with tempfile.NamedTemporaryFile("w", suffix=".crt") as stream:
        stream.write(text)
        stream.flush()
        yield Path(stream.name)


def _own_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the key in a file, after making it if need be."""
    if not path.exists():
        write_atomically(path, key_text(make_key()), secret=True)
    return _elliptic(path)


def _elliptic(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the key in a file, which is of the kind that we make."""
    key = read_key(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError(
            f"the key {path} is not an elliptic curve key", "remove it and join with a new token"
        )
    return key


def _write(path: Path, text: str, secret: ec.EllipticCurvePrivateKey, key: Path) -> None:
    """Write a certificate for a key; beside the key when both are in one file."""
    leaf = x509.load_pem_x509_certificate(text.encode())
    if key_digest(leaf.public_key()) != key_digest(secret.public_key()):
        raise CommandError(
            "the master's certificate is not for the key that it was asked for", "try again"
        )
    if path.resolve() == key.resolve():
        write_atomically(path, key_text(secret) + text, secret=True)
    else:
        write_atomically(path, text, secret=True)


def _needs_renewal(path: Path) -> bool:
    """Say whether the certificate in a file is near its end."""
    return is_near_end(read_certificates(path)[0])


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes from renewing the same certificate."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
