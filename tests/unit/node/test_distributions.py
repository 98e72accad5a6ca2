# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Distributions are read once, and what is installed later is seen all the same."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from zc.buildout import easy_install

from slapos_wendelin.node.distributions import Distributions

pkg_resources: Any = easy_install.pkg_resources


def install(folder: Path, name: str, version: str) -> None:
    """Let a distribution look installed."""
    metadata = folder / f"{name}-{version}.dist-info"
    metadata.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: other>=2\n"
    (metadata / "METADATA").write_text(text)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder on sys.path with one distribution."""
    install(tmp_path, "first", "1.0")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    return tmp_path


def names(found: Any) -> list[str]:
    """Return the names of distributions."""
    return sorted(str(distribution) for distribution in found)


def test_what_was_read_is_given_again(folder: Path) -> None:
    known = Distributions(pkg_resources)
    (first,) = known.find(str(folder))
    assert next(known.find(str(folder))) is first
    assert str(first.requires()[0]) == "other>=2"


def test_it_is_what_buildout_would_find() -> None:
    known = Distributions(pkg_resources)
    for each in sys.path:
        for only in (False, True):
            expected = names(pkg_resources.find_distributions(each, only))
            assert names(known.find(each, only)) == expected


def test_what_is_installed_later_is_found(folder: Path) -> None:
    known = Distributions(pkg_resources)
    install(folder, "second", "2.0")
    assert names(known.find(str(folder))) == ["first 1.0", "second 2.0"]


def test_folders_that_are_not_on_the_path_are_read_each_time(tmp_path: Path) -> None:
    known = Distributions(pkg_resources)
    install(tmp_path / "eggs", "third", "3.0")
    assert names(known.find(str(tmp_path / "eggs"))) == ["third 3.0"]
    assert list(known.find(str(tmp_path / "nowhere"))) == []
