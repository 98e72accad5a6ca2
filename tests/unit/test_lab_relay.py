# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a packet arrives that the relay of a lab carries."""

import pytest

from slapos_wendelin.lab.relay import Way


def test_a_packet_takes_the_delay_of_its_way():
    assert Way(delay=0.02).due(1500, 100.0) == pytest.approx(100.02)
    assert Way().due(1500, 100.0) == 100.0


def test_nothing_arrives_where_the_way_is_cut_or_loses_all():
    for way in (Way(is_cut=True), Way(loss=1.0)):
        assert way.due(1500, 100.0) is None
        assert way.lost == 1


def test_a_share_of_packets_is_lost():
    way = Way(loss=0.25)
    arrived = sum(way.due(100, 0.0) is not None for _ in range(4000))
    assert way.lost == 4000 - arrived
    # Four standard deviations are 110 packets; ten never happen.
    assert 2725 < arrived < 3275


def test_packets_leave_one_after_another_where_there_is_a_rate():
    way = Way(delay=0.5, rate=1000.0)
    assert [way.due(100, 10.0) for _ in range(3)] == pytest.approx([10.6, 10.7, 10.8])
    # A way that was idle owes nothing for the time before.
    assert way.due(100, 20.0) == pytest.approx(20.6)


def test_what_waits_too_long_for_a_narrow_way_is_lost():
    way = Way(rate=100_000.0)
    arrivals = [way.due(1500, 0.0) for _ in range(200)]
    assert way.lost == arrivals.count(None)
    arrived = [arrival for arrival in arrivals if arrival is not None]
    assert 0.5 < max(arrived) < 0.8
    assert way.due(1500, 1.0) is not None
