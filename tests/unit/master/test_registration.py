# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stock commands by which computers and users get their first certificates."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest
import slapos.slap
from secure_cloud import Caller, SecureCloud
from secure_cloud import configuration as format_document
from slapos.util import dumps

from slapos_wendelin.certificates import (
    Subject,
    certificate_text,
    read_certificates,
    subject_of,
)
from slapos_wendelin.trust import AUTHORITY_VARIABLE

#: `slapos node register` wants to be root, to write below /etc; the tests write elsewhere.
SLAPOS = """
import os, sys
os.getuid = os.geteuid = lambda: 0
from slapos.cli.entry import main
sys.exit(main(sys.argv[1:]))
"""


def slapos_command(cloud: SecureCloud, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run slapos.core's own command where the master's authority is known."""
    known = {AUTHORITY_VARIABLE: str(cloud.authority.certificate_file)}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SLAPOS, *arguments],
        check=False,
        env=os.environ | known,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )


def register(cloud: SecureCloud, folder: Path, name: str, token: str):
    """Run ``slapos node register``."""
    return slapos_command(
        cloud,
        *("node", "register", name, "--token", token, "--cfg", str(folder / "slapos.cfg")),
        *("--master-url", cloud.url, "--master-url-web", cloud.url.rstrip("/")),
    )


def computer_token(cloud: SecureCloud, caller: Caller, tmp_path: Path):
    """Run ``slapos computer token`` with a user's certificate."""
    path = tmp_path / "client.cfg"
    path.write_text(
        f"[slapos]\nmaster_url = {cloud.url}\n[slapconsole]\n"
        f"cert_file = {caller.certificate}\nkey_file = {caller.certificate}\n"
    )
    return slapos_command(cloud, "computer", "token", "--cfg", str(path))


def token_of(cloud: SecureCloud, tmp_path: Path) -> str:
    """Return a token as ``slapos computer token`` tells it to an operator."""
    told = computer_token(cloud, cloud.operator, tmp_path).stdout
    return told.split("Computer token: ")[1].split()[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder for the configuration of a new computer."""
    path = tmp_path / "etc" / "slapos"
    path.parent.mkdir()
    return path


def test_a_computer_registers_with_the_stock_command_and_works_with_its_certificate(
    secure_cloud: SecureCloud, folder: Path, tmp_path: Path
):
    done = register(secure_cloud, folder, "paris-1", token_of(secure_cloud, tmp_path))
    assert "Node has successfully been configured as COMP-paris-1." in done.stdout
    assert done.returncode == 0
    written = configparser.RawConfigParser()
    written.read(folder / "slapos.cfg")
    section = written["slapos"]
    assert section["computer_id"] == "COMP-paris-1"
    library = slapos.slap.slap()
    library.initializeConnection(section["master_url"], section["key_file"], section["cert_file"])
    computer = library.registerComputer("COMP-paris-1")
    computer.updateConfiguration(dumps(format_document("COMP-paris-1", ["slappart0"])))
    (partition,) = library.registerComputer("COMP-paris-1").getComputerPartitionList()
    assert partition.getId() == "slappart0"
    (own, authority) = read_certificates(Path(section["cert_file"]))
    assert subject_of(own) == Subject("computer", "COMP-paris-1")
    assert certificate_text(authority) == secure_cloud.authority.certificate
    assert Path(section["key_file"]).stat().st_mode & 0o077 == 0
    (shown,) = [
        each
        for each in secure_cloud.operator.client.computers()
        if each["reference"] == "COMP-paris-1"
    ]
    assert shown["partitions"] == 1


def test_a_token_registers_one_computer_only(
    secure_cloud: SecureCloud, folder: Path, tmp_path: Path
):
    token = token_of(secure_cloud, tmp_path)
    assert register(secure_cloud, folder, "once", token).returncode == 0
    again = register(secure_cloud, folder, "twice", token)
    assert again.returncode == 1
    assert "the token is for computer 'COMP-once', not 'COMP-twice'" in again.stdout
    names = [each["reference"] for each in secure_cloud.operator.client.computers()]
    assert "COMP-twice" not in names
    assert not (folder.parent / "slapos.old").exists()


def test_a_name_that_is_taken_is_refused_and_the_token_stays_good(
    secure_cloud: SecureCloud, folder: Path, tmp_path: Path
):
    assert register(secure_cloud, folder, "taken", token_of(secure_cloud, tmp_path)).returncode == 0
    token = token_of(secure_cloud, tmp_path)
    refused = register(secure_cloud, folder, "taken", token)
    assert refused.returncode == 1
    assert 'The node name "taken" is already in use' in refused.stdout
    assert register(secure_cloud, folder, "free", token).returncode == 0


def test_a_token_for_a_named_computer_is_good_for_that_name_only(
    secure_cloud: SecureCloud, folder: Path
):
    named = secure_cloud.operator.client.make_token("computer", "COMP-named")["token"]
    assert register(secure_cloud, folder, "other", named).returncode == 1
    assert register(secure_cloud, folder, "named", named).returncode == 0


@pytest.mark.parametrize("token", ["nonsense", "a.b", ""])
@pytest.mark.parametrize("path", ["Person_requestComputer", "Person_getCertificate"])
def test_without_a_good_token_nobody_gets_a_certificate(
    secure_cloud: SecureCloud, path: str, token: str
):
    headers = {"X-Access-Token": token} if token else {}
    answer = secure_cloud.stranger.ask("POST", path, data={"title": "stranger"}, headers=headers)
    assert answer.status_code == 403
    assert "token" in answer.text


@pytest.mark.parametrize("name", ["", "a/email", "a\\nb", "a" * 200, "-a", "a b", "é"])
def test_a_computer_cannot_register_under_a_name_that_the_command_would_misread(
    secure_cloud: SecureCloud, tmp_path: Path, name: str
):
    headers = {"X-Access-Token": token_of(secure_cloud, tmp_path)}
    answer = secure_cloud.stranger.ask(
        "POST", "Person_requestComputer", data={"title": name}, headers=headers
    )
    assert answer.status_code == 400


def test_only_an_operator_gets_a_token(secure_cloud: SecureCloud, tmp_path: Path):
    refused = computer_token(secure_cloud, secure_cloud.viewer, tmp_path)
    assert refused.returncode != 0
    assert "403 Client Error" in refused.stdout


def test_a_user_configures_the_stock_client_and_works_with_it(
    secure_cloud: SecureCloud, tmp_path: Path
):
    cloud = secure_cloud
    token = cloud.operator.client.make_token("user", "carol", role="viewer")["token"]
    path = tmp_path / "client" / "slapos-client.cfg"
    done = slapos_command(
        cloud,
        *("configure", "client", "--token", token, "--cfg", str(path)),
        *("--master-url", cloud.url, "--master-url-web", cloud.url.rstrip("/")),
    )
    assert done.returncode == 0, done.stdout
    listed = slapos_command(cloud, "computer", "list", "--cfg", str(path))
    assert listed.returncode == 0, listed.stdout
    refused = slapos_command(cloud, "supply", "https://a/s.cfg", "COMP-x", "--cfg", str(path))
    assert "403 Client Error" in refused.stdout


def test_a_token_of_one_kind_lets_in_none_of_the_other(secure_cloud: SecureCloud):
    client = secure_cloud.operator.client
    user = client.make_token("user", "dave", role="operator")["token"]
    computer = client.make_token("computer", "COMP-dave")["token"]
    for path, token in (("Person_requestComputer", user), ("Person_getCertificate", computer)):
        answer = secure_cloud.stranger.ask(
            "POST", path, data={"title": "dave"}, headers={"X-Access-Token": token}
        )
        assert answer.status_code == 403
        assert "not for a" in answer.text
