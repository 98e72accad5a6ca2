# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a master keeps of a cluster that was destroyed: who had what, and no key."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from killed_steps import killed_before_step
from secure_cloud import SecureCloud
from test_cluster_certificates import node, shake_hands

from slapos_wendelin.certificates import Subject
from slapos_wendelin.cluster_identity import keep_for_user
from slapos_wendelin.errors import WendelinError
from slapos_wendelin.master import computers, endings
from slapos_wendelin.master.authority import Authority
from slapos_wendelin.master.backup import BackupFile, write_backup
from slapos_wendelin.master.cluster_authority import ClusterAuthority
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.models import Instance
from slapos_wendelin.master.restoring import restore, restore_authority
from slapos_wendelin.master.server import MasterServer


@pytest.fixture(scope="module")
def bern(secure_cloud: SecureCloud) -> SecureCloud:
    for name in ("zurich", "bern"):
        secure_cloud.add_computer(name, partitions=20)
    return secure_cloud


def wiped(cloud: SecureCloud, guid: str, computer: str = "zurich") -> None:
    """Report as a computer does that an instance was destroyed."""
    shown = cloud.operator.client.instance(guid)
    caller = cloud.holder("computer", computer)
    caller.slap.registerComputerPartition(computer, shown["partition"]).destroyed()


def secrets_of(authority: Authority, guid: str) -> list[str]:
    """Return the files below the authority's folder that are of a cluster or an instance."""
    return [str(each) for each in authority.folder.rglob("*") if guid in str(each)]


def tree(cloud: SecureCloud, name: str) -> tuple[str, str]:
    """Request a cluster of a root and a child; return their guids."""
    sla = {"computer_guid": "zurich"}
    root = cloud.request(name, filter_kw=sla)
    partition = cloud.holder("partition", root.getInstanceGuid()).slap.registerComputerPartition(
        "zurich", root.getId()
    )
    child = partition.request("https://example.org/a.cfg", "default", "child", filter_kw=sla)
    return root.getInstanceGuid(), child.getInstanceGuid()


def test_nobody_can_sign_for_a_cluster_of_which_nothing_is_left(bern: SecureCloud, tmp_path: Path):
    root, child = tree(bern, "dying")
    keep_for_user(bern.operator.client, "dying", tmp_path / "alice")
    bern.request("dying", state="destroyed")
    wiped(bern, root)
    assert secrets_of(bern.authority, root), "the child may still need a certificate"
    assert bern.operator.client.cluster_of(root)["authority"]
    wiped(bern, child)
    assert not secrets_of(bern.authority, root)
    for ask in (bern.operator.client.cluster_of, bern.viewer.client.cluster_of):
        with pytest.raises(WendelinError, match=f"the cluster {root} is gone"):
            ask(root)
    with pytest.raises(WendelinError, match=f"the cluster {root} is gone"):
        bern.operator.client.certify_user(root, "no request")
    assert not secrets_of(bern.authority, root), "to ask has made another one"


def test_the_record_of_who_had_what_stays(bern: SecureCloud, tmp_path: Path):
    one = node(bern, "remembered", tmp_path)
    keep_for_user(bern.operator.client, "remembered", tmp_path / "alice")
    bern.request("remembered", state="destroyed")
    wiped(bern, one.guid)
    (of_user,) = bern.operator.client.certificates("client", f"{one.guid}/alice")
    (of_node,) = bern.operator.client.certificates("node", f"{one.guid}/{one.guid}")
    assert of_user["revoked_at"]
    assert of_user["reason"] == "the cluster is gone"
    assert of_node["revoked_at"]
    assert of_node["reason"] == "the instance is gone"


def test_a_new_cluster_of_the_same_name_refuses_the_certificates_of_the_old_one(
    bern: SecureCloud, tmp_path: Path
):
    old = node(bern, "phoenix", tmp_path)
    keep_for_user(bern.operator.client, "phoenix", tmp_path / "old")
    kept = shutil.copytree(old.folder, tmp_path / "kept")
    bern.request("phoenix", state="destroyed")
    wiped(bern, old.guid)
    new = node(bern, "phoenix", tmp_path / "again")
    keep_for_user(bern.operator.client, "phoenix", tmp_path / "new")
    assert not shake_hands(new.folder, tmp_path / "new")
    for stale in (tmp_path / "old", kept):
        assert "certificate verify failed" in shake_hands(new.folder, stale, new.folder) or (
            "unknown ca" in shake_hands(new.folder, stale, new.folder)
        )


def test_a_lost_computer_that_is_given_up_leaves_no_key(bern: SecureCloud):
    sla = {"computer_guid": "bern"}
    guid = bern.request("lost", filter_kw=sla).getInstanceGuid()
    computer = bern.holder("computer", "bern")
    partition = bern.operator.client.instance(guid)["partition"]
    computer.slap.registerComputerPartition("bern", partition).getCertificate()
    bern.operator.client.cluster_of(guid)
    assert len(secrets_of(bern.authority, guid)) > 1
    bern.request("lost", state="destroyed", filter_kw=sla)
    with bern.database.writing() as session:
        computers.remove(session, computers.find_computer(session, "bern"), is_lost=True)
    assert not secrets_of(bern.authority, guid)


class Dying:
    """A cluster of one instance that is about to end, in files of its own."""

    def __init__(self, folder: Path, template: Path) -> None:
        folder.mkdir()
        self.path = shutil.copy(template, folder / "master.sqlite")
        self.authority = Authority(folder / "authority")
        self.authority.keep(self.authority.issue_with_key(Subject("partition", "SOFTINST-1")))
        ClusterAuthority(self.authority, "SOFTINST-1")

    def end(self) -> None:
        """End the instance as a master does."""
        database = Database(self.path)
        endings.follow(database, self.authority)
        with database.writing() as session:
            endings.end_instance(session, session.get_one(Instance, 1))
        database.close()

    def end_and_be_killed(self, step: int) -> bool:
        """End it in a process that is killed before its step on files of that number.

        Return whether the process came to that step.
        """

        def end(count_steps: Callable[[], None]) -> None:
            database = Database(self.path)
            endings.follow(database, self.authority)
            count_steps()
            with database.writing() as session:
                endings.end_instance(session, session.get_one(Instance, 1))

        return killed_before_step(step, end)

    def start(self) -> None:
        """Do what a master does at its start."""
        server = MasterServer(self.path, "127.0.0.1", 0, authority=self.authority)
        server._server.serve = lambda: None
        try:
            server.serve()
        finally:
            server.stop()

    def is_ended(self) -> bool:
        """Say whether the database has kept the end."""
        database = Database(self.path)
        with database.reading() as session:
            ended = session.get_one(Instance, 1).destroyed_at is not None
        database.close()
        return ended


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a database with one instance."""
    path = tmp_path_factory.mktemp("one") / "master.sqlite"
    database = Database(path)
    with database.writing() as session:
        session.add(
            Instance(
                reference="dying",
                software_release="https://example.org/a.cfg",
                software_type="default",
                requested_state="destroyed",
                state="destroyed",
                created_at=time.time(),
            )
        )
    database.close()
    return path


@pytest.fixture
def dying(tmp_path: Path, template: Path) -> Iterator[Dying]:
    return Dying(tmp_path / "dying", template)


def test_a_master_that_is_killed_at_any_step_removes_the_keys_at_its_next_start(
    tmp_path: Path, template: Path
):
    step, after = 1, 0
    while True:
        dying = Dying(tmp_path / str(step), template)
        if not dying.end_and_be_killed(step):
            break
        step += 1
        ended = dying.is_ended()
        if not ended:
            assert ClusterAuthority.find(dying.authority, "SOFTINST-1") is not None
            dying.end()
        after += ended and bool(secrets_of(dying.authority, "SOFTINST-1"))
        endings.finish(Database(dying.path), dying.authority)
        assert not secrets_of(dying.authority, "SOFTINST-1")
    assert after > 4, "the master was never killed between the end and the removal"


def test_a_start_removes_the_keys_of_what_has_ended_and_no_others(
    dying: Dying, monkeypatch: pytest.MonkeyPatch
):
    ClusterAuthority(dying.authority, "SOFTINST-2")
    dying.start()
    assert ClusterAuthority.find(dying.authority, "SOFTINST-1") is not None
    with monkeypatch.context() as patch:
        patch.setattr(endings, "follow", lambda *_: None)
        dying.end()
    assert secrets_of(dying.authority, "SOFTINST-1")
    dying.start()
    assert not secrets_of(dying.authority, "SOFTINST-1")
    # Nothing is known of the other one: the database may be that of before a backup is put back.
    assert ClusterAuthority.find(dying.authority, "SOFTINST-2") is not None


def test_a_folder_that_cannot_be_written_ends_no_master(
    dying: Dying, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(endings, "remove_authority", fail)
        dying.end()
    assert dying.is_ended()
    assert "keys of what is gone stay" in caplog.text
    dying.start()
    assert not secrets_of(dying.authority, "SOFTINST-1")


def test_a_backup_holds_no_key_of_a_cluster_that_is_gone_and_an_older_one_brings_it_back(
    dying: Dying, tmp_path: Path
):
    database = Database(dying.path)
    fingerprint = ClusterAuthority(dying.authority, "SOFTINST-1").signer.fingerprint
    folder = dying.authority.folder
    before = write_backup(database, tmp_path / "before", folder)
    assert "clusters/SOFTINST-1/1/ca.key" in before.authority
    dying.end()
    after = write_backup(database, tmp_path / "after", folder)
    assert not [each for each in after.authority if "SOFTINST-1" in each]
    database.close()
    backup = BackupFile(tmp_path / "before")
    restore(backup, str(dying.path), replace=True)
    restore_authority(backup, folder, replace=True)
    dying.start()
    assert not dying.is_ended()
    assert ClusterAuthority(Authority(folder), "SOFTINST-1").signer.fingerprint == fingerprint
