# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all promises of this project share."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from slapos.grid.promise import interface
from slapos.grid.promise.generic import GenericPromise
from zope.interface import implementer

#: Minutes between two looks while nothing asks for one.
PERIODICITY = 0.05


class BrokenPromiseError(Exception):
    """What the promise watches over is not as it should be; the message says how."""


@implementer(interface.IPromise)
class Promise(GenericPromise):
    """A promise whose check either returns what it saw or raises BrokenPromiseError.

    Anything else that goes wrong in a check makes the promise red too: slapgrid logs the error.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.setPeriodicity(minute=PERIODICITY)
        # Bang makes every partition of the tree run buildout again, which mends no process.
        self.allowBang(False)

    @abstractmethod
    def check(self) -> str:
        """Return one line about what is well; raise BrokenPromiseError for what is not."""

    def sense(self) -> None:
        """Run the check and log its outcome, which slapgrid reads back from the log."""
        try:
            self.logger.info(self.check())
        except BrokenPromiseError as error:
            self.logger.error("%s", error)  # noqa: TRY400 (slapgrid shows the text to users)
