"""Holding what a model call may use, before it is made."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, insert, select

from parley_server.domain.quota import Limit
from parley_server.domain.usage import Usage
from parley_server.storage.run_log import OwnershipLostError
from parley_server.storage.sql import journal
from parley_server.storage.sql.database import to_micros
from parley_server.storage.sql.live_run import LiveRun
from parley_server.storage.sql.quota_room import Need, require_room
from parley_server.storage.sql.quota_tables import quota_holds
from parley_server.storage.sql.statements import write
from parley_server.storage.sql.tables import runs
from parley_server.storage.sql.usage_writes import MAX_MODEL_CHARACTERS, release

_FORGET = delete(quota_holds).where(quota_holds.c.expire_time <= bindparam("now"))
_INSERT = insert(quota_holds)


@dataclass(frozen=True, slots=True)
class Holding:
    """The transaction that makes a hold, as a callable for the writer; it may be done again."""

    live: LiveRun
    hold_id: str
    released: tuple[str, ...]
    model: str
    estimate: Usage
    limits: Sequence[Limit]
    now: datetime

    def __call__(self, connection: Connection) -> None:
        """Do it. Raises QuotaExceededError, OwnershipLostError."""
        if not journal.is_owned(connection, self.live):
            raise OwnershipLostError(self.live.run_id)
        now = to_micros(self.now)
        release(connection, (*self.released, self.hold_id))
        write(connection, _FORGET, {"now": now})
        tokens, cost_micros = self.estimate.tokens, self.estimate.cost_micros or 0
        require_room(connection, self.limits, Need(max(tokens, 1), max(cost_micros, 1)), self.now)
        consumer = self.live.consumer
        row = {
            "hold_id": self.hold_id,
            "run_id": self.live.run_id,
            "user_id": consumer.user_id,
            "principal": consumer.principal,
            "credential_id": consumer.credential_id,
            "model": self.model[:MAX_MODEL_CHARACTERS],
            "tokens": tokens,
            "cost_micros": cost_micros,
            "time": now,
            "is_settled": False,
        }
        write(connection, _INSERT, row)


def give_back_all(connection: Connection) -> None:
    """Give back what dead processes have held: the calls are made again, or nobody knows that they were made."""
    unfinished = select(runs.c.run_id).where(runs.c.finish_time.is_(None))
    connection.execute(delete(quota_holds).where(~quota_holds.c.is_settled, quota_holds.c.run_id.in_(unfinished)))
