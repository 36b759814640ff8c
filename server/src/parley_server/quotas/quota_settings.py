"""The limits of the settings: the `[quotas]` and `[quota_rules.NAME]` tables."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from parley_server.domain.name_list import Patterns
from parley_server.domain.quota import QuotaLimits, QuotaRule

_PLACES = 6
_MAX_COST = 1_000_000_000

_Rate = Annotated[int, Field(ge=1, le=1_000_000)]
_Runs = Annotated[int, Field(ge=0, le=1_000_000)]
_Tokens = Annotated[int, Field(ge=0, le=2**40)]
_Cost = Annotated[
    Decimal,
    Field(ge=0, le=_MAX_COST, decimal_places=_PLACES, allow_inf_nan=False),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": _MAX_COST}),
]


class LimitSettings(BaseModel):
    """`[quotas.each_user]`: what each of them may use. What is not set is not limited."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_minute: _Rate | None = None
    """How many calls of any rpc. They are counted by this process and in memory."""

    request_burst: _Rate | None = None
    """How many of them may come at once; not set: as many as a minute has."""

    concurrent_runs: _Runs | None = None
    """How many runs may be unfinished at once: those at work, those that wait their turn and those that wait for an
    approval."""

    tokens_per_minute: _Tokens | None = None
    """How many tokens calls of models may use in any 60 seconds, those sent and those made. Before a call its tokens
    are estimated, afterwards they are counted."""

    cost_per_day: _Cost | None = None
    """What calls of models may cost in a day (UTC), in the currency of the prices. Models without a price cost
    nothing."""

    cost_per_month: _Cost | None = None
    """The same for a calendar month (UTC)."""

    def limits(self) -> QuotaLimits:
        """Return the limits."""
        return QuotaLimits(
            self.requests_per_minute,
            self.request_burst,
            self.concurrent_runs,
            self.tokens_per_minute,
            _micros(self.cost_per_day),
            _micros(self.cost_per_month),
        )


class QuotaSettings(BaseModel):
    """`[quotas]`: what everybody may use. Nothing is limited by default.

    All limits that are for a call hold together, whoever set them: the strictest wins.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    each_user: LimitSettings = LimitSettings()
    """What each user may use, by whichever key or service."""

    each_service: LimitSettings = LimitSettings()
    """What each service may use, for all the users it acts for together."""


class QuotaRuleSettings(LimitSettings):
    """`[quota_rules.NAME]`: limits for some, under any name.

    Each user, service and key that fits one of the patterns is counted alone. A rule that lists none of the three is
    for the use of all callers together. Entries may end in `*`, which stands for any end.
    """

    users: Patterns = ()
    """Users, by their ids."""

    services: Patterns = ()
    """Services, by their ids."""

    keys: Patterns = ()
    """API keys, by their ids."""

    models: Patterns = ()
    """Models, by their names: only their use counts, and only tokens and costs can be limited. Empty: all models."""

    @model_validator(mode="after")
    def _limits_what_is_known(self) -> Self:
        if self.models and (self.requests_per_minute is not None or self.concurrent_runs is not None):
            raise ValueError("with models, only tokens and costs can be limited")
        return self


def rules_of(settings: QuotaSettings, named: Mapping[str, QuotaRuleSettings]) -> Iterator[QuotaRule]:
    """Yield the rules that the settings make."""
    yield QuotaRule("quotas.each_user", settings.each_user.limits(), users=("*",))
    yield QuotaRule("quotas.each_service", settings.each_service.limits(), services=("*",))
    for name, rule in named.items():
        yield QuotaRule(f"quota_rules.{name}", rule.limits(), rule.users, rule.services, rule.keys, rule.models)


def _micros(amount: Decimal | None) -> int | None:
    return None if amount is None else int(amount.scaleb(_PLACES))
