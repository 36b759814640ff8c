"""Which calls the user is asked about: none that cannot be done, each once, and what was let through not again."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from parley_server.domain.approval import Approval, ApprovalState
from parley_server.domain.run import UnattendedPolicy
from parley_server.domain.tool import (
    ApprovalRule,
    CallRecord,
    CallState,
    ToolCall,
    ToolEffect,
    ToolSpec,
    UnansweredCall,
)
from parley_server.tools.approval_gate import ApprovalNeededError, Asking
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.fingerprint import fingerprint
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.tool import ToolContext, tool
from pydantic import BaseModel, ConfigDict
from unit.tools.made_tools import made_tool
from unit.tools.run_sink import RunSink
from unit.tools.user_context import context_of

ANN = context_of("ann")
ASKING = Asking("assistant", "conv_1")


class Sum(BaseModel):
    model_config = ConfigDict(extra="forbid")
    n: int


@tool(effect=ToolEffect.WRITE, approval=ApprovalRule.ALWAYS)
async def pay(context: ToolContext, arguments: Sum) -> Sum:  # noqa: ARG001  # the shape of every tool
    """Pay."""
    return arguments


TOOLS = ToolRegistry(
    [
        pay,
        made_tool("look", effect=ToolEffect.READ, approval=ApprovalRule.ALWAYS),
        made_tool("put", effect=ToolEffect.IDEMPOTENT, approval=ApprovalRule.ALWAYS),
        made_tool("free", effect=ToolEffect.WRITE),
    ]
)
Outcome = tuple[dict[str, str], list[tuple[str, ...]]]


async def first_time(*calls: tuple[str, str], asking: Asking = ASKING) -> Outcome:
    """Run a turn; return how its calls ended, by id, and which jobs wait for the user."""
    manager, sink = ToolCallManager(TOOLS), RunSink()
    made = [ToolCall(f"c{number}", name, arguments) for number, (name, arguments) in enumerate(calls)]
    try:
        await manager.run(ANN, manager.plan(ANN, "run_1", made, TOOLS.names), sink, asking=asking)
    except ApprovalNeededError as needed:
        return _codes(sink), [job.call_ids for job in needed.held]
    return _codes(sink), []


async def again(name: str, state: CallState, *approvals: Approval) -> Outcome:
    """Answer a call that an earlier attempt has left; return as `first_time` does."""
    sink, record = RunSink(), CallRecord("c0", "item_0", name, _spec(name).effect, state, "f", "key")
    left = [UnansweredCall(ToolCall("c0", name, '{"n":1}'), record)]
    try:
        await ToolCallManager(TOOLS).resume(ANN, "run_1", left, sink, asking=replace(ASKING, approvals=approvals))
    except ApprovalNeededError as needed:
        return _codes(sink), [job.call_ids for job in needed.held]
    return _codes(sink), []


def _spec(name: str) -> ToolSpec:
    found = TOOLS.get(name)
    assert found is not None
    return found.spec


def _codes(sink: RunSink) -> dict[str, str]:
    return {call_id: body.error_code or "ok" for call_id, body in sink.finished().items()}


def approval(name: str = "pay", state: ApprovalState = ApprovalState.APPROVED) -> Approval:
    """Make the approval of `again`'s call."""
    now = datetime.now(UTC)
    return Approval(
        approval_id="apr_1",
        user_id="ann",
        conversation_id="conv_1",
        run_id="run_1",
        call_id="c0",
        tool_name=name,
        tool_description="",
        effect=_spec(name).effect,
        arguments_json='{"n":1}',
        fingerprint=fingerprint(name, {"n": 1}),
        spec_hash=_spec(name).spec_hash,
        create_time=now,
        expire_time=now,
        state=state,
    )


async def test_what_cannot_be_done_is_refused_and_asks_nobody() -> None:
    calls = [("pay", '{"n":"much"}'), ("pay", "{"), ("pay", '{"n":1}'), ("pay", '{"n":1}'), ("none", "{}")]
    codes, held = await first_time(*calls)
    assert held == [("c2",)]
    refused = {"c0": "invalid_arguments", "c1": "invalid_arguments", "c3": "duplicate", "c4": "unknown_tool"}
    assert codes == refused


async def test_one_question_for_calls_that_are_one() -> None:
    codes, held = await first_time(("look", "{}"), ("free", "{}"), ("look", "{}"))
    assert (codes, held) == ({"c1": "ok"}, [("c0", "c2")])


async def test_where_nobody_is_asked_it_is_refused() -> None:
    asking = replace(ASKING, policy=UnattendedPolicy.DENY)
    assert await first_time(("pay", '{"n":1}'), ("free", "{}"), asking=asking) == (
        {"c0": "approval_denied", "c1": "ok"},
        [],
    )


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (ApprovalState.APPROVED, "ok"),
        (ApprovalState.DENIED, "approval_denied"),
        (ApprovalState.EXPIRED, "approval_expired"),
    ],
)
@pytest.mark.parametrize("name", ["pay", "look", "put"])
async def test_an_answer_is_followed(name: str, state: ApprovalState, code: str) -> None:
    assert await again(name, CallState.PLANNED, approval(name, state)) == ({"c0": code}, [])


@pytest.mark.parametrize(
    "changes",
    [
        {"fingerprint": fingerprint("pay", {"n": 2})},
        {"fingerprint": fingerprint("put", {"n": 1})},
        {"spec_hash": "0" * 64},
        {"user_id": "bob"},
        {"call_id": "c1"},
        {"state": ApprovalState.PENDING},
    ],
    ids=str,
)
async def test_an_answer_to_another_question_is_none(changes: dict[str, object]) -> None:
    other = replace(approval(), **changes)  # type: ignore[arg-type]  # fields by name
    assert await again("pay", CallState.PLANNED, other) == ({}, [("c0",)])


async def test_the_newest_answer_that_fits_counts() -> None:
    old, new = replace(approval(), spec_hash="0" * 64), approval(state=ApprovalState.DENIED)
    for answers in ((old, new), (new, old)):
        assert await again("pay", CallState.PLANNED, *answers) == ({"c0": "approval_denied"}, [])


@pytest.mark.parametrize(
    ("name", "answers", "code"),
    [
        ("look", (), "ok"),
        ("put", (), "ok"),
        ("put", (approval("put"),), "ok"),
        ("put", (approval("put", ApprovalState.DENIED),), "unknown_outcome"),
        ("look", (approval("look", ApprovalState.DENIED),), "approval_denied"),
        ("pay", (approval("pay"),), "unknown_outcome"),
    ],
)
async def test_what_was_dispatched_is_done_again_or_in_doubt(
    name: str, answers: tuple[Approval, ...], code: str
) -> None:
    assert await again(name, CallState.DISPATCHED, *answers) == ({"c0": code}, [])


async def test_what_was_dispatched_as_another_tool_is_asked_for_anew() -> None:
    drifted = replace(approval("put"), spec_hash="0" * 64)
    assert await again("put", CallState.DISPATCHED, drifted) == ({}, [("c0",)])
