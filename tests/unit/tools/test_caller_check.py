"""Before each WRITE: is the run's caller still let in. A call that the user has approved himself is not asked about."""

from datetime import UTC, datetime

import pytest
from parley_server.domain.access_errors import AuthUnavailableError, CredentialsInvalidError
from parley_server.domain.approval import Approval, ApprovalState
from parley_server.domain.principal import Principal
from parley_server.domain.tool import ApprovalRule, CallState, ToolCallStatus, ToolEffect, ToolResult, ToolSpec
from parley_server.tools.approval_gate import Asking
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.fingerprint import fingerprint
from parley_server.tools.registry import ToolRegistry
from unit.tools.made_tools import made_tool
from unit.tools.run_sink import RunSink
from unit.tools.tool_turns import Counting, a_call, check, error_of
from unit.tools.user_context import context_of

ANN = context_of("ann")
DENIED, OK = ToolCallStatus.DENIED, ToolCallStatus.OK
ENDED, UNKNOWN = CredentialsInvalidError(), AuthUnavailableError("not now", retry_after_s=1.0)


class Door:
    """Lets callers pass until it is `closed` by an error."""

    def __init__(self, closed: Exception | None = None) -> None:
        self.closed = closed
        self.asked: list[Principal] = []

    async def __call__(self, principal: Principal) -> None:
        self.asked.append(principal)
        if self.closed is not None:
            raise self.closed


class Bench:
    """Tools of every effect, and what was done by them."""

    def __init__(self, door: Door, approval: ApprovalRule = ApprovalRule.NEVER) -> None:
        self.counting, self.sink = Counting(), RunSink()
        made = [made_tool(effect.value, self.counting, effect=effect, approval=approval) for effect in ToolEffect]
        self.registry = ToolRegistry(made)
        self.manager = ToolCallManager(self.registry, check=door)

    async def run(self, *names: str, approvals: tuple[Approval, ...] = ()) -> tuple[ToolResult, ...]:
        calls = [a_call(number, name) for number, name in enumerate(names)]
        plan = self.manager.plan(ANN, "run_1", calls, self.registry.names)
        results = await self.manager.run(ANN, plan, self.sink, asking=Asking(approvals=approvals))
        check(calls, results, self.sink)
        return results

    def spec(self, name: str) -> ToolSpec:
        return self.registry.specs([name])[0]


@pytest.mark.parametrize(
    ("closed", "code", "may_try_again"),
    [(ENDED, "credential_ended", False), (UNKNOWN, "credential_unverified", True)],
)
async def test_a_write_is_not_made_for_a_caller_who_is_let_in_no_more(
    closed: Exception, code: str, may_try_again: bool
) -> None:
    door = Door(closed)
    bench = Bench(door)
    read, put, write = await bench.run("read", "idempotent", "write")
    assert (read.status, put.status, write.status, write.error_code) == (OK, OK, DENIED, code)
    assert error_of(write)["retryable"] is may_try_again
    assert len(bench.counting.contexts) == 2
    assert door.asked == [ANN.principal]
    # It counts as never begun: a crash now leaves no doubt.
    assert not bench.sink.is_dispatched("call_2")


async def test_every_write_is_asked_about_when_its_turn_comes() -> None:
    door = Door()
    bench = Bench(door)
    assert [each.status for each in await bench.run("write", "write")] == [OK, OK]
    assert len(door.asked) == 2
    door.closed = ENDED
    bench.sink = RunSink()
    assert [each.error_code for each in await bench.run("write", "write")] == ["credential_ended"] * 2
    assert len(bench.counting.contexts) == 2


def approval_of(spec: ToolSpec, call_id: str, state: ApprovalState, user_id: str = "ann", number: int = 0) -> Approval:
    now = datetime.now(UTC)
    return Approval(
        approval_id="approval_1",
        user_id=user_id,
        conversation_id="conv_1",
        run_id="run_1",
        call_id=call_id,
        tool_name=spec.name,
        tool_description=spec.description,
        effect=spec.effect,
        arguments_json=f'{{"n":{number}}}',
        fingerprint=fingerprint(spec.name, {"n": number}),
        spec_hash=spec.spec_hash,
        create_time=now,
        expire_time=now,
        state=state,
    )


async def test_what_the_user_has_approved_himself_counts_by_that() -> None:
    door = Door(ENDED)
    bench = Bench(door, ApprovalRule.ALWAYS)
    approved = approval_of(bench.spec("write"), "call_0", ApprovalState.APPROVED)
    [result] = await bench.run("write", approvals=(approved,))
    assert result.status is OK
    assert door.asked == []


@pytest.mark.parametrize(
    ("call_id", "user_id", "number"), [("call_9", "ann", 0), ("call_0", "bob", 0), ("call_0", "ann", 7)]
)
async def test_an_approval_of_another_call_user_or_argument_counts_for_nothing(
    call_id: str, user_id: str, number: int
) -> None:
    bench = Bench(Door(ENDED))
    other = approval_of(bench.spec("write"), call_id, ApprovalState.APPROVED, user_id, number)
    [result] = await bench.run("write", approvals=(other,))
    assert (result.status, result.error_code) == (DENIED, "credential_ended")
    assert bench.sink.journal["call_0"].state in {CallState.PLANNED, CallState.DISPATCHED}
    assert not bench.counting.contexts
