"""Rows 15 to 17: tokens that are not good, each one change away from a good one, at a server that fetches real keys."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial

import grpc
import pytest
from catalogue.door import check_words
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import HMACAlgorithm
from parley_server.auth.api_key_provider import ApiKeyProvider
from parley_server.auth.jwt_provider import JwtProvider
from rpc.chassis import HASH_KEY, Chassis, Keys, bearer, failed, running
from token_issuer import (
    ISSUER,
    START_S,
    Clock,
    JwksServer,
    Part,
    SigningKey,
    encoded,
    jwks_server,
    segment,
    settings_of,
)

Maker = Callable[[], str]

CODE = grpc.StatusCode
EC, RSA, ED = SigningKey.make("ec"), SigningKey.make("rsa", "RS256"), SigningKey.make("ed", "EdDSA")
STRANGER = SigningKey.make("ec")
OTHERS = SigningKey.make("ec")
CLOCK = Clock()
HEADER: Mapping[str, object] = {"alg": "ES256", "kid": "ec", "typ": "JWT"}
HUGE = b"9" * 400


@dataclass(frozen=True)
class Place:
    """A server that trusts two issuers with a JWKS each, and what they were asked for."""

    chassis: Chassis
    jwks: JwksServer


@pytest.fixture(scope="module")
async def place() -> AsyncIterator[Place]:
    async with jwks_server(EC, RSA, ED) as jwks, jwks_server(OTHERS) as other:
        issuers = {
            "staff": settings_of(jwks),
            "guests": settings_of(other, issuer="https://guests.example.org", prefix="guest:"),
        }
        provider = JwtProvider(issuers, HASH_KEY, CLOCK.now, CLOCK.monotonic)
        async with running(providers=[ApiKeyProvider(Keys(), HASH_KEY), provider]) as chassis:
            yield Place(chassis, jwks)
        await provider.close()


def claims(**others: object) -> dict[str, object]:
    return CLOCK.claims(**others)


def raw_claims(name: str, value: bytes) -> bytes:
    """Return good claims with a value that Python would not write."""
    return json.dumps(claims(**{name: "@"})).encode().replace(b'"@"', value)


def header(**others: object) -> dict[str, object]:
    return {name: value for name, value in {**HEADER, **others}.items() if value is not None}


def ec(said: Part, with_header: Part = HEADER) -> str:
    return EC.token(said, with_header)


def headed(**others: object) -> Maker:
    return lambda: ec(claims(), header(**others))


def saying(**others: object) -> Maker:
    return lambda: ec(claims(**others))


def saying_raw(name: str, value: bytes) -> Maker:
    return lambda: ec(raw_claims(name, value))


GOOD: dict[str, Maker] = {
    "ES256": lambda: EC.token(claims()),
    "RS256": lambda: RSA.token(claims()),
    "EdDSA": lambda: ED.token(claims()),
    "an audience in a list": saying(aud=["parley"]),
    "of an access token's type": headed(typ="application/at+JWT"),
    "another issuer's": lambda: OTHERS.token(claims(iss="https://guests.example.org")),
}


@pytest.mark.parametrize("token", GOOD.values(), ids=GOOD.keys())
async def test_a_good_token_is_its_subject(place: Place, token: Maker) -> None:
    said = (await place.chassis.get_run(metadata=bearer(token()))).run
    assert said.agent_id == said.conversation_id
    assert said.agent_id in {"okta:ann", "guest:ann"}


def confused(secret: bytes) -> str:
    """Sign with a text that everybody knows, as if it were a shared secret."""
    content = f"{segment({'alg': 'HS256', 'kid': 'rsa', 'typ': 'JWT'})}.{segment(claims())}"
    return f"{content}.{encoded(HMACAlgorithm(HMACAlgorithm.SHA256).sign(content.encode(), secret))}"


def unsigned(alg: str) -> str:
    return f"{segment(header(alg=alg))}.{segment(claims())}."


def public(encoding: Encoding, form: PublicFormat) -> bytes:
    return RSA.private.public_key().public_bytes(encoding, form)


def changed(change: Callable[[list[str]], None]) -> Maker:
    """Return what makes a good token whose three parts were changed after signing."""

    def make() -> str:
        parts = ec(claims()).split(".")
        change(parts)
        return ".".join(parts)

    return make


def put(place: int, text: Callable[[str], str]) -> Maker:
    def change(parts: list[str]) -> None:
        parts[place] = text(parts[place])

    return changed(change)


def last_bits(text: str) -> str:
    """Change the bits of the last letter that stand for nothing: 64 bytes are 86 letters, the last of which has 2."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1]


def nested_actors(depth: int) -> dict[str, object]:
    actor: dict[str, object] = {"sub": "bot"}
    for _ in range(depth - 1):
        actor = {"sub": "bot", "act": actor}
    return actor


SIGNATURES: dict[str, Maker] = {
    **{f"alg {alg}": partial(unsigned, alg) for alg in ("none", "None", "nOnE", "NONE", "")},
    "alg none with a signature": lambda: EC.token(claims(), header(alg="none")),
    "no alg": headed(alg=None),
    "alg is a list": headed(alg=["ES256"]),
    "HS256 with the RSA key's PEM": lambda: confused(public(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)),
    "HS256 with the RSA key's DER": lambda: confused(public(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
    "HS256 with the JWK": lambda: confused(json.dumps(RSA.jwk).encode()),
    "HS256 with nothing": lambda: confused(b""),
    "an algorithm of the key that the issuer has not": lambda: SigningKey("rsa", "PS256", RSA.private).token(claims()),
    "another key's id": headed(kid="rsa"),
    "another key's algorithm": headed(alg="RS256", kid="rsa"),
    "a stranger's key of that name": lambda: STRANGER.token(claims()),
    "the key of another issuer": lambda: OTHERS.token(claims()),
    "a signature of zeros": put(2, lambda _: encoded(bytes(64))),
    "a signature that is cut": put(2, lambda text: text[:-4]),
    "a signature of other claims": changed(lambda parts: parts.__setitem__(1, segment(claims(sub="bob")))),
    "no signature": put(2, lambda _: ""),
}
HEADERS: dict[str, Maker] = {
    **{
        f"kid {kid!r}": headed(kid=kid)
        for kid in ("../../x", "/dev/null", "' OR 1=1 --", "", "EC", "ec\x00", "x" * 3000, 7, ["ec"], {"a": 1})
    },
    **{
        f"{name} in the header": headed(**{name: value})
        for name, value in {
            "jku": "https://evil.example/jwks",
            "x5u": "https://evil.example/x5u",
            "jwk": STRANGER.jwk,
            "x5c": ["MIIB"],
            "crit": ["exp"],
            "b64": False,
            "zip": "DEF",
            "enc": "A128GCM",
        }.items()
    },
    **{f"typ {typ!r}": headed(typ=typ) for typ in ("logout+jwt", "dpop+jwt", "", 1, ["JWT"])},
    "no typ": headed(typ=None),
    "a name twice in the header": lambda: ec(claims(), b'{"alg":"none","alg":"ES256","kid":"ec","typ":"JWT"}'),
    "a header that is a list": lambda: ec(claims(), b'["ES256"]'),
}
TIMES = {
    "a float": 1.5 + START_S,
    "9e99": 9e99,
    "negative": -1,
    "zero": 0,
    "a text": str(START_S + 60),
    "true": True,
    "null in a list": [None],
    "huge": 10**30,
}
RAW_TIMES = {"NaN": b"NaN", "Infinity": b"Infinity", "1e999": b"1e999", "400 digits": HUGE, "5000 digits": b"1" * 5000}
CLAIMS: dict[str, Maker] = {
    **{f"no {name}": saying(**{name: None}) for name in ("exp", "iat", "sub", "iss", "aud")},
    **{f"{name} is {kind}": saying(**{name: value}) for name in ("exp", "iat", "nbf") for kind, value in TIMES.items()},
    **{
        f"{name} is {kind}": saying_raw(name, value)
        for name in ("exp", "iat", "nbf")
        for kind, value in RAW_TIMES.items()
    },
    "expired ten minutes ago": saying(iat=START_S - 1200, exp=START_S - 600),
    "issued in ten minutes": saying(iat=START_S + 600, exp=START_S + 1200),
    "not before ten minutes from now": saying(nbf=START_S + 600),
    "ends before it begins": saying(iat=START_S + 20, exp=START_S + 10),
    "good for more than a day": saying(exp=START_S + 86_401),
    **{
        f"aud is {aud}": saying(aud=aud)
        for aud in (
            "other",
            "Parley",
            "parley ",
            ["other"],
            ["parley", "other"],
            ["parley", ["x"]],
            [],
            [["parley"]],
            {"parley": 1},
            1,
        )
    },
    **{
        f"iss is {iss}": saying(iss=iss)
        for iss in ("", f"{ISSUER}/", ISSUER.upper(), "https://evil.example", [ISSUER], 1)
    },
    **{
        f"sub is {sub!r}": saying(sub=sub)
        for sub in (
            "",
            " ",
            "ann\n",
            "../ann",
            "änn",
            "a" * 129,
            "a" * 125,
            ":ann",
            "ann bob",
            "service:bot",
            7,
            ["ann"],
            True,
        )
    },
    **{f"{count} actors": saying(act=nested_actors(count)) for count in (5, 50)},
    "an actor without a name": saying(act={"iss": ISSUER}),
    "an actor that is no user id": saying(act={"sub": "bot\n"}),
    "an actor that is a text": saying(act="bot"),
    "an actor of another issuer": saying(act={"sub": "bot", "iss": "https://guests.example.org"}),
    "an actor of an actor that is none": saying(act={"sub": "bot", "act": []}),
    "an actor that is null": lambda: ec(json.dumps({**claims(), "act": None}).encode()),
    "a claim twice": lambda: ec(json.dumps(claims())[:-1].encode() + b', "sub": "bob"}'),
    "a claim twice, deep inside": lambda: ec(json.dumps(claims())[:-1].encode() + b', "x": {"a": 1, "a": 2}}'),
    "scopes that are a number": saying(scope=7),
    "claims that are a list": lambda: ec(json.dumps([claims()]).encode()),
    "claims in UTF-16": lambda: ec(json.dumps(claims()).encode("utf-16")),
    "claims behind a BOM": lambda: ec(b"\xef\xbb\xbf" + json.dumps(claims()).encode()),
    "claims that are no UTF-8": lambda: ec(json.dumps(claims(x="@")).encode().replace(b"@", b"\xff")),
    "lists 2500 deep": lambda: ec(raw_claims("x", b"[" * 2500 + b"]" * 2500)),
}
TEXTS: dict[str, Maker] = {
    "9 KiB": saying(x="x" * 6500),
    "15 KiB": saying(x="x" * 11_000),
    "two parts": lambda: ".".join(ec(claims()).split(".")[:2]),
    "four parts": lambda: ec(claims()) + ".e30",
    "five parts": lambda: ec(claims()) + ".e30.e30",
    "padding": put(2, lambda text: text + "=="),
    "padding in the middle": put(1, lambda text: text + "="),
    "a blank at the end": put(2, lambda text: text + " x"),
    "another letter for the same bytes": put(2, last_bits),
    "letters of the other base64": put(2, lambda text: "+/" + text[2:]),
    "a comma and another": lambda: f"{ec(claims())},{ec(claims())}",
    "an API key before it": lambda: f"parley_x_{ec(claims())}",
}
ALL = {**SIGNATURES, **HEADERS, **CLAIMS, **TEXTS}


@pytest.mark.parametrize("token", ALL.values(), ids=ALL.keys())
async def test_a_bad_token_is_told_like_any_other_bad_credential(place: Place, token: Maker) -> None:
    text = token()
    failure = await failed(place.chassis.get_run(metadata=bearer(text)))
    assert (failure.code, failure.reason) == (CODE.UNAUTHENTICATED, "CREDENTIALS_INVALID")
    assert failure.message == "missing or invalid credentials"
    check_words(failure, [text])


async def test_all_of_it_made_the_server_fetch_keys_hardly_ever(place: Place) -> None:
    """Once at first; an unknown key may make it ask again half a minute later, and the clock stands still."""
    assert (await place.chassis.get_run(metadata=bearer(ec(claims())))).run.agent_id == "okta:ann"
    assert place.jwks.asked == 1
