"""What refuses a call, or ends a run, for having used what it may."""

from parley_server.domain.errors import ErrorKind, ParleyError, Reason
from parley_server.domain.quota import COSTS, Limit, Measure, SubjectKind

_UNITS = {
    Measure.REQUESTS_PER_MINUTE: "{} requests a minute",
    Measure.CONCURRENT_RUNS: "{} runs at once",
    Measure.TOKENS_PER_MINUTE: "{} tokens a minute",
    Measure.COST_PER_DAY: "costs of {} a day (UTC)",
    Measure.COST_PER_MONTH: "costs of {} a month (UTC)",
}
_MICROS = 1_000_000


class QuotaExceededError(ParleyError):
    """A limit on requests, runs at once or tokens leaves no room now. Names no one: `subject` is of which kind it is.

    `retry_after_s` None: waiting alone does not help.
    """

    kind = ErrorKind.RESOURCE_EXHAUSTED
    reason = Reason.QUOTA_EXCEEDED

    def __init__(self, limit: Limit, retry_after_s: float | None) -> None:
        super().__init__(
            f"the limit of {_amount(limit)} for {_whom(limit)} leaves no room",
            metadata={"limit": limit.measure, "amount": str(limit.amount), "subject": limit.subject.kind},
            retry_after_s=retry_after_s,
        )


class BudgetExceededError(QuotaExceededError):
    """A limit on costs leaves no room now."""

    reason = Reason.BUDGET_EXCEEDED


def refusal(limit: Limit, retry_after_s: float | None) -> QuotaExceededError:
    """Return the error for a limit that leaves no room."""
    kind = BudgetExceededError if limit.measure in COSTS else QuotaExceededError
    return kind(limit, retry_after_s)


def _amount(limit: Limit) -> str:
    amount = limit.amount / _MICROS if limit.measure in COSTS else limit.amount
    return _UNITS[limit.measure].format(f"{amount:.15g}")


def _whom(limit: Limit) -> str:
    whom = "all callers" if limit.subject.kind is SubjectKind.EVERYONE else f"this {limit.subject.kind}"
    return f"{whom} with this model" if limit.models else whom
