"""Making delegations: never more than their maker may do himself, never longer, and of known descent."""

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from parley_server.auth.api_key_provider import API_KEY
from parley_server.auth.delegated import THIS_SERVER, Delegation
from parley_server.auth.delegation import DELEGATION
from parley_server.auth.delegation_signer import DelegationSigner
from parley_server.domain.access_errors import (
    DelegationDisabledError,
    DelegationTooDeepError,
    ScopeMissingError,
    UserMismatchError,
)
from parley_server.domain.context import RequestContext
from parley_server.domain.identifiers import new_id
from parley_server.domain.principal import ADMIN_SCOPE, MAX_ACTORS

MAX_LIFETIME = timedelta(minutes=5)
_RESTS_ON_A_KEY = frozenset({API_KEY, DELEGATION})


@dataclass(frozen=True, slots=True)
class DelegationWish:
    """What a caller asks for: the user (empty: his call's), what it opens, for how long, and who is to read it.

    `audience` empty is this server.
    """

    user_id: str = ""
    scopes: frozenset[str] = frozenset()
    lifetime: timedelta = MAX_LIFETIME
    audience: str = ""


@dataclass(frozen=True, slots=True)
class HostCall:
    """The tool call that a token is for. `scopes` are what the operator lets its host do for users."""

    host: str
    run_id: str
    call_id: str
    lifetime_s: float
    scopes: frozenset[str] = frozenset()


class Delegations:
    """Makes tokens for callers and for tool hosts; `signer` signs them, and this server takes them if it `is_taker`."""

    def __init__(self, signer: DelegationSigner, *, is_taker: bool = True) -> None:
        self._signer = signer
        self._is_taker = is_taker

    def for_caller(self, context: RequestContext, wish: DelegationWish) -> tuple[str, Delegation]:
        """Make what a caller asks for; it ends with his own credential at the latest.

        Raises:
            UserMismatchError: he may not speak for the user.
            ScopeMissingError: he lacks a scope, or it is one that is never handed on.
            DelegationTooDeepError: as many act for the user already as may.
            DelegationDisabledError: it would be for this server, which takes none.
        """
        audience = wish.audience or THIS_SERVER
        if audience == THIS_SERVER and not self._is_taker:
            raise DelegationDisabledError
        context = _in_the_name_of(wish.user_id, context)
        for scope in sorted(context.lacks(wish.scopes) | ({ADMIN_SCOPE} & wish.scopes)):
            raise ScopeMissingError.of(scope, is_held=scope in context.principal.scopes)
        delegation = replace(
            # Whoever acts already hands it on; else it is the caller who lets somebody act for him.
            _delegation(context, (context.actor, *context.principal.actors), wish.lifetime),
            audiences=(audience,),
            scopes=wish.scopes,
        )
        return self._signer.sign(delegation), delegation

    def for_call(self, context: RequestContext, call: HostCall) -> str:
        """Make what proves to a host for whom it works; with scopes it opens this server too, as far as the run may.

        Raises:
            DelegationTooDeepError: the run is itself the work of a host that was called by the run of a host.
        """
        host = f"host:{call.host}"
        # Whole seconds, and never over before the call is.
        lifetime = timedelta(seconds=math.ceil(call.lifetime_s) + 1)
        delegation = replace(
            _delegation(context, (f"service:{host}", *context.actors), lifetime),
            audiences=(host,),
            run_id=call.run_id,
            call_id=call.call_id,
        )
        scopes = call.scopes - context.lacks(call.scopes) - {ADMIN_SCOPE}
        if scopes and self._is_taker and delegation.expire_time > delegation.issue_time:
            delegation = replace(delegation, audiences=(host, THIS_SERVER), scopes=scopes)
        else:
            # It says what is so, and opens nothing: for that no credential has to last.
            delegation = replace(delegation, expire_time=_end(delegation.issue_time, lifetime, None))
        return self._signer.sign(delegation)


def _in_the_name_of(user_id: str, context: RequestContext) -> RequestContext:
    """Return the context for a user whom the caller may speak for. Raises UserMismatchError."""
    if user_id in {"", context.user_id}:
        return context
    # A call that is in one user's name says nothing of another.
    if context.user_id != context.principal.own_user_id or not context.principal.may_act_as(user_id):
        raise UserMismatchError("user_id is not one this credential may speak for")
    return context.model_copy(update={"user_id": user_id})


def _delegation(context: RequestContext, chain: tuple[str, ...], lifetime: timedelta) -> Delegation:
    """Return one that opens nothing, to nobody yet, and ends with the caller's credential at the latest."""
    if len(chain) > MAX_ACTORS:
        raise DelegationTooDeepError(MAX_ACTORS)
    principal, now = context.principal, datetime.now(UTC).replace(microsecond=0)
    return Delegation(
        user_id=context.user_id,
        actors=chain,
        audiences=(),
        scopes=frozenset(),
        issue_time=now,
        expire_time=_end(now, lifetime, principal.expires_at),
        token_id=new_id("token"),
        credential_id=principal.credential_id if principal.method in _RESTS_ON_A_KEY else "",
    )


def _end(now: datetime, lifetime: timedelta, credential_end: datetime | None) -> datetime:
    end = now + min(lifetime, MAX_LIFETIME)
    return (end if credential_end is None else min(end, credential_end)).replace(microsecond=0)
