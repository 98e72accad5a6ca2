# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an instance goes: pure functions over plain data, without input, output or clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import merge, nsmallest
from itertools import islice

from slapos_wendelin.master.candidates import (
    ELIGIBLE,
    STATES_THAT_HOST,
    Candidate,
    Member,
    natural_order,
)
from slapos_wendelin.master.fleet import (
    Facet,
    Fleet,
    Site,
    capability_facet,
    label_facet,
    network_facet,
)
from slapos_wendelin.master.requirements import (
    free_partitions,
    lacking_capability,
    lacking_partition,
    requirements,
)
from slapos_wendelin.master.service_level import ServiceLevel, label_name

__all__ = [
    "Candidate",
    "Decision",
    "Fleet",
    "Member",
    "ServiceLevel",
    "Verdict",
    "explain",
    "natural_order",
    "place",
    "unmet",
]

#: How many computers a decision that found a place explains: the chosen one and the next ones.
EXPLAINED = 8

#: When at most so many computers have a label, a capability or a size that is asked for, these are
#: looked at; otherwise those with the rarest label or capability, the best first, until enough of
#: them fit.
SCANNED = 512


@dataclass(frozen=True, slots=True)
class Verdict:
    """What placement thinks of one computer."""

    computer: str
    eligible: bool
    #: Smaller is better: members of the group in its data center, members on it, minus free
    #: partitions. Empty when not eligible.
    score: tuple[int, int, int] | tuple[()]
    explanation: str


@dataclass(frozen=True, eq=False)
class Decision:
    """The place of an instance, or none."""

    computer: str | None
    partition: str | None
    #: How many computers there were to choose from.
    computers: int
    #: Those that are explained, as they were when it was decided.
    _candidates: tuple[Candidate, ...]
    _judge: _Judge

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Why: the chosen computer and the next best ones; for a refusal every computer.

        They are those at the head of what :func:`explain` returns.
        """
        return _explained(self._candidates, self._judge)

    def first_verdicts(self, count: int) -> tuple[Verdict, ...]:
        """Return the first of the verdicts without working out the others."""
        if self.computer is not None:
            return self.verdicts[:count]
        first = nsmallest(count, self._candidates, key=lambda each: each.reference)
        return _explained(first, self._judge)


def place(
    candidates: Iterable[Candidate], members: Sequence[Member], level: ServiceLevel
) -> Decision:
    """Choose the computer and its partition.

    The order of the candidates has no influence; a :class:`Fleet` is searched without looking at
    each. Of those that the service level allows and that have a free partition, the best has the
    fewest members of the group in its data center and then on itself (both only where the request
    spreads), then the most free partitions, then the first name. Of its partitions the first one
    in natural order is taken.
    """
    fleet = candidates if isinstance(candidates, Fleet) else Fleet(candidates)
    judge = _Judge(level, members)
    best = list(islice(_fitting(fleet, judge), EXPLAINED))
    if not best:
        return Decision(None, None, len(fleet), tuple(fleet), judge)
    fit = {each.reference for each in best}
    others = islice((each for each in fleet.references if each not in fit), EXPLAINED - len(best))
    explained = (*best, *(fleet[each] for each in others))
    partition = min(free_partitions(best[0], level), key=natural_order)
    return Decision(best[0].reference, partition, len(fleet), explained, judge)


def explain(
    candidates: Iterable[Candidate], members: Sequence[Member], level: ServiceLevel
) -> tuple[Verdict, ...]:
    """Return a verdict for every computer: first those that fit, the best first, then by name."""
    return _explained(candidates, _Judge(level, members))


def unmet(
    candidate: Candidate,
    partition: str,
    others: Sequence[Member],
    level: ServiceLevel,
    fleet: Fleet | None = None,
) -> tuple[str, ...]:
    """Return the reasons why an instance that has its place should not be there; none if it may.

    :param others: the other members of its group, or tree.
    :param fleet: all computers; with them, a spread instance that shares its data center with
        others of its group is told when another data center has fewer and room.
    """
    judge = _Judge(level, others)
    reasons = judge.unmet(candidate)
    if candidate.state not in STATES_THAT_HOST:
        reasons.insert(0, candidate.state)
    reasons.append(lacking_capability(candidate, level, partition))
    if fleet is not None:
        reasons.append(_crowding(candidate, judge, fleet))
    return tuple(filter(None, reasons))


class _Judge:
    """What one request asks, worked out once and then applied to many computers."""

    def __init__(self, level: ServiceLevel, members: Sequence[Member]) -> None:
        self.level = level
        self.requirements = requirements(level, members)
        spread = members if level.spread else ()
        #: How many members of the group a data center has, and a computer.
        self.near: Mapping[str, int] = Counter(member.datacenter for member in spread)
        self.on: Mapping[str, int] = Counter(member.computer for member in spread)

    def fits(self, candidate: Candidate) -> bool:
        """Return whether a computer can take the instance."""
        if not candidate.is_open:
            return False
        for requirement in self.requirements:
            if not requirement.is_met(candidate):
                return False
        return bool(free_partitions(candidate, self.level))

    def score(self, candidate: Candidate) -> tuple[int, int, int]:
        """Return how well a computer fits, the smaller the better."""
        return (
            self.near.get(candidate.datacenter, 0),
            self.on.get(candidate.reference, 0),
            -len(candidate.free),
        )

    def order(self, candidate: Candidate) -> tuple[tuple[int, int, int], str]:
        """Return the sorting key of a computer that fits."""
        return self.score(candidate), candidate.reference

    def unmet(self, candidate: Candidate) -> list[str]:
        """Return the reason of each requirement that a computer does not meet."""
        return [each.reason(candidate) for each in self.requirements if not each.is_met(candidate)]

    def verdict(self, candidate: Candidate) -> Verdict:
        """Say whether a computer can take the instance, and how well or why not."""
        reasons = [] if candidate.state == ELIGIBLE else [candidate.state]
        reasons += self.unmet(candidate)
        reasons += filter(None, [lacking_partition(candidate, self.level)])
        if reasons:
            return Verdict(candidate.reference, False, (), " and ".join(reasons))
        near, on, _ = score = self.score(candidate)
        text = f"{len(candidate.free)} of {candidate.capacity} partitions free"
        if self.level.spread:
            text = (
                f"data center {_named(candidate.datacenter)} has {near} of group"
                f" {self.level.group}, the computer {on}; {text}"
            )
        return Verdict(candidate.reference, True, score, text)


def _explained(candidates: Iterable[Candidate], judge: _Judge) -> tuple[Verdict, ...]:
    """Return the verdicts on computers, the best first."""
    verdicts = map(judge.verdict, candidates)
    return tuple(sorted(verdicts, key=lambda each: (not each.eligible, each.score, each.computer)))


def _fitting(fleet: Fleet, judge: _Judge) -> Iterator[Candidate]:
    """Yield the computers that fit, the best first."""
    few = _few(fleet, judge.level)
    if few is None:
        return filter(judge.fits, _in_order(fleet, judge))
    fitting = filter(judge.fits, map(fleet.__getitem__, few))
    return iter(sorted(fitting, key=judge.order))


def _few(fleet: Fleet, level: ServiceLevel) -> Collection[str] | None:
    """Return few computers among which are all that a request may go to; None for many."""
    if level.computer_guid or level.instance_guid:
        only = level.computer_guid or level.instance_computer
        return (only,) if only in fleet else ()
    return fleet.few_with(_facets(level), level.sizes, SCANNED)


def _facets(level: ServiceLevel) -> list[Facet]:
    """Return what a computer must have."""
    facets: list[Facet] = [label_facet(label_name(key), value) for key, value in level.labels]
    facets += map(capability_facet, level.capabilities)
    if level.network_guid:
        facets.append(network_facet(level.network_guid))
    return facets


def _in_order(fleet: Fleet, judge: _Judge) -> Iterator[Candidate]:
    """Yield the computers of the sites that a request allows, the best first.

    The data centers with equally many of the group are read together. In each, computers without
    any of the group come first, in the order in which the fleet keeps them.
    """
    tiers: dict[int, list[Site]] = {}
    sites = fleet.open_sites(_facets(judge.level))
    for site in sites:
        if _allows(judge.level, site):
            tiers.setdefault(judge.near.get(site.datacenter, 0), []).append(site)
    hosts = [fleet[each] for each in judge.on if each in fleet]
    for near in sorted(tiers):
        for _, reference in merge(*(sites[site] for site in tiers[near])):
            if reference not in judge.on:
                yield fleet[reference]
        crowded = [each for each in hosts if judge.near.get(each.datacenter, 0) == near]
        yield from sorted(crowded, key=judge.order)


def _allows(level: ServiceLevel, site: Site) -> bool:
    """Return whether a request may go to a site."""
    return (
        (not level.datacenters or site.datacenter in level.datacenters)
        and level.region in {"", site.region}
        and level.provider in {"", site.provider}
    )


def _crowding(candidate: Candidate, judge: _Judge, fleet: Fleet) -> str:
    """Say that an instance shares its data center with its group while another has room."""
    here = judge.near.get(candidate.datacenter, 0)
    best = next(_fitting(fleet, judge), None) if here else None
    there = here if best is None else judge.near.get(best.datacenter, 0)
    if best is None or there >= here:
        return ""
    return (
        f"data center {_named(candidate.datacenter)} has {here} more of group"
        f" {judge.level.group}, {_named(best.datacenter)} has {there} and room"
    )


def _named(datacenter: str) -> str:
    """Return the name of a data center as people read it."""
    return datacenter or "(none)"
