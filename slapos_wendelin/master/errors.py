# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors of the master, each with the HTTP status that tells it."""

from __future__ import annotations

from slapos_wendelin.errors import WendelinError


class MasterError(WendelinError):
    """The master refuses or fails a request."""

    #: The HTTP status of the answer.
    status = 500


class InvalidRequestError(MasterError):
    """A value of the request is wrong."""

    status = 400


class ForbiddenError(MasterError):
    """The caller may not do this."""

    status = 403


class UnknownError(MasterError):
    """The thing that the request names does not exist.

    The slap library turns status 404 into its ``NotFoundError``.
    """

    status = 404


class ConflictError(MasterError):
    """The request contradicts what the master knows."""

    status = 409


class LengthRequiredError(MasterError):
    """The request does not say how long its body is."""

    status = 411


class TooLargeError(MasterError):
    """The body of the request is larger than the master reads."""

    status = 413


class NotSupportedError(MasterError):
    """This master does not offer what the request asks for."""

    status = 501


class NoCapacityError(MasterError):
    """No computer can host the instance.

    The slap library turns status 503 into ``ServerError`` with the reason phrase of the answer,
    which the request recipes log and survive; a 404 would lose the text, a 400 would end the whole
    buildout run.
    """

    status = 503


class DatabaseError(WendelinError):
    """The database file cannot be used."""


class InUseError(DatabaseError):
    """Somebody uses the database file who must not."""


class BackupError(WendelinError):
    """A backup cannot be written, read or put back."""


class ListenError(WendelinError):
    """The master cannot listen where it was told to."""


class WorkerError(WendelinError):
    """A worker process of the master does not run."""


class AuthorityError(WendelinError):
    """The master's certificate authority cannot be used."""
