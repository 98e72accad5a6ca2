# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""All computers, kept so that the best one for a request is found without looking at each."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from slapos_wendelin.master.candidates import SIZES, Candidate

#: Something that a computer has or has not: the kind, with the name for a label, and the value.
Facet = tuple[str, str]

#: The place of a computer in the order of its site: the most free partitions first, then the name.
Rank = tuple[int, str]


class Site(NamedTuple):
    """What the computers of one place have in common."""

    datacenter: str
    region: str
    provider: str


#: The site of a computer and its place there; None for one that takes no new instance.
_Place = tuple[Site, Rank] | None


class Fleet:
    """Computers by reference, by site and by what they have.

    The computers that take new instances stand in their site in the order in which placement wants
    them: all, and again those with each label, capability and network. A change of one computer
    costs a few binary searches for each.

    A fleet is plain data for one thread at a time: nobody may change it while another reads.
    """

    def __init__(self, candidates: Iterable[Candidate] = ()) -> None:
        self._candidates: dict[str, Candidate] = {}
        self._references: list[str] = []
        #: By what the computers have; under None are all.
        self._open: dict[Facet | None, dict[Site, list[Rank]]] = {}
        self._having: dict[Facet, set[str]] = {}
        self._sizes: dict[str, list[tuple[int, str]]] = {key: [] for key in SIZES}
        for candidate in candidates:
            self.put(candidate)

    def __len__(self) -> int:
        return len(self._candidates)

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._candidates.values())

    def __contains__(self, reference: object) -> bool:
        return reference in self._candidates

    def __getitem__(self, reference: str) -> Candidate:
        return self._candidates[reference]

    def get(self, reference: str) -> Candidate | None:
        """Return a computer, or None."""
        return self._candidates.get(reference)

    def put(self, candidate: Candidate) -> None:
        """Add a computer, or replace what is known of it."""
        before = self._candidates.get(candidate.reference)
        if before is None:
            insort(self._references, candidate.reference)
        self._candidates[candidate.reference] = candidate
        self._follow(before, candidate)

    def remove(self, reference: str) -> None:
        """Forget a computer; nothing happens when it is not known."""
        before = self._candidates.pop(reference, None)
        if before is not None:
            del self._references[bisect_left(self._references, reference)]
            self._follow(before, None)

    @property
    def references(self) -> Sequence[str]:
        """The names of all computers in their order."""
        return self._references

    def open_sites(self, facets: Collection[Facet] = ()) -> Mapping[Site, Sequence[Rank]]:
        """Return the sites with computers that take new instances, and those, the best first.

        :param facets: leave out computers that lack the one of these that the fewest have.
        """
        rarest = min(facets, key=lambda each: len(self._having.get(each, _NONE)), default=None)
        return self._open.get(rarest, _NOWHERE)

    def few_with(
        self, facets: Iterable[Facet], sizes: Iterable[tuple[str, int]], most: int
    ) -> Collection[str] | None:
        """Return few computers among which are all that have the facets and at least the sizes.

        :returns: None when they are more than *most*, or when nothing is asked for.
        """
        found: Collection[str] | None = min(
            (self._having.get(facet, _NONE) for facet in facets), key=len, default=None
        )
        fewest = most + 1 if found is None else len(found)
        for key, least in sizes:
            ranks = self._sizes[key]
            start = bisect_left(ranks, (least, ""))
            if len(ranks) - start < fewest:
                found = [reference for _, reference in ranks[start:]]
                fewest = len(found)
        return found if fewest <= most else None

    def _follow(self, before: Candidate | None, after: Candidate | None) -> None:
        """Bring every order and every set up to date with a change of one computer."""
        old, new = _facets(before), _facets(after)
        self._rank(_place(before), old, _place(after), new)
        if before is not None:
            self._unmark(before.reference, old - new)
        if after is not None:
            for facet in new - old:
                self._having.setdefault(facet, set()).add(after.reference)
        for key, size_of in SIZES.items():
            self._measure(self._sizes[key], _sized(before, size_of), _sized(after, size_of))

    def _rank(self, old: _Place, had: set[Facet], new: _Place, has: set[Facet]) -> None:
        """Move a computer within the orders of its site, or to those of another."""
        before: set[Facet | None] = {None, *had} if old else set()
        after: set[Facet | None] = {None, *has} if new else set()
        stays = before & after if old == new else set()
        if old is not None:
            for facet in before - stays:
                self._leave(facet, *old)
        if new is not None:
            site, rank = new
            for facet in after - stays:
                insort(self._open.setdefault(facet, {}).setdefault(site, []), rank)

    def _leave(self, facet: Facet | None, site: Site, rank: Rank) -> None:
        """Take a computer out of one order."""
        sites = self._open[facet]
        ranks = sites[site]
        del ranks[bisect_left(ranks, rank)]
        if not ranks:
            del sites[site]
        if not sites:
            del self._open[facet]

    def _unmark(self, reference: str, facets: Iterable[Facet]) -> None:
        """Note that a computer has lost facets."""
        for facet in facets:
            having = self._having[facet]
            having.remove(reference)
            if not having:
                del self._having[facet]

    @staticmethod
    def _measure(
        ranks: list[tuple[int, str]], old: tuple[int, str] | None, new: tuple[int, str] | None
    ) -> None:
        """Move a computer within the order of one size."""
        if old == new:
            return
        if old is not None:
            del ranks[bisect_left(ranks, old)]
        if new is not None:
            insort(ranks, new)


_NONE: frozenset[str] = frozenset()
_NOWHERE: Mapping[Site, Sequence[Rank]] = {}


def network_facet(network: str) -> Facet:
    """Return what a computer of that network has."""
    return "network", network


def capability_facet(capability: str) -> Facet:
    """Return what a computer has of which a partition has that capability."""
    return "capability", capability


def label_facet(name: str, value: str) -> Facet:
    """Return what a computer with that label has."""
    return f"label {name}", value


def _place(candidate: Candidate | None) -> _Place:
    """Return where a computer stands; None for one that takes no new instance."""
    if candidate is None or not candidate.is_open:
        return None
    site = Site(candidate.datacenter, candidate.region, candidate.provider)
    return site, (-len(candidate.free), candidate.reference)


def _sized(
    candidate: Candidate | None, size_of: Callable[[Candidate], int | None]
) -> tuple[int, str] | None:
    """Return where a computer stands in the order of a size; None when it has none."""
    size = None if candidate is None else size_of(candidate)
    return None if candidate is None or size is None else (size, candidate.reference)


def _facets(candidate: Candidate | None) -> set[Facet]:
    """Return everything that a computer has."""
    if candidate is None:
        return set()
    found = {label_facet(name, value) for name, value in candidate.labels.items()}
    found.update(map(capability_facet, candidate.capabilities))
    for capabilities in candidate.partition_capabilities.values():
        found.update(map(capability_facet, capabilities))
    if candidate.network:
        found.add(network_facet(candidate.network))
    return found
