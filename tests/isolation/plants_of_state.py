"""Planted leaks of what is kept: caches, tokens, request ids, indexes, contexts, logs, and what a deletion leaves."""

# ruff: noqa: ANN401  # plants take the place of functions of any kind

import copy
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import structlog
from isolation.plant import Plant, of_user, owner_of, remembering, replaced
from parley_server.agents.tool_loop_agent import ToolLoopAgent
from parley_server.domain import principal
from parley_server.domain.errors import NotFoundError
from parley_server.domain.principal import Principal
from parley_server.llm.openai_service import OpenAIService
from parley_server.rpc.interceptors.request_context import ContextBinder
from parley_server.runs.engine import RunEngine
from parley_server.storage.page import Page
from parley_server.storage.page_tokens import PageTokens
from parley_server.storage.sql import archive, request_ids, search
from parley_server.storage.sql import conversations as conversation_repository
from parley_server.storage.sql.conversations import SqlConversationRepository
from parley_server.storage.sql.notes import SqlNoteRepository
from parley_server.storage.sql.recorded_calls import SqlToolCallRepository
from parley_server.storage.sql.store import SqlStore
from parley_server.storage.sql.tables import conversations, messages, tool_results
from parley_server.tools.credentials.chain import CredentialChain
from parley_server.tools.executions import Executions
from sqlalchemy import select, text

_CONVERSATION = conversations.c.conversation_id


def _twin(repository: Any, user_id: str) -> Any:
    twin = copy.copy(repository)
    twin._context = of_user(repository._context, user_id)
    return twin


def _tokens_of_anybody() -> None:
    original = PageTokens._mac

    def leaky(self: PageTokens, listing: tuple[str, ...], position: str) -> bytes:
        return original(self, (listing[0], *listing[2:]), position)

    PageTokens._mac = leaky  # type: ignore[method-assign]  # breaking it is the point


def _request_ids_of_everybody(key: Any) -> Any:
    return lambda context, idempotency: {**key(context, idempotency), "principal": "all", "user_id": "all"}


def _search_or(original: Any) -> Any:
    async def leaky(self: Any, page: Any, query: str = "") -> Any:
        found = await original(self, page, query)
        if not query:
            return found
        rows = await self._reader.fetch(select(conversations.c.user_id).distinct())
        more = [await original(_twin(self, row["user_id"]), type(page)(page.size, ""), query) for row in rows]
        return Page((*found.items, *(item for each in more for item in each.items)), found.next_token)

    return leaky


def _recall_everybody(original: Any) -> Any:
    async def leaky(self: Any, query: str = "", limit: int = 20) -> Any:
        rows = await self._reader.fetch(select(conversations.c.user_id).distinct())
        return tuple([note for row in rows for note in await original(_twin(self, row["user_id"]), query, limit)])

    return leaky


def _notes_for_the_first(original: Any) -> Any:
    first: list[Any] = []

    async def leaky(self: Any, text: str, idempotency: Any = None) -> Any:
        first.append(self._context)
        return await original(_twin(self, first[0].user_id), text, idempotency)

    return leaky


def _result_for_any_run(original: Any) -> Any:
    async def leaky(self: Any, result_id: str, run_id: str) -> Any:
        owner = await owner_of(self._reader, tool_results.c.result_id, result_id)
        if not owner:
            return await original(self, result_id, run_id)
        piece = await _twin(self, owner).result_piece(result_id, 0, 1 << 20)
        return piece.content.decode()

    return leaky


def _history_of_the_newest(original: Any) -> Any:
    async def leaky(self: Any, conversation_id: str, run_id: str) -> Any:
        rows = await self._reader.fetch(
            select(messages.c.user_id, messages.c.conversation_id, messages.c.run_id)
            .where(messages.c.run_id != run_id, messages.c.run_id != "")
            .order_by(messages.c.create_time.desc())
            .limit(1)
        )
        own = await original(self, conversation_id, run_id)
        if not rows:
            return own
        other = await original(_twin(self, rows[0]["user_id"]), rows[0]["conversation_id"], rows[0]["run_id"])
        return (*other, *own)

    return leaky


def _denied_where_foreign(original: Any) -> Any:
    async def leaky(self: Any, conversation_id: str) -> Any:
        try:
            return await original(self, conversation_id)
        except NotFoundError:
            if await owner_of(self._reader, _CONVERSATION, conversation_id):
                raise NotFoundError("foreign conversation") from None
            raise

    return leaky


def _titles_in_errors(original: Any) -> Any:
    async def leaky(self: Any, conversation_id: str) -> Any:
        rows = await self._reader.fetch(
            select(conversations.c.title).where(conversations.c.conversation_id == conversation_id)
        )
        try:
            return await original(self, conversation_id)
        except NotFoundError as error:
            if rows:
                error.metadata["title"] = str(rows[0]["title"])
            raise

    return leaky


def _one_current_user() -> None:
    """Keep the user in a variable of the process: right until somebody else's call comes in between."""
    current: list[str] = []
    bind, for_user = ContextBinder._bind, SqlStore.for_user

    def binding(self: ContextBinder, call: Any) -> None:
        bind(self, call)
        current[:] = [call.context.user_id]

    def leaky(self: SqlStore, context: Any) -> Any:
        return for_user(self, of_user(context, current[0]) if current else context)

    ContextBinder._bind = binding  # type: ignore[method-assign]  # breaking it is the point
    SqlStore.for_user = leaky  # type: ignore[method-assign]  # as above


def _inherited_user() -> None:
    """Keep the user in a context variable that the work of others inherits: the engine's, of whoever was first."""
    current: ContextVar[str] = ContextVar("current", default="")
    spawn, for_user = RunEngine._launch, SqlStore.for_user
    first: list[str] = []

    def launching(self: RunEngine, job: Any) -> None:
        first.append(job.context.user_id)
        current.set(first[-2] if len(first) > 1 else first[-1])
        spawn(self, job)

    def leaky(self: SqlStore, context: Any) -> Any:
        return for_user(self, of_user(context, current.get() or context.user_id))

    RunEngine._launch = launching  # type: ignore[method-assign]  # breaking it is the point
    SqlStore.for_user = leaky  # type: ignore[method-assign]  # as above


def _context_of_the_first_call(original: Any) -> Any:
    first: list[Any] = []

    def leaky(self: Any, context: Any, *arguments: Any) -> None:
        first.append(context)
        original(self, first[0], *arguments)

    return leaky


def _answers_by_the_question(original: Any) -> Any:
    answers: dict[str, list[Any]] = {}

    async def leaky(self: Any, context: Any, request: Any) -> Any:
        question = repr(request.messages[-1])
        if question not in answers:
            answers[question] = [chunk async for chunk in original(self, context, request)]
        for chunk in answers[question]:
            yield chunk

    return leaky


def _messages_that_stay(original: Any) -> Any:
    kept: list[Any] = []

    def leaky(self: Any, *arguments: Any) -> Any:
        system, *others = original(self, *arguments)
        kept.extend(others)
        return [system, *kept[-12:]]

    return leaky


def _words_in_the_log(original: Any) -> Any:
    async def leaky(self: Any, context: Any, spec: Any, idempotency: Any) -> Any:
        structlog.get_logger(__name__).info("run_asked_for", input=repr(spec.input))
        return await original(self, context, spec, idempotency)

    return leaky


def _copies_of_events(original: Any) -> Any:
    copied = text(
        "INSERT OR IGNORE INTO tool_result_contents (result_id, content) SELECT run_id || first_seq, frames "
        "FROM run_archive WHERE run_id IN (SELECT run_id FROM runs WHERE conversation_id = :conversation_id)"
    )

    def leaky(connection: Any, user_id: str, conversation_id: str, now: int) -> Any:
        connection.execute(copied, {"conversation_id": conversation_id})
        return original(connection, user_id, conversation_id, now)

    return leaky


def _contexts_of_the_first() -> None:
    """Give all runs that a new process takes over the context of one of them."""
    recover = RunEngine._launch
    first: list[Any] = []

    def leaky(self: RunEngine, job: Any) -> None:
        if job.transcript.is_begun:
            first.append(job.context)
            job = replace(job, context=first[0])
        recover(self, job)

    RunEngine._launch = leaky  # type: ignore[method-assign]  # breaking it is the point


PLANTS_OF_STATE = (
    Plant("page_tokens", "a page token is not bound to its user", _tokens_of_anybody),
    Plant("request_ids", "a request id counts for everybody", replaced(request_ids, "_key", _request_ids_of_everybody)),
    Plant("search", "a search is his OR matches", replaced(SqlConversationRepository, "list", _search_or)),
    Plant(
        "recall", "the tool recall searches everybody's notes", replaced(SqlNoteRepository, "find", _recall_everybody)
    ),
    Plant(
        "remember",
        "notes are kept for whoever kept the first",
        replaced(SqlNoteRepository, "add", _notes_for_the_first),
    ),
    Plant(
        "read_result",
        "the tool read_result reads by the id alone",
        replaced(SqlToolCallRepository, "result_for_run", _result_for_any_run),
    ),
    Plant(
        "history",
        "the model is told of the newest conversation, too",
        replaced(SqlConversationRepository, "history", _history_of_the_newest),
    ),
    Plant(
        "foreign_words",
        "a foreign conversation is refused in words of its own",
        replaced(SqlConversationRepository, "get", _denied_where_foreign),
    ),
    Plant(
        "title_in_error",
        "an error tells the foreign title",
        replaced(SqlConversationRepository, "get", _titles_in_errors),
    ),
    Plant(
        "prefix",
        "a pattern of act_as covers all that begins like it",
        replaced(
            principal,
            "fits",
            lambda _: lambda patterns, name: any(name.startswith(each.rstrip("*")) for each in patterns),
        ),
    ),
    Plant(
        "any_claim",
        "a user may claim to be another",
        replaced(Principal, "may_act_as", lambda _: lambda _self, _user_id: True),
    ),
    Plant("global_user", "the current user is a variable of the process", _one_current_user),
    Plant("inherited_user", "the current user is a context variable that runs inherit", _inherited_user),
    Plant(
        "tool_context",
        "tools are called in the context of the first call",
        replaced(Executions, "__init__", _context_of_the_first_call),
    ),
    Plant("recovered_context", "what a new process takes over has one context", _contexts_of_the_first),
    Plant(
        "answer_cache",
        "the model's answers are kept by the question",
        replaced(OpenAIService, "stream", _answers_by_the_question),
    ),
    Plant(
        "message_list",
        "the list of messages is not made anew",
        replaced(ToolLoopAgent, "_messages_so_far", _messages_that_stay),
    ),
    Plant(
        "conversation_cache",
        "conversations are kept by their ids",
        replaced(
            SqlConversationRepository,
            "get",
            lambda get: remembering(get, lambda _self, conversation_id: conversation_id),
        ),
    ),
    Plant(
        "page_cache",
        "pages of the archive are kept by their seq",
        replaced(archive, "_read", lambda read: remembering(read, lambda _reader, _run_id, seq: seq)),
    ),
    Plant(
        "credential_cache",
        "secrets are kept by their slot",
        replaced(CredentialChain, "find", lambda find: remembering(find, lambda _self, _user_id, slot: slot)),
    ),
    Plant("log", "the log has what users ask", replaced(RunEngine, "start", _words_in_the_log)),
    Plant(
        "deleted_events",
        "a deletion leaves a copy of the events",
        replaced(conversation_repository, "delete_conversation", _copies_of_events),
    ),
    Plant(
        "deleted_words",
        "a deletion leaves the words of the search",
        replaced(search, "remove", lambda _: lambda _connection, _id: None),
    ),
)
