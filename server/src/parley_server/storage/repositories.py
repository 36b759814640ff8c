"""The doors to stored data that serve callers. Every one is opened for a user: there is no unscoped method."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from parley_server.domain.approval import Approval, ApprovalAnswer, ApprovalState
from parley_server.domain.content import ContentPart
from parley_server.domain.context import RequestContext
from parley_server.domain.conversation import Conversation, ConversationChanges
from parley_server.domain.idempotency import Idempotency
from parley_server.domain.message import Message
from parley_server.domain.quota import Limit
from parley_server.domain.recorded_call import RecordedCall
from parley_server.domain.resolution import CallOutcome
from parley_server.domain.run import Run, RunSpec, RunState
from parley_server.domain.run_event import HistoryTruncated, StoredEvent
from parley_server.domain.tool import ToolCallStatus
from parley_server.domain.whole_result import ResultPiece
from parley_server.storage.account_repository import AccountRepository
from parley_server.storage.api_key_repository import ApiKeyRepository
from parley_server.storage.note_repository import NoteRepository
from parley_server.storage.page import Page, PageRequest
from parley_server.storage.usage_repository import UsageRepository

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs of the user; empty fields do not filter."""

    conversation_id: str = ""
    states: tuple[RunState, ...] = ()
    agent_id: str = ""
    labels: tuple[tuple[str, str], ...] = ()


class ConversationRepository(Protocol):
    """The user's conversations."""

    async def create(
        self, title: str, metadata: Mapping[str, str], idempotency: Idempotency | None = None
    ) -> Conversation:
        """Store a new conversation; the same idempotency record answers with the first one, as it is now.

        Raises:
            RequestIdReusedError: the request id was used for another request.
        """
        ...

    async def get(self, conversation_id: str) -> Conversation:
        """Return one. Raises NotFoundError."""
        ...

    async def list(self, page: PageRequest, query: str = "") -> Page[Conversation]:
        """List, last changed first; one that changes between two pages may move past them.

        `query` leaves those in whose title or messages every word of it occurs, the last one as a word's beginning.

        Raises:
            PageTokenInvalidError: the token is not one of this list.
        """
        ...

    async def update(self, conversation_id: str, changes: ConversationChanges, etag: str = "") -> Conversation:
        """Change one; an empty `etag` is not compared.

        Raises:
            NotFoundError: no such conversation for this user.
            EtagMismatchError: it has changed since the one with this etag was read.
        """
        ...

    async def delete(self, conversation_id: str, *, allow_missing: bool = False) -> None:
        """Delete one with its messages, its runs and their logs.

        Of a request that made it or a run of it there stays, for the time a request id is remembered, that it was made.

        Raises:
            NotFoundError: no such conversation for this user, unless `allow_missing`.
            ConversationBusyError: a run of it is under way or waits.
        """
        ...

    async def fork(
        self, conversation_id: str, message_id: str = "", title: str = "", idempotency: Idempotency | None = None
    ) -> Conversation:
        """Store a new conversation that begins with a copy of this one's messages; see `create` for repetitions.

        The copies end with `message_id`, empty for all, and have ids of their own; an empty title is this one's.

        Raises:
            NotFoundError: no such conversation for this user, or no such message in it.
            RequestIdReusedError: the request id was used for another request.
        """
        ...

    async def messages(self, conversation_id: str, page: PageRequest) -> Page[Message]:
        """List a conversation's messages, oldest first. Raises NotFoundError, PageTokenInvalidError."""
        ...

    async def history(self, conversation_id: str, run_id: str) -> tuple[Message, ...]:
        """Return what a run goes on from: the messages of the runs before it, then its own input.

        Runs before the one that the newest summary's last message is of are left out.
        """
        ...


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What accepting a run came to.

    `created` is False when an equal request had been accepted before; `starts_now` tells a new run that has its
    conversation to itself from one that waits. `interrupted_run_id` names the run that is CANCELLING for its sake.
    """

    run: Run
    created: bool
    starts_now: bool
    interrupted_run_id: str = ""


class RunRepository(Protocol):
    """The user's runs and their logs."""

    async def accept(self, spec: RunSpec, idempotency: Idempotency | None, limits: Sequence[Limit] = ()) -> Acceptance:
        """Accept a run in one transaction: the run, its input message, `run_accepted`, the request id.

        `limits` have to leave room for it, and are asked in that transaction; an equal request made before has its run
        already.

        An empty `spec.conversation_id` makes a new conversation. The run belongs to this process from here on. Under
        the policy INTERRUPT the conversation's active run is CANCELLING then, and this one is the next.

        Raises:
            NotFoundError: no such conversation for this user.
            ConversationBusyError: it has a run under way and the policy is REJECT.
            QueueFullError: four runs wait already.
            QuotaExceededError: a limit leaves no room.
            RequestIdReusedError: the request id was used for another request.
        """
        ...

    async def accepted(self, idempotency: Idempotency | None) -> Run | None:
        """Return the run that an equal request had accepted before, as it is now; None where there was none.

        Raises:
            NotFoundError: the run is deleted meanwhile.
            RequestIdReusedError: the request id was used for another request.
        """
        ...

    async def steer(self, run_id: str, parts: tuple[ContentPart, ...], idempotency: Idempotency | None) -> str:
        """Add the user's words to a run under way; durable when this returns the id of the addition.

        Raises:
            NotFoundError: no such run for this user.
            RunNotSteerableError: the run is being cancelled or has ended.
            QueueFullError: sixteen additions have not been applied yet.
            InvalidRequestError: the images of the run, those it has and these, are too much together.
            RequestIdReusedError: the request id was used for another request.
        """
        ...

    async def get(self, run_id: str) -> Run:
        """Return one. Raises NotFoundError."""
        ...

    async def list(self, run_filter: RunFilter, page: PageRequest) -> Page[Run]:
        """List, latest created first, without `output_text`. Raises PageTokenInvalidError.

        A filter that names somebody else's conversation raises NotFoundError, like an absent one.
        """
        ...

    def watch(self, run_id: str, after_seq: int) -> AsyncGenerator[tuple[StoredEvent, ...] | HistoryTruncated]:
        """Follow the log: every durable event with a seq above `after_seq`, in order, to the end of the run.

        Yields what has become durable since the last batch, and an empty batch after 15 s of quiet. Where events above
        `after_seq` are folded away a `HistoryTruncated` comes first, and the seqs after it have gaps.

        Raises:
            NotFoundError: no such run for this user.
            CursorAheadError: `after_seq` lies beyond the end of the log.
        """
        ...


@dataclass(frozen=True, slots=True)
class ApprovalFilter:
    """Which approvals of the user; empty fields do not filter."""

    states: tuple[ApprovalState, ...] = ()
    conversation_id: str = ""
    run_id: str = ""


class ApprovalRepository(Protocol):
    """What the user is, and was, asked before tools are called."""

    async def get(self, approval_id: str) -> Approval:
        """Return one. Raises NotFoundError."""
        ...

    async def list(self, approval_filter: ApprovalFilter, page: PageRequest) -> Page[Approval]:
        """List, the newest first.

        Raises:
            NotFoundError: the filter names a run or conversation that is not there for this user.
            PageTokenInvalidError: the token is not one of this list.
        """
        ...

    async def decide(self, approval_id: str, answer: ApprovalAnswer) -> Approval:
        """Answer one that is pending, and remember the answer if that is asked for; durable when this returns.

        One that is past its time becomes EXPIRED instead; one that is not pending stays as it is. The run itself hears
        of it from who calls this. Returns the approval as it stands then. Raises NotFoundError.
        """
        ...

    async def remembered(self, conversation_id: str, tool_name: str, spec_hash: str) -> bool | None:
        """Return the answer that holds for the calls of a tool in a conversation; None where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class ToolCallFilter:
    """Which calls of the user; empty fields do not filter. `unresolved` leaves those in doubt that nobody settled."""

    conversation_id: str = ""
    run_id: str = ""
    statuses: tuple[ToolCallStatus, ...] = ()
    unresolved: bool = False


class ToolCallRepository(Protocol):
    """The calls in the user's runs, and the results that were too large to be told whole."""

    async def list(self, call_filter: ToolCallFilter, page: PageRequest) -> Page[RecordedCall]:
        """List, the newest run's calls first, and of a run the newest first.

        Raises:
            NotFoundError: the filter names a run or conversation that is not there for this user.
            PageTokenInvalidError: the token is not one of this list.
        """
        ...

    async def resolve(self, run_id: str, call_id: str, outcome: CallOutcome, note: str) -> RecordedCall:
        """Settle a call in doubt, as the caller says; again the same is no error. Return it as it stands.

        Raises:
            NotFoundError: no such call for this user.
            ToolCallResolvedError: it was settled otherwise.
            ToolCallNotInDoubtError: its outcome is known, or it has none yet.
        """
        ...

    async def result_piece(self, result_id: str, offset: int, max_bytes: int) -> ResultPiece:
        """Return a piece of a whole result; places are in bytes. Raises NotFoundError."""
        ...

    async def result_for_run(self, result_id: str, run_id: str) -> str:
        """Return a whole result that the conversation of a run of the user's has. Raises NotFoundError."""
        ...


class UserStore(Protocol):
    """Everything one user has."""

    @property
    def conversations(self) -> ConversationRepository:
        """The user's conversations."""
        ...

    @property
    def runs(self) -> RunRepository:
        """The user's runs."""
        ...

    @property
    def approvals(self) -> ApprovalRepository:
        """What the user is asked before tools are called."""
        ...

    @property
    def tool_calls(self) -> ToolCallRepository:
        """The calls in the user's runs."""
        ...

    @property
    def notes(self) -> NoteRepository:
        """What agents have kept of the user."""
        ...

    @property
    def account(self) -> AccountRepository:
        """What the user has told of himself."""
        ...

    @property
    def usage(self) -> UsageRepository:
        """What the user has used."""
        ...


class Store(Protocol):
    """The one way to data for anything that serves a caller."""

    def for_user(self, context: RequestContext) -> UserStore:
        """Open the store for the effective user of a checked context."""
        ...

    @property
    def api_keys(self) -> ApiKeyRepository:
        """The keys of this server."""
        ...

    @property
    def usage(self) -> UsageRepository:
        """What all users have used; for administrators."""
        ...
