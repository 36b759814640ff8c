"""`/usage`: what the user has used, and what is left to him."""

from typing import Final

from parley.v1.usage_service_pb2 import USAGE_GROUPING_MODEL, Budget, BudgetUse, UsageRow
from parley_client import ParleyClient

from parley_console.lines import Lines
from parley_console.screen import Style
from parley_console.usage_line import usage_text
from parley_console.visible_text import visible

_MICROS: Final = 1_000_000
_WHOSE: Final = {"user_id": "you", "service_id": "the service", "key_id": "this key", "everyone": "all callers"}


async def show_usage(client: ParleyClient, lines: Lines) -> None:
    """Write a line for each model of the last 30 days, and one for each limit. Raises ParleyError."""
    rows = await client.usage(group_by=[USAGE_GROUPING_MODEL])
    budgets = await client.budgets()
    for row in rows:
        lines.line(_row_text(row))
    if not rows:
        lines.line("nothing was used in the last 30 days")
    for budget in budgets:
        for use in budget.uses:
            lines.line(_use_text(budget, use), Style.PLAIN if use.left else Style.YELLOW)


def _row_text(row: UsageRow) -> str:
    runs = f"{row.runs:,} run" + ("" if row.runs == 1 else "s")
    return " · ".join(filter(None, (visible(row.model) or "no model", runs, usage_text(row.usage))))


def _use_text(budget: Budget, use: BudgetUse) -> str:
    whose = _WHOSE.get(budget.WhichOneof("subject") or "", "")
    of_models = f" with {visible(', '.join(budget.models))}" if budget.models else ""
    left, amount = (_amount(use.limit, each) for each in (use.left, use.amount))
    what = use.limit.removesuffix("_micros").replace("_", " ")
    return f"{left} of {amount} {what} left to {whose}{of_models}"


def _amount(limit: str, amount: int) -> str:
    return f"{amount / _MICROS:,.4f}" if limit.endswith("_micros") else f"{amount:,}"
