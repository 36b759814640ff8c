"""Tools that ask in the middle of a call, on every engine: the run waits, and what happens is what the user said."""

from datetime import timedelta

import pytest
from contract.recovery.asking import ALWAYS, NO, WHOLE, WRITES, YES, asked, kinds_of, resolutions_of, waiting_run
from contract.recovery.questioning import QuestioningWorld, question
from contract.recovery.recovering import RememberingModel, an_engine, calls, history_of, statuses_of
from contract.storage.conftest import OpenStore
from contract.storage.test_repositories import spec
from parley.v1 import run_pb2
from parley_server.domain.approval import ApprovalState
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import InvalidRequestError, NotFoundError
from parley_server.domain.run import UnattendedPolicy
from parley_server.storage.page import PageRequest
from parley_server.storage.repositories import ApprovalFilter
from parley_server.tools.confirmations import MAX_QUESTIONS
from unit.agents.scripted_model import say

ONE = [calls(("book", 1)), say("Done.")]


async def test_each_question_is_an_approval_and_the_call_happens_after_the_last(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    world, model = QuestioningWorld(), RememberingModel([calls(("book", 2), ("read", 7), ("read", 7)), say("Done.")])
    async with open_same_store() as store, an_engine(store, model, world.tools(), policy=WRITES) as engine:
        run_id, approvals = await waiting_run(engine, store, ann)
        assert {(each.tool_name, each.question) for each in approvals} == {("book", ""), ("read", question("read", 0))}
        seen = list(approvals)
        for _ in range(2):
            for approval in approvals:
                await engine.decide(ann, approval.approval_id, YES)
            assert not [mark for mark in world.marks if mark[0] == "book"]
            approvals = await asked(store, ann, run_id)
            seen += approvals
        await engine.decide(ann, approvals[0].approval_id, YES)
        events = await history_of(store, ann, run_id)
    told = [event.approval_requested for event in events if event.HasField("approval_requested")]
    assert [(each.approval_id, each.question) for each in told] == [(each.approval_id, each.question) for each in seen]
    assert [each.question for each in seen if each.tool_name == "book"] == [
        "",
        question("book", 0),
        question("book", 1),
    ]
    assert statuses_of(events) == {("book", 2): "OK", ("read", 7): "OK"}
    assert sorted(mark[:2] for mark in world.marks) == [("book", 2), ("read", 7)]


async def test_a_question_waits_over_a_restart(open_same_store: OpenStore, ann: RequestContext) -> None:
    world = QuestioningWorld()
    async with open_same_store() as store, an_engine(store, RememberingModel(ONE), world.tools()) as engine:
        run_id, [before] = await waiting_run(engine, store, ann)
    async with open_same_store() as store, an_engine(store, RememberingModel(ONE), world.tools()) as engine:
        await engine.recover()
        [after] = await asked(store, ann, run_id)
        assert (after, after.confirmation) == (before, before.confirmation)
        await engine.decide(ann, after.approval_id, YES)
        events = await history_of(store, ann, run_id)
    assert (kinds_of(events), statuses_of(events)) == (WHOLE, {("book", 1): "OK"})
    assert len(world.marks) == 1


async def test_what_he_denies_never_happens(open_same_store: OpenStore, ann: RequestContext) -> None:
    world = QuestioningWorld()
    async with open_same_store() as store, an_engine(store, RememberingModel(ONE), world.tools()) as engine:
        run_id, [approval] = await waiting_run(engine, store, ann)
        await engine.decide(ann, approval.approval_id, NO)
        events = await history_of(store, ann, run_id)
    [finished] = [event.tool_call_finished for event in events if event.HasField("tool_call_finished")]
    assert (finished.error_code, statuses_of(events)) == ("APPROVAL_DENIED", {("book", 1): "DENIED"})
    assert "not today" in finished.result_json
    assert world.marks == []


async def test_what_nobody_answers_never_happens(open_same_store: OpenStore, ann: RequestContext) -> None:
    world, short = QuestioningWorld(), timedelta(milliseconds=50)
    model = RememberingModel(ONE)
    async with open_same_store() as store, an_engine(store, model, world.tools(), approval_expiry=short) as engine:
        run = await engine.start(ann, spec(), None)
        events = await history_of(store, ann, run.run_id)
    assert (statuses_of(events), resolutions_of(events)) == ({("book", 1): "DENIED"}, ["EXPIRED"])
    assert world.marks == []


async def test_an_answer_is_the_users_own_and_holds_for_the_question_alone(
    open_same_store: OpenStore, ann: RequestContext, bob: RequestContext
) -> None:
    world = QuestioningWorld()
    async with open_same_store() as store, an_engine(store, RememberingModel(ONE), world.tools()) as engine:
        run_id, [approval] = await waiting_run(engine, store, ann)
        with pytest.raises(NotFoundError):
            await engine.decide(bob, approval.approval_id, YES)
        with pytest.raises(InvalidRequestError, match="remember"):
            await engine.decide(ann, approval.approval_id, ALWAYS)
        still = await store.for_user(ann).approvals.get(approval.approval_id)
        assert still.state is ApprovalState.PENDING
        await engine.decide(ann, approval.approval_id, YES)
        assert statuses_of(await history_of(store, ann, run_id)) == {("book", 1): "OK"}


@pytest.mark.parametrize(
    ("policy", "state", "stop_reason", "status"),
    [
        (UnattendedPolicy.DENY, run_pb2.RUN_STATE_SUCCEEDED, run_pb2.STOP_REASON_ANSWERED, "DENIED"),
        (UnattendedPolicy.FAIL, run_pb2.RUN_STATE_FAILED, run_pb2.STOP_REASON_APPROVAL_NEEDED, "CANCELLED"),
    ],
)
async def test_a_run_that_does_not_wait_asks_nothing(
    policy: UnattendedPolicy, state: int, stop_reason: int, status: str, open_same_store: OpenStore, ann: RequestContext
) -> None:
    world = QuestioningWorld()
    async with open_same_store() as store, an_engine(store, RememberingModel(ONE), world.tools()) as engine:
        run = await engine.start(ann, spec(unattended_policy=policy), None)
        events = await history_of(store, ann, run.run_id)
        approvals = await store.for_user(ann).approvals.list(ApprovalFilter(), PageRequest(9))
    assert (events[-1].run_finished.state, events[-1].run_finished.stop_reason) == (state, stop_reason)
    assert statuses_of(events) == {("book", 1): status}
    assert (kinds_of(events), approvals.items, world.marks) == ([], (), [])


async def test_a_tool_that_asks_without_end_is_refused(open_same_store: OpenStore, ann: RequestContext) -> None:
    world, model = QuestioningWorld(), RememberingModel([calls(("book", MAX_QUESTIONS + 1)), say("Done.")])
    async with open_same_store() as store, an_engine(store, model, world.tools()) as engine:
        run_id, approvals = await waiting_run(engine, store, ann)
        for number in range(MAX_QUESTIONS):
            assert [each.question for each in approvals] == [question("book", number)]
            await engine.decide(ann, approvals[0].approval_id, YES)
            if number + 1 < MAX_QUESTIONS:
                approvals = await asked(store, ann, run_id)
        events = await history_of(store, ann, run_id)
    [finished] = [event.tool_call_finished for event in events if event.HasField("tool_call_finished")]
    assert (finished.error_code, world.marks) == ("TOO_MANY_QUESTIONS", [])
