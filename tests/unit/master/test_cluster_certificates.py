# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of a cluster's nodes and users, from the master to the partition's folder."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
import time
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs12
from master_cloud import Cloud
from secure_cloud import Caller, SecureCloud, configuration
from slapos.util import dumps
from zc.buildout import UserError

from slapos_wendelin.certificates import make_key, make_request, read_certificates, read_key
from slapos_wendelin.cli.browser_file import write_browser_file
from slapos_wendelin.cluster_identity import keep_for_user
from slapos_wendelin.errors import CommandError, WendelinError
from slapos_wendelin.master import cluster_authority
from slapos_wendelin.master.authority import Authority, Lifetimes
from slapos_wendelin.master.cluster_authority import ClusterAuthority
from slapos_wendelin.recipe.certificate import Recipe


class Node:
    """An instance in a partition, with the certificate that its recipes call with."""

    def __init__(
        self, cloud: SecureCloud, reference: str, folder: Path, computer: str = "zurich"
    ) -> None:
        instance = cloud.request(reference, filter_kw={"computer_guid": computer})
        self.guid = instance.getInstanceGuid()
        self.caller: Caller = cloud.holder("partition", self.guid)
        self.options = {
            "folder": str(folder / reference),
            "url": cloud.url,
            "key": str(self.caller.certificate),
            "cert": str(self.caller.certificate),
            "computer": computer,
            "partition": instance.getId(),
        }
        self.folder = folder / reference

    def process(self) -> dict[str, Any]:
        """Run the recipe as buildout does; return the options that it gives."""
        options = dict(self.options)
        recipe = Recipe(None, "certificate", options)
        assert recipe.install() == []
        return options

    @property
    def serial(self) -> str:
        """The serial number of the certificate in the folder."""
        return f"{read_certificates(self.folder / 'identity.pem')[0].serial_number:x}"


@pytest.fixture(scope="module")
def zurich(secure_cloud: SecureCloud) -> SecureCloud:
    secure_cloud.add_computer("zurich", partitions=24)
    return secure_cloud


def node(cloud: SecureCloud, reference: str, folder: Path) -> Node:
    made = Node(cloud, reference, folder)
    made.process()
    return made


def shake_hands(
    server: Path, client: Path | None, trusted: Path | None = None, called: str | None = None
) -> str:
    """Connect as NEO's nodes do; return what went wrong, nothing when all is well.

    :param called: an address that the client compares with the certificate of the server.
    """
    ends = socket.socketpair()
    faults: list[str] = []

    def end(number: int, folder: Path | None) -> None:
        protocol = (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)[number]
        context = ssl.SSLContext(protocol)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations((folder or trusted or server) / "ca.pem")
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF | ssl.VERIFY_X509_STRICT
        if folder is not None:
            context.load_cert_chain(folder / "identity.pem")
        ends[number].settimeout(120)
        try:
            context.check_hostname = bool(number and called)
            hostname = called if number else None
            with context.wrap_socket(
                ends[number], server_side=not number, server_hostname=hostname
            ) as wrapped:
                wrapped.sendall(b"hello")
                assert wrapped.recv(5) == b"hello"
        except OSError as error:
            faults.append(str(error))
            with suppress(OSError):
                ends[number].close()

    thread = threading.Thread(target=end, args=(0, server))
    thread.start()
    end(1, client)
    thread.join()
    return " ".join(faults)


def test_a_node_makes_its_key_and_only_its_user_may_read_it(zurich: SecureCloud, tmp_path: Path):
    one = node(zurich, "keys", tmp_path)
    assert stat.S_IMODE(one.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((one.folder / "identity.pem").stat().st_mode) == 0o600
    assert sorted(each.name for each in one.folder.iterdir()) == ["ca.pem", "identity.pem"]
    assert not list(zurich.authority.folder.rglob("identity.pem"))
    key = (one.folder / "identity.pem").read_text().partition("-----BEGIN CERTIFICATE")[0]
    assert "PRIVATE KEY" in key
    kept = [each.read_text() for each in zurich.authority.folder.rglob("*") if each.is_file()]
    assert not any(key.splitlines()[1] in each for each in kept)


def test_the_recipe_says_where_the_files_are_and_how_the_cluster_is_called(
    zurich: SecureCloud, tmp_path: Path
):
    one = node(zurich, "named", tmp_path)
    given = one.process()
    assert given["location"] == str(one.folder)
    assert given["cluster"] == f"{one.guid}-{zurich.authority.fingerprint[:8]}"


def test_nodes_and_users_of_one_cluster_trust_each_other_and_no_others(
    zurich: SecureCloud, tmp_path: Path
):
    one, other = node(zurich, "one", tmp_path), node(zurich, "another", tmp_path)
    keep_for_user(zurich.operator.client, "one", tmp_path / "alice")
    keep_for_user(zurich.operator.client, "another", tmp_path / "foreign")
    assert not shake_hands(one.folder, one.folder)
    assert not shake_hands(one.folder, tmp_path / "alice")
    assert shake_hands(one.folder, None)
    # Each of the other cluster's would be a client that believes this server.
    for foreign in (other.folder, tmp_path / "foreign"):
        (foreign / "ca.pem").write_text((one.folder / "ca.pem").read_text())
        assert "certificate verify failed" in shake_hands(one.folder, foreign)


def test_the_certificate_of_a_node_names_where_it_is_called(zurich: SecureCloud, tmp_path: Path):
    one = node(zurich, "called", tmp_path)
    number = one.options["partition"].removeprefix("slappart")
    assert not shake_hands(one.folder, one.folder, called=f"10.0.0.{number}")
    assert "mismatch" in shake_hands(one.folder, one.folder, called="10.0.1.1")


def test_a_node_that_is_called_elsewhere_gets_another_certificate_once(
    secure_cloud: SecureCloud, tmp_path: Path
):
    computer = secure_cloud.add_computer("geneva", partitions=1)
    one = Node(secure_cloud, "elsewhere", tmp_path, "geneva")
    one.process()
    before = one.serial
    described = configuration("geneva", ["slappart0"])
    # An interface is no part of an address in a certificate.
    described["partition_list"][0]["address_list"] = [
        {"addr": address, "netmask": "ffff:ffff::"} for address in ("2001:db8::7", "fe80::7%lan")
    ]
    computer.slap.registerComputer("geneva").updateConfiguration(dumps(described))
    one.process()
    assert one.serial != before
    assert not shake_hands(one.folder, one.folder, called="2001:db8::7")
    after = one.serial
    one.process()
    assert one.serial == after


def test_a_user_cannot_take_the_place_of_a_node(zurich: SecureCloud, tmp_path: Path):
    one = node(zurich, "roles", tmp_path)
    keep_for_user(zurich.operator.client, "roles", tmp_path / "alice")
    assert "unsuitable certificate purpose" in shake_hands(tmp_path / "alice", one.folder)


def test_a_browser_gets_key_certificate_and_authority_in_a_file_with_a_password(
    zurich: SecureCloud, tmp_path: Path
):
    one = node(zurich, "browser", tmp_path)
    path = tmp_path / "browser.p12"
    passwords = [write_browser_file(one.folder, "our cluster", path) for _ in range(2)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    read = pkcs12.load_pkcs12(path.read_bytes(), passwords[1].encode())
    identity = one.folder / "identity.pem"
    assert read.key
    assert read.key.public_key() == read_key(identity).public_key()
    assert read.cert
    assert read.cert.certificate == read_certificates(identity)[0]
    assert [each.certificate for each in read.additional_certs] == list(
        read_certificates(one.folder / "ca.pem")
    )
    with pytest.raises(ValueError, match="password"):
        pkcs12.load_pkcs12(path.read_bytes(), passwords[0].encode())
    with pytest.raises(CommandError, match="cannot be written: No such file"):
        write_browser_file(one.folder, "our cluster", tmp_path / "nowhere" / "browser.p12")


def test_a_run_that_has_nothing_to_do_changes_no_file(zurich: SecureCloud, tmp_path: Path):
    one = node(zurich, "idle", tmp_path)
    before = changes_of(one.folder)
    one.process()
    assert changes_of(one.folder) == before


def changes_of(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """Return what tells of each file whether it was changed, not whether it was read."""
    found = {each: each.stat() for each in folder.iterdir()}
    return {
        path: (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        for path, status in found.items()
    }


def test_a_certificate_is_renewed_in_the_last_third_of_its_life(
    zurich: SecureCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    brief = replace(Lifetimes(), node=timedelta(minutes=2))
    monkeypatch.setattr(zurich.authority, "lifetimes", brief)
    # Certificates reach ten minutes into the past, so this one has less than a third left.
    one = node(zurich, "renewed", tmp_path)
    first = one.serial
    monkeypatch.undo()
    one.process()
    second = one.serial
    assert second != first
    one.process()
    assert one.serial == second
    assert not shake_hands(one.folder, one.folder)


def test_a_node_that_was_off_until_its_certificate_had_ended_gets_another_one_by_itself(
    zurich: SecureCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    brief = replace(Lifetimes(), node=timedelta(seconds=1))
    monkeypatch.setattr(zurich.authority, "lifetimes", brief)
    one = node(zurich, "off", tmp_path)
    keep_for_user(zurich.operator.client, "off", tmp_path / "alice")
    monkeypatch.undo()
    time.sleep(1.5)
    assert "expired" in shake_hands(one.folder, tmp_path / "alice")
    one.process()
    assert not shake_hands(one.folder, tmp_path / "alice")


@pytest.mark.parametrize("damage", ["", "nothing", "half"])
def test_a_lost_or_damaged_certificate_is_made_anew(
    zurich: SecureCloud, tmp_path: Path, damage: str
):
    one = node(zurich, f"damaged{damage}", tmp_path)
    identity = one.folder / "identity.pem"
    if not damage:
        identity.unlink()
    else:
        identity.write_text("" if damage == "nothing" else identity.read_text()[:500])
    one.process()
    assert not shake_hands(one.folder, one.folder)


def test_who_is_revoked_is_refused_once_the_nodes_know_and_they_are_told(
    zurich: SecureCloud, tmp_path: Path
):
    one = node(zurich, "revoking", tmp_path)
    keep_for_user(zurich.operator.client, "revoking", tmp_path / "alice")
    (given,) = zurich.operator.client.certificates("client", f"{one.guid}/alice")
    due = zurich.operator.client.wait_due("zurich", timeout=0)["number"]
    zurich.operator.client.revoke(given["serial"], "stolen")
    told = zurich.operator.client.wait_due("zurich", due, timeout=0)
    assert one.options["partition"] in [each["partition"] for each in told["instances"]]
    one.process()
    assert "revoked" in shake_hands(one.folder, tmp_path / "alice", one.folder)
    assert not shake_hands(one.folder, one.folder)
    # The user is not put out: whoever still has a certificate of the master gets another one.
    assert keep_for_user(zurich.operator.client, "revoking", tmp_path / "alice")["renewed"]
    assert not shake_hands(one.folder, tmp_path / "alice")


def test_a_node_whose_certificate_was_revoked_makes_another_key(
    zurich: SecureCloud, tmp_path: Path
):
    one = node(zurich, "leaked", tmp_path)
    leaked = one.serial
    zurich.operator.client.revoke(leaked, "leaked")
    one.process()
    assert one.serial != leaked
    assert not shake_hands(one.folder, one.folder)


def test_a_user_who_is_removed_is_put_out_of_all_clusters(zurich: SecureCloud, tmp_path: Path):
    one = node(zurich, "leaving", tmp_path)
    bob = zurich.user("bob", "operator")
    keep_for_user(bob.client, "leaving", tmp_path / "bob")
    zurich.operator.client.remove_user("bob")
    one.process()
    assert "revoked" in shake_hands(one.folder, tmp_path / "bob")


def test_a_certificate_of_a_cluster_opens_no_door_of_the_master(
    zurich: SecureCloud, tmp_path: Path
):
    one = node(zurich, "inside", tmp_path)
    caller = zurich.caller(one.folder / "identity.pem")
    with pytest.raises(Exception, match=r"(?i)unknown ca|reset|does not answer|closed|EOF"):
        caller.client.health()


def test_the_list_of_the_master_does_not_name_what_others_have_signed(
    zurich: SecureCloud, tmp_path: Path
):
    one = node(zurich, "listed", tmp_path)
    zurich.operator.client.revoke(one.serial)
    listed = x509.load_pem_x509_crl(zurich.operator.ask("GET", "v1/crl").content)
    assert listed.get_revoked_certificate_by_serial_number(int(one.serial, 16)) is None


def test_a_part_of_a_cluster_has_no_certificates_of_its_own_for_users(zurich: SecureCloud):
    root = zurich.request("parts", filter_kw={"computer_guid": "zurich"})
    library = zurich.holder("partition", root.getInstanceGuid()).slap
    partition = library.registerComputerPartition("zurich", root.getId())
    sla = {"computer_guid": "zurich"}
    child = partition.request("https://example.org/a.cfg", "default", "child", filter_kw=sla)
    with pytest.raises(WendelinError, match="is a part of a cluster"):
        zurich.operator.client.certify_user(
            child.getInstanceGuid(), make_request(make_key(), "alice")
        )


def test_a_weak_request_is_refused_by_its_fault(zurich: SecureCloud):
    with pytest.raises(WendelinError, match="cannot be read"):
        zurich.operator.client.certify_user("named", "no request")


def test_a_node_without_its_master_keeps_what_it_has(zurich: SecureCloud, tmp_path: Path):
    one = node(zurich, "alone", tmp_path)
    one.options["url"] = "https://127.0.0.1:9"
    with pytest.raises(UserError, match="does not answer"):
        one.process()
    assert not shake_hands(one.folder, one.folder)


def test_a_master_in_clear_signs_nothing_and_the_cluster_goes_without(cloud: Cloud, tmp_path: Path):
    options = {"folder": str(tmp_path / "tls"), "url": cloud.url}
    options |= {"computer": "paris", "partition": "slappart0"}
    recipe = Recipe(None, "certificate", options)
    assert recipe.install() == []
    assert (options["location"], options["cluster"]) == ("", "")
    assert not (tmp_path / "tls").exists()


def test_a_cluster_with_certificates_refuses_to_speak_in_clear_when_a_master_says_so(
    cloud: Cloud, zurich: SecureCloud, tmp_path: Path
):
    one = node(zurich, "kept-secret", tmp_path)
    one.options |= {"url": cloud.url, "cert": "", "key": ""}
    with pytest.raises(UserError, match=f"signs nothing.*{one.folder}.*speak in clear"):
        one.process()
    assert not shake_hands(one.folder, one.folder)


def test_a_new_generation_is_known_to_all_before_it_signs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    brief = replace(Lifetimes(), cluster=timedelta(minutes=3))
    master = Authority(tmp_path / "authority", brief)
    old = ClusterAuthority(master, "SOFTINST-1").generations[0]
    both = ClusterAuthority(master, "SOFTINST-1")
    assert both.generations[0].fingerprint == old.fingerprint
    assert len(both.generations) >= 2
    assert both.signer.fingerprint == old.fingerprint
    assert both.trust([]).count("BEGIN CERTIFICATE") == len(both.generations)
    monkeypatch.setattr(cluster_authority, "LEARNING_TIME", timedelta(0))
    assert both.signer.fingerprint == both.generations[-1].fingerprint


def test_the_authority_of_a_cluster_lasts(tmp_path: Path):
    master = Authority(tmp_path / "authority")
    first = ClusterAuthority(master, "SOFTINST-1")
    again = ClusterAuthority(Authority(tmp_path / "authority"), "SOFTINST-1")
    assert again.signer.fingerprint == first.signer.fingerprint
    assert again.name == first.name
    assert ClusterAuthority(master, "SOFTINST-2").signer.fingerprint != first.signer.fingerprint
