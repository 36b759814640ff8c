"""Provider `jwt` by itself: what its settings make of a token, and what it remembers."""

import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from parley_server.auth.api_key import PresentedKey
from parley_server.auth.api_key_provider import ApiKeyProvider
from parley_server.auth.factory import AuthChain
from parley_server.auth.jwt_provider import JwtProvider
from parley_server.auth.jwt_settings import IssuerSettings
from parley_server.auth.local import LocalProvider
from parley_server.auth.provider import NOT_MINE, Credentials
from parley_server.domain.access_errors import AuthRateLimitedError, AuthUnavailableError, CredentialsInvalidError
from parley_server.domain.errors import StartError
from parley_server.domain.principal import MAX_ACTORS, SERVICE_SCOPES, USER_SCOPES, Principal, PrincipalKind
from rpc.chassis import Keys
from token_issuer import AUDIENCE, HASH_KEY, ISSUER, START_S, Clock, JwksServer, SigningKey, jwks_server, settings_of
from token_issuer import provider_of as jwt_provider

KEY = SigningKey.make("key")
CLOCK = Clock()
LOOPBACK = "ipv4:127.0.0.1:1"


@pytest.fixture(scope="module")
async def jwks() -> AsyncIterator[JwksServer]:
    async with jwks_server(KEY) as server:
        yield server


def presenting(text: str) -> Credentials:
    return Credentials(f"Bearer {text}", lambda: LOOPBACK)


async def principal(jwks: JwksServer, settings: Mapping[str, object], **claims: object) -> Principal:
    found = await jwt_provider(settings_of(jwks, **settings), CLOCK).authenticate(
        presenting(KEY.token(CLOCK.claims(**claims)))
    )
    assert isinstance(found, Principal)
    return found


async def test_a_user_is_his_subject_behind_the_issuers_prefix_until_his_token_ends(jwks: JwksServer) -> None:
    ann = await principal(jwks, {})
    assert (ann.kind, ann.subject, ann.credential_id) == (PrincipalKind.USER, "okta:ann", "jwt:okta:ann")
    assert (ann.method, ann.act_as, ann.scopes) == ("jwt", (), frozenset({"runs:read"}))
    assert ann.expires_at == datetime.fromtimestamp(START_S + 3600 + 30, UTC)
    assert (await principal(jwks, {"prefix": None})).subject == "staff:ann"
    assert (await principal(jwks, {"prefix": ""})).subject == "ann"


async def test_no_subject_has_the_id_of_a_key_or_of_another_credential(jwks: JwksServer) -> None:
    ids = [
        (await principal(jwks, {"prefix": ""}, sub=subject)).credential_id
        for subject in (PresentedKey.mint().key_id, "spiffe:a", "sha256:a", "a" * 127, "a" * 128)
    ]
    assert len(set(ids)) == 5
    assert all(each.startswith(("jwt:", "sha256:")) and len(each) <= 128 for each in ids)
    assert "sha256:a" not in ids


@pytest.mark.parametrize("kind", ["user", "service"])
async def test_nobody_is_by_a_token_what_is_a_services_own(jwks: JwksServer, kind: str) -> None:
    for prefix, subject in (("", "service:bot"), ("ser", "vice:bot")):
        with pytest.raises(CredentialsInvalidError):
            await principal(jwks, {"prefix": prefix, "kind": kind}, sub=subject)


async def test_a_service_may_speak_for_whom_the_operator_says_and_not_its_token(jwks: JwksServer) -> None:
    bot = await principal(jwks, {"kind": "service", "act_as": ["telegram:*"]}, act_as=["*"], scope="runs:read admin")
    assert (bot.kind, bot.act_as, bot.scopes) == (PrincipalKind.SERVICE, ("telegram:*",), frozenset({"runs:read"}))


async def test_who_acts_for_the_subject_is_told_the_present_one_first(jwks: JwksServer) -> None:
    ann = await principal(jwks, {}, act={"sub": "bot", "iss": ISSUER, "act": {"sub": "portal", "client_id": "x"}})
    assert (ann.name, ann.actors) == ("user:okta:ann", ("service:okta:bot", "service:okta:portal"))
    four = {"sub": "a", "act": {"sub": "b", "act": {"sub": "c", "act": {"sub": "d"}}}}
    assert len((await principal(jwks, {}, act=four)).actors) == MAX_ACTORS == 4
    with pytest.raises(CredentialsInvalidError):
        await principal(jwks, {"kind": "service"}, act={"sub": "bot"})


@pytest.mark.parametrize(
    ("said", "scopes"),
    [
        ("runs:read runs:write", {"runs:read", "runs:write"}),
        (["runs:read", "tool:refunds", 7, None], {"runs:read", "tool:refunds"}),
        ("admin tool:other tool:* * openid", set()),
        ("", set()),
        (None, set()),
    ],
)
async def test_a_token_gives_of_the_allowed_scopes_those_it_names(
    jwks: JwksServer, said: object, scopes: set[str]
) -> None:
    allowed = {"scopes": ["runs:read", "runs:write", "tool:refunds"]}
    assert (await principal(jwks, allowed, scope=said)).scopes == scopes


async def test_an_issuer_that_knows_no_scopes_gives_all_that_are_allowed(jwks: JwksServer) -> None:
    assert (await principal(jwks, {"scope_claim": ""}, scope="x")).scopes == USER_SCOPES
    assert (await principal(jwks, {"scope_claim": "", "kind": "service"})).scopes == SERVICE_SCOPES
    assert (await principal(jwks, {"scope_claim": "", "scopes": ["admin"]})).scopes == {"admin"}
    assert (await principal(jwks, {"scope_claim": "scp"}, scp=["runs:write"])).scopes == {"runs:write"}


async def test_another_claim_may_name_the_caller(jwks: JwksServer) -> None:
    settings: dict[str, object] = {"subject_claim": "oid"}
    assert (await principal(jwks, settings, sub="auth0|7", oid="ann-7")).subject == "okta:ann-7"
    for wrong in (None, "", 7, "a|b"):
        with pytest.raises(CredentialsInvalidError):
            await principal(jwks, settings, oid=wrong)


async def test_further_audiences_and_types_are_good_where_they_are_allowed(jwks: JwksServer) -> None:
    settings: dict[str, object] = {"other_audiences": ["account"], "typ": ["absent"]}
    provider = jwt_provider(settings_of(jwks, **settings), CLOCK)
    header = {"alg": "ES256", "kid": "key"}
    good = KEY.token(CLOCK.claims(aud=[AUDIENCE, "account"]), header)
    assert isinstance(await provider.authenticate(presenting(good)), Principal)
    for bad in (KEY.token(CLOCK.claims(aud="account"), header), KEY.token(CLOCK.claims())):
        with pytest.raises(CredentialsInvalidError):
            await provider.authenticate(presenting(bad))


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer parley_x_y_z", "Basic eyJ.e30.e30", "Bearer a.b.c"]
)
async def test_what_is_no_token_is_somebody_elses_to_judge(jwks: JwksServer, authorization: str | None) -> None:
    provider = jwt_provider(settings_of(jwks), CLOCK)
    sent = Credentials(authorization, lambda: LOOPBACK)
    assert await provider.authenticate(sent) is NOT_MINE
    assert provider.recall(sent) is None
    assert not provider.knows(sent)


async def test_a_token_is_remembered_for_a_minute_and_no_other_is(jwks: JwksServer) -> None:
    clock = Clock()
    provider = jwt_provider(settings_of(jwks), clock)
    text = KEY.token(clock.claims())
    assert provider.recall(presenting(text)) is None
    found = await provider.authenticate(presenting(text))
    assert provider.recall(presenting(text)) == found
    assert provider.recall(presenting(text[:-1] + ("A" if text[-1] != "A" else "B"))) is None
    clock.passed_s = 61
    assert provider.recall(presenting(text)) is None
    assert provider.knows(presenting(text))


async def test_a_refused_token_is_known_no_longer(jwks: JwksServer) -> None:
    clock = Clock()
    provider = jwt_provider(settings_of(jwks), clock)
    text = KEY.token(clock.claims())
    await provider.authenticate(presenting(text))
    clock.passed_s = 4000
    with pytest.raises(CredentialsInvalidError):
        await provider.authenticate(presenting(text))
    assert not provider.knows(presenting(text))


async def test_who_sends_bad_tokens_is_looked_at_no_more_and_a_good_one_goes_on(jwks: JwksServer) -> None:
    chain = AuthChain([jwt_provider(settings_of(jwks), CLOCK)], max_failures_per_minute=1)
    good = KEY.token(CLOCK.claims())
    assert (await chain.authenticate(presenting(good))).subject == "okta:ann"
    for _ in range(10):
        with pytest.raises(CredentialsInvalidError):
            await chain.authenticate(presenting(KEY.token(CLOCK.claims(aud="other"))))
    with pytest.raises(AuthRateLimitedError):
        await chain.authenticate(presenting(KEY.token(CLOCK.claims(sub="bob"))))
    assert (await chain.authenticate(presenting(good))).subject == "okta:ann"


async def test_who_cannot_be_decided_on_is_no_guess_and_falls_to_nobody_else() -> None:
    async with jwks_server() as jwks:
        jwks.status = 500
        provider = jwt_provider(settings_of(jwks), CLOCK)
        chain = AuthChain([provider, ApiKeyProvider(Keys(), HASH_KEY), LocalProvider()], max_failures_per_minute=1)
        for _ in range(30):
            with pytest.raises(AuthUnavailableError):
                await chain.authenticate(presenting(KEY.token(CLOCK.claims())))


def file_settings(path: Path) -> IssuerSettings:
    return IssuerSettings(issuer=ISSUER, audience=AUDIENCE, jwks_file=path, algorithms=("ES256",))


async def test_keys_can_stand_in_a_file_and_change_there(tmp_path: Path) -> None:
    path, clock, new = tmp_path / "jwks.json", Clock(), SigningKey.make("new")
    path.write_text(json.dumps({"keys": [KEY.jwk]}))
    provider = jwt_provider(file_settings(path), clock)
    assert isinstance(await provider.authenticate(presenting(KEY.token(clock.claims()))), Principal)
    path.write_text(json.dumps({"keys": [new.jwk]}))
    provider.forget_all()
    assert isinstance(await provider.authenticate(presenting(new.token(clock.claims()))), Principal)
    path.unlink()
    clock.passed_s += 3600
    assert isinstance(await provider.authenticate(presenting(new.token(clock.claims()))), Principal)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("", "it is no JSON object"),
        ('{"keys": []}', "holds no public key for ES256"),
        (json.dumps({"keys": [SigningKey.make("rsa", "RS256").jwk]}), "holds no public key for ES256"),
    ],
)
def test_a_file_without_keys_keeps_the_server_from_starting(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "jwks.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(StartError, match=rf"\[issuers.staff\] jwks_file: .*{words}"):
        JwtProvider({"staff": file_settings(path)}, HASH_KEY)
