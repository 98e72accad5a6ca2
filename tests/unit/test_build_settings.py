# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A computer's builds take things from where its operator says; what cannot be is refused."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from slapos_wendelin import build_settings
from slapos_wendelin.cli.join import JoinCommand, targets_of
from slapos_wendelin.compiled.keys import make_key
from slapos_wendelin.errors import ParameterError
from slapos_wendelin.onhost.configuration import Computer
from slapos_wendelin.onhost.joining import Joining
from slapos_wendelin.onhost.record import Record

MASTER = "https://127.0.0.1:5000"


@pytest.fixture
def key(tmp_path: Path) -> str:
    """Return a public key."""
    return make_key(tmp_path / "key")


def arguments(*options: str) -> argparse.Namespace:
    """Return the arguments of a join with options."""
    parser = JoinCommand(None, None).get_parser("slapos computer join")
    return parser.parse_args(["ssh://host", "--datacenter", "paris", *options])


def builds(*options: str) -> dict[str, str]:
    """Return what a join with options tells the host of builds."""
    (target,) = targets_of(arguments(*options))
    return dict(target.builds)


def test_what_is_not_given_is_not_told_so_that_it_stays() -> None:
    assert builds() == {}
    assert builds("--compile", "never") == {"compile": "never"}
    assert builds("--compile", "allowed") == {"compile": ""}
    assert builds("--source-mirror", "") == {"source-mirror": ""}
    assert builds("--compiled-cache", "") == {"compiled-cache": "", "compiled-cache-keys": ""}


def test_keys_are_given_as_words_or_in_files_of_the_operator(tmp_path: Path, key: str) -> None:
    other = make_key(tmp_path / "other")
    (tmp_path / "keys").write_text(f"{other}  # of the builder\n")
    given = builds(
        *("--compiled-cache", "https://cache.example.org"),
        *("--compiled-key", key, "--compiled-key", str(tmp_path / "keys")),
    )
    assert given["compiled-cache-keys"] == f"{key} {other}"


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--source-mirror", "mirror"), "--source-mirror is 'mirror', no absolute path and no URL"),
        (("--source-mirror", "ftp://x"), "--source-mirror is 'ftp://x', no URL of http or https"),
        (("--source-mirror", "https://"), "--source-mirror is 'https://', no URL of http"),
        (("--source-mirror", "http://x:99999"), "no URL of http or https"),
        (("--source-mirror", "/a\nb = c"), "with white space in it"),
        (("--source-mirror", "https://me:secret@x"), "--source-mirror holds a user or password"),
        (("--source-mirror", "https://token@x"), "--source-mirror holds a user or password"),
        (("--compiled-cache", "/srv/cache"), "--compiled-cache is given without --compiled-key"),
        (("--compiled-key", "KEY"), "--compiled-key is given without --compiled-cache"),
        (("--compiled-cache", "/c", "--compiled-key", "ed25519:x"), "--compiled-key: 'ed25519:x'"),
        (
            ("--compiled-cache", "/c", "--compiled-key", "/none"),
            "trusted keys /none cannot be read",
        ),
    ],
)
def test_what_cannot_be_is_named_with_its_place_before_any_host_is_asked(
    key: str, options: tuple[str, ...], fault: str
) -> None:
    given = [key if each == "KEY" else each for each in options]
    with pytest.raises(ParameterError) as caught:
        builds(*given)
    assert fault in caught.value.message
    assert caught.value.remedy
    assert "secret" not in str(caught.value)


def test_an_inventory_says_it_for_its_hosts_itself(tmp_path: Path) -> None:
    given = arguments("--source-mirror", "")
    given.host, given.datacenter, given.inventory = "", "", tmp_path / "computers.yaml"
    with pytest.raises(ParameterError, match="--source-mirror is for one host"):
        targets_of(given)


def test_the_configuration_says_it_and_builds_get_it_as_variables(tmp_path: Path) -> None:
    settings = {
        "compiled-cache": "https://cache.example.org/100%25",
        "compiled-cache-keys": "ed25519:a= ed25519:b=",
        "compile": "never",
        "source-mirror": "/srv/all sources",
    }
    computer = Computer("paris-1", MASTER, tmp_path, 2, folder=tmp_path, builds=settings)
    computer.settings.write_text(computer.texts()[computer.settings])
    assert build_settings.read(computer.settings) == settings
    assert build_settings.environment(settings) == {
        "WENDELIN_COMPILED": "https://cache.example.org/100%25",
        "WENDELIN_COMPILED_KEYS": "ed25519:a= ed25519:b=",
        "WENDELIN_COMPILE": "never",
        "WENDELIN_MIRROR": "/srv/all sources",
        "UV_DEFAULT_INDEX": "file:///srv/all%20sources/python/simple",
    }
    assert build_settings.environment({"source-mirror": "http://m/"})["UV_DEFAULT_INDEX"] == (
        "http://m/python/simple"
    )
    without = Computer("paris-1", MASTER, tmp_path, 2, folder=tmp_path)
    assert "[builds]" not in without.texts()[without.settings]
    assert build_settings.read(tmp_path / "none.cfg") == {}


def test_joining_again_changes_what_is_given_and_keeps_the_rest() -> None:
    known = build_settings.changed({}, {"compile": "never", "source-mirror": "/a"})
    assert build_settings.changed(known, {}) == known
    assert build_settings.changed(known, {"source-mirror": ""}) == {"compile": "never"}
    assert build_settings.changed(known, {"source-mirror": "/b"})["source-mirror"] == "/b"


def test_a_folder_that_the_host_lacks_is_refused_before_anything_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record(tmp_path / "joined.json")
    monkeypatch.setattr("slapos_wendelin.onhost.joining.Record", lambda: record)
    order = {
        "name": "paris-1",
        "master": MASTER,
        "partitions": 2,
        "addresses": "",
        "prefix": f"{tmp_path}/opt",
        "data": f"{tmp_path}/srv",
        "python": "/usr/bin/python3",
        "toolkit": "abc",
        "builds": {"source-mirror": f"{tmp_path}/mirror"},
    }
    joining = Joining(None, order)  # pyright: ignore[reportArgumentType] (nothing is said)
    with pytest.raises(ParameterError, match="mirror, and the host has no such folder"):
        joining.run()
    assert list(tmp_path.iterdir()) == []
