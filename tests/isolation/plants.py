"""Leaks that are planted in a server, each of a kind that others have had. The suite that misses one proves nothing."""

# plants take the place of functions of any kind

from isolation.plant import (
    Plant,
    call_in_the_owners_name,
    in_the_owners_name,
    list_of_everybody,
    of_user,
    owner_of,
    stream_in_the_owners_name,
)
from isolation.plants_of_delegation import PLANTS_OF_DELEGATION
from isolation.plants_of_state import PLANTS_OF_STATE
from parley_server.domain.context import RequestContext
from parley_server.domain.idempotency import Idempotency
from parley_server.domain.run import Run, RunSpec
from parley_server.rpc.servicers.conversation_service import ConversationServicer
from parley_server.runs.engine import RunEngine
from parley_server.storage.sql.acting import ADMINISTRATION
from parley_server.storage.sql.approvals import SqlApprovalRepository
from parley_server.storage.sql.conversations import SqlConversationRepository
from parley_server.storage.sql.database import Reader
from parley_server.storage.sql.notes import SqlNoteRepository
from parley_server.storage.sql.recorded_calls import SqlToolCallRepository
from parley_server.storage.sql.runs import SqlRunRepository
from parley_server.storage.sql.tables import approvals, conversations, notes, runs, tool_calls, tool_results

_CONVERSATION = conversations.c.conversation_id
_RUN = runs.c.run_id
_APPROVAL = approvals.c.approval_id


def _get_conversation() -> None:
    in_the_owners_name(SqlConversationRepository, "get", _CONVERSATION)()


def _start_anywhere() -> None:
    original = RunEngine.start

    async def leaky(self: RunEngine, context: RequestContext, spec: RunSpec, idempotency: Idempotency | None) -> Run:
        owner = await owner_of(Reader(self._store._database, ADMINISTRATION), _CONVERSATION, spec.conversation_id)  # type: ignore[attr-defined]  # the SQL store
        return await original(self, of_user(context, owner or context.user_id), spec, idempotency)

    RunEngine.start = leaky  # type: ignore[method-assign]  # breaking it is the point


def _export() -> None:
    """Let the export, and nothing else, be opened for the owner of what it is of."""
    original = ConversationServicer.export_conversation

    async def leaky(self, context, request):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202  # the original's
        owner = await owner_of(Reader(self._store._database, ADMINISTRATION), _CONVERSATION, request.conversation_id)
        return await original(self, of_user(context, owner or context.user_id), request)

    ConversationServicer.export_conversation = leaky  # type: ignore[method-assign]  # breaking it is the point


_OWNERS = (
    Plant("get_conversation", "GetConversation finds by the id alone", _get_conversation),
    Plant(
        "list_conversations",
        "ListConversations lists everybody's",
        list_of_everybody(SqlConversationRepository, conversations),
    ),
    Plant(
        "list_messages",
        "ListMessages finds by the conversation's id alone",
        in_the_owners_name(SqlConversationRepository, "messages", _CONVERSATION),
    ),
    Plant(
        "update_conversation",
        "UpdateConversation changes by the id alone",
        in_the_owners_name(SqlConversationRepository, "update", _CONVERSATION),
    ),
    Plant(
        "delete_conversation",
        "DeleteConversation deletes by the id alone",
        in_the_owners_name(SqlConversationRepository, "delete", _CONVERSATION),
    ),
    Plant("export_conversation", "ExportConversation opens what it is told to", _export),
    Plant(
        "accept_run",
        "StartRun goes on with a conversation by its id alone",
        _start_anywhere,
    ),
    Plant("get_run", "GetRun finds by the id alone", in_the_owners_name(SqlRunRepository, "get", _RUN)),
    Plant("list_runs", "ListRuns lists everybody's", list_of_everybody(SqlRunRepository, runs)),
    Plant("watch_run", "WatchRun follows by the id alone", stream_in_the_owners_name(SqlRunRepository, "watch", _RUN)),
    Plant("cancel_run", "CancelRun cancels by the id alone", call_in_the_owners_name(RunEngine, "cancel", _RUN)),
    Plant("steer_run", "SteerRun adds to a run by its id alone", call_in_the_owners_name(RunEngine, "steer", _RUN)),
    Plant(
        "get_approval",
        "GetApproval finds by the id alone",
        in_the_owners_name(SqlApprovalRepository, "get", _APPROVAL),
    ),
    Plant("list_approvals", "ListApprovals lists everybody's", list_of_everybody(SqlApprovalRepository, approvals)),
    Plant(
        "decide_approval",
        "DecideApproval answers by the id alone",
        call_in_the_owners_name(RunEngine, "decide", _APPROVAL),
    ),
    Plant("list_tool_calls", "ListToolCalls lists everybody's", list_of_everybody(SqlToolCallRepository, tool_calls)),
    Plant(
        "resolve_tool_call",
        "ResolveToolCall settles by the ids alone",
        in_the_owners_name(SqlToolCallRepository, "resolve", tool_calls.c.run_id),
    ),
    Plant(
        "get_tool_result",
        "GetToolResult reads by the id alone",
        in_the_owners_name(SqlToolCallRepository, "result_piece", tool_results.c.result_id),
    ),
    Plant(
        "forget_note",
        "the tool forget_note deletes by the id alone",
        in_the_owners_name(SqlNoteRepository, "delete", notes.c.note_id),
    ),
)

PLANTS: dict[str, Plant] = {plant.name: plant for plant in (*_OWNERS, *PLANTS_OF_STATE, *PLANTS_OF_DELEGATION)}
