# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of several modules need."""

import pytest
from compiled_mariadb import Compiled, find_compiled


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The compiled MariaDB; without it, tests are skipped."""
    found = find_compiled(tmp_path_factory.mktemp("buildout"))
    if isinstance(found, str):
        pytest.skip(found)
    return found
