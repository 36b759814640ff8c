"""What users add to runs under way: durable when accepted, gone when it is applied or its run has ended."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from parley_server.domain.content import MAX_IMAGE_BYTES, ContentPart, image_bytes_of
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import InvalidRequestError, NotFoundError, QueueFullError, RunNotSteerableError
from parley_server.domain.idempotency import Idempotency
from parley_server.domain.identifiers import new_id
from parley_server.domain.run import MAX_PENDING_STEERS, TERMINAL_STATES, RunState, Steer
from parley_server.storage.sql import request_ids
from parley_server.storage.sql.expiry import of_living_conversation
from parley_server.storage.sql.live_run import Sealed, Tx
from parley_server.storage.sql.rows import dump
from parley_server.storage.sql.tables import runs, steers

_PARTS: TypeAdapter[tuple[ContentPart, ...]] = TypeAdapter(tuple[ContentPart, ...])
_CLOSED_STATES = TERMINAL_STATES | {RunState.CANCELLING}
_PENDING = select(steers).join(runs).where(runs.c.finish_time.is_(None)).order_by(steers.c.run_id, steers.c.steer_id)


@dataclass(frozen=True, slots=True)
class AcceptedSteer:
    """What the transaction came to: the words of this request or of an equal one, `pending` unless they are applied."""

    steer_id: str
    pending: Steer | None


class Steering:
    """The transaction that accepts one, as a callable for the writer."""

    def __init__(
        self,
        context: RequestContext,
        run_id: str,
        parts: tuple[ContentPart, ...],
        idempotency: Idempotency | None,
        *,
        now: int,
    ) -> None:
        self._steer = Steer(new_id("steer"), new_id("msg"), parts)
        self._context = context
        self._run_id = run_id
        self._idempotency = idempotency
        self._now = now

    def __call__(self, connection: Connection) -> AcceptedSteer:
        """Do it. Raises as `RunRepository.steer` says."""
        state = self._state(connection)
        existing = request_ids.find(connection, self._context, self._idempotency)
        if existing is not None:
            # Its outcome may be unknown to all but the store.
            row = connection.execute(select(steers).where(steers.c.steer_id == existing)).first()
            return AcceptedSteer(existing, None if row is None else _steer_of(row))
        if state in _CLOSED_STATES:
            raise RunNotSteerableError("the run is being cancelled or has ended", metadata={"state": state.name})
        self._check_room(connection)
        self._add_images(connection)
        connection.execute(
            insert(steers).values(
                steer_id=self._steer.steer_id,
                run_id=self._run_id,
                message_id=self._steer.message_id,
                input_json=dump(_PARTS, self._steer.input),
            )
        )
        request_ids.remember(connection, self._context, self._idempotency, self._steer.steer_id, self._now)
        return AcceptedSteer(self._steer.steer_id, self._steer)

    def _state(self, connection: Connection) -> RunState:
        own = (runs.c.user_id == self._context.user_id, runs.c.run_id == self._run_id)
        state: str | None = connection.execute(
            select(runs.c.state).where(*own, of_living_conversation(self._now))
        ).scalar()
        if state is None:
            raise NotFoundError("run")
        return RunState(state)

    def _check_room(self, connection: Connection) -> None:
        pending = select(func.count()).where(steers.c.run_id == self._run_id)
        if connection.execute(pending).scalar_one() >= MAX_PENDING_STEERS:
            raise QueueFullError(
                f"{MAX_PENDING_STEERS} additions wait for this run's model already",
                metadata={"max_pending": str(MAX_PENDING_STEERS)},
            )

    def _add_images(self, connection: Connection) -> None:
        """Count the images with those the run has had, applied or not. Raises where they are too much together."""
        added = image_bytes_of(self._steer.input)
        room = runs.c.image_bytes <= MAX_IMAGE_BYTES - added
        counted = update(runs).where(runs.c.run_id == self._run_id, room).values(image_bytes=runs.c.image_bytes + added)
        if added and not connection.execute(counted).rowcount:
            raise InvalidRequestError.of(
                "input", f"the images of the run would be over {MAX_IMAGE_BYTES} bytes together"
            )


def pending_steers(connection: Connection) -> Iterable[tuple[str, Steer]]:
    """Return those of unfinished runs, each with its run's id, in the order of acceptance."""
    return [(row.run_id, _steer_of(row)) for row in connection.execute(_PENDING)]


def removal(applied: Sequence[Steer]) -> Tx:
    """Return the write that takes away what is applied."""
    steer_ids = [steer.steer_id for steer in applied]

    def tx(connection: Connection, _batch: Sealed) -> None:
        connection.execute(delete(steers).where(steers.c.steer_id.in_(steer_ids)))

    return tx


def remove_all(connection: Connection, batch: Sealed) -> None:
    """Take away what a run ends without."""
    connection.execute(delete(steers).where(steers.c.run_id == batch.live.run_id))


def _steer_of(row: Row[tuple[str, str, str, str]]) -> Steer:
    return Steer(row.steer_id, row.message_id, _PARTS.validate_json(row.input_json))
