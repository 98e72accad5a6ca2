# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests for instances that were sent before and change nothing, which most are."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from flask import g, request
from sqlalchemy.orm import Session

from slapos_wendelin.master.answers import Answer, revisions
from slapos_wendelin.master.checks import DESTROYED
from slapos_wendelin.master.context import context
from slapos_wendelin.master.models import Instance


def repeated_answer() -> bytes | None:
    """Return the answer to this very request of this caller when it would be the same again."""
    answer = context().answers.find(_key())
    if answer is None:
        return None
    with context().reading() as session:
        return answer.body if answer.is_good(session) else None


def new_answer(work: Callable[[Session], tuple[bytes, Iterable[Instance | None]]]) -> bytes:
    """Serve a request and return the answer, which is kept when nothing was changed.

    :param work: returns the answer and the instances that it was made from, the wanted one first.
        It is done twice when it changes something.
    """

    def serve(session: Session) -> tuple[bytes, frozenset[tuple[int, int]]]:
        body, instances = work(session)
        wanted, *others = instances
        # What is to go may have gone at the next look, whatever computers say.
        is_to_stay = wanted is not None and wanted.state != DESTROYED
        return body, revisions([wanted, *others]) if is_to_stay else frozenset()

    (body, made_from), changed = context().changing(serve)
    if made_from and not changed:
        context().answers.keep(_key(), Answer(body, made_from))
    return body


def _key() -> tuple[object, ...]:
    """Return all that an answer depends on beside the database."""
    partition = request.headers.get("Authorization")
    body = request.get_data()
    if len(body) != (request.content_length or 0):
        # Without it, different requests would get one answer.
        raise RuntimeError("the form was read before the body was kept")
    return str(g.caller), request.full_path, partition, request.content_type, body
