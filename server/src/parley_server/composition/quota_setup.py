"""What may be used, composed of the settings and of what administrators have set."""

from collections.abc import Iterable

import structlog

from parley_server.domain.quota import COSTS, Measure, QuotaRule
from parley_server.quotas.administration import BudgetAdministration
from parley_server.quotas.quota_settings import rules_of
from parley_server.quotas.quotas import Quotas
from parley_server.rpc.listener import Listener
from parley_server.settings import Settings
from parley_server.storage.sql.store import SqlStore

_log = structlog.get_logger(__name__)


async def open_quotas(
    settings: Settings, store: SqlStore, models: Iterable[str]
) -> tuple[Quotas, BudgetAdministration]:
    """Return the limits in force and their administration, and warn of those that are missing or cannot hold."""
    quotas = Quotas(list(rules_of(settings.quotas, settings.quota_rules)))
    budgets = BudgetAdministration(store.budgets, quotas)
    await budgets.load()
    measures = _measures(quotas.rules)
    if not measures and not Listener.parse(settings.server.listen).is_local:
        _log.warning("nothing_is_limited", remedy="set [quotas]; see docs/guides/quotas.md")
    unpriced = sorted(set(models) - set(settings.prices))
    if unpriced and measures & COSTS:
        _log.warning("cost_limits_without_prices", models=unpriced[:10], remedy='set [prices."NAME"] for each')
    return quotas, budgets


def _measures(rules: Iterable[QuotaRule]) -> set[Measure]:
    return {measure for rule in rules for measure, _ in rule.limits.amounts()}
