# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How programs recognise the master: by its authority's certificate, or not at all.

The certificate is looked for where the program was told to, then in the file that the environment
variable names, then in the file of the program's own certificate, in which the authority's follows.
"""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from slapos_wendelin.errors import WendelinError

#: The environment variable that names the file of the authority's certificate.
AUTHORITY_VARIABLE = "SLAPOS_MASTER_CA_FILE"


class UntrustedMasterError(WendelinError):
    """What answers may not be the master, or could be overheard; nothing is sent to it."""


def authority_file(url: str, ca_file: str | None = None, certificate: str | None = None) -> str:
    """Return the file with which a master's certificate is checked.

    :param ca_file: where the program was told to look, if it was.
    :param certificate: the file of the program's own certificate, if it has one.
    :raises UntrustedMasterError: when there is no such file.
    """
    named = ca_file or os.environ.get(AUTHORITY_VARIABLE)
    path = named or certificate
    if path and _holds_authority(path):
        return path
    if named:
        raise UntrustedMasterError(
            f"{named} holds no certificate of an authority to recognise {url} by",
            "put the certificate of the master's authority there (`ca.crt` in its folder)",
        )
    raise UntrustedMasterError(
        f"there is nothing to recognise the master at {url} by",
        f"name its authority's certificate as master_ca_file in the section [slapos] of the "
        f"configuration, or in the environment variable {AUTHORITY_VARIABLE}",
    )


def check_plain(url: str) -> None:
    """Refuse to call a master in clear where others could listen or answer in its place.

    :raises UntrustedMasterError: for an http URL that is not on loopback.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise UntrustedMasterError(
            f"the master at {url} would be called in clear over the network",
            "use its https URL; http is for loopback addresses only",
        )


def is_loopback(host: str) -> bool:
    """Say whether only programs of this machine can be meant by a host."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def session_for(
    url: str, ca_file: str | None = None, certificate: str | None = None, key: str | None = None
) -> requests.Session:
    """Return a session that speaks to the master at a URL and to nobody in between.

    :raises UntrustedMasterError: when there is nothing to recognise the master by.
    """
    check_plain(url)
    session = requests.Session()
    # A proxy of the environment is none of the master's business.
    session.trust_env = False
    if urlsplit(url).scheme == "https":
        # No redirection leads to where nothing is checked.
        del session.adapters["http://"]
        session.verify = authority_file(url, ca_file, certificate)
        session.cert = (certificate, key) if certificate and key else certificate or None
    return session


def send(
    verb: str,
    url: str,
    *,
    cert: tuple[str | None, str | None] | None = None,
    verify: bool = False,
    ca_file: str | None = None,
    **options: Any,
) -> requests.Response:
    """Send a request that slapos.core makes, and nothing to anybody but the master.

    :param cert: files of certificate and key, if there are any.
    :param verify: what slapos.core thinks of checking; not heeded.
    :raises UntrustedMasterError: when what answers is not the master.
    """
    del verify
    certificate, key = cert or (None, None)
    with session_for(url, ca_file, certificate or None, key or None) as session:
        try:
            return session.request(verb, url, **options)
        except requests.RequestException as error:
            refusal = untrusted(url, error)
            fault = certificate_fault(certificate or None)
            if refusal is None and fault is not None:
                refusal = UntrustedMasterError(*fault)
            if refusal is None:
                raise
            raise refusal from error


def certificate_fault(certificate: str | None) -> tuple[str, str] | None:
    """Return why a program's own certificate cannot be used, and what to do; None when it can.

    Asked after a failure only: of a certificate that the master refuses, TLS tells little.
    """
    if certificate is None:
        return None
    # Most programs never fail.
    from slapos_wendelin.certificates import CertificateError, read_certificates  # noqa: PLC0415

    try:
        own = read_certificates(Path(certificate))[0]
    except CertificateError as error:
        return error.message, error.remedy
    if own.not_valid_after_utc > datetime.now(UTC):
        return None
    return (
        f"the certificate {certificate} has ended on {own.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
        "ask an operator for a token and join again",
    )


def untrusted(url: str, error: requests.RequestException) -> UntrustedMasterError | None:
    """Return what to tell when a request failed because the master was not recognised."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = _cause_of(cause)
    if cause is None:
        return None
    return UntrustedMasterError(
        f"what answers at {url} is not the master: {cause.verify_message}",
        "nothing was sent to it; correct the URL, or if the master has a new authority, join again",
    )


def _cause_of(error: BaseException) -> BaseException | None:
    """Return what led to an error; urllib3 keeps it in attributes and arguments of its own."""
    reason = getattr(error, "reason", None)
    candidates = (error.__cause__, error.__context__, reason, *error.args)
    return next((each for each in candidates if isinstance(each, BaseException)), None)


def _holds_authority(path: str) -> bool:
    """Say whether a file holds the certificate of an authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(Path(path).expanduser())
    except OSError:
        return False
    return bool(context.get_ca_certs(binary_form=True))
