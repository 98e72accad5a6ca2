# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers kept in memory, each good as long as the computers that it was made from stay the same.

Most of what a master is asked it has answered before: computers poll, and recipes request at each
run what they requested in the last one. `history` gives a computer a new revision whenever
something changes that it, or an instance on it, is told. So a kept answer costs one look at the
revisions.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from slapos_wendelin.master.models import Computer, Instance

#: How many bytes of answers are kept; those asked for last stay.
_LIMIT = 64 * 2**20

#: What an answer takes in memory beside its bytes.
_OVERHEAD = 500

_REVISIONS = select(Computer.id, Computer.revision).where(
    Computer.id.in_(bindparam("computers", expanding=True))
)


@dataclass(frozen=True)
class Answer:
    """An answer and the revisions of the computers that it was made from."""

    body: bytes
    revisions: frozenset[tuple[int, int]]

    @cached_property
    def tag(self) -> str:
        """What identifies the bytes to HTTP caches."""
        return sha256(self.body).hexdigest()[:32]

    def is_good(self, session: Session) -> bool:
        """Return whether the computers still have these revisions."""
        known = {"computers": [computer for computer, _ in self.revisions]}
        rows = session.connection().execute(_REVISIONS, known)
        return self.revisions == {(row[0], row[1]) for row in rows}


class Answers:
    """The answers that a process keeps."""

    def __init__(self, limit: int = _LIMIT) -> None:
        """Keep nothing yet.

        :param limit: how many bytes to keep.
        """
        self._limit = limit
        self._lock = threading.Lock()
        self._answers: OrderedDict[object, Answer] = OrderedDict()
        self._size = 0

    def find(self, key: object) -> Answer | None:
        """Return what was kept; whether it is still good is for the caller to see."""
        with self._lock:
            answer = self._answers.get(key)
            if answer is not None:
                self._answers.move_to_end(key)
            return answer

    def made_from(
        self, key: object, revisions: frozenset[tuple[int, int]], make: Callable[[], bytes]
    ) -> Answer:
        """Return the kept answer if it was made from these revisions, else make and keep it."""
        answer = self.find(key)
        if answer is None or answer.revisions != revisions:
            answer = Answer(make(), revisions)
            self.keep(key, answer)
        return answer

    def keep(self, key: object, answer: Answer) -> None:
        """Keep an answer in the place of an older one."""
        with self._lock:
            old = self._answers.pop(key, None)
            if old is not None:
                self._size -= len(old.body) + _OVERHEAD
            if len(answer.body) > self._limit // 2:
                return
            self._answers[key] = answer
            self._size += len(answer.body) + _OVERHEAD
            while self._size > self._limit:
                _, oldest = self._answers.popitem(last=False)
                self._size -= len(oldest.body) + _OVERHEAD


def revisions(instances: Iterable[Instance | None]) -> frozenset[tuple[int, int]]:
    """Return the revisions of the computers on which instances, or their providers, are."""
    found = set()
    for instance in instances:
        host = instance if instance is None or instance.provider is None else instance.provider
        if host is not None and host.partition is not None:
            computer = host.partition.computer
            found.add((computer.id, computer.revision))
    return frozenset(found)
