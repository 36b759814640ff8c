"""Accepting a run: one transaction that makes it durable with everything it starts from."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from sqlalchemy import Connection, bindparam, insert, select

from parley_server.domain.content import image_bytes_of, text_of
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import ConversationBusyError, NotFoundError, QueueFullError
from parley_server.domain.idempotency import Idempotency
from parley_server.domain.identifiers import new_id
from parley_server.domain.message import UserItem
from parley_server.domain.quota import Consumer, Limit
from parley_server.domain.run import MAX_QUEUED_RUNS, ConcurrencyPolicy, Run, RunSpec, RunState
from parley_server.domain.run_event import EventCodec, RunAccepted, RunEvent, StoredEvent
from parley_server.domain.usage import Usage
from parley_server.storage.sql import journal, places, request_ids, search
from parley_server.storage.sql.acting import RUN_LOG
from parley_server.storage.sql.conversation_writes import insert_conversation, set_active_run
from parley_server.storage.sql.database import to_micros
from parley_server.storage.sql.driver import acting_as
from parley_server.storage.sql.expiry import is_alive
from parley_server.storage.sql.places import Place
from parley_server.storage.sql.quota_room import Need, require_room
from parley_server.storage.sql.rows import ITEM, PAIRS, SPEC, USAGE, dump
from parley_server.storage.sql.statements import first, write
from parley_server.storage.sql.tables import conversations, messages, run_labels, runs

_INSERT_RUN = insert(runs)
_INSERT_LABEL = insert(run_labels)
_INSERT_MESSAGE = insert(messages)
_ACTIVE_RUN = select(conversations.c.active_run_id).where(
    conversations.c.user_id == bindparam("user_id"),
    conversations.c.conversation_id == bindparam("conversation_id"),
    is_alive(),
)

FIRST_TOKEN = 1
_MAX_TITLE = 60


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the transaction came to: a run of an equal earlier request, or a new one with its first event."""

    run_id: str
    run: Run | None = None
    event: StoredEvent | None = None
    journal_id: int = 0
    starts_now: bool = False
    interrupted_run_id: str = ""


class RunAcceptance:
    """The transaction, as a callable for the writer."""

    def __init__(  # noqa: PLR0913  # all that a run starts from
        self,
        context: RequestContext,
        spec: RunSpec,
        idempotency: Idempotency | None,
        *,
        codec: EventCodec,
        now: datetime,
        ttl: int | None = None,
        limits: Sequence[Limit] = (),
    ) -> None:
        self._context = context
        self._spec = spec
        self._idempotency = idempotency
        self._codec = codec
        self._now = now
        self._micros = to_micros(now)
        self._ttl = ttl
        self._limits = limits
        self._run_id = new_id("run")
        self._message_id = new_id("msg")

    def __call__(self, connection: Connection) -> Accepted:
        """Do it. Raises as `RunRepository.accept` says."""
        existing = request_ids.find(connection, self._context, self._idempotency)
        if existing is not None:
            return Accepted(existing)
        conversation_id, active_run_id = self._conversation(connection)
        place = self._place(connection, conversation_id, active_run_id)
        if self._limits:
            # What it interrupts makes room for it.
            need = Need(without_run_id=active_run_id if self._interrupts else "")
            # Limits hold for several users together, whose runs are counted and not read.
            with acting_as(connection, RUN_LOG):
                require_room(connection, self._limits, need, self._now)
        run = self._insert_run(connection, conversation_id, place.position)
        set_active_run(connection, conversation_id, active_run_id or run.run_id, self._micros)
        event = self._first_event(run, queue_position=place.queue_position)
        journal_id = journal.insert_first(connection, run.run_id, event.payload)
        request_ids.remember(connection, self._context, self._idempotency, run.run_id, self._micros)
        return Accepted(
            run.run_id,
            run,
            event,
            journal_id,
            starts_now=not active_run_id,
            interrupted_run_id=active_run_id if self._interrupts else "",
        )

    @property
    def _interrupts(self) -> bool:
        return self._spec.concurrency_policy is ConcurrencyPolicy.INTERRUPT

    def _conversation(self, connection: Connection) -> tuple[str, str]:
        """Return the conversation's id and its active run, making a new one where the spec names none."""
        if not self._spec.conversation_id:
            conversation_id = new_id("conv")
            title = " ".join(text_of(self._spec.input).split())[:_MAX_TITLE]
            insert_conversation(connection, self._context.user_id, conversation_id, title, self._micros, ttl=self._ttl)
            return conversation_id, ""
        named = {"user_id": self._context.user_id, "conversation_id": self._spec.conversation_id, "now": self._micros}
        row = first(connection, _ACTIVE_RUN, named)
        if row is None:
            raise NotFoundError("conversation")
        return self._spec.conversation_id, cast("str | None", row[0]) or ""

    def _place(self, connection: Connection, conversation_id: str, active_run_id: str) -> Place:
        """Find the run's place in a conversation. Raises when it may not join those that wait."""
        if not active_run_id:
            return Place(places.behind_all(connection, conversation_id), 0)
        if self._spec.concurrency_policy is ConcurrencyPolicy.REJECT:
            raise ConversationBusyError(
                "the conversation has a run under way", metadata={"active_run_id": active_run_id}
            )
        waiting = places.waiting_runs(connection, conversation_id, active_run_id)
        if len(waiting) >= MAX_QUEUED_RUNS:
            raise QueueFullError(
                f"{MAX_QUEUED_RUNS} runs wait in this conversation already",
                metadata={"max_queued": str(MAX_QUEUED_RUNS)},
            )
        if not self._interrupts:
            return Place(places.behind_all(connection, conversation_id), len(waiting) + 1)
        places.interrupt(connection, active_run_id)
        return Place(places.before_all(connection, conversation_id, waiting), 1)

    def _insert_run(self, connection: Connection, conversation_id: str, position: int) -> Run:
        deadline = self._now + self._spec.limits.deadline
        write(connection, _INSERT_RUN, self._row(conversation_id, position, deadline))
        if labels := self._spec.labels:
            rows = [{"run_id": self._run_id, "key": key, "value": value} for key, value in labels.items()]
            write(connection, _INSERT_LABEL, *rows)
        self._insert_input(connection, conversation_id, position)
        return Run(
            run_id=self._run_id,
            conversation_id=conversation_id,
            agent_id=self._spec.agent_id,
            state=RunState.QUEUED,
            attempt=0,
            create_time=self._now,
            deadline_time=deadline,
            last_seq=1,
            labels=self._spec.labels,
        )

    def _row(self, conversation_id: str, position: int, deadline: datetime) -> dict[str, object]:
        return {
            "run_id": self._run_id,
            "user_id": self._context.user_id,
            "conversation_id": conversation_id,
            "position": position,
            "agent_id": self._spec.agent_id,
            "state": RunState.QUEUED,
            "attempt": 0,
            "fencing_token": FIRST_TOKEN,
            "context_json": self._context.to_json(),
            "spec_json": dump(SPEC, self._spec),
            "create_time": self._micros,
            "deadline_time": to_micros(deadline),
            "last_seq": 1,
            "usage_json": dump(USAGE, Usage()),
            "output_text": "",
            "labels_json": dump(PAIRS, dict(self._spec.labels)),
            "image_bytes": image_bytes_of(self._spec.input),
            "principal": Consumer.of(self._context).principal,
            "credential_id": self._context.principal.credential_id,
        }

    def _insert_input(self, connection: Connection, conversation_id: str, position: int) -> None:
        item = UserItem(self._spec.input)
        row = {
            "message_id": self._message_id,
            "user_id": self._context.user_id,
            "conversation_id": conversation_id,
            "run_id": self._run_id,
            "run_position": position,
            "ordinal": 0,
            "create_time": self._micros,
            "incomplete": False,
            "item_json": dump(ITEM, item),
        }
        write(connection, _INSERT_MESSAGE, row)
        search.add_messages(connection, self._context.user_id, conversation_id, [item])

    def _first_event(self, run: Run, *, queue_position: int) -> StoredEvent:
        body = RunAccepted(run.agent_id, self._message_id, queue_position)
        event = RunEvent(run.run_id, run.conversation_id, 1, self._now, 1, "", body)
        return StoredEvent(1, self._codec.encode(event))
