"""TLS by files: what is read from where, and a sentence for each file that cannot be used."""

from pathlib import Path

import grpc
import pytest
from certificates import Pair, authority, issued_by
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from parley_client import HandshakeError, ParleyClient, TlsFiles, UnavailableError
from parley_client.handshake import handshake_fault
from parley_client.tls import tls_from_environment

CA = authority()
CLIENT = issued_by(CA, "client")
OPENSSL = "SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal"
LAST = "failed to connect to all addresses; last error: "


def written(folder: Path, pair: Pair = CLIENT) -> TlsFiles:
    files = TlsFiles(folder / "ca.pem", folder / "client.pem", folder / "client.key")
    (folder / "ca.pem").write_bytes(CA.certificate_pem)
    (folder / "client.pem").write_bytes(pair.certificate_pem)
    (folder / "client.key").write_bytes(pair.key_pem)
    return files


@pytest.mark.parametrize(
    ("environment", "tls"),
    [
        ({}, False),
        ({"PARLEY_TLS": ""}, False),
        ({"PARLEY_TLS": "false", "PARLEY_ROOT_CERTIFICATES": "a"}, False),
        ({"PARLEY_TLS": "0"}, False),
        ({"PARLEY_TLS": "1"}, TlsFiles()),
        ({"PARLEY_TLS": "True", "PARLEY_ROOT_CERTIFICATES": "a"}, TlsFiles(Path("a"))),
        ({"PARLEY_ROOT_CERTIFICATES": "~/a"}, TlsFiles(Path.home() / "a")),
        (
            {"PARLEY_CLIENT_CERTIFICATE": "c", "PARLEY_CLIENT_KEY": "k"},
            TlsFiles(client_certificate=Path("c"), client_key=Path("k")),
        ),
    ],
)
def test_what_the_environment_says(environment: dict[str, str], tls: bool | TlsFiles) -> None:
    assert tls_from_environment(environment) == tls


def test_a_switch_that_is_neither_on_nor_off_is_refused() -> None:
    with pytest.raises(ValueError, match="PARLEY_TLS is 'perhaps'; write true or false"):
        tls_from_environment({"PARLEY_TLS": "perhaps"})


def test_what_is_given_goes_before_the_environment() -> None:
    environment = {"PARLEY_ROOT_CERTIFICATES": "of the environment", "PARLEY_CLIENT_KEY": "k"}
    assert TlsFiles(Path("given")).completed(environment) == TlsFiles(Path("given"), None, Path("k"))


def test_the_client_heeds_the_environment_only_when_it_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_ROOT_CERTIFICATES", "/absent/ca.pem")
    with pytest.raises(ValueError, match=r"/absent/ca.pem: No such file"):
        ParleyClient("127.0.0.1:1")
    ParleyClient("127.0.0.1:1", tls=False)
    ParleyClient("parley.example.org:1", "key", tls=True)


def test_a_key_is_sent_abroad_over_tls_by_files_too(tmp_path: Path) -> None:
    ParleyClient("parley.example.org:1", "key", tls=written(tmp_path))
    with pytest.raises(ValueError, match="without TLS"):
        ParleyClient("parley.example.org:1", "key")


def test_files_in_order_are_credentials(tmp_path: Path) -> None:
    assert isinstance(written(tmp_path).credentials(), grpc.ChannelCredentials)
    assert isinstance(TlsFiles().credentials(), grpc.ChannelCredentials)


@pytest.mark.parametrize("file", ["ca.pem", "client.pem", "client.key"])
@pytest.mark.parametrize("content", [None, b"", bytes(range(256)), issued_by(CA, "another").key_pem])
def test_what_cannot_be_used_is_named(tmp_path: Path, file: str, content: bytes | None) -> None:
    files = written(tmp_path)
    path = tmp_path / file
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=file) as refused:
        files.credentials()
    assert ("No such file" in str(refused.value)) == (content is None)


def test_half_a_pair_and_a_key_with_a_password_are_refused(tmp_path: Path) -> None:
    files = written(tmp_path)
    with pytest.raises(ValueError, match="go together"):
        TlsFiles(files.root_certificates, files.client_certificate).credentials()
    assert files.client_key is not None
    encrypted = CLIENT.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    files.client_key.write_bytes(encrypted)
    # At once, and not after a question at the terminal.
    with pytest.raises(ValueError, match="without a password"):
        files.credentials()


@pytest.mark.parametrize(
    ("details", "fault"),
    [
        (
            f"{LAST}UNKNOWN: Tls handshake failed: {OPENSSL}:CERTIFICATE_VERIFY_FAILED: certificate has expired: OK",
            "the server's certificate is not trusted: certificate has expired",
        ),
        (
            f"{LAST}UNKNOWN: Custom verification check failed with error: Hostname Verification Check failed.",
            "the server's certificate is for another host",
        ),
        (
            f"{LAST}UNAVAILABLE: ipv4:127.0.0.1:1: Handshake read failed (Socket closed)",
            "closed the connection at once",
        ),
        (f"{LAST}UNKNOWN: ipv4:127.0.0.1:1: recvmsg:Connection reset by peer", "closed the connection at once"),
        # A server that went, or is not there.
        ("Socket closed", ""),
        ("recvmsg:Connection reset by peer", ""),
        (f"{LAST}UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote host: Connection refused", ""),
        ("", ""),
    ],
)
def test_what_grpc_says_of_a_handshake(details: str, fault: str) -> None:
    assert fault in handshake_fault(details)
    assert bool(handshake_fault(details)) == bool(fault)


def test_a_handshake_error_is_an_unavailable_server() -> None:
    error: UnavailableError = HandshakeError("the server does not speak TLS")
    assert (error.code, error.message) == (grpc.StatusCode.UNAVAILABLE, "the server does not speak TLS")
