"""A run that asks its user, on every engine: it waits, and goes on as he says, whoever asks him and whatever dies."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from contract.recovery.asking import (
    ALWAYS,
    BOOKING,
    NEVER,
    NO,
    WHOLE,
    WRITES,
    YES,
    asked,
    kinds_of,
    pending,
    resolutions_of,
    state_of,
    waiting_run,
)
from contract.recovery.marking_tools import World
from contract.recovery.recovering import RememberingModel, an_engine, calls, history_of, statuses_of
from contract.recovery.test_steering import MumblingDatabase
from contract.storage.conftest import OpenStore
from contract.storage.engines import Engine
from contract.storage.test_repositories import spec
from parley.v1 import run_pb2
from parley_server.domain.approval import (
    ApprovalDecidedError,
    ApprovalExpiredError,
    ApprovalState,
)
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import NotFoundError, StorageUnavailableError
from parley_server.domain.run import RunState, UnattendedPolicy
from parley_server.domain.tool import ApprovalRule, ToolEffect
from parley_server.storage.page import PageRequest
from parley_server.storage.repositories import ApprovalFilter
from parley_server.storage.sql.acting import ADMINISTRATION
from parley_server.storage.sql.driver import savepoint
from sqlalchemy import Connection, text
from unit.agents.scripted_model import say
from unit.tools.made_tools import made_tool

SHORT = timedelta(milliseconds=100)


async def test_the_other_calls_are_done_and_the_one_waits(open_same_store: OpenStore, ann: RequestContext) -> None:
    world, model = World(), RememberingModel([calls(("read", 1), ("book", 2), ("put", 3)), say("Done.")])
    async with open_same_store() as store, an_engine(store, model, world.tools(), policy=WRITES) as engine:
        run_id, [approval] = await waiting_run(engine, store, ann)
        assert sorted(name for name, _, _ in world.marks) == ["put", "read"]
        assert (approval.tool_name, approval.effect, approval.arguments_json) == ("book", ToolEffect.WRITE, '{"n":2}')
        decided = await engine.decide(ann, approval.approval_id, YES)
        events = await history_of(store, ann, run_id)
        run = await store.for_user(ann).runs.get(run_id)
    assert (decided.state, decided.decider, decided.decide_time is not None) == (
        ApprovalState.APPROVED,
        "user:ann",
        True,
    )
    assert statuses_of(events) == {("read", 1): "OK", ("book", 2): "OK", ("put", 3): "OK"}
    assert kinds_of(events) == WHOLE
    assert (run.state, run.attempt) == (RunState.SUCCEEDED, 1)
    assert [name for name, _, _ in world.marks].count("book") == 1


async def test_what_he_refuses_is_not_done_and_the_model_hears_why(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    world, model = World(), RememberingModel(BOOKING)
    async with open_same_store() as store, an_engine(store, model, world.tools(), policy=WRITES) as engine:
        run_id, [approval] = await waiting_run(engine, store, ann)
        await engine.decide(ann, approval.approval_id, NO)
        events = await history_of(store, ann, run_id)
    assert statuses_of(events) == {("book", 1): "DENIED"}
    assert resolutions_of(events) == ["DENIED"]
    [finished] = [event.tool_call_finished for event in events if event.HasField("tool_call_finished")]
    assert finished.error_code == "APPROVAL_DENIED"
    assert "not today" in finished.result_json
    assert world.marks == []
    assert events[-1].run_finished.state == run_pb2.RUN_STATE_SUCCEEDED


async def test_what_nobody_answers_expires(open_same_store: OpenStore, ann: RequestContext) -> None:
    world, model = World(), RememberingModel(BOOKING)
    async with (
        open_same_store() as store,
        an_engine(store, model, world.tools(), policy=WRITES, approval_expiry=SHORT) as engine,
    ):
        run = await engine.start(ann, spec(), None)
        events = await history_of(store, ann, run.run_id)
        [approval] = (await store.for_user(ann).approvals.list(ApprovalFilter(), PageRequest(9))).items
        with pytest.raises(ApprovalExpiredError):
            await engine.decide(ann, approval.approval_id, YES)
    assert (statuses_of(events), resolutions_of(events)) == ({("book", 1): "DENIED"}, ["EXPIRED"])
    [finished] = [event.tool_call_finished for event in events if event.HasField("tool_call_finished")]
    assert finished.error_code == "APPROVAL_EXPIRED"
    assert (approval.state, approval.decider, world.marks) == (ApprovalState.EXPIRED, "", [])


async def test_what_expires_while_nobody_is_there_is_expired_at_the_next_start(
    engine: Engine, open_same_store: OpenStore, ann: RequestContext
) -> None:
    world = World()
    async with (
        open_same_store() as store,
        an_engine(store, RememberingModel(BOOKING), world.tools(), policy=WRITES) as runs,
    ):
        run_id, _ = await waiting_run(runs, store, ann)
    await changed(engine, "UPDATE approvals SET expire_time = 1")
    async with open_same_store() as store, an_engine(store, RememberingModel(BOOKING), world.tools()) as runs:
        await runs.recover()
        events = await history_of(store, ann, run_id)
    assert (statuses_of(events), resolutions_of(events)) == ({("book", 1): "DENIED"}, ["EXPIRED"])


async def test_a_run_waits_over_restarts_and_no_attempt_is_counted(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    world = World()
    async with (
        open_same_store() as store,
        an_engine(store, RememberingModel(BOOKING), world.tools(), policy=WRITES) as engine,
    ):
        run_id, [approval] = await waiting_run(engine, store, ann)
    for _ in range(2):
        model = RememberingModel(BOOKING)
        async with open_same_store() as store, an_engine(store, model, world.tools(), policy=WRITES) as engine:
            await engine.recover()
            assert await state_of(store, ann, run_id) is RunState.WAITING_APPROVAL
            assert model.requests == []
    model = RememberingModel(BOOKING)
    async with open_same_store() as store, an_engine(store, model, world.tools(), policy=WRITES) as engine:
        await engine.recover()
        await engine.decide(ann, approval.approval_id, YES)
        events = await history_of(store, ann, run_id)
        run = await store.for_user(ann).runs.get(run_id)
    assert kinds_of(events) == WHOLE
    assert (run.attempt, {event.attempt for event in events}) == (1, {1})
    assert statuses_of(events) == {("book", 1): "OK"}
    assert len(world.marks) == 1
    assert len(model.requests) == 1


async def test_an_answer_that_a_crash_kept_from_the_run_is_told_at_the_next_start(
    open_same_store: OpenStore, ann: RequestContext
) -> None:
    world = World()
    async with (
        open_same_store() as store,
        an_engine(store, RememberingModel(BOOKING), world.tools(), policy=WRITES) as engine,
    ):
        run_id, [approval] = await waiting_run(engine, store, ann)
        # By the store alone: the engine does not hear of it.
        await store.for_user(ann).approvals.decide(approval.approval_id, YES)
    async with (
        open_same_store() as store,
        an_engine(store, RememberingModel(BOOKING), world.tools(), policy=WRITES) as engine,
    ):
        await engine.recover()
        events = await history_of(store, ann, run_id)
    assert (kinds_of(events), statuses_of(events)) == (WHOLE, {("book", 1): "OK"})
    assert len(world.marks) == 1


async def test_it_waits_until_all_are_answered(open_same_store: OpenStore, ann: RequestContext) -> None:
    world, model = World(), RememberingModel([calls(("book", 1), ("book", 2), ("book", 3)), say("Done.")])
    async with open_same_store() as store, an_engine(store, model, world.tools(), policy=WRITES) as engine:
        run_id, [first, second, third] = await waiting_run(engine, store, ann)
        await engine.decide(ann, second.approval_id, NO)
        await engine.decide(ann, third.approval_id, YES)
        assert await pending(store, ann, run_id) == [first]
        assert await state_of(store, ann, run_id) is RunState.WAITING_APPROVAL
        assert world.marks == []
        await engine.decide(ann, first.approval_id, YES)
        events = await history_of(store, ann, run_id)
    assert statuses_of(events) == {("book", 1): "OK", ("book", 2): "DENIED", ("book", 3): "OK"}
    assert resolutions_of(events) == ["DENIED", "APPROVED", "APPROVED"]
    assert sorted(number for _, number, _ in world.marks) == [1, 3]


async def test_it_is_answered_once(open_same_store: OpenStore, ann: RequestContext, bob: RequestContext) -> None:
    world, model = World(), RememberingModel(BOOKING)
    async with open_same_store() as store, an_engine(store, model, world.tools(), policy=WRITES) as engine:
        run_id, [approval] = await waiting_run(engine, store, ann)
        for foreign in (approval.approval_id, "apr_absent"):
            with pytest.raises(NotFoundError, match="approval not found"):
                await engine.decide(bob, foreign, YES)
        first = await engine.decide(ann, approval.approval_id, YES)
        assert await engine.decide(ann, approval.approval_id, YES) == first
        events = await history_of(store, ann, run_id)
        assert await engine.decide(ann, approval.approval_id, YES) == first
        for other in (NO, ALWAYS):
            with pytest.raises(ApprovalDecidedError):
                await engine.decide(ann, approval.approval_id, other)
    assert statuses_of(events) == {("book", 1): "OK"}


async def test_of_answers_that_race_exactly_one_counts(open_same_store: OpenStore, ann: RequestContext) -> None:
    world, model = World(), RememberingModel(BOOKING)
    async with open_same_store() as store, an_engine(store, model, world.tools(), policy=WRITES) as engine:
        run_id, [approval] = await waiting_run(engine, store, ann)
        answers = [YES, NO, ALWAYS, NEVER] * 4
        deciding = (engine.decide(ann, approval.approval_id, answer) for answer in answers)
        came = await asyncio.gather(*deciding, return_exceptions=True)
        events = await history_of(store, ann, run_id)
    told = [each for each in came if not isinstance(each, ApprovalDecidedError)]
    assert len(told) == 4
    assert len(set(map(repr, told))) == 1
    assert len(resolutions_of(events)) == 1
    assert len(world.marks) == (resolutions_of(events) == ["APPROVED"])


@pytest.mark.parametrize(
    ("policy", "state", "stop_reason", "status"),
    [
        (UnattendedPolicy.DENY, run_pb2.RUN_STATE_SUCCEEDED, run_pb2.STOP_REASON_ANSWERED, "DENIED"),
        (UnattendedPolicy.FAIL, run_pb2.RUN_STATE_FAILED, run_pb2.STOP_REASON_APPROVAL_NEEDED, "CANCELLED"),
    ],
)
async def test_a_run_that_does_not_wait(
    policy: UnattendedPolicy, state: int, stop_reason: int, status: str, open_same_store: OpenStore, ann: RequestContext
) -> None:
    world, model = World(), RememberingModel([calls(("read", 1), ("book", 2)), say("Done.")])
    async with open_same_store() as store, an_engine(store, model, world.tools(), policy=WRITES) as engine:
        run = await engine.start(ann, spec(unattended_policy=policy), None)
        events = await history_of(store, ann, run.run_id)
        approvals = await store.for_user(ann).approvals.list(ApprovalFilter(), PageRequest(9))
    assert (events[-1].run_finished.state, events[-1].run_finished.stop_reason) == (state, stop_reason)
    assert statuses_of(events) == {("read", 1): "OK", ("book", 2): status}
    assert (kinds_of(events), approvals.items) == ([], ())
    assert [name for name, _, _ in world.marks] == ["read"]


async def test_a_tool_of_another_description_is_asked_for_anew(open_same_store: OpenStore, ann: RequestContext) -> None:
    world = World()
    old = made_tool("book", effect=ToolEffect.READ, approval=ApprovalRule.ALWAYS)
    async with open_same_store() as store, an_engine(store, RememberingModel(BOOKING), [old]) as engine:
        run_id, [first] = await waiting_run(engine, store, ann)
        await store.for_user(ann).approvals.decide(first.approval_id, YES)
    async with (
        open_same_store() as store,
        an_engine(store, RememberingModel(BOOKING), world.tools(), policy=WRITES) as engine,
    ):
        await engine.recover()
        [second] = await asked(store, ann, run_id)
        assert (first.effect, second.effect, second.call_id) == (ToolEffect.READ, ToolEffect.WRITE, first.call_id)
        await engine.decide(ann, second.approval_id, NO)
        events = await history_of(store, ann, run_id)
    assert (statuses_of(events), world.marks) == ({("book", 1): "DENIED"}, [])


async def test_an_answer_for_other_arguments_lets_nothing_pass(
    engine: Engine, open_same_store: OpenStore, ann: RequestContext
) -> None:
    world = World()
    async with (
        open_same_store() as store,
        an_engine(store, RememberingModel(BOOKING), world.tools(), policy=WRITES) as runs,
    ):
        run_id, [first] = await waiting_run(runs, store, ann)
        await store.for_user(ann).approvals.decide(first.approval_id, YES)
    # As if what he saw had been the arguments of another call.
    await changed(engine, "UPDATE approvals SET fingerprint = 'x'")
    async with (
        open_same_store() as store,
        an_engine(store, RememberingModel(BOOKING), world.tools(), policy=WRITES) as runs,
    ):
        await runs.recover()
        [second] = await asked(store, ann, run_id)
        assert world.marks == []
        await runs.decide(ann, second.approval_id, YES)
        events = await history_of(store, ann, run_id)
    assert (statuses_of(events), len(world.marks)) == ({("book", 1): "OK"}, 1)


async def changed(engine: Engine, statement: str) -> None:
    """Change a database that nobody has open."""

    def change(connection: Connection) -> None:
        with savepoint(connection, ADMINISTRATION):
            connection.execute(text(statement))

    async with engine.open() as database:
        await database.transaction(change)


async def test_an_answer_that_is_stored_and_of_which_nobody_heard_lets_the_run_go_on(
    tmp_path: Path, ann: RequestContext
) -> None:
    world, database = World(), MumblingDatabase(tmp_path / "parley.db")
    async with (
        database.opened() as store,
        an_engine(store, RememberingModel(BOOKING), world.tools(), policy=WRITES) as engine,
    ):
        run_id, [approval] = await waiting_run(engine, store, ann)
        database.mumbles = True
        with pytest.raises(StorageUnavailableError):
            await engine.decide(ann, approval.approval_id, YES)
        events = await history_of(store, ann, run_id)
    assert (kinds_of(events), statuses_of(events)) == (WHOLE, {("book", 1): "OK"})
