"""One user's repositories, each made when it is asked for: a call needs one or two of them."""

from parley_server.domain.context import RequestContext
from parley_server.storage.account_repository import AccountRepository
from parley_server.storage.note_repository import NoteRepository
from parley_server.storage.page_tokens import PageTokens
from parley_server.storage.repositories import (
    ApprovalRepository,
    ConversationRepository,
    RunRepository,
    ToolCallRepository,
)
from parley_server.storage.sql.accounts import SqlAccountRepository
from parley_server.storage.sql.approvals import SqlApprovalRepository
from parley_server.storage.sql.conversations import SqlConversationRepository
from parley_server.storage.sql.database import Reader
from parley_server.storage.sql.notes import SqlNoteRepository
from parley_server.storage.sql.recorded_calls import SqlToolCallRepository
from parley_server.storage.sql.run_log import RunLog
from parley_server.storage.sql.runs import SqlRunRepository
from parley_server.storage.sql.usage import SqlUsageRepository
from parley_server.storage.sql.user_writer import UserWriter
from parley_server.storage.usage_repository import UsageRepository


class SqlUserStore:
    """Implements `UserStore` for the user of one context. `ttl` as in `open_store`, in microseconds."""

    __slots__ = ("_context", "_reader", "_run_log", "_tokens", "_ttl", "_writes")

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

    @property
    def conversations(self) -> ConversationRepository:
        """The user's conversations."""
        return SqlConversationRepository(
            self._context, self._reader, self._writes, self._run_log, self._tokens, ttl=self._ttl
        )

    @property
    def runs(self) -> RunRepository:
        """The user's runs."""
        return SqlRunRepository(self._context, self._reader, self._writes, self._run_log, self._tokens, ttl=self._ttl)

    @property
    def approvals(self) -> ApprovalRepository:
        """What the user is asked before tools are called."""
        return SqlApprovalRepository(self._context, self._reader, self._writes, self._tokens)

    @property
    def tool_calls(self) -> ToolCallRepository:
        """The calls in the user's runs."""
        return SqlToolCallRepository(self._context, self._reader, self._writes, self._tokens)

    @property
    def notes(self) -> NoteRepository:
        """What agents have kept of the user."""
        return SqlNoteRepository(self._context, self._reader, self._writes)

    @property
    def account(self) -> AccountRepository:
        """What the user has told of himself."""
        return SqlAccountRepository(self._context, self._reader, self._writes)

    @property
    def usage(self) -> UsageRepository:
        """What the user has used."""
        return SqlUsageRepository(self._context.user_id, self._reader, self._tokens)
