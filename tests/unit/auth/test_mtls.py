"""Provider `mtls` by itself: what it says of the principal, and what it keeps."""

from datetime import UTC, datetime

import pytest
from certificates import Pair, authority, issued_by
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from parley_server.auth.mtls import MtlsProvider
from parley_server.auth.mtls_settings import MtlsServiceSettings
from parley_server.auth.provider import NOT_MINE, Credentials
from parley_server.domain.access_errors import CredentialsInvalidError
from parley_server.domain.principal import SERVICE_SCOPES, PrincipalKind

CA = authority()
WORKER = "spiffe://prod.example/ns/workers/7"
PAIR = issued_by(CA, hosts=[WORKER])
ENDS = PAIR.certificate.not_valid_after_utc


def provider(*scopes: str, now: datetime | None = None) -> MtlsProvider:
    service = MtlsServiceSettings(spiffe_ids=("spiffe://prod.example/ns/workers/*",), scopes=scopes, act_as=("a*",))
    return MtlsProvider({"worker": service}, lambda: now or datetime.now(UTC))


def showing(pem: bytes | None) -> Credentials:
    return Credentials(None, lambda: "ipv4:10.0.0.1:1", lambda: pem)


def test_the_principal_is_what_the_settings_say_until_the_certificate_ends() -> None:
    found = provider("runs:read", "tool:refunds").recall(showing(PAIR.certificate_pem))
    assert found is not None
    assert (found.kind, found.subject, found.method) == (PrincipalKind.SERVICE, "worker", "mtls")
    assert found.scopes == {"runs:read", "tool:refunds"}
    assert found.act_as == ("a*",)
    assert (found.credential_id, found.expires_at) == (WORKER, ENDS)
    plain = provider().recall(showing(PAIR.certificate_pem))
    assert plain is not None
    assert plain.scopes == SERVICE_SCOPES


def test_an_id_that_is_too_long_for_the_books_is_told_by_its_hash() -> None:
    names = {WORKER + "7" * count for count in (128 - len(WORKER), 129 - len(WORKER), 500)}
    found = [provider().recall(showing(issued_by(CA, hosts=[name]).certificate_pem)) for name in names]
    ids = {each.credential_id for each in found if each is not None}
    assert len(ids) == len(names)
    assert max(map(len, ids)) <= 128


@pytest.mark.parametrize("now", [ENDS, PAIR.certificate.not_valid_before_utc.replace(year=2020)])
async def test_a_certificate_is_good_in_its_time_alone(now: datetime) -> None:
    with pytest.raises(CredentialsInvalidError):
        await provider(now=now).authenticate(showing(PAIR.certificate_pem))


async def test_a_connection_without_a_certificate_is_somebody_elses_to_judge() -> None:
    assert await provider().authenticate(showing(None)) is NOT_MINE
    assert not provider().takes_certificate(showing(None))


def with_a_broken_name() -> bytes:
    """Return a certificate that can be parsed, with a URI that is no ASCII."""
    der = issued_by(CA, hosts=[WORKER]).certificate.public_bytes(Encoding.DER).replace(b"spiffe", b"spiff\xff")
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    "pem", [with_a_broken_name(), b"", b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"]
)
async def test_a_certificate_that_cannot_be_read_is_nobodys(pem: bytes) -> None:
    with pytest.raises(CredentialsInvalidError):
        await provider().authenticate(showing(pem))


def test_the_memory_is_bounded() -> None:
    one = provider()
    key = PAIR.key
    for number in range(1030):
        pair: Pair = issued_by(CA, str(number), hosts=["a.example"], key=key)
        assert one.recall(showing(pair.certificate_pem)) is None
    assert len(one._read) <= 1024
    assert one.recall(showing(PAIR.certificate_pem)) is not None
