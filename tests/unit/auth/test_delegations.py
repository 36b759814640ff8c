"""Delegations: what every chain of them keeps to, and what a token that was touched is worth."""

import random
from base64 import urlsafe_b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parley_server.auth.delegated import THIS_SERVER, Delegation
from parley_server.auth.delegation import DelegationProvider
from parley_server.auth.delegation_signer import MAX_TOKEN_CHARS, DelegationSigner
from parley_server.auth.delegations import MAX_LIFETIME, Delegations, DelegationWish, HostCall
from parley_server.auth.provider import NOT_MINE, Credentials
from parley_server.domain.access_errors import CredentialsInvalidError, DelegationTooDeepError, ScopeMissingError
from parley_server.domain.api_key import ApiKey, StoredKey
from parley_server.domain.context import ContextClaim, RequestContext
from parley_server.domain.principal import ALL_SCOPES, ALL_TOOLS_SCOPE, MAX_ACTORS, Principal, PrincipalKind

SIGNER = DelegationSigner(b"k" * 32)
DELEGATIONS = Delegations(SIGNER)
NOW = datetime(2026, 11, 22, tzinfo=UTC)
SOME = Delegation(
    user_id="ann",
    actors=("service:host:weather", "service:web"),
    audiences=("host:weather", THIS_SERVER),
    scopes=frozenset({"runs:read", "runs:write"}),
    issue_time=NOW,
    expire_time=NOW + MAX_LIFETIME,
    token_id="token_1",
    credential_id="key",
    run_id="run_1",
    call_id="call_1",
)
_scopes = st.frozensets(st.sampled_from(sorted(ALL_SCOPES | {"tool:refunds", "tool:mail"})))
_spans = st.integers(1, 400).map(lambda seconds: timedelta(seconds=seconds))
_hops = st.lists(st.tuples(st.booleans(), _scopes, _spans), min_size=1, max_size=MAX_ACTORS + 1)


class OneKey:
    """A store of one key that is good."""

    async def find(self, key_id: str) -> StoredKey | None:
        key = ApiKey(key_id, PrincipalKind.SERVICE, "web", ALL_SCOPES, ("*",), NOW)
        return StoredKey(key, bytes(32)) if key_id == "key" else None


async def caller_by(token: str) -> RequestContext | None:
    """Return the context of a call with this token; None when it does not open this server."""
    provider = DelegationProvider(OneKey(), b"k" * 32)
    try:
        principal = await provider.authenticate(Credentials(f"Bearer {token}", lambda: "ipv4:10.0.0.1:1"))
    except CredentialsInvalidError:
        return None
    assert isinstance(principal, Principal)
    return RequestContext.from_claim(ContextClaim(), principal)


@settings(deadline=None)
@given(_scopes, st.booleans(), _hops)
async def test_scopes_never_grow_and_the_end_never_moves_out(
    own: frozenset[str], has_all_tools: bool, hops: list[tuple[bool, frozenset[str], timedelta]]
) -> None:
    """However tokens for callers and for hosts follow one another, each opens no more than what it was made with."""
    held = own | {ALL_TOOLS_SCOPE} if has_all_tools else own
    end = datetime.now(UTC) + timedelta(seconds=200)
    web = Principal(
        kind=PrincipalKind.SERVICE,
        subject="web",
        scopes=held,
        act_as=("*",),
        method="api_key",
        credential_id="key",
        expires_at=end,
    )
    context = RequestContext.from_claim(ContextClaim(user_id="ann"), web)
    for is_for_host, wanted, lifetime in hops:
        try:
            if is_for_host:
                call = HostCall("weather", "run_1", "call_1", lifetime.total_seconds(), wanted)
                token = DELEGATIONS.for_call(context, call)
            else:
                token, _ = DELEGATIONS.for_caller(context, DelegationWish(scopes=wanted, lifetime=lifetime))
        except ScopeMissingError:
            assert context.lacks(wanted) or "admin" in wanted
            return
        except DelegationTooDeepError:
            assert len(context.actors) >= MAX_ACTORS
            return
        made = SIGNER.read(token)
        assert made is not None
        assert not context.lacks(made.scopes)
        assert "admin" not in made.scopes
        assert made.scopes <= wanted
        assert made.user_id == "ann"
        assert made.credential_id == "key"
        assert made.actors[1:] == context.actors or made.actors[1:] == context.principal.actors
        assert len(made.actors) <= MAX_ACTORS
        assert made.expire_time - made.issue_time <= MAX_LIFETIME
        if not made.opens_this_server:
            assert await caller_by(token) is None
            return
        assert made.expire_time <= end
        held_before = context.scopes
        context = await caller_by(token) or context
        assert context.scopes <= held_before or ALL_TOOLS_SCOPE in held_before
        end = made.expire_time


def test_a_delegation_is_read_as_it_was_signed() -> None:
    assert SIGNER.read(SIGNER.sign(SOME)) == SOME
    plain = replace(SOME, credential_id="", run_id="", call_id="", scopes=frozenset())
    assert SIGNER.read(SIGNER.sign(plain)) == plain


def test_replicas_with_one_hash_key_agree_and_others_do_not() -> None:
    token = SIGNER.sign(SOME)
    assert DelegationSigner(b"k" * 32).read(token) == SOME
    other = DelegationSigner(b"x" * 32)
    assert not other.is_ours(token)
    assert other.read(token) is None
    assert other.public_key != SIGNER.public_key


def test_no_token_that_was_touched_is_read() -> None:
    """Every character replaced, left out and doubled, and some thousand changes at random."""
    token = SIGNER.sign(SOME)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n"
    chance = random.Random(1)
    for place, letter in enumerate(token):
        others = [chance.choice(letters.replace(letter, "")), chr(ord(letter) ^ 1)]
        # The last one has bits that count for nothing, so that other letters stand for the same bytes.
        others += [each for each in letters if each != letter] if place == len(token) - 1 else []
        for other in (*others, "", letter * 2):
            assert SIGNER.read(token[:place] + other + token[place + 1 :]) is None
    for _ in range(2000):
        cut, end = sorted(chance.sample(range(len(token)), 2))
        junk = "".join(chance.choices(letters, k=chance.randrange(20)))
        mutated = token[:cut] + junk + token[end:]
        assert mutated == token or SIGNER.read(mutated) is None


@pytest.mark.parametrize("ending", ["", "=", ".", " ", "\n", "\0", ".x", "x" * MAX_TOKEN_CHARS])
def test_nothing_may_be_put_behind_a_token(ending: str) -> None:
    token = SIGNER.sign(SOME)
    assert (SIGNER.read(token + ending) == SOME) == (not ending)


@pytest.mark.parametrize(
    "claims",
    [
        '{"iss":"parley"}',
        '{"iss":"parley","sub":"","act":{"sub":"service:web"},"aud":["parley"],"scope":"","iat":0,"exp":1,"jti":"x"}',
        '{"iss":"other","sub":"ann","act":{"sub":"service:web"},"aud":["parley"],"scope":"","iat":0,"exp":1,"jti":"x"}',
        '{"iss":"parley","sub":"ann","aud":["parley"],"scope":"","iat":0,"exp":1,"jti":"x"}',
        '{"iss":"parley","sub":"ann","act":{"sub":"service:web"},"aud":"parley","scope":"","iat":0,"exp":1,"jti":"x"}',
        '{"iss":"parley","sub":"ann","act":{"sub":"service:web"},"aud":["parley"],"scope":"","iat":0,"exp":9e99,"jti":"x"}',
        '{"iss":"parley","sub":"ann","act":{"sub":"service:web"},"aud":["parley"],"scope":"","iat":0,"exp":1e300,"jti":"x"}',
        '{"iss":"parley","sub":"ann","act":{"sub":"service:web"},"aud":["parley"],"scope":"","iat":0,"exp":"1","jti":"x"}',
        '{"iss":"parley","sub":"ann","act":{"sub":"service:web"},"aud":["parley"],"scope":"","iat":0,"exp":1,"jti":"x","x":1}',
        '{"iss":"parley","sub":"ann","act":' + '{"sub":"service:web","act":' * 4 + '{"sub":"service:web"}' + "}" * 4
        + ',"aud":["parley"],"scope":"","iat":0,"exp":1,"jti":"x"}',
        "[]",
        "",
    ],
)  # fmt: skip
def test_claims_that_this_server_does_not_write_are_none_even_when_signed(claims: str) -> None:
    assert Delegation.from_claims(claims) is None


@pytest.mark.parametrize(
    "header",
    ['{"alg":"none"}', '{"alg":"HS256","typ":"JWT"}', '{"alg":"EdDSA","kid":"../../x"}', '{"alg":"EdDSA","jku":"x"}'],
)
async def test_a_token_with_another_header_is_for_other_providers(header: str) -> None:
    _, claims, signature = SIGNER.sign(SOME).split(".")
    text = urlsafe_b64encode(header.encode()).rstrip(b"=").decode()
    provider = DelegationProvider(OneKey(), b"k" * 32)
    credentials = Credentials(f"Bearer {text}.{claims}.{signature}", lambda: "ipv4:10.0.0.1:1")
    assert await provider.authenticate(credentials) is NOT_MINE


async def test_a_token_that_is_over_is_known_and_opens_nothing() -> None:
    now = datetime.now(UTC)
    over = replace(SOME, issue_time=now - MAX_LIFETIME, expire_time=now.replace(microsecond=0))
    assert await caller_by(SIGNER.sign(over)) is None
    assert await caller_by(SIGNER.sign(replace(over, expire_time=over.expire_time + timedelta(seconds=60)))) is not None


def test_a_host_gets_no_more_than_its_runs_caller_has_and_only_while_he_has_it() -> None:
    ann = Principal(
        kind=PrincipalKind.USER,
        subject="ann",
        scopes=frozenset({"runs:read", "admin"}),
        method="jwt",
        expires_at=datetime.now(UTC) + timedelta(seconds=10),
    )
    call = HostCall("weather", "run_1", "call_1", 60.0, frozenset({"runs:read", "runs:write", "admin"}))
    made = SIGNER.read(DELEGATIONS.for_call(RequestContext.from_claim(ContextClaim(), ann), call))
    assert made is not None
    assert (made.audiences, made.scopes) == (("host:weather", THIS_SERVER), frozenset({"runs:read"}))
    assert ann.expires_at is not None
    assert made.expire_time <= ann.expires_at
    over = ann.model_copy(update={"expires_at": datetime.now(UTC) - timedelta(seconds=1)})
    proof = SIGNER.read(DELEGATIONS.for_call(RequestContext.from_claim(ContextClaim(), over), call))
    assert proof is not None
    assert (proof.audiences, proof.scopes, proof.actors) == (("host:weather",), frozenset(), ("service:host:weather",))
    assert proof.expire_time > datetime.now(UTC)
