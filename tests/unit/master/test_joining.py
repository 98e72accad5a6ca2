# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Joining a master and staying in, as computers and users do it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from secure_cloud import SecureCloud
from slapos_command import stop_supervisord, write_configuration

from slapos_wendelin import joining, tokens
from slapos_wendelin.certificates import Subject, key_digest, read_certificates, read_key
from slapos_wendelin.master import admission
from slapos_wendelin.master.authority import Authority
from slapos_wendelin.master.client import MasterAnswerError, MasterClient, MasterUnreachableError
from slapos_wendelin.node.configuration import read_configuration
from slapos_wendelin.node.service import NodeService
from slapos_wendelin.trust import UntrustedMasterError

PROGRAMS = Path(sys.executable).parent


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The files of somebody who joins."""
    return {"certificate": tmp_path / "me.crt", "key": tmp_path / "me.key"}


def user_token(cloud: SecureCloud, name: str) -> str:
    """Return a token for a new user."""
    return cloud.operator.client.make_token("user", name, role="viewer")["token"]


def test_who_joins_needs_nothing_but_url_and_token(
    secure_cloud: SecureCloud, files: dict[str, Path]
):
    answer = joining.join(secure_cloud.url, user_token(secure_cloud, "anna"), **files)
    assert (answer["kind"], answer["name"]) == ("user", "anna")
    with MasterClient(secure_cloud.url, **files) as client:
        assert client.status()
    assert {path.stat().st_mode & 0o777 for path in files.values()} == {0o600}


def test_joining_may_be_repeated_after_an_interruption(
    secure_cloud: SecureCloud, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    token = user_token(secure_cloud, "bella")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(joining, "_write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            joining.join(secure_cloud.url, token, **files)
    key = files["key"].read_text()
    joining.join(secure_cloud.url, token, **files)
    assert files["key"].read_text() == key


def test_the_token_of_another_master_is_not_sent(
    secure_cloud: SecureCloud, files: dict[str, Path], tmp_path: Path
):
    other = Authority(tmp_path / "other")
    secret = tokens.secret_of(user_token(secure_cloud, "clara"))
    with pytest.raises(UntrustedMasterError, match="its authority is not the one of the token"):
        joining.join(secure_cloud.url, tokens.join(secret, other.fingerprint), **files)
    joining.join(secure_cloud.url, tokens.join(secret, secure_cloud.authority.fingerprint), **files)


def test_a_token_is_not_sent_in_clear(files: dict[str, Path]):
    token = tokens.join("secret", "00" * 32)
    with pytest.raises(UntrustedMasterError, match="may not be sent in clear"):
        joining.join("http://127.0.0.1:5000", token, **files)


def test_a_master_that_is_away_is_told(files: dict[str, Path]):
    token = tokens.join("secret", "00" * 32)
    with pytest.raises(MasterUnreachableError, match=r"127\.0\.0\.1:9 does not answer"):
        joining.join("https://127.0.0.1:9", token, **files)


def near_end(cloud: SecureCloud, folder: Path, name: str, *, together: bool = False):
    """Return the files of a user whose certificate ends in a minute."""
    with cloud.database.writing() as session:
        admission.put_user(session, name, "viewer")
        issued = cloud.authority.issue_with_key(Subject("user", name), timedelta(minutes=1))
        admission.record(session, issued)
    key, certificate = folder / f"{name}.key", folder / f"{name}.crt"
    if together:
        certificate = key
    key.write_text(issued.key + issued.certificate * together)
    if not together:
        certificate.write_text(issued.certificate)
    return {"certificate": certificate, "key": key}


@pytest.mark.parametrize("together", [False, True])
def test_a_certificate_near_its_end_is_renewed_for_the_same_key(
    secure_cloud: SecureCloud, tmp_path: Path, together: bool
):
    name = f"dora-{together}"
    files = near_end(secure_cloud, tmp_path, name, together=together)
    before = read_certificates(files["certificate"])[0]
    assert joining.renew_near_end(secure_cloud.url, **files)
    leaf, issuer = read_certificates(files["certificate"])
    assert leaf.not_valid_after_utc > before.not_valid_after_utc
    assert issuer == read_certificates(secure_cloud.authority.certificate_file)[0]
    assert key_digest(leaf.public_key()) == key_digest(read_key(files["key"]).public_key())
    with MasterClient(secure_cloud.url, **files) as client:
        assert client.status()
    assert not joining.renew_near_end(secure_cloud.url, **files)


def test_processes_that_renew_at_once_get_one_certificate(
    secure_cloud: SecureCloud, tmp_path: Path
):
    files = near_end(secure_cloud, tmp_path, "emma")
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: joining.renew_near_end(secure_cloud.url, **files), range(4)))
    assert sorted(done) == [False, False, False, True]


def test_a_renewal_that_is_refused_leaves_the_certificate_and_warns(
    secure_cloud: SecureCloud, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    files = near_end(secure_cloud, tmp_path, "fiona")
    before = files["certificate"].read_bytes()
    secure_cloud.operator.client.remove_user("fiona")
    with caplog.at_level(logging.WARNING):
        joining.renew_if_possible(secure_cloud.url, **files)
    assert "fiona.crt is not renewed: the certificate" in caplog.text
    assert files["certificate"].read_bytes() == before


def test_no_renewal_is_tried_in_clear_or_without_a_certificate(tmp_path: Path):
    joining.renew_if_possible("http://127.0.0.1:9", certificate=tmp_path / "a", key=tmp_path / "b")
    joining.renew_if_possible("https://127.0.0.1:9", certificate=None, key=None)


def test_the_service_of_a_computer_renews_its_certificate(
    secure_cloud: SecureCloud, tmp_path: Path
):
    cloud = secure_cloud
    cloud.operator.client.put_computer("turin")
    with cloud.database.writing() as session:
        issued = cloud.authority.issue_with_key(Subject("computer", "turin"), timedelta(minutes=1))
        admission.record(session, issued)
    path = tmp_path / "turin.pem"
    path.write_text(issued.key + issued.certificate)
    (tmp_path / "slapos.cfg").write_text(
        f"[slapos]\ncomputer_id = turin\nmaster_url = {cloud.url}\ninstance_root = {tmp_path}\n"
        f"cert_file = {path}\nkey_file = {path}\n"
    )
    configuration = read_configuration(tmp_path / "slapos.cfg")
    master = MasterClient(cloud.url, certificate=path, key=path)
    service = NodeService(configuration, master, master, master)
    service._renew_certificate()
    renewed = path.read_bytes()
    assert issued.certificate.encode() not in renewed
    service._renew_certificate()
    assert path.read_bytes() == renewed
    assert master.wait_due("turin", timeout=0)["software"] == []


def test_an_ended_certificate_is_told_with_what_to_do(secure_cloud: SecureCloud, tmp_path: Path):
    issued = secure_cloud.authority.issue_with_key(Subject("user", "late"), timedelta(seconds=1))
    path = tmp_path / "late.pem"
    path.write_text(issued.key + issued.certificate)
    while time.time() <= issued.not_after:
        time.sleep(0.1)
    with (
        MasterClient(secure_cloud.url, certificate=path, key=path) as client,
        pytest.raises(MasterUnreachableError, match=rf"the certificate {path} has ended") as told,
    ):
        client.status()
    assert "join again" in told.value.remedy


class Shell:
    """Runs the slapos command as one user of one machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variables = os.environ | {
            "HOME": str(folder),
            "SLAPOS_CLIENT_CONFIGURATION": str(folder / "client" / "slapos-client.cfg"),
            "SLAPOS_CONFIGURATION": str(folder / "node" / "slapos.cfg"),
        }

    def slapos(self, *arguments: str, status: int = 0) -> str:
        """Run a command and return what it said."""
        done = subprocess.run(
            [str(PROGRAMS / "slapos"), *arguments],
            env=self.variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == status, done.stdout
        assert "Traceback" not in done.stdout
        return done.stdout


def test_day_one_of_a_cloud(secure_cloud: SecureCloud, tmp_path: Path):
    """From the first operator to a computer that has formatted itself, with commands only."""
    cloud, shell = secure_cloud, Shell(tmp_path)
    token = shell.slapos(
        *("master", "token", "olga", "--database", str(cloud.folder / "master.sqlite")),
        *("--authority", str(cloud.authority.folder)),
    ).strip()
    joined = shell.slapos("configure", "client", "--master-url", cloud.url, "--token", token)
    assert "as user olga" in joined
    assert "is there already" in shell.slapos(
        "configure", "client", "--master-url", cloud.url, "--token", token, status=1
    )
    said = shell.slapos("computer", "token", "lyon-1", "--datacenter", "lyon", "--json")
    token = json.loads(said)["token"]
    register = ["node", "register", "--master-url", cloud.url, "--token", token]
    folders = ["--software-root", str(tmp_path / "soft"), "--instance-root", str(tmp_path / "inst")]
    refused = shell.slapos(*register, "lyon-2", *folders, status=1)
    assert "the token is for computer 'lyon-1', not 'lyon-2'" in refused
    assert "as computer lyon-1" in shell.slapos(*register, "lyon-1", *folders)
    configuration = read_configuration(tmp_path / "node" / "slapos.cfg")
    assert (configuration.computer, configuration.master_url) == ("lyon-1", cloud.url)
    key = tmp_path / "node" / "ssl" / "key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "node.joining").exists()
    write_configuration(tmp_path, cloud.url, partitions=2)
    text = (
        (tmp_path / "slapos.cfg").read_text().replace("computer_id = paris", "computer_id = lyon-1")
    )
    settings = configuration.path.read_text().partition("[slapformat]")[0].splitlines()
    ours = [
        line for line in settings if line.startswith(("key_file", "cert_file", "certificate_r"))
    ]
    (tmp_path / "node" / "slapos.cfg").write_text(
        text.replace("[slapos]\n", "[slapos]\n" + "\n".join(ours) + "\n", 1)
    )
    shell.slapos("node", "format", "--now")
    (computer,) = [
        each for each in cloud.operator.client.computers() if each["reference"] == "lyon-1"
    ]
    assert (computer["datacenter"], computer["partitions"]) == ("lyon", 2)
    stop_supervisord(tmp_path)


def test_users_and_certificates_are_managed_with_commands(
    secure_cloud: SecureCloud, tmp_path: Path
):
    cloud, shell = secure_cloud, Shell(tmp_path)
    token = cloud.operator.client.make_token("user", "paula", role="operator")["token"]
    shell.slapos("configure", "client", "--master-url", cloud.url, "--token", token)
    said = shell.slapos("user", "token", "quinn", "--role", "viewer", "--lifetime", "5m")
    assert "slapos configure client --master-url" in said
    quinn = Shell(tmp_path / "quinn")
    (tmp_path / "quinn").mkdir()
    quinn.slapos(*said.splitlines()[0].split()[1:])
    assert "viewer 'quinn' may not call POST /v1/tokens" in quinn.slapos(
        "computer", "token", "a", status=1
    )
    listed = json.loads(shell.slapos("certificate", "list", "--name", "quinn", "--json"))
    (serial,) = [each["serial"] for each in listed]
    assert serial in shell.slapos("certificate", "list")
    assert "no terminal" in shell.slapos("certificate", "revoke", serial, status=1)
    shell.slapos("certificate", "revoke", serial, "--yes", "--reason", "moved on")
    assert "was revoked: moved on" in quinn.slapos("user", "list", status=1)
    assert "operator" in shell.slapos("user", "role", "quinn", "operator")
    shell.slapos("user", "remove", "quinn")
    users = json.loads(shell.slapos("user", "list", "--json"))
    removed = {each["name"]: bool(each["removed_at"]) for each in users}
    assert (removed["quinn"], removed["paula"]) == (True, False)


def test_wrong_use_of_the_commands_is_told(tmp_path: Path):
    shell = Shell(tmp_path)
    assert "no master is named" in shell.slapos("configure", "client", "--token", "a", status=1)
    url = ["--master-url", "https://127.0.0.1:9"]
    assert "the token is not whole" in shell.slapos(
        "configure", "client", *url, "--token", "abc", status=1
    )
    assert "no terminal to ask" in shell.slapos("configure", "client", *url, status=1)
    assert "make it with `slapos configure client`" in shell.slapos("user", "list", status=1)


def test_a_computer_removed_with_its_token_still_good_stays_out(
    secure_cloud: SecureCloud, files: dict[str, Path]
):
    cloud = secure_cloud
    token = cloud.operator.client.make_token("computer", "expelled")["token"]
    joining.join(cloud.url, token, name="expelled", **files)
    assert cloud.operator.ask("DELETE", "v1/computers/expelled").status_code == 200
    with pytest.raises(MasterAnswerError, match="has been used"):
        joining.join(cloud.url, token, name="expelled", **files)
