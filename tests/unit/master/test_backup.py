# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup is whole, can be put back into any kind of database, and computers follow."""

from __future__ import annotations

import gzip
import json
import random
import signal
import stat
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cheroot.server import HTTPServer
from database_servers import KINDS, DatabaseServer, on_every_database
from master_cloud import serving
from master_command import slapos_master
from sqlalchemy import select

from slapos_wendelin.master.authority import Authority
from slapos_wendelin.master.backup import BackupFile, tables
from slapos_wendelin.master.cluster_authority import ClusterAuthority
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.errors import BackupError
from slapos_wendelin.master.models import Product

Location = Path | str

#: The bytes before what is compressed: a changed date there harms nothing.
_GZIP_HEADER = 10


@pytest.fixture(autouse=True)
def quick_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle server sees soon that it shall stop."""
    monkeypatch.setattr(HTTPServer, "expiration_interval", 0.02)


def fill(location: Location, computers: int = 2) -> None:
    """Make instances, one of which refers to one that came later, and one that is gone."""
    with serving(location) as cloud:
        for number in range(computers):
            cloud.add_computer(f"computer-{number}", partitions=4, datacenter=f"dc-{number}")
        cloud.client.put_product("neo", "https://example.org/neo", defaults={"a": [1, None, "é"]})
        early = cloud.request("early", filter_kw={"computer_guid": "computer-0"})
        late = cloud.request("late", partition_parameter_kw={"_": '{"text": "é\\u0000\\ud800"}'})
        child = cloud.request_from(early, "child")
        cloud.request_from(child, "shared", shared=True)
        cloud.partition(child).setConnectionDict({"url": "neo://[::1]"})
        cloud.request("late", state="destroyed")
        cloud.slap.registerComputerPartition(
            late.slap_computer_id, late.slap_computer_partition_id
        ).destroyed()


def rows(location: Location, *left_out: str) -> dict[str, list[Any]]:
    """Return all rows, without what becomes due again when a backup is put back."""
    database = Database(location, create=False)
    with database.reading() as session:
        connection = session.connection()
        found = {
            table.name: [
                {key: value for key, value in row.items() if key not in left_out}
                for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()
            ]
            for table in tables()
        }
    database.close()
    return found


def new_location(kind: str, folder: Path, servers: Callable[[str], DatabaseServer]) -> Location:
    if kind == "sqlite":
        return folder / "restored.sqlite"
    return servers(kind).new_database()


@pytest.mark.parametrize("target", KINDS)
@on_every_database
def test_a_backup_is_put_back_into_every_kind_of_database(
    location: Location,
    target: str,
    tmp_path: Path,
    database_servers: Callable[[str], DatabaseServer],
):
    fill(location)
    file = tmp_path / "backup"
    assert slapos_master("backup", file, "--database", location) == 0
    restored = new_location(target, tmp_path, database_servers)
    assert slapos_master("restore", file, "--database", restored) == 0
    before, after = (rows(each, "number", "revision", "value") for each in (location, restored))
    assert after["instance"].pop()["reference"].startswith("backup put back")
    assert after == before
    assert slapos_master("check", "--database", restored) == 0
    # What is new gets row numbers that nobody had.
    with serving(restored) as cloud:
        guid = cloud.request("new").getInstanceGuid()
        assert int(guid.removeprefix("SOFTINST-")) > 100_000
        cloud.add_computer("computer-9")
    assert slapos_master("check", "--database", restored) == 0


def test_a_backup_is_for_its_owner_only_and_says_what_it_holds(
    location: Location, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    fill(location)
    file = tmp_path / "backup"
    assert slapos_master("backup", file, "--database", location, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (told["rows"]["computer"], told["rows"]["instance"]) == (2, 4)
    lines = gzip.decompress(file.read_bytes()).splitlines()
    assert json.loads(lines[-1]) == {"sha256": told["sha256"]}
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".backup")] == []


@on_every_database
def test_a_backup_under_fire_holds_one_state(location: Location, tmp_path: Path):
    """Each transaction of the writer changes two products together."""
    database = Database(location)
    with database.writing() as session:
        for name in ("one", "two"):
            session.add(Product(name=name, release_url="0"))
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with database.writing() as session:
                for name in ("one", "two"):
                    session.get_one(Product, name).release_url = str(number)

    thread = threading.Thread(target=write)
    thread.start()
    seen: set[str] = set()
    index, deadline = 0, time.monotonic() + 240
    try:
        # The writer may be slow, and does not write between any two.
        while index < 4 or len(seen) == 1:
            assert time.monotonic() < deadline, "nothing was written"
            index += 1
            file = tmp_path / f"backup{index}"
            assert slapos_master("backup", file, "--database", location) == 0
            for table, lines in BackupFile(file).tables():
                kept = list(lines)
                if table.name == "product":
                    urls = {each["release_url"] for each in kept}
                    assert len(urls) == 1
                    seen |= urls
    finally:
        stop.set()
        thread.join()
        database.close()
    assert len(seen) > 1


def damaged(content: bytes, how: str) -> bytes:
    lines = gzip.decompress(content).splitlines(keepends=True)
    if how == "cut":
        return content[: len(content) // 2]
    if how == "a bit":
        middle = len(content) // 2
        return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    if how == "a value":
        lines = [line.replace(b"early", b"later") for line in lines]
    elif how == "a row less":
        lines = [line for line in lines if b"early" not in line]
    elif how == "the end":
        lines = lines[:-1]
    elif how == "more":
        lines = [*lines, lines[-1]]
    elif how == "a later version":
        lines[0] = lines[0].replace(b'"schema":"', b'"schema":"9')
    elif how == "another file":
        return b"SQLite format 3\0" * 100
    return gzip.compress(b"".join(lines))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut", "is damaged"),
        ("a bit", "is damaged"),
        ("a value", "its checksum is another one"),
        ("a row less", "its checksum is another one"),
        ("the end", "its end is missing"),
        ("more", "it goes on after its checksum"),
        ("a later version", "has schema version 9"),
        ("another file", "is damaged: Not a gzipped file"),
    ],
)
def test_a_damaged_backup_is_refused_and_nothing_changed(
    location: Location, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str, message: str
):
    fill(location)
    file = tmp_path / "backup"
    assert slapos_master("backup", file, "--database", location) == 0
    file.write_bytes(damaged(file.read_bytes(), how))
    before = rows(location)
    capsys.readouterr()
    assert slapos_master("restore", file, "--database", location, "--replace", "--yes") == 1
    assert message in capsys.readouterr().err
    assert rows(location) == before


def test_a_bit_that_changed_anywhere_is_found_or_without_effect(location: Location, tmp_path: Path):
    fill(location)
    file = tmp_path / "backup"
    assert slapos_master("backup", file, "--database", location) == 0
    content = file.read_bytes()
    whole = gzip.decompress(content)
    for place in range(_GZIP_HEADER, len(content)):
        changed = bytes([content[place] ^ 1 << place % 8])
        file.write_bytes(content[:place] + changed + content[place + 1 :])
        try:
            # The last byte of what is compressed may have bits that mean nothing.
            assert gzip.decompress(file.read_bytes()) == whole
        except (OSError, EOFError, zlib.error):
            with pytest.raises(BackupError, match="is damaged"):
                BackupFile(file)


@on_every_database
def test_what_is_there_is_replaced_only_when_that_is_asked_for(
    location: Location, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    fill(location)
    file = tmp_path / "backup"
    assert slapos_master("backup", file, "--database", location) == 0
    with serving(location) as cloud:
        cloud.request("lost")
    before = rows(location)
    assert slapos_master("restore", file, "--database", location) == 1
    assert "is not empty" in capsys.readouterr().err
    assert slapos_master("restore", file, "--database", location, "--replace") == 1
    assert "add --yes" in capsys.readouterr().err
    assert rows(location) == before
    assert slapos_master("restore", file, "--database", location, "--replace", "--yes") == 0
    assert "lost" not in {each["reference"] for each in rows(location)["instance"]}


@on_every_database
def test_nothing_is_put_back_under_a_running_master(
    location: Location, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    fill(location)
    file = tmp_path / "backup"
    assert slapos_master("backup", file, "--database", location) == 0
    with serving(location) as cloud:
        before = cloud.client.instances()
        assert slapos_master("restore", file, "--database", location, "--replace", "--yes") == 1
        assert "stop the masters that use it" in capsys.readouterr().err
        assert cloud.client.instances() == before


def test_a_damaged_database_is_replaced(location: Location, tmp_path: Path):
    fill(location)
    file = tmp_path / "backup"
    assert slapos_master("backup", file, "--database", location) == 0
    before = rows(location, "number", "revision", "value")
    assert isinstance(location, Path)
    location.write_bytes(b"nonsense" * 1000)
    Path(f"{location}-wal").write_bytes(b"more nonsense")
    assert slapos_master("check", "--database", location) == 1
    assert slapos_master("restore", file, "--database", location, "--replace", "--yes") == 0
    after = rows(location, "number", "revision", "value")
    after["instance"].pop()
    assert after == before


@on_every_database
def test_a_computer_that_knows_more_than_the_backup_gets_all_its_work_again(
    location: Location, tmp_path: Path
):
    file = tmp_path / "backup"
    with serving(location) as cloud:
        cloud.add_computer("paris")
        cloud.request("cluster", partition_parameter_kw={"a": "old"})
    assert slapos_master("backup", file, "--database", location) == 0
    with serving(location) as cloud:
        newer = cloud.request("cluster", partition_parameter_kw={"a": "new"})
        known = cloud.client.wait_due("paris")["number"]
        timestamp = float(cloud.partition(newer).getInstanceParameterDict()["timestamp"])
    assert slapos_master("restore", file, "--database", location, "--replace", "--yes") == 0
    with serving(location) as cloud:
        due = cloud.client.wait_due("paris", after=known, timeout=30)
        assert [each["reference"] for each in due["instances"]] == ["cluster"]
        parameters = cloud.partition(newer).getInstanceParameterDict()
        assert parameters["a"] == "old"
        # slapgrid leaves out a partition whose timestamp is not newer than the one it knows.
        assert float(parameters["timestamp"]) > timestamp
        assert not cloud.client.instance("cluster")["settled"]


@on_every_database
def test_a_restore_that_is_killed_leaves_the_old_database(location: Location, tmp_path: Path):
    file = tmp_path / "backup"
    fill(location, computers=30)
    assert slapos_master("backup", file, "--database", location) == 0
    with serving(location) as cloud:
        cloud.request("kept")
    before, taken = rows(location), []
    command = [sys.executable, "-m", "slapos_wendelin.cli.entry", "master", "restore", str(file)]
    command += ["--database", str(location), "--replace", "--yes"]
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", SLOWLY, *command[3:]],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"filling\n"
        time.sleep(random.uniform(0, 0.4))  # noqa: S311 (when it is killed is no secret)
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        taken.append(process.wait())
        assert rows(location) == before
    assert taken == [-signal.SIGKILL] * 2
    assert slapos_master("check", "--database", location) == 0
    assert slapos_master("restore", file, "--database", location, "--replace", "--yes") == 0
    assert "kept" not in {each["reference"] for each in rows(location)["instance"]}


#: Puts a backup back so slowly that it can be killed in the middle of it.
SLOWLY = """
import sys, time
from slapos_wendelin.cli import entry
from slapos_wendelin.master import restoring
fill_table = restoring._fill_table
def slowly(connection, table, rows):
    print("filling", flush=True)
    fill_table(connection, table, rows)
    time.sleep(0.2)
restoring._fill_table = slowly
sys.exit(entry.main())
"""


def test_the_authority_is_in_the_backup_when_that_is_asked_for(
    location: Location, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    Database(location).close()
    folder, back = tmp_path / "authority", tmp_path / "back"
    authority = Authority(folder)
    cluster = ClusterAuthority(authority, "SOFTINST-1").signer.fingerprint
    file = tmp_path / "backup"
    assert slapos_master("backup", file, "--database", location) == 0
    target = tmp_path / "new.sqlite"
    assert slapos_master("restore", file, "--database", target, "--authority", back) == 1
    assert "holds no certificate authority" in capsys.readouterr().err
    assert not target.exists()
    assert slapos_master("backup", file, "--database", location, "--authority", folder) == 0
    assert slapos_master("restore", file, "--database", target, "--authority", back) == 0
    assert Authority(back).fingerprint == authority.fingerprint
    assert ClusterAuthority(Authority(back), "SOFTINST-1").signer.fingerprint == cluster
    assert stat.S_IMODE(back.stat().st_mode) == 0o700
    assert stat.S_IMODE((back / "ca.key").stat().st_mode) == 0o600
    target.unlink()
    assert slapos_master("restore", file, "--database", target, "--authority", back) == 1
    assert f"the folder {back} is not empty" in capsys.readouterr().err
    assert not target.exists()


def test_a_folder_that_is_no_authority_is_refused(
    location: Location, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    Database(location).close()
    (tmp_path / "empty").mkdir()
    file = tmp_path / "backup"
    arguments = ("--database", location, "--authority", tmp_path / "empty")
    assert slapos_master("backup", file, *arguments) == 1
    assert "is no certificate authority" in capsys.readouterr().err
    assert not file.exists()


def test_a_missing_database_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "missing.sqlite"
    for command in (["backup", tmp_path / "backup"], ["check"]):
        assert slapos_master(*command, "--database", path) == 1
        assert f"there is no database {path}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_backup_that_cannot_be_written_is_told(
    location: Location, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    Database(location).close()
    assert slapos_master("backup", tmp_path / "no" / "backup", "--database", location) == 1
    assert "cannot be written: No such file" in capsys.readouterr().err
