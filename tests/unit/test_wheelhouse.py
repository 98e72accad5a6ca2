# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The toolkit that hosts get is the one that runs here, each package with its hash."""

from __future__ import annotations

import csv
import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from uv import find_uv_bin

from slapos_wendelin.remote import wheelhouse
from slapos_wendelin.remote.own_wheel import lock_text, make_wheel
from slapos_wendelin.remote.wheelhouse import Platform, Wheelhouse

DEBIAN_12 = Platform((3, 11), "x86_64", 36)


def test_the_wheel_of_this_package_is_the_same_each_time_and_can_be_installed(
    tmp_path: Path,
) -> None:
    first, second = (tmp_path / name for name in ("first", "second"))
    first.mkdir()
    second.mkdir()
    wheel = make_wheel(first)
    assert wheel.read_bytes() == make_wheel(second).read_bytes()
    subprocess.run(
        [
            *(find_uv_bin(), "pip", "install", "--quiet", "--python", sys.executable, "--no-deps"),
            *("--no-config", "--offline", "--target", str(tmp_path / "installed"), str(wheel)),
        ],
        check=True,
    )
    installed = tmp_path / "installed"
    assert (installed / "slapos_wendelin.pth").exists()
    assert (installed / "slapos_wendelin" / "toolkit.txt").read_text() == lock_text()
    assert (installed / "slapos_wendelin" / "onhost" / "main.py").exists()


def test_the_list_in_the_wheel_has_the_digest_of_every_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(make_wheel(tmp_path)) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith("/RECORD")]
        rows = list(csv.reader(io.StringIO(archive.read(name).decode())))
        assert {row[0] for row in rows} == set(archive.namelist())
        assert all(row[1] for row in rows if row[0] != name)


def test_wheels_of_older_and_of_the_same_systems_run_and_newer_do_not() -> None:
    tags = DEBIAN_12.tags()
    assert tags[0] == "manylinux_2_36_x86_64"
    assert {"manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux1_x86_64"} <= set(tags)
    assert "manylinux_2_37_x86_64" not in tags
    assert DEBIAN_12.runs(Platform((3, 11), "x86_64", 31))
    assert not DEBIAN_12.runs(Platform((3, 11), "x86_64", 39))
    assert not DEBIAN_12.runs(Platform((3, 12), "x86_64", 36))
    assert not DEBIAN_12.runs(Platform((3, 11), "aarch64", 36))


def test_a_lock_is_taken_apart_without_losing_a_hash() -> None:
    lock = lock_text()
    only = wheelhouse.only(lock, {"uv"})
    rest = wheelhouse.without(lock, {"uv"})
    assert only.startswith("uv==")
    assert only.count("--hash=") > 1
    assert only.count("--hash=") + rest.count("--hash=") == lock.count("--hash=")
    assert "\nuv==" not in rest


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheelhouse:
    """Return a wheelhouse whose wheels are there: one of the lock, and one that was built here."""
    locked, built = b"locked", b"built"
    digest = hashlib.sha256(locked).hexdigest()
    lock = f"uv==1.0 \\\n    --hash=sha256:{digest}\nnetifaces==0.11.0 \\\n    --hash=sha256:00\n"
    monkeypatch.setattr(wheelhouse, "lock_text", lambda: lock)
    house = Wheelhouse(tmp_path / "cache", tmp_path)
    key = hashlib.sha256(lock.encode()).hexdigest()[:12]
    folder = tmp_path / "cache" / f"{key}-{DEBIAN_12}"
    folder.mkdir(parents=True)
    (folder / "uv-1.0-py3-none-any.whl").write_bytes(locked)
    (folder / "netifaces-0.11.0-cp311-cp311-linux_x86_64.whl").write_bytes(built)
    (folder / ".complete").touch()
    return house


def names_in(archive: Path) -> set[str]:
    listed = subprocess.run(["tar", "-tzf", archive], check=True, capture_output=True, text=True)
    return set(listed.stdout.split())


def test_a_host_without_a_network_gets_every_wheel_with_the_hash_of_what_was_built(
    house: Wheelhouse,
) -> None:
    bundle = house.bundle(DEBIAN_12, from_index=False)
    sent = names_in(bundle.archive)
    assert {name.split("-")[0] for name in sent} == {"uv", "netifaces", "slapos_wendelin"}
    built = hashlib.sha256(b"built").hexdigest()
    assert f"netifaces==0.11.0 --hash=sha256:{built}" in bundle.lock
    assert "sha256:00" not in bundle.lock
    assert bundle.project.startswith("slapos-wendelin==")
    assert not bundle.from_index


def test_a_host_with_a_network_gets_only_what_the_index_has_not(house: Wheelhouse) -> None:
    bundle = house.bundle(DEBIAN_12, from_index=True)
    sent = names_in(bundle.archive)
    assert {name.split("-")[0] for name in sent} == {"netifaces", "slapos_wendelin"}
    assert "uv==1.0" in bundle.from_index
    assert "netifaces" not in bundle.from_index


def test_the_toolkit_has_the_same_name_however_it_comes(house: Wheelhouse) -> None:
    names = {house.bundle(DEBIAN_12, from_index=each).identity for each in (True, False)}
    assert names == {house.identity(DEBIAN_12)}
    assert house.identity(Platform((3, 12), "x86_64", 36)) not in names
