# SPDX-FileCopyrightText: slapos_wendelin contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The master's certificate authority: what it signs, and that its folder is never half made."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given
from hypothesis import strategies as st
from killed_steps import killed_before_step

from slapos_wendelin.certificates import (
    Subject,
    end_of,
    is_near_end,
    key_digest,
    make_key,
    make_request,
    read_certificates,
    read_key,
    serial_of,
    subject_of,
)
from slapos_wendelin.master.authority import Authority, Lifetimes
from slapos_wendelin.master.errors import AuthorityError, InvalidRequestError
from slapos_wendelin.master.signing import Revoked

PARIS = Subject("computer", "paris-1")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def certificates_of(text: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(text.encode())


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_and_the_keys_are_for_their_owner_only(authority: Authority):
    authority.server_certificate(["127.0.0.1"])
    assert mode_of(authority.folder) == 0o700
    secrets = [path for path in authority.folder.iterdir() if "KEY" in path.read_text()]
    assert {path.name.split("-")[0] for path in secrets} == {"ca.key", "server"}
    assert {mode_of(path) for path in secrets} == {0o600}


def test_the_authority_stays_the_same_when_it_is_opened_again(authority: Authority):
    again = Authority(authority.folder)
    assert again.fingerprint == authority.fingerprint
    assert again.certificate == authority.certificate_file.read_text()


def test_a_certificate_names_its_owner_and_can_call_the_master(authority: Authority):
    key = make_key()
    issued = authority.issue_from_request(make_request(key, "whoever"), PARIS)
    certificate, issuer = certificates_of(issued.certificate)
    assert issuer == certificates_of(authority.certificate)[0]
    assert subject_of(certificate) == issued.subject == PARIS
    assert certificate.subject.rfc4514_string() == "CN=computer/paris-1"
    assert issued.serial == serial_of(certificate)
    assert issued.fingerprint == certificate.fingerprint(hashes.SHA256()).hex()
    assert issued.public_key == key_digest(key.public_key())
    assert issued.not_after == end_of(certificate)
    assert issued.key == ""
    store = Store([issuer])
    PolicyBuilder().store(store).build_client_verifier().verify(certificate, [])
    with pytest.raises(VerificationError):
        PolicyBuilder().store(store).build_server_verifier(x509.DNSName("paris-1")).verify(
            certificate, []
        )


def test_a_certificate_signs_no_other(authority: Authority):
    issued = authority.issue_with_key(PARIS)
    certificate, issuer = certificates_of(issued.certificate)
    own = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    above = issuer.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (own.critical, own.value.ca) == (True, False)
    assert (above.critical, above.value.ca, above.value.path_length) == (True, True, 0)


def test_a_key_that_the_authority_makes_fits_its_certificate(authority: Authority):
    issued = authority.issue_with_key(Subject("partition", "SOFTINST-12"))
    key = serialization.load_pem_private_key(issued.key.encode(), password=None)
    assert key_digest(key.public_key()) == issued.public_key
    assert issued.key not in repr(issued)


@pytest.mark.parametrize("kind", ["user", "computer", "partition"])
def test_certificates_last_ninety_days_and_the_authority_ten_years(authority: Authority, kind: str):
    certificate, issuer = certificates_of(authority.issue_with_key(Subject(kind, "a")).certificate)
    assert lifetime(certificate) == timedelta(days=90)
    assert lifetime(issuer) == timedelta(days=3650)


def lifetime(certificate: x509.Certificate) -> timedelta:
    """Return how long a certificate that was just made is still good, in whole minutes."""
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    return timedelta(minutes=round(left.total_seconds() / 60))


def test_lifetimes_can_be_chosen_but_none_exceeds_the_authority(tmp_path: Path):
    lifetimes = Lifetimes(authority=timedelta(days=10), user=timedelta(days=1))
    authority = Authority(tmp_path / "authority", lifetimes)
    user = certificates_of(authority.issue_with_key(Subject("user", "alice")).certificate)[0]
    computer, issuer = certificates_of(authority.issue_with_key(PARIS).certificate)
    assert lifetime(user) == timedelta(days=1)
    assert computer.not_valid_after_utc == issuer.not_valid_after_utc
    brief = authority.issue_with_key(PARIS, timedelta(hours=1)).certificate
    assert lifetime(certificates_of(brief)[0]) == timedelta(hours=1)


def test_serial_numbers_are_long_and_never_repeat(authority: Authority):
    serials = {authority.issue_with_key(PARIS).serial for _ in range(50)}
    assert len(serials) == 50
    assert all(int(serial, 16) < 2**159 for serial in serials)
    assert max(int(serial, 16) for serial in serials) > 2**150


@given(st.text(min_size=1, max_size=255))
def test_any_name_is_read_back_from_a_certificate(
    tmp_path_factory: pytest.TempPathFactory, name: str
):
    folder = tmp_path_factory.getbasetemp() / "shared-authority"
    authority = Authority(folder)
    subject = Subject("computer", name)
    issued = authority.issue_with_key(subject)
    certificate = certificates_of(issued.certificate)[0]
    assert subject_of(certificate) == subject


def request_for(key) -> str:
    """Return a request for a key, as others than our own tools make it."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "user/root")])
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, algorithm)
    return request.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
)
def test_usual_keys_are_certified_and_the_requested_name_is_not_heeded(authority: Authority, key):
    issued = authority.issue_from_request(request_for(key), PARIS)
    certificate, issuer = certificates_of(issued.certificate)
    assert subject_of(certificate) == PARIS
    assert "root" not in certificate.subject.rfc4514_string()
    PolicyBuilder().store(Store([issuer])).build_client_verifier().verify(certificate, [])


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP224R1()),
        ec.generate_private_key(ec.SECP256K1()),
        rsa.generate_private_key(65537, 1024),  # noqa: S505 (what is refused here)
    ],
)
def test_weak_and_unusual_keys_are_refused(authority: Authority, key):
    with pytest.raises(InvalidRequestError, match="weak"):
        authority.issue_from_request(request_for(key), PARIS)


def test_a_request_for_the_key_of_another_is_refused(authority: Authority):
    request = x509.load_pem_x509_csr(make_request(make_key(), "a").encode())
    changed = bytearray(request.public_bytes(serialization.Encoding.DER))
    changed[-1] ^= 1
    text = x509.load_der_x509_csr(bytes(changed)).public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(InvalidRequestError, match="not signed with its own key"):
        authority.issue_from_request(text, PARIS)


@pytest.mark.parametrize("text", ["", "nonsense", "-----BEGIN CERTIFICATE REQUEST-----\n", "é"])
def test_what_is_no_request_is_refused(authority: Authority, text: str):
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        authority.issue_from_request(text, PARIS)


def test_a_huge_request_is_refused_before_it_is_read(authority: Authority):
    with pytest.raises(InvalidRequestError, match="has 1000000 characters"):
        authority.issue_from_request("a" * 1_000_000, PARIS)


def test_the_master_has_a_certificate_for_all_its_names(authority: Authority):
    path = authority.server_certificate(["Master.Example.org", "127.0.0.1", "::1"])
    certificate, issuer = read_certificates(path)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["master.example.org"]
    assert set(names.get_values_for_type(x509.IPAddress)) == {
        ip_address("127.0.0.1"),
        ip_address("::1"),
    }
    assert key_digest(read_key(path).public_key()) == key_digest(certificate.public_key())
    store = Store([issuer])
    for name in (x509.DNSName("master.example.org"), x509.IPAddress(ip_address("::1"))):
        PolicyBuilder().store(store).build_server_verifier(name).verify(certificate, [])
    with pytest.raises(VerificationError):
        PolicyBuilder().store(store).build_client_verifier().verify(certificate, [])


def test_the_masters_certificate_is_kept_while_it_is_good(authority: Authority):
    path = authority.server_certificate(["a.example", "b.example"])
    before = path.read_bytes()
    assert authority.server_certificate(["b.example", "a.example", "A.example"]) == path
    assert path.read_bytes() == before


def test_other_names_get_another_certificate_beside_the_first(authority: Authority):
    path = authority.server_certificate(["a.example"])
    before = path.read_bytes()
    assert authority.server_certificate(["a.example", "b.example"]) != path
    assert path.read_bytes() == before


def test_the_masters_certificate_is_renewed_near_its_end(tmp_path: Path):
    authority = Authority(tmp_path / "a", Lifetimes(server=timedelta(seconds=1)))
    path = authority.server_certificate(["a.example"])
    first = read_certificates(path)[0]
    assert is_near_end(first)
    assert authority.server_certificate(["a.example"]) == path
    assert read_certificates(path)[0].serial_number != first.serial_number


def test_a_damaged_certificate_of_the_master_is_made_anew(authority: Authority):
    path = authority.server_certificate(["a.example"])
    path.write_text("half")
    authority.server_certificate(["a.example"])
    assert read_key(path)


@pytest.mark.parametrize("name", ["", "a b", "http://a.example", "a.example:5000", "é.example"])
def test_a_name_that_is_none_is_refused(authority: Authority, name: str):
    with pytest.raises(AuthorityError, match="neither a host name nor an address"):
        authority.server_certificate([name])


def test_a_certificate_is_near_its_end_in_its_last_third(authority: Authority):
    certificate = certificates_of(authority.issue_with_key(PARIS).certificate)[0]
    end = certificate.not_valid_after_utc
    assert not is_near_end(certificate)
    assert not is_near_end(certificate, end - timedelta(days=31))
    assert is_near_end(certificate, end - timedelta(days=29))


def test_the_list_of_revoked_certificates_is_signed_by_the_authority(authority: Authority):
    first, second = authority.issue_with_key(PARIS), authority.issue_with_key(PARIS)
    text = authority.revocation_list([Revoked(first.serial, time.time())])
    revoked = x509.load_pem_x509_crl(text.encode())
    issuer = certificates_of(authority.certificate)[0]
    key = issuer.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert revoked.is_signature_valid(key)
    assert revoked.issuer == issuer.subject
    assert revoked.get_revoked_certificate_by_serial_number(int(first.serial, 16))
    assert revoked.get_revoked_certificate_by_serial_number(int(second.serial, 16)) is None


def test_a_folder_that_others_may_read_is_refused(tmp_path: Path):
    (tmp_path / "authority").mkdir(mode=0o755)
    with pytest.raises(AuthorityError, match="may be used by others") as refusal:
        Authority(tmp_path / "authority")
    assert refusal.value.remedy.endswith(f"chmod 0700 {tmp_path}/authority")


def test_a_key_that_others_may_read_is_refused(authority: Authority):
    (authority.folder / "ca.key").chmod(0o640)
    with pytest.raises(AuthorityError, match=r"ca\.key may be used by others"):
        Authority(authority.folder)


def test_a_folder_below_nothing_is_refused(tmp_path: Path):
    with pytest.raises(AuthorityError, match="No such file or directory"):
        Authority(tmp_path / "missing" / "authority")


def test_a_lost_key_is_told_and_the_certificate_kept(authority: Authority):
    (authority.folder / "ca.key").unlink()
    with pytest.raises(AuthorityError, match=r"ca\.key is missing"):
        Authority(authority.folder)
    assert authority.certificate_file.exists()


@pytest.mark.parametrize("name", ["ca.key", "ca.crt"])
def test_a_damaged_authority_is_told_and_kept(authority: Authority, name: str):
    (authority.folder / name).write_text("half")
    with pytest.raises(AuthorityError, match="is damaged"):
        Authority(authority.folder)
    assert (authority.folder / name).read_text() == "half"


def test_a_key_and_a_certificate_of_two_authorities_are_told(authority: Authority, tmp_path: Path):
    other = Authority(tmp_path / "other")
    authority.certificate_file.write_text(other.certificate)
    with pytest.raises(AuthorityError, match="was not made with the key beside it"):
        Authority(authority.folder)


def make_and_be_killed(folder: Path, step: int) -> bool:
    """Make an authority in a process that is killed before its step on files of that number.

    Return whether the process came to that step.
    """

    def make(count_steps: Callable[[], None]) -> None:
        count_steps()
        Authority(folder)

    return killed_before_step(step, make)


def test_an_authority_whose_making_is_killed_at_any_step_is_made_whole_later(tmp_path: Path):
    number = 1
    while make_and_be_killed(folder := tmp_path / str(number), number):
        key_before = folder / "ca.key"
        kept = key_before.read_text() if key_before.exists() else None
        authority = Authority(folder)
        authority.issue_with_key(PARIS)
        assert kept in (None, key_before.read_text())
        number += 1
    assert number > 8


def test_processes_that_start_at_once_share_one_authority(tmp_path: Path):
    read, write = os.pipe()
    children = []
    for _ in range(6):
        child = os.fork()
        if not child:
            try:
                os.write(write, f"{Authority(tmp_path / 'authority').fingerprint}\n".encode())
            finally:
                os._exit(0)
        children.append(child)
    os.close(write)
    with os.fdopen(read) as stream:
        fingerprints = stream.read().split()
    for child in children:
        os.waitpid(child, 0)
    assert len(fingerprints) == 6
    assert len(set(fingerprints)) == 1
