"""What a call passes once its caller is known: whom it is for, the access policy, limits, and the user's account."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from parley_server.accounts.cache import AccountCache
from parley_server.auth.policy import Rule
from parley_server.domain.account import AccountDefaults
from parley_server.domain.context import ContextClaim, RequestContext
from parley_server.domain.principal import SERVICE_SCOPES, USER_SCOPES, Principal, PrincipalKind
from parley_server.domain.quota import QuotaLimits, QuotaRule
from parley_server.quotas.quotas import Quotas

# More than anybody here makes in a minute.
_PLENTY = 100_000_000
_ANN = Principal(kind=PrincipalKind.USER, subject="ann", scopes=USER_SCOPES, method="api_key", credential_id="key")
_BOT = Principal(kind=PrincipalKind.SERVICE, subject="bot", scopes=SERVICE_SCOPES, act_as=("tg:*",), method="api_key")
_CLAIM = ContextClaim(timestamp=datetime.now(UTC), time_zone="Europe/Berlin", locale="de-DE")


@dataclass(frozen=True)
class Check:
    """One thing that is done for every call."""

    name: str
    run: Callable[[], object]

    def took_us(self, calls: int) -> float:
        """Return the microseconds of CPU of one call."""
        before = time.process_time()
        for _ in range(calls):
            self.run()
        return (time.process_time() - before) / calls * 1e6


class NoAccounts:
    """A directory in which nobody has anything set."""

    async def defaults_of(self, user_id: str) -> AccountDefaults:  # noqa: ARG002  # the interface's
        """Return nothing."""
        return AccountDefaults()


async def checks() -> Sequence[Check]:
    """Return the checks, each as a server does it."""
    own, other = RequestContext.from_claim(_CLAIM, _ANN), ContextClaim(user_id="tg:7", timestamp=datetime.now(UTC))
    acting = RequestContext.from_claim(other, _BOT)
    rule = Rule("runs:read")
    accounts = AccountCache(NoAccounts())
    await accounts.find(own.user_id)
    return (
        Check("context of a user", lambda: RequestContext.from_claim(_CLAIM, _ANN)),
        Check("context of a service for a user", lambda: RequestContext.from_claim(other, _BOT)),
        Check("policy, a user", lambda: rule.check(own)),
        Check("policy, a service for a user", lambda: rule.check(acting)),
        Check("account, known", lambda: accounts.recall(own.user_id)),
        *(_counting(rules, own) for rules in (0, 1, 5)),
    )


def _counting(rules: int, context: RequestContext) -> Check:
    limits = QuotaLimits(requests_per_minute=_PLENTY)
    quotas = Quotas([QuotaRule(f"rule{number}", limits, users=("*",)) for number in range(rules)])
    return Check(f"requests under {rules} limits", lambda: quotas.count_request(context))
