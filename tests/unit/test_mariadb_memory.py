# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Buffers of a computer's storages take a quarter of the memory that there is, in equal parts."""

import psutil
import pytest

from slapos_wendelin.mariadb.memory import buffer_size, usable_memory

GIB = 2**30


@pytest.mark.parametrize(
    ("share", "memory", "size"),
    [
        (1, 16 * GIB, 4 * GIB),
        (4, 16 * GIB, GIB),
        (3, 16 * GIB, 1365 * 2**20),
        (0, 4 * GIB, GIB),
        (64, GIB, 64 * 2**20),
    ],
)
def test_the_storages_of_a_computer_share_a_quarter_of_its_memory(share, memory, size):
    assert buffer_size(share, memory) == size


def test_the_limit_of_a_control_group_counts_when_it_is_less(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("0::/system.slice/wendelin.service\n")
    folder = tmp_path / "groups" / "system.slice" / "wendelin.service"
    folder.mkdir(parents=True)
    (folder / "memory.max").write_text("max\n")
    assert usable_memory(own, tmp_path / "groups") == psutil.virtual_memory().total
    (folder.parent / "memory.max").write_text(f"{64 * 2**20}\n")
    assert usable_memory(own, tmp_path / "groups") == 64 * 2**20


def test_control_groups_of_version_1_count_too(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("5:cpu,cpuacct:/other\n4:memory:/job\n0::/\n")
    folder = tmp_path / "groups" / "memory" / "job"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(f"{32 * 2**20}\n")
    assert usable_memory(own, tmp_path / "groups") == 32 * 2**20


def test_a_system_without_control_groups_has_its_memory(tmp_path):
    assert usable_memory(tmp_path / "nothing", tmp_path) == psutil.virtual_memory().total
