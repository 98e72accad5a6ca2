# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command update-hash."""

import hashlib
from pathlib import Path

import pytest
from buildout_runs import write

from slapos_wendelin.buildout import update_hash

REPOSITORY = Path(__file__).resolve().parents[2]
MD5 = hashlib.md5(b"content").hexdigest()  # noqa: S324

HASH_FILE = """\
# A comment that stays.
[first]
filename = first.in
md5sum = stale

[second]
_update_hash_filename_ = folder/second.in
filename = something else

[third]
filename = third.in
md5sum = {third}
"""


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "first.in", "content")
    write(tmp_path / "folder/second.in", "content")
    write(tmp_path / "third.in", "content")
    write(tmp_path / "buildout.hash.cfg", HASH_FILE.format(third=MD5))
    return tmp_path


def test_stale_and_missing_checksums_are_refreshed_and_all_else_stays(folder, capsys):
    assert update_hash.main([str(folder)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"updated: {folder}/first.in",
        f"updated: {folder}/folder/second.in",
    ]
    expected = HASH_FILE.format(third=MD5).replace("stale", MD5)
    expected = expected.replace("second.in\n", f"second.in\nmd5sum = {MD5}\n")
    assert (folder / "buildout.hash.cfg").read_text() == expected
    assert update_hash.main(["--check", str(folder)]) == 0


def test_check_fails_on_a_stale_checksum_and_changes_nothing(folder, capsys):
    assert update_hash.main(["--check", str(folder)]) == 1
    assert f"stale: {folder}/first.in" in capsys.readouterr().out
    assert (folder / "buildout.hash.cfg").read_text() == HASH_FILE.format(third=MD5)


def test_a_file_that_is_gone_is_an_error_and_nothing_is_written(folder, capsys):
    (folder / "third.in").unlink()
    assert update_hash.main([str(folder)]) == 1
    assert "[third]" in capsys.readouterr().err
    assert "stale" in (folder / "buildout.hash.cfg").read_text()


@pytest.mark.parametrize("name", ["nowhere", "folder"])
def test_a_folder_without_hash_file_is_an_error(folder, name, capsys):
    assert update_hash.main([str(folder / name)]) == 1
    assert str(folder / name) in capsys.readouterr().err


def test_what_buildout_has_made_is_not_looked_at(folder):
    write(folder / "parts" / "x" / "buildout.hash.cfg", "[x]\nfilename = none\n")
    assert update_hash.hash_files([folder]) == [folder / "buildout.hash.cfg"]


def test_the_checksums_of_this_repository_are_right():
    assert update_hash.update([REPOSITORY], check=True) == []


def test_each_template_of_this_repository_has_a_checksum():
    covered = {
        (path.parent / entry.filename).resolve()
        for path in update_hash.hash_files([REPOSITORY])
        for entry in update_hash._entries(path.read_text().splitlines())
    }
    folders = ("instance-profiles", "component", "stack")
    patterns = ("*.in", "*.patch")
    for name in folders:
        for pattern in patterns:
            for path in (REPOSITORY / name).rglob(pattern):
                assert path in covered or path.name == "requirements.in", path
