# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics for Prometheus.

Those of the cloud are read from the database when they are asked for, so every master tells the
same. Those of the master are its own: where several masters serve one database, each is scraped.
The worker processes of one master count in files of one folder, and each tells the sum, in which
those that have ended stay.
"""

from __future__ import annotations

import os
import time
from collections import Counter as Tally
from collections.abc import Iterable, Iterator

from flask import Response, g, request
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import and_, case, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from slapos_wendelin.master import status
from slapos_wendelin.master.computer_fields import REMOVED
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.models import Computer, Instance, Software
from slapos_wendelin.master.presence import Presence
from slapos_wendelin.master.supervisor import METRICS_VARIABLE

#: The bounds of histograms, in seconds: placement is fast, a wait for work is long.
_DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SHORT_DURATIONS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1)


class Metrics:
    """The metrics of one application."""

    def __init__(self, database: Database, presence: Presence) -> None:
        """Begin to count."""
        self.registry = CollectorRegistry()
        self.registry.register(_Cloud(database, presence))
        counting: CollectorRegistry | None = self.registry
        if METRICS_VARIABLE in os.environ:
            MultiProcessCollector(self.registry)
            counting = None
        self._requests = Counter(
            "slapos_master_requests",
            "Requests that were answered.",
            ("endpoint", "status"),
            registry=counting,
        )
        self._durations = Histogram(
            "slapos_master_request_seconds",
            "How long requests took, waiting for work included.",
            ("endpoint",),
            buckets=_DURATIONS,
            registry=counting,
        )
        self._placements = Histogram(
            "slapos_master_placement_seconds",
            "How long it took to find a place for an instance, or that there is none.",
            buckets=_SHORT_DURATIONS,
            registry=counting,
        )
        self._lock_waits = Histogram(
            "slapos_master_database_lock_wait_seconds",
            "How long changes waited for the database's write lock.",
            buckets=_DURATIONS,
            registry=counting,
        )

    def placed(self, seconds: float) -> None:
        """Count a placement."""
        self._placements.observe(seconds)

    def waited(self, seconds: float) -> None:
        """Count a wait for the write lock."""
        self._lock_waits.observe(seconds)

    def answered(self, response: Response) -> Response:
        """Count a request; the application calls it after each."""
        endpoint = request.endpoint or "none"
        self._requests.labels(endpoint, response.status_code).inc()
        self._durations.labels(endpoint).observe(
            time.monotonic() - g.get("began", time.monotonic())
        )
        return response


class _Cloud(Collector):
    """Reads the metrics of the cloud from the database."""

    def __init__(self, database: Database, presence: Presence) -> None:
        self._database = database
        self._presence = presence

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Promise nothing, so that nothing is read before somebody asks."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield every metric; without a database only that it fails."""
        try:
            with self._database.reading() as session:
                families = [*self._computers(session), *_instances(session), *_software(session)]
        except SQLAlchemyError:
            families = []
        yield GaugeMetricFamily(
            "slapos_database_up", "Whether the database can be read.", float(bool(families))
        )
        yield from families

    def _computers(self, session: Session) -> list[GaugeMetricFamily]:
        """Return what is to be told of computers and their partitions."""
        counts = _family("slapos_computers", "Computers.", "datacenter", "state")
        offered = _family("slapos_partitions", "Partitions that computers offer.", "datacenter")
        used = _family("slapos_partitions_used", "Partitions with an instance.", "datacenter")
        contacts = _family(
            "slapos_computer_contact_age_seconds",
            "How long ago a computer called.",
            "datacenter",
            "computer",
        )
        usage = status.partition_usage(session)
        states: Tally[tuple[str, str]] = Tally()
        offers: Tally[str] = Tally()
        uses: Tally[str] = Tally()
        now = time.time()
        rows = session.execute(
            select(
                Computer.id,
                Computer.reference,
                Computer.datacenter,
                Computer.state,
                Computer.contacted_at,
            ).where(Computer.state != REMOVED)
        )
        for row, reference, datacenter, state, stored in rows:
            is_lost = self._presence.is_silent(reference, stored)
            states[datacenter, status.LOST if is_lost else state] += 1
            offers[datacenter] += usage.get(row, (0, 0))[0]
            uses[datacenter] += usage.get(row, (0, 0))[1]
            last = self._presence.latest(reference, stored)
            if last is not None:
                contacts.add_metric((datacenter, reference), max(0.0, now - last))
        for labels, number in sorted(states.items()):
            counts.add_metric(labels, number)
        for family, tally in ((offered, offers), (used, uses)):
            for datacenter, number in sorted(tally.items()):
                family.add_metric((datacenter,), number)
        return [counts, offered, used, contacts]


def _instances(session: Session) -> list[GaugeMetricFamily]:
    """Return what is to be told of instances that are there."""
    counts = _family("slapos_instances", "Instances by the state that they shall have.", "state")
    settled = _family("slapos_instances_settled", "Instances that are as they shall be.", "state")
    failing = _family("slapos_instances_failing", "Instances that reported an error.", "state")
    is_settled = and_(
        Instance.reported_state == Instance.state,
        Instance.error == "",
        Instance.reported_number >= Instance.number,
    )
    rows = session.execute(
        select(
            Instance.state,
            func.count(Instance.id),
            func.sum(case((is_settled, 1), else_=0)),
            func.sum(case((Instance.error != "", 1), else_=0)),
        )
        .where(Instance.destroyed_at.is_(None))
        .group_by(Instance.state)
        .order_by(Instance.state)
    )
    for state, number, well, faults in rows:
        counts.add_metric((state,), number)
        settled.add_metric((state,), float(well))
        failing.add_metric((state,), float(faults))
    return [counts, settled, failing]


def _software(session: Session) -> list[GaugeMetricFamily]:
    """Return what is to be told of software releases on computers."""
    counts = _family("slapos_software", "Software releases on computers by state.", "state")
    rows = session.execute(
        select(Software.reported_state, func.count(Software.id))
        .group_by(Software.reported_state)
        .order_by(Software.reported_state)
    )
    for state, number in rows:
        counts.add_metric((state or "waiting",), number)
    return [counts]


def _family(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    """Return a gauge without values."""
    return GaugeMetricFamily(name, text, labels=labels)
