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

from sqlalchemy import Connection, bindparam, or_, select

from slapos_wendelin.master.models import Computer, Instance

#: How many bytes of answers are kept; those asked for last stay.
_LIMIT = 64 * 2**20

#: Of how many questions it is known that they were asked before.
_REMEMBERED = 100_000

#: What an answer takes in memory beside its bytes.
_OVERHEAD = 500

#: An answer is made from one computer or two: where an instance is, and where its requester is.
_REVISIONS = select(Computer.id, Computer.revision).where(
    or_(Computer.id == bindparam("one"), Computer.id == bindparam("other"))
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

    def is_good(self, connection: Connection) -> bool:
        """Return whether the computers still have these revisions."""
        one, *others = (computer for computer, _ in self.revisions)
        known = {"one": one, "other": others[0] if others else one}
        rows = connection.execute(_REVISIONS, known)
        return self.revisions == {(computer, revision) for computer, revision in rows}


class Answers:
    """The answers that a process keeps."""

    def __init__(self, limit: int = _LIMIT) -> None:
        """Keep nothing yet.

        :param limit: how many bytes to keep.
        """
        self._limit = limit
        self._lock = threading.Lock()
        self._answers: OrderedDict[object, Answer] = OrderedDict()
        #: What was asked lately; no answer to most of it is kept.
        self._asked: OrderedDict[int, None] = OrderedDict()
        self._size = 0

    def find(self, key: object) -> Answer | None:
        """Return what was kept; whether it is still good is for the caller to see."""
        with self._lock:
            answer = self._answers.get(key)
            if answer is not None:
                self._answers.move_to_end(key)
            return answer

    def note(self, key: object) -> bool:
        """Note that something is asked, and return whether it was asked before."""
        digest = hash(key)
        with self._lock:
            is_known = digest in self._asked
            self._asked[digest] = None
            self._asked.move_to_end(digest)
            if len(self._asked) > _REMEMBERED:
                self._asked.popitem(last=False)
        return is_known

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
    """Return the revisions of the computers on which instances, or their providers, are.

    There are none for an instance that is to go: its name may be given to one elsewhere.
    """
    found = set()
    for instance in instances:
        if instance is None:
            continue
        host = instance if instance.provider is None else instance.provider
        if not instance.live or host.partition is None:
            return frozenset()
        found.add((host.partition.computer.id, host.partition.computer.revision))
    return frozenset(found)
