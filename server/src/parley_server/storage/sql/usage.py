"""Usage by days, on any engine: read and summed."""

import json
from datetime import date, timedelta

from sqlalchemy import ColumnElement, func, literal, select, tuple_

from parley_server.domain.usage import Usage
from parley_server.domain.usage_report import UsageGrouping, UsageQuery, UsageSum
from parley_server.storage.page import Page, PageRequest
from parley_server.storage.page_tokens import PageTokens
from parley_server.storage.sql.database import Reader, Row
from parley_server.storage.sql.quota_tables import COUNTS, usage_days
from parley_server.storage.sql.rows import number, string

_EPOCH = date(1970, 1, 1)
_SUMS = tuple(func.sum(usage_days.c[name]).label(name) for name in COUNTS)


class SqlUsageRepository:
    """Implements `UsageRepository`: for one user, or with an empty id for administrators."""

    def __init__(self, user_id: str, reader: Reader, tokens: PageTokens) -> None:
        self._user_id = user_id
        self._reader = reader
        self._tokens = tokens

    async def sums(self, query: UsageQuery, page: PageRequest) -> Page[UsageSum]:
        """Sum what was used; see `UsageRepository.sums`."""
        names = [each.value for each in UsageGrouping if each in query.group_by] + ["currency_code"]
        groups = [usage_days.c[name] for name in names]
        listing = ("usage", self._user_id, repr(query))
        wanted = self._wanted(query)
        if place := self._tokens.read(listing, page.token):
            wanted.append(tuple_(*groups) > tuple_(*map(literal, json.loads(place))))
        statement = select(*groups, *_SUMS).where(*wanted).group_by(*groups).order_by(*groups).limit(page.size + 1)
        rows = await self._reader.fetch(statement)
        items = tuple(_sum_of(row, query.group_by) for row in rows[: page.size])
        if len(rows) <= page.size:
            return Page(items, "")
        last = json.dumps([rows[page.size - 1][name] for name in names])
        return Page(items, self._tokens.issue(listing, last))

    def _wanted(self, query: UsageQuery) -> list[ColumnElement[bool]]:
        wanted: list[ColumnElement[bool]] = [
            usage_days.c.day.between(_number_of(query.first_day), _number_of(query.last_day))
        ]
        if user_id := self._user_id or query.user_id:
            wanted.append(usage_days.c.user_id == user_id)
        if query.model:
            wanted.append(usage_days.c.model == query.model)
        return wanted


def _number_of(day: date) -> int:
    return (day - _EPOCH).days


def _sum_of(row: Row, group_by: frozenset[UsageGrouping]) -> UsageSum:
    def text(grouping: UsageGrouping) -> str:
        return string(row, grouping.value) if grouping in group_by else ""

    # A sum of whole numbers is a decimal on PostgreSQL.
    counts = {name: int(number(row, name)) for name in COUNTS}
    currency_code = string(row, "currency_code")
    return UsageSum(
        usage=Usage(
            input_tokens=counts["input_tokens"],
            cached_input_tokens=counts["cached_input_tokens"],
            output_tokens=counts["output_tokens"],
            reasoning_tokens=counts["reasoning_tokens"],
            model_calls=counts["model_calls"],
            tool_calls=counts["tool_calls"],
            cost_micros=counts["cost_micros"] if currency_code else None,
            currency_code=currency_code,
        ),
        unpriced_calls=counts["unpriced_calls"],
        runs=counts["runs"],
        day=_EPOCH + timedelta(days=number(row, "day")) if UsageGrouping.DAY in group_by else None,
        model=text(UsageGrouping.MODEL),
        user_id=text(UsageGrouping.USER),
        principal=text(UsageGrouping.PRINCIPAL),
        credential_id=text(UsageGrouping.KEY),
    )
