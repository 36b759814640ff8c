"""For those who write tools: calls one as the server would, without a server.

outcome = await call_tool(find_book, {"isbn": "9780141439518"}, user_id="ann")
assert outcome.result == {"title": "Pride and Prejudice"}
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from pydantic import JsonValue, SecretStr

from parley_server.domain.context import RequestContext
from parley_server.domain.identifiers import new_id
from parley_server.domain.principal import ALL_SCOPES, ALL_TOOLS_SCOPE, Principal, PrincipalKind
from parley_server.domain.run import UnattendedPolicy
from parley_server.domain.run_event import EventBody, ItemEvent, ToolCallProgress
from parley_server.domain.tool import CallRecord, ToolCall, ToolCallStatus, ToolResult
from parley_server.tools.approval_gate import ApprovalGate, Asking
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.tool import Tool
from parley_server.tools.turn_plan import TurnPlan

EVERY_SCOPE = ALL_SCOPES | {ALL_TOOLS_SCOPE}

_RUN_ID = "run_of_a_test"


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """What a call came to: its status, all that the model is told, and what the user sees of `context.progress`."""

    status: ToolCallStatus
    told: Mapping[str, JsonValue]
    progress: tuple[tuple[str, float | None], ...] = ()
    truncated: bool = False

    @property
    def result(self) -> JsonValue:
        """What the tool returned, as the model reads it. Raises AssertionError, with the reason, when it failed."""
        if self.status is not ToolCallStatus.OK:
            raise AssertionError(f"the call is {self.status.value}: {self.told['error']}")
        return self.told["result"]

    @property
    def error(self) -> Mapping[str, JsonValue]:
        """What the model is told of a failure: `code`, `message`, `retryable`, and what else there is to say.

        Raises AssertionError when the call did not fail.
        """
        if self.status is ToolCallStatus.OK:
            raise AssertionError(f"the call was answered: {self.told['result']}")
        return cast("Mapping[str, JsonValue]", self.told["error"])


async def call_tool(  # noqa: PLR0913  # all that a call may depend on, each with a default
    tool: Tool,
    arguments: Mapping[str, JsonValue] | str,
    *,
    user_id: str = "ann",
    scopes: Iterable[str] = EVERY_SCOPE,
    credentials: Mapping[str, str] | None = None,
    time_zone: str = "UTC",
    call_id: str = "",
) -> CallOutcome:
    """Call a tool for a user and return what came of it: validated, timed and answered like a model's call.

    `arguments` may be text, as a model might write it. `credentials` are the user's secrets by slot. Calls with the
    same `call_id` and arguments have the same idempotency key, as after a crash. What the user would be asked before,
    counts as approved; what the tool asks in the middle of the call counts as denied.

    Raises:
        ValidationError: `user_id` or `time_zone` is none.
    """
    sink = _Sink()
    context = _context(user_id, scopes, time_zone)
    manager = ToolCallManager(ToolRegistry([tool]), gate=_Approved(), credentials=_Secrets(user_id, credentials or {}))
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    name = tool.spec.name
    plan = manager.plan(context, _RUN_ID, [ToolCall(call_id or new_id("call"), name, text)], [name])
    [result] = await manager.run(context, plan, sink, asking=Asking(policy=UnattendedPolicy.DENY))
    return _outcome(result, sink.progress)


def _outcome(result: ToolResult, progress: Sequence[tuple[str, float | None]]) -> CallOutcome:
    told = cast("Mapping[str, JsonValue]", json.loads(result.result_json))
    return CallOutcome(result.status, told, tuple(progress), result.truncated)


def _context(user_id: str, scopes: Iterable[str], time_zone: str) -> RequestContext:
    principal = Principal(kind=PrincipalKind.USER, subject=user_id, scopes=frozenset(scopes), method="test")
    now = datetime.now(UTC)
    return RequestContext(
        user_id=user_id, principal=principal, request_id=new_id("req"), timestamp=now, time_zone=time_zone
    )


class _Approved(ApprovalGate):
    """Asks nobody."""

    async def passed(self, context: RequestContext, asking: Asking, plan: TurnPlan) -> TurnPlan:  # noqa: ARG002
        """Let everything pass."""
        return plan


class _Secrets:
    """Implements `CredentialSource` with the secrets of one user."""

    def __init__(self, user_id: str, secrets: Mapping[str, str]) -> None:
        self._user_id = user_id
        self._secrets = dict(secrets)

    async def find(self, user_id: str, slot: str) -> SecretStr | None:
        """Return the user's secret; see `CredentialSource.find`."""
        secret = self._secrets.get(slot) if user_id == self._user_id else None
        return None if secret is None else SecretStr(secret)


class _Sink:
    """Implements `EventSink` where nothing is kept but what the tool tells of its progress."""

    def __init__(self) -> None:
        self.progress: list[tuple[str, float | None]] = []

    async def emit(self, body: EventBody, item_id: str = "") -> None:
        """Take one event."""
        await self.emit_all([(body, item_id)])

    async def emit_all(self, events: Sequence[ItemEvent], calls: Sequence[CallRecord] = ()) -> None:  # noqa: ARG002
        """Take events."""
        told = [body for body, _ in events if isinstance(body, ToolCallProgress)]
        self.progress += [(body.message, body.fraction) for body in told]

    async def dispatched(self, call_ids: Sequence[str]) -> None:
        """Note nothing."""

    async def withdrawn(self, call_ids: Sequence[str]) -> None:
        """Note nothing."""

    async def flush(self) -> None:
        """Keep nothing."""
