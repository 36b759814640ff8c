"""What was used, summed."""

from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from parley_server.domain.usage import Usage


class UsageGrouping(StrEnum):
    """What usage can be told apart by, in the order in which rows are sorted."""

    DAY = "day"
    MODEL = "model"
    USER = "user_id"
    PRINCIPAL = "principal"
    KEY = "credential_id"


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Which usage: from the first day to the last, of one user or with an empty id of all, of one model or of all."""

    first_day: date
    last_day: date
    user_id: str = ""
    model: str = ""
    group_by: frozenset[UsageGrouping] = frozenset()


@dataclass(frozen=True, slots=True)
class UsageSum:
    """The usage of one group; what is not grouped by is empty.

    `usage.cost_micros` is what is known of the cost, None where nothing is; of `unpriced_calls` it is not.
    """

    usage: Usage
    unpriced_calls: int
    runs: int
    day: date | None = None
    model: str = ""
    user_id: str = ""
    principal: str = ""
    credential_id: str = ""
