"""Certificates for tests, real ones, made on the spot."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from parley_server.rpc.tls_settings import CertificateFiles

HERE = ("localhost", "127.0.0.1", "::1")
DAY = timedelta(days=1)

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Key

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def write(self, folder: Path, client_ca: "Pair | None" = None) -> CertificateFiles:
        """Write the files that the server's settings name, over what is there."""
        folder.mkdir(exist_ok=True)
        files = CertificateFiles(
            folder / "server.pem", folder / "server.key", folder / "client_ca.pem" if client_ca else None
        )
        files.certificate.write_bytes(self.certificate_pem)
        files.private_key.touch(mode=0o600)
        files.private_key.write_bytes(self.key_pem)
        if client_ca is not None and files.client_ca is not None:
            files.client_ca.write_bytes(client_ca.certificate_pem)
        return files


def authority(name: str = "Test CA", *, ends: datetime | None = None) -> Pair:
    """Make a root."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(name, name, key, None, ends).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), True
    )
    return Pair(builder.sign(key, hashes.SHA256()), key)


def issued_by(
    issuer: Pair,
    name: str = "test",
    *,
    hosts: Sequence[str] = HERE,
    key: Key | None = None,
    begins: datetime | None = None,
    ends: datetime | None = None,
    is_authority: bool = False,
) -> Pair:
    """Make a certificate that a root has signed; good for a month unless said otherwise. Hosts may be URIs, too."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    issuer_name = issuer.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    builder = _builder(name, str(issuer_name), key, begins, ends)
    names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
    if is_authority:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return Pair(builder.add_extension(names, critical=False).sign(issuer.key, hashes.SHA256()), key)


def _builder(
    name: str, issuer: str, key: Key, begins: datetime | None, ends: datetime | None
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins or now - 2 * DAY)
        .not_valid_after(ends or now + 30 * DAY)
    )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(host: str) -> x509.GeneralName:
    if "://" in host:
        return x509.UniformResourceIdentifier(host)
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
