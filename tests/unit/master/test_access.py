# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokens that let in once, and the certificates that they, renewals and slapgrid get."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from database_servers import on_every_database
from hypothesis import given
from hypothesis import strategies as st
from secure_cloud import Caller, SecureCloud

from slapos_wendelin import tokens
from slapos_wendelin.certificates import Subject, key_digest, key_text, make_key, make_request
from slapos_wendelin.errors import ParameterError
from slapos_wendelin.master import admission, handing_out
from slapos_wendelin.master.authority import Authority
from slapos_wendelin.master.client import MasterAnswerError
from slapos_wendelin.master.database import Database
from slapos_wendelin.master.errors import ForbiddenError
from slapos_wendelin.master.models import Certificate, Token


class Joiner:
    """Somebody new with a key of its own."""

    def __init__(self, cloud: SecureCloud) -> None:
        self.cloud = cloud
        self.key = make_key()

    def join(self, token: str, name: str = "") -> Caller:
        """Join and return what calls with the certificate."""
        answer = self.cloud.stranger.client.join(token, make_request(self.key, "me"), name)
        path = self.cloud.folder / f"{answer['serial']}.pem"
        path.write_text(key_text(self.key) + answer["certificate"])
        return self.cloud.caller(path)


@pytest.fixture
def joiner(secure_cloud: SecureCloud) -> Joiner:
    return Joiner(secure_cloud)


def token_for(cloud: SecureCloud, kind: str, name: str, **options) -> str:
    """Return a new token."""
    return cloud.operator.client.make_token(kind, name, **options)["token"]


def test_a_computer_joins_with_a_token_and_is_registered_as_it_says(
    secure_cloud: SecureCloud, joiner: Joiner
):
    cloud = secure_cloud
    token = token_for(
        cloud, "computer", "paris-1", datacenter="paris", region="europe", labels={"disk": "ssd"}
    )
    computer = joiner.join(token, "paris-1")
    (known,) = [
        each for each in cloud.operator.client.computers() if each["reference"] == "paris-1"
    ]
    assert (known["datacenter"], known["region"], known["labels"]) == (
        "paris",
        "europe",
        {"disk": "ssd"},
    )
    assert computer.client.wait_due("paris-1", timeout=0)["software"] == []
    assert computer.ask("GET", "v1/status").status_code == 403


def test_a_user_joins_with_a_token_and_has_the_role_that_it_says(
    secure_cloud: SecureCloud, joiner: Joiner
):
    cloud = secure_cloud
    viewer = joiner.join(token_for(cloud, "user", "bob", role="viewer"))
    assert viewer.client.status()
    assert viewer.ask("POST", "v1/tokens", json={}).status_code == 403
    assert ("bob", "viewer") in {
        (each["name"], each["role"]) for each in cloud.operator.client.users()
    }


def test_a_user_has_a_certificate_on_each_machine(secure_cloud: SecureCloud):
    cloud = secure_cloud
    first = Joiner(cloud).join(token_for(cloud, "user", "frank", role="operator"))
    second = Joiner(cloud).join(token_for(cloud, "user", "frank"))
    assert first.client.status()
    assert second.client.status()


def test_a_token_works_once(secure_cloud: SecureCloud, joiner: Joiner):
    token = token_for(secure_cloud, "computer", "once")
    joiner.join(token)
    with pytest.raises(MasterAnswerError, match="has been used") as refusal:
        Joiner(secure_cloud).join(token)
    assert refusal.value.status == 403
    assert refusal.value.remedy == "ask an operator for a new token"


def test_a_token_that_two_use_at_the_same_moment_works_for_one(secure_cloud: SecureCloud):
    token = token_for(secure_cloud, "computer", "raced")
    barrier = Barrier(6)

    def join(_number: int) -> str:
        caller = Caller(secure_cloud.url, secure_cloud.authority.certificate_file, None)
        body = {"token": token, "request": make_request(make_key(), "me")}
        barrier.wait(30)
        answer = caller.ask("POST", "v1/join", json=body).json()
        caller.close()
        return answer.get("error", "in")

    with ThreadPoolExecutor(6) as pool:
        answers = sorted(pool.map(join, range(6)))
    assert answers == ["in", *["the token for computer 'raced' has been used"] * 5]
    assert len(secure_cloud.operator.client.certificates("computer", "raced")) == 1


@on_every_database
def test_a_token_that_is_used_at_two_masters_at_once_works_for_one(
    location: Path | str, tmp_path: Path
):
    authority = Authority(tmp_path / "authority")
    masters = [Database(location), Database(location)]
    with masters[0].writing() as session:
        invitation = admission.Invitation("user", "raced", "viewer")
        token, _ = admission.make_token(session, authority, invitation, "test")
    barrier = Barrier(4)

    def join(number: int) -> str:
        request = make_request(make_key(), "me")
        barrier.wait(30)
        try:
            with masters[number % 2].writing() as session:
                return admission.admit(session, authority, token, request).subject.name
        except ForbiddenError as error:
            return error.message

    with ThreadPoolExecutor(4) as pool:
        answers = sorted(pool.map(join, range(4)))
    with masters[1].reading() as session:
        assert session.query(Certificate).count() == 1
    for master in masters:
        master.close()
    assert answers == ["raced", *["the token for user 'raced' has been used"] * 3]


def test_who_lost_the_answer_asks_again_with_the_same_key(
    secure_cloud: SecureCloud, joiner: Joiner
):
    token = token_for(secure_cloud, "computer", "forgetful")
    first, second = joiner.join(token), joiner.join(token)
    for caller in (first, second):
        assert caller.client.wait_due("forgetful", timeout=0)


def test_who_was_put_out_does_not_come_in_again_with_the_token(
    secure_cloud: SecureCloud, joiner: Joiner
):
    cloud = secure_cloud
    token = token_for(cloud, "computer", "stolen")
    joiner.join(token)
    (certificate,) = cloud.operator.client.certificates("computer", "stolen")
    cloud.operator.client.revoke(certificate["serial"], "stolen")
    with pytest.raises(MasterAnswerError, match="has been used"):
        joiner.join(token)


def test_a_removed_user_does_not_come_in_again_with_the_token(
    secure_cloud: SecureCloud, joiner: Joiner
):
    cloud = secure_cloud
    token = token_for(cloud, "user", "gone", role="viewer")
    unused = token_for(cloud, "user", "gone", role="viewer")
    joiner.join(token)
    cloud.operator.client.remove_user("gone")
    for each in (token, unused):
        with pytest.raises(MasterAnswerError, match="not known to this master"):
            joiner.join(each)


def test_a_token_ends(secure_cloud: SecureCloud, joiner: Joiner):
    cloud = secure_cloud
    token = token_for(cloud, "computer", "late", lifetime=0.01)
    time.sleep(0.02)
    with pytest.raises(MasterAnswerError, match="the token for computer 'late' has ended"):
        joiner.join(token)
    assert "late" not in {each["reference"] for each in cloud.operator.client.computers()}


def test_a_token_lasts_an_hour_unless_something_else_is_asked_for(secure_cloud: SecureCloud):
    for options, seconds in (({}, 3600), ({"lifetime": 60}, 60)):
        before = time.time()
        token = token_for(secure_cloud, "computer", "timed", **options)
        with secure_cloud.database.reading() as session:
            (kept,) = [
                each
                for each in session.query(Token)
                if each.digest == digest_of(token) and each.name == "timed"
            ]
            assert before + seconds <= kept.expires_at <= time.time() + seconds


def digest_of(token: str) -> str:
    """Return the digest of a token's secret, as the master keeps it."""
    from slapos_wendelin.master.admission import _digest  # noqa: PLC0415

    return _digest(tokens.secret_of(token))


def test_the_secret_of_a_token_is_kept_nowhere(secure_cloud: SecureCloud):
    secret = tokens.secret_of(token_for(secure_cloud, "computer", "secretive"))
    assert len(secret) == 64
    assert secret.isalnum()
    for path in secure_cloud.folder.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes()


def test_an_invented_token_is_refused(secure_cloud: SecureCloud, joiner: Joiner):
    with pytest.raises(MasterAnswerError, match="not known to this master"):
        joiner.join(tokens.join("invented", secure_cloud.authority.fingerprint))


def test_a_token_for_another_is_refused_and_stays_good(secure_cloud: SecureCloud, joiner: Joiner):
    token = token_for(secure_cloud, "computer", "madrid")
    with pytest.raises(MasterAnswerError, match="for computer 'madrid', not 'lisbon'") as refusal:
        joiner.join(token, "lisbon")
    assert refusal.value.status == 409
    joiner.join(token, "madrid")


def test_a_wrong_request_leaves_the_token_unused(secure_cloud: SecureCloud, joiner: Joiner):
    token = token_for(secure_cloud, "computer", "clumsy")
    with pytest.raises(MasterAnswerError, match="cannot be read"):
        secure_cloud.stranger.client.join(token, "nonsense")
    joiner.join(token)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"kind": "computer"}, "name"),
        ({"kind": "partition", "name": "a"}, "kind is 'partition'"),
        ({"kind": "user", "name": "new"}, "'new' has no role"),
        ({"kind": "user", "name": "new", "role": "root"}, "role is 'root'"),
        ({"kind": "computer", "name": "a", "role": "viewer"}, "a computer has no role"),
        ({"kind": "computer", "name": "a", "lifetime": 0}, "lifetime is 0"),
        ({"kind": "computer", "name": "a", "lifetime": 1e9}, "a week"),
        ({"kind": "computer", "name": "a", "lifetime": "long"}, "lifetime is 'long'"),
        ({"kind": "computer", "name": "a", "lifetime": True}, "lifetime is True"),
        ({"kind": "computer", "name": "a\nb"}, "control characters"),
        ({"kind": "computer", "name": "a", "datacenter": "a, b"}, "commas"),
        ({"kind": "computer", "name": "a", "labels": ["ssd"]}, "labels"),
        ({"kind": "computer", "name": "a", "password": "x"}, "unknown key 'password'"),
    ],
)
def test_a_wrong_invitation_is_refused_with_its_reason(
    secure_cloud: SecureCloud, body: dict, message: str
):
    answer = secure_cloud.operator.ask("POST", "v1/tokens", json=body)
    assert answer.status_code == 400
    assert message in answer.text


def test_a_computer_that_is_in_is_replaced_only_when_that_is_asked_for(secure_cloud: SecureCloud):
    cloud = secure_cloud
    before = Joiner(cloud).join(token_for(cloud, "computer", "berlin"))
    with pytest.raises(MasterAnswerError, match="'berlin' has joined already") as refusal:
        token_for(cloud, "computer", "berlin")
    assert refusal.value.status == 409
    token = token_for(cloud, "computer", "berlin", replace=True)
    assert before.client.wait_due("berlin", timeout=0)
    after = Joiner(cloud).join(token)
    assert after.client.wait_due("berlin", timeout=0)
    with pytest.raises(MasterAnswerError, match="the computer joined again"):
        before.client.wait_due("berlin", timeout=0)


def test_a_token_does_not_change_the_role_of_a_user(secure_cloud: SecureCloud):
    secure_cloud.user("heidi", "viewer")
    with pytest.raises(MasterAnswerError, match="'heidi' is viewer, not operator"):
        token_for(secure_cloud, "user", "heidi", role="operator")


def test_the_last_operator_stays(secure_cloud: SecureCloud):
    cloud = secure_cloud
    for user in cloud.operator.client.users():
        if user["role"] == "operator" and user["name"] != "alice" and not user["removed_at"]:
            cloud.operator.client.remove_user(user["name"])
    for change in (
        lambda: cloud.operator.client.remove_user("alice"),
        lambda: cloud.operator.client.put_user("alice", "viewer"),
    ):
        with pytest.raises(MasterAnswerError, match="'alice' is the only operator"):
            change()
    assert cloud.operator.client.status()


def test_whoever_has_a_good_certificate_gets_a_new_one(secure_cloud: SecureCloud, joiner: Joiner):
    cloud = secure_cloud
    old = joiner.join(token_for(cloud, "computer", "renewing"))
    key = make_key()
    answer = old.client.renew(make_request(key, "computer/another"))
    assert (answer["kind"], answer["name"]) == ("computer", "renewing")
    path = cloud.folder / "renewed.pem"
    path.write_text(key_text(key) + answer["certificate"])
    assert cloud.caller(path).client.wait_due("renewing", timeout=0)
    assert old.client.wait_due("renewing", timeout=0)
    viewer = cloud.viewer.client.renew(make_request(key, "me"))
    assert (viewer["kind"], viewer["name"]) == ("user", "victor")


def test_the_list_of_revoked_certificates_holds_those_that_are_still_to_end(
    secure_cloud: SecureCloud,
):
    cloud = secure_cloud
    cloud.user("ivan", "viewer")
    (certificate,) = cloud.operator.client.certificates("user", "ivan")
    cloud.operator.client.revoke(certificate["serial"])
    answer = cloud.viewer.ask("GET", "v1/crl")
    revoked = x509.load_pem_x509_crl(answer.content)
    assert revoked.get_revoked_certificate_by_serial_number(int(certificate["serial"], 16))
    (alice,) = cloud.operator.client.certificates("user", "alice")
    assert revoked.get_revoked_certificate_by_serial_number(int(alice["serial"], 16)) is None


def test_the_certificate_of_the_authority_is_given_to_who_is_in(secure_cloud: SecureCloud):
    assert secure_cloud.viewer.ask("GET", "v1/ca").text == secure_cloud.authority.certificate


def test_a_certificate_that_does_not_exist_cannot_be_revoked(secure_cloud: SecureCloud):
    with pytest.raises(MasterAnswerError, match="there is no certificate 'abc'"):
        secure_cloud.operator.client.revoke("abc")


@pytest.fixture(scope="module")
def computer(secure_cloud: SecureCloud) -> Caller:
    return secure_cloud.add_computer("lima", partitions=8)


def partition_of(computer: Caller, instance):
    """Return the partition of an instance as its computer's slapgrid has it."""
    return computer.slap.registerComputerPartition("lima", instance.slap_computer_partition_id)


def test_slapgrid_gets_a_certificate_for_each_instance_and_the_same_again(
    secure_cloud: SecureCloud, computer: Caller, tmp_path: Path
):
    cloud = secure_cloud
    first = cloud.request("first", filter_kw={"computer_guid": "lima"})
    second = cloud.request("second", filter_kw={"computer_guid": "lima"})
    given = partition_of(computer, first).getCertificate()
    assert partition_of(computer, first).getCertificate() == given
    other = partition_of(computer, second).getCertificate()
    assert other["key"] != given["key"]
    for kind in ("key", "certificate"):
        (tmp_path / kind).write_text(given[kind])
    partition = Caller(cloud.url, cloud.authority.certificate_file, tmp_path / "certificate")
    partition.session.cert = (str(tmp_path / "certificate"), str(tmp_path / "key"))
    for place, status in (("slappart0", 200), ("slappart1", 403)):
        data = {"computer_id": "lima", "computer_partition_id": place}
        assert partition.ask("POST", "softwareInstanceBang", data=data).status_code == status
    partition.close()


def test_a_free_partition_has_no_certificate(computer: Caller):
    given = computer.slap.registerComputerPartition("lima", "slappart7").getCertificate()
    assert given == {"certificate": "", "key": ""}


def test_the_certificate_of_an_instance_is_renewed_near_its_end(
    secure_cloud: SecureCloud, computer: Caller, monkeypatch: pytest.MonkeyPatch
):
    instance = secure_cloud.request("renewed", filter_kw={"computer_guid": "lima"})
    given = partition_of(computer, instance).getCertificate()
    monkeypatch.setattr(handing_out, "is_near_end", lambda _certificate: True)
    renewed = partition_of(computer, instance).getCertificate()
    assert renewed["certificate"] != given["certificate"]
    key = serialization.load_pem_private_key(renewed["key"].encode(), None)
    leaf = x509.load_pem_x509_certificate(renewed["certificate"].encode())
    assert key_digest(key.public_key()) == key_digest(leaf.public_key())


def test_a_certificate_whose_record_was_not_kept_is_made_anew(
    secure_cloud: SecureCloud, computer: Caller
):
    instance = secure_cloud.request("crashed", filter_kw={"computer_guid": "lima"})
    subject = Subject("partition", instance.getInstanceGuid())
    issued = secure_cloud.authority.issue_with_key(subject)
    secure_cloud.authority.keep(issued)
    assert partition_of(computer, instance).getCertificate()["key"] != issued.key


def test_the_key_of_an_instance_goes_with_it(secure_cloud: SecureCloud, computer: Caller):
    instance = secure_cloud.request("fleeting", filter_kw={"computer_guid": "lima"})
    partition = partition_of(computer, instance)
    partition.getCertificate()
    path = secure_cloud.authority.folder / "partitions" / f"{instance.getInstanceGuid()}.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    secure_cloud.request("fleeting", state="destroyed")
    partition.destroyed()
    assert not path.exists()


def test_an_operator_makes_a_certificate_for_a_computer_without_a_token(
    secure_cloud: SecureCloud, computer: Caller, tmp_path: Path
):
    given = secure_cloud.operator.slap.registerComputer("lima").generateCertificate()
    path = tmp_path / "lima.pem"
    path.write_text(given["key"] + given["certificate"])
    lima = secure_cloud.caller(path)
    assert lima.client.wait_due("lima", timeout=0)
    secure_cloud.operator.slap.registerComputer("lima").revokeCertificate()
    for caller in (lima, computer):
        with pytest.raises(MasterAnswerError, match="was revoked"):
            caller.client.wait_due("lima", timeout=0)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=1))
def test_a_token_tells_its_parts(fingerprint: bytes, secret: bytes):
    token = tokens.join(secret.hex(), fingerprint.hex())
    assert tokens.secret_of(f" {token}\n") == secret.hex()
    assert tokens.fingerprint_of(f" {token}\n") == fingerprint.hex()
    assert token.isascii()
    assert not any(character.isspace() for character in token)


@pytest.mark.parametrize("token", ["", "abc", "abc.", "abc.def", "abc." + "!" * 43])
def test_a_token_that_was_not_copied_whole_is_told(token: str):
    with pytest.raises(ParameterError, match="not whole"):
        tokens.fingerprint_of(token)
