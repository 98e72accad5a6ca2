# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``slapos request`` and ``slapos cluster plan`` against a real master."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from master_cloud import Cloud
from our_slapos import Slapos

WENDELIN = Path(__file__).parents[3] / "software" / "wendelin" / "software.cfg"


@pytest.fixture
def slapos(cloud: Cloud, tmp_path: Path) -> Slapos:
    return Slapos(tmp_path, cloud.url)


def add_data_centers(cloud: Cloud, partitions: int = 6) -> None:
    for name in ("paris", "tokyo", "virginia"):
        cloud.add_computer(name, partitions, datacenter=name)


def test_the_name_of_a_product_is_enough(cloud: Cloud, slapos: Slapos):
    add_data_centers(cloud)
    slapos("cluster", "product", "add", "wendelin-cluster", WENDELIN)
    result = slapos("request", "wendelin-cluster")
    assert (result.status, result.err) == (0, "")
    assert result.out == "wendelin-cluster is requested, its state is started.\n"
    assert cloud.client.instance("wendelin-cluster")["release_url"] == str(WENDELIN)
