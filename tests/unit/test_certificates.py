"""What the server's certificate is held to before a handshake sees it, and the sentence for each fault."""

import os
import ssl
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from certificates import DAY, Key, Pair, authority, issued_by
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from parley_server.rpc.certificates import CertificateError, load_certificate
from parley_server.rpc.tls_settings import CertificateFiles, TlsSettings
from pydantic import ValidationError

NOW = datetime.now(UTC)
CA = authority()
GOOD = issued_by(CA)


def refusal(files: CertificateFiles, now: datetime = NOW) -> str:
    """Return the one sentence of a refusal."""
    with pytest.raises(CertificateError) as refused:
        load_certificate(files, now)
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert sentence.startswith("[tls] ")
    assert "; " in sentence
    return sentence


def test_a_good_pair_is_loaded_as_it_is(tmp_path: Path) -> None:
    files = GOOD.write(tmp_path, client_ca=CA)
    files.certificate.write_bytes(b"a chain\n" + GOOD.certificate_pem + CA.certificate_pem)
    loaded = load_certificate(files, NOW)
    assert x509.load_pem_x509_certificates(loaded.chain_pem) == [GOOD.certificate, CA.certificate]
    assert loaded.private_key_pem == GOOD.key_pem
    assert loaded.client_ca_pem == CA.certificate_pem
    assert loaded.not_after == GOOD.certificate.not_valid_after_utc
    assert "PRIVATE" not in repr(loaded)


@pytest.mark.parametrize(
    "make_key",
    [
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: rsa.generate_private_key(65537, 2048),
    ],
)
def test_other_kinds_of_keys_that_clients_accept(tmp_path: Path, make_key: Callable[[], Key]) -> None:
    load_certificate(issued_by(CA, key=make_key()).write(tmp_path), NOW)


@pytest.mark.parametrize(
    "make_key",
    [
        ed25519.Ed25519PrivateKey.generate,
        lambda: ec.generate_private_key(ec.SECP521R1()),
        lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
        lambda: rsa.generate_private_key(65537, 1024),  # noqa: S505  # the fault under test
    ],
)
def test_kinds_of_keys_that_no_handshake_gets_through_with(tmp_path: Path, make_key: Callable[[], Key]) -> None:
    assert "a kind of key that clients do not accept" in refusal(issued_by(CA, key=make_key()).write(tmp_path))


def test_the_key_of_another_certificate(tmp_path: Path) -> None:
    files = GOOD.write(tmp_path)
    files.private_key.write_bytes(issued_by(CA).key_pem)
    assert "is not the key of the first certificate" in refusal(files)


def test_a_chain_in_the_wrong_order(tmp_path: Path) -> None:
    files = GOOD.write(tmp_path)
    files.certificate.write_bytes(CA.certificate_pem + GOOD.certificate_pem)
    assert "is not the key of the first certificate" in refusal(files)


def test_a_certificate_that_has_ended_or_not_begun(tmp_path: Path) -> None:
    ended = issued_by(CA, ends=NOW - DAY).write(tmp_path)
    assert f"ended on {NOW - DAY:%Y-%m-%d}; renew it" in refusal(ended)
    early = issued_by(CA, begins=NOW + DAY).write(tmp_path)
    assert f"begins on {NOW + DAY:%Y-%m-%d %H:%M} UTC" in refusal(early)
    load_certificate(early, NOW + 2 * DAY)


def test_the_clients_ca_of_a_bundle_may_have_ended_but_not_all(tmp_path: Path) -> None:
    old = authority("Old", ends=NOW - DAY)
    files = GOOD.write(tmp_path, client_ca=old)
    assert files.client_ca is not None
    assert "client_ca_file" in refusal(files)
    files.client_ca.write_bytes(old.certificate_pem + CA.certificate_pem)
    assert load_certificate(files, NOW).client_ca_pem == old.certificate_pem + CA.certificate_pem


@pytest.mark.parametrize("which", ["certificate_file", "private_key_file", "client_ca_file"])
@pytest.mark.parametrize("content", [None, b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_what_cannot_be_read_is_named(tmp_path: Path, which: str, content: bytes | None) -> None:
    files = GOOD.write(tmp_path, client_ca=CA)
    path = {
        "certificate_file": files.certificate,
        "private_key_file": files.private_key,
        "client_ca_file": files.client_ca,
    }[which]
    assert path is not None
    path.unlink() if content is None else path.write_bytes(content)
    sentence = refusal(files)
    assert f"[tls] {which}: {path}" in sentence
    assert ("No such file" in sentence) == (content is None)


def test_a_certificate_of_an_impossible_version(tmp_path: Path) -> None:
    files = GOOD.write(tmp_path)
    der = GOOD.certificate.public_bytes(Encoding.DER).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x34", 1)
    files.certificate.write_text(ssl.DER_cert_to_PEM_cert(der))
    assert "holds no certificate that can be read" in refusal(files)


def test_a_key_with_a_password(tmp_path: Path) -> None:
    files = GOOD.write(tmp_path)
    encrypted = GOOD.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    files.private_key.write_bytes(encrypted)
    assert "is encrypted" in refusal(files)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o660, 0o777])
def test_a_key_that_others_may_read(tmp_path: Path, mode: int) -> None:
    files = GOOD.write(tmp_path)
    files.private_key.chmod(mode)
    assert "chmod 600" in refusal(files)


def test_the_group_may_read_roots_key_and_no_others(tmp_path: Path) -> None:
    files = GOOD.write(tmp_path)
    files.private_key.chmod(0o640)
    if files.private_key.stat().st_uid == 0:
        load_certificate(files, NOW)
        os.chown(files.private_key, 12345, -1)
    assert "chmod 600" in refusal(files)


# cryptography's word on a negative serial number, which the damage may make.
@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@given(pair=st.just(GOOD), place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), key=st.booleans())
def test_a_damaged_file_is_loaded_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, pair: Pair, place: float, value: int, key: bool
) -> None:
    files = pair.write(tmp_path_factory.getbasetemp() / "damaged")
    path = files.private_key if key else files.certificate
    damaged = bytearray(path.read_bytes())
    damaged[int(place * len(damaged))] = value
    path.write_bytes(damaged)
    with suppress(CertificateError):
        load_certificate(files, NOW)


@pytest.mark.parametrize(
    ("given_settings", "words"),
    [
        ({"certificate_file": "c"}, "set both or neither"),
        ({"private_key_file": "k"}, "set both or neither"),
        ({"certificate_file": "c", "private_key_file": ""}, "set both or neither"),
        ({"client_ca_file": "a"}, "over TLS alone"),
    ],
)
def test_settings_that_are_half_there(given_settings: dict[str, str], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TlsSettings.model_validate(given_settings)


def test_settings_that_are_whole() -> None:
    assert TlsSettings().files is None
    assert TlsSettings.model_validate({"certificate_file": "", "private_key_file": ""}).files is None
    whole = {"certificate_file": "c", "private_key_file": "k", "client_ca_file": "a"}
    assert TlsSettings.model_validate(whole).files == CertificateFiles(Path("c"), Path("k"), Path("a"))
