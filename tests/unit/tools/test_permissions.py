"""Who may use a tool: who has every scope it asks for, and nobody else learns that it is there."""

import pytest
from parley_server.domain.context import RequestContext
from parley_server.domain.principal import ALL_SCOPES, ALL_TOOLS_SCOPE
from parley_server.domain.tool import CallRecord, CallState, ToolCallStatus, ToolEffect, UnansweredCall
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.tool import Tool
from unit.tools.made_tools import made_tool
from unit.tools.run_sink import RunSink
from unit.tools.tool_turns import Counting, a_call, check, error_of
from unit.tools.user_context import context_of

REFUNDS = frozenset({"tool:refunds"})


def with_scopes(*scopes: str) -> RequestContext:
    context = context_of()
    return context.model_copy(update={"principal": context.principal.model_copy(update={"scopes": frozenset(scopes)})})


@pytest.mark.parametrize("effect", list(ToolEffect))
async def test_a_call_without_the_scope_is_denied_and_happens_not(effect: ToolEffect) -> None:
    counting, sink = Counting(), RunSink()
    manager = ToolCallManager(ToolRegistry([made_tool("refund", counting, effect=effect, required_scopes=REFUNDS)]))
    context = with_scopes("runs:write", "admin")
    calls = [a_call(1, "refund"), a_call(2, "refund", '{"scopes":["tool:refunds"],"user_id":"admin"}')]
    results = await manager.run(context, manager.plan(context, "run_1", calls, ["refund"]), sink)
    check(calls, results, sink)
    assert [(each.status, each.error_code) for each in results] == [(ToolCallStatus.DENIED, "permission_denied")] * 2
    assert "tool:refunds" in str(error_of(results[0])["message"])
    assert {record.state for record in sink.journal.values()} == {CallState.PLANNED}
    assert not counting.contexts


@pytest.mark.parametrize(
    ("scopes", "offered"),
    [
        ([], ["open"]),
        (["runs:write"], ["open"]),
        (["tool:refunds"], ["open", "refund"]),
        (["tool:refunds", "runs:write"], ["open", "refund", "report"]),
        ([*ALL_SCOPES], ["open"]),
        ([*ALL_SCOPES, ALL_TOOLS_SCOPE], ["open", "refund", "report"]),
        ([ALL_TOOLS_SCOPE], ["open", "refund"]),
    ],
)
def test_only_what_the_caller_may_use_is_offered(scopes: list[str], offered: list[str]) -> None:
    tools: list[Tool] = [
        made_tool("open"),
        made_tool("refund", required_scopes=REFUNDS),
        made_tool("report", required_scopes=REFUNDS | {"runs:write"}),
    ]
    manager = ToolCallManager(ToolRegistry(tools))
    specs = manager.offered(with_scopes(*scopes), ["open", "refund", "report", "gone"])
    assert [spec.name for spec in specs] == offered


async def test_an_unknown_name_does_not_lead_to_what_the_caller_may_not_use() -> None:
    manager = ToolCallManager(ToolRegistry([made_tool("refund", required_scopes=REFUNDS), made_tool("report")]))
    plan = manager.plan(context_of(), "run_1", [a_call(1, "refunds")], ["refund", "report"])
    [result] = await manager.run(context_of(), plan, RunSink())
    assert error_of(result)["hint"] == "Nearest tools: report."


@pytest.mark.parametrize("state", [CallState.PLANNED, CallState.DISPATCHED])
async def test_after_a_crash_what_was_not_begun_is_denied_too(state: CallState) -> None:
    counting, sink = Counting(), RunSink()
    manager = ToolCallManager(ToolRegistry([made_tool("refund", counting, required_scopes=REFUNDS)]))
    call = a_call(1, "refund")
    left = UnansweredCall(call, CallRecord(call.call_id, "item_1", "refund", ToolEffect.READ, state, "f", "key"))
    await manager.resume(context_of(), "run_1", [left], sink)
    was_allowed = state is CallState.DISPATCHED
    assert sink.finished()["call_1"].error_code == ("" if was_allowed else "permission_denied")
    assert len(counting.contexts) == was_allowed
