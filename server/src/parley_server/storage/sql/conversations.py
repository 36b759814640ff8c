"""The user's conversations and their messages, on any engine."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from sqlalchemy import Connection, bindparam, select, tuple_

from parley_server.domain.context import RequestContext
from parley_server.domain.conversation import Conversation, ConversationChanges
from parley_server.domain.errors import NotFoundError
from parley_server.domain.idempotency import Idempotency
from parley_server.domain.identifiers import new_id
from parley_server.domain.message import Message
from parley_server.storage.page import Page, PageRequest
from parley_server.storage.page_tokens import PageTokens
from parley_server.storage.sql import request_ids, resolutions
from parley_server.storage.sql.clock import now_micros
from parley_server.storage.sql.conversation_writes import change_conversation, insert_conversation
from parley_server.storage.sql.database import Reader
from parley_server.storage.sql.deletion import delete_conversation
from parley_server.storage.sql.expiry import is_alive
from parley_server.storage.sql.forking import Copy, insert_copy
from parley_server.storage.sql.paging import fitting
from parley_server.storage.sql.rows import conversation_of, message_of, number, string
from parley_server.storage.sql.run_log import RunLog
from parley_server.storage.sql.search import matching
from parley_server.storage.sql.summaries import first_position
from parley_server.storage.sql.tables import conversations, messages, runs
from parley_server.storage.sql.user_writer import UserWriter

_GET = select(conversations).where(
    conversations.c.user_id == bindparam("user_id"),
    conversations.c.conversation_id == bindparam("conversation_id"),
    is_alive(),
)
_ORDER = (conversations.c.update_time, conversations.c.conversation_id)
# Made once, as all that live on: to make and compile one costs more than to run it.
_LIST = (
    select(conversations)
    .where(conversations.c.user_id == bindparam("user_id"), is_alive())
    .order_by(*(column.desc() for column in _ORDER))
    .limit(bindparam("limit"))
)
_LIST_BEHIND = _LIST.where(tuple_(*_ORDER) < tuple_(bindparam("update_time"), bindparam("conversation_id")))
_OF_CONVERSATION = (
    messages.c.user_id == bindparam("user_id"),
    messages.c.conversation_id == bindparam("conversation_id"),
)
_PLACE = (messages.c.run_position, messages.c.ordinal)
_MESSAGES = (
    select(messages)
    .where(*_OF_CONVERSATION, tuple_(*_PLACE) > tuple_(bindparam("position"), bindparam("ordinal")))
    .order_by(*_PLACE)
    .limit(bindparam("limit"))
)
_RUN_POSITION = select(runs.c.position).where(runs.c.run_id == bindparam("run_id")).scalar_subquery()
_HISTORY = (
    select(messages)
    .where(
        *_OF_CONVERSATION,
        messages.c.run_position >= first_position(_RUN_POSITION),
        messages.c.run_position <= _RUN_POSITION,
    )
    .order_by(*_PLACE)
)
_FIRST_PLACE = "0:-1"


class SqlConversationRepository:
    """Implements `ConversationRepository` for one user."""

    def __init__(
        self,
        context: RequestContext,
        reader: Reader,
        writes: UserWriter,
        run_log: RunLog,
        tokens: PageTokens,
        *,
        ttl: int | None,
    ) -> None:
        self._context = context
        self._reader = reader
        self._writes = writes
        self._run_log = run_log
        self._tokens = tokens
        self._ttl = ttl

    async def create(
        self, title: str, metadata: Mapping[str, str], idempotency: Idempotency | None = None
    ) -> Conversation:
        """Store a new conversation; see `ConversationRepository.create`."""

        def insert(connection: Connection, conversation_id: str, now: int) -> None:
            insert_conversation(connection, self._context.user_id, conversation_id, title, now, metadata, ttl=self._ttl)

        return await self._create(insert, idempotency)

    async def fork(
        self, conversation_id: str, message_id: str = "", title: str = "", idempotency: Idempotency | None = None
    ) -> Conversation:
        """Store a copy of one; see `ConversationRepository.fork`."""

        def insert(connection: Connection, copy_id: str, now: int) -> None:
            copy = Copy(self._context.user_id, conversation_id, copy_id, message_id, title)
            insert_copy(connection, copy, now, ttl=self._ttl)

        return await self._create(insert, idempotency)

    async def _create(
        self, insert: Callable[[Connection, str, int], None], idempotency: Idempotency | None
    ) -> Conversation:
        """Let `insert` store a conversation under a new id, once."""
        conversation_id, now = new_id("conv"), now_micros()

        def tx(connection: Connection) -> str:
            existing = request_ids.find(connection, self._context, idempotency)
            if existing is None:
                insert(connection, conversation_id, now)
                request_ids.remember(connection, self._context, idempotency, conversation_id, now)
            return existing or conversation_id

        return await self.get(await self._writes.run(tx))

    async def get(self, conversation_id: str) -> Conversation:
        """Return one; see `ConversationRepository.get`."""
        rows = await self._reader.fetch(_GET, self._key(conversation_id) | {"now": now_micros()})
        if not rows:
            raise NotFoundError("conversation")
        return conversation_of(rows[0])

    async def list(self, page: PageRequest, query: str = "") -> Page[Conversation]:
        """List, last changed first; see `ConversationRepository.list`."""
        user_id = self._context.user_id
        listing = ("conversations", user_id, query)
        statement, parameters = _LIST, {"user_id": user_id, "now": now_micros(), "limit": page.size + 1}
        if place := self._tokens.read(listing, page.token):
            update_time, conversation_id = place.split(":")
            statement = _LIST_BEHIND
            parameters |= {"update_time": int(update_time), "conversation_id": conversation_id}
        if query:
            statement = statement.where(*matching(user_id, query))
        rows = await self._reader.fetch(statement, parameters)
        taken = fitting(rows, page.size, ("title", "metadata_json"))
        items = tuple(conversation_of(row) for row in rows[:taken])
        if taken == len(rows):
            return Page(items, "")
        place = f"{number(rows[taken - 1], 'update_time')}:{items[-1].conversation_id}"
        return Page(items, self._tokens.issue(listing, place))

    async def update(self, conversation_id: str, changes: ConversationChanges, etag: str = "") -> Conversation:
        """Change one; see `ConversationRepository.update`."""

        def tx(connection: Connection) -> None:
            change_conversation(connection, self._context.user_id, conversation_id, changes, etag, now_micros())

        await self._writes.run(tx)
        return await self.get(conversation_id)

    async def delete(self, conversation_id: str, *, allow_missing: bool = False) -> None:
        """Delete one with all that belongs to it; see `ConversationRepository.delete`."""
        try:
            run_ids = await self._writes.run(
                lambda connection: delete_conversation(connection, self._context.user_id, conversation_id, now_micros())
            )
        except NotFoundError:
            if not allow_missing:
                raise
        else:
            self._run_log.forget(run_ids)

    async def messages(self, conversation_id: str, page: PageRequest) -> Page[Message]:
        """List messages, oldest first; see `ConversationRepository.messages`."""
        await self.get(conversation_id)
        listing = ("messages", self._context.user_id, conversation_id)
        position, ordinal = (self._tokens.read(listing, page.token) or _FIRST_PLACE).split(":")
        rows = await self._reader.fetch(
            _MESSAGES,
            self._key(conversation_id) | {"position": int(position), "ordinal": int(ordinal), "limit": page.size + 1},
        )
        taken = fitting(rows, page.size, ("item_json",))
        items = tuple(message_of(row) for row in rows[:taken])
        if taken == len(rows):
            return Page(items, "")
        place = f"{number(rows[taken - 1], 'run_position')}:{number(rows[taken - 1], 'ordinal')}"
        return Page(items, self._tokens.issue(listing, place))

    async def history(self, conversation_id: str, run_id: str) -> tuple[Message, ...]:
        """Return what a run goes on from; see `ConversationRepository.history`."""
        rows = await self._reader.fetch(_HISTORY, self._key(conversation_id) | {"run_id": run_id})
        history = tuple(message_of(row) for row in rows)
        return await self._with_resolutions(history) if any(map(resolutions.is_in_doubt, history)) else history

    async def _with_resolutions(self, history: tuple[Message, ...]) -> tuple[Message, ...]:
        rows = await self._reader.fetch(resolutions.OF_CONVERSATION, self._key(history[0].conversation_id))
        found = {string(row, "item_id"): resolutions.resolution_of(row) for row in rows}
        return tuple(replace(message, resolution=found.get(message.message_id)) for message in history)

    def _key(self, conversation_id: str) -> dict[str, object]:
        return {"user_id": self._context.user_id, "conversation_id": conversation_id}
