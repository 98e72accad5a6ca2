# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an instance goes: pure functions over plain data, without input, output or clock."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from slapos_wendelin.master.errors import InvalidRequestError

#: The SLA keys that a request may carry.
SLA_KEYS = ("computer_guid", "datacenter", "group", "region", "spread")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A computer as placement sees it."""

    reference: str
    datacenter: str = ""
    region: str = ""
    #: The registry's free labels. No SLA key reads them.
    labels: Mapping[str, str] = field(default_factory=dict)
    #: How many partitions it has in all.
    capacity: int = 0
    #: The partitions that hold no instance, not even one that is being destroyed.
    free: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """An instance of the same group that has its place already."""

    computer: str
    datacenter: str


@dataclass(frozen=True, slots=True)
class ServiceLevel:
    """Where a request allows its instance to go."""

    computer_guid: str = ""
    datacenters: tuple[str, ...] = ()
    region: str = ""
    group: str = ""
    spread: str = ""

    @classmethod
    def parse(cls, sla: Mapping[str, object]) -> ServiceLevel:
        """Read the SLA of a request.

        :raises InvalidRequestError: for a key that does not exist or a value that is none.
        """
        for key in sorted(sla, key=str):
            if key not in SLA_KEYS:
                raise InvalidRequestError(
                    f"unknown SLA key {key!r}", f"the known ones are {', '.join(SLA_KEYS)}"
                )
        spread = _text(sla, "spread")
        group = _text(sla, "group")
        if spread not in {"", "datacenter"}:
            raise InvalidRequestError(
                f"SLA key 'spread' is {spread!r}", "the one value that it takes is 'datacenter'"
            )
        if spread and not group:
            raise InvalidRequestError(
                f"SLA key 'spread' is {spread!r} but there is no 'group'",
                "add 'group', the name that the instances to spread have in common",
            )
        return cls(
            computer_guid=_text(sla, "computer_guid"),
            datacenters=_names(sla.get("datacenter", ())),
            region=_text(sla, "region"),
            group=group,
            spread=spread,
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What placement thinks of one computer."""

    computer: str
    eligible: bool
    #: Smaller is better: members of the group in its data center, members on it, minus free
    #: partitions. Empty when not eligible.
    score: tuple[int, int, int] | tuple[()]
    explanation: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The place of an instance, or none, and a verdict for every computer, best first."""

    computer: str | None
    partition: str | None
    verdicts: tuple[Verdict, ...]


def place(
    candidates: Iterable[Candidate], members: Sequence[Member], level: ServiceLevel
) -> Decision:
    """Choose the computer and its partition.

    The order of the candidates has no influence. Of those that the service level allows and that
    have a free partition, the best has the fewest members of the group in its data center and then
    on itself (both only where the request spreads), then the most free partitions, then the first
    name.
    """
    judged = [(_judge(each, members, level), each) for each in candidates]
    judged.sort(key=lambda pair: (not pair[0].eligible, pair[0].score, pair[0].computer))
    verdicts = tuple(verdict for verdict, _ in judged)
    if not judged or not verdicts[0].eligible:
        return Decision(None, None, verdicts)
    best = judged[0][1]
    return Decision(best.reference, min(best.free, key=natural_order), verdicts)


def natural_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sorting key by which slappart2 comes before slappart10."""
    return tuple(
        (1, int(piece), piece) if piece.isascii() and piece.isdigit() else (0, 0, piece)
        for piece in re.split(r"([0-9]+)", name)
        if piece
    )


def _judge(candidate: Candidate, members: Sequence[Member], level: ServiceLevel) -> Verdict:
    """Say whether the candidate can host, and how well or why not."""
    reasons = _refusals(candidate, level)
    if reasons:
        return Verdict(candidate.reference, False, (), " and ".join(reasons))
    text = f"{len(candidate.free)} of {candidate.capacity} partitions free"
    near = on = 0
    if level.spread:
        near = sum(member.datacenter == candidate.datacenter for member in members)
        on = sum(member.computer == candidate.reference for member in members)
        text = (
            f"data center {candidate.datacenter or '(none)'} has {near} of group {level.group},"
            f" the computer {on}; {text}"
        )
    return Verdict(candidate.reference, True, (near, on, -len(candidate.free)), text)


def _refusals(candidate: Candidate, level: ServiceLevel) -> list[str]:
    """Return the reasons why the candidate cannot host; none when it can."""
    reasons = []
    if level.computer_guid and candidate.reference != level.computer_guid:
        reasons.append(f"asked for computer {level.computer_guid}")
    if level.datacenters and candidate.datacenter not in level.datacenters:
        asked = " or ".join(level.datacenters)
        reasons.append(f"data center is {candidate.datacenter or '(none)'}, asked for {asked}")
    if level.region and candidate.region != level.region:
        reasons.append(f"region is {candidate.region or '(none)'}, asked for {level.region}")
    if not candidate.capacity:
        reasons.append("no partitions (slapos node format has not run there)")
    elif not candidate.free:
        reasons.append(f"full ({candidate.capacity} of {candidate.capacity} partitions in use)")
    return reasons


def _text(sla: Mapping[str, object], key: str) -> str:
    """Return the value of an SLA key that is one word."""
    value = sla.get(key, "")
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidRequestError(f"SLA key {key!r} is {value!r}", "give it as text")
    return value.strip()


def _names(value: object) -> tuple[str, ...]:
    """Return the data centers of a list, or of a text with commas or spaces."""
    if isinstance(value, str):
        value = re.split(r"[,\s]+", value)
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise InvalidRequestError(
            f"SLA key 'datacenter' is {value!r}", "give one data center, or several with commas"
        )
    return tuple(name.strip() for name in value if name.strip())
