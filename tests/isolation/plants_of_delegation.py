"""Planted leaks of tokens and tool hosts: whom a host is told it works for, what a token opens, and when it ends."""

# ruff: noqa: ANN401  # plants take the place of functions of any kind

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from isolation.plant import Plant, remembering, replaced
from parley_server.auth import delegations
from parley_server.auth.credential_check import CredentialCheck
from parley_server.auth.delegated import Delegation
from parley_server.auth.delegation import DELEGATION, DelegationProvider
from parley_server.auth.delegation_signer import DelegationSigner
from parley_server.auth.delegations import Delegations
from parley_server.auth.remembered import Remembered
from parley_server.domain.context import RequestContext
from parley_server.domain.principal import ALL_SCOPES, Principal
from parley_server.rpc import auditor
from parley_server.rpc.interceptors.recheck import StreamCredential
from parley_server.tools.remote.host_caller import HostCaller
from parley_server.tools.tool import ToolContext

_NEVER = datetime(9999, 1, 1, tzinfo=UTC)
# All tokens have one header, and this is less than that.
_BEGINNING = 64


def _kept(key: Callable[..., object]) -> Callable[[Any], Any]:
    """Return what makes a function answer what it has answered under the same key."""

    def of(original: Any) -> Any:
        answers: dict[object, Any] = {}

        def leaky(*arguments: Any) -> Any:
            place = key(*arguments)
            if place not in answers:
                answers[place] = original(*arguments)
            return answers[place]

        return leaky

    return of


def _for_the_first(original: Any) -> Any:
    """Make all tokens for him who has had the host called first, as if the connection were his."""
    first: dict[str, RequestContext] = {}

    def leaky(self: Delegations, context: RequestContext, call: Any) -> str:
        token: str = original(self, first.setdefault(call.host, context), call)
        return token

    return leaky


def _told_of_the_first(original: Any) -> Any:
    """Send hosts the context that was written first, with tokens that are right."""

    def leaky(self: HostCaller, *arguments: Any) -> None:
        original(self, *arguments)
        self._codec = _kept(lambda _: 0)(self._codec)

    return leaky


def _answers_by_arguments(original: Callable[..., Awaitable[object]]) -> object:
    return remembering(original, lambda _self, tool, _context, arguments: (tool.name, repr(arguments)))


def _claims_of_delegates(original: Any) -> Any:
    return lambda self, user_id: self.method == DELEGATION or original(self, user_id)


def _first_actor_alone(original: Any) -> Any:
    return lambda context, chain, lifetime: original(context, chain[:1], lifetime)


def _as_if_he_had_all(original: Any) -> Any:
    def leaky(self: Delegations, context: RequestContext, wanted: Any) -> Any:
        principal: Principal = context.principal.model_copy(update={"scopes": ALL_SCOPES})
        return original(self, context.model_copy(update={"principal": principal}), wanted)

    return leaky


def _good_for_ever(original: Any) -> Any:
    def leaky(self: DelegationSigner, text: str) -> Delegation | None:
        found: Delegation | None = original(self, text)
        return found and replace(found, expire_time=_NEVER)

    return leaky


def _rests_on_nothing(_: Any) -> Any:
    async def leaky(_self: DelegationProvider, _delegation: Delegation) -> bool:
        return True

    return leaky


def _made_for_anybody(original: Any) -> Any:
    def leaky(user_id: str, context: RequestContext) -> RequestContext:
        if context.principal.method != DELEGATION:
            return context.model_copy(update={"user_id": user_id or context.user_id})
        found: RequestContext = original(user_id, context)
        return found

    return leaky


async def _let_in(*_: object) -> None:
    """Pass everybody."""


def _without_actors(original: Any) -> Any:
    return lambda *arguments, **named: replace(original(*arguments, **named), actors=())


PLANTS_OF_DELEGATION = (
    Plant(
        "host_token",
        "every call of a tool host has the token of the first one",
        replaced(Delegations, "for_call", _kept(lambda _self, _context, call: call.host)),
    ),
    Plant(
        "host_token_of_user",
        "a tool host's token is made once for each user, not for each call",
        replaced(Delegations, "for_call", _kept(lambda _self, context, call: (call.host, context.user_id))),
    ),
    Plant(
        "host_connection",
        "tool hosts get tokens of the user who was the first on their connection",
        replaced(Delegations, "for_call", _for_the_first),
    ),
    Plant(
        "host_context",
        "tool hosts are told of the user of the first call",
        replaced(HostCaller, "__init__", _told_of_the_first),
    ),
    Plant(
        "host_answers",
        "a tool host's answers are kept by the arguments",
        replaced(HostCaller, "call", _answers_by_arguments),
    ),
    Plant(
        "host_scopes",
        "a tool host's token opens what the run's caller may not do",
        replaced(Delegations, "for_call", _as_if_he_had_all),
    ),
    Plant(
        "host_echo",
        "the token that a tool host repeats is told to the model and the user",
        replaced(ToolContext, "conceal", lambda _: lambda _self, _secret: None),
    ),
    Plant(
        "token_scopes",
        "a token opens what its maker may not do",
        replaced(Delegations, "for_caller", _as_if_he_had_all),
    ),
    Plant(
        "token_for_anybody",
        "a key makes tokens for any user",
        replaced(delegations, "_in_the_name_of", _made_for_anybody),
    ),
    Plant(
        "token_claims",
        "who comes with a token is whoever he claims to be",
        replaced(Principal, "may_act_as", _claims_of_delegates),
    ),
    Plant(
        "token_actors",
        "a token names only the last of those who act for the user",
        replaced(delegations, "_delegation", _first_actor_alone),
    ),
    Plant(
        "token_cache",
        "tokens that were verified are remembered by how they begin",
        replaced(Remembered, "_digest", lambda digest: lambda self, secret: digest(self, secret[:_BEGINNING])),
    ),
    Plant(
        "token_audience",
        "a token that is for somebody else opens the server",
        replaced(Delegation, "opens_this_server", lambda _: True),
    ),
    Plant(
        "token_end",
        "a token opens the server beyond its end",
        replaced(DelegationSigner, "read", _good_for_ever),
    ),
    Plant(
        "token_life",
        "a token lives longer than the credential it is made with",
        replaced(delegations, "_end", lambda end: lambda now, lifetime, _: end(now, lifetime, None)),
    ),
    Plant(
        "token_key",
        "a token opens the server when the key it rests on is revoked",
        replaced(DelegationProvider, "_rests_on_something", _rests_on_nothing),
    ),
    Plant(
        "token_forgotten",
        "the tokens that were verified are not forgotten when their key is revoked",
        replaced(DelegationProvider, "forget", lambda _: lambda _self, _credential_id: None),
    ),
    Plant(
        "stream_credential",
        "streams go on when the key that they were opened with is revoked",
        replaced(StreamCredential, "check", lambda _: _let_in),
    ),
    Plant(
        "write_credential",
        "runs go on to change things when the key that they were begun with is revoked",
        replaced(CredentialCheck, "require", lambda _: _let_in),
    ),
    Plant(
        "audit_actors",
        "the audit log leaves out who acts for the user",
        replaced(auditor, "_entry_of", _without_actors),
    ),
)
