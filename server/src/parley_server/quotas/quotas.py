"""The limits in force, in memory: those of the settings, and those that administrators set at run time."""

from collections.abc import Sequence

from parley_server.domain.budget import BudgetUse
from parley_server.domain.context import RequestContext
from parley_server.domain.quota import OF_RUNS, SPENDING, Consumer, Limit, Measure, QuotaRule, effective_limits
from parley_server.quotas.request_rate import RequestRates

# Of so many callers it is remembered which limits on requests hold for them.
MAX_REMEMBERED = 10_000


class Quotas:
    """Says which limits hold for a call, and counts requests. One per process; all methods run on the loop."""

    def __init__(self, rules: Sequence[QuotaRule] = ()) -> None:
        self._rules = tuple(rules)
        self._budgets: tuple[QuotaRule, ...] = ()
        self._rates = RequestRates()
        self._of_requests: dict[Consumer, tuple[Limit, ...]] = {}
        self._limits_requests = False
        self._limits_runs = False
        self._note_measures()

    @property
    def rules(self) -> tuple[QuotaRule, ...]:
        """All rules in force."""
        return self._rules + self._budgets

    def replace_budgets(self, budgets: Sequence[QuotaRule]) -> None:
        """Have these rules in force beside those of the settings, from now on; requests counted so far stay counted."""
        self._budgets = tuple(budgets)
        self._of_requests.clear()
        self._note_measures()

    def count_request(self, context: RequestContext) -> None:
        """Count a request. Raises QuotaExceededError when there were too many; then it is not counted."""
        if self._limits_requests and (limits := self._request_limits(context)):
            self._rates.take(limits)

    def requests_used(self, limit: Limit) -> BudgetUse:
        """Return how much of a limit on requests is used."""
        used = self._rates.counted(limit)
        return BudgetUse(limit.measure, limit.amount, used, max(limit.burst - used, 0))

    def limits(self, context: RequestContext, model: str = "") -> tuple[Limit, ...]:
        """Return all limits that hold for a call, of a model where one is named."""
        return effective_limits(self.rules, Consumer.of(context), model)

    def run_limits(self, context: RequestContext, model: str) -> tuple[Limit, ...]:
        """Return the limits that leave room, or do not, for one more run that asks this model."""
        return self._limits_on(OF_RUNS, context, model)

    def spending_limits(self, context: RequestContext, model: str) -> tuple[Limit, ...]:
        """Return the limits on what calls of this model consume."""
        return self._limits_on(SPENDING, context, model)

    def _limits_on(self, measures: frozenset[Measure], context: RequestContext, model: str) -> tuple[Limit, ...]:
        if not self._limits_runs:
            return ()
        return tuple(limit for limit in self.limits(context, model) if limit.measure in measures)

    def _request_limits(self, context: RequestContext) -> tuple[Limit, ...]:
        consumer = Consumer.of(context)
        limits = self._of_requests.get(consumer)
        if limits is None:
            if len(self._of_requests) >= MAX_REMEMBERED:
                self._of_requests.clear()
            limits = tuple(each for each in self.limits(context) if each.measure is Measure.REQUESTS_PER_MINUTE)
            self._of_requests[consumer] = limits
        return limits

    def _note_measures(self) -> None:
        """Note what is limited at all, so that where nothing is nobody looks further."""
        measures = {measure for rule in self.rules for measure, _ in rule.limits.amounts()}
        self._limits_requests = Measure.REQUESTS_PER_MINUTE in measures
        self._limits_runs = not measures.isdisjoint(OF_RUNS)
