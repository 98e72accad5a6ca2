# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the SLA of a request may say, and what it means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slapos_wendelin.master.errors import InvalidRequestError
from slapos_wendelin.master.quantities import read_bytes, read_frequency, show_bytes, show_frequency
from slapos_wendelin.master.service_level import SLA_KEYS, ServiceLevel, kept_apart_as

GIB = 2**30


@pytest.mark.parametrize(
    ("sla", "expected"),
    [
        ({}, ServiceLevel()),
        ({"computer_guid": " paris-1 "}, ServiceLevel(computer_guid="paris-1")),
        ({"datacenter": "paris"}, ServiceLevel(datacenters=("paris",))),
        ({"datacenter": "paris, tokyo"}, ServiceLevel(datacenters=("paris", "tokyo"))),
        ({"datacenter": ["paris", "tokyo"]}, ServiceLevel(datacenters=("paris", "tokyo"))),
        ({"datacenter": "paris,paris"}, ServiceLevel(datacenters=("paris",))),
        ({"region": "eu", "provider": "here"}, ServiceLevel(region="eu", provider="here")),
        ({"network_guid": "net-1"}, ServiceLevel(network_guid="net-1")),
        ({"instance_guid": "SOFTINST-1"}, ServiceLevel(instance_guid="SOFTINST-1")),
        ({"capability": "gpu,two words"}, ServiceLevel(capabilities=("gpu", "two words"))),
        ({"storage_type": "ssd"}, ServiceLevel(labels=(("storage_type", "ssd"),))),
        ({"label.rack": "7"}, ServiceLevel(labels=(("label.rack", "7"),))),
        ({"cpu_core": 4}, ServiceLevel(sizes=(("cpu_core", 4),))),
        ({"memory_size": "4GiB"}, ServiceLevel(sizes=(("memory_size", 4 * GIB),))),
        ({"mode": "unique_by_network"}, ServiceLevel(mode="unique_by_network")),
        ({"region": "", "datacenter": [], "group": None, "cpu_core": " "}, ServiceLevel()),
    ],
)
def test_service_levels_are_read(sla, expected):
    assert ServiceLevel.parse(sla) == expected


def test_a_group_names_what_is_kept_apart_only_where_something_is_kept_apart():
    spread = {"group": "storage", "spread": "datacenter"}
    unique = {"group": "storage", "mode": "unique_by_computer"}
    assert ServiceLevel.parse(spread) == ServiceLevel(group="storage", spread="datacenter")
    assert ServiceLevel.parse(unique) == ServiceLevel(group="storage", mode="unique_by_computer")
    assert ServiceLevel.parse({"group": "blue"}) == ServiceLevel(labels=(("group", "blue"),))
    assert kept_apart_as(spread) == kept_apart_as(unique) == "storage"
    assert kept_apart_as({"group": "blue"}) == kept_apart_as({"mode": "unique_by_computer"}) == ""


@pytest.mark.parametrize(
    ("sla", "message"),
    [
        ({"datacentre": "x"}, r"'datacentre' \(the known ones are computer_guid, datacenter"),
        ({"project_guid": "x"}, "unknown SLA key 'project_guid'"),
        ({"label.": "x"}, r"unknown SLA key 'label.' .* and label.NAME"),
        ({1: "x"}, "unknown SLA key 1"),
        ({"k" * 10_000: "x"}, r"unknown SLA key 'k+\.\.\. "),
        ({"spread": "rack", "group": "a"}, "'spread' is 'rack' .use 'datacenter'"),
        ({"mode": "unique"}, "'mode' is 'unique' .*'unique_by_computer' or 'unique_by_network'"),
        ({"spread": "datacenter"}, "there is no 'group'"),
        ({"region": ["eu"]}, "'region' is"),
        ({"region": "e\nu"}, "'region' is"),
        ({"region": "e" * 10_000}, "'region' has 10000 characters"),
        ({"datacenter": [1]}, "'datacenter' is"),
        ({"datacenter": {"paris": 1}}, "'datacenter' is"),
        ({"datacenter": ","}, "'datacenter' is ','"),
        ({"capability": 7}, "'capability' is 7"),
        ({"label.rack": 7}, "'label.rack' is 7"),
        ({"label. rack": "7"}, "the name of a label in the SLA is ' rack'"),
        ({"cpu_core": "many"}, "'cpu_core' is 'many' .give a whole number of cores"),
        ({"cpu_core": 0}, "'cpu_core' is 0"),
        ({"cpu_core": -4}, "'cpu_core' is -4"),
        ({"cpu_core": 1.5}, "'cpu_core' is 1.5"),
        ({"cpu_core": True}, "'cpu_core' is True"),
        ({"cpu_core": [4]}, r"'cpu_core' is \[4\]"),
        ({"memory_size": "4 gibibytes"}, "'memory_size' is '4 gibibytes' .*such as 4GiB"),
        ({"memory_size": 4}, "'memory_size' is 4 .give at least 1 MiB with its unit"),
        ({"memory_size": float("nan")}, "'memory_size' is nan"),
        ({"memory_size": "9" * 10_000}, "'memory_size' is '9"),
        ({"cpu_frequency": "0 GHz"}, "'cpu_frequency' is '0 GHz' .give a frequency"),
    ],
)
def test_a_wrong_service_level_is_named(sla, message):
    with pytest.raises(InvalidRequestError, match=message) as refusal:
        ServiceLevel.parse(sla)
    assert len(str(refusal.value)) < 700


@pytest.mark.parametrize("key", SLA_KEYS)
def test_a_value_that_is_no_value_is_an_error_for_every_key(key):
    with pytest.raises(InvalidRequestError, match=f"'{key}' is"):
        ServiceLevel.parse({key: object()})


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("4294967296", 4 * GIB),
        ("4GiB", 4 * GIB),
        ("4 gib", 4 * GIB),
        ("4Gi", 4 * GIB),
        ("4GB", 4 * 10**9),
        ("4G", 4 * 10**9),
        ("1.5TiB", 1536 * GIB),
        ("0.0015 GB", 1_500_000),
        ("1024KiB", 2**20),
        ("1023KiB", None),
        ("4", None),
        ("4 Gig", None),
        ("-4GiB", None),
        ("1e9", None),
        ("٤GiB", None),
    ],
)
def test_bytes_are_read_with_and_without_units(text, amount):
    assert read_bytes(text) == amount


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("2400", 2_400_000_000),
        ("2.4 GHz", 2_400_000_000),
        ("2400mhz", 2_400_000_000),
        ("900 kHz", 900_000),
        ("fast", None),
        ("", None),
    ],
)
def test_frequencies_are_read_with_and_without_units(text, amount):
    assert read_frequency(text) == amount


def test_sizes_are_shown_as_people_write_them():
    assert [show_bytes(4 * GIB), show_bytes(1536 * 2**20)] == ["4 GiB", "1.5 GiB"]
    assert [show_bytes(512 * 2**20), show_bytes(10)] == ["512 MiB", "10 B"]
    assert show_frequency(2_400_000_000) == "2400 MHz"


@given(
    st.dictionaries(
        st.one_of(st.sampled_from(SLA_KEYS), st.text(max_size=9).map("label.".__add__), st.text()),
        st.one_of(
            st.text(),
            st.sampled_from(["datacenter", "unique_by_computer", "4GiB", "4"]),
            st.none(),
            st.integers(),
            st.floats(),
            st.lists(st.text()),
        ),
    )
)
def test_any_sla_is_read_or_refused_with_a_remedy(sla):
    error = None
    try:
        level = ServiceLevel.parse(sla)
    except InvalidRequestError as raised:
        error = raised
    if error is not None:
        assert "SLA" in error.message
        assert error.remedy
        return
    assert level.group or not level.spread
    assert ServiceLevel.parse(dict(reversed(sla.items()))) == level
