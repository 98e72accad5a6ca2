# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts named by their content."""

import errno
from pathlib import Path

import pytest

from slapos_wendelin.buildout.errors import ProfileError
from slapos_wendelin.recipe.shared import MARKER, SharedPart, content_identity


@pytest.fixture
def section(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    return {
        "shared-part-list": f"\n{tmp_path}/absent\n{tmp_path}/first\n{tmp_path}/second\n",
        "parts-directory": f"{tmp_path}/parts",
    }


def part(section, *, shared=True, **identity):
    return SharedPart(section, "tool", shared=shared, identity=identity)


def make(location, _lock):
    (location / "file").write_text("content")


def test_a_part_is_made_once_in_the_first_folder_that_may_be_written(section, tmp_path):
    part(section).build(make)
    part(section).build(lambda *_: pytest.fail("made again"))
    assert part(section).location.parent == tmp_path / "first" / "tool"
    assert part(section).installed() == []


def test_a_part_that_any_folder_holds_is_used(section, tmp_path):
    only_second = {**section, "shared-part-list": f"{tmp_path}/second"}
    part(only_second).build(make)
    assert part(section).location.parent == tmp_path / "second" / "tool"


def test_a_part_that_is_not_shared_belongs_to_its_buildout(section, tmp_path):
    own = part(section, shared=False)
    own.build(make)
    assert own.installed() == [str(own.location)]
    assert own.location.is_relative_to(tmp_path / "parts")


def test_the_folder_depends_on_all_of_the_identity(section):
    places = [part(section, a=1), part(section, a=2), part(section, a=1, b=1)]
    assert len({one.location for one in places}) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ProfileError("x"), OSError(errno.EIO, "x")])
def test_a_part_that_fails_leaves_nothing(section, error):
    one = part(section)

    def fail(location: Path, lock: int) -> None:
        make(location, lock)
        raise error

    with pytest.raises((KeyboardInterrupt, ProfileError)):
        one.build(fail)
    assert not one.location.exists()
    one.build(make)
    assert one.complete


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named(section, number):
    one = part(section)

    def fail(*_):
        raise OSError(number, "full")

    with pytest.raises(ProfileError, match=r"no space left for .* MiB are free"):
        one.build(fail)


def test_what_a_killed_build_left_is_removed_first(section):
    one = part(section)
    one.location.mkdir(parents=True)
    (one.location / "half").write_text("")
    one.build(make)
    assert {path.name for path in one.location.iterdir()} == {"file", MARKER}


def test_a_wheel_of_a_part_is_told_apart_by_its_place_and_others_by_content(tmp_path):
    digest = "0123456789abcdef" * 2
    assert content_identity(f"/any/{digest}/x.whl") == f"{digest}/x.whl"
    (tmp_path / "x.whl").write_text("a")
    first = content_identity(str(tmp_path / "x.whl"))
    (tmp_path / "x.whl").write_text("b")
    assert content_identity(str(tmp_path / "x.whl")) != first
    with pytest.raises(ProfileError, match=r"cannot read .*absent\.whl"):
        content_identity(str(tmp_path / "absent.whl"))
