# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors that users meet."""


class WendelinError(Exception):
    """Something the user can mend: one sentence that says what, and a remedy that says what to do.

    :param message: names the value and the place.
    :param remedy: what to do next, one sentence; empty where there is nothing to add.
    """

    #: Exit status of a command that ends with this error.
    exit_status = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


class ParameterError(WendelinError):
    """A parameter of an instance is wrong."""


class MissingRequirementError(WendelinError):
    """This machine lacks a program, a port, disk space or the network."""


class CommandError(WendelinError):
    """A program that the toolkit started has failed."""


def innermost(error: BaseException) -> BaseException:
    """Return what led to an error in the end, without the wrappings of libraries."""
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return error


def reason(error: BaseException) -> str:
    """Return in words what led to an error in the end."""
    cause = innermost(error)
    return str(cause) or type(cause).__name__
