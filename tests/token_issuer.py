"""An issuer for tests: real keys, a real HTTP server for its JWKS, and tokens as right or wrong as one likes."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, get_default_algorithms
from parley_server.auth.jwt_provider import JwtProvider
from parley_server.auth.jwt_settings import IssuerSettings

ISSUER = "https://login.example.org"
AUDIENCE = "parley"
START_S = 1_790_000_000
HASH_KEY = b"k" * 32

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
Part = Mapping[str, object] | bytes


@dataclass(frozen=True)
class SigningKey:
    """A private key, by the name and for the algorithm that its public one is told with."""

    kid: str
    alg: str
    private: PrivateKey

    @classmethod
    def make(cls, kid: str, alg: str = "ES256") -> "SigningKey":
        if alg == "EdDSA":
            return cls(kid, alg, ed25519.Ed25519PrivateKey.generate())
        if alg.startswith("ES"):
            curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
            return cls(kid, alg, ec.generate_private_key(curves[alg]))
        return cls(kid, alg, rsa.generate_private_key(65537, 2048))

    @property
    def jwk(self) -> dict[str, object]:
        """The public key as a JWKS has it."""
        return {"kid": self.kid, "alg": self.alg, "use": "sig", **_plain_jwk(self.private)}

    def sign(self, content: bytes) -> bytes:
        return get_default_algorithms()[self.alg].sign(content, self.private)

    def token(self, claims: Part, header: Part | None = None) -> str:
        """Sign these claims, in the order and with the faults they have."""
        return self.signed(
            segment({"alg": self.alg, "kid": self.kid, "typ": "JWT"} if header is None else header), claims
        )

    def signed(self, header: str, claims: Part) -> str:
        content = f"{header}.{segment(claims)}"
        return f"{content}.{encoded(self.sign(content.encode()))}"


def _plain_jwk(private: PrivateKey) -> dict[str, object]:
    match private:
        case rsa.RSAPrivateKey():
            return dict(RSAAlgorithm.to_jwk(private.public_key(), as_dict=True))
        case ec.EllipticCurvePrivateKey():
            return dict(ECAlgorithm.to_jwk(private.public_key(), as_dict=True))
        case ed25519.Ed25519PrivateKey():
            return dict(OKPAlgorithm.to_jwk(private.public_key(), as_dict=True))


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def segment(part: Part) -> str:
    return encoded(part if isinstance(part, bytes) else json.dumps(part).encode())


@dataclass
class Clock:
    """Both clocks of a provider, which stand still until they are moved."""

    passed_s: float = 0.0

    def now(self) -> float:
        return START_S + self.passed_s

    def monotonic(self) -> float:
        return self.passed_s

    def claims(self, **others: object) -> dict[str, object]:
        """Return good claims for now, with others in their place; those that are None are left out."""
        issued = int(self.now())
        good = {"iss": ISSUER, "sub": "ann", "aud": AUDIENCE, "iat": issued, "exp": issued + 3600}
        return {name: value for name, value in {**good, "scope": "runs:read", **others}.items() if value is not None}


@dataclass
class JwksServer:
    """Serves a JWKS, or what else a test wants; counts how often it was asked for."""

    url: str = ""
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    asked: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    was_asked: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, *keys: SigningKey | Mapping[str, object]) -> None:
        """Serve these keys from now on."""
        self.status, self.headers = 200, {}
        entries = [key.jwk if isinstance(key, SigningKey) else dict(key) for key in keys]
        self.body = json.dumps({"keys": entries}).encode()

    async def answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        self.was_asked.set()
        await self.gate.wait()
        return web.Response(body=self.body, status=self.status, headers=self.headers)


@asynccontextmanager
async def jwks_server(*keys: SigningKey) -> AsyncIterator[JwksServer]:
    """Serve on loopback for a block."""
    server = JwksServer()
    server.gate.set()
    server.publish(*keys)
    app = web.Application()
    app.router.add_get("/jwks", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = next(iter(_ports(runner.addresses)))
    server.url = f"http://127.0.0.1:{port}/jwks"
    try:
        yield server
    finally:
        server.gate.set()
        await runner.cleanup()


def _ports(addresses: Sequence[object]) -> Iterator[int]:
    for address in addresses:
        if isinstance(address, tuple):
            yield int(address[1])


def settings_of(server: JwksServer, **others: object) -> IssuerSettings:
    """Return the settings of the issuer whose keys this server has."""
    given = {
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "jwks_uri": server.url,
        "algorithms": ["RS256", "ES256", "EdDSA"],
        "prefix": "okta:",
    }
    settings = IssuerSettings.model_validate({**given, **others})
    assert not list(settings.problems())
    return settings


def provider_of(settings: IssuerSettings, clock: Clock) -> JwtProvider:
    """Return a provider that knows this issuer as `staff`."""
    return JwtProvider({"staff": settings}, HASH_KEY, clock.now, clock.monotonic)
