"""Provider `mtls`: proves services by the certificates of their connections."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509

from parley_server.auth.credential_ids import credential_id
from parley_server.auth.grants import scopes_of
from parley_server.auth.mtls_settings import SPIFFE_ID, MtlsServiceSettings, is_covered
from parley_server.auth.provider import NOT_MINE, AuthProvider, Credentials, NotMine
from parley_server.domain.access_errors import CredentialsInvalidError
from parley_server.domain.principal import Principal, PrincipalKind

_SCHEME = "spiffe:"
_MAX_ID_CHARS = 2048
_MAX_REMEMBERED = 1024
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Certificate:
    """What counts of a certificate.

    `names_workload` tells that it is meant as an identity; any other opens the connection and names nobody.
    `spiffe_id` is the one it has, None where there are several, or what is there is none.
    """

    names_workload: bool
    spiffe_id: str | None
    begins: datetime
    ends: datetime


# One that the core has taken and that cannot be read names somebody, and nobody can say whom.
_UNREADABLE = _Certificate(names_workload=True, spiffe_id=None, begins=_NEVER, ends=_NEVER)


class MtlsProvider(AuthProvider):
    """Takes a connection's certificate for one of `services`, by the operator's names for them; `now` is in UTC.

    The handshake has shown that the caller holds its key and that the operator's CA has issued it. Who it is stands in
    its one URI: common names, DNS names and what a proxy says of certificates are never looked at.
    """

    def __init__(
        self, services: Mapping[str, MtlsServiceSettings], now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._services = [
            (pattern, service.service or name, service)
            for name, service in services.items()
            for pattern in service.spiffe_ids
        ]
        self._now = now
        self._read: dict[bytes, tuple[_Certificate, Principal | None]] = {}

    def recall(self, credentials: Credentials) -> Principal | None:
        """Return the service whose certificate it is; None where another credential is sent, too."""
        if credentials.authorization is not None or (found := self._look_at(credentials)) is None:
            return None
        certificate, principal = found
        return principal if principal and certificate.begins <= self._now() < certificate.ends else None

    async def authenticate(self, credentials: Credentials) -> Principal | NotMine:
        """Return the service; NOT_MINE without a certificate that names one, or beside another credential.

        Raises:
            CredentialsInvalidError: it names none of the services, several, or is not good at this time.
        """
        if credentials.authorization is not None or (found := self._look_at(credentials)) is None:
            return NOT_MINE
        certificate, _ = found
        if not certificate.names_workload:
            return NOT_MINE
        principal = self.recall(credentials)
        if principal is None:
            raise CredentialsInvalidError
        return principal

    def takes_certificate(self, credentials: Credentials) -> bool:
        """Tell whether the certificate is a service's."""
        found = self._look_at(credentials)
        return found is not None and found[1] is not None

    def _look_at(self, credentials: Credentials) -> tuple[_Certificate, Principal | None] | None:
        """Return the connection's certificate and whom it names; one that was read is not read again."""
        pem = credentials.certificate()
        if pem is None:
            return None
        found = self._read.get(pem)
        if found is None:
            certificate = _read(pem)
            found = certificate, self._principal_of(certificate)
            if len(self._read) >= _MAX_REMEMBERED:
                del self._read[next(iter(self._read))]
            self._read[pem] = found
        return found

    def _principal_of(self, certificate: _Certificate) -> Principal | None:
        if (spiffe_id := certificate.spiffe_id) is None:
            return None
        for pattern, name, service in self._services:
            if is_covered(spiffe_id, pattern):
                return Principal(
                    kind=PrincipalKind.SERVICE,
                    subject=name,
                    scopes=scopes_of(service.scopes, PrincipalKind.SERVICE),
                    act_as=service.act_as,
                    method="mtls",
                    credential_id=credential_id("spiffe", spiffe_id.removeprefix(_SCHEME)),
                    expires_at=certificate.ends,
                )
        return None


def _read(pem: bytes) -> _Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        uris, is_authority = _uris(certificate.extensions), _is_authority(certificate.extensions)
    except (ValueError, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return _UNREADABLE
    return _Certificate(
        names_workload=any(uri.lower().startswith(_SCHEME) for uri in uris),
        spiffe_id=None if is_authority else _spiffe_id(uris),
        begins=certificate.not_valid_before_utc,
        ends=certificate.not_valid_after_utc,
    )


def _spiffe_id(uris: Sequence[str]) -> str | None:
    if len(uris) != 1 or len(uris[0]) > _MAX_ID_CHARS or not SPIFFE_ID.fullmatch(uris[0]):
        return None
    return uris[0]


def _uris(extensions: x509.Extensions) -> Sequence[str]:
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _is_authority(extensions: x509.Extensions) -> bool:
    try:
        return extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
