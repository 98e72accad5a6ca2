# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of the master's /v1 API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import requests

from slapos_wendelin import trust
from slapos_wendelin.errors import WendelinError, innermost

Document = dict[str, Any]


class MasterUnreachableError(WendelinError):
    """The master does not answer."""


class MasterAnswerError(WendelinError):
    """The master answered with an error.

    :param status: the HTTP status of the answer.
    :param details: more lines, where the error has some.
    """

    def __init__(
        self, status: int, message: str, remedy: str = "", details: Sequence[str] = ()
    ) -> None:
        super().__init__(message, remedy)
        self.status = status
        self.details = details


class NotFoundError(MasterAnswerError):
    """The master does not know what was asked for."""


class MasterClient:
    """Calls the /v1 API of one master.

    Every method raises `MasterUnreachableError` when the master does not answer in time,
    `UntrustedMasterError` when something else than the master answers, `NotFoundError` for what it
    does not know and `MasterAnswerError` for every other refusal. One client serves one thread.
    """

    def __init__(
        self,
        url: str,
        timeout: float = 30.0,
        *,
        ca_file: Path | str | None = None,
        certificate: Path | str | None = None,
        key: Path | str | None = None,
    ) -> None:
        """Make a client; nothing is sent yet.

        :param url: the master's URL, the same as the slap protocol's.
        :param timeout: how long to wait for an answer, in seconds.
        :param ca_file: the certificate of the master's authority; not needed when it follows the
            client's own in the file of that.
        :param certificate: the file of the client's certificate.
        :param key: the file of its key.
        :raises UntrustedMasterError: when there is nothing to recognise the master by.
        """
        self.url = url.rstrip("/")
        self._timeout = timeout
        files = [None if each is None else str(each) for each in (ca_file, certificate, key)]
        self._certificate = files[1]
        self._session = trust.session_for(self.url, *files)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def health(self) -> Document:
        """Return the master's health: ``{"status": "ok"}``."""
        return self._call("GET", "health")

    def put_computer(self, reference: str, **values: Any) -> Document:
        """Register a computer or change what is known of it; what is left out stays as it is.

        :param values: ``datacenter``, ``region``, ``provider``, ``network``, ``coordinates``,
            ``labels``, ``label_changes``, ``address``, ``state``.
        """
        body = {key: value for key, value in values.items() if value is not None}
        return self._call("PUT", f"computers/{_quoted(reference)}", body=body)

    def computers(self) -> list[Document]:
        """Return every computer, those that were removed too."""
        return self._call("GET", "computers")

    def computer(self, reference: str) -> Document:
        """Return one computer and, in ``instances``, what is on it."""
        return self._call("GET", f"computers/{_quoted(reference)}")

    def remove_computer(self, reference: str) -> Document:
        """Take a computer out of the cloud; refused while instances are on it."""
        return self._call("DELETE", f"computers/{_quoted(reference)}")

    def put_build(
        self, reference: str, url: str, stage: str, percent: int | None = None
    ) -> Document:
        """Tell where a computer is with the build of a release.

        :param stage: the part that is being made.
        :param percent: how much of it is done, in hundredths.
        """
        body = {"url": url, "stage": stage, "percent": percent}
        return self._call("PUT", f"computers/{_quoted(reference)}/build", body=body)

    def put_measurement(self, reference: str, measurement: Mapping[str, Any]) -> Document:
        """Tell what a computer measured of itself, and that it is there."""
        return self._call("PUT", f"computers/{_quoted(reference)}/measurement", body=measurement)

    def location(self, computer: str, partition: str) -> Document:
        """Return where a partition is: ``computer``, ``datacenter``, ``region`` and ``alike``.

        The last is how many instances of its software type are on that computer.
        """
        place = {"computer_id": computer, "computer_partition_id": partition}
        return self._call("GET", "location", query=place)

    def cluster(self, computer: str, partition: str) -> Document:
        """Return the ``name`` of an instance's cluster, and its ``authority``: what is trusted.

        ``addresses`` are those of the partition, which the certificate of a node names.
        """
        place = {"computer_id": computer, "computer_partition_id": partition}
        return self._call("GET", "cluster", query=place)

    def cluster_of(self, instance: str) -> Document:
        """Return what `cluster` returns, of the cluster of an instance.

        :param instance: the root of its tree by its reference, or any instance by its guid.
        """
        return self._call("GET", f"clusters/{_quoted(instance)}")

    def certify_node(self, computer: str, partition: str, request: str) -> Document:
        """Return the ``certificate`` of a cluster's node for the key of a signing request.

        With it comes what `cluster` returns.
        """
        body = {"computer_id": computer, "computer_partition_id": partition, "request": request}
        return self._call("POST", "cluster/certificate", body=body)

    def certify_user(self, instance: str, request: str) -> Document:
        """Return a ``certificate`` with which the calling user's programs use a cluster.

        With it comes what `cluster` returns.

        :param instance: the root of its instance tree.
        """
        path = f"clusters/{_quoted(instance)}/certificate"
        return self._call("POST", path, body={"request": request})

    def look_at(self, cluster: str, kind: str, arguments: Mapping[str, Any]) -> Document:
        """Ask the keeper of a cluster for something that changes nothing; return the operation.

        :param cluster: the root of its tree by its reference, or any instance by its guid.
        :param kind: ``state``, or ``tweak`` for what a tweak would change.
        """
        path = f"clusters/{_quoted(cluster)}/looks"
        return self._call("POST", path, body={"kind": kind, "arguments": arguments})

    def operate(self, cluster: str, kind: str, arguments: Mapping[str, Any]) -> Document:
        """Ask the keeper of a cluster for something that changes it; return the operation.

        What is asked for and not over is returned when it is asked for again.

        :param kind: ``tweak``, ``balance`` or ``pack``.
        """
        path = f"clusters/{_quoted(cluster)}/operations"
        return self._call("POST", path, body={"kind": kind, "arguments": arguments})

    def operations(self, cluster: str) -> list[Document]:
        """Return what was asked of a cluster lately, the oldest first, without the results."""
        return self._call("GET", f"clusters/{_quoted(cluster)}/operations")

    def operation(self, cluster: str, number: int) -> Document:
        """Return an operation of a cluster: its ``state``, ``progress``, ``result``, ``error``."""
        return self._call("GET", f"clusters/{_quoted(cluster)}/operations/{number}")

    def cancel_operation(self, cluster: str, number: int) -> Document:
        """End an operation before its time."""
        return self._call("DELETE", f"clusters/{_quoted(cluster)}/operations/{number}")

    def move(self, instance: str, computer: str | None = None) -> Document:
        """Place an instance anew; what is in its partition is lost.

        :param instance: a root by its reference, or any instance by its guid.
        :param computer: where to; None for wherever placement puts it, but not where it is.
        """
        body = {} if computer is None else {"computer": computer}
        return self._call("POST", f"instances/{_quoted(instance)}/move", body=body)

    def put_product(
        self,
        name: str,
        release_url: str,
        software_type: str = "default",
        version: str = "",
        defaults: Mapping[str, Any] | None = None,
    ) -> Document:
        """Put a product into the catalog or replace it."""
        body = {
            "release_url": release_url,
            "software_type": software_type,
            "version": version,
            "defaults": dict(defaults or {}),
        }
        return self._call("PUT", f"products/{_quoted(name)}", body=body)

    def product(self, name: str) -> Document:
        """Return a product of the catalog."""
        return self._call("GET", f"products/{_quoted(name)}")

    def products(self) -> list[Document]:
        """Return the catalog."""
        return self._call("GET", "products")

    def remove_product(self, name: str) -> Document:
        """Take a product out of the catalog and return what it was."""
        return self._call("DELETE", f"products/{_quoted(name)}")

    def request(self, request: Mapping[str, Any]) -> Document | None:
        """Request an instance, change or destroy it; return it, None when there is none.

        :param request: ``reference``, ``release_url``, ``software_type``, ``state``,
            ``parameters`` (texts), ``sla`` and ``shared``.
        """
        return self._call("POST", "requests", body=dict(request))

    def make_plan(self, request: Mapping[str, Any], *, keep: bool = True) -> Document:
        """Return what a request would do: ``plan``, its number, and ``effects``.

        :param request: as of `request`, and ``children``: what the instance is expected to request,
            None when only it knows.
        :param keep: whether it can be applied later; without changes there is no number anyway.
        """
        return self._call("POST", "plans", body={**request, "keep": keep})

    def plan(self, number: int) -> Document:
        """Return a plan as it was shown."""
        return self._call("GET", f"plans/{number}")

    def apply_plan(self, number: int) -> Document:
        """Do what a plan showed; return the instance."""
        return self._call("POST", f"plans/{number}/apply")

    def history(self, *, limit: int = 100, since: float = 0.0, **selection: str) -> Document:
        """Return the newest ``changes``, oldest first, and whether there are ``more``.

        :param since: seconds since the epoch.
        :param selection: ``instance``, ``computer``, ``software`` or ``product``; none for all.
        """
        query = {key: value for key, value in selection.items() if value}
        return self._call("GET", "history", query={**query, "limit": limit, "since": since})

    def request_of_the_past(self, reference: str, change: int) -> Document:
        """Return what was requested of a root just after a change of its tree."""
        return self._call("GET", f"history/{change}/request/{_quoted(reference)}")

    def instances(self) -> list[Document]:
        """Return every instance tree, its children in ``children``."""
        return self._call("GET", "instances")

    def instance(self, reference: str) -> Document:
        """Return a root by the reference it was requested under, or any instance by its guid."""
        return self._call("GET", f"instances/{_quoted(reference)}")

    def software(self, url: str) -> list[Document]:
        """Return the copies of a release that computers have, shall have or shall lose."""
        return self._call("GET", "software", query={"url": url})

    def status(self, instance: str | None = None) -> Document:
        """Return data centers, computers, software releases and instance trees.

        :param instance: show only this tree, or the part of one below an instance's guid.
        """
        query = {} if instance is None else {"instance": instance}
        return self._call("GET", "status", query=query)

    def join(self, token: str, request: str, name: str = "") -> Document:
        """Return the certificate for the key of a signing request, let in by a token.

        :param name: who the caller believes to be; empty to leave that to the token.
        """
        body = {"token": token, "request": request, "name": name}
        return self._call("POST", "join", body=body)

    def renew(self, request: str) -> Document:
        """Return a new certificate for the key of a signing request, for who calls."""
        return self._call("POST", "renew", body={"request": request})

    def make_token(
        self,
        kind: str,
        name: str,
        *,
        role: str = "",
        lifetime: float | None = None,
        replace: bool = False,
        **values: Any,
    ) -> Document:
        """Make a token that lets in a computer or a user once; it is in ``token``.

        :param role: operator or viewer, for a new user.
        :param lifetime: how long it is good for, in seconds.
        :param replace: whether the computer may have joined before.
        :param values: what to keep of the computer, such as ``datacenter``.
        """
        body: Document = {"kind": kind, "name": name, "role": role, "replace": replace, **values}
        if lifetime is not None:
            body["lifetime"] = lifetime
        return self._call("POST", "tokens", body=body)

    def users(self) -> list[Document]:
        """Return every user."""
        return self._call("GET", "users")

    def put_user(self, name: str, role: str) -> Document:
        """Register a user or change the role of one."""
        return self._call("POST", "users", body={"name": name, "role": role})

    def remove_user(self, name: str) -> Document:
        """Take a user out; its certificates are revoked."""
        return self._call("DELETE", f"users/{_quoted(name)}")

    def certificates(self, kind: str = "", name: str = "") -> list[Document]:
        """Return what is recorded of certificates: of all, or of a kind, or of one name."""
        query = {key: value for key, value in {"kind": kind, "name": name}.items() if value}
        return self._call("GET", "certificates", query=query)

    def revoke(self, serial: str, reason: str = "") -> Document:
        """Let a certificate be good no more."""
        return self._call("POST", f"certificates/{serial}/revoke", body={"reason": reason})

    def wait_due(self, computer: str, after: int = 0, timeout: float = 60.0) -> Document:
        """Wait until a computer has work newer than a number.

        :param after: the ``number`` of the last answer; 0 for everything.
        :param timeout: how long the master may hold the request, in seconds.
        :returns: ``number``, ``software`` and ``instances``; after the timeout the same number and
            two empty lists.
        """
        return self._call(
            "GET",
            f"computers/{_quoted(computer)}/due",
            query={"after": after, "timeout": timeout},
            timeout=self._timeout + timeout,
        )

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, float | str] | None = None,
        body: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Send one request and return the document of the answer."""
        try:
            answer = self._session.request(
                method,
                f"{self.url}/v1/{path}",
                params=query,
                json=body,
                timeout=timeout or self._timeout,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            refusal = trust.untrusted(self.url, error)
            if refusal is not None:
                raise refusal from error
            fault = trust.certificate_fault(self._certificate)
            if fault is not None:
                raise MasterUnreachableError(*fault) from error
            raise MasterUnreachableError(
                f"the master at {self.url} does not answer: {_reason(error)}",
                "start it, or correct the URL",
            ) from error
        try:
            document = answer.json()
        except ValueError as error:
            raise MasterAnswerError(
                answer.status_code,
                f"what answers at {self.url} is not a master (status {answer.status_code})",
                "correct the URL",
            ) from error
        if answer.ok:
            return document
        kind = (
            NotFoundError if answer.status_code == requests.codes.not_found else MasterAnswerError
        )
        told = document if isinstance(document, dict) else {}
        raise kind(
            answer.status_code,
            told.get("error", f"the master answered with status {answer.status_code}"),
            told.get("remedy", ""),
            told.get("details", ()),
        )


def _quoted(name: str) -> str:
    """Return a name as it stands in a path; the server takes an escaped slash for another name."""
    return quote(name, safe="/")


def _reason(error: requests.RequestException) -> str:
    """Return the innermost cause of a failed request in a few words."""
    if isinstance(error, requests.Timeout):
        return "timed out"
    cause = innermost(error)
    return getattr(cause, "strerror", None) or type(cause).__name__
