# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told of quotas is what the file system of the partitions says."""

from __future__ import annotations

from pathlib import Path

import pytest

from slapos_wendelin.node.quotas import Quotas, quotas_of

MOUNTS = """\
22 1 253:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 253:1 / /srv rw,relatime - ext4 /dev/vdb rw,usrquota,data=ordered
24 22 253:2 / /srv/plain rw - xfs /dev/vdc rw,attr2,noquota
25 22 253:3 / /with\\040space rw - xfs /dev/vdd rw,usrquota,prjquota
26 22 253:4 / /journaled rw - ext4 /dev/vde rw,jqfmt=vfsv0,usrjquota=aquota.user
27 22 253:5 / /twice rw - ext4 /dev/vdf rw
28 27 253:6 / /twice rw - ext4 /dev/vdg rw,quota
"""


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("/nowhere/inst", Quotas("/", are_kept=False)),
        ("/srv/inst", Quotas("/srv", are_kept=True)),
        ("/srv", Quotas("/srv", are_kept=True)),
        ("/srvother", Quotas("/", are_kept=False)),
        ("/srv/plain/inst", Quotas("/srv/plain", are_kept=False)),
        ("/with space/inst", Quotas("/with space", are_kept=True)),
        ("/journaled", Quotas("/journaled", are_kept=True)),
        ("/twice/inst", Quotas("/twice", are_kept=True)),
    ],
)
def test_the_file_system_of_the_partitions_tells(
    tmp_path: Path, folder: str, expected: Quotas
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert quotas_of(Path(folder), mounts) == expected


def test_the_systems_own_list_is_read(tmp_path: Path) -> None:
    assert Path(quotas_of(tmp_path).mount_point).is_mount()
