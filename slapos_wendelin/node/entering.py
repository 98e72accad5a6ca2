# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a joined host's toolkit asks of the master: to be let in, and whether it was heard of.

Run by `slapos computer join` on the host: reads one JSON document, answers with one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from slapos_wendelin.certificates import CertificateError, end_of, read_certificates
from slapos_wendelin.errors import CommandError, WendelinError
from slapos_wendelin.joining import join, renew_near_end
from slapos_wendelin.master.client import Document, MasterAnswerError, MasterClient
from slapos_wendelin.trust import UntrustedMasterError

#: Seconds within which a service that was started is to have reported, and between two looks.
_PATIENCE, _INTERVAL = 120.0, 0.2


class NotInError(WendelinError):
    """The computer has no certificate that the master takes: it needs a token."""


def enter(wanted: Document) -> Document:
    """Get a certificate with a token, or see that the one that is there is good.

    :raises NotInError: when there is none, and no token.
    """
    certificate = Path(wanted["certificate"])
    key = certificate.with_suffix(".key")
    if wanted["token"]:
        return join(
            wanted["url"], wanted["token"], certificate=certificate, key=key, name=wanted["name"]
        )
    try:
        if end_of(read_certificates(certificate)[0]) <= time.time():
            raise NotInError(f"{certificate} has ended")
        renew_near_end(wanted["url"], certificate=certificate, key=key)
        with _master(wanted) as master:
            master.computer(wanted["name"])
    except (CertificateError, MasterAnswerError, UntrustedMasterError) as error:
        raise NotInError(error.message, error.remedy) from error
    return {}


def wait(wanted: Document) -> Document:
    """Return the computer as the master sees it, once its service has reported.

    :raises CommandError: when it does not report.
    """
    deadline = time.monotonic() + _PATIENCE
    with _master(wanted) as master:
        while True:
            computer = master.computer(wanted["name"])
            if _has_reported(computer, wanted):
                return {"partitions": computer["partitions"]}
            if time.monotonic() > deadline:
                raise CommandError(
                    f"the service was started but has told the master nothing in {_PATIENCE:.0f} s",
                    "look into its log on the host, then repeat the command",
                )
            time.sleep(_INTERVAL)


def _has_reported(computer: Document, wanted: Document) -> bool:
    """Say whether the service has measured the computer, and all partitions are known."""
    return bool(computer["measured_at"]) and computer["partitions"] >= wanted["partitions"]


_MENDED_BY_TOKEN = (NotInError, MasterAnswerError, UntrustedMasterError)
_ACTIONS = {"enter": enter, "wait": wait}


def _master(wanted: Document) -> MasterClient:
    """Return a client that calls as the computer."""
    certificate = Path(wanted["certificate"])
    return MasterClient(wanted["url"], certificate=certificate, key=certificate.with_suffix(".key"))


def main() -> None:
    """Do what is asked for."""
    wanted: dict[str, Any] = json.load(sys.stdin)
    try:
        answer = _ACTIONS[wanted["action"]](wanted)
    except WendelinError as error:
        answer = {
            "error": error.message,
            "remedy": error.remedy,
            # With another token; what is wrong otherwise a token does not mend.
            "may_enter": isinstance(error, _MENDED_BY_TOKEN),
        }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
