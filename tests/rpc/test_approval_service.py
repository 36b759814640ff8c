"""Approvals through the public door: who may see them, who may answer, from where, and how often."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import grpc
import pytest
from parley.v1 import approval_pb2, tool_pb2
from parley_server.domain.principal import SERVICE_SCOPES, USER_SCOPES, PrincipalKind
from rpc.approval_server import APPROVE, DENY, ApprovalServer, approval_server
from rpc.chassis import Failure, failed
from run_history import check_run


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ApprovalServer]:
    async with approval_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


def told(failure: Failure) -> tuple[str, str, dict[str, str]]:
    return failure.code.name, failure.reason, failure.metadata


async def test_it_is_answered_from_another_connection_and_who_watches_sees_it(
    server: ApprovalServer, stack: AsyncExitStack
) -> None:
    here, there = [await server.caller(stack, "ann") for _ in range(2)]
    run_id, approval = await here.waiting_run()
    watching = asyncio.create_task(here.watch(run_id))
    assert (approval.tool_name, approval.arguments_json) == ("book", '{"n":1}')
    assert (approval.tool_description, approval.effect) == ("Does book.", tool_pb2.TOOL_EFFECT_WRITE)
    assert (approval.run_id, approval.state) == (run_id, approval_pb2.APPROVAL_STATE_PENDING)
    assert approval.expire_time.seconds - approval.create_time.seconds == 15 * 60
    assert approval.WhichOneof("decider") is None
    assert not approval.HasField("decide_time")
    decided = await there.decide(approval.approval_id, APPROVE, "go on")
    assert (decided.state, decided.user_id, decided.reason) == (approval_pb2.APPROVAL_STATE_APPROVED, "ann", "go on")
    assert decided.remember == approval_pb2.APPROVAL_REMEMBER_ONCE
    assert decided.HasField("decide_time")
    events = await watching
    check_run(events)
    [resolved] = [event.approval_resolved for event in events if event.HasField("approval_resolved")]
    assert (resolved.approval_id, resolved.reason) == (approval.approval_id, "go on")
    assert await there.approval(approval.approval_id) == decided


async def test_it_is_answered_once(server: ApprovalServer, stack: AsyncExitStack) -> None:
    ann = await server.caller(stack, "ann")
    run_id, approval = await ann.waiting_run()
    first = await ann.decide(approval.approval_id, DENY, "no")
    assert await ann.decide(approval.approval_id, DENY, "not at all") == first
    refused = ("FAILED_PRECONDITION", "APPROVAL_DECIDED", {"state": "DENIED", "remember": "ONCE"})
    assert told(await failed(ann.decide(approval.approval_id, APPROVE))) == refused
    check_run(await ann.watch(run_id))
    assert told(await failed(ann.decide(approval.approval_id, APPROVE))) == refused


async def test_after_the_runs_end_it_is_too_late(server: ApprovalServer, stack: AsyncExitStack) -> None:
    ann = await server.caller(stack, "ann")
    run_id, approval = await ann.waiting_run()
    await ann.cancel(run_id)
    failure = await failed(ann.decide(approval.approval_id, APPROVE))
    assert told(failure) == ("FAILED_PRECONDITION", "APPROVAL_CANCELLED", {})


async def test_of_two_answers_from_two_connections_one_counts(server: ApprovalServer, stack: AsyncExitStack) -> None:
    callers = [await server.caller(stack, "ann") for _ in range(4)]
    run_id, approval = await callers[0].waiting_run()
    answers = [APPROVE, DENY, APPROVE, DENY]
    came = await asyncio.gather(
        *(caller.decide(approval.approval_id, answer) for caller, answer in zip(callers, answers, strict=True)),
        return_exceptions=True,
    )
    assert len([each for each in came if isinstance(each, grpc.aio.AioRpcError)]) == 2
    assert len({each.state for each in came if isinstance(each, approval_pb2.Approval)}) == 1
    check_run(await callers[0].watch(run_id))


async def test_nobody_else_sees_or_answers_it(server: ApprovalServer, stack: AsyncExitStack) -> None:
    ann, bob = await server.caller(stack, "ann"), await server.caller(stack, "bob")
    run_id, approval = await ann.waiting_run()
    for id_ in (approval.approval_id, "apr_absent"):
        for call in (bob.approval(id_), bob.decide(id_, APPROVE)):
            failure = await failed(call)
            assert (told(failure)[:2], failure.message) == (("NOT_FOUND", "RESOURCE_NOT_FOUND"), "approval not found")
    assert await bob.listed() == []
    for wanted in ({"run_id": run_id}, {"conversation_id": approval.conversation_id}):
        assert told(await failed(bob.listed(**wanted)))[0] == "NOT_FOUND"
        assert await ann.listed(**wanted) == [approval]


@pytest.mark.parametrize(
    ("scopes", "may"),
    [((), False), (tuple(SERVICE_SCOPES), False), (tuple(USER_SCOPES), True)],
    ids=["none named", "all but one", "all"],
)
async def test_a_service_relays_an_answer_with_the_scope_alone(
    scopes: tuple[str, ...], may: bool, server: ApprovalServer, stack: AsyncExitStack
) -> None:
    ann = await server.caller(stack, "ann")
    bot = await server.caller(stack, "bot", PrincipalKind.SERVICE, scopes, acts_for="ann")
    run_id, approval = await bot.waiting_run()
    assert await bot.approval(approval.approval_id) == await ann.approval(approval.approval_id)
    if may:
        decided = await bot.decide(approval.approval_id, APPROVE)
        assert (decided.WhichOneof("decider"), decided.service_id) == ("service_id", "bot")
    else:
        failure = await failed(bot.decide(approval.approval_id, APPROVE))
        assert told(failure) == ("PERMISSION_DENIED", "SCOPE_MISSING", {"scope": "approvals:decide"})
        assert (await ann.decide(approval.approval_id, DENY)).user_id == "ann"
    check_run(await ann.watch(run_id))


async def test_they_are_listed_by_state_in_pages(server: ApprovalServer, stack: AsyncExitStack) -> None:
    eve = await server.caller(stack, "eve")
    made = [await eve.waiting_run() for _ in range(3)]
    await eve.decide(made[1][1].approval_id, DENY)
    listed = await eve.listed()
    assert [each.approval_id for each in listed] == [approval.approval_id for _, approval in reversed(made)]
    pending = await eve.listed(states=[approval_pb2.APPROVAL_STATE_PENDING])
    assert pending == [listed[0], listed[2]]
    assert await eve.listed(page_size=2) == listed[:2]
    assert {each.state for each in await eve.listed(states=[2, 3])} == {approval_pb2.APPROVAL_STATE_DENIED}
