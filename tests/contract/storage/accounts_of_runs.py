"""Runs that use something, on a store whose clock the test sets."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from contract.storage.test_repositories import spec
from parley_server.domain.context import RequestContext
from parley_server.domain.principal import ALL_SCOPES, Principal, PrincipalKind
from parley_server.domain.quota import Limit, Measure, Subject, SubjectKind
from parley_server.domain.run import RunEnd, RunState, StopReason
from parley_server.domain.run_event import RunStarted, UsageUpdated
from parley_server.domain.usage import ModelUse, Usage
from parley_server.storage.run_log import RunAppender, RunConclusion
from parley_server.storage.sql.store import SqlStore

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
ANN = Subject(SubjectKind.USER, "ann")


@dataclass
class SetClock:
    """A clock that stands where it is set."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now


def context_of(user_id: str, service: str = "", key_id: str = "") -> RequestContext:
    """Return the context of a user's call, or of a service's for him."""
    principal = Principal(
        kind=PrincipalKind.SERVICE if service else PrincipalKind.USER,
        subject=service or user_id,
        scopes=ALL_SCOPES,
        act_as=("*",) if service else (),
        method="test",
        credential_id=key_id,
    )
    return RequestContext(user_id=user_id, principal=principal, request_id="req", timestamp=datetime.now(UTC))


def limit(measure: Measure, amount: int, subject: Subject = ANN, models: tuple[str, ...] = ()) -> Limit:
    """Return a limit."""
    return Limit("rule", subject, measure, amount, models)


def used(tokens: int, cost_micros: int | None = None) -> Usage:
    """Return what one call used."""
    usage = Usage(input_tokens=tokens, model_calls=1)
    return usage if cost_micros is None else replace(usage, cost_micros=cost_micros, currency_code="EUR")


@dataclass
class UsingRun:
    """A run that has begun with the model `m`."""

    appender: RunAppender
    total: Usage = field(default_factory=Usage)

    async def use(self, usage: Usage, model: str = "") -> None:
        """Tell what a step used, durably."""
        self.total += usage
        await self.appender.append(UsageUpdated(self.total, ModelUse(model, usage) if model else None))
        await self.appender.flush()

    async def end(self, state: RunState = RunState.SUCCEEDED) -> None:
        """End it."""
        reason = StopReason.ANSWERED if state is RunState.SUCCEEDED else StopReason.CANCEL_REQUESTED
        await self.appender.finish(RunConclusion(RunEnd(state, reason), self.total, ()))


async def begin(store: SqlStore, context: RequestContext, limits: Sequence[Limit] = ()) -> UsingRun:
    """Accept a run and begin it."""
    acceptance = await store.for_user(context).runs.accept(spec(), None, limits)
    appender = store.worker.appender(acceptance.run.run_id)
    await appender.begin(RunStarted("m"))
    return UsingRun(appender)
