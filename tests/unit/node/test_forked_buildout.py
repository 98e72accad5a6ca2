# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Only what is the same in a fork is run in one; the rest is started as slapgrid starts it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from slapos_wendelin.node.buildout_client import is_ours
from slapos_wendelin.node.enforcement import PartitionError, check_partition
from slapos_wendelin.node.promise_child import Promise
from slapos_wendelin.node.promise_environment import is_ours as are_ours

SCRIPT = """\
#!{python}

import sys
sys.path[0:0] = [
  {folder!r},
  ]

import zc.buildout.buildout

if __name__ == '__main__':
    sys.exit(zc.buildout.buildout.main())
"""

KNOWN = next(each for each in sys.path if each.endswith("site-packages"))


@pytest.mark.parametrize(
    ("python", "folder", "more", "expected"),
    [
        (sys.executable, KNOWN, "", True),
        ("/opt/other/bin/python3", KNOWN, "", False),
        (sys.executable, "/srv/eggs/zc.buildout-3.0.1+slapos-py3.egg", "", False),
        (sys.executable, KNOWN, "print('more')\n", False),
    ],
)
def test_only_the_script_of_this_buildout_is_run_in_a_fork(
    tmp_path: Path, python: str, folder: str, more: str, expected: bool
) -> None:
    script = tmp_path / "buildout"
    script.write_text(SCRIPT.format(python=python, folder=folder) + more)
    assert is_ours(script) is expected


def test_a_missing_script_is_not_ours(tmp_path: Path) -> None:
    assert not is_ours(tmp_path / "buildout")


def plugin(folder: Path, text: str) -> Promise:
    """Write a plugin of a partition."""
    (folder / "etc" / "plugin").mkdir(parents=True)
    (folder / "etc" / "plugin" / "it.py").write_text(text)
    return Promise(folder, "it.py", is_plugin=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"import sys\nsys.path[0:0] = ({KNOWN!r},)\n", True),
        ("import sys\nsys.path[0:0] = ['/srv/eggs/slapos.toolbox.egg']\n", False),
        ("x = 1\n", True),
        ("this is no Python\n", True),
    ],
)
def test_plugins_with_eggs_of_their_own_are_left_to_slapgrid(
    tmp_path: Path, text: str, expected: bool
) -> None:
    assert are_ours(str(tmp_path), [plugin(tmp_path, text)]) is expected


def test_plugins_of_a_release_with_a_python_of_its_own_are_left_to_slapgrid(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "buildout").write_text("#!/srv/python/bin/python3\n")
    assert not are_ours(str(tmp_path), [plugin(tmp_path / "p", "x = 1\n")])
    assert are_ours(str(tmp_path), [])


def test_a_plugin_that_would_keep_its_reader_waiting_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "etc" / "plugin").mkdir(parents=True)
    os.mkfifo(tmp_path / "etc" / "plugin" / "it.py")
    assert are_ours(str(tmp_path), [Promise(tmp_path, "it.py", is_plugin=True)])


def test_a_partition_must_be_a_folder_of_its_user_that_no_other_can_write(tmp_path: Path) -> None:
    folder = tmp_path / "slappart0"
    with pytest.raises(PartitionError, match="No such file or directory"):
        check_partition(folder)
    folder.mkdir(mode=0o700)
    with pytest.raises(PartitionError, match="is 0700, not 0750"):
        check_partition(folder)
    folder.chmod(0o750)
    if os.geteuid() == 0:
        with pytest.raises(PartitionError, match="belongs to root"):
            check_partition(folder)
    else:
        check_partition(folder)
