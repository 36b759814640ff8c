"""What a tool may ask in the middle of a call, and what becomes of that where nobody is asked."""

import pytest
from parley_server.domain.approval import MAX_QUESTION_BYTES, MAX_QUESTION_STATE_BYTES
from parley_server.domain.tool import ToolCallStatus, ToolEffect
from parley_server.testing import call_tool
from parley_server.tools.approval_gate import ApprovalNeededError
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.errors import ConfirmationNeededError
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.tool import JsonObject, ToolContext
from unit.tools.made_tools import made_tool
from unit.tools.run_sink import RunSink
from unit.tools.tool_turns import a_call
from unit.tools.user_context import context_of


async def ask(context: ToolContext, arguments: JsonObject) -> object:  # noqa: ARG001  # the shape of every tool
    secret = (await context.credential("desk")).get_secret_value() if context.credential_slots else ""
    raise ConfirmationNeededError(f"Sure? {secret}", f"state {secret}")


@pytest.mark.parametrize(
    ("question", "state"),
    [
        ("", ""),
        (" \n", ""),
        ("a\0b", ""),
        ("\ud800", ""),
        ("a", "\0"),
        ("ä" * (MAX_QUESTION_BYTES // 2 + 1), ""),
        ("a", "b" * (MAX_QUESTION_STATE_BYTES + 1)),
    ],
)
def test_a_question_that_cannot_be_kept_or_shown_is_none(question: str, state: str) -> None:
    with pytest.raises(ValueError, match="it "):
        ConfirmationNeededError(question, state)


async def test_a_call_that_asks_is_held_and_not_dispatched() -> None:
    registry, sink = ToolRegistry([made_tool("ask", ask, effect=ToolEffect.WRITE)]), RunSink()
    manager = ToolCallManager(registry)
    with pytest.raises(ApprovalNeededError) as needed:
        await manager.run(context_of(), manager.plan(context_of(), "run_1", [a_call(1, "ask")], ["ask"]), sink)
    [held] = needed.value.held
    assert held.question is not None
    assert (held.question.question, held.question.state) == ("Sure? ", "state ")
    assert not sink.is_dispatched("call_1")
    assert sink.finished() == {}


async def test_a_question_is_denied_where_nobody_is_asked_and_holds_no_secret() -> None:
    asking = made_tool("ask", ask, credential_slots=("desk",))
    outcome = await call_tool(asking, {}, credentials={"desk": "hunter2hunter2"})
    assert outcome.status is ToolCallStatus.DENIED
    assert "Sure? [secret]" in str(outcome.told)
