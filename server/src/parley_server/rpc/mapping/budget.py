"""Budgets and usage."""

from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType

from parley.v1 import usage_service_pb2 as pb

from parley_server.domain.budget import Budget, BudgetUse
from parley_server.domain.errors import InvalidRequestError
from parley_server.domain.quota import Measure, QuotaLimits, Subject, SubjectKind
from parley_server.domain.usage_report import UsageGrouping, UsageQuery, UsageSum
from parley_server.rpc.mapping.timestamps import optional_timestamp
from parley_server.rpc.mapping.usage import write_usage

DEFAULT_DAYS = 30
MAX_DAYS = 366

_NAMES = MappingProxyType(
    {Measure.COST_PER_DAY: "cost_per_day_micros", Measure.COST_PER_MONTH: "cost_per_month_micros"}
)
_GROUPINGS = MappingProxyType(
    {
        pb.USAGE_GROUPING_DAY: UsageGrouping.DAY,
        pb.USAGE_GROUPING_MODEL: UsageGrouping.MODEL,
        pb.USAGE_GROUPING_USER: UsageGrouping.USER,
        pb.USAGE_GROUPING_PRINCIPAL: UsageGrouping.PRINCIPAL,
        pb.USAGE_GROUPING_KEY: UsageGrouping.KEY,
    }
)


def read_usage_query(request: pb.GetUsageRequest, user_id: str) -> UsageQuery:
    """Return what is asked for, of a user, or with an empty id of all. Raises InvalidRequestError."""
    last_day = _day("end_date", request.end_date) or datetime.now(UTC).date()
    # In the first days of the calendar there are no so many before.
    first_day = _day("start_date", request.start_date) or date.fromordinal(max(last_day.toordinal() - DEFAULT_DAYS, 1))
    if not timedelta() <= last_day - first_day <= timedelta(days=MAX_DAYS):
        raise InvalidRequestError.of("start_date", f"is at most {MAX_DAYS} days before end_date, and not after it")
    group_by = frozenset(_GROUPINGS[grouping] for grouping in request.group_by)
    return UsageQuery(first_day, last_day, user_id, request.model, group_by)


def write_usage_row(row: UsageSum) -> pb.UsageRow:
    """Return the usage of one group."""
    message = pb.UsageRow(
        date="" if row.day is None else row.day.isoformat(),
        model=row.model,
        user_id=row.user_id,
        principal=row.principal,
        key_id=row.credential_id,
        unpriced_calls=row.unpriced_calls,
        runs=row.runs,
    )
    write_usage(message.usage, row.usage)
    return message


def read_budget(message: pb.Budget) -> Budget:
    """Return a budget that is to be set."""
    return Budget(_read_subject(message), _read_limits(message.limits), tuple(message.models), message.etag)


def write_budget(budget: Budget) -> pb.Budget:
    """Return a budget, with what is left of it where that is known."""
    message = pb.Budget(
        models=budget.models,
        limits=_write_limits(budget.limits),
        etag=budget.etag,
        update_time=optional_timestamp(budget.update_time),
        uses=map(_write_use, budget.uses),
    )
    match budget.subject:
        case Subject(SubjectKind.USER, user_id):
            message.user_id = user_id
        case Subject(SubjectKind.SERVICE, service_id):
            message.service_id = service_id
        case Subject(SubjectKind.KEY, key_id):
            message.key_id = key_id
        case _:
            message.everyone = True
    return message


def _read_subject(message: pb.Budget) -> Subject:
    match message.WhichOneof("subject"):
        case "user_id":
            return Subject(SubjectKind.USER, message.user_id)
        case "service_id":
            return Subject(SubjectKind.SERVICE, message.service_id)
        case "key_id":
            return Subject(SubjectKind.KEY, message.key_id)
        case _:
            return Subject(SubjectKind.EVERYONE)


def _read_limits(limits: pb.QuotaLimits) -> QuotaLimits:
    # One by one, because a field that is absent reads as 0.
    return QuotaLimits(
        limits.requests_per_minute if limits.HasField("requests_per_minute") else None,
        limits.request_burst if limits.HasField("request_burst") else None,
        limits.concurrent_runs if limits.HasField("concurrent_runs") else None,
        limits.tokens_per_minute if limits.HasField("tokens_per_minute") else None,
        limits.cost_per_day_micros if limits.HasField("cost_per_day_micros") else None,
        limits.cost_per_month_micros if limits.HasField("cost_per_month_micros") else None,
    )


def _write_limits(limits: QuotaLimits) -> pb.QuotaLimits:
    return pb.QuotaLimits(
        requests_per_minute=limits.requests_per_minute,
        request_burst=limits.request_burst,
        concurrent_runs=limits.concurrent_runs,
        tokens_per_minute=limits.tokens_per_minute,
        cost_per_day_micros=limits.cost_per_day_micros,
        cost_per_month_micros=limits.cost_per_month_micros,
    )


def _write_use(use: BudgetUse) -> pb.BudgetUse:
    return pb.BudgetUse(
        limit=_NAMES.get(use.measure, use.measure.value),
        amount=use.amount,
        used=use.used,
        left=use.left,
        reset_time=optional_timestamp(use.reset_time),
    )


def _day(field: str, text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise InvalidRequestError.of(field, "is no day of the calendar") from None
