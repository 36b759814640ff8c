"""The chain of providers, the local provider, and the access rules."""

import getpass
from collections.abc import Callable

import pytest
from parley_server.auth.auth_settings import Admission, AuthSettings
from parley_server.auth.factory import AuthChain, ProviderParts, build_auth_chain
from parley_server.auth.local import LocalProvider, operating_system_user
from parley_server.auth.policy import AccessPolicy, MethodWithoutRuleError, Rule
from parley_server.auth.provider import NOT_MINE, AuthProvider, Credentials, NotMine
from parley_server.domain.access_errors import (
    AuthUnavailableError,
    CredentialsInvalidError,
    PrincipalNotAllowedError,
    ScopeMissingError,
)
from parley_server.domain.api_key import StoredKey
from parley_server.domain.context import ContextClaim, RequestContext
from parley_server.domain.errors import StorageUnavailableError
from parley_server.domain.principal import ALL_SCOPES, Principal, PrincipalKind, is_user_id, missing_scopes

ANN = Principal(kind=PrincipalKind.USER, subject="ann", method="test", scopes=frozenset({"runs:read"}))
LOOPBACK = "ipv4:127.0.0.1:40000"


class Scripted(AuthProvider):
    """Answers every call alike."""

    def __init__(self, verdict: Principal | NotMine | Exception | None) -> None:
        self.asked = 0
        self.forgotten: list[str] = []
        self._verdict = verdict

    async def authenticate(self, credentials: Credentials) -> Principal | NotMine:
        assert credentials.authorization == "x"
        self.asked += 1
        if isinstance(self._verdict, Exception):
            raise self._verdict
        return self._verdict  # type: ignore[return-value]  # what a faulty one does

    def forget(self, credential_id: str) -> None:
        self.forgotten.append(credential_id)


def credentials(authorization: str | None = "x", peer: str = LOOPBACK) -> Credentials:
    return Credentials(authorization, lambda: peer)


async def test_the_first_who_knows_the_kind_decides() -> None:
    providers = [Scripted(NOT_MINE), Scripted(ANN), Scripted(CredentialsInvalidError())]
    assert await AuthChain(providers).authenticate(credentials()) == ANN
    assert [provider.asked for provider in providers] == [1, 1, 0]


async def test_a_refusal_is_final() -> None:
    providers = [Scripted(CredentialsInvalidError()), Scripted(ANN)]
    with pytest.raises(CredentialsInvalidError):
        await AuthChain(providers).authenticate(credentials())
    assert providers[1].asked == 0


@pytest.mark.parametrize("providers", [[], [Scripted(NOT_MINE)]])
async def test_nobody_is_let_in_whom_nobody_knows(providers: list[AuthProvider]) -> None:
    with pytest.raises(CredentialsInvalidError):
        await AuthChain(providers).authenticate(credentials())


@pytest.mark.parametrize(
    "error", [StorageUnavailableError(), TimeoutError(), ValueError("secret"), AuthUnavailableError(""), None]
)
async def test_who_cannot_decide_lets_nobody_in_and_nobody_else_is_asked(error: Exception | None) -> None:
    after = Scripted(ANN)
    with pytest.raises(AuthUnavailableError) as unavailable:
        await AuthChain([Scripted(error), after]).authenticate(credentials())
    assert after.asked == 0
    assert "secret" not in str(unavailable.value)


def test_all_providers_forget() -> None:
    providers = [Scripted(NOT_MINE), Scripted(NOT_MINE)]
    AuthChain(providers).forget("key")
    assert [provider.forgotten for provider in providers] == [["key"], ["key"]]


class NoKeys:
    """A store without keys."""

    async def find(self, key_id: str) -> StoredKey | None:
        assert key_id
        return None


@pytest.mark.parametrize(
    ("settings", "listens_locally", "types"),
    [
        (AuthSettings(), True, ("api_key", "delegation", "local")),
        (AuthSettings(), False, ("api_key", "delegation")),
        (AuthSettings(local=False), True, ("api_key", "delegation")),
    ],
)
async def test_the_providers_of_a_listener(
    settings: AuthSettings, listens_locally: bool, types: tuple[str, ...]
) -> None:
    admission = Admission(settings, {}, {}, listens_locally=listens_locally, asks_for_certificates=False)
    assert admission.provider_types == types
    chain = build_auth_chain(types, ProviderParts(NoKeys(), b"k" * 32))
    if "local" in types:
        assert (await chain.authenticate(credentials(None))).method == "local"
    else:
        with pytest.raises(CredentialsInvalidError):
            await chain.authenticate(credentials(None))


@pytest.mark.parametrize(
    "peer",
    [
        LOOPBACK,
        "ipv4:127.255.255.254:1",
        "ipv6:%5B::1%5D:40000",
        "ipv6:[::1]:40000",
        "ipv6:%5B::ffff:127.0.0.1%5D:1",
        "unix:",
        "unix:/run/parley.sock",
        "unix-abstract:parley",
    ],
)
async def test_callers_of_this_machine_are_the_operating_systems_user(peer: str) -> None:
    principal = await LocalProvider().authenticate(credentials(None, peer))
    assert isinstance(principal, Principal)
    assert (principal.kind, principal.subject) == (PrincipalKind.USER, operating_system_user())
    assert principal.scopes > ALL_SCOPES
    assert not missing_scopes([*ALL_SCOPES, "tool:refunds"], principal.scopes)


@pytest.mark.parametrize(
    "peer",
    [
        "ipv4:10.0.0.1:1",
        "ipv4:128.0.0.1:1",
        "ipv6:%5B2001:db8::1%5D:1",
        "ipv6:%5B::ffff:10.0.0.1%5D:1",
        "ipv6:x",
        "",
        "dns:127.0.0.1",
    ],
)
async def test_callers_from_afar_are_not_its_own(peer: str) -> None:
    assert await LocalProvider().authenticate(credentials(None, peer)) is NOT_MINE


@pytest.mark.parametrize("authorization", ["", "Bearer x", "Basic eA=="])
async def test_who_sends_a_credential_is_never_the_local_user(authorization: str) -> None:
    assert await LocalProvider().authenticate(credentials(authorization)) is NOT_MINE


def test_the_operating_systems_user_is_not_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    before = operating_system_user()
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(variable, "somebody-else")
    assert getpass.getuser() == "somebody-else"
    assert operating_system_user() == before
    assert is_user_id(before)


@pytest.mark.parametrize(
    ("login", "subject"),
    [
        ("ann", "ann"),
        ("DOMAIN\\ann", "DOMAIN-ann"),
        ("änn", "nn"),
        ("_daemon", "daemon"),
        ("---", "local"),
        ("a" * 200, "a" * 128),
    ],
)
def test_login_names_are_fitted_to_the_grammar(login: str, subject: str, monkeypatch: pytest.MonkeyPatch) -> None:
    named: Callable[[], str] = lambda: login  # noqa: E731  # one word
    monkeypatch.setattr("parley_server.auth.local._login_name", named)
    assert operating_system_user() == subject


def context_of(principal: Principal) -> RequestContext:
    return RequestContext.from_claim(ContextClaim(), principal)


def test_a_rule_asks_for_its_scope_and_one_without_for_none() -> None:
    ann = context_of(ANN)
    Rule("runs:read").check(ann)
    Rule().check(ann)
    with pytest.raises(ScopeMissingError) as missing:
        Rule("runs:write").check(ann)
    assert missing.value.metadata == {"scope": "runs:write"}


def test_a_rule_for_one_kind_of_caller_refuses_the_other_whatever_he_holds() -> None:
    bot = Principal(kind=PrincipalKind.SERVICE, subject="bot", method="test", scopes=ALL_SCOPES)
    Rule("runs:read", PrincipalKind.USER).check(context_of(ANN))
    Rule(principal_kind=PrincipalKind.SERVICE).check(context_of(bot))
    for rule, caller in ((Rule("runs:read", PrincipalKind.SERVICE), ANN), (Rule("", PrincipalKind.USER), bot)):
        with pytest.raises(PrincipalNotAllowedError) as refused:
            rule.check(context_of(caller))
        assert refused.value.metadata == {"principal_kind": str(rule.principal_kind)}


def test_what_has_no_rule_is_nobodys() -> None:
    policy = AccessPolicy({"/a": Rule("admin")})
    assert policy.rule_for("/a") == Rule("admin")
    with pytest.raises(MethodWithoutRuleError):
        policy.rule_for("/b")
