# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls from a partition to the master, with what Python's own library has.

The environment of NEO's servers has no other HTTP client.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlencode, urlsplit

from slapos_wendelin.neo.errors import ChannelError

Document = dict[str, Any]

#: The environment variable that names the file of the certificate of the master's authority, where
#: it is not in the file of the own certificate.
_AUTHORITY_VARIABLE = "SLAPOS_MASTER_CA_FILE"

#: The largest answer that is read, in bytes.
_LIMIT = 16 * 2**20


@dataclass(frozen=True)
class Place:
    """The partition that calls, and the master that it belongs to."""

    url: str
    computer: str
    partition: str
    #: Files of the partition's certificate and its key; empty for a master that listens in clear.
    certificate: str = ""
    key: str = ""

    @property
    def names(self) -> Document:
        """How a request names the partition."""
        return {"computer_id": self.computer, "computer_partition_id": self.partition}


class MasterLine:
    """A connection to the master that is kept from one call to the next; it serves one thread."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._url = urlsplit(place.url)
        self._connection: http.client.HTTPConnection | None = None
        self._stamp: tuple[int, ...] = ()

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Document | None = None,
        body: Document | None = None,
        timeout: float = 15.0,
    ) -> Document:
        """Send one request and return the document of the answer.

        :param path: below ``/v1/``.
        :param timeout: how long the master may be silent, in seconds.
        :raises ChannelError: when the master does not answer, or refuses.
        """
        target = f"{self._url.path.rstrip('/')}/v1/{path}"
        if query:
            target += f"?{urlencode(query)}"
        content = None if body is None else json.dumps(body).encode()
        is_kept = self._connection is not None
        try:
            try:
                status, document = self._send(method, target, content, timeout)
            except (ConnectionError, ssl.SSLError, http.client.BadStatusLine):
                # The master closes what was quiet for some time. All calls can be repeated.
                self.close()
                if not is_kept:
                    raise
                status, document = self._send(method, target, content, timeout)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise ChannelError(
                f"the master at {self._place.url} does not answer:"
                f" {str(error) or type(error).__name__}"
            ) from error
        if status == http.HTTPStatus.OK:
            return document
        self.close()
        raise ChannelError(
            str(document.get("error") or f"the master answered with status {status}"),
            str(document.get("remedy") or ""),
            status,
        )

    def close(self) -> None:
        """Close the connection; the next call makes another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _send(
        self, method: str, target: str, content: bytes | None, timeout: float
    ) -> tuple[int, Document]:
        """Send a request; return status and document of the answer."""
        headers = {} if content is None else {"Content-Type": "application/json"}
        connection = self._connected(timeout)
        connection.request(method, target, content, headers)
        answer = connection.getresponse()
        return answer.status, _document(answer.read(_LIMIT))

    def _connected(self, timeout: float) -> http.client.HTTPConnection:
        """Return the connection, a new one when the certificate has been renewed."""
        stamp = self._files_stamp()
        if stamp != self._stamp:
            self.close()
        if self._connection is None:
            self._connection = self._connect()
            self._stamp = stamp
        self._connection.timeout = timeout
        if self._connection.sock is not None:
            self._connection.sock.settimeout(timeout)
        return self._connection

    def _connect(self) -> http.client.HTTPConnection:
        """Return a new connection, over which nothing is sent yet.

        :raises ChannelError: when others could listen or answer in the master's place.
        """
        host = self._url.hostname or ""
        if self._url.scheme != "https":
            if not _is_loopback(host):
                raise ChannelError(
                    f"the master at {self._place.url} would be called in clear over the network"
                )
            return http.client.HTTPConnection(host, self._url.port)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority = os.environ.get(_AUTHORITY_VARIABLE) or self._place.certificate
        context.load_verify_locations(authority)
        context.load_cert_chain(self._place.certificate, self._place.key or None)
        return http.client.HTTPSConnection(host, self._url.port, context=context)

    def _files_stamp(self) -> tuple[int, ...]:
        """Return what changes when the certificate or its key is replaced."""
        found: list[int] = []
        for path in filter(None, (self._place.certificate, self._place.key)):
            status = os.stat(path)  # noqa: PTH116 - a text, as OpenSSL wants it
            found += (status.st_ino, status.st_size, status.st_mtime_ns)
        return tuple(found)


def _document(text: bytes) -> Document:
    """Return the JSON object of an answer, empty when it is none."""
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _is_loopback(host: str) -> bool:
    """Say whether only programs of this machine can be meant by a host."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
