# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""slapgrid, as this package changes it, keeps the certificates of instances up to date."""

from __future__ import annotations

import logging
from pathlib import Path

from slapos.grid.SlapObject import Partition


class Told:
    """Tells a partition its certificate and key, as the slap library does."""

    def __init__(self, number: int) -> None:
        self.number = number

    def getCertificate(self) -> dict[str, str]:  # noqa: N802 (slapos.core's name)
        return {"certificate": f"certificate {self.number}", "key": f"key {self.number}"}


def test_an_instance_gets_another_certificate_from_a_slapgrid_of_an_ordinary_user(tmp_path: Path):
    partition = Partition.__new__(Partition)
    partition.logger = logging.getLogger("test")
    partition.instance_path = str(tmp_path)
    files = [tmp_path / name for name in ("slappart0.crt", "slappart0.key")]
    partition.cert_file, partition.key_file = map(str, files)
    for number in range(3):
        partition.computer_partition = Told(number)
        partition._updateCertificate()
        assert [each.read_text() for each in files] == [f"certificate {number}", f"key {number}"]
        assert [each.stat().st_mode & 0o777 for each in files] == [0o400, 0o400]
