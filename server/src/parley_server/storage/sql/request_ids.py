"""Request ids: what makes a repeated create the same create, also after a restart."""

from sqlalchemy import Connection, and_, delete, insert, select, tuple_

from parley_server.domain.context import RequestContext
from parley_server.domain.errors import RequestIdReusedError
from parley_server.domain.idempotency import Idempotency
from parley_server.storage.sql.tables import request_ids

# Two days, where the contract promises one.
KEPT_MICROS = 48 * 3600 * 1_000_000


def find(connection: Connection, context: RequestContext, idempotency: Idempotency | None) -> str | None:
    """Return the id of the object an equal request made before.

    Raises:
        RequestIdReusedError: another request was made under this id.
    """
    if idempotency is None:
        return None
    row = connection.execute(
        select(request_ids.c.fingerprint, request_ids.c.object_id).where(
            and_(*(request_ids.c[name] == value for name, value in _key(context, idempotency).items()))
        )
    ).first()
    if row is None:
        return None
    if row.fingerprint != idempotency.fingerprint:
        raise RequestIdReusedError("request_id was used before for another request")
    object_id: str = row.object_id
    return object_id


def remember(
    connection: Connection, context: RequestContext, idempotency: Idempotency | None, object_id: str, now: int
) -> None:
    """Record that this request made `object_id`; in the transaction that made it."""
    if idempotency is not None:
        connection.execute(
            insert(request_ids).values(
                **_key(context, idempotency),
                fingerprint=idempotency.fingerprint,
                object_id=object_id,
                create_time=now,
            )
        )


def forget_some(connection: Connection, now: int, limit: int) -> int:
    """Drop up to `limit` of those that are past their time, the oldest first; return how many."""
    key = request_ids.primary_key.columns
    old = (
        select(*key)
        .where(request_ids.c.create_time < now - KEPT_MICROS)
        .order_by(request_ids.c.create_time)
        .limit(limit)
    )
    return connection.execute(delete(request_ids).where(tuple_(*key).in_(old))).rowcount


def _key(context: RequestContext, idempotency: Idempotency) -> dict[str, str]:
    return {
        "principal": context.principal.name,
        "user_id": context.user_id,
        "family": idempotency.family,
        "request_id": idempotency.request_id,
    }
