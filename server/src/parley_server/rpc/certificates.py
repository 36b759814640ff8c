"""The server's certificate as the operator's files hold it: read and checked before a handshake ever sees it."""

import hashlib
import os
import sys
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from parley_server.domain.errors import StartError
from parley_server.rpc.tls_settings import CertificateFiles

_CERTIFICATE = "[tls] certificate_file"
_PRIVATE_KEY = "[tls] private_key_file"
_CLIENT_CA = "[tls] client_ca_file"
_MIN_RSA_BITS = 2048
# The group of a file that is root's is the operator's choice (ssl-cert, fsGroup); that of any other is an accident.
_NOT_FOR_OTHERS = 0o077
_NOT_FOR_OTHERS_OF_ROOT = 0o037


class CertificateError(StartError):
    """A certificate, its key or the clients' CA cannot be used; the text says which file, why, and the remedy."""


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """A certificate that was checked, as PEM. `fingerprint` is the SHA-256 of its DER form, in hex."""

    chain_pem: bytes
    private_key_pem: bytes = field(repr=False)
    client_ca_pem: bytes | None
    not_after: datetime
    fingerprint: str


def load_certificate(files: CertificateFiles, now: datetime) -> ServerCertificate:
    """Read the files and hold them to what a handshake needs.

    Raises:
        CertificateError: a file cannot be read or parsed, the key is another certificate's or open to others, or the
            certificate is not valid at `now`.
    """
    chain = _certificates(_CERTIFICATE, files.certificate)
    key = _private_key(files.private_key)
    leaf = chain[0]
    _check_key_type(files.certificate, leaf)
    if key.public_key() != leaf.public_key():
        raise CertificateError(
            f"{_PRIVATE_KEY}: {files.private_key} is not the key of the first certificate in {files.certificate}; "
            "name the pair that was issued together"
        )
    _check_dates(files.certificate, leaf, now)
    return ServerCertificate(
        # Written anew, so that nothing else a file holds reaches the core.
        chain_pem=_pem(chain),
        private_key_pem=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        client_ca_pem=None if files.client_ca is None else _client_ca(files.client_ca, now),
        not_after=leaf.not_valid_after_utc,
        fingerprint=hashlib.sha256(leaf.public_bytes(Encoding.DER)).hexdigest(),
    )


def _certificates(setting: str, file: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())
    except OSError as error:
        raise _unreadable(setting, file, error) from error
    except (ValueError, x509.InvalidVersion) as error:
        raise CertificateError(f"{setting}: {file} holds no certificate that can be read; write it as PEM") from error


def _private_key(file: Path) -> PrivateKeyTypes:
    try:
        with file.open("rb") as opened:
            _check_rights(file, os.fstat(opened.fileno()))
            content = opened.read()
    except OSError as error:
        raise _unreadable(_PRIVATE_KEY, file, error) from error
    try:
        return load_pem_private_key(content, password=None)
    except TypeError as error:  # what cryptography says of a key that wants a password
        raise CertificateError(
            f"{_PRIVATE_KEY}: {file} is encrypted, and nobody is there to type its password; store it without one"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(
            f"{_PRIVATE_KEY}: {file} holds no private key that can be read; write it as PEM"
        ) from error


def _check_rights(file: Path, found: os.stat_result) -> None:
    """Refuse a key that others may read, by PostgreSQL's rule: 0600, and 0640 where it is root's."""
    if sys.platform == "win32":  # whose rights are not in the mode
        return
    forbidden = _NOT_FOR_OTHERS_OF_ROOT if found.st_uid == 0 else _NOT_FOR_OTHERS
    if found.st_mode & forbidden:
        raise CertificateError(f"{_PRIVATE_KEY}: {file} is open to other users of this machine; chmod 600 it")


def _check_key_type(file: Path, certificate: x509.Certificate) -> None:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        key = None
    match key:
        case rsa.RSAPublicKey() if key.key_size >= _MIN_RSA_BITS:
            return
        # gRPC's core offers no other: with Ed25519 and P-521 every handshake fails, with the rest even the start.
        case ec.EllipticCurvePublicKey() if isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
            return
    raise CertificateError(
        f"{_CERTIFICATE}: {file} has a kind of key that clients do not accept; "
        f"use ECDSA with P-256 or P-384, or RSA from {_MIN_RSA_BITS} bits"
    )


def _check_dates(file: Path, certificate: x509.Certificate, now: datetime) -> None:
    if now >= certificate.not_valid_after_utc:
        raise CertificateError(f"{_CERTIFICATE}: {file} ended on {certificate.not_valid_after_utc:%Y-%m-%d}; renew it")
    if now < certificate.not_valid_before_utc:
        raise CertificateError(
            f"{_CERTIFICATE}: {file} begins on {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; "
            "wait until then, or set this machine's clock right"
        )


def _client_ca(file: Path, now: datetime) -> bytes:
    # All of a bundle, and not only its first: two CAs stand side by side while one takes over from the other.
    authorities = _certificates(_CLIENT_CA, file)
    if all(now >= authority.not_valid_after_utc for authority in authorities):
        raise CertificateError(f"{_CLIENT_CA}: {file} has ended, and no client could connect; renew it")
    return _pem(authorities)


def _pem(certificates: list[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def _unreadable(setting: str, file: Path, error: OSError) -> CertificateError:
    return CertificateError(f"{setting}: {file} cannot be read ({error.strerror}); check the path and its rights")
