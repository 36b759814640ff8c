"""What it costs to find out who calls, by every provider, remembering or not, good or bad, and what he may.

    python benchmarks/auth.py [--rounds 5] [--calls 500]

A quarter of a minute. In this process, by the chain that a server has; keys are in memory and an issuer's in a file, so
that no disk and no network is in it. All ways take turns in one run, and each is told beside an API key that is
remembered, which is what nearly every call of a server with keys costs; compare nothing else.
"""

import argparse
import asyncio
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
import uvloop
from auth_checks import checks
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from jwt import encode
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from parley_server.auth.api_key import PresentedKey
from parley_server.auth.delegation_signer import DelegationSigner
from parley_server.auth.delegations import Delegations, DelegationWish
from parley_server.auth.factory import AuthChain, ProviderParts, build_auth_chain
from parley_server.auth.jwt_settings import IssuerSettings
from parley_server.auth.mtls_settings import MtlsServiceSettings
from parley_server.auth.provider import Credentials
from parley_server.domain.access_errors import CredentialsInvalidError
from parley_server.domain.api_key import ApiKey, StoredKey
from parley_server.domain.context import ContextClaim, RequestContext
from parley_server.domain.principal import USER_SCOPES, Principal, PrincipalKind

BASELINE = "API key, remembered"
_HASH_KEY = bytes(32)
_SPIFFE_ID = "spiffe://prod.example/bench"
_RSA = rsa.generate_private_key(65537, 2048)
_EC = ec.generate_private_key(ec.SECP256R1())
_ED = ed25519.Ed25519PrivateKey.generate()
_PRIVATE: Mapping[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey] = {
    "RS256": _RSA,
    "ES256": _EC,
    "EdDSA": _ED,
}


class Keys:
    """A store of as many keys as are asked for, in memory."""

    def __init__(self) -> None:
        self._stored: dict[str, StoredKey] = {}

    def issue(self) -> str:
        """Make a key and return its text."""
        presented = PresentedKey.mint()
        key = ApiKey(presented.key_id, PrincipalKind.USER, "ann", USER_SCOPES, (), datetime.now(UTC))
        self._stored[key.key_id] = StoredKey(key, presented.hash(_HASH_KEY))
        return presented.text

    async def find(self, key_id: str) -> StoredKey | None:
        """Return a key."""
        return self._stored.get(key_id)


@dataclass(frozen=True)
class Way:
    """Calls that prove their caller alike: one credential for each call, or one for all of them."""

    name: str
    credentials: Sequence[Credentials]
    is_good: bool = True


def _token(algorithm: str, number: int, **others: object) -> str:
    now = int(time.time())
    claims = {"iss": "https://bench.example", "sub": "ann", "aud": "parley", "iat": now, "exp": now + 3600}
    content = {**claims, "scope": "runs:read runs:write", "jti": str(number), **others}
    return encode(content, _PRIVATE[algorithm], algorithm, headers={"kid": algorithm})


def _bearer(text: str, certificate: bytes | None = None) -> Credentials:
    return Credentials(f"Bearer {text}", lambda: "ipv4:10.0.0.1:1", lambda: certificate)


def _delegated(keys: Keys, calls: int) -> Iterator[Credentials]:
    """Yield so many tokens that rest on one key, all different."""
    key_id = keys.issue().split("_")[1]
    ann = Principal(kind=PrincipalKind.USER, subject="ann", scopes=USER_SCOPES, method="api_key", credential_id=key_id)
    context, delegations = RequestContext.from_claim(ContextClaim(), ann), Delegations(DelegationSigner(_HASH_KEY))
    for _ in range(calls):
        yield _bearer(delegations.for_caller(context, DelegationWish(scopes=frozenset({"runs:read"})))[0])


def _certificate(*uris: str) -> bytes:
    now, name = datetime.now(UTC), x509.Name([])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(_EC.public_key())
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
    builder = builder.serial_number(x509.random_serial_number()).add_extension(names, critical=True)
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    return builder.sign(_EC, hashes.SHA256()).public_bytes(Encoding.PEM)


def ways(keys: Keys, calls: int) -> Iterator[Way]:
    """Yield the ways to be known, and to be refused, with fresh credentials where nothing may be remembered."""
    service = _certificate(_SPIFFE_ID)
    yield Way(BASELINE, [_bearer(keys.issue())])
    yield Way("API key, looked up", [_bearer(keys.issue()) for _ in range(calls)])
    yield Way("API key that is none", [_bearer(PresentedKey.mint().text)], is_good=False)
    yield Way("nothing, on this machine", [Credentials(None, lambda: "ipv4:127.0.0.1:1")])
    yield Way("token, remembered", [_bearer(_token("RS256", -1))])
    for algorithm in _PRIVATE:
        yield Way(f"token, {algorithm} verified", [_bearer(_token(algorithm, number)) for number in range(calls)])
    yield Way("token that has expired", [_bearer(_token("RS256", 0, exp=1))], is_good=False)
    yield Way("token of a forger", [_bearer(f"{_token('RS256', 0)[:-8]}AAAAAAAA")], is_good=False)
    yield Way("delegation token, remembered", list(_delegated(keys, 1)))
    yield Way("delegation token, verified", list(_delegated(keys, calls)))
    yield Way("certificate", [Credentials(None, lambda: "ipv4:10.0.0.1:1", lambda: service)])
    yield Way("API key beside a certificate that names nobody", [_bearer(keys.issue(), _certificate("https://x"))])
    yield Way("API key and a service's certificate", [_bearer(keys.issue(), service)], is_good=False)


def chain(keys: Keys, folder: Path) -> AuthChain:
    """Build the chain of a server that has every provider."""
    public: Mapping[str, str] = {
        "RS256": RSAAlgorithm.to_jwk(_RSA.public_key()),
        "ES256": ECAlgorithm.to_jwk(_EC.public_key()),
        "EdDSA": OKPAlgorithm.to_jwk(_ED.public_key()),
    }
    file = folder / "jwks.json"
    file.write_text(json.dumps({"keys": [{**json.loads(jwk), "kid": name} for name, jwk in public.items()]}))
    issuer = IssuerSettings(
        issuer="https://bench.example", audience="parley", jwks_file=file, algorithms=("RS256", "ES256", "EdDSA")
    )
    services = {"bench": MtlsServiceSettings(spiffe_ids=(_SPIFFE_ID,))}
    parts = ProviderParts(
        keys, _HASH_KEY, max_failures_per_minute=1_000_000, issuers={"bench": issuer}, services=services
    )
    return build_auth_chain(("mtls", "api_key", "delegation", "jwt", "local"), parts)


async def played(asked: AuthChain, way: Way, calls: int) -> float:
    """Return the microseconds of CPU of one call. Raises ValueError where calls end otherwise than they must."""
    good = 0
    before = time.process_time()
    for number in range(calls):
        try:
            await asked.authenticate(way.credentials[number % len(way.credentials)])
            good += 1
        except CredentialsInvalidError:
            continue
    took_us = (time.process_time() - before) / calls * 1e6
    if good != (calls if way.is_good else 0):
        raise ValueError(f"{way.name}: {good} of {calls} were let in")
    return took_us


async def main(rounds: int, calls: int) -> None:
    """Play all ways in turn, and print the medians."""
    took: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            keys = Keys()
            asked = chain(keys, Path(folder))
            for way in ways(keys, calls):
                took.setdefault(way.name, []).append(await played(asked, way, calls))
            await asked.close()
            for check in await checks():
                took.setdefault(check.name, []).append(check.took_us(10 * calls))
    base = statistics.median(took[BASELINE])
    print(f"{'':50} {'us of CPU':>10} {'x the first':>12}")
    for name, each in took.items():
        print(f"{name:50} {statistics.median(each):10.1f} {statistics.median(each) / base:12.1f}")


if __name__ == "__main__":
    # What is refused is told at a lower level, and writing it would be most of what it costs here.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    parser = argparse.ArgumentParser(description="What it costs to find out who calls.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=500)
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(arguments.rounds, arguments.calls))
